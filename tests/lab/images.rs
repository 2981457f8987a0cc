//! Images from a web server, compressed and in a foreign format: fetched once, booted, locked, kept, refused, renewed.

use std::fs;

use crate::lab::{Lab, base, guest_dir, note};

const URL: &str = "http://127.0.0.1:8080";

/// Publishes the guest's disk as a VMDK in xz and its kernel in xz, on a web server in the lab that writes down what it is
/// asked for.
fn publish(lab: &Lab) {
    let (guest, dir) = (guest_dir(), lab.dir().join("www"));
    fs::create_dir(&dir).expect("a directory");
    let xz = |name: &str, bytes: &[u8]| {
        let mut packer = liblzma::write::XzEncoder::new(fs::File::create(dir.join(name)).expect("a file"), 1);
        std::io::Write::write_all(&mut packer, bytes).and_then(|()| packer.finish().map(drop)).expect("packed");
    };
    let vmdk = lab.dir().join("disk.vmdk");
    let disk = guest.join("disk.qcow2");
    lab.sh(&format!(
        "qemu-img convert -f qcow2 -O vmdk -o subformat=streamOptimized {} {}",
        disk.display(),
        vmdk.display()
    ));
    xz("disk.vmdk.xz", &fs::read(vmdk).expect("made"));
    xz("vmlinuz.xz", &fs::read(guest.join("vmlinuz")).expect("the kernel"));
    lab.sh(&format!(
        "cd {0} && sha256sum *.xz >../specs/SHA256SUMS
         busybox httpd -f -vv -p 127.0.0.1:8080 -h {0} </dev/null >{0}/../log 2>&1 &
         for i in $(seq 50); do busybox wget -q -O /dev/null {URL}/vmlinuz.xz && break; sleep 0.1; done
         : >{0}/../log",
        dir.display()
    ));
}

/// How often the server was asked for anything.
fn asked(lab: &Lab) -> usize {
    fs::read_to_string(lab.dir().join("log")).expect("a log").matches("url:/").count()
}

fn spec() -> String {
    let guest = guest_dir();
    let of_this_host = |key: &str, file: &str| format!("{key} = \"{}/{file}\"", guest.display());
    base()
        .replace(
            &of_this_host("source", "disk.qcow2"),
            &format!("source = \"{URL}/disk.vmdk.xz\"\nsha256sums = \"SHA256SUMS\""),
        )
        .replace("format = \"qcow2\"", "format = \"vmdk\"")
        .replace(&of_this_host("kernel", "vmlinuz"), &format!("kernel = \"{URL}/vmlinuz.xz\""))
}

fn servers(more: &str) -> String {
    format!(
        "\n[server.web]\nimage = \"tiny\"\nflavor = \"small\"\nnetworks = [\"private\"]\nshutdown_timeout = 1\n{more}\n"
    )
}

#[test]
fn a_guest_boots_from_what_was_fetched_once() {
    let Some(lab) = Lab::with_guests("images") else { return };
    publish(&lab);
    lab.spec(&[spec(), servers("")].concat());
    let plan = lab.novella(&["plan"]).success();
    let said =
        ["of image.tiny of unknown size", "free in `/var/lib/novella/default/base`", "`images.lock` gains image.tiny"];
    let line = plan.out.lines().find(|line| line.starts_with("Images: ")).expect("a line");
    assert!(
        said[1..].iter().all(|words| line.contains(words)) && line.contains("image.tiny of unknown size"),
        "{line}"
    );
    assert_eq!(asked(&lab), 0, "a plan asks nobody");

    let applied = lab.apply();
    assert!(applied.out.contains("Locked: image.tiny in "), "{}", applied.out);
    note(format_args!("fetched, unpacked, converted and booted: {:?}", applied.took));
    let (name, boot) = lab.guest("10.20.0.2");
    assert_eq!(name, "web");
    lab.said("web", "disk /dev/vda 67108864 novella-guest-disk boots 1");
    let fetched = asked(&lab);
    assert_eq!(fetched, 2, "{}", fs::read_to_string(lab.dir().join("log")).expect("a log"));
    lab.assert_settled("what is locked is what is there");
    lab.novella(&["plan", "--locked"]).success();
    let lock = fs::read_to_string(lab.dir().join("specs/images.lock")).expect("written");
    assert!(lock.contains("[image.tiny.source]") && lock.contains("[image.tiny.kernel]"), "{lock}");

    // Many more servers from the same: nothing is fetched, and the one that runs goes on.
    lab.spec(&[spec(), servers("[server.node]\nimage = \"tiny\"\nflavor = \"small\"\nnetworks = [\"private\"]\ncount = 50\npower = \"off\"")].concat());
    let applied = lab.apply();
    note(format_args!("50 servers from one base: {:?}, {:?} each", applied.took, applied.took / 50));
    assert_eq!(asked(&lab), fetched, "a base is fetched once");
    assert_eq!(lab.boot_of("10.20.0.2"), boot);

    // All goes, and the images stay.
    let destroyed = lab.destroy();
    assert!(destroyed.out.contains("The cache keeps 3 images ("), "{}", destroyed.out);
    lab.spec(&[spec(), servers("")].concat());
    let plan = lab.plan();
    let adopted = "image.tiny = base image (qcow2) # found on the host with our mark";
    assert!(plan.iter().any(|change| change == adopted), "{plan:#?}");
    lab.apply();
    assert_eq!(asked(&lab), fetched, "what is in the cache is not fetched");
    lab.guest("10.20.0.2");

    // What is in use cannot be pruned.
    let pruned = lab.novella(&["image", "prune", "--all"]).success();
    assert!(pruned.out.contains("0 images dropped"), "{}", pruned.out);
    let listed = lab.novella(&["image", "list"]).success();
    assert_eq!(listed.out.matches("server.web").count(), 3, "{}", listed.out);

    // An image that the spec does not have any more.
    lab.spec(&base().replace("[image.tiny]", "[image.other]"));
    let plan = lab.plan();
    let kept = "image.tiny . base image (qcow2) # kept in the cache";
    assert!(plan.iter().any(|change| change == kept), "{plan:#?}");
    lab.apply();
    lab.destroy();
    lab.novella(&["image", "prune", "--all"]).success();
    assert_eq!(lab.sh("find /var/lib/novella -mindepth 1"), "", "nothing is left");
}

#[test]
fn a_locked_image_that_has_changed_is_refused_until_it_is_renewed() {
    let Some(lab) = Lab::without_guests("image-lock") else { return };
    publish(&lab);
    lab.spec(&spec());
    lab.apply();
    lab.destroy();
    lab.novella(&["image", "prune", "--all"]).success();
    lab.sh(&format!("cd {}/www && cp vmlinuz.xz disk.vmdk.xz", lab.dir().display()));
    let refused = lab.novella(&["apply", "--auto-approve"]);
    assert_eq!(refused.code(), Some(1));
    for words in ["error[image-changed]", "run `novella image update tiny`"] {
        assert!(refused.err.contains(words), "{}", refused.err);
    }
    // Its list of digests says so as well by now; and it is a good image.
    lab.sh(&format!(
        "cd {}/www && qemu-img create -q -f vmdk new.vmdk 8M && busybox gzip -c new.vmdk >disk.vmdk.xz && rm new.vmdk && \
         sha256sum *.xz >../specs/SHA256SUMS",
        lab.dir().display()
    ));
    let refused = lab.novella(&["apply", "--auto-approve"]);
    assert!(refused.err.contains("error[image-changed]"), "what is locked counts: {}", refused.err);
    let updated = lab.novella(&["image", "update", "tiny"]).success();
    assert!(updated.out.contains(" -> ") && updated.out.contains("image.tiny (kernel): unchanged"), "{}", updated.out);
    lab.apply();
    lab.assert_settled("renewed");
    lab.novella(&["apply", "--locked", "--auto-approve"]).success();
    lab.destroy();
}

#[test]
fn where_the_lock_file_cannot_be_written_that_is_said() {
    let Some(lab) = Lab::without_guests("image-lock-ro") else { return };
    publish(&lab);
    lab.spec(&spec());
    let specs = lab.dir().join("specs");
    lab.sh(&format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", specs.display()));
    let applied = lab.apply();
    for words in ["images.lock` could not be written", "image.tiny can become something else", "novella image lock"] {
        assert!(applied.err.contains(words), "{}", applied.err);
    }
    lab.assert_settled("as far as can be");
    lab.sh(&format!("umount {}", specs.display()));
    lab.apply();
    assert!(specs.join("images.lock").exists(), "it is written as soon as it can be");
    lab.assert_settled("locked later");
    lab.destroy();
}
