//! `novella ssh`: becomes OpenSSH's `ssh`, with the address and the host key that belong to the server.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::UNIX_EPOCH;

use crate::cli::servers::{Place, Servers, machine, places};
use crate::cli::{Global, Stop, candidates, session};
use crate::host::{HostError, command};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The server, as `web` or `server.web`
    #[arg(add = candidates::servers())]
    server: String,
    /// The user to log in as; else whom ssh takes
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// For ssh: its options, and the command to run there
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let servers = Servers::read(global)?;
    let domain = servers.one(&arguments.server)?;
    let server = &domain.server;
    let target = servers.target(global)?;
    let machine = machine(&target, "log in to")?;
    let Some(place) = places(&servers.recorded, domain).into_iter().find(|place| place.near) else {
        return Err(Stop::from(
            HostError::refused(format!("the host has no way to an address of `server.{server}`"))
                .help(format!("`novella show` has its addresses, `novella console {server}` its serial console")),
        ));
    };
    // Better said now than by a timeout. If libvirt does not answer, ssh may find out by itself.
    if let Ok(Some(power)) = machine.hypervisor().power(server)
        && power == "off"
    {
        return Err(Stop::from(
            HostError::refused(format!("`server.{server}` is shut off"))
                .help(format!("`novella start {server}` turns it on")),
        ));
    }
    let program = command::find("ssh", "openssh-client")?;
    let known_hosts = std::path::absolute(session::state_dir(global).join("known_hosts"))
        .map_err(|error| HostError::new("cannot tell where the state is", error))?;
    let alias = alias(server.as_str(), &domain.disk);
    let its = command_line(&place, arguments.user.as_deref(), &alias, &known_hosts, &arguments.arguments)?;
    let error = Command::new(&program).args(its).exec();
    Err(Stop::from(HostError::new(format!("cannot run `{}`", program.display()), error)))
}

/// The name under which ssh keeps the host key: that of the server, for its address may have been another's before. With
/// it goes when its disk was made: a server that was made anew has a new host key, and that is nothing to warn of.
fn alias(server: &str, disk: &Path) -> String {
    let made = std::fs::metadata(disk).and_then(|disk| disk.created()).ok();
    match made.and_then(|made| made.duration_since(UNIX_EPOCH).ok()) {
        // No name has a dot in it.
        Some(made) => format!("{server}.{}", made.as_millis()),
        None => server.to_owned(),
    }
}

/// What ssh is told.
fn command_line(
    place: &Place,
    user: Option<&str>,
    alias: &str,
    known_hosts: &Path,
    further: &[OsString],
) -> Result<Vec<OsString>, HostError> {
    let refused = |why: &str| {
        HostError::new(format!("cannot keep host keys in {}", known_hosts.display()), why.to_owned())
            .help("give the state another place with `--state`")
    };
    let path = known_hosts.to_str().ok_or_else(|| refused("the path is not UTF-8"))?;
    if path.contains("${") || path.chars().any(char::is_control) {
        return Err(refused("ssh would read `${` or a control character as something else"));
    }
    // ssh splits this at blanks, and takes `%` for more (ssh_config(5), UserKnownHostsFile, TOKENS).
    let path = path.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
    let options = [
        format!("HostKeyAlias={alias}"),
        format!("UserKnownHostsFile=\"{path}\""),
        "StrictHostKeyChecking=accept-new".into(),
        "CheckHostIP=no".into(),
    ];
    let mut line: Vec<OsString> = options.into_iter().flat_map(|option| ["-o".into(), option.into()]).collect();
    if let Some(user) = user {
        line.extend(["-l".into(), user.into()]);
    }
    line.push(place.address.to_string().into());
    // ssh takes options after the address too, so that both they and a command may stand here.
    line.extend(further.iter().cloned());
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(known_hosts: &str, user: Option<&str>, further: &[&str]) -> Result<Vec<String>, HostError> {
        let place = Place {
            address: "10.20.0.2".parse().expect("an address"),
            mac: "fa:16:3e:00:00:01".parse().expect("a MAC address"),
            bridge: "br0".into(),
            near: true,
        };
        let further: Vec<OsString> = further.iter().map(Into::into).collect();
        let line = command_line(&place, user, "web.17", Path::new(known_hosts), &further)?;
        Ok(line.into_iter().map(|word| word.into_string().expect("UTF-8")).collect())
    }

    #[test]
    fn ssh_is_told_where_and_who() {
        let options = [
            "-o",
            "HostKeyAlias=web.17",
            "-o",
            "UserKnownHostsFile=\"/s/known_hosts\"",
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            "CheckHostIP=no",
        ];
        let plain = line("/s/known_hosts", None, &[]).expect("a command line");
        assert_eq!(plain, [&options[..], &["10.20.0.2"]].concat());
        let further = ["-L", "8080:localhost:80", "uname", "-a; $(id)"];
        let full = line("/s/known_hosts", Some("-root"), &further).expect("a command line");
        assert_eq!(full, [&options[..], &["-l", "-root", "10.20.0.2"], &further].concat());
    }

    #[test]
    fn a_path_stays_one_path() {
        let option = |path| line(path, None, &[]).map(|line| line[3].clone());
        let kept = option("/my state/100%/a\"b\\c").expect("a command line");
        assert_eq!(kept, r#"UserKnownHostsFile="/my state/100%%/a\"b\\c""#);
        for bad in ["/s/${HOME}/k", "/s/\n/k"] {
            assert!(option(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_host_key_belongs_to_a_disk() {
        let disk = tempfile::NamedTempFile::new().expect("a file");
        let first = alias("web", disk.path());
        assert!(first.starts_with("web.") && first == alias("web", disk.path()), "{first}");
        assert_eq!(alias("web", Path::new("/nowhere")), "web");
    }
}
