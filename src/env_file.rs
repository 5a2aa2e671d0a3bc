//! Files of environment variables: `NAME=value`, one a line.
//!
//! Blank lines and those that begin with `#` are skipped, and so is an `export` before the name. A value between single
//! quotes is taken as it is; between double quotes `\n`, `\t`, `\"`, `\\` and `\$` are understood; without quotes it ends
//! before ` #` or at the end of the line, less the blanks around it. Nothing is interpolated.

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct NotAnAssignment {
    /// Which one, from 1.
    pub line: usize,
    /// What is wrong with it. Never its value.
    pub problem: &'static str,
}

/// Reads such a file, in its order.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, NotAnAssignment> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().map(|(at, line)| (at, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| {
            let problem = |problem| NotAnAssignment {
                line: at + 1,
                problem,
            };
            assignment(line).map_err(problem)
        })
        .collect()
}

fn assignment(line: &str) -> Result<(String, String), &'static str> {
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or("expected `NAME=value`")?;
    let name = name.trim();
    if name.is_empty() || name.contains(char::is_whitespace) || name.contains('\0') {
        return Err("expected a name before `=`");
    }
    Ok((name.to_owned(), value_of(value.trim())?))
}

fn value_of(text: &str) -> Result<String, &'static str> {
    if text.contains('\0') {
        return Err("a value cannot have a NUL byte");
    }
    let (value, rest) = if let Some(quoted) = text.strip_prefix('\'') {
        let (value, rest) = quoted.split_once('\'').ok_or("the quote does not end")?;
        (value.to_owned(), rest)
    } else if let Some(quoted) = text.strip_prefix('"') {
        unescaped(quoted)?
    } else {
        let value = text
            .split_once(" #")
            .map_or(text, |(value, _)| value.trim_end());
        (value.to_owned(), "")
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(value)
    } else {
        Err("something follows the closing quote")
    }
}

/// Up to the closing double quote, and what follows it.
fn unescaped(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c @ ('"' | '\\' | '$'))) => value.push(c),
                Some((_, c)) => value.extend(['\\', c]),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err("the quote does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_and_without_quotes() {
        let text = "\u{feff}# a comment\n\nA=1\r\nexport B = two words # not this\nC='it''\nC='# $x \\n' # nor this\nD=\"a\\n\\\"b\\\"\\$c\\d\"\nE=\nF=a=b#c\n";
        assert_eq!(
            parse(text).unwrap_err(),
            NotAnAssignment {
                line: 5,
                problem: "something follows the closing quote"
            }
        );
        let text = text.replace("C='it''\n", "");
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "# $x \\n"),
            ("D", "a\n\"b\"$c\\d"),
            ("E", ""),
            ("F", "a=b#c"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(&text).unwrap(), expected);
    }

    #[test]
    fn what_is_no_assignment_is_refused_without_its_value() {
        for (line, problem) in [
            ("secret", "expected `NAME=value`"),
            ("=secret", "expected a name before `=`"),
            ("A B=secret", "expected a name before `=`"),
            ("A='secret", "the quote does not end"),
            ("A=\"secret\\\"", "the quote does not end"),
            ("A=sec\0ret", "a value cannot have a NUL byte"),
        ] {
            let error = parse(&format!("\n{line}\n")).unwrap_err();
            assert_eq!((error.line, error.problem), (2, problem), "{line}");
        }
    }
}
