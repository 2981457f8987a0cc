//! Saved plans against a real host, which must look the same twice for one to be carried out.

use crate::lab::{Lab, base, server};

#[test]
fn a_saved_plan_holds_as_long_as_the_host_does() {
    let Some(lab) = Lab::without_guests("saved") else { return };
    let file = lab.dir().join("p");
    let file = file.to_str().expect("a path");
    let save = |options: &[&str]| lab.novella(&[&["plan", "--out", file], options].concat()).success();
    let apply = || lab.novella(&["apply", file]);
    let spec = |more: &str| [base(), server("web", "power = \"off\""), more.to_owned()].concat();

    lab.spec(&spec(""));
    save(&[]);
    apply().success();
    lab.assert_settled("the plan is carried out");
    assert_eq!(apply().code(), Some(1), "it is carried out twice");

    // What somebody else does meanwhile is told, and nothing is done.
    lab.spec(&spec("[server.db]\nimage = \"tiny\"\nflavor = \"small\"\nnetworks = [\"private\"]\npower = \"off\"\n"));
    save(&[]);
    lab.sh("virsh -q undefine default.web --nvram");
    let before = lab.inventory();
    let run = apply();
    assert_eq!(run.code(), Some(1), "{run:#?}");
    assert!(run.err.contains("error[stale-plan]") && run.err.contains("has changed since: `server.web`;"), "{run:#?}");
    assert_eq!(lab.inventory(), before, "something was done");
    save(&[]);
    apply().success();
    lab.assert_settled("the plan that was made anew is carried out");

    save(&["--destroy"]);
    apply().success();
    assert_eq!(lab.sh("virsh -q list --all --name"), "");
}
