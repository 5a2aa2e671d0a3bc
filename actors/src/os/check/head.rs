//! The head of an HTTP exchange: the request that a check sends, and what the answer's head says.

use crate::os::check::{CheckFailure, Target, quoted};

/// How much of an answer is read at most.
pub(super) const HEAD_MAX: usize = 16 * 1024;
/// More headers than any server sends; each takes a place while an answer is looked at.
const HEADERS_MAX: usize = 128;

/// The request. Host and path were checked when the tree was built, so nothing in them ends a line.
pub(super) fn request(target: &Target, path: &str) -> Vec<u8> {
    let Target { host, port } = target;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: kimi-shell/{version}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// What the beginning of an answer says; `None`: more of it is needed.
pub(super) fn judge(bytes: &[u8]) -> Option<Result<(), CheckFailure>> {
    let mut rest = bytes;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(rest) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return None,
            Ok(httparse::Status::Partial) => {
                let max_bytes = HEAD_MAX;
                return Some(Err(CheckFailure::HeadTooLong { max_bytes }));
            }
            // The status comes before them, and nothing else is wanted.
            Err(httparse::Error::TooManyHeaders) => {
                return Some(verdict(response.code.unwrap_or_default(), &[]));
            }
            Err(_) => return Some(Err(CheckFailure::NotHttp)),
        };
        let status = response.code.unwrap_or_default();
        // Interim answers (103, early hints) come before the one that counts.
        if !(100..200).contains(&status) {
            return Some(verdict(status, response.headers));
        }
        rest = &rest[length..];
    }
}

fn verdict(status: u16, headers: &[httparse::Header<'_>]) -> Result<(), CheckFailure> {
    let location = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("location"));
    match (status, location) {
        (200..=299, _) => Ok(()),
        (300..=399, Some(location)) => Err(CheckFailure::Redirect {
            status,
            to: quoted(location.value),
        }),
        _ => Err(CheckFailure::Status { status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> String {
        match judge(text.as_bytes()) {
            None => "more".to_owned(),
            Some(Ok(())) => "passed".to_owned(),
            Some(Err(failure)) => failure.to_string(),
        }
    }

    #[test]
    fn only_a_whole_head_with_a_status_of_success_passes() {
        for (text, expected) in [
            ("", "more"),
            ("HTTP/1.1 200 OK\r\n", "more"),
            ("HTTP/1.1 200 OK\r\n\r\n", "passed"),
            ("HTTP/1.0 204 No Content\n\nbody", "passed"),
            ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "more"),
            (
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                "passed",
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oh\r\n\r\n",
                "status 500",
            ),
            ("HTTP/1.1 503 Busy\r\nA: b\r\n\r\n", "status 503"),
            (
                "HTTP/1.1 302 Found\r\nLOCATION: /login\r\n\r\n",
                "302 to /login, redirects are not followed",
            ),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", "status 304"),
            ("SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP"),
            ("\u{0}\u{1}\u{2}", "the answer is not HTTP"),
        ] {
            assert_eq!(answer(text), expected, "{text:?}");
        }
        let many = "A: b\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(answer(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")), "passed");
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(HEAD_MAX));
        assert_eq!(
            answer(&endless),
            "the head of the answer is longer than 16384 bytes"
        );
    }

    #[test]
    fn the_request_names_the_host_as_it_must() {
        let text = |host: &str| {
            let target = Target {
                host: host.to_owned(),
                port: 8080,
            };
            String::from_utf8(request(&target, "/x?y")).unwrap()
        };
        assert!(
            text("db").starts_with("GET /x?y HTTP/1.1\r\nHost: db:8080\r\nUser-Agent: kimi-shell/")
        );
        assert!(text("::1").contains("\r\nHost: [::1]:8080\r\n"));
        assert!(text("db").ends_with("\r\nConnection: close\r\n\r\n"));
    }
}
