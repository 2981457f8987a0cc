//! What a file of an image is by now: by a list of digests, or by reading it to its end.

use std::io::{self, Read};
use std::path::Path;

use ureq::http::{StatusCode, header};

use crate::address::Name;
use crate::blueprint::object::{Locked, Source, Sums};
use crate::host::HostError;
use crate::host::images::Images;
use crate::host::images::fetch::BLOCK;
use crate::host::images::hash::{Digest, Hasher, Hashes};
use crate::host::images::web::{Web, strong_etag};
use crate::value::Sha2;

/// The most bytes that a list of digests may have.
const MOST_SUMS: u64 = 1 << 20;

impl Images {
    /// What a file of an image on the web is by now. A list of digests is believed where it tells the SHA-256; without one, so
    /// is the server where it says that the file is still what is locked. Else it is read to its end, and not kept.
    ///
    /// # Errors
    /// When it cannot be read, or the list does not have it.
    pub fn look_at(
        &self,
        image: &Name,
        url: &str,
        sums: Option<&Sums>,
        known: Option<&Locked>,
    ) -> Result<Locked, HostError> {
        let source = Source::Url(url.to_owned());
        let web = Web { agent: &self.agent, what: format!("image `{image}`"), source: &source };
        let listed = sums.map(|sums| self.digest_in(sums, &source)).transpose()?;
        let sha256 = listed.as_ref().and_then(|digest| digest.sha256(known));
        // Some servers know nothing but GET.
        if let Ok(head) = web.head(url) {
            let length =
                head.headers().get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
            let etag = strong_etag(&head);
            if let Some(known) = known
                && (listed.is_none() || sha256 == Some(&known.sha256))
                && etag.is_some()
                && (&etag, length) == (&known.etag, Some(known.size))
            {
                return Ok(known.clone());
            }
            if let (Some(sha256), Some(size)) = (sha256, length) {
                let sha512 = listed.as_ref().and_then(Digest::sha512).cloned();
                return Ok(Locked { source: source.shown(), sha256: sha256.clone(), sha512, size, etag });
            }
        }
        let response = web.get(url, listed.is_none(), None)?;
        if response.status() != StatusCode::OK {
            return Err(web.unexpected(response.status()));
        }
        let (etag, length) = (strong_etag(&response), response.body().content_length());
        let body = response.into_body().into_reader();
        let (hashes, size) = hash(body, listed.as_ref()).map_err(|error| web.broken(ureq::Error::from(error)))?;
        if length.is_some_and(|length| length != size) {
            return Err(web.failed("the server did not send all of it").transient(true));
        }
        if let Some(listed) = &listed {
            hashes.check(listed, "listed").map_err(|unlike| web.failed(unlike))?;
        }
        let Hashes { sha256, sha512 } = hashes;
        Ok(Locked { source: source.shown(), sha256, sha512, size, etag })
    }

    /// What a list of digests says of a file, by the last part of its path.
    ///
    /// # Errors
    /// When the list cannot be read, has no such file, or has it twice with two digests.
    pub(super) fn digest_in(&self, sums: &Sums, of: &Source) -> Result<Digest, HostError> {
        let name = file_name(of);
        let web = Web { agent: &self.agent, what: format!("the digest of `{name}`"), source: sums.source() };
        let text = match sums.source() {
            Source::File(path) => read_sums(path).map_err(|error| web.failed(error))?,
            Source::Url(url) => {
                let response = web.get(url, true, None)?;
                if response.status() != StatusCode::OK {
                    return Err(web.unexpected(response.status()));
                }
                let body = response.into_body().into_reader();
                limited(body).map_err(|error| web.broken(ureq::Error::from(error)))?
            }
        };
        let found = match sums {
            Sums::Sha256(_) => find(&text, &name).map(Digest::Sha256),
            Sums::Sha512(_) => find(&text, &name).map(Digest::Sha512),
        };
        found.map_err(|why| {
            let key = sums.key();
            web.failed(why)
                .help(format!("check that `{key}` belongs to the image; it is found there by the name of its file"))
        })
    }
}

fn read_sums(path: &Path) -> io::Result<String> {
    limited(std::fs::File::open(path)?)
}

fn limited(reader: impl Read) -> io::Result<String> {
    let mut text = Vec::new();
    reader.take(MOST_SUMS + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST_SUMS {
        return Err(io::Error::other("it is larger than 1 MiB, and no list of digests"));
    }
    String::from_utf8(text).map_err(|_| io::Error::other("it is not a list of digests"))
}

/// The last part of the path of a source.
fn file_name(source: &Source) -> String {
    let shown = source.shown();
    shown.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The digest that a list has for a name, in the form of GNU (`DIGEST  NAME`, `DIGEST *NAME`) or of BSD
/// (`SHA256 (NAME) = DIGEST`). Lines that are neither, as those of a signature, and other digests are passed over.
fn find<const BITS: usize>(text: &str, name: &str) -> Result<Sha2<BITS>, String> {
    let bsd_prefix = format!("SHA{BITS} (");
    let mut found: Option<Sha2<BITS>> = None;
    for line in text.lines().map(str::trim_end) {
        let bsd = line
            .strip_prefix(bsd_prefix.as_str())
            .and_then(|rest| rest.rsplit_once(") = "))
            .map(|(name, digest)| (digest, name));
        let gnu = || line.split_once(' ').and_then(|(digest, rest)| Some((digest, rest.strip_prefix([' ', '*'])?)));
        let Some((digest, listed)) = bsd.or_else(gnu) else { continue };
        let Ok(digest) = digest.parse::<Sha2<BITS>>() else { continue };
        if listed.strip_prefix("./").unwrap_or(listed) != name {
            continue;
        }
        if found.as_ref().is_some_and(|before| *before != digest) {
            return Err(format!("it has two digests of `{name}`"));
        }
        found = Some(digest);
    }
    found.ok_or_else(|| format!("it has no SHA-{BITS} of `{name}`"))
}

/// The digests of all that comes, and its length.
fn hash(mut reader: impl Read, wanted: Option<&Digest>) -> io::Result<(Hashes, u64)> {
    let (mut hasher, mut size, mut block) = (Hasher::new(wanted), 0, vec![0; BLOCK]);
    loop {
        match reader.read(&mut block) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(got) => {
                hasher.update(&block[..got]);
                size += got as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Sha256, Sha512};

    #[test]
    fn both_forms_of_a_list_are_understood() {
        let (a, b) = (Sha256::of(b"a"), Sha256::of(b"b"));
        let gnu = format!("{a}  a.img\n{b} *b.img\r\n{a}  ./c.img\n");
        let bsd = format!("SHA256 (a.img) = {a}\nSHA256 (b (1).img) = {b}\nMD5 (d.img) = {}\n", "0".repeat(32));
        let signed =
            format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{gnu}-----BEGIN PGP SIGNATURE-----\nxyz\n");
        for text in [&gnu, &bsd, &signed] {
            assert_eq!(find(text, "a.img"), Ok(a.clone()));
        }
        assert_eq!(find(&gnu, "b.img"), Ok(b.clone()));
        assert_eq!(find(&gnu, "c.img"), Ok(a.clone()));
        assert_eq!(find(&bsd, "b (1).img"), Ok(b.clone()));
        for (text, name) in [(&gnu, "x/a.img"), (&gnu, ""), (&bsd, "d.img"), (&gnu, "img")] {
            assert_eq!(find::<256>(text, name), Err(format!("it has no SHA-256 of `{name}`")));
        }
        let twice = format!("{a}  a\n{a}  a\n{b}  b\n{a}  b\n");
        assert_eq!(find(&twice, "a"), Ok(a));
        assert_eq!(find::<256>(&twice, "b"), Err("it has two digests of `b`".into()));
    }

    #[test]
    fn a_list_is_read_for_one_kind_of_digest() {
        let (short, long) = (Sha256::of(b"a"), "ab".repeat(64));
        let digest: Sha512 = long.parse().expect("a digest");
        let gnu = format!("{short}  a.img\n{long}  a.img\n{long} *b.img\n");
        let bsd = format!("SHA256 (a.img) = {short}\nSHA512 (a.img) = {long}\nSHA512 (b.img) = {long}\n");
        for text in [&gnu, &bsd] {
            assert_eq!(find(text, "a.img"), Ok(short.clone()));
            assert_eq!(find(text, "a.img"), Ok(digest.clone()));
            assert_eq!(find(text, "b.img"), Ok(digest.clone()));
            assert_eq!(find::<256>(text, "b.img"), Err("it has no SHA-256 of `b.img`".into()));
        }
        let mislabelled = format!("SHA256 (a.img) = {long}\nSHA512 (b.img) = {short}\n");
        assert!(find::<512>(&mislabelled, "a.img").is_err() && find::<512>(&mislabelled, "b.img").is_err());
    }

    #[test]
    fn a_file_is_known_by_the_last_part_of_its_path() {
        for (source, name) in [("https://a.example/x/d.img?token=a/b", "d.img"), ("https://a.example", "a.example")] {
            assert_eq!(file_name(&Source::Url(source.into())), name);
        }
        assert_eq!(file_name(&Source::File("/a/b.img".into())), "b.img");
    }
}
