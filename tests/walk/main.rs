//! Random walks on a real host: random edits, damage from outside, kills and lost states, and after each an `apply` that
//! must converge. What is there then is looked at with the system's own tools, and compared with what the spec says.
//!
//! `NOVELLA_WALK=SEED:STEPS` takes another walk than the usual ones.

#[path = "../common/dice.rs"]
mod dice;

mod check;
mod damage;
mod lab;
mod model;
mod world;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;

use crate::check::Memory;
use crate::dice::Dice;
use crate::lab::{Lab, Run};
use crate::model::Model;
use crate::world::World;

/// The walks that are always taken: seed and steps.
const WALKS: [(u64, usize); 3] = [(1, 14), (2, 14), (3, 14)];

const APPLY: [&str; 2] = ["apply", "--auto-approve"];
const DESTROY: [&str; 2] = ["destroy", "--auto-approve"];

/// What a person may be told instead of having an edit carried out, as it asks for what cannot be.
const REFUSALS: [&str; 18] = [
    "overlaps",
    "cannot share the bridge",
    "cannot both have",
    "is in use by `server.",
    "has no IPv4 address left",
    "no address is left",
    "lies in no subnet",
    "is the network or broadcast address",
    "is the gateway of",
    "has no subnet, so there is no address",
    "holds the gateway",
    "can belong to one server only",
    "is declared twice",
    "interface `br0` exists and is not novella's",
    "is in use on this host: `ext0` has 10.77.5.1/24",
    "cannot shrink to",
    "is a disk of",
    "but the image has a disk of",
];

#[test]
fn whatever_happens_the_next_apply_converges() {
    let walks = match std::env::var("NOVELLA_WALK") {
        Ok(text) => {
            let (seed, steps) = text.split_once(':').expect("NOVELLA_WALK=SEED:STEPS");
            vec![(seed.parse().expect("a seed"), steps.parse().expect("a number of steps"))]
        }
        Err(_) => WALKS.to_vec(),
    };
    let lab = match Lab::up("walk") {
        Ok(lab) => lab,
        Err(reason) => return say(&format!("skipped: {reason}")),
    };
    images(&lab);
    lab.sh("set -e
         ip link add br0 type bridge; ip address add 10.99.0.1/24 dev br0; ip link set br0 up
         ip link add ext0 type bridge; ip address add 10.77.5.1/24 dev ext0; ip link set ext0 up
         nft add table inet foreign
         echo '<domain type=\"qemu\"><name>foreign</name><memory>65536</memory><os><type>hvm</type></os></domain>' \
             >/run/foreign.xml
         virsh -q -c qemu:///system define /run/foreign.xml");
    for (seed, steps) in walks {
        let mut walker = Walker::new(&lab, seed);
        let walked = catch_unwind(AssertUnwindSafe(|| walker.walk(steps)));
        if let Err(panic) = walked {
            say(&format!("seed {seed}, after:\n{}", walker.log.join("\n")));
            say(&format!("the spec:\n{}", walker.toml()));
            resume_unwind(panic);
        }
    }
}

struct Walker<'a> {
    lab: &'a Lab,
    dice: Dice,
    model: Model,
    memory: Memory,
    world: World,
    log: Vec<String>,
}

impl<'a> Walker<'a> {
    fn new(lab: &'a Lab, seed: u64) -> Self {
        lab.clear();
        let (model, memory, world) = (Model::first(), Memory::default(), World::default());
        Self { lab, dice: Dice::new(seed), model, memory, world, log: Vec::new() }
    }

    fn walk(&mut self, steps: usize) {
        self.converge(None);
        for _ in 0..steps {
            self.step();
        }
        self.destroy();
    }

    fn step(&mut self) {
        match self.dice.below(20) {
            0 => {
                self.note("lose the state");
                fs::remove_dir_all(self.lab.state()).expect("a state");
                return self.converge(None);
            }
            1 => return self.destroy(),
            2 => return self.steal(),
            _ => {}
        }
        let before = self.model.clone();
        let mut edited = false;
        for _ in 0..self.dice.below(4) {
            if let Some(edit) = self.model.edit(&mut self.dice) {
                self.note(&edit);
                edited = true;
            }
        }
        for _ in 0..self.dice.below(if edited { 2 } else { 3 }) {
            if let Some(damage) = damage::damage(self.lab, &self.world, &mut self.memory, &mut self.dice) {
                self.note(&damage);
            }
        }
        while self.dice.once_in(4) {
            let (after, children) = (self.dice.below(300) as u64, self.dice.once_in(2));
            let run = self.run(|lab| lab.novella_killed(after, children, &APPLY));
            self.note(&format!("apply, killed after {after} ms: {:?}", run.code));
        }
        self.converge(edited.then_some(before));
    }

    /// Takes the mark off a bridge: nobody can know whose it is then, and it is left alone.
    fn steal(&mut self) {
        let bridges = self.world.bridges();
        let Some(bridge) = self.dice.pick(bridges.into_iter().map(|(_, link)| world::string(&link["ifname"]))) else {
            return;
        };
        self.note(&format!("take the mark off {bridge}"));
        self.lab.sh(&format!("ip link set dev {bridge} alias ''"));
        let run = self.run(|lab| lab.novella(&APPLY));
        assert!(run.code == Some(1) && run.said.contains(&format!("`{bridge}`")), "{:?} {}", run.code, run.said);
        self.lab.sh(&format!("ip link delete {bridge}"));
        self.converge(None);
    }

    /// Applies, looks whether all is right, and whether novella thinks so as well. An edit that is refused is taken back.
    fn converge(&mut self, before: Option<Model>) {
        let run = self.run(|lab| lab.novella(&APPLY));
        if run.code != Some(0)
            && let Some(before) = before
            && let Some(refusal) = REFUSALS.iter().find(|refusal| run.said.contains(*refusal))
        {
            self.note(&format!("refused: {refusal}"));
            if run.said.contains("Not complete.") {
                // A part of the edit is in force, and may have taken other addresses or disks.
                self.memory = Memory::default();
            }
            self.model = before;
            return self.converge(None);
        }
        assert!(run.code == Some(0), "{:?} {}", run.code, run.said);
        self.world = World::look(self.lab);
        let wrong = check::check(&self.model, &self.world, &mut self.memory);
        assert!(wrong.is_empty(), "{}\nafter\n{}", wrong.join("\n"), run.said);
        let plan = self.run(|lab| lab.novella(&["plan", "--detailed-exitcode"]));
        assert!(plan.code == Some(0), "there is more to do:\n{}\nafter\n{}", plan.said, run.said);
    }

    fn destroy(&mut self) {
        self.note("destroy");
        if self.dice.once_in(3) {
            let (after, children) = (self.dice.below(300) as u64, self.dice.once_in(2));
            let run = self.run(|lab| lab.novella_killed(after, children, &DESTROY));
            self.note(&format!("destroy, killed after {after} ms: {:?}", run.code));
        }
        for _ in 0..2 {
            let run = self.run(|lab| lab.novella(&DESTROY));
            assert!(run.code == Some(0), "{:?} {}", run.code, run.said);
        }
        let wrong = check::check_empty(&World::look(self.lab));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        self.memory = Memory::default();
        self.world = World::default();
        // Servers keep an address that a pool does not have any more, and new ones cannot get it.
        for subnet in self.model.networks.values_mut().flat_map(|network| &mut network.subnets) {
            subnet.pool = None;
        }
    }

    fn run(&self, run: impl Fn(&Lab) -> Run) -> Run {
        self.lab.spec(&self.toml());
        run(self.lab)
    }

    fn toml(&self) -> String {
        self.model.to_toml(&self.lab.data(), self.lab.dir())
    }

    fn note(&mut self, what: &str) {
        if std::env::var_os("NOVELLA_WALK_LOUD").is_some() {
            say(what);
        }
        self.log.push(what.to_owned());
    }
}

/// The files that the images are made of.
fn images(lab: &Lab) {
    for (name, format, size) in [("disk.qcow2", "qcow2", "8M"), ("disk.raw", "raw", "12M")] {
        let path = lab.dir().join(name);
        let made = Command::new("qemu-img").args(["create", "-q", "-f", format]).arg(&path).arg(size).status();
        assert!(made.expect("qemu-img").success());
    }
    for name in ["kernel", "initrd"] {
        fs::write(lab.dir().join(name), name.repeat(1000)).expect("our own directory");
    }
}

#[expect(clippy::print_stderr, reason = "a test says why it failed, or did not run")]
fn say(text: &str) {
    eprintln!("{text}");
}
