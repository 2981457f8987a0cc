//! The language as a JSON Schema (draft 7), for editors.
//!
//! It is made from the structs that read a spec: their fields are its keys, their doc comments its descriptions. A value that
//! is written as a string says here what such a string looks like; a schema cannot say all that its `FromStr` checks.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::address::{Name, ResourceKind};
use crate::spec::load::LANGUAGE_VERSION;
use crate::spec::schema::{
    DnsRecordSpec, FlavorSpec, HostSpec, ImageSpec, ImportSpec, KeypairSpec, MovedSpec, NetworkSpec, PortSpec,
    ProjectSpec, QuotaSpec, RemovedSpec, ServerSpec, SubnetSpec, VolumeSpec,
};
use crate::spec::values::{
    AddressSpec, Cidr, DomainId, FixedIpSpec, FixedIpTable, GatewaySpec, Ip, Lifetime, Limit, MaintenanceSpec, Pool,
    PortRef, Size, TimeToLive, VolumeRef, VolumeTable, WindowSpec,
};
use crate::spec::variables::VariableSpec;
use crate::value::{ByteSize, Mac, Secret, Sha256};

/// What a [`Name`] looks like.
const NAME: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";

/// A dotted quad, or anything with the letters of an IPv6 address in it.
const ADDRESS: &str = r"(\d{1,3}(\.\d{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)";

/// A string with a variable in it.
const VARIABLE: &str = r"\$\{var\.[a-z][a-z0-9_]*\}";

/// The whole schema.
pub fn document() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.inline_subschemas = false;
        // Draft 7 calls them `definitions`, but reads a reference to anywhere; newer tools only look here.
        settings.definitions_path = "/$defs".into();
    });
    let mut generator = settings.into_generator();
    let mut properties = Map::new();
    let version = json!({ "const": LANGUAGE_VERSION, "description": "The version of the language." });
    properties.insert("novella".into(), version);
    properties.insert("project".into(), generator.subschema_for::<ProjectSpec>().to_value());
    properties.insert("quota".into(), generator.subschema_for::<QuotaSpec>().to_value());
    let blocks = [
        ("moved", generator.subschema_for::<MovedSpec>(), "Resources that were recorded under another name."),
        ("removed", generator.subschema_for::<RemovedSpec>(), "Resources that are to be forgotten and not destroyed."),
        (
            "import",
            generator.subschema_for::<ImportSpec>(),
            "Servers that are libvirt domains of others, until they are taken over.",
        ),
    ];
    for (word, block, description) in blocks {
        properties.insert(word.into(), json!({ "description": description, "type": "array", "items": block }));
    }
    let variable = generator.subschema_for::<VariableSpec>();
    let variables = json!({ "anyOf": [self::variable(&mut generator), variable] });
    properties.insert("vars".into(), named("Variables, each with its default.", "^[a-z][a-z0-9_]*$", variables));
    for kind in ResourceKind::ALL {
        let schema = resource(kind, &mut generator);
        let description = format!("`[{kind}.NAME]`.");
        properties.insert(kind.to_string(), named(&description, NAME, schema.to_value()));
    }
    let mut definitions = generator.take_definitions(false);
    let mut written = Written { definitions: definitions.clone() };
    for definition in definitions.values_mut() {
        if let Ok(schema) = definition.try_into() {
            written.transform(schema);
        }
    }
    definitions.insert(
        "WithVariable".into(),
        json!({
            "type": "string",
            "description": "A string with `${var.NAME}` in it.",
            "pattern": VARIABLE,
        }),
    );
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "novella",
        "description": "What the virtual machines of a Linux host are to be.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// The keys of a kind of resource, each with its meaning.
pub fn keys(kind: ResourceKind) -> Vec<(String, String)> {
    let mut generator = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true).into_generator();
    let schema = resource(kind, &mut generator);
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let meaning = |value: &Value| value.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
    properties.map(|(key, value)| (key.clone(), meaning(value))).collect()
}

/// The table of a kind of resource.
fn resource(kind: ResourceKind, generator: &mut SchemaGenerator) -> Schema {
    match kind {
        ResourceKind::Host => generator.subschema_for::<HostSpec>(),
        ResourceKind::Network => generator.subschema_for::<NetworkSpec>(),
        ResourceKind::Subnet => generator.subschema_for::<SubnetSpec>(),
        ResourceKind::DnsRecord => generator.subschema_for::<DnsRecordSpec>(),
        ResourceKind::Port => generator.subschema_for::<PortSpec>(),
        ResourceKind::Image => generator.subschema_for::<ImageSpec>(),
        ResourceKind::Flavor => generator.subschema_for::<FlavorSpec>(),
        ResourceKind::Keypair => generator.subschema_for::<KeypairSpec>(),
        ResourceKind::Server => generator.subschema_for::<ServerSpec>(),
        ResourceKind::Volume => generator.subschema_for::<VolumeSpec>(),
    }
}

/// Tables that are known by their names.
fn named(description: &str, names: &str, schema: Value) -> Value {
    json!({
        "description": description,
        "type": "object",
        "patternProperties": { names: schema },
        "additionalProperties": false,
    })
}

/// What a variable may have.
pub(super) fn variable(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": ["string", "number", "boolean"] },
            { "type": "array", "items": { "type": "string" } },
        ],
    })
}

/// Makes of what serde reads what people write: there is no `null` in TOML, an unknown key is an error, and a variable may
/// stand for any value.
struct Written {
    /// What is referred to by name, as serde reads it.
    definitions: Map<String, Value>,
}

impl Transform for Written {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else { return };
        without_null(object);
        if object.contains_key("properties") {
            object.insert("additionalProperties".into(), false.into());
            // An overlay says a part, and what extends another has the rest from there.
            object.remove("required");
        }
        let keys = object.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
        for value in keys {
            self.or_variable(value);
        }
        for key in ["items", "additionalProperties"] {
            object.get_mut(key).into_iter().for_each(|value| self.or_variable(value));
        }
    }
}

impl Written {
    /// Lets a string with a variable in it stand for a value.
    fn or_variable(&self, schema: &mut Value) {
        let Some(object) = schema.as_object_mut() else { return };
        let is_free = object.get("type") == Some(&json!("string")) && !object.contains_key("pattern");
        if is_free && !object.contains_key("enum") {
            return;
        }
        let description = object.remove("description");
        // A reference that is alone need not be wrapped.
        let alone = match object.get_mut("allOf").and_then(Value::as_array_mut).map(Vec::as_mut_slice) {
            Some([only]) => Some(only.take()),
            _ => None,
        };
        let value = alone.unwrap_or_else(|| schema.take());
        // A table is written out: no variable stands for one.
        if self.definition(&value).is_some_and(|it| it.get("properties").is_some()) {
            *schema = value;
            return;
        }
        *schema = self.with_variable(&value, description.as_ref());
    }

    /// What a reference leads to.
    fn definition(&self, value: &Value) -> Option<&Value> {
        self.definitions.get(value.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?)
    }

    /// The value or a string with a variable in it. Taplo lists a key once for each part of a choice, with what that part says:
    /// so there is no choice where there need be none, and the description is in each part.
    fn with_variable(&self, value: &Value, description: Option<&Value>) -> Value {
        let described = |value: &Value| {
            let mut value = self.definition(value).unwrap_or(value).clone();
            if let (Some(description), Some(object)) = (description, value.as_object_mut()) {
                object.insert("description".into(), description.clone());
            }
            value
        };
        let mut value = described(value);
        let variable = json!({ "$ref": "#/$defs/WithVariable" });
        let parts = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned();
        if let Some(words) = parts(&value, "oneOf") {
            let each = |key: &str| words.iter().map(|word| word[key].clone()).collect::<Vec<_>>();
            let words = json!({ "type": "string", "enum": each("const"), "x-taplo": { "docs": { "enumValues": each("description") } } });
            return json!({ "anyOf": [described(&words), variable], "description": value["description"] });
        }
        if let Some(parts) = parts(&value, "anyOf") {
            let is_table = |part: &Value| self.definition(part).is_some_and(|it| it.get("properties").is_some());
            let parts = parts.iter().map(|part| {
                let mut part = if is_table(part) { part.clone() } else { described(part) };
                part.get_mut("items").into_iter().for_each(|items| self.or_variable(items));
                part
            });
            value["anyOf"] = parts.chain([variable]).collect();
            return value;
        }
        match (value.get("type"), value.get("pattern").and_then(Value::as_str)) {
            (_, Some(pattern)) => value["pattern"] = format!("{pattern}|{VARIABLE}").into(),
            (Some(kind), None) if kind != "string" => {
                value["type"] = json!([kind, "string"]);
                value["pattern"] = VARIABLE.into();
            }
            _ => {}
        }
        value
    }
}

/// Takes `null` out of what may stand here.
fn without_null(object: &mut Map<String, Value>) {
    let null = json!("null");
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|it| *it != null);
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|it| !it.is_null());
    }
    if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|it| it.get("type") != Some(&null));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            if only.contains_key("$ref") {
                // In draft 7 what stands beside a reference does not count.
                object.insert("allOf".into(), json!([only]));
            } else {
                for (key, value) in only {
                    object.entry(key).or_insert(value);
                }
            }
        }
    }
}

/// A type that is written as a string of this form.
macro_rules! text {
    ($type:ty, $name:literal, $description:expr, $pattern:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
            }
        }
    };
}

text!(Name, "Name", "A name: lowercase letters, digits and `-`.", NAME);
text!(Size, "Size", "A size with its unit, as `512 MiB`.", r"^\s*\d+\s*[KMGT]iB\s*$");
text!(Cidr, "Cidr", "A network, as `10.20.0.0/24` or `fd00:20::/64`.", format!(r"^{ADDRESS}/\d{{1,3}}$"));
text!(Ip, "Ip", "An IP address, as `10.20.0.11`.", format!("^{ADDRESS}$"));
text!(GatewaySpec, "Gateway", "An IP address, or `none`.", format!("^(none|{ADDRESS})$"));
text!(Pool, "Pool", "A range, as `10.20.0.10-10.20.0.99`.", format!(r"^{ADDRESS}\s*-\s*{ADDRESS}$"));
text!(Lifetime, "Lifetime", "A length of time, as `30m`, `12h` or `7d`.", r"^\d+\s*[smhd]$");
text!(TimeToLive, "TimeToLive", "A length of time, as `12h` or `7d`; `0` for not at all.", r"^(0|\d+\s*[smhd])$");
text!(
    WindowSpec,
    "Window",
    "A window of the week or of each day, as `Sat 02:00-04:00` or `02:00-04:00`.",
    r"^\s*(([Mm][Oo][Nn]|[Tt][Uu][Ee]|[Ww][Ee][Dd]|[Tt][Hh][Uu]|[Ff][Rr][Ii]|[Ss][Aa][Tt]|[Ss][Uu][Nn])\s+)?([01]\d|2[0-4]):[0-5]\d-([01]\d|2[0-4]):[0-5]\d\s*$"
);
text!(AddressSpec, "Address", "The address of a resource, as `server.web`.", r"^[a-z_]+\.[a-z][a-z0-9-]*$");
text!(DomainId, "Domain", "The name or the UUID of a libvirt domain.", r"^[^\u0000-\u001f\u007f]+$");
text!(Mac, "Mac", "A MAC address, as `fa:16:3e:01:02:03`.", "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$");
text!(Sha256, "Sha256", "A SHA-256 digest, as `sha256sum` prints it.", "^[0-9a-fA-F]{64}$");

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "Text that may be secret." })
    }
}

/// A type that is written as a string or as a table.
macro_rules! text_or_table {
    ($type:ty, $name:literal, $text:ty, $table:ty) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let (text, table) = (generator.subschema_for::<$text>(), generator.subschema_for::<$table>());
                json_schema!({ "anyOf": [text, table] })
            }
        }
    };
}

text_or_table!(FixedIpSpec, "FixedIp", Ip, FixedIpTable);
text_or_table!(PortRef, "ServerPort", Name, PortSpec);
text_or_table!(VolumeRef, "ServerVolume", Name, VolumeTable);

impl JsonSchema for MaintenanceSpec {
    fn schema_name() -> Cow<'static, str> {
        "Maintenance".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let window = generator.subschema_for::<WindowSpec>();
        json_schema!({ "anyOf": [window, { "type": "array", "items": window }] })
    }
}

/// A limit, of which `-1` is none.
macro_rules! limit {
    ($type:ty, $name:literal, $of:expr) => {
        impl JsonSchema for Limit<$type> {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let of: fn(&mut SchemaGenerator) -> Value = $of;
                json_schema!({ "anyOf": [of(generator), { "const": -1 }] })
            }
        }
    };
}

limit!(u64, "CountLimit", |_| json!({ "type": "integer", "minimum": 0 }));
limit!(ByteSize, "SizeLimit", |generator| generator.subschema_for::<Size>().to_value());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_what_is_written_and_nothing_else() {
        let valid = |type_name: &str, text: &str| {
            let schema = document();
            let it = &schema["$defs"][type_name];
            jsonschema::draft7::new(it).expect("a schema").is_valid(&json!(text))
        };
        for (name, good, bad) in [
            ("Name", &["web", "a1", "web-1"][..], &["", "Web", "1a", "a-", "a_b"][..]),
            ("Size", &["512 MiB", "20GiB"], &["512", "10G", "1.5 GiB", "-1 GiB"]),
            ("Cidr", &["10.20.0.0/24", "fd00:20::/64"], &["10.20.0.0", "web/24"]),
            ("Ip", &["10.20.0.1", "fd00::1", "::"], &["10.20.0", "web", "10.20.0.1/24"]),
            ("Gateway", &["none", "10.0.0.1"], &["nothing"]),
            ("Pool", &["10.0.0.1-10.0.0.9", "fd00::1 - fd00::9"], &["10.0.0.1"]),
            ("Lifetime", &["12h", "90s"], &["12", "1w", "1.5h"]),
            (
                "Window",
                &["Sat 02:00-04:00", "sun 22:00-24:00", "02:00-04:00"],
                &["Sat", "2:00-4:00", "Caturday 02:00-04:00"],
            ),
            ("Mac", &["fa:16:3e:01:02:03"], &["fa-16-3e-01-02-03", "fa:16:3e:01:02"]),
        ] {
            good.iter().for_each(|text| assert!(valid(name, text), "{name}: {text}"));
            bad.iter().for_each(|text| assert!(!valid(name, text), "{name}: {text}"));
        }
    }
}
