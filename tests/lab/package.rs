//! The Debian package, and the service in it under a systemd.
//!
//! It is built from the novella that is tested, and installed in a minimal system of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::unistd::geteuid;

use crate::lab::{Lab, base, guest_dir, note, script, server, skip};

const WEB: &str = "10.20.0.2";

/// How the service is told to go about it.
const WATCH: &str = "novella watch --specs /etc/novella --state /var/lib/novella-state";

/// The package; none where none can be built, which is said.
fn package() -> Option<&'static Path> {
    static PACKAGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let package = PACKAGE.get_or_init(|| {
        said(script("package").arg("--tools")).map_err(|error| format!("cargo-deb cannot be had: {error}"))?;
        let path = said(script("package").args(["--profile", "dev", "--no-build"]));
        Ok(path.unwrap_or_else(|error| panic!("no package: {error}")).into())
    });
    package.as_deref().inspect_err(|reason| skip(reason)).ok()
}

/// A minimal system with what the package depends on; none where there can be none, which is said.
fn root(package: &Path) -> Option<PathBuf> {
    if !geteuid().is_root() {
        skip("only root may make labs");
        return None;
    }
    let root = said(script("package-root").arg(package)).map_err(|error| format!("no system to try it in: {error}"));
    root.inspect_err(|reason| skip(reason)).ok().map(PathBuf::from)
}

/// What a command says, or how it fails.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).trim().to_owned());
    if output.status.success() { Ok(out) } else { Err(format!("{}\n{out}\n{err}", output.status)) }
}

fn deb(arguments: &[&str], package: &Path) -> String {
    said(Command::new("dpkg-deb").args(arguments).arg(package)).expect("a package")
}

#[test]
fn the_package_has_what_belongs_in_it() {
    let Some(package) = package() else { return };
    let listed = deb(&["--contents"], package);
    let has = |mode: &str, path: &str| {
        let is_it = |line: &str| line.starts_with(mode) && line.ends_with(&format!(" ./{path}"));
        assert!(listed.lines().any(is_it), "{mode} {path} is not in it:\n{listed}");
    };
    has("-rwxr-xr-x 0/0", "usr/bin/novella");
    for file in [
        "lib/systemd/system/novella.service",
        "share/man/man1/novella.1.gz",
        "share/man/man1/novella-watch.1.gz",
        "share/bash-completion/completions/novella",
        "share/zsh/vendor-completions/_novella",
        "share/fish/vendor_completions.d/novella.fish",
        "share/doc/novella/README.md",
        "share/doc/novella/changelog.gz",
        "share/doc/novella/changelog.Debian.gz",
        "share/doc/novella/copyright",
        "share/doc/novella/docs/watch.md",
        "share/doc/novella/examples/vars/prod/prod.toml",
    ] {
        has("-rw-r--r-- 0/0", &format!("usr/{file}"));
    }
    let strange = listed.lines().find(|line| !line.contains(" ./usr/"));
    assert_eq!(strange, None, "nothing is anywhere else, nor is there a file that dpkg would ask about");

    let [version, depends] = ["Version", "Depends"]
        .map(|field| said(Command::new("dpkg-deb").arg("--field").arg(package).arg(field)).expect(field));
    assert_eq!(version, format!("{}-1", env!("CARGO_PKG_VERSION")));
    let depends: Vec<&str> = depends.split(", ").map(|it| it.split(' ').next().unwrap_or(it)).collect();
    // The libraries are found in the binary, the programs are those that `doctor` looks for.
    for needed in
        ["libc6", "libvirt0", "libvirt-daemon-system", "libvirt-clients", "qemu-utils", "dnsmasq-base", "nftables"]
    {
        assert!(depends.contains(&needed), "{needed}: {depends:?}");
    }

    match said(Command::new("lintian").args(["--allow-root", "--fail-on", "error"]).arg(package)) {
        Ok(said) => note(said),
        Err(error) if error.contains("No such file") => note("no lintian here"),
        Err(error) => panic!("{error}"),
    }
}

/// The service in a lab with the package.
struct Service<'a>(&'a Lab);

impl Service<'_> {
    /// A property of the unit, as systemd has it.
    fn show(&self, property: &str) -> String {
        self.0.sh(&format!("systemctl show --value --property {property} novella"))
    }

    fn pid(&self) -> String {
        self.show("MainPID")
    }

    /// Waits until a property is so.
    fn until(&self, property: &str, value: &str) {
        self.0.until(&format!("{property} is {value}"), || (self.show(property) == value).then_some(()));
    }

    /// Says something in a drop-in, in place of what it says there; nothing with nothing.
    fn drop_in(&self, lines: &str) {
        self.0.sh(&format!(
            "mkdir -p /run/systemd/system/novella.service.d\n\
             cat >/run/systemd/system/novella.service.d/test.conf <<'EOF'\n[Service]\n{lines}\nEOF\n\
             systemctl daemon-reload"
        ));
    }

    fn spec(&self, text: &str) {
        self.0.sh(&format!("cat >/etc/novella/.new <<'EOF'\n{text}\nEOF\nmv /etc/novella/.new /etc/novella/spec.toml"));
    }

    /// Waits until the daemon says that all is well and the plan is empty.
    fn settled(&self) {
        let globals = "--specs /etc/novella --state /var/lib/novella-state";
        self.0.until("the host is what the spec says", || {
            let asked = format!("novella {globals} status && novella {globals} plan --detailed-exitcode");
            self.0.try_sh(&asked).status.success().then_some(())
        });
    }
}

/// What must not be touched: the guest and since which boot it runs, its process and that of its dnsmasq, its disk.
fn untouched(lab: &Lab) -> [String; 4] {
    let process = |name: &str| lab.sh(&format!("grep -lx {name} /proc/[0-9]*/comm"));
    let disk = lab.sh("stat -c '%i %u' /var/lib/novella/default/instances/web/disk.qcow2");
    [lab.boot_of(WEB), process("qemu-system-x86"), process("dnsmasq"), disk]
}

#[test]
fn the_service_is_installed_upgraded_and_removed_and_guests_go_on() {
    let Some(package) = package() else { return };
    let Some(root) = root(package) else { return };
    let Some(lab) = Lab::of("package", &root) else { return };
    let service = Service(&lab);
    // With what a minimal system has and the package depends on; dpkg fetches nothing.
    let install = format!("dpkg --install {}", package.display());
    lab.sh(&install);
    assert_eq!([service.show("UnitFileState"), service.show("ActiveState")], ["disabled", "inactive"]);
    note(lab.sh("systemd-analyze security --no-pager novella"));

    // In a home directory, the service could not read them. The second image is converted, which takes other programs.
    let guest = guest_dir().display().to_string();
    lab.sh(&format!(
        "mkdir /srv/images && cp {guest}/disk.qcow2 {guest}/vmlinuz {guest}/initramfs.gz /srv/images
         qemu-img convert -O vmdk {guest}/disk.qcow2 /srv/images/disk.vmdk
         mkdir /etc/novella"
    ));
    let other = "[image.other]\nsource = \"/srv/images/disk.vmdk\"\nformat = \"vmdk\"\n\
                 [flavor.more]\nram = \"96 MiB\"\ndisk = \"64 MiB\"\nephemeral = \"64 MiB\"\n\
                 [server.spare]\nimage = \"other\"\nflavor = \"more\"\nnetworks = [\"private\"]\npower = \"off\"\n";
    let spec = [&base().replace(&guest, "/srv/images"), other, &server("web", "fixed_ip = \"10.20.0.2\"")].concat();
    service.spec(&spec);

    // It is not started before it says so.
    service.drop_in(&format!("ExecStart=\nExecStart=/bin/sh -c 'kill -STOP $$$$; exec {WATCH}'"));
    lab.sh("systemctl start --no-block novella");
    lab.until("it is stopped", || {
        lab.sh(&format!("grep -s '^State:.*stopped' /proc/{}/status || true", service.pid()))
            .contains('T')
            .then_some(())
    });
    assert_eq!(service.show("ActiveState"), "activating");
    lab.sh(&format!("kill -CONT {}", service.pid()));
    service.until("ActiveState", "active");
    service.settled();
    assert_eq!(service.show("StatusText"), "healthy");
    let was = untouched(&lab);

    // What it may not, it may not, and what it has to, it can: it just did.
    let confined = lab.sh(&format!("cat /proc/{}/status", service.pid()));
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(confined.contains(line), "{line}: {confined}");
    }

    // It gives signs of life; when there are none, it is started anew.
    service.drop_in("WatchdogSec=4s");
    lab.sh("systemctl restart novella");
    for _ in 0..3 {
        let before = service.show("WatchdogTimestampMonotonic");
        lab.until("there is a sign of life", || (service.show("WatchdogTimestampMonotonic") != before).then_some(()));
    }
    let pid = service.pid();
    lab.sh("systemctl reload novella");
    assert_eq!([service.show("NRestarts"), service.pid()], ["0", &pid]);
    lab.sh(&format!("kill -STOP {pid}"));
    service.until("NRestarts", "1");
    service.until("ActiveState", "active");
    assert_ne!(service.pid(), pid);
    assert!(lab.sh("journalctl --no-pager --unit novella").contains("Watchdog timeout"));
    service.drop_in("");
    service.settled();
    assert_eq!(untouched(&lab), was, "the daemon was killed");

    // An upgrade starts one that runs anew, and one that does not run is left so.
    lab.sh("systemctl enable novella");
    let pid = service.pid();
    lab.sh(&install);
    assert_eq!([service.show("UnitFileState"), service.show("ActiveState")], ["enabled", "active"]);
    assert_ne!(service.pid(), pid);
    service.spec(&[spec, server("extra", "power = \"off\"")].concat());
    lab.until("a save is applied", || lab.sh("virsh -q list --all --name").contains("default.extra").then_some(()));
    lab.sh("systemctl stop novella");
    lab.sh(&install);
    assert_eq!(service.show("ActiveState"), "inactive");
    lab.sh("systemctl start novella");
    assert_eq!(untouched(&lab), was, "the package was upgraded");

    // Without the package, the guests are still there, and all that it takes to go on.
    for removed in ["--remove", "--purge"] {
        lab.sh(&format!("dpkg {removed} novella"));
        assert_ne!(service.show("ActiveState"), "active", "{removed}");
        assert_eq!(lab.sh("grep -lx novella /proc/[0-9]*/comm || true"), "", "{removed}");
        lab.sh(
            "test ! -e /usr/bin/novella && test -s /etc/novella/spec.toml && test -e /var/lib/novella-state/export.json",
        );
        assert_eq!(untouched(&lab), was, "{removed}");
    }
    assert_eq!(service.show("LoadState"), "not-found");
    lab.sh("test ! -e /etc/systemd/system/multi-user.target.wants/novella.service");
    lab.sh(&format!("{install} && systemctl enable --now novella"));
    service.settled();
    assert_eq!(untouched(&lab), was, "it was installed anew");
}
