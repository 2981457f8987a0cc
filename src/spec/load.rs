//! Reads the files of a spec and finds all their problems at once.
//!
//! Each table is read by serde into its struct. Where serde stops at a field, the field is reported, taken out, and the
//! table read again, so that one mistake does not hide the next. Before that, overlays, variables and `extends` have made
//! of what is written what is meant; each value keeps the place where it is written.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Read as _;
use std::iter;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::Uid;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::address::{Address, Name, ResourceKind};
use crate::diagnostic::{Diagnostic, Place, Span, did_you_mean};
use crate::spec::schema::Spec;
use crate::spec::source::{Source, SourceFile};
use crate::spec::variables::{ENVIRONMENT, Given, Variables};
use crate::spec::{layers, lock};

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

/// Where a spec is, what is laid over it, and what its variables are given.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The directory of its files.
    pub directory: PathBuf,
    /// The directories of overlays, each over those before.
    pub overlays: Vec<PathBuf>,
    /// What variables are given, the later over the earlier.
    pub given: Vec<Given>,
}

/// Reads every `*.toml` file in a directory, in the order of their names.
pub fn load(directory: &Path) -> Loaded {
    load_with(&Inputs { directory: directory.to_owned(), ..Inputs::default() })
}

/// The same, with overlays and variables.
pub fn load_with(inputs: &Inputs) -> Loaded {
    let mut loaded = Loaded::default();
    // An absolute base lets a relative image path mean the same thing from everywhere.
    loaded.source.base = std::path::absolute(&inputs.directory).unwrap_or_else(|_| inputs.directory.clone());
    let mut layers = Vec::new();
    for (option, directory) in
        iter::once(("--specs", &inputs.directory)).chain(inputs.overlays.iter().map(|overlay| ("--overlay", overlay)))
    {
        match list(directory) {
            Ok(paths) => {
                if paths.is_empty() {
                    loaded.diagnostics.push(none_in(option, directory));
                }
                layers.push(paths.into_iter().filter_map(|path| read_file(path, &mut loaded.diagnostics)).collect());
            }
            Err(error) => loaded.diagnostics.push(
                Diagnostic::error(format!("cannot read the specs in `{}`: {error}", directory.display()))
                    .help(format!("name the directory that has your `*.toml` files with `{option} DIR`")),
            ),
        }
    }
    let mut given = Vec::new();
    for it in &inputs.given {
        let file = match it {
            Given::File(path) => read_file(path.clone(), &mut loaded.diagnostics),
            Given::Argument(text) => Some(SourceFile { path: "--var".into(), text: text.clone() }),
            Given::Environment { name, value } => {
                Some(SourceFile { path: format!("{ENVIRONMENT}{name}").into(), text: value.clone() })
            }
        };
        given.extend(file.map(|file| (it, file)));
    }
    if !layers.is_empty() {
        read_texts(&mut loaded, layers, given);
    }
    match lock::read(&inputs.directory) {
        Ok(lock) => loaded.source.lock = lock,
        Err(why) => loaded.diagnostics.push(
            Diagnostic::error(format!("cannot read `{}`: {why}", inputs.directory.join(lock::FILE).display()))
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
    let file = |(path, text): (&str, &str)| SourceFile { path: path.into(), text: text.to_owned() };
    read_texts(&mut loaded, vec![texts.into_iter().map(file).collect()], Vec::new());
    loaded
}

/// An empty spec is no spec, and an empty overlay most likely a wrong path.
fn none_in(option: &str, directory: &Path) -> Diagnostic {
    let error = Diagnostic::error(format!("there is no `*.toml` file in `{}`", directory.display()));
    error.help(match option {
        "--overlay" => "leave the overlay out, or name the directory that has your `*.toml` files".to_owned(),
        _ => {
            "an empty spec never means `destroy all`; for that, run `novella destroy` with a file that says whose all: \
              `novella = 1`, with `[project]` and `[host.local]` as they were"
                .to_owned()
        }
    })
}

/// The file, unless it cannot be read, which is then told.
pub fn read_file(path: PathBuf, diagnostics: &mut Vec<Diagnostic>) -> Option<SourceFile> {
    match read(&path) {
        Ok(text) => Some(SourceFile { path, text }),
        Err(why) => {
            diagnostics.push(Diagnostic::error(format!("cannot read `{}`: {why}", path.display())));
            None
        }
    }
}

/// Reads all layers of a spec, and what its variables are given. All texts are taken for one long one, so that a value is
/// known by its bytes alone wherever it is copied to.
fn read_texts(loaded: &mut Loaded, layers: Vec<Vec<SourceFile>>, given: Vec<(&Given, SourceFile)>) {
    let layer_of: Vec<usize> =
        layers.iter().enumerate().flat_map(|(layer, files)| iter::repeat_n(layer, files.len())).collect();
    let (given, given_files): (Vec<&Given>, Vec<SourceFile>) = given.into_iter().unzip();
    let files: Vec<SourceFile> = layers.into_iter().flatten().chain(given_files).collect();
    let mut starts = Vec::new();
    files.iter().fold(0, |start, file| {
        starts.push(start);
        start + file.text.len() + 1
    });
    let mut reader = Reader { starts: &starts, loaded, failed: HashSet::new(), told: HashSet::new() };
    let mut tables = Tables::default();
    for (number, file) in files.iter().enumerate() {
        if let Some(layer) = layer_of.get(number)
            && let Some(root) = reader.parse(number, &file.text)
        {
            reader.document(root, *layer, &mut tables);
        }
    }
    let given = given.into_iter().zip(files.iter().enumerate().skip(layer_of.len()));
    let variables = Variables::read(&mut reader, std::mem::take(&mut tables.variables), given);
    let single = tables.project.iter_mut().chain(&mut tables.quota);
    let blocks = tables.moved.iter_mut().chain(&mut tables.removed).chain(&mut tables.imports);
    variables.substitute(&mut reader, single.chain(blocks).chain(tables.resources.values_mut()), &files);
    layers::extend(&mut reader, &mut tables.resources);
    reader.spec(tables);
    loaded.source.files = files;
    read_named(loaded);
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

/// The `*.toml` files in a directory, in the order of their names.
///
/// # Errors
/// When it cannot be listed.
pub fn list(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
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

/// Opens a file whose words are done.
///
/// # Errors
/// Why it cannot be read, or must not be believed.
pub fn open(path: &Path) -> Result<fs::File, String> {
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
    Ok(file)
}

pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("it is larger than 1 MiB; split it into several files".into());
    }
    Ok(bytes)
}

/// A table as it stands in a file, with its place.
pub(super) type Table<'i> = Spanned<DeTable<'i>>;

/// The tables of all files, those of overlays laid over those below.
#[derive(Default)]
struct Tables<'i> {
    project: Option<Table<'i>>,
    quota: Option<Table<'i>>,
    moved: Vec<Table<'i>>,
    removed: Vec<Table<'i>>,
    imports: Vec<Table<'i>>,
    variables: BTreeMap<String, Table<'i>>,
    resources: BTreeMap<Address, Table<'i>>,
    /// Where each was declared in the layer that is read.
    declared: HashMap<String, (usize, Span)>,
}

pub(super) struct Reader<'l> {
    /// Where each file starts in the one long text.
    starts: &'l [usize],
    loaded: &'l mut Loaded,
    /// The values that a variable could not be put into: they have their problem already.
    pub(super) failed: HashSet<Range<usize>>,
    /// Where problems were told of: a value that several inherit is told of once.
    told: HashSet<Range<usize>>,
}

impl Reader<'_> {
    /// What a file says, with all places in the one long text.
    pub(super) fn parse<'i>(&mut self, file: usize, text: &'i str) -> Option<DeTable<'i>> {
        let start = self.start(file);
        let (root, errors) = DeTable::parse_recoverable(text);
        let broken = !errors.is_empty();
        self.loaded.diagnostics.extend(syntax_errors(file, errors));
        // What stands in a file that is not TOML is anyone's guess; guessing brings up problems that are none.
        (!broken).then(|| layers::moved(root.into_inner(), start))
    }

    fn document<'i>(&mut self, root: DeTable<'i>, layer: usize, tables: &mut Tables<'i>) {
        for (key, value) in root {
            let place = self.span(key.span());
            match key.get_ref().as_ref() {
                "novella" => self.version(&value),
                "project" => {
                    if self.declare("project", place, layer, tables, "there is one `[project]` for all files")
                        && let Some(table) = self.table(value, "project")
                    {
                        layers::lay_over(&mut tables.project, table);
                    }
                }
                "quota" => {
                    if self.declare("quota", place, layer, tables, "there is one `[quota]` for all files")
                        && let Some(table) = self.table(value, "quota")
                    {
                        layers::lay_over(&mut tables.quota, table);
                    }
                }
                "moved" => self.blocks("moved", place, value, &mut tables.moved),
                "removed" => self.blocks("removed", place, value, &mut tables.removed),
                "import" => self.blocks("import", place, value, &mut tables.imports),
                "vars" => self.variables(value, layer, tables),
                word => match ResourceKind::ALL.into_iter().find(|kind| kind.as_str() == word) {
                    Some(kind) => self.resources(kind, value, layer, tables),
                    None => {
                        let kinds = ResourceKind::ALL.map(ResourceKind::as_str);
                        let known = ["novella", "project", "quota", "moved", "removed", "import", "vars"];
                        let known = kinds.into_iter().chain(known);
                        let error = Diagnostic::error(format!("unknown table `{word}`")).at(place);
                        self.report(suggest(error, word, known));
                    }
                },
            }
        }
    }

    /// Notes tables without names: `[[word]]`. They are counted through all files.
    fn blocks<'i>(&mut self, word: &str, place: Span, value: Spanned<DeValue<'i>>, blocks: &mut Vec<Table<'i>>) {
        let DeValue::Array(items) = value.into_inner() else {
            let error = Diagnostic::error(format!("`{word}` is a list of tables")).at(place);
            return self.report(error.help(format!("write each as `[[{word}]]`")));
        };
        for item in items {
            let span = self.span(item.span());
            if let Some(table) = self.table(item, &format!("[{word}]")) {
                self.loaded.source.note(format!("{word}[{}]", blocks.len()), span);
                blocks.push(table);
            }
        }
    }

    /// Notes `[vars]`: `NAME = DEFAULT` is short for `NAME = { default = DEFAULT }`.
    fn variables<'i>(&mut self, value: Spanned<DeValue<'i>>, layer: usize, tables: &mut Tables<'i>) {
        let Some(table) = self.table(value, "vars") else { return };
        for (key, value) in table.into_inner() {
            let (name, place) = (key.get_ref().clone().into_owned(), self.span(key.span()));
            if !self.declare(&format!("vars.{name}"), place, layer, tables, "give one of them another name") {
                continue;
            }
            let bytes = value.span();
            let table = match value.into_inner() {
                DeValue::Table(table) => table,
                default => {
                    let default = Spanned::new(bytes.clone(), default);
                    [(Spanned::new(key.span(), Cow::Borrowed("default")), default)].into_iter().collect()
                }
            };
            let mut slot = tables.variables.remove(&name);
            layers::lay_over(&mut slot, Spanned::new(bytes, table));
            tables.variables.extend(slot.map(|table| (name, table)));
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

    fn resources<'i>(
        &mut self,
        kind: ResourceKind,
        value: Spanned<DeValue<'i>>,
        layer: usize,
        tables: &mut Tables<'i>,
    ) {
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
            let address = Address::new(kind, name);
            let text = address.to_string();
            if !self.declare(&text, place, layer, tables, "give one of them another name") {
                continue;
            }
            let Some(table) = self.table(value, &text) else { continue };
            let mut slot = tables.resources.remove(&address);
            layers::lay_over(&mut slot, table);
            tables.resources.extend(slot.map(|table| (address, table)));
        }
    }

    /// Reads all tables into their structs.
    fn spec(&mut self, tables: Tables<'_>) {
        if let Some(table) = tables.project {
            self.loaded.spec.project = self.read_table(table, "project");
        }
        if let Some(table) = tables.quota {
            self.loaded.spec.quota = self.read_table(table, "quota");
        }
        for (number, table) in tables.moved.into_iter().enumerate() {
            let block = self.read_table(table, &format!("moved[{number}]"));
            self.loaded.spec.moved.push(block);
        }
        for (number, table) in tables.removed.into_iter().enumerate() {
            let block = self.read_table(table, &format!("removed[{number}]"));
            self.loaded.spec.removed.push(block);
        }
        for (number, table) in tables.imports.into_iter().enumerate() {
            let block = self.read_table(table, &format!("import[{number}]"));
            self.loaded.spec.imports.push(block);
        }
        for (Address { kind, name }, table) in tables.resources {
            let address = format!("{kind}.{name}");
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
        // A template was only read for its mistakes.
        self.loaded.spec.servers.retain(|_, server| server.r#abstract != Some(true));
    }

    /// Notes where a table stands; a diagnostic if there is another of that name already in the same layer.
    fn declare(&mut self, address: &str, place: Span, layer: usize, tables: &mut Tables<'_>, help: &str) -> bool {
        if let Some((_, first)) = tables.declared.get(address).filter(|(other, _)| *other == layer) {
            let first = Place::Span(first.clone());
            self.report(
                Diagnostic::error(format!("`{address}` is declared twice"))
                    .at(place)
                    .related(first, "first declared here")
                    .help(help),
            );
            return false;
        }
        if tables.declared.insert(address.to_owned(), (layer, place.clone())).is_none() {
            self.loaded.source.note(address.to_owned(), place);
        }
        true
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
    pub(super) fn table<'i>(&mut self, value: Spanned<DeValue<'i>>, what: &str) -> Option<Table<'i>> {
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
    pub(super) fn read_table<T: DeserializeOwned + Default>(&mut self, table: Table<'_>, address: &str) -> T {
        let bytes = table.span();
        let mut table = table.into_inner();
        let known = fields_of::<T>();
        let mut unread = Vec::new();
        for (key, value) in &table {
            let word = key.get_ref().as_ref();
            if known.contains(&word) {
                self.note(format!("{address}.{word}"), word, value, is_hidden);
                if self.has_failed(value) {
                    unread.push(key.clone());
                }
            } else {
                let error = Diagnostic::error(format!("unknown key `{word}` in `{address}`")).at(self.span(key.span()));
                self.report_once(key.span(), suggest(error, word, known.iter().copied()));
                if may_be_hidden(word) {
                    let span = self.span(value.span());
                    self.loaded.source.hidden.push(span);
                }
                unread.push(key.clone());
            }
        }
        for key in unread {
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
            let culprit = table.iter().find(|(_, value)| layers::holds(value, &at)).map(|(key, _)| key.clone());
            let key = culprit.as_ref().map_or("", |key| key.get_ref().as_ref());
            let mut diagnostic = Diagnostic::error(format!("`{address}.{key}`: {message}")).at(self.span(at.clone()));
            diagnostic.help = help.map(str::to_owned).or_else(|| suggest_variant(message));
            diagnostic.code = code.map(str::to_owned);
            self.report_once(at, diagnostic);
            match culprit {
                Some(key) => table.remove(&key),
                // A problem with no field to blame: nothing can be said of the rest.
                None => return T::default(),
            };
        }
    }

    /// Notes where a value stands, and all that is in it. `word` is the last of its key, and `hides` tells whether what it
    /// has is not to be shown.
    fn note(&mut self, key: String, word: &str, value: &Spanned<DeValue<'_>>, hides: fn(&str) -> bool) {
        match value.get_ref() {
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.note(format!("{key}[{index}]"), word, item, hides);
                }
            }
            DeValue::Table(table) => {
                for (word, item) in table {
                    self.note(format!("{key}.{}", word.get_ref()), word.get_ref(), item, may_be_hidden);
                }
            }
            _ => {}
        }
        let span = self.span(value.span());
        if hides(word) {
            self.loaded.source.hidden.push(span.clone());
        }
        self.loaded.source.note(key, span);
    }

    /// Whether a variable could not be put into a value, or into one that is in it.
    fn has_failed(&self, value: &Spanned<DeValue<'_>>) -> bool {
        self.failed.contains(&value.span())
            || match value.get_ref() {
                DeValue::Array(items) => items.iter().any(|item| self.has_failed(item)),
                DeValue::Table(table) => table.values().any(|item| self.has_failed(item)),
                _ => false,
            }
    }

    /// The place in its file of bytes of the one long text.
    pub(super) fn span(&self, bytes: Range<usize>) -> Span {
        let file = self.starts.partition_point(|start| *start <= bytes.start).saturating_sub(1);
        let start = self.start(file);
        Span { file, bytes: bytes.start.saturating_sub(start)..bytes.end.saturating_sub(start) }
    }

    /// Where a file starts in the one long text.
    pub(super) fn start(&self, file: usize) -> usize {
        self.starts.get(file).copied().unwrap_or_default()
    }

    /// The texts and places that are known so far.
    pub(super) fn source(&mut self) -> &mut Source {
        &mut self.loaded.source
    }

    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.loaded.diagnostics.push(diagnostic);
    }

    fn report_once(&mut self, bytes: Range<usize>, diagnostic: Diagnostic) {
        if self.told.insert(bytes) {
            self.report(diagnostic);
        }
    }
}

/// The keys whose values are not shown. In the place of a public key, a private one may stand by mistake.
const HIDDEN: [&str; 3] = ["user_data", "content", "public_key"];

/// What people used to other tools write, and what it is called here.
const ALIASES: [(&str, &str); 44] = [
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
    ("sha512", "sha512sums"),
    ("userdata", "user_data"),
    ("cloud_init", "user_data"),
    ("key_name", "key_pairs"),
    ("keypairs", "key_pairs"),
    ("ssh_keys", "key_pairs"),
    ("meta", "metadata"),
    ("personality", "files"),
    ("permissions", "mode"),
];

/// Whether the value of a key is not to be shown.
pub(super) fn is_hidden(word: &str) -> bool {
    HIDDEN.contains(&word)
}

/// The same of a key that may be misspelt.
fn may_be_hidden(word: &str) -> bool {
    alias(word, &HIDDEN).or_else(|| did_you_mean(word, HIDDEN)).is_some()
}

fn alias(word: &str, known: &[&str]) -> Option<&'static str> {
    ALIASES.iter().find(|(foreign, ours)| *foreign == word && known.contains(ours)).map(|(_, ours)| *ours)
}

pub(super) fn suggest<'a>(diagnostic: Diagnostic, word: &str, known: impl Iterator<Item = &'a str>) -> Diagnostic {
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

/// Where and why a file is not TOML.
pub(super) fn syntax_errors(file: usize, errors: Vec<toml::de::Error>) -> Vec<Diagnostic> {
    let place = |error: &toml::de::Error| Span { file, bytes: error.span().unwrap_or(0..0) };
    errors.iter().map(|error| Diagnostic::error(first_line(error.message())).at(place(error))).collect()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text)
}

pub(super) fn with_article(noun: &str) -> String {
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
