//! Public keys, with which somebody may log in.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::address::{Address, Name, ResourceKind};
use crate::desired::Problems;
use crate::desired::host::has_controls;
use crate::diagnostic::Diagnostic;
use crate::spec::Spec;

/// The types of keys that OpenSSH takes today (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The keys that are good, by name. None stands for one that has its problem already.
pub(super) fn resolve(spec: &Spec, problems: &mut Problems<'_>) -> BTreeMap<Name, Option<String>> {
    let mut keys = BTreeMap::new();
    for (name, written) in &spec.keypairs {
        let address = Address::new(ResourceKind::Keypair, name.clone());
        let text = problems.need(&address, "public_key", &written.public_key, "\"ssh-ed25519 AAAA… you@host\"");
        let key = text.and_then(|text| match public_key(text) {
            Ok(key) => Some(key),
            Err(why) => {
                problems.push(
                    Diagnostic::error(format!("this is not a public key: {why}"))
                        .code("public-key")
                        .on(&address, "public_key")
                        .help("write the one line of a file such as `~/.ssh/id_ed25519.pub`"),
                );
                None
            }
        });
        keys.insert(name.clone(), key);
    }
    keys
}

/// The key on one line: type, base64, comment. Why it is none does not show it: a private one may stand there by mistake.
fn public_key(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.contains("PRIVATE KEY") {
        return Err("it is a private one, which nobody else may see");
    }
    if has_controls(text) {
        return Err("it is one line without control characters");
    }
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let kind = words.next().filter(|kind| TYPES.contains(kind)).ok_or("its type is not known")?;
    let data =
        words.next().and_then(|data| BASE64_STANDARD.decode(data).ok()).ok_or("its second word is not base64")?;
    // RFC 4253, 6.6: it begins with its type, and before that the length of it.
    let inner = data.get(4..).and_then(|rest| rest.get(..kind.len()));
    if inner != Some(kind.as_bytes()) || data.get(..4) != Some(&u32::try_from(kind.len()).unwrap_or(0).to_be_bytes()) {
        return Err("it holds another type of key than it says");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_one_line_of_its_type() {
        let good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8y3qTrmSCEUiq9oCzfbbNyYZ1VX3YCVqGCkqRfwN1t";
        assert_eq!(public_key(&format!(" {good} me@here \n")).as_deref(), Ok(format!("{good} me@here").as_str()));
        assert_eq!(public_key(good).as_deref(), Ok(good));
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-dss AAAAB3NzaC1kc3MAAAA=",
            "ssh-ed25519 !!!!",
            "ssh-ed25519 AAAA",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            &good.replace("ssh-ed25519", "ssh-rsa"),
            &format!("from=\"*\" {good}"),
            &format!("{good}\n{good}"),
            &format!("{good} \u{9b}31m"),
        ] {
            public_key(bad).expect_err(bad);
        }
    }
}
