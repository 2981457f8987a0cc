//! A lab of the walk's own, novella in it, and what the system's tools say there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const NOVELLA: &str = env!("CARGO_BIN_EXE_novella");

/// How long one run of novella may take.
const PATIENCE: &str = "120";

/// A lab. It is taken down when it is dropped.
pub struct Lab {
    name: String,
    dir: TempDir,
}

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub said: String,
}

impl Lab {
    /// # Errors
    /// Why there cannot be one here.
    pub fn up(name: &str) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("a lab takes root".into());
        }
        for (program, package) in [
            ("libvirtd", "libvirt-daemon-system"),
            ("virsh", "libvirt-clients"),
            ("qemu-system-x86_64", "qemu-system-x86"),
            ("qemu-img", "qemu-utils"),
            ("dnsmasq", "dnsmasq-base"),
            ("nft", "nftables"),
        ] {
            novella::host::command::find(program, package).map_err(|error| error.to_string())?;
        }
        let lab =
            Self { name: format!("{name}-{}", std::process::id()), dir: tempfile::tempdir().expect("a directory") };
        // QEMU's user must get through to the disks.
        fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o711)).expect("our own directory");
        let up = script().args(["up", "--name", &lab.name]).output().expect("scripts/lab");
        if up.status.success() { Ok(lab) } else { Err(format!("no lab: {}", text(&up.stderr))) }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where novella keeps images and disks.
    pub fn data(&self) -> PathBuf {
        self.dir().join("data")
    }

    pub fn state(&self) -> PathBuf {
        self.dir().join("state")
    }

    fn specs(&self) -> PathBuf {
        self.dir().join("specs")
    }

    /// Makes this the whole spec.
    pub fn spec(&self, text: &str) {
        fs::create_dir_all(self.specs()).expect("our own directory");
        fs::write(self.specs().join("spec.toml"), text).expect("a spec");
    }

    /// Forgets spec, state and data of an earlier walk, which has left nothing else.
    pub fn clear(&self) {
        for directory in [self.specs(), self.state(), self.data()] {
            let _ = fs::remove_dir_all(directory);
        }
    }

    /// A run of novella to its end.
    pub fn novella(&self, arguments: &[&str]) -> Run {
        self.run_for(PATIENCE, arguments)
    }

    /// A run that is killed after so many milliseconds, and then its children with it or not.
    pub fn novella_killed(&self, milliseconds: u64, with_children: bool, arguments: &[&str]) -> Run {
        let seconds = format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000);
        if with_children {
            self.run_for(&seconds, arguments)
        } else {
            self.run(&["timeout", "--foreground", "-s", "KILL", &seconds], arguments)
        }
    }

    fn run_for(&self, seconds: &str, arguments: &[&str]) -> Run {
        self.run(&["timeout", "-s", "KILL", seconds], arguments)
    }

    fn run(&self, timeout: &[&str], arguments: &[&str]) -> Run {
        let [program, rest @ ..] = timeout else { unreachable!("a program") };
        let mut command = self.command(program);
        command.args(rest).arg(NOVELLA).args(arguments).arg("--no-color");
        command.arg("--specs").arg(self.specs()).arg("--state").arg(self.state());
        let output = command.output().expect("scripts/lab");
        Run { code: output.status.code(), said: text(&output.stdout) + &text(&output.stderr) }
    }

    /// What a shell script says in the lab, which must succeed.
    pub fn sh(&self, script: &str) -> String {
        let Output { status, stdout, stderr } = self.try_sh(script);
        assert!(status.success(), "{script}\n{status}\n{}{}", text(&stdout), text(&stderr));
        text(&stdout)
    }

    /// A shell script in the lab, with whatever comes of it.
    pub fn try_sh(&self, script: &str) -> Output {
        self.command("sh").args(["-c", script]).output().expect("scripts/lab")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = script();
        command.args(["exec", "--name", &self.name, "--", program]).stdin(Stdio::null());
        for variable in ["RUST_LOG", "NOVELLA_SPECS", "NOVELLA_STATE", "NOVELLA_BACKEND"] {
            command.env_remove(variable);
        }
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = script().args(["down", "--name", &self.name]).output().expect("scripts/lab");
        if !down.status.success() && !std::thread::panicking() {
            panic!("the lab does not go down: {}", text(&down.stderr));
        }
    }
}

fn script() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lab"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
