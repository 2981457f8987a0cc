//! The digests of a file, taken while its bytes pass, and what they are compared with.

use std::fmt;

use sha2::Digest as _;

use crate::blueprint::object::Locked;
use crate::value::{Sha256, Sha512};

/// What a file must hash to, in the way of whoever says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Digest {
    /// The SHA-256 of the file that has this digest: it is that, or what is locked has the digest as well.
    pub(super) fn sha256<'a>(&'a self, locked: Option<&'a Locked>) -> Option<&'a Sha256> {
        match self {
            Self::Sha256(sha256) => Some(sha256),
            Self::Sha512(sha512) => {
                locked.filter(|locked| locked.sha512.as_ref() == Some(sha512)).map(|locked| &locked.sha256)
            }
        }
    }

    /// It, if it is a SHA-512.
    pub(super) fn sha512(&self) -> Option<&Sha512> {
        match self {
            Self::Sha256(_) => None,
            Self::Sha512(sha512) => Some(sha512),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(sha256) => sha256.fmt(f),
            Self::Sha512(sha512) => sha512.fmt(f),
        }
    }
}

/// Takes the SHA-256, by which what is cached is known, and the SHA-512 where that is what it is compared with.
pub(super) struct Hasher {
    sha256: sha2::Sha256,
    sha512: Option<sha2::Sha512>,
}

impl Hasher {
    pub(super) fn new(wanted: Option<&Digest>) -> Self {
        let sha512 = wanted.and_then(Digest::sha512).map(|_| sha2::Sha512::new());
        Self { sha256: sha2::Sha256::new(), sha512 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    pub(super) fn finish(self) -> Hashes {
        Hashes {
            sha256: Sha256::from_digest(&self.sha256.finalize()),
            sha512: self.sha512.map(|sha512| Sha512::from_digest(&sha512.finalize())),
        }
    }
}

/// What a whole file hashed to.
#[derive(Debug)]
pub(super) struct Hashes {
    pub(super) sha256: Sha256,
    pub(super) sha512: Option<Sha512>,
}

impl Hashes {
    /// Compares them with what they must be; `is` is the word for that: `wanted`, `listed`.
    ///
    /// # Errors
    /// What they are and must be, in words.
    pub(super) fn check(&self, digest: &Digest, is: &str) -> Result<(), String> {
        let (kind, got) = match digest {
            Digest::Sha256(_) => ("SHA-256", Some(Digest::Sha256(self.sha256.clone()))),
            Digest::Sha512(_) => ("SHA-512", self.sha512.clone().map(Digest::Sha512)),
        };
        match got {
            Some(got) if got == *digest => Ok(()),
            Some(got) => Err(format!("its {kind} is {got}, {is} is {digest}")),
            None => Err(format!("its {kind} was not taken, {is} is {digest}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digests of `abc` (FIPS 180-4, as in the examples that NIST publishes).
    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const SHA512: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                          2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    fn hashes(wanted: Option<&Digest>) -> Hashes {
        let mut hasher = Hasher::new(wanted);
        hasher.update(b"a");
        hasher.update(b"bc");
        hasher.finish()
    }

    #[test]
    fn the_same_bytes_are_hashed_in_both_ways() {
        let sha256 = Digest::Sha256(SHA256.parse().expect("a digest"));
        let sha512 = Digest::Sha512(SHA512.parse().expect("a digest"));
        for wanted in [&sha256, &sha512] {
            assert_eq!(hashes(Some(wanted)).check(wanted, "wanted"), Ok(()));
            assert_eq!(hashes(Some(wanted)).check(&sha256, "wanted"), Ok(()), "it is always taken");
        }
        assert!(hashes(Some(&sha256)).sha512.is_none() && hashes(None).sha512.is_none(), "only where it is asked for");
        assert!(hashes(None).check(&sha512, "wanted").is_err(), "what was not taken is not what it must be");
        let other = Digest::Sha512("0".repeat(128).parse().expect("a digest"));
        let said = format!("its SHA-512 is {SHA512}, listed is {other}");
        assert_eq!(hashes(Some(&other)).check(&other, "listed"), Err(said));
    }
}
