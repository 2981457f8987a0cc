//! The lease file of a dnsmasq.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::value::Mac;

/// How old a version of the lease file must be to be known again by its time: clocks of file systems tick this slowly.
const TICK: Duration = Duration::from_millis(20);
/// How long to wait for a dnsmasq to come to rest, before its lease file is read as it is.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// What tells one state of a file from another: its number, its length, when it was last written to.
type Version = (u64, u64, SystemTime);

/// Reads lease files, each again only when it has changed: every host entry asks for all leases.
#[derive(Debug, Default)]
pub(super) struct Cache {
    read: Mutex<BTreeMap<PathBuf, (Version, Arc<Leases>)>>,
}

impl Cache {
    /// The leases as dnsmasq wrote them down.
    ///
    /// It empties the file and writes it again, and between the two a busy disk may keep it for long: a file that is whole
    /// looks like one that is not. So it counts only when dnsmasq was seen at rest, and the file did not change meanwhile.
    pub(super) fn read(&self, path: &Path, is_at_rest: impl Fn() -> io::Result<bool>) -> io::Result<Arc<Leases>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(version) = version_of(path)? else { return Ok(Arc::default()) };
            if let Some((_, leases)) = self.known().get(path).filter(|(known, _)| *known == version) {
                return Ok(Arc::clone(leases));
            }
            let at_rest = is_at_rest()?;
            let text = fs::read(path)?;
            let is_whole = at_rest && version_of(path)? == Some(version) && text.len() as u64 == version.1;
            if is_whole || Instant::now() > deadline {
                let leases = Arc::new(Leases::parse(&String::from_utf8_lossy(&text)));
                if is_whole && version.2.elapsed().is_ok_and(|age| age > TICK) {
                    self.known().insert(path.to_owned(), (version, Arc::clone(&leases)));
                }
                return Ok(leases);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PathBuf, (Version, Arc<Leases>)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version_of(path: &Path) -> io::Result<Option<Version>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.ino(), found.len(), found.modified()?))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn leases_are_read_once_their_writer_rests() {
        let dir = tempfile::tempdir().expect("directory");
        let (path, cache, looks) = (dir.path().join("leases"), Cache::default(), Cell::new(0));
        let read = || cache.read(&path, || Ok(looks.replace(looks.get() + 1) > 2)).expect("leases");
        assert_eq!(*read(), Leases::default());
        // As dnsmasq does it: emptied, then written.
        fs::write(&path, "").expect("emptied");
        let text = "1795239795 fa:16:3e:00:00:01 10.9.0.11 web *\n0 fa:16:3e:00:00:02 10.9.0.12 * 01:02\n\
                    duid 00:01:00:01:aa\n1795239796 1193046 fd00::11 web 00:03:00:01:fa:16:3e:00:00:01\n17952";
        let at_work = || {
            if looks.replace(looks.get() + 1) == 2 {
                fs::write(&path, text).expect("written");
            }
            Ok(looks.get() > 2)
        };
        let leases = cache.read(&path, at_work).expect("leases");
        let seen: Vec<_> = (leases.by_address.values())
            .map(|it| (it.expires, it.address.to_string(), it.hostname.as_deref(), it.client.mac().map(|mac| mac.0[5])))
            .collect();
        let expected = [
            (1_795_239_795, "10.9.0.11".to_owned(), Some("web"), Some(1)),
            (0, "10.9.0.12".to_owned(), None, Some(2)),
            (1_795_239_796, "fd00::11".to_owned(), Some("web"), Some(1)),
        ];
        assert_eq!(seen, expected);
        assert_eq!(leases.server_duid, Some(vec![0, 1, 0, 1, 0xaa]));

        thread::sleep(TICK);
        assert_eq!((read(), read()), (Arc::clone(&leases), leases));
        let before = looks.get();
        assert_eq!(read().by_address.len(), 3);
        assert_eq!(looks.get(), before, "what has not changed is not read again");
        fs::write(&path, "").expect("emptied");
        assert!(read().by_address.is_empty(), "what has changed is read again");
    }
}
