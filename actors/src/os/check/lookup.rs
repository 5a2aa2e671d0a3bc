//! Names to addresses. The C library's resolver waits as long as it likes, so each name gets a thread of its own.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use crate::os::thread;

/// How many threads may wait for the resolver. If all of them hang, other names wait; addresses and `localhost` do not.
const LOOKUPS_MAX: usize = 8;
/// Of a name with more addresses, the first few are tried.
const ADDRESSES_MAX: usize = 8;

/// The addresses of a name.
pub(super) type Found = io::Result<Vec<IpAddr>>;

/// The addresses of what needs no resolver.
pub(super) fn known(host: &str) -> Option<Vec<IpAddr>> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    host.parse().ok().map(|address| vec![address])
}

/// The names that are being looked up, each once whoever waits for it.
#[derive(Default)]
pub(super) struct Lookups {
    /// Names, and whether a thread is at it.
    names: HashMap<String, bool>,
    queue: VecDeque<String>,
}

impl Lookups {
    /// Has the name looked up, unless that is under way.
    pub(super) fn want(&mut self, host: &str) {
        if !self.names.contains_key(host) {
            self.names.insert(host.to_owned(), false);
            self.queue.push_back(host.to_owned());
        }
    }

    /// The name was looked up.
    pub(super) fn done(&mut self, host: &str) {
        self.names.remove(host);
    }

    /// Starts what may be started and is still wanted; `tell` is called from another thread, or at once if there is none.
    pub(super) fn start(
        &mut self,
        is_wanted: impl Fn(&str) -> bool,
        tell: impl Fn(String, Found) + Clone + Send + 'static,
    ) {
        while self.names.values().filter(|is_begun| **is_begun).count() < LOOKUPS_MAX {
            let Some(host) = self.queue.pop_front() else {
                return;
            };
            if !is_wanted(&host) {
                self.names.remove(&host);
                continue;
            }
            self.names.insert(host.clone(), true);
            let (theirs, name) = (tell.clone(), host.clone());
            let run = move || {
                let found = resolve(&name);
                theirs(name, found);
            };
            if let Err(error) = thread::start("kimi-name", run) {
                tell(host, Err(error));
            }
        }
    }
}

fn resolve(host: &str) -> Found {
    let addresses = (host, 0).to_socket_addrs()?;
    let mut found = Vec::new();
    for address in addresses {
        // Told once for each kind of socket by some resolvers.
        if !found.contains(&address.ip()) && found.len() < ADDRESSES_MAX {
            found.push(address.ip());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn addresses_and_localhost_need_no_resolver() {
        let known = |host| known(host).map(|found| found.len());
        assert_eq!(known("127.0.0.1"), Some(1));
        assert_eq!(known("::1"), Some(1));
        assert_eq!(known("LocalHost"), Some(2));
        assert_eq!(known("db"), None);
    }

    #[test]
    fn names_that_hang_are_bounded_and_one_is_looked_up_once() {
        let mut lookups = Lookups::default();
        for number in 0..LOOKUPS_MAX {
            let name = format!("hangs-{number}");
            lookups.names.insert(name.clone(), true);
            lookups.want(&name);
        }
        assert!(lookups.queue.is_empty());
        lookups.want("unwanted");
        lookups.want("127.0.0.1");
        lookups.want("127.0.0.1");
        let (told, hears) = channel();
        let tell = move |host, found: Found| told.send((host, found.unwrap())).unwrap();
        let is_wanted = |host: &str| host != "unwanted";
        lookups.start(is_wanted, tell.clone());
        assert_eq!(lookups.queue.len(), 2);
        lookups.done("hangs-0");
        lookups.start(is_wanted, tell);
        let (host, found) = hears.recv().unwrap();
        assert_eq!(host, "127.0.0.1");
        assert_eq!(found, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        assert!(lookups.queue.is_empty() && !lookups.names.contains_key("unwanted"));
    }
}
