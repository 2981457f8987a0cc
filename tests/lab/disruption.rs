//! Field by field: what the plan says a running guest notices is what it notices. Its boot id proves it.

use std::time::Instant;

use crate::lab::{Lab, Run, base, guest_dir, note};

pub(crate) const DB: &str = "10.20.0.50";

/// A guest whose server is edited.
pub(crate) struct Guest {
    pub(crate) lab: Lab,
    pub(crate) base: String,
    server: String,
    pub(crate) boot: String,
}

impl Guest {
    pub(crate) fn new(name: &str) -> Option<Self> {
        let lab = Lab::with_guests(name)?;
        let base = [
            &base(),
            "[flavor.ram]\nram = \"128 MiB\"\ndisk = \"64 MiB\"\n",
            "[flavor.vcpus]\nvcpus = 2\nram = \"128 MiB\"\ndisk = \"64 MiB\"\n",
            "[flavor.disk]\nvcpus = 2\nram = \"128 MiB\"\ndisk = \"96 MiB\"\n",
            "[flavor.most]\nvcpus = 1\nmax_vcpus = 3\nram = \"128 MiB\"\nmax_ram = \"192 MiB\"\ndisk = \"64 MiB\"\n",
            "[flavor.roomy]\nram = \"256 MiB\"\ndisk = \"64 MiB\"\n",
            "[port.front]\nnetwork = \"private\"\nfixed_ips = [\"10.20.0.50\"]\n",
            "[port.vip]\nnetwork = \"back\"\n",
            "[port.more]\nnetwork = \"back\"\n",
        ]
        .concat();
        let server = "[server.db]\nimage = \"tiny\"\nflavor = \"small\"\nports = [\"front\"]\nshutdown_timeout = 20\n";
        let mut guest = Self { lab, base, server: server.into(), boot: String::new() };
        guest.spec();
        guest.lab.apply();
        guest.boot = guest.lab.boot_of(DB);
        Some(guest)
    }

    pub(crate) fn spec(&self) {
        self.lab.spec(&[self.base.as_str(), &self.server].concat());
    }

    /// Edits the server, or what stands before it.
    pub(crate) fn edit(&mut self, old: &str, new: &str) {
        let text = if self.server.contains(old) { &mut self.server } else { &mut self.base };
        assert!(text.contains(old), "{old:?} is not in the spec");
        *text = text.replace(old, new);
        self.spec();
    }

    /// What a plan says of the domain or its disk, whichever is the worst.
    fn announced(text: &str) -> &'static str {
        let sum = text.lines().find_map(|line| line.strip_prefix("Disruption: ")).unwrap_or_default();
        ["replace", "reboot", "live"].into_iter().find(|word| sum.contains(word)).unwrap_or("none")
    }

    /// Makes an edit, and compares what the plan says with what happens to the guest, which is to run on.
    fn measure(&mut self, field: &str, (old, new): (&str, &str), expected: &str) {
        self.edit(old, new);
        let plan = self.lab.novella(&["plan"]).success().out;
        let announced = Self::announced(&plan);
        let begun = Instant::now();
        self.lab.apply();
        let took = begun.elapsed();
        let boot = match announced {
            "reboot" | "replace" => self.lab.boot_after(&self.boot, DB),
            _ => self.lab.boot_of(DB),
        };
        let happened = if boot == self.boot { "live" } else { "reboot" };
        let disk = self.boots();
        let happened = if happened == "reboot" && disk == 1 { "replace" } else { happened };
        note(format_args!("measured: {field} {happened} (announced {announced}, {:.1} s)", took.as_secs_f32()));
        assert_eq!(announced, expected, "{field}: what is announced:\n{plan}");
        assert_eq!(happened, if announced == "none" { "live" } else { announced }, "{field}: what happens");
        self.boot = boot;
        self.lab.assert_settled(field);
        let waits = self.lab.novella(&["plan"]).success().out;
        assert!(!waits.contains("for a reboot"), "{field}: {waits}");
    }

    /// How often the guest has counted a boot on its disk.
    pub(crate) fn boots(&self) -> u32 {
        let said = self.lab.console("db").into_iter().rev().find(|line| line.starts_with("disk ")).expect("a disk");
        said.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    }

    /// What the guest serves.
    fn ask(&self, path: &str) -> String {
        let ask = format!("exec 3<>/dev/tcp/{DB}/80; printf \"GET {path} HTTP/1.0\\r\\n\\r\\n\" >&3; cat <&3");
        let said = self.lab.command("bash").args(["-c", &ask]).output().expect("scripts/lab");
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// What the guest says of its machine.
    fn machine(&self, what: &str) -> String {
        let said = self.ask("/cgi-bin/machine");
        let value = said.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {what}: {said}")).to_owned()
    }

    /// How many processors the guest has, and how much memory in KiB: as it says once that is `right`, or after 10 s.
    fn size(&self, right: impl Fn(u32, u32) -> bool) -> (u32, u32) {
        let begun = Instant::now();
        loop {
            let (cpus, memory) = (self.machine("cpus"), self.machine("memory"));
            let (cpus, memory) = (cpus.parse().expect("a number"), memory.parse().expect("a number"));
            if right(cpus, memory) || begun.elapsed().as_secs() >= 10 {
                return (cpus, memory);
            }
        }
    }

    pub(crate) fn virsh(&self, command: &str) -> String {
        self.lab.sh(&format!("virsh -q {command}"))
    }

    fn interfaces(&self) -> usize {
        self.virsh("domiflist default.db").lines().count()
    }

    /// Applies what is edited with these options.
    pub(crate) fn apply(&self, options: &[&str]) -> Run {
        self.lab.novella(&[&["apply", "--auto-approve"], options].concat()).success()
    }
}

#[test]
fn each_field_does_to_a_guest_what_is_announced() {
    let Some(mut guest) = Guest::new("disruption") else { return };
    guest.measure("shutdown_timeout", ("shutdown_timeout = 20", "shutdown_timeout = 15"), "live");
    guest.measure("flavor.ram", ("flavor = \"small\"", "flavor = \"ram\""), "reboot");
    guest.measure("flavor.vcpus", ("flavor = \"ram\"", "flavor = \"vcpus\""), "reboot");
    assert_eq!(guest.virsh("dominfo default.db | grep 'CPU(s)'").split_whitespace().last(), Some("2"));

    guest.measure("flavor.disk", ("flavor = \"vcpus\"", "flavor = \"disk\""), "live");
    let capacity = guest.virsh("domblkinfo default.db vda | grep Capacity");
    assert!(capacity.ends_with(&(96 << 20).to_string()), "{capacity}");

    guest.measure("ports (one more)", ("[\"front\"]", "[\"front\", \"vip\"]"), "live");
    assert_eq!(guest.interfaces(), 2);
    assert!(
        guest.ask("/cgi-bin/routes").contains("eth1"),
        "the guest does not see it:\n{}",
        guest.ask("/cgi-bin/routes")
    );
    guest.measure("admin_state_up", ("[port.vip]", "[port.vip]\nadmin_state_up = false"), "live");
    let link = guest
        .virsh("domiflist default.db | awk '/tap/ { print $1 }' | tail -n 1 | xargs virsh -q domif-getlink default.db");
    assert!(link.ends_with("down"), "{link}");
    guest.measure("network.mtu", ("[network.back]", "[network.back]\nmtu = 1400"), "live");
    guest.measure("ports (two more, one less)", ("[\"front\", \"vip\"]", "[\"front\", \"more\"]"), "reboot");
    guest.measure("ports (one more again)", ("[\"front\", \"more\"]", "[\"front\", \"more\", \"vip\"]"), "live");
    guest.measure("ports (order)", ("\"more\", \"vip\"", "\"vip\", \"more\""), "reboot");
    guest.measure("ports (less)", ("[\"front\", \"vip\", \"more\"]", "[\"front\"]"), "live");
    assert_eq!(guest.interfaces(), 1);
    assert!(!guest.ask("/cgi-bin/routes").contains("eth1"), "the guest still has it");
    guest.measure("mac_address", ("[port.front]", "[port.front]\nmac_address = \"fa:16:3e:00:00:50\""), "reboot");
    guest.measure("fixed_ips", ("10.20.0.50", "10.20.0.50\", \"10.20.0.51"), "live");
    guest.measure("depends_on", ("shutdown_timeout", "depends_on = []\nshutdown_timeout"), "none");
}

#[test]
fn a_guest_changes_its_size_up_to_the_maximum_that_it_was_started_with() {
    let Some(mut guest) = Guest::new("size") else { return };
    guest.measure("flavor.max_vcpus, max_ram", ("flavor = \"small\"", "flavor = \"most\""), "reboot");
    let (cpus, memory) = guest.size(|cpus, _| cpus == 1);
    assert_eq!(cpus, 1, "it has what it may be brought to");

    guest.measure("flavor.vcpus (more, to the maximum)", ("vcpus = 1\nmax", "vcpus = 3\nmax"), "live");
    assert_eq!(guest.size(|cpus, _| cpus == 3).0, 3, "the guest does not see its processors");
    guest.measure("flavor.ram (more, within the maximum)", ("\"128 MiB\"\nmax", "\"176 MiB\"\nmax"), "live");
    let more = guest.size(|_, it| it > memory).1;
    assert!((40 << 10..56 << 10).contains(&more.saturating_sub(memory)), "from {memory} to {more} KiB");
    guest.measure("flavor.ram (less, with a maximum)", ("\"176 MiB\"\nmax", "\"112 MiB\"\nmax"), "live");
    let less = guest.size(|_, it| it < memory).1;
    assert!((8 << 10..24 << 10).contains(&memory.saturating_sub(less)), "from {memory} to {less} KiB");

    guest.measure("flavor.vcpus (less)", ("vcpus = 3\nmax", "vcpus = 2\nmax"), "reboot");
    guest.measure("flavor.max_vcpus", ("max_vcpus = 3", "max_vcpus = 4"), "reboot");
    guest.measure("flavor.max_ram", ("max_ram = \"192 MiB\"", "max_ram = \"208 MiB\""), "reboot");
    assert_eq!(guest.size(|cpus, _| cpus == 2).0, 2);

    // By hand it is drift, and is put right as it runs.
    guest.virsh("setmem default.db 128M --live --config");
    let plan = guest.lab.novella(&["plan"]).success().out;
    assert!(plan.contains("memory") && Guest::announced(&plan) == "live", "{plan}");
    guest.lab.apply();
    assert_eq!(guest.lab.boot_of(DB), guest.boot, "it was booted anew");
    guest.lab.assert_settled("memory by hand");
}

#[test]
fn a_guest_has_the_machine_that_its_image_asks_for() {
    let Some(mut guest) = Guest::new("machine") else { return };
    let is = |guest: &Guest| ["firmware", "tpm"].map(|what| guest.machine(what)).join(" ");
    assert_eq!(is(&guest), "bios none");
    // UEFI has no room for a kernel in less.
    guest.measure("flavor.ram", ("flavor = \"small\"", "flavor = \"roomy\""), "reboot");
    guest.measure("image.firmware", ("cmdline = ", "firmware = \"uefi\"\ncmdline = "), "reboot");
    assert_eq!(is(&guest), "uefi none");
    guest.measure("image.secure_boot", ("cmdline = ", "secure_boot = true\ncmdline = "), "reboot");
    assert_eq!(is(&guest), "secure-boot none");
    guest.measure("image.tpm", ("cmdline = ", "tpm = \"2.0\"\ncmdline = "), "reboot");
    assert_eq!(is(&guest), "secure-boot 2.0");
    guest.measure("image.hypervisor_type", ("cmdline = ", "hypervisor_type = \"qemu\"\ncmdline = "), "none");
    guest.measure("image.architecture", ("cmdline = ", "architecture = \"x86_64\"\ncmdline = "), "none");
    guest.measure("flavor.cpu_model", ("[flavor.roomy]", "[flavor.roomy]\ncpu_model = \"Nehalem\""), "reboot");
    assert!(guest.machine("model").contains("Nehalem"), "{}", guest.machine("model"));
    guest.measure("flavor.cpu_mode", ("cpu_model = \"Nehalem\"", "cpu_mode = \"maximum\""), "reboot");

    // What the host cannot be is told before anything is touched.
    for (old, new, place) in [
        ("cpu_mode = \"maximum\"", "cpu_model = \"Nehallem\"", "did you mean `Nehalem`"),
        ("cpu_mode = \"maximum\"", "cpu_mode = \"host-passthrough\"", "it takes KVM"),
        ("hypervisor_type = \"qemu\"", "hypervisor_type = \"kvm\"", "this host has no KVM"),
    ] {
        guest.edit(old, new);
        let refused = guest.lab.novella(&["plan"]);
        assert_eq!(refused.code(), Some(1), "{refused:#?}");
        assert!(refused.err.contains("error[not-on-this-host]") && refused.err.contains(place), "{refused:#?}");
        guest.edit(new, old);
    }
    guest.lab.novella(&["destroy", "--auto-approve"]).success();
    let left = guest.lab.sh("ls -A /var/lib/libvirt/swtpm /var/lib/libvirt/qemu/nvram; ls /var/lib/novella");
    assert!(!left.contains('-') && !left.contains("fd"), "{left}");
}

#[test]
fn each_field_of_an_image_and_of_what_a_guest_is_told_does_what_is_announced() {
    let Some(mut guest) = Guest::new("fields") else { return };
    let copies = guest.lab.dir().display().to_string();
    let image = guest_dir().display().to_string();
    guest.lab.sh(&format!(
        "cp {image}/disk.qcow2 {copies}/other.qcow2; qemu-img convert -O raw {image}/disk.qcow2 {copies}/disk.raw"
    ));
    let sha256 =
        |file: &str| guest.lab.sh(&format!("sha256sum {image}/{file}")).split(' ').next().expect("a digest").to_owned();
    let (disk, kernel, initrd) = (sha256("disk.qcow2"), sha256("vmlinuz"), sha256("initramfs.gz"));
    guest.base.push_str(&format!(
        "[image.other]\nsource = \"{copies}/other.qcow2\"\nformat = \"qcow2\"\nkernel = \"{image}/vmlinuz\"\n\
         initrd = \"{image}/initramfs.gz\"\ncmdline = \"console=ttyS0 rdinit=/init quiet\"\n[keypair.me]\npublic_key = \
         \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8y3qTrmSCEUiq9oCzfbbNyYZ1VX3YCVqGCkqRfwN1t\"\n"
    ));
    let line = |more: &str| format!("shutdown_timeout = 20\n{more}");
    let source = format!("source = \"{image}/disk.qcow2\"");
    let add = |key: &str, value: &str| (source.clone(), format!("{key} = \"{value}\"\n{source}"));

    // Of the image. What is new of it is for new servers, but for what is booted.
    let (old, new) = add("min_disk", "32 MiB");
    guest.measure("image.min_disk", (&old, &new), "none");
    let (old, new) = add("min_ram", "64 MiB");
    guest.measure("image.min_ram", (&old, &new), "none");
    let (old, new) = add("sha256", &disk);
    guest.measure("image.sha256", (&old, &new), "none");
    let (old, new) = add("kernel_sha256", &kernel);
    guest.measure("image.kernel_sha256", (&old, &new), "reboot");
    let (old, new) = add("initrd_sha256", &initrd);
    guest.measure("image.initrd_sha256", (&old, &new), "reboot");
    guest.measure("image.cmdline", ("cmdline = \"", "cmdline = \"quiet "), "reboot");
    let raw = format!("source = \"{copies}/disk.raw\"");
    guest.edit(&format!("sha256 = \"{disk}\"\n"), "");
    let qcow2 = format!("{source}\nformat = \"qcow2\"");
    guest.measure("image.source and format", (&qcow2, &format!("{raw}\nformat = \"raw\"")), "none");
    guest.measure("image", ("image = \"tiny\"", "image = \"other\""), "replace");

    // Of the flavor, where it stands.
    guest.measure("flavor.small.ram", ("ram = \"96 MiB\"", "ram = \"112 MiB\""), "reboot");
    guest.measure("flavor.small.vcpus", ("ram = \"112 MiB\"", "ram = \"112 MiB\"\nvcpus = 2"), "reboot");
    guest.measure("flavor.small.disk", ("vcpus = 2\ndisk = \"64 MiB\"", "vcpus = 2\ndisk = \"80 MiB\""), "live");

    // Of what the guest is told, which is in a drive from the first such field on.
    guest.measure(
        "metadata, the first that it is told",
        ("shutdown_timeout = 20", &line("metadata = { a = \"1\" }")),
        "live",
    );
    guest.measure("metadata", ("a = \"1\"", "a = \"2\""), "live");
    guest.measure("key_pairs", ("shutdown_timeout = 20", &line("key_pairs = [\"me\"]")), "live");
    guest.measure("files", ("shutdown_timeout = 20", &line("files = [{ path = \"/a\", content = \"b\" }]")), "live");
    guest.measure("config_drive", ("shutdown_timeout = 20", &line("config_drive = true")), "live");
    guest.measure("user_data", ("shutdown_timeout = 20", &line("user_data = \"x\"")), "live");
    guest.measure(
        "on_user_data_change = ignore",
        ("shutdown_timeout = 20", &line("on_user_data_change = \"ignore\"")),
        "none",
    );
    guest.measure("user_data, ignored", ("user_data = \"x\"", "user_data = \"y\""), "none");
    guest.measure("on_user_data_change = next_boot", ("\"ignore\"", "\"next_boot\""), "live");
    guest.measure("on_user_data_change = rebuild, with others since", ("\"next_boot\"", "\"rebuild\""), "replace");
    guest.measure("user_data, rebuild", ("user_data = \"y\"", "user_data = \"z\""), "replace");

    // Of its lifecycle.
    let guarded =
        line("lifecycle = { prevent_destroy = true, create_before_destroy = true, ignore_changes = [\"power\"] }");
    guest.measure("lifecycle", ("shutdown_timeout = 20", &guarded), "none");
    guest.measure("power, ignored", ("shutdown_timeout = 20", &line("power = \"off\"")), "none");
    guest.measure("lifecycle.prevent_destroy, taken back", ("prevent_destroy = true, ", ""), "none");
    guest.measure("image, beside", ("image = \"other\"", "image = \"tiny\""), "replace");
}

#[test]
fn power_is_brought_about_or_left_to_others() {
    let Some(mut guest) = Guest::new("power") else { return };
    let state = |guest: &Guest| guest.virsh("domstate default.db");
    guest.measure("power = unmanaged", ("shutdown_timeout", "power = \"unmanaged\"\nshutdown_timeout"), "none");
    // What takes a reboot waits.
    guest.edit("flavor = \"small\"", "flavor = \"ram\"");
    let plan = guest.lab.novella(&["plan"]).success().out;
    assert!(plan.contains("1 server waits for a reboot: server.db (memory)."), "{plan}");
    guest.lab.apply();
    assert_eq!(guest.lab.boot_of(DB), guest.boot, "it was booted anew");
    guest.lab.assert_settled("unmanaged");
    // Others stop and start it, and that is no drift. It has its memory then.
    guest.virsh("destroy default.db");
    guest.lab.assert_settled("stopped by others");
    guest.lab.apply();
    assert_eq!(state(&guest), "shut off");
    guest.virsh("start default.db");
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
    guest.lab.assert_settled("started by others");
    assert!(!guest.lab.novella(&["plan"]).success().out.contains("for a reboot"));
    note("measured: power = unmanaged, with more memory: waits for a start by others");

    guest.measure("power = on, of one that is on", ("power = \"unmanaged\"", "power = \"on\""), "live");
    guest.edit("power = \"on\"", "power = \"off\"");
    let plan = guest.lab.novella(&["plan"]).success().out;
    assert_eq!(Guest::announced(&plan), "reboot", "{plan}");
    let refused = guest.lab.novella(&["apply", "--auto-approve", "--max-disruption", "live", "--defer-reboots"]);
    assert_eq!(refused.code(), Some(1), "{refused:#?}");
    assert!(refused.err.contains("server.db: reboot (domain: power = on -> off)"), "{refused:#?}");
    assert_eq!(guest.lab.boot_of(DB), guest.boot);
    let off = guest.lab.apply();
    assert!(off.took.as_secs() < 15, "it was not shut down but forced off, after {:?}", off.took);
    assert_eq!(state(&guest), "shut off");
    guest.lab.assert_settled("off");
    note("measured: power = off reboot (announced reboot)");
    // A disk that nobody runs from grows as well.
    guest.base.push_str("[flavor.larger]\nram = \"128 MiB\"\ndisk = \"80 MiB\"\n");
    guest.edit("flavor = \"ram\"", "flavor = \"larger\"");
    guest.lab.apply();
    guest.lab.assert_settled("larger");
    guest.edit("power = \"off\"", "power = \"on\"");
    guest.lab.apply();
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
    guest.lab.assert_settled("on");
}

#[test]
fn reboots_wait_until_they_are_asked_for() {
    let Some(mut guest) = Guest::new("pending") else { return };
    let pending = |guest: &Guest| guest.lab.novella(&["show"]).success().out.contains("running, pending reboot");
    guest.edit("flavor = \"small\"", "flavor = \"ram\"");
    guest.edit("[\"front\"]", "[\"vip\", \"front\"]");
    let said = guest.apply(&["--defer-reboots", "--max-disruption", "live"]).out;
    assert!(said.contains("1 server waits for a reboot: server.db (memory, nic.port.vip"), "{said}");
    assert_eq!(guest.lab.boot_of(DB), guest.boot, "it was booted anew");
    guest.lab.assert_settled("deferred");
    assert!(pending(&guest));
    let plan = guest.lab.novella(&["plan"]).success().out;
    assert!(plan.contains("1 server waits for a reboot: server.db (memory, interfaces)."), "{plan}");
    // A reset from inside is the same QEMU; what it can take meanwhile, it takes.
    guest.measure_waiting("shutdown_timeout = 20", "shutdown_timeout = 15");

    let said = guest.lab.novella(&["reboot", "--pending"]).success().out;
    assert!(said.contains("server.db: Reboot complete after") && said.contains("1 server rebooted."), "{said}");
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
    assert!(!pending(&guest));
    assert_eq!(guest.interfaces(), 2);
    assert!(guest.virsh("dominfo default.db | grep 'Max memory'").contains(&(128 << 10).to_string()));
    guest.lab.assert_settled("rebooted");
    assert!(guest.lab.novella(&["reboot", "--pending"]).success().out.contains("No server waits for a reboot."));
    guest.lab.novella(&["reboot", "db"]).success();
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
    guest.lab.assert_settled("rebooted again");

    // It clears itself when the guest goes off and comes back by somebody else's doing.
    guest.edit("flavor = \"ram\"", "flavor = \"small\"");
    guest.apply(&["--defer-reboots"]);
    assert!(pending(&guest));
    guest.virsh("destroy default.db");
    guest.virsh("start default.db");
    assert!(!pending(&guest));
    guest.boot = guest.lab.boot_after(&guest.boot, DB);
}

impl Guest {
    /// Makes an edit that the guest can take, while something waits for a reboot.
    fn measure_waiting(&mut self, old: &str, new: &str) {
        self.edit(old, new);
        self.lab.apply();
        assert_eq!(self.lab.boot_of(DB), self.boot, "it was booted anew");
        self.lab.assert_settled("what can be taken");
        assert!(self.lab.novella(&["plan"]).success().out.contains("1 server waits for a reboot"));
    }
}

#[test]
fn an_interface_that_a_guest_holds_on_to_is_told_of() {
    let Some(mut guest) = Guest::new("hold") else { return };
    guest.measure("ports (one more)", ("[\"front\"]", "[\"front\", \"vip\"]"), "live");
    // One that stands still is resumed first, and lets go.
    guest.virsh("suspend default.db");
    guest.edit("[\"front\", \"vip\"]", "[\"front\"]");
    guest.lab.apply();
    assert_eq!(guest.lab.boot_of(DB), guest.boot);
    assert_eq!(guest.interfaces(), 1);
    guest.lab.assert_settled("resumed");

    // One whose kernel has panicked does not.
    guest.edit("shutdown_timeout = 20", "shutdown_timeout = 1");
    guest.edit("[\"front\"]", "[\"front\", \"vip\"]");
    guest.edit("cmdline = \"", "cmdline = \"rdinit=/none ");
    guest.lab.apply();
    let log = "/var/lib/novella/default/instances/db/console.log";
    guest.lab.sh(&format!("timeout 60 sh -c 'until grep -q \"end Kernel panic\" {log}; do sleep 0.2; done'"));
    guest.edit("[\"front\", \"vip\"]", "[\"front\"]");
    let failed = guest.lab.novella(&["apply", "--auto-approve"]);
    assert_eq!(failed.code(), Some(1), "{failed:#?}");
    assert!(
        failed.err.contains("does not let go of its interface") && failed.err.contains("novella reboot db"),
        "{failed:#?}"
    );
    let show = guest.lab.novella(&["show"]).success().out;
    assert!(show.contains("pending reboot"), "{show}");
    guest.lab.novella(&["reboot", "db"]).success();
    assert_eq!(guest.interfaces(), 1);
    guest.lab.apply();
    guest.lab.assert_settled("let go of");
}
