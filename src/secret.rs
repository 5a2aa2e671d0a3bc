//! What looks like a secret, so that it is shown nowhere: in no log, no answer, no trace and no file of ours.
//!
//! Environment values are secrets whatever they look like; whoever shows an environment shows names only. Arguments are
//! shown, but for what is recognised here. What is recognised too often costs a look into the manifest, what is recognised
//! too seldom costs a password: in doubt it is a secret.

use std::borrow::Cow;

/// What stands where a secret stood.
pub const HIDDEN: &str = "***";

/// Words that make a name that of a secret, wherever they stand in it, also at the end of a longer one (`PGPASSWORD`).
const WORDS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secrets",
    "token",
    "credential",
    "credentials",
    "apikey",
    "bearer",
    "authorization",
    "cookie",
    "dsn",
    "jwt",
];
/// Words that do so only at the end: `--pass-through` is none, `--db-pass` is one.
const LAST_WORDS: [&str; 4] = ["pass", "pwd", "auth", "key"];
/// At the end these say that the value is where a secret is kept, and not the secret.
const KEPT_IN: [&str; 7] = ["file", "path", "dir", "directory", "name", "url", "type"];
/// How tokens of well-known services begin, and how long they are at least.
const TOKENS: [&str; 15] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "AIza",
    "eyJ",
];
const TOKEN_BYTES: usize = 16;

/// Whether what bears this name is likely to be a secret: `DB_PASSWORD`, `apiKey`, `--auth-token`.
pub fn is_name_of_secret(name: &str) -> bool {
    let words = words(name);
    let Some((last, before)) = words.split_last() else {
        return false;
    };
    if KEPT_IN.contains(&last.as_str()) || words[0] == "no" {
        return false;
    }
    let is_public = before.last().is_some_and(|word| word == "public");
    words
        .iter()
        .any(|word| WORDS.iter().any(|secret| word.ends_with(secret)))
        || (LAST_WORDS.contains(&last.as_str())
            && !is_public
            && (last != "key" || !before.is_empty()))
}

/// The words of a name, in small letters, however they are joined.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut was_lower = false;
    let mut begins = true;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() {
            begins = true;
            continue;
        }
        if begins || (was_lower && c.is_ascii_uppercase()) {
            words.push(String::new());
        }
        begins = false;
        was_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        if let Some(word) = words.last_mut() {
            word.push(c.to_ascii_lowercase());
        }
    }
    words
}

/// Arguments with what looks like a secret hidden.
pub fn arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Vec<Cow<'a, str>> {
    let mut next = Next::Plain;
    arguments
        .into_iter()
        .map(|argument| {
            let (shown, after) = word(argument, next);
            next = after;
            shown
        })
        .collect()
}

/// A line of text, such as one for a shell, with what looks like a secret hidden.
///
/// Words are what stands between blanks, quotes included: a secret that contains a blank is hidden up to its quote.
pub fn line(text: &str) -> Cow<'_, str> {
    let mut shown = String::with_capacity(text.len());
    let mut next = Next::Plain;
    let mut rest = text;
    while !rest.is_empty() {
        let blanks = rest.len() - rest.trim_start().len();
        let (blank, after) = rest.split_at(blanks);
        let (piece, after) = after.split_at(end_of_word(after));
        if blank.contains('\n') {
            next = Next::Plain;
        }
        let (piece, following) = word(piece, next);
        shown.push_str(blank);
        shown.push_str(&piece);
        next = following;
        rest = after;
    }
    if shown == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(shown)
    }
}

/// Where the first word ends; blanks within quotes do not end it.
fn end_of_word(text: &str) -> usize {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() => return at,
            (None | Some(_), _) => {}
        }
    }
    text.len()
}

/// What is known of a word by the one before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Plain,
    /// It is the value of a secret's name.
    Secret,
    /// It is a user, maybe with a password behind a colon.
    User,
}

/// A word as it may be shown, and what is known of the one after it.
fn word(text: &str, known: Next) -> (Cow<'_, str>, Next) {
    if known == Next::Secret && !text.starts_with('-') && !text.is_empty() {
        // `Authorization: Bearer …`: the scheme is none, what follows it is.
        let is_scheme = ["bearer", "basic"].contains(&text.to_ascii_lowercase().as_str());
        return if is_scheme {
            (Cow::Borrowed(text), Next::Secret)
        } else {
            (Cow::Borrowed(HIDDEN), Next::Plain)
        };
    }
    if known == Next::User
        && let Some((user, _)) = text.split_once(':')
    {
        return (Cow::Owned(format!("{user}:{HIDDEN}")), Next::Plain);
    }
    if let Some((name, value)) = assignment(text)
        && is_name_of_secret(name)
    {
        return if value.is_empty() {
            let header = text.ends_with(':');
            (
                Cow::Borrowed(text),
                if header { Next::Secret } else { Next::Plain },
            )
        } else {
            let before = &text[..text.len() - value.len()];
            let quote = closing_quote(value);
            (Cow::Owned(format!("{before}{HIDDEN}{quote}")), Next::Plain)
        };
    }
    let next = match text {
        "-u" | "--user" => Next::User,
        flag if flag.starts_with("--") && !flag.contains('=') && is_name_of_secret(flag) => {
            Next::Secret
        }
        _ => Next::Plain,
    };
    (without_tokens(text), next)
}

/// `NAME=value`, `--name=value`, `"Header: value"`; the value is everything after the sign.
fn assignment(text: &str) -> Option<(&str, &str)> {
    let at = text.find(['=', ':'])?;
    let name = text[..at].trim_start_matches(['"', '\'']);
    let is_name = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    is_name.then(|| (name, text[at + 1..].trim_start()))
}

/// The quote that ends a value and was opened before it.
fn closing_quote(value: &str) -> &str {
    let opens = value.starts_with(['"', '\'']);
    match value.strip_suffix(['"', '\'']) {
        Some(without) if !opens => &value[without.len()..],
        Some(_) | None => "",
    }
}

/// Hides the userinfo and the telling parameters of addresses, and tokens of well-known services.
fn without_tokens(text: &str) -> Cow<'_, str> {
    let hidden = without_parameters(&without_userinfo(text)).into_owned();
    let starts = |at: usize| {
        let rest = &hidden[at..];
        let is_begin = !hidden[..at].ends_with(is_of_token);
        let length = rest.find(|c: char| !is_of_token(c)).unwrap_or(rest.len());
        let is_token = TOKENS.iter().any(|token| rest.starts_with(token));
        (is_begin && is_token && length >= TOKEN_BYTES).then_some((at, at + length))
    };
    let found = hidden.char_indices().find_map(|(at, _)| starts(at));
    match found {
        Some((start, end)) => Cow::Owned(format!(
            "{}{HIDDEN}{}",
            &hidden[..start],
            without_tokens(&hidden[end..])
        )),
        None if hidden == text => Cow::Borrowed(text),
        None => Cow::Owned(hidden),
    }
}

fn is_of_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// `scheme://***@host`, whether it was a user, a token, or both a user and a password.
fn without_userinfo(text: &str) -> Cow<'_, str> {
    let Some((before, after)) = text.split_once("://") else {
        return Cow::Borrowed(text);
    };
    let end = after
        .find(|c: char| matches!(c, '/' | '?' | '#' | '"' | '\'') || c.is_whitespace())
        .unwrap_or(after.len());
    let (authority, rest) = after.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => authority.to_owned(),
    };
    Cow::Owned(format!("{before}://{authority}{}", without_userinfo(rest)))
}

/// `?token=…&x=1`: what stands after the name of a secret, up to the next parameter.
fn without_parameters(text: &str) -> Cow<'_, str> {
    let Some((before, after)) = text.split_once('?') else {
        return Cow::Borrowed(text);
    };
    let parameter = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) if is_name_of_secret(name) => format!("{name}={HIDDEN}"),
        Some(_) | None => parameter.to_owned(),
    };
    let parameters: Vec<String> = after.split('&').map(parameter).collect();
    Cow::Owned(format!("{before}?{}", parameters.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_by_their_words() {
        for name in [
            "PASSWORD",
            "DB_PASSWORD",
            "dbPassword",
            "--db-pass",
            "API_KEY",
            "apiKey",
            "STRIPE_SECRET_KEY",
            "access-token",
            "GITHUB_TOKEN",
            "X-Auth",
            "SENTRY_DSN",
            "Authorization",
        ] {
            assert!(is_name_of_secret(name), "{name}");
        }
        for name in [
            "",
            "PATH",
            "key",
            "--public-key",
            "--pass-through",
            "--password-file",
            "TOKEN_PATH",
            "--no-auth",
            "KEYBOARD",
            "monkey",
            "compass",
            "--author",
        ] {
            assert!(!is_name_of_secret(name), "{name}");
        }
    }

    #[test]
    fn arguments_that_look_like_secrets_are_hidden() {
        for (given, shown) in [
            (&["--password=hunter2"][..], &["--password=***"][..]),
            (&["--password", "hunter2", "x"], &["--password", "***", "x"]),
            (&["--password", "--verbose"], &["--password", "--verbose"]),
            (
                &["--password-file", "/run/x"],
                &["--password-file", "/run/x"],
            ),
            (&["TOKEN=abc"], &["TOKEN=***"]),
            (&["TOKEN="], &["TOKEN="]),
            (&["-u", "me:hunter2"], &["-u", "me:***"]),
            (&["-u", "me"], &["-u", "me"]),
            (
                &["postgres://me:hunter2@db:5432/x"],
                &["postgres://***@db:5432/x"],
            ),
            (&["--db=redis://:p@h/0"], &["--db=redis://***@h/0"]),
            (
                &["https://x/?a=1&token=abc&b=2"],
                &["https://x/?a=1&token=***&b=2"],
            ),
            (&["http://host:80/a@b"], &["http://host:80/a@b"]),
            (
                &["-H", "Authorization: Bearer abc"],
                &["-H", "Authorization: ***"],
            ),
            (&["ghp_0123456789abcdef"], &["***"]),
            (&["x=sk-0123456789abcdef,y"], &["x=***,y"]),
            (
                &["sk-short", "task-0123456789abcdefgh"],
                &["sk-short", "task-0123456789abcdefgh"],
            ),
            (&["--port", "8080", "./api"], &["--port", "8080", "./api"]),
        ] {
            assert_eq!(arguments(given.iter().copied()), shown, "{given:?}");
        }
    }

    #[test]
    fn lines_of_shell_keep_their_shape() {
        for (given, shown) in [
            ("sleep 1", "sleep 1"),
            ("PGPASSWORD=x psql -h db", "PGPASSWORD=*** psql -h db"),
            ("a --token 'b c' && d", "a --token *** && d"),
            ("a\n  --token b\n", "a\n  --token ***\n"),
            (
                "curl -H \"Authorization: Bearer abc\" x",
                "curl -H \"Authorization: ***\" x",
            ),
            (
                "curl -H Authorization: Bearer abc",
                "curl -H Authorization: Bearer ***",
            ),
            ("", ""),
            ("  ", "  "),
        ] {
            assert_eq!(line(given), shown, "{given:?}");
        }
    }
}
