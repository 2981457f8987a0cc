//! Reads the files of a spec and finds all their problems at once.
//!
//! Each table is read by serde into its struct. Where serde stops at a field, the field is reported, taken out, and the
//! table read again, so that one mistake does not hide the next.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::Uid;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::address::{Name, ResourceKind};
use crate::diagnostic::{Diagnostic, Place, Span, did_you_mean};
use crate::spec::lock;
use crate::spec::schema::Spec;
use crate::spec::source::{Source, SourceFile};

/// The language version that this novella reads: `novella = 1`.
pub const LANGUAGE_VERSION: i64 = 1;

/// The most bytes that one file may have. What people write is far below; what would stall a parser is above.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A spec as far as it could be read, and what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What the files say. Fields that could not be read are missing.
    pub spec: Spec,
    /// The texts.
    pub source: Source,
    /// All problems found so far.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads every `*.toml` file in a directory, in the order of their names.
pub fn load(directory: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    let paths = match list(directory) {
        Ok(paths) => paths,
        Err(error) => {
            loaded.diagnostics.push(
                Diagnostic::error(format!("cannot read the specs in `{}`: {error}", directory.display()))
                    .help("name the directory that has your `*.toml` files with `--specs DIR`"),
            );
            return loaded;
        }
    };
    if paths.is_empty() {
        loaded
            .diagnostics
            .push(Diagnostic::error(format!("there is no `*.toml` file in `{}`", directory.display())).help(
            "an empty spec never means `destroy all`; for that, run `novella destroy` with a file that says whose all: \
                       `novella = 1`, with `[project]` and `[host.local]` as they were",
        ));
    }
    // An absolute base lets a relative image path mean the same thing from everywhere.
    loaded.source.base = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    for path in paths {
        match read(&path) {
            Ok(text) => {
                let file = loaded.source.files.len();
                loaded.source.files.push(SourceFile { path, text: text.clone() });
                Reader { file, loaded: &mut loaded }.document(&text);
            }
            Err(why) => {
                loaded.diagnostics.push(Diagnostic::error(format!("cannot read `{}`: {why}", path.display())));
            }
        }
    }
    read_named(&mut loaded);
    match lock::read(directory) {
        Ok(lock) => loaded.source.lock = lock,
        Err(why) => loaded.diagnostics.push(
            Diagnostic::error(format!("cannot read `{}`: {why}", directory.join(lock::FILE).display()))
                .code("image-lock")
                .help("take it from version control, or remove it: the next `apply` or `novella image lock` writes it anew"),
        ),
    }
    loaded
}

/// Reads a spec from texts, each with a path to call it by.
pub fn load_texts<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Loaded {
    let mut loaded = Loaded::default();
    loaded.source.base = PathBuf::from("/");
    for (path, text) in texts {
        let file = loaded.source.files.len();
        loaded.source.files.push(SourceFile { path: path.into(), text: text.to_owned() });
        Reader { file, loaded: &mut loaded }.document(text);
    }
    read_named(&mut loaded);
    loaded
}

/// Reads the files that the spec names, so that nothing later need touch the disk for them.
fn read_named(loaded: &mut Loaded) {
    let mut named: Vec<(String, &str)> = Vec::new();
    for (name, server) in &loaded.spec.servers {
        named.extend(server.user_data_file.iter().map(|path| (format!("server.{name}.user_data_file"), path.as_str())));
        for (index, file) in server.files.iter().flatten().enumerate() {
            named
                .extend(file.source.iter().map(|path| (format!("server.{name}.files[{index}].source"), path.as_str())));
        }
    }
    for (key, path) in named {
        if loaded.source.contents.contains_key(path) {
            continue;
        }
        match read_bytes(&loaded.source.base.join(path)) {
            Ok(bytes) => {
                loaded.source.contents.insert(path.to_owned(), bytes.into());
            }
            Err(why) => loaded.diagnostics.push(
                Diagnostic {
                    place: Place::Key(key),
                    ..Diagnostic::error(format!("cannot read `{}`: {why}", path.escape_debug()))
                }
                .code("unreadable-file")
                .help("write a path from the directory of the spec"),
            ),
        }
    }
}

fn list(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(read_bytes(path)?);
    text.map_err(|error| format!("it is not UTF-8 at byte {}", error.utf8_error().valid_up_to()))
}

pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    // A named pipe must not make us wait for a writer.
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| error.to_string())?;
    let found = file.metadata().map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a regular file".into());
    }
    if found.mode() & 0o002 != 0 && Uid::effective().is_root() {
        return Err("anybody may write to it, and root would do what it says; run `chmod o-w` on it".into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("it is larger than 1 MiB; split it into several files".into());
    }
    Ok(bytes)
}

/// A table as it stands in a file, with its place.
type Table<'i> = Spanned<DeTable<'i>>;

struct Reader<'l> {
    file: usize,
    loaded: &'l mut Loaded,
}

impl Reader<'_> {
    fn document(&mut self, text: &str) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let broken = !errors.is_empty();
        for error in errors {
            let bytes = error.span().unwrap_or(0..0);
            self.report(Diagnostic::error(first_line(error.message())).at(self.span(bytes)));
        }
        if broken {
            // What stands in a file that is not TOML is anyone's guess; guessing brings up problems that are none.
            return;
        }
        for (key, value) in root.into_inner() {
            let place = self.span(key.span());
            match key.get_ref().as_ref() {
                "novella" => self.version(&value),
                "project" => {
                    if self.declare("project", place, "there is one `[project]` for all files") {
                        let spec = self.table(value, "project").map(|table| self.read_table(table, "project"));
                        self.loaded.spec.project = spec.unwrap_or_default();
                    }
                }
                "moved" => self.blocks("moved", place, value, |spec| &mut spec.moved),
                "removed" => self.blocks("removed", place, value, |spec| &mut spec.removed),
                "quota" => {
                    if self.declare("quota", place, "there is one `[quota]` for all files") {
                        let spec = self.table(value, "quota").map(|table| self.read_table(table, "quota"));
                        self.loaded.spec.quota = spec.unwrap_or_default();
                    }
                }
                word => match ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == word) {
                    Some(kind) => self.resources(kind, value),
                    None => {
                        let kinds = ResourceKind::ALL.map(ResourceKind::as_str);
                        let known = kinds.into_iter().chain(["novella", "project", "quota", "moved", "removed"]);
                        let error = Diagnostic::error(format!("unknown table `{word}`")).at(place);
                        self.report(suggest(error, word, known));
                    }
                },
            }
        }
    }

    /// Reads tables without names: `[[word]]`. They are counted through all files.
    fn blocks<T: DeserializeOwned + Default>(
        &mut self,
        word: &str,
        place: Span,
        value: Spanned<DeValue<'_>>,
        of: impl Fn(&mut Spec) -> &mut Vec<T>,
    ) {
        let DeValue::Array(items) = value.into_inner() else {
            let error = Diagnostic::error(format!("`{word}` is a list of tables")).at(place);
            return self.report(error.help(format!("write each as `[[{word}]]`")));
        };
        for item in items {
            let address = format!("{word}[{}]", of(&mut self.loaded.spec).len());
            let span = self.span(item.span());
            self.loaded.source.note(address.clone(), span);
            let block = self.table(item, &format!("[{word}]")).map(|table| self.read_table(table, &address));
            of(&mut self.loaded.spec).push(block.unwrap_or_default());
        }
    }

    fn version(&mut self, value: &Spanned<DeValue<'_>>) {
        let place = self.span(value.span());
        let version = value.get_ref().as_integer().and_then(|number| number.as_str().parse::<i64>().ok());
        match version {
            Some(LANGUAGE_VERSION) => {}
            Some(newer) if newer > LANGUAGE_VERSION => self.report(
                Diagnostic::error(format!("this spec is written in language version {newer}"))
                    .at(place)
                    .help(format!("this novella reads version {LANGUAGE_VERSION}; a newer one is needed")),
            ),
            _ => self.report(
                Diagnostic::error("`novella` names the language version")
                    .at(place)
                    .help(format!("write `novella = {LANGUAGE_VERSION}`")),
            ),
        }
    }

    fn resources(&mut self, kind: ResourceKind, value: Spanned<DeValue<'_>>) {
        let Some(table) = self.table(value, kind.as_str()) else { return };
        for (key, value) in table.into_inner() {
            let place = self.span(key.span());
            let word = key.get_ref().as_ref();
            if !value.get_ref().is_table() {
                self.report(
                    Diagnostic::error(format!("`{kind}` holds named tables, not `{word}`"))
                        .at(place)
                        .help(format!("give the {kind} a name: `[{kind}.NAME]`")),
                );
                continue;
            }
            let name = match word.parse::<Name>() {
                Ok(name) => name,
                Err(error) => {
                    let error = Diagnostic::error(format!("`{word}` is not a name: {error}")).at(place);
                    let name = mend_name(word);
                    self.report(if name.is_empty() { error } else { error.help(format!("`{name}` would do")) });
                    continue;
                }
            };
            let address = format!("{kind}.{name}");
            if !self.declare(&address, place, "give one of them another name") {
                continue;
            }
            let Some(table) = self.table(value, &address) else { continue };
            match kind {
                ResourceKind::Host => self.resource(|spec| &mut spec.hosts, name, table, &address),
                ResourceKind::Network => self.resource(|spec| &mut spec.networks, name, table, &address),
                ResourceKind::Subnet => self.resource(|spec| &mut spec.subnets, name, table, &address),
                ResourceKind::DnsRecord => self.resource(|spec| &mut spec.dns_records, name, table, &address),
                ResourceKind::Port => self.resource(|spec| &mut spec.ports, name, table, &address),
                ResourceKind::Image => self.resource(|spec| &mut spec.images, name, table, &address),
                ResourceKind::Flavor => self.resource(|spec| &mut spec.flavors, name, table, &address),
                ResourceKind::Keypair => self.resource(|spec| &mut spec.keypairs, name, table, &address),
                ResourceKind::Volume => self.resource(|spec| &mut spec.volumes, name, table, &address),
                ResourceKind::Server => self.resource(|spec| &mut spec.servers, name, table, &address),
            }
        }
    }

    /// Notes where a table stands; a diagnostic if there is another of that name already.
    fn declare(&mut self, address: &str, place: Span, help: &str) -> bool {
        let Some(first) = self.loaded.source.key(address) else {
            self.loaded.source.note(address.to_owned(), place);
            return true;
        };
        let first = Place::Span(first.clone());
        self.report(
            Diagnostic::error(format!("`{address}` is declared twice"))
                .at(place)
                .related(first, "first declared here")
                .help(help),
        );
        false
    }

    fn resource<T: DeserializeOwned + Default>(
        &mut self,
        of: impl Fn(&mut Spec) -> &mut BTreeMap<Name, T>,
        name: Name,
        table: Table<'_>,
        address: &str,
    ) {
        let resource = self.read_table(table, address);
        of(&mut self.loaded.spec).insert(name, resource);
    }

    /// The value as a table; a diagnostic if it is not one.
    fn table<'i>(&mut self, value: Spanned<DeValue<'i>>, what: &str) -> Option<Table<'i>> {
        let bytes = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(Spanned::new(bytes, table)),
            other => {
                let place = self.span(bytes);
                self.report(
                    Diagnostic::error(format!("`{what}` is a table, not {}", with_article(other.type_str())))
                        .at(place)
                        .help(format!("write it as `[{what}]`")),
                );
                None
            }
        }
    }

    /// Reads a table into its struct, with a diagnostic for each key that is unknown or cannot be read.
    fn read_table<T: DeserializeOwned + Default>(&mut self, table: Table<'_>, address: &str) -> T {
        let bytes = table.span();
        let mut table = table.into_inner();
        let known = fields_of::<T>();
        let mut unknown = Vec::new();
        for (key, value) in &table {
            let word = key.get_ref().as_ref();
            if known.contains(&word) {
                self.note(format!("{address}.{word}"), word, value);
            } else {
                let error = Diagnostic::error(format!("unknown key `{word}` in `{address}`")).at(self.span(key.span()));
                self.report(suggest(error, word, known.iter().copied()));
                self.hide(word, value);
                unknown.push(key.clone());
            }
        }
        for key in unknown {
            table.remove(&key);
        }
        loop {
            let attempt = Spanned::new(bytes.clone(), table.clone());
            let error = match T::deserialize(toml::de::Deserializer::from(attempt)) {
                Ok(value) => return value,
                Err(error) => error,
            };
            let at = error.span().unwrap_or(bytes.clone());
            // See `values`.
            let mut parts = error.message().splitn(3, '\n');
            let (message, help, code) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
            let culprit = table
                .iter()
                .find(|(_, value)| value.span().start <= at.start && at.end <= value.span().end)
                .map(|(key, _)| key.clone());
            let key = culprit.as_ref().map_or("", |key| key.get_ref().as_ref());
            let mut diagnostic = Diagnostic::error(format!("`{address}.{key}`: {message}")).at(self.span(at));
            diagnostic.help = help.map(str::to_owned).or_else(|| suggest_variant(message));
            diagnostic.code = code.map(str::to_owned);
            self.report(diagnostic);
            match culprit {
                Some(key) => table.remove(&key),
                // A problem with no field to blame: nothing can be said of the rest.
                None => return T::default(),
            };
        }
    }

    /// Notes where a value stands, and all that is in it. `word` is the last of its key.
    fn note(&mut self, key: String, word: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.note(format!("{key}[{index}]"), word, item);
                }
            }
            DeValue::Table(table) => {
                for (word, item) in table {
                    self.note(format!("{key}.{}", word.get_ref()), word.get_ref(), item);
                }
            }
            _ => {}
        }
        self.hide(word, value);
        let span = self.span(value.span());
        self.loaded.source.note(key, span);
    }

    /// Notes that a value is not to be shown, if it is that of a key which may hold a secret.
    fn hide(&mut self, word: &str, value: &Spanned<DeValue<'_>>) {
        // Also of one that is misspelt.
        if word != "count" && alias(word, &HIDDEN).or_else(|| did_you_mean(word, HIDDEN)).is_some() {
            let span = self.span(value.span());
            self.loaded.source.hidden.push(span);
        }
    }

    fn span(&self, bytes: std::ops::Range<usize>) -> Span {
        Span { file: self.file, bytes }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.loaded.diagnostics.push(diagnostic);
    }
}

/// The keys whose values are not shown. In the place of a public key, a private one may stand by mistake.
const HIDDEN: [&str; 3] = ["user_data", "content", "public_key"];

/// What people used to other tools write, and what it is called here.
const ALIASES: [(&str, &str); 43] = [
    ("memory", "ram"),
    ("mem", "ram"),
    ("cpus", "vcpus"),
    ("cpu", "vcpus"),
    ("vcpu", "vcpus"),
    ("size", "disk"),
    ("gigabytes", "disk"),
    ("ip", "fixed_ip"),
    ("address", "fixed_ip"),
    ("network", "networks"),
    ("dns_nameservers", "dns"),
    ("gateway_ip", "gateway"),
    ("allocation_pools", "pools"),
    ("allocation_pool", "pools"),
    ("enable_dhcp", "dhcp"),
    ("ipv6_address_mode", "ipv6_mode"),
    ("ipv6_ra_mode", "ipv6_mode"),
    ("routes", "host_routes"),
    ("dns_domain", "domain"),
    ("dhcp_lease_time", "lease_time"),
    ("mac", "mac_address"),
    ("fixed_ip", "fixed_ips"),
    ("dhcp_options", "extra_dhcp_opts"),
    ("extra_dhcp_option", "extra_dhcp_opts"),
    ("hostname", "dns_name"),
    ("opt_name", "name"),
    ("opt_value", "value"),
    ("address", "ip_address"),
    ("ip", "ip_address"),
    ("subnet_id", "subnet"),
    ("interfaces", "ports"),
    ("url", "source"),
    ("path", "source"),
    ("disk_format", "format"),
    ("checksum", "sha256"),
    ("userdata", "user_data"),
    ("cloud_init", "user_data"),
    ("key_name", "key_pairs"),
    ("keypairs", "key_pairs"),
    ("ssh_keys", "key_pairs"),
    ("meta", "metadata"),
    ("personality", "files"),
    ("permissions", "mode"),
];

fn alias(word: &str, known: &[&str]) -> Option<&'static str> {
    ALIASES.iter().find(|(foreign, ours)| *foreign == word && known.contains(ours)).map(|(_, ours)| *ours)
}

fn suggest<'a>(diagnostic: Diagnostic, word: &str, known: impl Iterator<Item = &'a str>) -> Diagnostic {
    let known: Vec<&str> = known.collect();
    match alias(word, &known).or_else(|| did_you_mean(word, known.iter().copied())) {
        Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
        None => {
            let list: Vec<String> = known.iter().map(|word| format!("`{word}`")).collect();
            diagnostic.help(format!("known here: {}", list.join(", ")))
        }
    }
}

/// The nearest of the variants or fields that serde lists when it meets an unknown one.
fn suggest_variant(message: &str) -> Option<String> {
    let variant = message.strip_prefix("unknown variant ");
    let quote = if variant.is_some() { "\"" } else { "" };
    let mut quoted = variant.or(message.strip_prefix("unknown field "))?.split('`').skip(1).step_by(2);
    let word = quoted.next()?;
    let known: Vec<&str> = quoted.collect();
    let near = alias(word, &known).or_else(|| did_you_mean(word, known))?;
    Some(format!("did you mean `{quote}{near}{quote}`?"))
}

/// The nearest text to this one that is a name; empty if nothing of it can be kept.
fn mend_name(word: &str) -> String {
    let mended: String = word
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .skip_while(|c| !c.is_ascii_lowercase())
        .take(Name::MAX_LEN)
        .collect();
    mended.trim_end_matches('-').to_owned()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// The names of a struct's fields, as serde knows them.
fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Ask<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut fields: &'static [&'static str] = &[];
    // Always an error: the question is only which fields were asked for.
    let _ = T::deserialize(Ask(&mut fields));
    fields
}
