//! The lease file of a dnsmasq.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::value::Mac;

/// How old the lease file must be to be read. dnsmasq empties it and writes it again, so that one that changes right now
/// may be found half written.
const REST: Duration = Duration::from_millis(20);
/// How often to look whether the lease file rests, before it is read as it is.
const LOOKS: u32 = 50;

/// A lease that dnsmasq has granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// When it ends, in seconds since 1970; 0 stands for never.
    pub expires: u64,
    /// Whom it was granted to.
    pub client: Client,
    /// The address.
    pub address: IpAddr,
    /// The name of the guest, where it has one.
    pub hostname: Option<String>,
}

/// How a guest is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// By DHCPv4.
    Mac(Mac),
    /// By DHCPv6 (RFC 8415, 11 and 12).
    Duid {
        /// The guest's identifier.
        duid: Vec<u8>,
        /// The number of its interface.
        iaid: u32,
    },
}

impl Client {
    /// The MAC address, as far as it can be told: two of the kinds of identifiers in DHCPv6 are made of one (RFC 8415, 11.2
    /// and 11.4).
    pub fn mac(&self) -> Option<Mac> {
        match self {
            Self::Mac(mac) => Some(*mac),
            Self::Duid { duid, .. } => match duid[..] {
                [0, 1, 0, 1, _, _, _, _, a, b, c, d, e, g] | [0, 3, 0, 1, a, b, c, d, e, g] => {
                    Some(Mac([a, b, c, d, e, g]))
                }
                _ => None,
            },
        }
    }
}

/// All leases of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leases {
    /// By address: dnsmasq grants it once.
    pub by_address: BTreeMap<IpAddr, Lease>,
    /// Who the server is to DHCPv6.
    pub server_duid: Option<Vec<u8>>,
}

impl Leases {
    fn parse(text: &str) -> Self {
        let mut leases = Self::default();
        for line in text.lines() {
            if let Some(duid) = line.strip_prefix("duid ") {
                leases.server_duid = bytes(duid);
            } else if let Some(lease) = Lease::parse(line) {
                leases.by_address.insert(lease.address, lease);
            }
        }
        leases
    }
}

impl Lease {
    /// One line: expiry, MAC or number of the interface, address, name or `*`, identifier of the client or `*`. A `T` is put
    /// before the number of a temporary address.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [expires, who, address, name, ..] = words[..] else { return None };
        let client = match who.parse() {
            Ok(mac) => Client::Mac(mac),
            Err(_) => Client::Duid { duid: bytes(words.get(4)?)?, iaid: who.trim_start_matches('T').parse().ok()? },
        };
        Some(Self {
            expires: expires.parse().ok()?,
            client,
            address: address.parse().ok()?,
            hostname: Some(name).filter(|name| *name != "*").map(str::to_owned),
        })
    }
}

/// Bytes as dnsmasq writes them: `00:01:ff`.
fn bytes(text: &str) -> Option<Vec<u8>> {
    text.trim().split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

/// What tells one state of a file from another.
type Version = (u64, u64, i64, i64);

/// Reads lease files, each again only when it has changed: every host entry asks for all leases.
#[derive(Debug, Default)]
pub(super) struct Cache {
    read: Mutex<BTreeMap<std::path::PathBuf, (Version, Arc<Leases>)>>,
}

impl Cache {
    /// The leases as dnsmasq wrote them down, read while it is not at it.
    pub(super) fn read(&self, path: &Path) -> io::Result<Arc<Leases>> {
        let Some(found) = rested(path)? else { return Ok(Arc::default()) };
        let version = (found.ino(), found.len(), found.mtime(), found.mtime_nsec());
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match read.get(path) {
            Some((known, leases)) if *known == version => Ok(Arc::clone(leases)),
            _ => {
                let text = fs::read(path)?;
                let leases = Arc::new(Leases::parse(&String::from_utf8_lossy(&text)));
                read.insert(path.to_owned(), (version, Arc::clone(&leases)));
                Ok(leases)
            }
        }
    }
}

/// Waits until a file is not written to. None where there is no file.
fn rested(path: &Path) -> io::Result<Option<Metadata>> {
    let mut looks = 0;
    loop {
        let found = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        looks += 1;
        // A time in the future is no sign of a write that goes on.
        match found.modified()?.elapsed() {
            Ok(age) if age < REST && looks < LOOKS => thread::sleep(REST - age),
            _ => return Ok(Some(found)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_read_once_they_rest() {
        let dir = tempfile::tempdir().expect("directory");
        let (path, cache) = (dir.path().join("leases"), Cache::default());
        assert_eq!(*cache.read(&path).expect("none yet"), Leases::default());
        thread::scope(|scope| {
            // As dnsmasq does it: emptied, then written.
            fs::write(&path, "").expect("emptied");
            scope.spawn(|| {
                thread::sleep(REST / 4);
                let text = "1795239795 fa:16:3e:00:00:01 10.9.0.11 web *\n0 fa:16:3e:00:00:02 10.9.0.12 * 01:02\n\
                            duid 00:01:00:01:aa\n1795239796 1193046 fd00::11 web 00:03:00:01:fa:16:3e:00:00:01\n17952";
                fs::write(&path, text).expect("written");
            });
            let leases = cache.read(&path).expect("leases");
            let seen: Vec<_> = (leases.by_address.values())
                .map(|it| {
                    (it.expires, it.address.to_string(), it.hostname.as_deref(), it.client.mac().map(|mac| mac.0[5]))
                })
                .collect();
            let expected = [
                (1_795_239_795, "10.9.0.11".to_owned(), Some("web"), Some(1)),
                (0, "10.9.0.12".to_owned(), None, Some(2)),
                (1_795_239_796, "fd00::11".to_owned(), Some("web"), Some(1)),
            ];
            assert_eq!(seen, expected);
            assert_eq!(leases.server_duid, Some(vec![0, 1, 0, 1, 0xaa]));
        });
        fs::write(&path, "").expect("emptied");
        assert!(cache.read(&path).expect("leases").by_address.is_empty(), "what has changed is read again");
    }
}
