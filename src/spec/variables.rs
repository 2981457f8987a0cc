//! Variables: `[vars]` declares them, `${var.NAME}` stands for one in a value.
//!
//! A variable has the type of its default, or the one that `type` says. What is given comes from the environment, from files
//! and from the command line; the later counts. There are no expressions: a value is a variable, or a string with some in it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use crate::diagnostic::{Diagnostic, did_you_mean};
use crate::spec::load::{Reader, Table, is_hidden, suggest, with_article};
use crate::spec::source::{SourceFile, Use};

/// What the names of the environment begin with that give a variable its value.
pub const ENVIRONMENT: &str = "NOVELLA_VAR_";

/// Where a variable begins in a string. Any other `$` is what it is, for scripts are full of them.
const OPEN: &str = "${var.";

/// How a variable is given a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// By the environment: `NOVELLA_VAR_NAME=VALUE`. What is not declared is another spec's.
    Environment {
        /// NAME.
        name: String,
        /// VALUE.
        value: String,
    },
    /// On the command line: `NAME=VALUE`.
    Argument(String),
    /// By a TOML file with `NAME = VALUE` in it.
    File(PathBuf),
}

/// The type of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VariableType {
    /// Text, and all that is written as such: names, sizes, addresses.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Float,
    /// `true` or `false`.
    Boolean,
    /// A list of strings.
    List,
}

impl VariableType {
    fn of(value: &DeValue<'_>) -> Option<Self> {
        match value {
            DeValue::String(_) => Some(Self::String),
            DeValue::Integer(_) => Some(Self::Integer),
            DeValue::Float(_) => Some(Self::Float),
            DeValue::Boolean(_) => Some(Self::Boolean),
            DeValue::Array(items) if items.iter().all(|item| item.get_ref().is_str()) => Some(Self::List),
            DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_) => None,
        }
    }

    fn takes(self, value: &DeValue<'_>) -> bool {
        Self::of(value).is_some_and(|it| it == self || (self, it) == (Self::Float, Self::Integer))
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::List => "list of strings",
        }
    }
}

/// A variable in `[vars]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct VariableSpec {
    /// What kind of value it has. Needed without a default.
    pub r#type: Option<VariableType>,
    /// Its value where none is given. Without a default, one must be given.
    #[schemars(schema_with = "crate::spec::json_schema::variable")]
    pub default: Option<toml::Value>,
    /// What it is for.
    pub description: Option<String>,
}

/// The variables of a spec with their values.
#[derive(Default)]
pub(super) struct Variables<'i> {
    /// By name; none where the value is missing or wrong, and has its problem already.
    values: BTreeMap<String, Option<Spanned<DeValue<'i>>>>,
}

impl<'i> Variables<'i> {
    /// Reads what is declared, and what is given.
    pub(super) fn read<'g>(
        reader: &mut Reader<'_>,
        declared: BTreeMap<String, Table<'i>>,
        given: impl Iterator<Item = (&'g Given, (usize, &'i SourceFile))>,
    ) -> Self {
        let mut types = BTreeMap::new();
        let mut variables = Self::default();
        for (name, table) in declared {
            let address = format!("vars.{name}");
            let place = reader.source().key(&address).cloned();
            let at = |error: Diagnostic| place.clone().map_or_else(|| error.clone(), |place| error.clone().at(place));
            if !is_name(&name) {
                let error = Diagnostic::error(format!("`{}` is not the name of a variable", name.escape_debug()));
                reader.report(at(error.help("it has lowercase letters, digits and `_`, and a letter first")));
                continue;
            }
            let default = table.get_ref().get("default").cloned();
            let written: VariableSpec = reader.read_table(table, &address);
            let of_default = default.as_ref().and_then(|value| VariableType::of(value.get_ref()));
            let Some(kind) = written.r#type.or(of_default) else {
                let error = match &default {
                    Some(default) => {
                        let place = reader.span(default.span());
                        Diagnostic::error(format!(
                            "`{address}` cannot be {}",
                            with_article(default.get_ref().type_str())
                        ))
                        .at(place)
                        .help("a variable is a string, a number, `true` or `false`, or a list of strings")
                    }
                    None => at(Diagnostic::error(format!("`{address}` needs a default or a type"))
                        .help(format!("write `{name} = DEFAULT` or `{name} = {{ type = \"string\" }}`"))),
                };
                reader.report(error);
                variables.values.insert(name, None);
                continue;
            };
            types.insert(name.clone(), (kind, place));
            let default = default.map(|value| fitting(reader, &name, kind, value));
            if let Some(value) = default {
                variables.values.insert(name, value);
            }
        }
        for (given, (number, file)) in given {
            for (name, value) in given_values(reader, given, number, file, &types) {
                variables.values.insert(name, value);
            }
        }
        for (name, (_, place)) in types {
            if variables.values.contains_key(&name) {
                continue;
            }
            let error = Diagnostic::error(format!("`var.{name}` has no default, and is not given"))
                .code("variable-not-given")
                .help(format!(
                    "give it with `--var {name}=VALUE`, in a file with `--var-file FILE`, or as `{ENVIRONMENT}{name}`"
                ));
            reader.report(place.into_iter().fold(error, Diagnostic::at));
            variables.values.insert(name, None);
        }
        variables
    }

    /// Puts the variables into all values of these tables.
    pub(super) fn substitute<'t>(
        &self,
        reader: &mut Reader<'_>,
        tables: impl Iterator<Item = &'t mut Table<'i>>,
        files: &[SourceFile],
    ) where
        'i: 't,
    {
        for table in tables {
            self.in_table(reader, table.get_mut(), files);
        }
    }

    fn in_table(&self, reader: &mut Reader<'_>, table: &mut DeTable<'i>, files: &[SourceFile]) {
        for (key, value) in table.iter_mut() {
            self.in_value(reader, key.get_ref(), value, files);
        }
    }

    /// `word` is the last of its key.
    fn in_value(&self, reader: &mut Reader<'_>, word: &str, value: &mut Spanned<DeValue<'i>>, files: &[SourceFile]) {
        let bytes = value.span();
        match value.get_mut() {
            DeValue::Table(table) => self.in_table(reader, table, files),
            DeValue::Array(items) => {
                for item in items.iter_mut() {
                    self.in_value(reader, word, item, files);
                }
            }
            DeValue::String(text) if text.contains(OPEN) => match self.expand(reader, word, text, &bytes, files) {
                Some(expanded) => *value = expanded,
                None => {
                    reader.failed.insert(bytes);
                }
            },
            _ => {}
        }
    }

    /// What a string says with its variables put in; none if one cannot be, which has been told then.
    fn expand(
        &self,
        reader: &mut Reader<'_>,
        word: &str,
        text: &str,
        bytes: &Range<usize>,
        files: &[SourceFile],
    ) -> Option<Spanned<DeValue<'i>>> {
        let mut said = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(OPEN) {
            let (before, from) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                said.push_str(before);
                said.push_str(OPEN);
                rest = &from[OPEN.len()..];
                continue;
            }
            said.push_str(before);
            let Some((name, after)) = from[OPEN.len()..].split_once('}') else {
                let place = reader.span(bytes.clone());
                reader.report(
                    Diagnostic::error(format!("`{OPEN}` has no `}}` behind it"))
                        .at(place)
                        .help(format!("write `{OPEN}NAME}}`; for the characters themselves, `${OPEN}`")),
                );
                return None;
            };
            let value = self.find(reader, word, name, bytes, files)?;
            match value.get_ref() {
                whole if before.is_empty() && after.is_empty() && said.is_empty() => {
                    return Some(placed(whole.clone(), bytes));
                }
                DeValue::String(text) => said.push_str(text),
                DeValue::Integer(number) => said.push_str(number.as_str()),
                DeValue::Float(number) => said.push_str(number.as_str()),
                DeValue::Boolean(yes) => said.push_str(if *yes { "true" } else { "false" }),
                DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_) => {
                    let place = reader.span(bytes.clone());
                    let error = Diagnostic::error(format!("`var.{name}` is a list, and cannot be a part of a string"));
                    reader.report(
                        error.at(place).help(format!("let it stand for the whole value: `\"{OPEN}{name}}}\"`")),
                    );
                    return None;
                }
            }
            rest = after;
        }
        said.push_str(rest);
        Some(Spanned::new(bytes.clone(), DeValue::String(Cow::Owned(said))))
    }

    /// The value of a variable where it is used, which is noted.
    fn find(
        &self,
        reader: &mut Reader<'_>,
        word: &str,
        name: &str,
        bytes: &Range<usize>,
        files: &[SourceFile],
    ) -> Option<&Spanned<DeValue<'i>>> {
        let span = reader.span(bytes.clone());
        let Some(value) = self.values.get(name) else {
            let mut place = span.clone();
            let written = files.get(span.file).and_then(|file| file.text.get(span.bytes.clone()));
            if let Some(at) = written.and_then(|text| text.find(&format!("{OPEN}{name}}}"))) {
                let start = span.bytes.start + at + OPEN.len();
                place.bytes = start..start + name.len();
            }
            let error = Diagnostic::error(format!("there is no variable `{}`", name.escape_debug())).at(place);
            let near = did_you_mean(name, self.values.keys().map(String::as_str));
            reader.report(match near {
                Some(near) => error.help(format!("did you mean `{OPEN}{near}}}`?")),
                None => error.help(format!(
                    "declare it: `[vars]` with `{name} = DEFAULT`; for the characters themselves, write `${OPEN}`"
                )),
            });
            return None;
        };
        let value = value.as_ref()?;
        let from = reader.span(value.span());
        if is_hidden(word) {
            reader.source().hidden.push(from.clone());
        }
        reader.source().uses.push(Use { span, name: name.to_owned(), from });
        Some(value)
    }
}

/// A value with this place for itself and all that is in it.
fn placed<'i>(value: DeValue<'i>, bytes: &Range<usize>) -> Spanned<DeValue<'i>> {
    let value = match value {
        DeValue::Array(items) => {
            let mut all = DeArray::new();
            items.into_iter().for_each(|item| all.push(placed(item.into_inner(), bytes)));
            DeValue::Array(all)
        }
        other => other,
    };
    Spanned::new(bytes.clone(), value)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The value, if it is one of this type; else that has been told.
fn fitting<'i>(
    reader: &mut Reader<'_>,
    name: &str,
    kind: VariableType,
    value: Spanned<DeValue<'i>>,
) -> Option<Spanned<DeValue<'i>>> {
    if kind.takes(value.get_ref()) {
        return Some(value);
    }
    let place = reader.span(value.span());
    reader.report(
        Diagnostic::error(format!("`var.{name}` is {}", with_article(kind.as_str())))
            .code("variable-type")
            .at(place)
            .help(match kind {
                VariableType::String => "write `\"TEXT\"`",
                VariableType::Integer => "write a whole number, as `2`",
                VariableType::Float => "write a number, as `1.5`",
                VariableType::Boolean => "write `true` or `false`",
                VariableType::List => "write `[\"ONE\", \"OTHER\"]`",
            }),
    );
    None
}

type Types = BTreeMap<String, (VariableType, Option<crate::diagnostic::Span>)>;

/// The variables that one of the ways of giving gives, each with its value if that can be used.
fn given_values<'i>(
    reader: &mut Reader<'_>,
    given: &Given,
    number: usize,
    file: &'i SourceFile,
    types: &Types,
) -> Vec<(String, Option<Spanned<DeValue<'i>>>)> {
    let start = reader.start(number);
    let unknown = |name: &str, bytes: Range<usize>, reader: &mut Reader<'_>| {
        let place = reader.span(start + bytes.start..start + bytes.end);
        let error = Diagnostic::error(format!("there is no variable `{}`", name.escape_debug())).at(place);
        reader.report(suggest(error, name, types.keys().map(String::as_str)));
    };
    match given {
        Given::Environment { name, .. } => {
            // It may be a password, and nobody sees the environment.
            let place = reader.span(start..start + file.text.len());
            reader.source().hidden.push(place);
            let Some((kind, _)) = types.get(name) else { return Vec::new() };
            vec![(name.clone(), typed(reader, name, *kind, &file.text, start))]
        }
        Given::Argument(_) => {
            let Some((name, text)) = file.text.split_once('=') else {
                let place = reader.span(start..start + file.text.len());
                reader.report(Diagnostic::error("a variable needs a value").at(place).help("write `--var NAME=VALUE`"));
                return Vec::new();
            };
            let Some((kind, _)) = types.get(name) else {
                unknown(name, 0..name.len(), reader);
                return Vec::new();
            };
            vec![(name.to_owned(), typed(reader, name, *kind, text, start + name.len() + 1))]
        }
        Given::File(_) => {
            let mut values = Vec::new();
            for (key, value) in reader.parse(number, &file.text).into_iter().flatten() {
                let name = key.get_ref().as_ref();
                match types.get(name) {
                    Some((kind, _)) => values.push((name.to_owned(), fitting(reader, name, *kind, value))),
                    None => unknown(name, key.span().start - start..key.span().end - start, reader),
                }
            }
            values
        }
    }
}

/// A text as a value of this type; a string is the text itself.
fn typed<'i>(
    reader: &mut Reader<'_>,
    name: &str,
    kind: VariableType,
    text: &'i str,
    start: usize,
) -> Option<Spanned<DeValue<'i>>> {
    let bytes = start..start + text.len();
    let value = match kind {
        VariableType::String => DeValue::String(DeString::Borrowed(text)),
        // What is no TOML is of no type but a string.
        _ => DeValue::parse(text).map_or(DeValue::String(DeString::Borrowed(text)), Spanned::into_inner),
    };
    fitting(reader, name, kind, placed(value, &bytes))
}
