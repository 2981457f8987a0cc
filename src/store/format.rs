//! How a record is written, and how each older way is read.
//!
//! A record is JSON in an envelope that tells its version: `{"version":1,"record":{…}}`. A change of the shape of a record,
//! down to one field more, is a new version: [`VERSION`] grows, the old shape keeps a reader here and its files in
//! `tests/formats/`.
//!
//! An export is all records in one JSON document with a digest over everything but its first line:
//!
//! ```json
//! {"version":1,"sha256":"9f86d081…","state":
//! {"serial":7,"records":[
//! {"key":"bridge:private","version":1,"record":{…}},
//! {"key":"domain:web","version":1,"record":{…}}
//! ]}}
//! ```
//!
//! One that is made to be read elsewhere, a snapshot, has the `project` and the `host` beside the serial.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::address::Name;
use crate::blueprint::HostFacts;
use crate::blueprint::key::{ObjectKey, ObjectKind};
use crate::plan::world::{Record, Recorded};
use crate::store::StoreError;
use crate::value::Sha256;

/// The version of the records that are written now.
pub const VERSION: u32 = 4;

/// The version of the exports that are written now: of what is around the records, which tell their own.
pub const EXPORT_VERSION: u32 = 1;

/// Why bytes are not a record or an export.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A version that this novella does not know.
    #[error("it was written by a newer novella (format {found}, this one knows up to {known})")]
    Newer {
        /// The version found.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// Not JSON, or not of the shape that its version has.
    #[error("it is not of the shape that its format has")]
    Shape(#[from] serde_json::Error),
    /// The bytes are not those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// A key that names no object.
    #[error("`{0}` is not the key of a record")]
    Key(String),
}

impl FormatError {
    /// The error as one of the store, with the way out.
    pub fn during(self, deed: impl Into<String>) -> StoreError {
        let newer = matches!(self, Self::Newer { .. });
        let error = StoreError::new(deed, self);
        if newer { error.help("use the novella that wrote it, or a newer one") } else { error }
    }
}

/// The envelope, as far as every version has it.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The envelope of a record.
#[derive(Serialize, Deserialize)]
struct Envelope<R> {
    version: u32,
    record: R,
}

/// A record as bytes, in the newest version.
pub fn encode(record: &Record) -> Result<Vec<u8>, FormatError> {
    Ok(serde_json::to_vec(&Envelope { version: VERSION, record })?)
}

/// The record in bytes of any version up to [`VERSION`].
pub fn decode(bytes: &[u8]) -> Result<Record, FormatError> {
    match serde_json::from_slice::<Versioned>(bytes)?.version {
        1 => {
            let mut record = serde_json::from_slice::<Envelope<Value>>(bytes)?.record;
            version_1::upgrade(&mut record);
            Ok(serde_json::from_value(record)?)
        }
        // Versions 2 and 3 only lack what has a default.
        2..=4 => Ok(serde_json::from_slice::<Envelope<Record>>(bytes)?.record),
        found => Err(FormatError::Newer { found, known: VERSION }),
    }
}

/// Version 1 knew only ports of servers, each with one IPv4 address, and one length of lease for a network.
mod version_1 {
    use serde_json::{Value, json};

    pub(super) fn upgrade(record: &mut Value) {
        let previous = record.get_mut("previous").and_then(Value::as_array_mut);
        previous.into_iter().flatten().for_each(object);
        if let Some(it) = record.get_mut("object") {
            object(it);
        }
    }

    fn object(object: &mut Value) {
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
        match kind.as_str() {
            "dhcp" => {
                let lease = spec.remove("lease_seconds").unwrap_or_default();
                spec.insert("records".into(), json!({}));
                for range in spec.get_mut("ranges").and_then(Value::as_array_mut).into_iter().flatten() {
                    range["assignment"] = json!("dhcp");
                    range["routes"] = json!([]);
                    range["domain"] = Value::Null;
                    range["lease_seconds"] = lease.clone();
                }
            }
            "host_entry" => {
                let mut take = |key: &str| spec.remove(key).unwrap_or_default();
                let (server, address) = (take("server"), take("address"));
                let port = format!("{}/{}", text(&server), text(spec.get("network").unwrap_or(&Value::Null)));
                spec.insert("port".into(), json!(port));
                // The domain was written nowhere, and so is seen as changed once.
                spec.insert("addresses".into(), json!([{ "address": address, "assignment": "dhcp", "domain": "" }]));
                spec.insert("options".into(), json!([]));
            }
            _ => {}
        }
    }

    fn text(value: &Value) -> &str {
        value.as_str().unwrap_or_default()
    }
}

/// The key of a record as text: `bridge:private`.
pub fn encode_key(key: &ObjectKey) -> String {
    format!("{}:{}", kind_word(key.kind), key.id)
}

/// The key in a text that [`encode_key`] made.
pub fn decode_key(text: &str) -> Result<ObjectKey, FormatError> {
    let (word, id) = text.split_once(':').ok_or_else(|| FormatError::Key(text.to_owned()))?;
    let kind = ObjectKind::ALL.into_iter().find(|kind| kind_word(*kind) == word);
    kind.map(|kind| ObjectKey::new(kind, id)).ok_or_else(|| FormatError::Key(text.to_owned()))
}

/// The word for a kind in keys. Not the one that people see, for that may change.
const fn kind_word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Firewall => "firewall",
        ObjectKind::Bridge => "bridge",
        ObjectKind::Dhcp => "dhcp",
        ObjectKind::HostEntry => "host_entry",
        ObjectKind::Base => "base",
        ObjectKind::Disk => "disk",
        ObjectKind::Volume => "volume",
        ObjectKind::Seed => "seed",
        ObjectKind::Domain => "domain",
    }
}

/// A state with what it takes to make use of it elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The project that it is of; none in an export of novella's own.
    pub project: Option<Name>,
    /// What the host could do when it was made, where that could be asked.
    pub host: Option<HostFacts>,
    /// The records.
    pub recorded: Recorded,
}

#[derive(Deserialize)]
struct ExportV1 {
    sha256: Sha256,
    state: StateV1,
}

#[derive(Deserialize)]
struct StateV1 {
    serial: u64,
    #[serde(default)]
    project: Option<Name>,
    #[serde(default)]
    host: Option<HostFacts>,
    records: Vec<EntryV1>,
}

#[derive(Deserialize)]
struct EntryV1 {
    key: String,
    #[serde(flatten)]
    envelope: serde_json::Value,
}

#[derive(Serialize)]
struct Entry<'a> {
    key: String,
    version: u32,
    record: &'a Record,
}

/// All records as the bytes of an export, in the newest version.
pub fn encode_export(recorded: &Recorded) -> Result<Vec<u8>, FormatError> {
    encode_document(recorded, "")
}

/// A snapshot as bytes: an export that says more.
pub fn encode_snapshot(snapshot: &Snapshot) -> Result<Vec<u8>, FormatError> {
    let mut about = String::new();
    if let Some(project) = &snapshot.project {
        about = format!(",\"project\":{}", serde_json::to_string(project)?);
    }
    if let Some(host) = &snapshot.host {
        about.push_str(&format!(",\"host\":{}", serde_json::to_string(host)?));
    }
    encode_document(&snapshot.recorded, &about)
}

fn encode_document(recorded: &Recorded, about: &str) -> Result<Vec<u8>, FormatError> {
    let entries: Vec<String> = (recorded.records.iter())
        .map(|(key, record)| serde_json::to_string(&Entry { key: encode_key(key), version: VERSION, record }))
        .collect::<Result<_, _>>()?;
    let state = format!("{{\"serial\":{}{about},\"records\":[\n{}\n]}}}}\n", recorded.serial, entries.join(",\n"));
    let sha256 = Sha256::of(state.as_bytes());
    Ok(format!("{{\"version\":{EXPORT_VERSION},\"sha256\":\"{sha256}\",\"state\":\n{state}").into_bytes())
}

/// The records in an export of any version up to [`EXPORT_VERSION`].
pub fn decode_export(bytes: &[u8]) -> Result<Recorded, FormatError> {
    Ok(decode_snapshot(bytes)?.recorded)
}

/// The same, with what is said beside the records.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Snapshot, FormatError> {
    match serde_json::from_slice::<Versioned>(bytes)?.version {
        1 => {
            let ExportV1 { sha256, state } = serde_json::from_slice(bytes)?;
            let hashed = bytes.iter().position(|byte| *byte == b'\n').map_or(&[][..], |line| &bytes[line + 1..]);
            if Sha256::of(hashed) != sha256 {
                return Err(FormatError::Checksum);
            }
            let entry = |entry: EntryV1| Ok((decode_key(&entry.key)?, decode(&serde_json::to_vec(&entry.envelope)?)?));
            let records = state.records.into_iter().map(entry).collect::<Result<_, FormatError>>()?;
            let recorded = Recorded { serial: state.serial, records };
            Ok(Snapshot { project: state.project, host: state.host, recorded })
        }
        found => Err(FormatError::Newer { found, known: EXPORT_VERSION }),
    }
}
