//! What a server tells the cloud-init of its guest.

use std::collections::BTreeMap;

use crate::address::{Address, Name, ResourceKind};
use crate::desired::Problems;
use crate::diagnostic::{Diagnostic, Place};
use crate::spec::schema::ServerSpec;
use crate::spec::values::{FileSpec, OnUserDataChange};
use crate::value::Secret;

/// What a server tells the cloud-init of its guest, beside who it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudInit {
    /// The user data.
    pub user_data: Option<Secret>,
    /// The public keys, each under its name.
    pub keys: BTreeMap<Name, String>,
    /// The metadata.
    pub metadata: BTreeMap<String, String>,
    /// The files that are put into the guest.
    pub files: Vec<InjectedFile>,
    /// Whether it is told in the way of OpenStack.
    pub config_drive: bool,
    /// What becomes of the guest when any of it changes.
    pub on_change: OnUserDataChange,
}

/// A file that is put into a guest.
#[derive(Clone, Debug, PartialEq)]
pub struct InjectedFile {
    /// Where: an absolute path.
    pub path: String,
    /// What it holds.
    pub content: Secret,
    /// Its mode in four octal digits.
    pub mode: String,
    /// Its user and group, as `root:root`.
    pub owner: String,
}

impl CloudInit {
    /// Whether there is anything to tell that the guest would not be told otherwise.
    pub fn is_asked_for(&self) -> bool {
        let Self { user_data, keys, metadata, files, config_drive, on_change: _ } = self;
        *config_drive || user_data.is_some() || !(keys.is_empty() && metadata.is_empty() && files.is_empty())
    }
}

/// Nova's limit of user data in bytes (reference A1: 65535 as base64; as they are, what people write is far below).
const MAX_USER_DATA: usize = 64 << 10;

/// The most files, Nova's 5 being few; and what they may have together.
const MAX_FILES: usize = 64;
const MAX_FILES_BYTES: usize = 8 << 20;

/// Nova's `metadata_items`.
const MAX_METADATA: usize = 128;

/// The most characters that a key, a value or a path may have, as in Nova.
const MAX_TEXT: usize = 255;

pub(super) fn resolve(
    address: &Address,
    written: &ServerSpec,
    keypairs: &BTreeMap<Name, Option<String>>,
    problems: &mut Problems<'_>,
) -> CloudInit {
    CloudInit {
        user_data: user_data(address, written, problems),
        keys: keys(address, written, keypairs, problems),
        metadata: metadata(address, written, problems),
        files: files(address, written, problems),
        config_drive: written.config_drive.unwrap_or(false),
        on_change: written.on_user_data_change.unwrap_or_default(),
    }
}

fn user_data(address: &Address, written: &ServerSpec, problems: &mut Problems<'_>) -> Option<Secret> {
    let (key, text) = match (&written.user_data, &written.user_data_file) {
        (Some(_), Some(_)) => {
            problems.push(
                Diagnostic::error("`user_data` and `user_data_file` say the same thing twice")
                    .code("user-data-twice")
                    .on(address, "user_data_file")
                    .related(Place::of(address, "user_data"), "the other one")
                    .help("leave one of them out"),
            );
            return None;
        }
        (Some(text), None) => ("user_data", text),
        // A file that cannot be read has its problem already.
        (None, Some(path)) => ("user_data_file", problems.source.contents.get(path)?),
        (None, None) => return None,
    };
    let text = text.clone();
    if text.bytes().len() > MAX_USER_DATA {
        problems.push(
            Diagnostic::error(format!("the user data has {} bytes", text.bytes().len()))
                .code("user-data-size")
                .on(address, key)
                .help("it may have 64 KiB; put larger things into `files`, or let the guest fetch them"),
        );
    }
    Some(text)
}

fn keys(
    address: &Address,
    written: &ServerSpec,
    keypairs: &BTreeMap<Name, Option<String>>,
    problems: &mut Problems<'_>,
) -> BTreeMap<Name, String> {
    let mut keys = BTreeMap::new();
    for (index, name) in written.key_pairs.iter().flatten().enumerate() {
        let key = problems.refer(address, &format!("key_pairs[{index}]"), ResourceKind::Keypair, name, keypairs);
        keys.extend(key.cloned().flatten().map(|key| (name.clone(), key)));
    }
    keys
}

fn metadata(address: &Address, written: &ServerSpec, problems: &mut Problems<'_>) -> BTreeMap<String, String> {
    let all = written.metadata.clone().unwrap_or_default();
    let mut wrong = |key: &str, message: String, help: &str| {
        problems.push(Diagnostic::error(message).code("metadata").on(address, key).help(help));
    };
    if all.len() > MAX_METADATA {
        wrong("metadata", format!("there are {} items", all.len()), "there may be 128");
    }
    for (key, value) in &all {
        let place = format!("metadata.{key}");
        let usual = |c: char| c.is_ascii_alphanumeric() || "-_:. ".contains(c);
        if key.is_empty() || key.len() > MAX_TEXT || !key.chars().all(usual) {
            wrong(
                &place,
                format!("`{}` cannot be the name of an item", key.escape_debug()),
                "it may have 255 letters, digits, blanks and `-_:.`",
            );
        }
        if value.chars().count() > MAX_TEXT || value.chars().any(is_unspeakable) {
            wrong(&place, "this cannot be the value of an item".into(), "it may have 255 characters on one line");
        }
    }
    all
}

/// What YAML and JSON do not both carry as it is.
fn is_unspeakable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn files(address: &Address, written: &ServerSpec, problems: &mut Problems<'_>) -> Vec<InjectedFile> {
    let written = written.files.as_deref().unwrap_or_default();
    let mut files: Vec<InjectedFile> = Vec::new();
    for (index, file) in written.iter().enumerate() {
        let key = format!("files[{index}]");
        match self::file(file, &problems.source.contents) {
            Ok(Some(read)) if files.iter().any(|other| other.path == read.path) => problems.push(
                Diagnostic::error(format!("`{}` is there twice", read.path))
                    .code("injected-file")
                    .on(address, &format!("{key}.path"))
                    .help("leave one of them out"),
            ),
            Ok(read) => files.extend(read),
            Err(Wrong { key: its, message, help }) => {
                let key = if its.is_empty() { key } else { format!("{key}.{its}") };
                problems.push(Diagnostic::error(message).code("injected-file").on(address, &key).help(help));
            }
        }
    }
    let bytes: usize = files.iter().map(|file| file.content.bytes().len()).sum();
    if written.len() > MAX_FILES || bytes > MAX_FILES_BYTES {
        problems.push(
            Diagnostic::error(format!("there are {} files with {bytes} bytes", written.len()))
                .code("injected-file")
                .on(address, "files")
                .help("there may be 64, with 8 MiB in all; let the guest fetch what is larger"),
        );
    }
    files
}

struct Wrong {
    key: &'static str,
    message: String,
    help: &'static str,
}

/// A file as it is written; none where what it holds could not be read, which was said already.
fn file(
    written: &FileSpec,
    contents: &std::collections::HashMap<String, Secret>,
) -> Result<Option<InjectedFile>, Wrong> {
    let wrong = |key, message: &str, help| Err(Wrong { key, message: message.into(), help });
    let path = &written.path;
    let normal = |part: &str| !matches!(part, "" | "." | "..");
    let is_path = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(normal));
    if !is_path || path.len() > MAX_TEXT || path.chars().any(is_unspeakable) {
        let message = format!("`{}` is not where a file can be", path.escape_debug());
        return wrong("path", &message, "write an absolute path, without `..`, of at most 255 characters");
    }
    let mode = written.mode.as_deref().unwrap_or("0644");
    if !matches!(mode.len(), 3 | 4) || !mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
        let message = format!("`{}` is not a mode", mode.escape_debug());
        return wrong("mode", &message, "write it in octal digits, as `\"0644\"`");
    }
    let owner = written.owner.as_deref().unwrap_or("root:root");
    let (user, group) = owner.split_once(':').unwrap_or((owner, owner));
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name.len() <= 32
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
    };
    if !is_name(user) || !is_name(group) {
        let message = format!("`{}` is not a user and a group", owner.escape_debug());
        return wrong("owner", &message, "write them as `\"root:root\"`");
    }
    let content = match (&written.content, &written.source) {
        (Some(content), None) => Some(content),
        (None, Some(path)) => contents.get(path),
        (Some(_), Some(_)) => return wrong("source", "`content` and `source` are both there", "leave one of them out"),
        (None, None) => {
            return wrong("", "nothing says what the file holds", "add `content = \"…\"` or `source = \"FILE\"`");
        }
    };
    Ok(content.map(|content| InjectedFile {
        path: path.clone(),
        content: content.clone(),
        mode: format!("{mode:0>4}"),
        owner: format!("{user}:{group}"),
    }))
}
