//! Probes as manifests spell them: what is asked, and in which rhythm.

use std::net::Ipv6Addr;
use std::time::Duration;

use kimi_actors::policy::probe::ProbeRules;

use crate::document::Span;
use crate::document::record::{At, Record, Value};
use crate::document::shape::{Grammar, Takes};
use crate::manifest::wire::Command;

/// A host and a port, or a port of this machine.
pub(super) static ADDRESS: Grammar = Grammar {
    expected: "an address such as `127.0.0.1:7001`",
    pattern: Some("^(.+:)?[0-9]{1,5}$"),
    takes: Takes::Text,
    check: |text| address(text).map(drop),
};

/// An address of a page.
pub(super) static URL: Grammar = Grammar {
    expected: "an address such as `http://127.0.0.1:8080/healthz`",
    pattern: Some("^http://[^/?#@\\s]+([/?][^#\\s]*)?$"),
    takes: Takes::Text,
    check: |text| url(text).map(drop),
};

/// A regular expression.
pub(super) static PATTERN: Grammar = Grammar {
    expected: "a regular expression",
    pattern: Some("."),
    takes: Takes::Text,
    check: |text| match regex_lite::Regex::new(text) {
        Ok(_) if text.is_empty() => Err("an empty expression matches any line".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("`{text}` is no regular expression: {error}")),
    },
};

/// The host that a port alone belongs to.
const HERE: &str = "localhost";

/// A host, without brackets, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// A probe.
#[derive(Clone, Debug)]
pub(super) struct Probe<'a> {
    pub(super) ask: At<Ask<'a>>,
    rhythm: Rhythm,
    /// The keys of the rhythm that are written.
    pub(super) rhythm_keys: Vec<At<&'static str>>,
}

/// What a probe asks.
#[derive(Clone, Debug)]
pub(super) enum Ask<'a> {
    Tcp(Address),
    Http(Address, String),
    Exec(Command<'a>),
    Log(&'a str),
    NotifyFd(u32),
    SdNotify,
}

/// What the value of a key asks.
type ReadAsk<'a> = fn(&Value<'a>) -> Option<Ask<'a>>;

#[derive(Clone, Copy, Debug)]
struct Rhythm {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    initial_delay: Option<Duration>,
    failure_threshold: Option<u32>,
    success_threshold: Option<u32>,
}

impl<'a> Probe<'a> {
    /// What a map says; nothing if it asks nothing.
    pub(super) fn of(record: &Record<'a>) -> Option<Self> {
        const KEYS: [&str; 5] = [
            "interval",
            "timeout",
            "initial_delay",
            "failure_threshold",
            "success_threshold",
        ];
        let at = |key| record.key_span(key).map(|span| At { value: key, span });
        Some(Self {
            ask: Ask::of(record)?,
            rhythm: Rhythm {
                interval: record.duration("interval"),
                timeout: record.duration("timeout"),
                initial_delay: record.duration("initial_delay"),
                failure_threshold: record.whole("failure_threshold"),
                success_threshold: record.whole("success_threshold"),
            },
            rhythm_keys: KEYS.into_iter().filter_map(at).collect(),
        })
    }

    /// Its rules, over those of the settings.
    pub(super) fn rules(&self, settings: ProbeRules) -> ProbeRules {
        let own = self.rhythm;
        ProbeRules {
            interval: own.interval.unwrap_or(settings.interval),
            timeout: own.timeout.unwrap_or(settings.timeout),
            initial_delay: own.initial_delay.unwrap_or(settings.initial_delay),
            failure_threshold: own.failure_threshold.unwrap_or(settings.failure_threshold),
            success_threshold: own.success_threshold.unwrap_or(settings.success_threshold),
        }
    }
}

impl<'a> Ask<'a> {
    fn of(record: &Record<'a>) -> Option<At<Self>> {
        let read: [(&str, ReadAsk<'a>); 7] = [
            ("tcp", |value| match value.whole() {
                Some(port) => Some(Self::Tcp(Address {
                    host: HERE.to_owned(),
                    port,
                })),
                None => address(value.text()?).ok().map(Self::Tcp),
            }),
            ("http", |value| {
                let (address, path) = url(value.text()?).ok()?;
                Some(Self::Http(address, path))
            }),
            ("exec", |value| Command::argv(value).map(Self::Exec)),
            ("shell", |value| {
                Some(Self::Exec(Command::Shell(value.text()?)))
            }),
            ("log", |value| value.text().map(Self::Log)),
            ("notify_fd", |value| value.whole().map(Self::NotifyFd)),
            ("sd_notify", |_| Some(Self::SdNotify)),
        ];
        read.into_iter().find_map(|(key, read)| {
            let value = read(&record.get(key)?.value)?;
            let span = record.key_span(key)?;
            Some(At { value, span })
        })
    }

    /// Its key, if it waits to be told instead of asking in a rhythm.
    pub(super) fn told_by(&self) -> Option<&'static str> {
        match self {
            Self::Log(_) => Some("log"),
            Self::NotifyFd(_) => Some("notify_fd"),
            Self::SdNotify => Some("sd_notify"),
            Self::Tcp(_) | Self::Http(..) | Self::Exec(_) => None,
        }
    }

    /// The address that it asks, if it asks one.
    pub(super) fn address(&self) -> Option<&Address> {
        match self {
            Self::Tcp(address) | Self::Http(address, _) => Some(address),
            Self::Exec(_) | Self::Log(_) | Self::NotifyFd(_) | Self::SdNotify => None,
        }
    }
}

impl Address {
    /// The address of a replica: a port that is the service's own goes on with it.
    pub(super) fn of_replica(&self, own: Option<u16>, index: u16) -> Self {
        let follows = own == Some(self.port);
        Self {
            host: self.host.clone(),
            port: self.port.saturating_add(if follows { index } else { 0 }),
        }
    }
}

fn address(text: &str) -> Result<Address, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((HERE, text));
    let port = port_of(port).ok_or_else(|| {
        format!("`{text}` is no address; expected one such as `127.0.0.1:7001`, or a port")
    })?;
    Ok(Address {
        host: host_of(host)?,
        port,
    })
}

fn port_of(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = is_number.then(|| text.parse().ok())?;
    port.filter(|port| *port > 0)
}

/// A name or an address; one of IPv6 stands in brackets, and is handed on without them.
fn host_of(text: &str) -> Result<String, String> {
    let in_brackets = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = in_brackets {
        return match address.parse::<Ipv6Addr>() {
            Ok(_) => Ok(address.to_owned()),
            Err(_) => Err(format!("`{address}` is no IPv6 address")),
        };
    }
    if text.contains(':') {
        return Err(format!(
            "`{text}` is no host; an IPv6 address stands in brackets, such as `[::1]:7001`"
        ));
    }
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if text.is_empty() || text.len() > 253 || !text.bytes().all(is_part) {
        return Err(format!(
            "`{text}` is no host; expected a name or an address"
        ));
    }
    Ok(text.to_owned())
}

/// The address and the path with its query.
fn url(text: &str) -> Result<(Address, String), String> {
    const PORT: u16 = 80;
    if text.starts_with("https://") {
        return Err(
            "https is not spoken here; use `exec: [curl, -fsS, -o, /dev/null, \"https://…\"]`"
                .to_owned(),
        );
    }
    let rest = text.strip_prefix("http://").ok_or_else(|| {
        format!("`{text}` is no address; expected one that begins with `http://`")
    })?;
    if !rest.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(
            "blanks and letters beyond ASCII must be written as `%20` and the like".to_owned(),
        );
    }
    if rest.contains('#') {
        return Err("a server is never told what stands after `#`".to_owned());
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err("names and passwords are not sent from here; use `exec` with curl".to_owned());
    }
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    let address = if has_port {
        address(authority)?
    } else {
        Address {
            host: host_of(authority)?,
            port: PORT,
        }
    };
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    Ok((address, path))
}

/// Where the key of a probe stands that says something about its rhythm.
pub(super) fn timeout_span(probe: &Probe<'_>) -> Option<Span> {
    let mut keys = probe.rhythm_keys.iter();
    keys.find(|key| key.value == "timeout").map(|key| key.span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports_or_ports_alone() {
        for (text, host, port) in [
            ("127.0.0.1:7001", "127.0.0.1", 7001),
            ("localhost:1", "localhost", 1),
            ("db_1.example-x:65535", "db_1.example-x", 65_535),
            ("[::1]:80", "::1", 80),
            ("7001", "localhost", 7001),
        ] {
            let host = host.to_owned();
            assert_eq!(address(text), Ok(Address { host, port }), "{text}");
        }
        for text in [
            "", ":", ":80", "a:", "a:0", "a:65536", "a:+1", "::1:80", "[::1]", "[x]:1", "a b:1",
            "a\r\n:1", "a/b:1",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pages_have_an_address_and_a_path() {
        for (text, host, port, path) in [
            (
                "http://127.0.0.1:8080/healthz",
                "127.0.0.1",
                8080,
                "/healthz",
            ),
            ("http://localhost", "localhost", 80, "/"),
            ("http://[::1]/a?b=c:d", "::1", 80, "/a?b=c:d"),
            ("http://[::1]:81?x=1", "::1", 81, "/?x=1"),
        ] {
            let host = host.to_owned();
            let expected = (Address { host, port }, path.to_owned());
            assert_eq!(url(text), Ok(expected), "{text}");
        }
        for (text, phrase) in [
            ("https://localhost/", "curl"),
            ("localhost:80", "begins with `http://`"),
            ("http://", "no host"),
            ("http://u:p@h/", "passwords"),
            ("http://h/#x", "after `#`"),
            ("http://h/a b", "%20"),
            ("http://h/\r\nHost: x", "%20"),
            ("http://h:0/", "no address"),
        ] {
            let error = url(text).unwrap_err();
            assert!(error.contains(phrase), "{text}: {error}");
        }
    }

    #[test]
    fn only_a_port_of_ones_own_goes_on_with_the_replicas() {
        let address = address("h:80").unwrap();
        assert_eq!(address.of_replica(Some(80), 2).port, 82);
        assert_eq!(address.of_replica(Some(81), 2).port, 80);
        assert_eq!(address.of_replica(None, 2).port, 80);
    }
}
