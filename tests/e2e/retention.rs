//! Retention: files go when their time has come and nothing protects them, and everybody is told so.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::scratch::Scratch;
use crate::support::study::{Phantom, Study};
use crate::support::tools::requires;
use crate::support::{eventually, free_port, seconds};

fn plan(daemon: &Daemon) -> Value {
    let output = daemon.command(&["retention", "plan", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(daemon: &Daemon, arguments: &[&str]) -> String {
    let output = daemon.command(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn send(daemon: &Daemon, study: &Study) {
    StoreScu::to(daemon.port).send(study).expect_all(study.instances.len());
    daemon.wait_for_end(&study.study_uid, seconds(120));
}

#[test]
fn files_go_by_rule_and_protected_studies_stay() {
    requires!(Dcmtk);
    let scratch = Scratch::new("archive");
    let path = scratch.folder("archive");
    let archive = format!("[[destination]]\nname = \"archive\"\nkind = \"folder\"\npath = {path:?}\n\n");
    let mut daemon = Daemon::start(&Settings { sections: archive, ..Settings::default() });
    let gone = Phantom::BLEEDING.slices(8).matrix(128).write(&daemon.folder("gone"));
    let held = Phantom { seed: 9_777, positive: false, ..Phantom::BLEEDING }
        .slices(8)
        .matrix(128)
        .write(&daemon.folder("held"));
    send(&daemon, &gone);
    send(&daemon, &held);
    assert_eq!(plan(&daemon)["configured"], false, "nothing is ever deleted by default");
    let hold = ["studies", "hold", held.study_uid.as_str(), "--reason", "a trial", "--by", "anna"];
    assert!(said(&daemon, &hold).contains("on hold"));
    assert!(said(&daemon, &hold).contains("already"));
    let told = daemon.audit_details("study-held");
    assert_eq!(told, [json!({ "by": "anna", "reason": "a trial" })], "what changes nothing leaves no row");

    // A rule comes; the plan is asked for while the daemon still runs without it, and changes nothing.
    let config = std::fs::read_to_string(&daemon.config).unwrap();
    let rules = "[retention]\ninterval_s = 1.0\n[[retention.rule]]\nname = \"soon\"\nfiles = [\"received\"]\n\
                 after_days = 0.00001\n";
    std::fs::write(&daemon.config, config + rules).unwrap();
    let planned = eventually(seconds(30), "the time of both has come", || {
        let plan = plan(&daemon);
        let going = plan["plan"]["going"].as_array().unwrap().len();
        if going == 1 && plan["plan"]["protected_by"]["on-hold"] == 1 { Ok(plan) } else { Err(plan.to_string()) }
    });
    assert_eq!(planned["plan"]["going"][0]["study_instance"], *gone.study_uid);
    assert_eq!(planned["plan"]["going"][0]["files"], 8);
    let words = said(&daemon, &["retention", "plan"]);
    assert!(
        words.contains(&gone.study_uid) && words.contains("rule \"soon\"") && words.contains("it is on hold"),
        "{words}"
    );
    assert_eq!(daemon.stored_data_sets().len(), 16 + objects(&daemon, &gone) + objects(&daemon, &held));

    daemon.kill();
    daemon.start_again();
    let before = daemon.show(&gone.study_uid);
    eventually(seconds(30), "files gone", || {
        let left = daemon.stored_data_sets().len();
        if left == 8 + objects(&daemon, &gone) + objects(&daemon, &held) { Ok(()) } else { Err(format!("{left} left")) }
    });
    let shown = daemon.show(&gone.study_uid);
    for kept in ["positive", "probability", "volume_ml", "status", "instances", "version"] {
        assert_eq!(shown["summary"][kept], before["summary"][kept], "{kept}");
    }
    assert!(
        shown["summary"]["pixels_removed_at"].is_i64() && shown["summary"]["results_removed_at"].is_null(),
        "{shown}"
    );
    let why = daemon.why(&gone.study_uid);
    assert!(why.contains("received files are no longer kept") && why.contains("by rule \"soon\""), "{why}");
    let retried = daemon.command(&["studies", "retry", &gone.study_uid]);
    assert!(!retried.status.success(), "{retried:?}");
    let said_why = String::from_utf8_lossy(&retried.stdout).into_owned();
    assert!(said_why.contains("not analysed again"), "{said_why}");
    let told = daemon.audit_details("study-retried");
    assert!(told.len() == 1 && !told[0]["what"].is_null() && told[0]["by"].is_string(), "{told:?}");
    assert!(daemon.show(&held.study_uid)["summary"]["pixels_removed_at"].is_null(), "on hold");

    // Sent once more it is kept again, until its time comes again.
    StoreScu::to(daemon.port).send(&gone).expect_all(8);
    let why = daemon.why(&gone.study_uid);
    assert!(why.contains("8 files came again and replace those that are gone"), "{why}");
    // The hold is released: its time has long come.
    said(&daemon, &["studies", "release-hold", &held.study_uid, "--by", "otto"]);
    assert_eq!(daemon.audit_details("study-hold-released"), [json!({ "by": "otto" })]);
    let audited = daemon.audited();
    for (action, study) in [("study-held", &held), ("study-retried", &gone), ("study-hold-released", &held)] {
        let is_it =
            |row: &&(String, String, Option<String>)| row.1 == action && row.2.as_ref() == Some(&study.study_uid);
        let row = audited.iter().find(is_it).unwrap_or_else(|| panic!("{action} is not in {audited:?}"));
        assert!(!row.0.is_empty(), "somebody did it: {row:?}");
    }
    eventually(seconds(30), "the other one gone too", || {
        let shown = daemon.show(&held.study_uid);
        if shown["summary"]["pixels_removed_at"].is_i64() { Ok(()) } else { Err(shown["summary"].to_string()) }
    });
}

fn objects(daemon: &Daemon, study: &Study) -> usize {
    daemon.show(&study.study_uid)["objects"].as_array().unwrap().len()
}

#[test]
fn what_is_not_delivered_stays_and_the_doctor_says_that_space_will_not_come() {
    requires!(Dcmtk);
    let sections = format!(
        "[[destination]]\nname = \"pacs\"\nkind = \"c-store\"\naddress = \"127.0.0.1:{}\"\nae_title = \"GONE\"\n\
         first_backoff_s = 0.2\nmax_backoff_s = 0.5\n\n\
         [retention]\ninterval_s = 1.0\nfree_below_mib = 900000000\nfree_until_mib = 900000001\nfree_after_days = 0.0\n",
        free_port()
    );
    let daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    let study = Phantom::BLEEDING.slices(8).matrix(128).write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(8);
    eventually(seconds(120), "spared by the sweep", || {
        let plan = plan(&daemon);
        if plan["plan"]["protected_by"]["undelivered"] == 1 { Ok(()) } else { Err(plan.to_string()) }
    });
    std::thread::sleep(seconds(3));
    assert!(daemon.show(&study.study_uid)["summary"]["pixels_removed_at"].is_null());
    let output = daemon.command(&["doctor", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = said["outcomes"].as_array().unwrap().iter().find(|outcome| outcome["subject"] == "retention").unwrap();
    assert_eq!(found["level"], "warning", "{found}");
    let text = found["found"].as_str().unwrap();
    assert!(text.contains("nothing more may go") && text.contains("1 undelivered"), "{text}");
}
