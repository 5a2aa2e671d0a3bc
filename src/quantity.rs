//! Durations and sizes as people write them: `1m30s`, `500ms`, `10MiB`, `10MB`.

use std::fmt::Write as _;
use std::time::Duration;

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct NotADuration {
    problem: String,
}

impl NotADuration {
    /// A number that lacks its unit.
    pub fn without_unit(number: &str) -> Self {
        Self {
            problem: format!(
                "`{number}` has no unit; expected a duration such as `{number}s` or `{number}ms`"
            ),
        }
    }
}

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a size; expected one such as `10MiB` or `10MB`, or a number of bytes")]
pub struct NotASize {
    text: String,
}

const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// No duration is longer: beyond a century, adding it to a point in time could overflow.
const LONGEST: u128 = 100 * 366 * 86_400_000_000_000;

/// Reads a duration: numbers, each with its unit, largest first.
pub fn duration(text: &str) -> Result<Duration, NotADuration> {
    if text.parse::<f64>().is_ok_and(f64::is_finite) {
        return Err(NotADuration::without_unit(text));
    }
    nanoseconds(text)
        .and_then(|nanoseconds| u64::try_from(nanoseconds).ok())
        .map(Duration::from_nanos)
        .ok_or_else(|| NotADuration {
            problem: format!(
                "`{text}` is not a duration; expected one such as `10s`, `500ms` or `1m30s`"
            ),
        })
}

fn nanoseconds(text: &str) -> Option<u128> {
    let mut rest = text;
    let mut total: u128 = 0;
    let mut smallest = u128::MAX;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        if *unit >= smallest {
            return None;
        }
        smallest = *unit;
        total = total.checked_add(parts(number, *unit)?)?;
        rest = after;
    }
    (total <= LONGEST).then_some(total)
}

/// A decimal number of units, in whole parts of it, without going through floating point.
fn parts(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let digits = u32::try_from(fraction.len()).ok()?;
    let whole = whole.parse::<u64>().map(u128::from).ok()?;
    let fraction = fraction.parse::<u128>().ok()?;
    whole
        .checked_mul(unit)?
        .checked_add(fraction.checked_mul(unit)? / 10_u128.pow(digits))
}

/// A duration as text that [`duration`] reads again.
pub fn duration_text(duration: Duration) -> String {
    let mut left = duration.as_nanos();
    let mut text = String::new();
    for (name, unit) in UNITS {
        if left >= unit {
            // Writing to a string cannot fail.
            let _infallible = write!(text, "{}{name}", left / unit);
            left %= unit;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// Reads a size.
pub fn size(text: &str) -> Result<u64, NotASize> {
    let wrong = || NotASize {
        text: text.to_owned(),
    };
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let unit = if unit.is_empty() {
        1
    } else {
        SIZES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(wrong)?
            .1
    };
    parts(number, u128::from(unit))
        .and_then(|bytes| u64::try_from(bytes).ok())
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(wrong)
}

/// A size as text that [`size`] reads again.
pub fn size_text(bytes: u64) -> String {
    let (name, unit) = SIZES[..4]
        .iter()
        .copied()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("1d2h", 93_600_000),
            ("1s500ms", 1_500),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(duration(text), Ok(expected), "{text}");
            assert_eq!(duration_text(expected), text);
        }
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0.1s"), Ok(Duration::from_millis(100)));
        assert_eq!(duration_text(Duration::from_nanos(1_002_003)), "1ms2us3ns");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            " ",
            "s",
            "10",
            "-1s",
            "10 s",
            "1s1m",
            "1s1s",
            "1.s",
            ".5s",
            "10x",
            "1e3s",
            "∞",
            "99999999999d",
            "1..5s",
            "10s ",
            "10S",
            "999999999999999999999999s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        let message = duration("5").unwrap_err().to_string();
        assert!(message.contains("`5s`"), "{message}");
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("0B", 0),
            ("10MiB", 10_485_760),
            ("512KiB", 524_288),
            ("10485761B", 10_485_761),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size_text(bytes), text);
        }
        for (text, bytes) in [
            ("10MB", 10_000_000),
            ("10 mb", 10_000_000),
            ("1.5KiB", 1536),
            ("77", 77),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1XB", "10M", "99999999TiB", "0x10"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
