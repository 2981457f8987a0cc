//! What the cloud-init of a guest is told, on a small medium of its own: a NoCloud seed or an OpenStack config drive.
//!
//! [`mod@volume`] makes the medium; `network` tells how interfaces are set up. All of it may hold secrets: an object has it under
//! seal, and no record has it at all.

mod network;
pub mod volume;

use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::blueprint::identity::Identity;
use crate::blueprint::key::{host_entry_key, seed_key};
use crate::blueprint::layout::FIRST_DISK;
use crate::blueprint::object::{Datasource, Object, Seed};
use crate::blueprint::seed::network::Interface;
use crate::blueprint::seed::volume::{Sealed, Volume};
use crate::blueprint::{Blueprint, Context, ignore};
use crate::desired::Server;
use crate::desired::cloud_init::{CloudInit, InjectedFile};
use crate::desired::lifecycle::Ignored;
use crate::spec::values::OnUserDataChange;
use crate::value::{Secret, Sha256};

/// Whose seed it is.
#[derive(Clone, Copy)]
pub(super) struct Guest {
    /// The UUID of the server.
    pub uuid: Uuid,
    /// The generation of its root disk.
    pub generation: u32,
    /// Whether it is yet to be started from that disk: then it is told what the spec says now, whatever it was told before.
    pub is_new: bool,
}

/// Adds the seed of a server, if it needs one, and tells where it is.
pub(super) fn lower(
    server: &Server,
    guest: Guest,
    context: &Context<'_>,
    blueprint: &mut Blueprint,
) -> Option<PathBuf> {
    let wanted = wanted(server, guest, context, blueprint);
    let made = context.recorded.records.get(&seed_key(&server.name)).map(|record| &record.object);
    let made = made.and_then(|made| if let Object::Seed(made) = made { Some(made) } else { None });
    let seed = if guest.is_new {
        wanted
    } else if server.ignores(Ignored::UserData) && is_kept(server, made, context) {
        if wanted.as_ref().map(|it| &it.path) != made.map(|it| &it.path) {
            ignore::note(&mut blueprint.ignored, &server.name, Ignored::UserData);
        }
        made.cloned()
    } else {
        let keeps = server.cloud_init.on_change == OnUserDataChange::Ignore;
        wanted.map(|wanted| made.filter(|_| keeps).cloned().unwrap_or(wanted))
    };
    let path = seed.as_ref().map(|seed| seed.path.clone());
    seed.into_iter().for_each(|seed| blueprint.add(Object::Seed(seed)));
    path
}

/// Whether what a server was told when it was made is known, down to that it was told nothing.
fn is_kept(server: &Server, made: Option<&Seed>, context: &Context<'_>) -> bool {
    ignore::made(&server.name, context.recorded).is_some_and(|domain| domain.seed.is_some() == made.is_some())
}

/// The seed that a server is to have by what the spec says now.
fn wanted(server: &Server, guest: Guest, context: &Context<'_>, blueprint: &Blueprint) -> Option<Seed> {
    let told = &*server.cloud_init;
    let interfaces = interfaces(server, context, blueprint);
    if !told.is_asked_for() && interfaces.is_none() {
        return None;
    }
    let image = Sealed::new(volume(server, guest, context, interfaces.as_deref()));
    let path = context.layout.seed(server.name.as_str(), image.digest());
    let datasource = if told.config_drive { Datasource::ConfigDrive } else { Datasource::NoCloud };
    Some(Seed { server: server.name.clone(), path, datasource, image })
}

fn interfaces(server: &Server, context: &Context<'_>, blueprint: &Blueprint) -> Option<Vec<Interface>> {
    let ports = server.ports.iter().filter_map(|id| {
        let network = context.desired.networks.get(&context.desired.ports.get(id)?.network)?;
        match blueprint.objects.get(&host_entry_key(id))? {
            Object::HostEntry(entry) => Some((entry, network, Identity::tap(context.identity.port(id)))),
            _ => None,
        }
    });
    network::interfaces(ports, context.ipam)
}

/// The digest of the user data, which a root disk that was made with it is known by.
pub(super) fn user_data_digest(told: &CloudInit) -> Option<String> {
    told.user_data.as_ref().map(|text| Sha256::of(text.bytes()).short().to_owned())
}

/// The medium. Its instance id hangs on the server, its root disk and all that the medium has: cloud-init does its work anew when it
/// meets another. It is never the server's UUID itself, which the firmware tells: cloud-init would believe that it knows
/// the instance, and not look.
fn volume(server: &Server, guest: Guest, context: &Context<'_>, interfaces: Option<&[Interface]>) -> Volume {
    let told = &*server.cloud_init;
    let first = server.ports.first().and_then(|id| context.desired.ports.get(id));
    let about = About {
        name: server.name.as_str(),
        hostname: first.map_or(server.name.as_str(), |port| port.hostname().as_str()),
        told,
        user_data: user_data(told),
        interfaces,
    };
    let write = if told.config_drive { About::config_drive } else { About::no_cloud };
    let mut known_by = write(&about, Uuid::nil()).digest().as_str().to_owned();
    if guest.generation > FIRST_DISK {
        known_by = format!("{known_by}/{}", guest.generation);
    }
    let instance = Uuid::new_v5(&guest.uuid, known_by.as_bytes());
    write(&about, instance)
}

struct About<'a> {
    name: &'a str,
    hostname: &'a str,
    told: &'a CloudInit,
    user_data: Secret,
    interfaces: Option<&'a [Interface]>,
}

impl About<'_> {
    /// <https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html>. JSON is YAML.
    fn no_cloud(&self, instance: Uuid) -> Volume {
        let mut about = Map::new();
        about.insert("instance-id".into(), json!(instance));
        about.insert("local-hostname".into(), json!(self.hostname));
        if !self.told.keys.is_empty() {
            about.insert("public-keys".into(), self.told.keys.values().cloned().collect());
        }
        if !self.told.metadata.is_empty() {
            about.insert("meta".into(), json!(self.told.metadata));
        }
        let mut files = vec![file("meta-data", &about.into()), ("user-data".into(), self.user_data.clone())];
        files.extend(self.interfaces.map(|all| file("network-config", &network::version_2(all))));
        Volume { label: Datasource::NoCloud.label(), files }
    }

    /// <https://docs.openstack.org/nova/latest/user/metadata.html>.
    fn config_drive(&self, instance: Uuid) -> Volume {
        let told = self.told;
        let mut about = json!({
            "uuid": instance, "name": self.name, "hostname": self.hostname, "launch_index": 0, "meta": told.metadata,
        });
        let mut put = |key: &str, value: Value| about[key] = value;
        if !told.keys.is_empty() {
            let key = |(name, data): (_, &String)| json!({ "name": name, "type": "ssh", "data": data });
            put("public_keys", json!(told.keys));
            put("keys", told.keys.iter().map(key).collect());
        }
        let content = |number: usize| format!("content/{number:04}");
        if !told.files.is_empty() {
            let at = |(number, file): (usize, &InjectedFile)| json!({ "content_path": format!("/{}", content(number)), "path": file.path });
            put("files", told.files.iter().enumerate().map(at).collect());
        }
        let mut files = vec![file("openstack/latest/meta_data.json", &about)];
        if told.user_data.is_some() || !told.files.is_empty() {
            files.push(("openstack/latest/user_data".into(), self.user_data.clone()));
        }
        files
            .extend(self.interfaces.map(|all| file("openstack/latest/network_data.json", &network::network_data(all))));
        let contents = told.files.iter().enumerate();
        files.extend(contents.map(|(number, it)| (format!("openstack/{}", content(number)), it.content.clone())));
        Volume { label: Datasource::ConfigDrive.label(), files }
    }
}

fn file(path: &str, content: &Value) -> (String, Secret) {
    // Writing plain data to memory cannot fail.
    let mut text = serde_json::to_vec_pretty(content).unwrap_or_default();
    text.push(b'\n');
    (path.to_owned(), text.into())
}

/// The user data as they are written; with files to be put into the guest, both together.
///
/// NoCloud has no files of its own, and OpenStack's have neither mode nor owner, so it is cloud-init's `write_files` that
/// puts them there, also where the user data have some as well: the lists are joined.
fn user_data(told: &CloudInit) -> Secret {
    let own = told.user_data.clone().unwrap_or_else(|| Vec::new().into());
    if told.files.is_empty() {
        return own;
    }
    let files = write_files(&told.files);
    if told.user_data.is_none() {
        return files.into();
    }
    let boundary = format!("novella-{}", Sha256::of(own.bytes()).short());
    let mut all =
        format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\nMIME-Version: 1.0\n\n--{boundary}\n");
    let mut all = {
        all.push_str(&headers(own.bytes()));
        all.into_bytes()
    };
    if is_mime(own.bytes()) {
        all.extend(own.bytes());
    } else {
        all.extend(wrapped(&BASE64_STANDARD.encode(own.bytes())).bytes());
    }
    let head =
        "Content-Type: text/cloud-config; charset=\"utf-8\"\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\n";
    all.extend(format!("\n--{boundary}\n{head}{}\n--{boundary}--\n", wrapped(&BASE64_STANDARD.encode(files))).bytes());
    all.into()
}

/// What stands before the user data where they are a part of a message. Of plain text, cloud-init finds out by itself what
/// it is.
fn headers(text: &[u8]) -> String {
    if is_mime(text) {
        return String::new();
    }
    let kind = if text.starts_with(&[0x1f, 0x8b]) { "application/gzip" } else { "text/plain; charset=\"utf-8\"" };
    format!("Content-Type: {kind}\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\n")
}

/// Whether cloud-init takes it for a message of many parts.
fn is_mime(text: &[u8]) -> bool {
    let head = text.get(..4096).unwrap_or(text).to_ascii_lowercase();
    head.windows(13).any(|window| window == b"mime-version:")
}

/// In lines of 76 characters (RFC 2045, 6.8).
fn wrapped(base64: &str) -> String {
    let mut lines = String::with_capacity(base64.len() + base64.len() / 76 + 1);
    for (number, c) in base64.chars().enumerate() {
        if number > 0 && number % 76 == 0 {
            lines.push('\n');
        }
        lines.push(c);
    }
    lines
}

fn write_files(files: &[InjectedFile]) -> Vec<u8> {
    let entry = |file: &InjectedFile| {
        let mut entry = json!({
            "path": file.path,
            "encoding": "b64",
            "content": BASE64_STANDARD.encode(file.content.bytes()),
            "permissions": file.mode,
            "owner": file.owner,
        });
        if file.owner != "root:root" {
            // Who is made by the user data is there only later.
            entry["defer"] = json!(true);
        }
        entry
    };
    let config = json!({
        "merge_how": [
            { "name": "list", "settings": ["append"] },
            { "name": "dict", "settings": ["no_replace", "recurse_list"] },
        ],
        "write_files": files.iter().map(entry).collect::<Vec<_>>(),
    });
    [b"#cloud-config\n", &*serde_json::to_vec_pretty(&config).unwrap_or_default(), b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, Name, ResourceKind};
    use crate::blueprint::object::VirtType;
    use crate::blueprint::{HostFacts, lower as lower_all};
    use crate::plan::world::Recorded;
    use crate::spec::load::load_texts;

    const BASE: &str = r#"
        [network.net]
        domain = "lab.internal"
        [subnet.v4]
        network = "net"
        cidr = "10.0.0.0/24"
        [subnet.slaac]
        network = "net"
        cidr = "fd00::/64"
        [network.fixed]
        forward = "routed"
        [subnet.fixed-v4]
        network = "fixed"
        cidr = "10.1.0.0/24"
        dhcp = false
        host_routes = [{ destination = "10.9.0.0/16", nexthop = "10.1.0.254" }]
        [subnet.fixed-v6]
        network = "fixed"
        cidr = "fd01::/64"
        dhcp = false
        dns = ["fd09::53"]
        [image.tiny]
        source = "/tiny.raw"
        format = "raw"
        [flavor.small]
        ram = "64 MiB"
        disk = "1 GiB"
        [keypair.me]
        public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8y3qTrmSCEUiq9oCzfbbNyYZ1VX3YCVqGCkqRfwN1t me@here"
        [server.web]
        image = "tiny"
        flavor = "small"
    "#;

    /// What the server `web` is told, file by file; nothing if it has no seed.
    fn told(more: &str) -> Option<Vec<(String, String)>> {
        let text = format!("{BASE}{more}");
        let loaded = load_texts([("spec.toml", text.as_str())]);
        let (desired, problems) = crate::desired::resolve(&loaded.spec, &loaded.source);
        let desired = desired.unwrap_or_else(|| panic!("{problems:?} {:?}", loaded.diagnostics));
        let host = HostFacts::unknown(VirtType::Qemu);
        let blueprint = lower_all(&desired, &Recorded::default(), &host).expect("a blueprint");
        let seed = blueprint.objects.values().find_map(|object| match object {
            Object::Seed(seed) => Some(seed),
            _ => None,
        })?;
        let text = |bytes: &Secret| String::from_utf8_lossy(bytes.bytes()).into_owned();
        Some(seed.image.volume()?.files.iter().map(|(path, content)| (path.clone(), text(content))).collect())
    }

    fn json(files: &[(String, String)], path: &str) -> Value {
        let text = &files.iter().find(|(name, _)| name == path).expect(path).1;
        serde_json::from_str(text).expect("JSON")
    }

    fn names(files: &[(String, String)]) -> Vec<&str> {
        files.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn who_is_told_nothing_has_no_seed() {
        for quiet in ["", "on_user_data_change = \"rebuild\"", "config_drive = false", "metadata = {}", "files = []"] {
            assert_eq!(told(&format!("networks = [\"net\"]\n{quiet}")), None, "{quiet}");
        }
        for asked in ["config_drive = true", "key_pairs = [\"me\"]", "user_data = \"\"", "metadata = { a = \"b\" }"] {
            assert!(told(&format!("networks = [\"net\"]\n{asked}")).is_some(), "{asked}");
        }
    }

    #[test]
    fn a_seed_tells_who_the_guest_is() {
        let ask = |more: &str| {
            told(&format!("networks = [\"net\"]\nkey_pairs = [\"me\"]\nmetadata = {{ role = \"db\" }}\n{more}"))
        };
        let files = ask("user_data = \"#!/bin/sh\\n\"").expect("a seed");
        assert_eq!(names(&files), ["meta-data", "user-data"]);
        assert_eq!(files[1].1, "#!/bin/sh\n");
        let about = json(&files, "meta-data");
        let id = &about["instance-id"];
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8y3qTrmSCEUiq9oCzfbbNyYZ1VX3YCVqGCkqRfwN1t me@here";
        assert_eq!(
            about,
            json!({ "instance-id": id, "local-hostname": "web", "public-keys": [key], "meta": { "role": "db" } })
        );
        // Another content, another instance; the same, the same.
        assert_eq!(json(&ask("user_data = \"#!/bin/sh\\n\"").expect("a seed"), "meta-data")["instance-id"], *id);
        assert_ne!(json(&ask("user_data = \"#!/bin/ash\\n\"").expect("a seed"), "meta-data")["instance-id"], *id);
        let uuid = Identity::new(&Name::default_project())
            .resource(&Address::new(ResourceKind::Server, "web".parse().expect("a name")));
        assert_ne!(*id, json!(uuid), "cloud-init would believe that it knows the instance");

        let files = ask("config_drive = true\nuser_data = \"x\"\nfiles = [{ path = \"/etc/motd\", content = \"hi\" }]");
        let files = files.expect("a drive");
        assert_eq!(
            names(&files),
            ["openstack/latest/meta_data.json", "openstack/latest/user_data", "openstack/content/0000"]
        );
        let about = json(&files, "openstack/latest/meta_data.json");
        assert_eq!(about["hostname"], "web");
        assert_eq!(about["public_keys"], json!({ "me": key }));
        assert_eq!(about["files"], json!([{ "content_path": "/content/0000", "path": "/etc/motd" }]));
        assert_eq!(files[2].1, "hi");
    }

    #[test]
    fn addresses_that_nobody_hands_out_are_told() {
        let two =
            "ports = [{ network = \"net\", fixed_ips = [\"10.0.0.8\", \"10.0.0.9\"] }, { network = \"fixed\" }]\n";
        let files = told(two).expect("a seed");
        let network = json(&files, "network-config");
        assert_eq!(network["version"], 2);
        let (one, other) = (&network["ethernets"]["nic0"], &network["ethernets"]["nic1"]);
        assert_eq!(
            (&one["dhcp4"], &one["dhcp6"], &one["addresses"]),
            (&json!(true), &json!(false), &json!(["10.0.0.9/24"]))
        );
        // What somebody tells anyway is not told twice.
        assert!(one.get("routes").is_none() && one.get("nameservers").is_none(), "{one}");
        assert_eq!(other["addresses"], json!(["10.1.0.2/24", "fd01::2/64"]));
        assert_eq!((&other["dhcp4"], &other["dhcp6"]), (&json!(false), &json!(false)));
        // The first interface has the way out already.
        assert_eq!(other["routes"], json!([{ "to": "10.9.0.0/16", "via": "10.1.0.254" }]));
        assert_eq!(
            other["nameservers"],
            json!({ "addresses": ["10.1.0.1", "fd09::53"], "search": ["novella.internal"] })
        );

        let alone = json(&told("networks = [\"fixed\"]\n").expect("a seed"), "network-config");
        let routes = json!([
            { "to": "0.0.0.0/0", "via": "10.1.0.1" },
            { "to": "10.9.0.0/16", "via": "10.1.0.254" },
            { "to": "::/0", "via": "fd01::1" },
        ]);
        assert_eq!(alone["ethernets"]["nic0"]["routes"], routes);

        let drive = told("config_drive = true\nnetworks = [\"net\", \"fixed\"]\n").expect("a drive");
        let data = json(&drive, "openstack/latest/network_data.json");
        let kinds: Vec<&str> =
            data["networks"].as_array().expect("a list").iter().filter_map(|it| it["type"].as_str()).collect();
        assert_eq!(kinds, ["ipv4_dhcp", "ipv6_slaac", "ipv4", "ipv6"]);
        assert_eq!(data["networks"][2]["netmask"], "255.255.255.0");
        assert_eq!(data["networks"][3]["ip_address"], "fd01::2");
        assert_eq!(
            data["services"],
            json!([{ "type": "dns", "address": "10.1.0.1" }, { "type": "dns", "address": "fd09::53" }])
        );
    }

    #[test]
    fn files_come_beside_the_user_data() {
        let file = "files = [{ path = \"/a\", content = \"hi\", mode = \"600\", owner = \"www-data\" }]";
        let ask = |user_data: &str| {
            let files = told(&format!("networks = [\"net\"]\n{user_data}\n{file}")).expect("a seed");
            files[1].1.clone()
        };
        let alone = ask("");
        let config: Value =
            serde_json::from_str(alone.strip_prefix("#cloud-config\n").expect("cloud-config")).expect("JSON");
        let written = json!([{
            "path": "/a", "encoding": "b64", "content": "aGk=", "permissions": "0600", "owner": "www-data:www-data",
            "defer": true,
        }]);
        assert_eq!(config["write_files"], written);

        let both = ask("user_data = \"#!/bin/sh\"");
        let parts: Vec<&str> = both.split("--novella-").collect();
        assert_eq!(parts.len(), 4, "{both}");
        assert!(parts[0].starts_with("Content-Type: multipart/mixed; boundary=\"novella-"), "{both}");
        assert!(parts[1].ends_with("\n\nIyEvYmluL3No\n") && parts[1].contains("text/plain"), "{both}");
        assert!(parts[2].contains("text/cloud-config") && parts[3].ends_with("--\n"), "{both}");

        let nested = ask("user_data = \"MIME-Version: 1.0\\nContent-Type: text/x-shellscript\\n\\n#!/bin/sh\\n\"");
        assert!(
            nested.contains("\nMIME-Version: 1.0\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n\n--novella-"),
            "{nested}"
        );
    }
}
