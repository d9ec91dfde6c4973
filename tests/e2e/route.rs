//! Routing rules: who gets what, and what the job log and `ichor route test` say of it.

use serde_json::{Value, json};

use crate::support::chosen::{called_negative, called_positive};
use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::study::{Phantom, Study};
use crate::support::tools::requires;
use crate::support::{eventually, scratch::Scratch, seconds};

/// Two folders, and these rules.
fn ruled(folder: &Scratch, rules: &str) -> Settings {
    let mut sections = String::new();
    for name in ["pacs", "research"] {
        let path = folder.folder(name);
        sections += &format!(
            "[[destination]]\nname = {name:?}\nkind = \"folder\"\npath = {path:?}\nobjects = [\"segmentation\", \"report\"]\n\n"
        );
    }
    Settings { sections: sections + rules, ..Settings::default() }
}

fn send(daemon: &Daemon, phantom: Phantom, name: &str) -> Study {
    let study = phantom.write(&daemon.folder(name));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    study
}

/// Kinds with destinations of a study's deliveries.
fn went(daemon: &Daemon, study: &Study) -> Vec<String> {
    let shown = daemon.show(&study.study_uid);
    let all = shown["deliveries"].as_array().unwrap().iter();
    let mut went: Vec<String> = all
        .map(|one| format!("{} to {}", one["kind"].as_str().unwrap(), one["destination"].as_str().unwrap()))
        .collect();
    went.sort();
    went
}

fn route(daemon: &Daemon, arguments: &[&str]) -> Value {
    let output = daemon.command(&[&["route", "test", "--json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn rules_choose_destinations_and_objects() {
    requires!(Dcmtk);
    let folder = Scratch::new("rules");
    let rules = "[[rule]]\nname = \"elsewhere\"\nsources = [\"OTHER\"]\ndestinations = []\n\n\
        [[rule]]\nname = \"positives\"\nverdicts = [\"positive\"]\ntags = { Modality = \"c?\" }\n\
        destinations = [\"pacs\"]\nobjects = [\"report\"]\n\n\
        [[rule]]\nname = \"rest\"\ndestinations = [\"research\"]\npriority = \"routine\"\n";
    let daemon = Daemon::start(&ruled(&folder, rules));
    let positive = send(&daemon, called_positive()[0], "positive");
    let negative = send(&daemon, called_negative(), "negative");
    assert_eq!(went(&daemon, &positive), ["report to pacs"]);
    assert_eq!(went(&daemon, &negative), ["report to research"]);
    eventually(seconds(10), "both delivered", || {
        let arrived = |name: &str| std::fs::read_dir(folder.path().join(name)).unwrap().count();
        if (arrived("pacs"), arrived("research")) == (1, 1) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let why = daemon.why(&positive.study_uid);
    assert!(why.contains("rule \"positives\" fires"), "{why}");
    assert!(why.contains("elsewhere: the source is STORESCU, not OTHER"), "{why}");

    let of_study = route(&daemon, &[&positive.study_uid]);
    assert_eq!(
        (of_study["fired"].clone(), of_study["destinations"].clone()),
        (json!("positives"), json!([["pacs", ["report"]]]))
    );
    let file = positive.instances[0].path.to_str().unwrap();
    let of_file = route(&daemon, &[file, "--source", "OTHER"]);
    assert_eq!((of_file["fired"].clone(), of_file["destinations"].clone()), (json!("elsewhere"), json!([])));
    let of_file = route(&daemon, &[file, "--verdict", "negative"]);
    assert_eq!(of_file["fired"], "rest");
    assert_eq!(of_file["passed_over"][1]["why_not"], "the verdict is negative, not positive");
    assert!(!daemon.command(&["route", "test", "neither"]).status.success());
}

#[test]
fn rules_that_cannot_work_are_refused() {
    let folder = Scratch::new("rules");
    for (rule, words) in [
        ("name = \"a\"\ndestinations = [\"vna\"]", "there is no destination \"vna\""),
        ("name = \"a\"\ntags = { Stationname = \"x\" }", "no keyword"),
        ("name = \"a\"\nhours = \"8\"", "hours: \"8\" is not of the form"),
        ("name = \"a\"\nhours_utc = \"19:00-06:30\"", "hours_utc is now called hours"),
        ("name = \"a\"\ntime_zone = \"Europe/Berlin\"", "stands at its top"),
        ("name = \"a\"\nverdicts = [\"maybe\"]", "maybe"),
        ("name = \"a\"\nsource = [\"X\"]", "source"),
        ("name = \"a\"\n[[rule]]\nname = \"a\"", "stands twice"),
    ] {
        let said = Daemon::refuses_to_start(&ruled(&folder, &format!("[[rule]]\n{rule}\n")));
        assert!(said.contains(words), "{rule}: {said}");
    }
}
