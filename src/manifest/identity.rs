//! Whom a service runs as, and with which permissions.

use crate::document::shape::{Grammar, Takes};

/// A user or group, by name or number.
pub(super) static ACCOUNT: Grammar = Grammar {
    expected: "a name or a number",
    pattern: Some("^([A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,10})$"),
    takes: Takes::Written,
    check: |text| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let is_name = text.len() <= 32
            && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.bytes().all(is_part);
        // The largest number means nobody in particular (`chown(2)`).
        let is_known = if is_number {
            text.parse().is_ok_and(|number: u32| number < u32::MAX)
        } else {
            is_name
        };
        if is_known {
            Ok(())
        } else {
            Err(format!("`{text}` is no name and no number of an account"))
        }
    },
};

/// Permissions in octal.
pub(super) static UMASK: Grammar = Grammar {
    expected: "permissions in octal, such as `027`",
    pattern: Some("^(0o)?[0-7]{1,4}$"),
    takes: Takes::Written,
    check: |text| {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let is_octal = (1..=4).contains(&digits.len())
            && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte))
            && u32::from_str_radix(digits, 8).is_ok_and(|mask| mask <= 0o777);
        if is_octal {
            Ok(())
        } else {
            Err(format!(
                "`{text}` is no mask of permissions; expected octal digits up to `777`, such as `027`"
            ))
        }
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_names_or_numbers() {
        for good in ["root", "_x", "www-data", "a.b", "0", "1000", "4294967294"] {
            assert!((ACCOUNT.check)(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a b", "4294967295", "1a", "a:b", &"x".repeat(33)] {
            assert!((ACCOUNT.check)(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn masks_are_octal() {
        for good in ["022", "0", "77", "0777", "0o27"] {
            assert!((UMASK.check)(good).is_ok(), "{good}");
        }
        for bad in ["", "8", "1000", "0o", "+7", "rwx", "00777"] {
            assert!((UMASK.check)(bad).is_err(), "{bad}");
        }
    }
}
