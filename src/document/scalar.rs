//! Single values, and what they are taken for when nothing but their spelling tells.

/// A single value, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The text between the quotes, or the characters as they stand.
    pub text: String,
    /// What its format takes it for.
    pub kind: ScalarKind,
}

/// What a format takes a scalar for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarKind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number with a fraction or an exponent.
    Float,
    /// `true` or `false`.
    Bool,
    /// A date or a time.
    Datetime,
    /// Nothing.
    Null,
}

impl ScalarKind {
    /// What a text without quotes is taken for: YAML 1.2, and besides it the numbers of TOML.
    ///
    /// So `no` is a text, and `0777` too: one of its meanings is octal, and which was meant nobody can tell.
    pub fn of_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Self::Bool,
            _ if is_integer(text) => Self::Integer,
            _ if is_float(text) => Self::Float,
            _ => Self::Text,
        }
    }
}

fn is_integer(text: &str) -> bool {
    let based = |prefix, radix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| is_digits(rest, radix))
    };
    is_decimal(unsigned(text)) || based("0x", 16) || based("0o", 8) || based("0b", 2)
}

fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (unsigned(mantissa), Some(exponent)),
        None => (unsigned(text), None),
    };
    let is_exponent = exponent.is_none_or(|exponent| is_digits(unsigned(exponent), 10));
    let is_mantissa = match mantissa.split_once('.') {
        None => exponent.is_some() && is_decimal(mantissa),
        Some((whole, "")) => is_decimal(whole),
        Some((whole, fraction)) => {
            (whole.is_empty() || is_decimal(whole)) && is_digits(fraction, 10)
        }
    };
    is_mantissa && is_exponent
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

/// A decimal number without zeros before it.
fn is_decimal(text: &str) -> bool {
    is_digits(text, 10) && (text == "0" || !text.starts_with('0'))
}

/// Digits, with single underscores between them.
fn is_digits(text: &str, radix: u32) -> bool {
    text.split('_')
        .all(|part| !part.is_empty() && part.chars().all(|c| c.is_digit(radix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_text_is_taken_for_what_people_mean() {
        for (kind, texts) in [
            (ScalarKind::Null, &["", "~", "null", "NULL"][..]),
            (ScalarKind::Bool, &["true", "True", "FALSE"]),
            (
                ScalarKind::Integer,
                &["0", "-1", "+12", "1_000", "0x1F", "0o17", "0b11"],
            ),
            (
                ScalarKind::Float,
                &["1.10", "-0.5", ".5", "1.", "1e3", "1_0.0_1", "6.02e+23"],
            ),
            (
                ScalarKind::Text,
                &[
                    "NO",
                    "on",
                    "yes",
                    "off",
                    "0777",
                    "00",
                    "01.5",
                    "22:22",
                    "2026-01-01",
                    "1.2.3",
                    ".",
                    "1_",
                    "_1",
                    "1__0",
                    "-",
                    "+",
                    "-0x1",
                    "0x",
                    "e3",
                    "1e",
                    ".inf",
                    ".nan",
                    "inf",
                    "tRUE",
                    "1 ",
                    "٣",
                ],
            ),
        ] {
            for text in texts {
                assert_eq!(ScalarKind::of_plain(text), kind, "{text:?}");
            }
        }
    }
}
