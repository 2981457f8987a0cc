//! Whether KVM really runs a guest here.
//!
//! `/dev/kvm` being there proves nothing: under some hypervisors it opens, answers, and then emulates each instruction, or
//! fails at the first that its emulator does not know. So a tiny firmware is run that does what a kernel does: it enters
//! long mode, uses an SSE register, and counts so far that an emulator would not get there in time.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Group, User};
use serde::{Deserialize, Serialize};

use crate::host::{command, files};

const DEVICE: &str = "/dev/kvm";

/// The users that QEMU runs as: Debian's and Fedora's.
const QEMU_USERS: [&str; 2] = ["libvirt-qemu", "qemu"];

/// What the firmware makes QEMU exit with.
const YES: i32 = 85;

/// How long the firmware may take; on a processor it takes a tenth of a second.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether KVM can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// A guest ran.
    Usable,
    /// It cannot, and why.
    Unusable(Reason),
}

/// Why KVM cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// There is no device.
    #[error("/dev/kvm is missing")]
    Missing,
    /// The device is only for others.
    #[error("/dev/kvm cannot be opened by the user that runs QEMU")]
    Denied,
    /// There is nothing to run guests with.
    #[error("qemu-system-x86_64 is not installed")]
    NoQemu,
    /// The device is there and opens, but a guest does not run.
    #[error("KVM opens but a guest does not run")]
    NoGuest,
}

impl Reason {
    /// What the person can do about it.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Missing => "turn on virtualization in the firmware, then `modprobe kvm_intel` or `modprobe kvm_amd`",
            Self::Denied => "`chown root:kvm /dev/kvm && chmod 660 /dev/kvm`, as udev does where it runs",
            Self::NoQemu => "apt install qemu-system-x86",
            Self::NoGuest => "this machine is itself a guest without nested virtualization: servers run by emulation",
        }
    }
}

/// What a probe found, and what it holds for.
#[derive(Serialize, Deserialize)]
struct Remembered {
    key: String,
    usable: bool,
}

/// Whether KVM can be used, found out by running a guest for a moment, or read from `cache` if it was found out there
/// since the host was started. Writes nothing.
pub fn probe(cache: Option<&Path>) -> Kvm {
    if !fs::metadata(DEVICE).is_ok_and(|device| device.file_type().is_char_device()) {
        return Kvm::Unusable(Reason::Missing);
    }
    if !is_open_to_qemu() {
        return Kvm::Unusable(Reason::Denied);
    }
    let Ok(qemu) = command::find("qemu-system-x86_64", "qemu-system-x86") else {
        return Kvm::Unusable(Reason::NoQemu);
    };
    let usable = cache.and_then(recall).unwrap_or_else(|| {
        runs_a_guest(&qemu, "kvm").unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot probe KVM");
            false
        })
    });
    if usable { Kvm::Usable } else { Kvm::Unusable(Reason::NoGuest) }
}

/// Writes what a probe found to a file, for [`probe`] to find there until the host or the device changes.
///
/// # Errors
/// When the file cannot be written.
pub fn remember(found: Kvm, cache: &Path) -> std::io::Result<()> {
    let usable = match found {
        Kvm::Usable => true,
        Kvm::Unusable(Reason::NoGuest) => false,
        // Found out again in no time.
        Kvm::Unusable(Reason::Missing | Reason::Denied | Reason::NoQemu) => return Ok(()),
    };
    let Some(key) = key() else { return Ok(()) };
    files::write_atomic(cache, &serde_json::to_vec(&Remembered { key, usable })?, 0o600)
}

fn recall(cache: &Path) -> Option<bool> {
    let remembered: Remembered = serde_json::from_slice(&fs::read(cache).ok()?).ok()?;
    (Some(remembered.key) == key()).then_some(remembered.usable)
}

/// What the answer depends on: this run of the host, the device, and QEMU.
fn key() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let device = fs::metadata(DEVICE).ok()?;
    let qemu = fs::metadata(command::find("qemu-system-x86_64", "qemu-system-x86").ok()?).ok()?;
    Some(format!("{} {}.{} {}", boot.trim(), device.ctime(), device.ctime_nsec(), qemu.mtime()))
}

/// Whether the user that runs QEMU may open the device. Where that user is not known, it is taken for granted: the guest
/// will tell.
fn is_open_to_qemu() -> bool {
    let Ok(device) = fs::metadata(DEVICE) else { return false };
    let may = |shift: u32| (device.mode() >> shift) & 0o6 == 0o6;
    let Some(user) = QEMU_USERS.iter().find_map(|name| User::from_name(name).ok().flatten()) else { return true };
    let in_group = user.gid.as_raw() == device.gid()
        || Group::from_gid(device.gid().into()).ok().flatten().is_some_and(|group| group.mem.contains(&user.name));
    // The kernel looks at the first class that fits, and at no other.
    if user.uid.as_raw() == device.uid() {
        may(6)
    } else if in_group {
        may(3)
    } else {
        may(0)
    }
}

/// Whether the firmware gets to its end with this accelerator.
fn runs_a_guest(qemu: &Path, accelerator: &str) -> std::io::Result<bool> {
    // In memory, so that looking leaves no file behind. QEMU opens it through us.
    let mut firmware = fs::File::from(memfd_create("probe", MFdFlags::MFD_CLOEXEC)?);
    let mut image = vec![0; IMAGE_SIZE];
    image[PROBE_AT..].copy_from_slice(&PROBE);
    firmware.write_all(&image)?;
    let mut child = Command::new(qemu)
        .args(["-accel", accelerator, "-machine", "pc", "-nodefaults", "-display", "none", "-m", "16", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x01", "-bios"])
        .arg(format!("/proc/{}/fd/{}", std::process::id(), firmware.as_raw_fd()))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;

    // KVM stops a guest that it cannot run, and QEMU then waits for ever: what it says shortens the wait.
    let failed = Arc::new(AtomicBool::new(false));
    if let Some(stderr) = child.stderr.take() {
        let failed = Arc::clone(&failed);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                tracing::debug!(line, "QEMU, probing {DEVICE}");
                if line.starts_with("KVM internal error") {
                    failed.store(true, Ordering::Relaxed);
                }
            }
        });
    }
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code() == Some(YES));
        }
        if failed.load(Ordering::Relaxed) || begun.elapsed() >= TIMEOUT {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// QEMU's firmware ends at 4 GiB, and its last 64 KiB show again below 1 MiB.
const IMAGE_SIZE: usize = 64 << 10;

/// Where in the 64 KiB image [`PROBE`] lies. The image ends at 4 GiB, where the processor starts, and shows again at 0xf0000.
const PROBE_AT: usize = 0xff00;

/// The firmware that tells a processor from an emulator. 16-bit code, 64-bit code, GDT, reset vector.
#[rustfmt::skip]
const PROBE: [u8; 256] = {
    let code: [u8; 0x96] = [
        0x31, 0xc0,                                           // 00 xor  %ax,%ax
        0x8e, 0xd8,                                           // 02 mov  %ax,%ds
        // Page tables in fresh, zeroed memory: one page of 2 MiB onto itself.
        0x66, 0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0x00, 0x00, // 04 movl $0x2003,0x1000   PML4[0] -> 0x2000
        0x66, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0x00, 0x00, // 0d movl $0x3003,0x2000   PDPT[0] -> 0x3000
        0x66, 0xc7, 0x06, 0x00, 0x30, 0x83, 0x00, 0x00, 0x00, // 16 movl $0x83,0x3000     PD[0]: present, writable, large
        0x2e, 0x66, 0x0f, 0x01, 0x16, 0x90, 0xff,             // 1f lgdtl %cs:0xff90
        0x66, 0xb8, 0x00, 0x10, 0x00, 0x00,                   // 26 mov  $0x1000,%eax
        0x0f, 0x22, 0xd8,                                     // 2c mov  %eax,%cr3
        0x66, 0xb8, 0x20, 0x02, 0x00, 0x00,                   // 2f mov  $0x220,%eax      PAE, OSFXSR
        0x0f, 0x22, 0xe0,                                     // 35 mov  %eax,%cr4
        0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0,                   // 38 mov  $0xc0000080,%ecx EFER
        0x66, 0xb8, 0x00, 0x01, 0x00, 0x00,                   // 3e mov  $0x100,%eax      LME
        0x66, 0x31, 0xd2,                                     // 44 xor  %edx,%edx
        0x0f, 0x30,                                           // 47 wrmsr
        0x66, 0xb8, 0x01, 0x00, 0x00, 0x80,                   // 49 mov  $0x80000001,%eax PG, PE
        0x0f, 0x22, 0xc0,                                     // 4f mov  %eax,%cr0
        0x66, 0xea, 0x5a, 0xff, 0x0f, 0x00, 0x08, 0x00,       // 52 ljmpl $8,$0xfff5a     long mode from here on
        0xb8, 0x15, 0x00, 0x00, 0x00,                         // 5a mov  $0x15,%eax
        0x66, 0x0f, 0x6e, 0xc0,                               // 5f movd %eax,%xmm0       fails in KVM's emulator
        0x66, 0x0f, 0xfe, 0xc0,                               // 63 paddd %xmm0,%xmm0     0x2a
        0x66, 0x0f, 0x7e, 0xc0,                               // 67 movd %xmm0,%eax
        0xb9, 0x00, 0x00, 0x00, 0x01,                         // 6b mov  $0x1000000,%ecx
        0xff, 0xc9,                                           // 70 dec  %ecx
        0x75, 0xfc,                                           // 72 jne  70
        0xe6, 0xf4,                                           // 74 out  %al,$0xf4        exit code 0x2a << 1 | 1
        0xf4,                                                 // 76 hlt
        0xeb, 0xfd,                                           // 77 jmp  76
        0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,                               // 80 GDT: null
        0, 0, 0, 0, 0x00, 0x9b, 0x20, 0x00,                   // 88      64-bit code
        0x0f, 0x00, 0x80, 0xff, 0x0f, 0x00,                   // 90 limit 15, base 0xfff80
    ];
    let mut image = [0; 256];
    let mut at = 0;
    while at < code.len() {
        image[at] = code[at];
        at += 1;
    }
    // f0 the reset vector: ljmp $0xf000,$0xff00
    image[0xf0] = 0xea;
    image[0xf2] = 0xff;
    image[0xf4] = 0xf0;
    image
};

#[cfg(test)]
mod tests {
    use super::*;

    fn qemu() -> Option<std::path::PathBuf> {
        let qemu = command::find("qemu-system-x86_64", "qemu-system-x86").ok();
        if qemu.is_none() {
            let _ = writeln!(std::io::stderr(), "skipped: qemu-system-x86_64 is not installed");
        }
        qemu
    }

    #[test]
    fn the_firmware_gets_to_its_end_where_guests_run() {
        let Some(qemu) = qemu() else { return };
        assert!(runs_a_guest(&qemu, "tcg").expect("QEMU starts"));
    }

    #[test]
    fn an_accelerator_that_is_not_there_is_a_no() {
        let Some(qemu) = qemu() else { return };
        assert!(!runs_a_guest(&qemu, "hvf").expect("QEMU starts"));
    }

    #[test]
    fn an_answer_is_remembered_for_this_run_of_the_host() {
        if key().is_none() {
            let _ = writeln!(std::io::stderr(), "skipped: no /dev/kvm or no QEMU");
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let cache = directory.path().join("kvm.json");
        assert_eq!(recall(&cache), None);
        for (found, usable) in [(Kvm::Usable, true), (Kvm::Unusable(Reason::NoGuest), false)] {
            remember(found, &cache).expect("written");
            assert_eq!(recall(&cache), Some(usable));
        }
        let other = Remembered { key: "another boot".into(), usable: true };
        fs::write(&cache, serde_json::to_vec(&other).expect("JSON")).expect("written");
        assert_eq!(recall(&cache), None);
        fs::write(&cache, "{").expect("written");
        assert_eq!(recall(&cache), None);
    }
}
