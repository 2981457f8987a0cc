//! Debian's cloud-init does what it is told. Slow: it runs only where `NOVELLA_CLOUD_IMAGE` names what `scripts/cloud-image`
//! built.

use std::time::{Duration, Instant};

use crate::lab::{Lab, base, note};

/// Under emulation, with little else to do, Debian is there after some two minutes.
const PATIENCE: Duration = Duration::from_secs(900);

const USER_DATA: &str = r#"#cloud-config
write_files:
  - path: /etc/own
    content: FIRST
runcmd:
  - |
    echo "novella-guest: cloud $(cat /var/lib/cloud/data/instance-id) $(hostname) $(cat /etc/own)" \
      "$(cat /etc/motd) $(stat -c %a:%U:%G /etc/secret) $(grep -c me@here /home/debian/.ssh/authorized_keys)" \
      $(ip -4 -o addr show scope global | awk '{print $4}') $(ip route show default | awk '{print $3}') \
      "$(cloud-init query ds.meta_data.meta.role)" >/dev/ttyS0
"#;

fn spec(image: &str, first: &str) -> String {
    let server = |name: &str, address: &str, more: &str| {
        let user_data = USER_DATA.replace("FIRST", first);
        format!(
            "[server.{name}]\nimage = \"cloud\"\nflavor = \"cloud\"\nnetworks = [\"still\"]\nfixed_ip = \"{address}\"\n\
             key_pairs = [\"me\"]\nmetadata = {{ role = \"db\" }}\nuser_data = '''\n{user_data}'''\n\
             files = [{{ path = \"/etc/motd\", content = \"hello\" }}, \
             {{ path = \"/etc/secret\", content = \"hunter2\", mode = \"0640\", owner = \"root:adm\" }}]\n{more}\n"
        )
    };
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8y3qTrmSCEUiq9oCzfbbNyYZ1VX3YCVqGCkqRfwN1t me@here";
    [
        base(),
        format!(
            "[network.still]\n[subnet.still-v4]\nnetwork = \"still\"\ncidr = \"10.60.0.0/24\"\ndhcp = false\n\
             [keypair.me]\npublic_key = \"{key}\"\n\
             [flavor.cloud]\nram = \"1 GiB\"\ndisk = \"3 GiB\"\n\
             [image.cloud]\nsource = \"{image}/disk.qcow2\"\nformat = \"qcow2\"\nkernel = \"{image}/vmlinuz\"\n\
             initrd = \"{image}/initrd\"\ncmdline = \"root=/dev/vda console=ttyS0 mitigations=off\"\n"
        ),
        server("seed", "10.60.0.10", ""),
        server("drive", "10.60.0.11", "config_drive = true"),
    ]
    .concat()
}

/// What the guest says at the end of its cloud-init, the `boot`-th time. The first word is its instance id.
fn told(lab: &Lab, server: &str, boot: usize) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let lines = lab.console(server);
        let mut told = lines.iter().filter_map(|line| line.strip_prefix("cloud "));
        if let Some(line) = told.nth(boot) {
            note(format_args!("{server}: cloud-init was done after {:?}", begun.elapsed()));
            return line.split(' ').map(str::to_owned).collect();
        }
        if begun.elapsed() > PATIENCE {
            let console = lab.sh(&format!("tail -n 80 /var/lib/novella/default/instances/{server}/console.log"));
            panic!("{server} is not done:\n{console}");
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}

#[test]
fn cloud_init_does_what_it_is_told() {
    let Some(image) = std::env::var_os("NOVELLA_CLOUD_IMAGE") else {
        note("skipped: NOVELLA_CLOUD_IMAGE names no directory that scripts/cloud-image has built");
        return;
    };
    let image = std::path::absolute(image).expect("a path");
    let image = image.to_str().expect("UTF-8");
    let Some(lab) = Lab::with_guests("cloud") else { return };
    lab.spec(&spec(image, "first"));
    lab.apply();
    let first = told(&lab, "seed", 0);
    assert_eq!(first[1..], ["seed", "first", "hello", "640:root:adm", "1", "10.60.0.10/24", "10.60.0.1", "db"]);
    let drive = told(&lab, "drive", 0);
    assert_eq!(drive[1..], ["drive", "first", "hello", "640:root:adm", "1", "10.60.0.11/24", "10.60.0.1", "db"]);
    lab.assert_settled("done");

    // Other user data do nothing until the guest boots by itself; then it is a new instance.
    lab.spec(&spec(image, "second"));
    lab.apply();
    lab.sh("virsh -q reset default.seed && virsh -q reset default.drive");
    for (server, before) in [("seed", first), ("drive", drive)] {
        let next = told(&lab, server, 1);
        assert_eq!(next[2], "second");
        assert_ne!(next[0], before[0]);
        assert_eq!(next[3..], before[3..]);
    }
    lab.assert_settled("done again");
    lab.destroy();
}
