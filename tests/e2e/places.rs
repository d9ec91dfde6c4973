//! Places that ichor asks: task lists and look-ups that come, change and go while the daemon works.

use dicom_core::VR;
use dicom_dictionary_std::tags;
use serde_json::json;

use crate::reload::reload;
use crate::support::answering_peer::AnsweringPeer;
use crate::support::chosen::{called_negative, called_positive};
use crate::support::daemon::{Daemon, Destination, Settings};
use crate::support::orthanc::Orthanc;
use crate::support::raw::RawAssociation;
use crate::support::study::{Phantom, Study, put_text};
use crate::support::task_manager::{TaskManager, Wanted};
use crate::support::tools::requires;
use crate::support::{eventually, free_port, http, seconds, stays};
use crate::tasks::{performer, place, task, wait_for_task, wanted};

const READ: &str = "configuration read again";

fn of_other<'a>(uid: &'a str, study: &'a str, url: &'a str) -> Wanted<'a> {
    Wanted { code: "OTHER", ..wanted(uid, study, url) }
}

/// Added, changed and removed by SIGHUP; a file with a fault changes nothing; what was claimed from a list that goes is ended.
#[test]
fn task_lists_come_and_go_while_the_daemon_works() {
    requires!(Orthanc);
    let (pacs, manager, admin) = (Orthanc::start(), TaskManager::start(), free_port());
    let mut settings = Settings::to([Destination::c_store(&pacs)]);
    settings.sections = format!("[admin]\naddress = \"127.0.0.1:{admin}\"\n");
    let mut daemon = Daemon::start(&settings);
    let without = std::fs::read_to_string(&daemon.config).unwrap();
    let with = format!("{without}\n{}", performer(&manager.url(), &[&pacs.dicom_web_url()], ""));
    let study = called_negative().write(&daemon.folder("study"));
    pacs.keep(&study);
    manager.schedule(&wanted("2.25.200", &study.study_uid, &place(&pacs, &study)));
    let faulty = with.replace("poll_s = 0.3", "poll_s = 0.3\nbearer_token_file = \"gone.token\"");
    reload(&daemon, &faulty, "nothing changes", 1);
    assert!(daemon.log().contains("gone.token"), "{}", daemon.log());
    stays(seconds(1), || assert_eq!(manager.workitem("2.25.200")["state"], "SCHEDULED"));

    reload(&daemon, &with, READ, 1);
    manager.wait_for("2.25.200", "COMPLETED", 120);
    let other = with.replace("ICH^99TEST", "OTHER^99TEST");
    reload(&daemon, &other, READ, 2);
    manager.schedule(&wanted("2.25.201", &study.study_uid, &place(&pacs, &study)));
    manager.schedule(&of_other("2.25.202", &study.study_uid, &place(&pacs, &study)));
    manager.wait_for("2.25.202", "COMPLETED", 60);
    assert_eq!(manager.workitem("2.25.201")["state"], "SCHEDULED", "no longer ours");

    // It goes while one waits for its input, and another that will never have it.
    let second = called_positive()[0].write(&daemon.folder("second"));
    let nowhere = format!("{}/studies/1.2.3.999", pacs.dicom_web_url().trim_end_matches('/'));
    manager.schedule(&of_other("2.25.203", &second.study_uid, &place(&pacs, &second)));
    manager.schedule(&of_other("2.25.204", "1.2.3.999", &nowhere));
    wait_for_task(&daemon, "2.25.203", "claimed");
    wait_for_task(&daemon, "2.25.204", "claimed");
    reload(&daemon, &without, READ, 3);
    assert!(daemon.log().contains("claims nothing more, and what it has is ended"), "{}", daemon.log());
    manager.schedule(&of_other("2.25.205", &study.study_uid, &place(&pacs, &study)));
    pacs.keep(&second);
    manager.wait_for("2.25.203", "COMPLETED", 120);
    wait_for_task(&daemon, "2.25.203", "completed");
    assert_eq!(manager.workitem("2.25.205")["state"], "SCHEDULED", "nothing more is claimed there");

    // After a restart nobody performs it, and that is said.
    let check = |passed: bool| {
        let ready = http::get_json(admin, "/health/ready").unwrap();
        let check = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "tasks").unwrap().clone();
        assert_eq!(check["passed"].as_bool(), Some(passed), "{check}");
    };
    check(true);
    daemon.kill();
    daemon.start_again();
    check(false);
    eventually(seconds(20), "a warning", || {
        match daemon.log().contains("a task list that is not configured any more") {
            true => Ok(()),
            false => Err(daemon.log()),
        }
    });
    let doctor = daemon.command(&["doctor", "--json"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("their list is not configured any more"), "{doctor:?}");
    let number = task(&daemon, "2.25.204")["id"].to_string();
    assert!(daemon.command(&["tasks", "give-up", &number, "--why", "the list is gone"]).status.success());
    check(true);
}

/// The same of look-ups.
#[test]
fn lookups_come_and_go_while_the_daemon_works() {
    requires!(Orthanc);
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&Settings::default());
    let without = std::fs::read_to_string(&daemon.config).unwrap();
    let section = format!(
        "\n[[lookup]]\nname = \"pacs\"\nkind = \"c-find\"\naddress = \"127.0.0.1:{}\"\nae_title = \"ORTHANC\"\n\
         settle_s = 0.2\ninterval_s = 0.3\n",
        pacs.dicom_port
    );
    let bare = |name: &str, seed: u64| -> Study {
        let study = Phantom { seed, ..Phantom::BLEEDING.slices(12).matrix(128) }.write(&daemon.folder(name));
        let known = study.edited(&daemon.folder(&format!("{name}-known")), |_, object| {
            put_text(object, tags::ACCESSION_NUMBER, VR::SH, "A-1");
        });
        pacs.keep(&known);
        let study = study.edited(&daemon.folder(&format!("{name}-bare")), |_, object| {
            put_text(object, tags::ACCESSION_NUMBER, VR::SH, "");
        });
        let mut association = RawAssociation::open(daemon.port).unwrap();
        for instance in &study.instances {
            assert_eq!(association.store(instance).unwrap().code, 0);
        }
        association.release().unwrap();
        daemon.wait_for_end(&study.study_uid, seconds(60));
        study
    };
    let told_by = |study: &Study| daemon.show(&study.study_uid)["summary"]["accession_source"].clone();
    reload(&daemon, &format!("{without}{section}"), READ, 1);
    assert_eq!(told_by(&bare("with", 1)), "pacs", "{}", daemon.log());
    reload(&daemon, &without, READ, 2);
    assert!(daemon.log().contains("look-up pacs is asked no more"), "{}", daemon.log());
    assert!(told_by(&bare("without", 2)).is_null());
    reload(&daemon, &format!("{without}{}", section.replace("c-find", "no-find")), "nothing changes", 1);
}

/// A performer whose inputs come from Orthanc by C-MOVE, and a source by which Orthanc may come.
fn by_move(manager: &TaskManager, pacs: &Orthanc) -> String {
    format!(
        "[[source]]\nae_title = \"ORTHANC\"\nnetworks = [\"127.0.0.0/8\"]\nquiet_period_s = 0.5\n\n{}\n\
         [[task_list.source]]\nkind = \"c-move\"\naddress = \"127.0.0.1:{}\"\nae_title = \"ORTHANC\"\n",
        performer(&manager.url(), &[], ""),
        pacs.dicom_port
    )
}

fn of<'a>(uid: &'a str, study: &'a str, title: &'a str) -> Wanted<'a> {
    Wanted { url: None, title: Some(title), ..wanted(uid, study, "") }
}

/// A workitem that names an AE title: its PACS is asked, sends, and is told apart from one that may not be asked or does not know us.
#[test]
fn input_comes_by_c_move() {
    requires!(Orthanc);
    let (pacs, manager) = (Orthanc::start(), TaskManager::start());
    let settings = Settings { sections: by_move(&manager, &pacs), ..Settings::to([Destination::c_store(&pacs)]) };
    let daemon = Daemon::start(&settings);
    let study = called_positive()[0].write(&daemon.folder("study"));
    pacs.keep(&study);

    // Nobody but who is configured is asked.
    manager.schedule(&of("2.25.300", &study.study_uid, "SOMEBODY"));
    let left = wait_for_task(&daemon, "2.25.300", "left");
    assert!(left["last_words"].as_str().unwrap().contains("SOMEBODY is that of no source"), "{left}");

    // It does not know where we are: said, asked again, and done when it does.
    let instances: Vec<&str> = study.instances.iter().map(|one| one.sop_instance.as_str()).collect();
    pacs.forgets_ichor();
    manager.schedule(&Wanted { instances: &instances, ..of("2.25.301", &study.study_uid, "ORTHANC") });
    let words = |uid: &str, words: &str| {
        eventually(seconds(30), words, || match task(&daemon, uid) {
            task if task["last_words"].as_str().is_some_and(|said| said.contains(words)) => Ok(task),
            task => Err(format!("{task}\n{}", daemon.log())),
        })
    };
    let waiting = words("2.25.301", "does it know ICHOR as a destination?");
    assert_eq!(waiting["status"], "claimed", "{waiting}");
    assert!(daemon.find(&study.study_uid).is_none());
    pacs.knows_ichor(daemon.port);
    manager.wait_for("2.25.301", "COMPLETED", 120);
    let why = daemon.why(&study.study_uid);
    let said = format!("its input was fetched: {} instances", study.instances.len());
    assert!(why.contains(&said) && why.contains("ORTHANC"), "{why}");
    assert_eq!(pacs.segmentations(&study.study_uid).len(), 1);

    // It says that it has sent everything, and has sent it elsewhere.
    let second = called_positive()[1].write(&daemon.folder("second"));
    let source = "[[source]]\nae_title = \"ORTHANC\"\nquiet_period_s = 0.5\n".to_owned();
    let elsewhere = Daemon::start(&Settings { sections: source, ..Settings::default() });
    pacs.keep(&second);
    pacs.knows_ichor(elsewhere.port);
    manager.schedule(&of("2.25.302", &second.study_uid, "ORTHANC"));
    words("2.25.302", "does it know ICHOR by another address?");
    assert!(daemon.find(&second.study_uid).is_none());
    // What it does not have is nothing.
    manager.schedule(&of("2.25.303", "1.2.3.4.999", "ORTHANC"));
    words("2.25.303", "ORTHANC refuses the C-MOVE with 0xC000");
    pacs.knows_ichor(daemon.port);
    manager.wait_for("2.25.302", "COMPLETED", 120);
    let doctor = String::from_utf8(daemon.command(&["doctor", "--json"]).stdout).unwrap();
    assert!(doctor.contains("takes C-MOVE"), "{doctor}");
}

/// A peer that may not come is asked in vain: its sub-operations fail, and that is said and canceled in time.
#[test]
fn what_is_refused_here_is_said_on_the_workitem() {
    requires!(Orthanc);
    let (pacs, manager) = (Orthanc::start(), TaskManager::start());
    let sections =
        by_move(&manager, &pacs).replace("ae_title = \"ORTHANC\"\nnetworks", "ae_title = \"NOBODY\"\nnetworks");
    let sections = sections.replace("max_answer_mib = 1", "max_answer_mib = 1\ngive_up_after_s = 3.0");
    let daemon = Daemon::start(&Settings { sections, ..Settings::to([Destination::c_store(&pacs)]) });
    assert!(daemon.log().contains("what it is asked to send here is refused"), "{}", daemon.log());
    pacs.knows_ichor(daemon.port);
    let study = called_negative().write(&daemon.folder("study"));
    pacs.keep(&study);
    manager.schedule(&Wanted { url: None, title: Some("ORTHANC"), ..wanted("2.25.310", &study.study_uid, "") });
    let item = manager.wait_for("2.25.310", "CANCELED", 60);
    let progress = &item["data"]["00741002"]["Value"][0];
    assert_eq!(progress["0074100E"]["Value"][0]["00080100"]["Value"][0], "110523", "{progress}");
    let words = progress["00741238"]["Value"][0].as_str().unwrap();
    assert!(words.contains("ORTHANC") && words.contains("given up"), "{words}");
    assert!(daemon.find(&study.study_uid).is_none());
    let doctor = String::from_utf8(daemon.command(&["doctor", "--json"]).stdout).unwrap();
    assert!(doctor.contains("no [[source]] has its AE title"), "{doctor}");
}

/// A peer that is asked and never done: it hears that it is not wanted any more when the time is over, and when ichor ends.
#[test]
fn c_move_that_does_not_end_is_canceled() {
    requires!(Pynetdicom);
    let (peer, manager) = (AnsweringPeer::start(&json!({})), TaskManager::start());
    let heard = |what: &str| peer.asked().iter().filter(|one| one["what"] == what).count();
    let sections = |keys: &str| {
        let place = format!(
            "[[task_list.source]]\nkind = \"c-move\"\naddress = \"127.0.0.1:{}\"\nae_title = \"PEER\"\n",
            peer.port
        );
        performer(&manager.url(), &[], keys).replace("timeout_s = 20.0", "timeout_s = 1.0") + &place
    };
    let start = |keys: &str| Daemon::start(&Settings { sections: sections(keys), ..Settings::default() });
    let daemon = start("give_up_after_s = 2.0");
    manager.schedule(&of("2.25.320", "1.2.3.4.5", "PEER"));
    let item = manager.wait_for("2.25.320", "CANCELED", 60);
    let words = item["data"]["00741002"]["Value"][0]["00741238"]["Value"][0].as_str().unwrap().to_owned();
    assert!(words.contains("PEER has canceled the C-MOVE after 0 instances"), "{words} {}", daemon.log());
    assert_eq!(heard("CANCEL"), heard("MOVE"));
    drop(daemon);

    let (mut daemon, before) = (start(""), heard("CANCEL"));
    manager.schedule(&of("2.25.321", "1.2.3.4.6", "PEER"));
    eventually(seconds(30), "a request", || if heard("MOVE") > before { Ok(()) } else { Err(daemon.log()) });
    assert!(daemon.terminate(seconds(20)), "{}", daemon.log());
    eventually(seconds(5), "a cancellation", || if heard("CANCEL") > before { Ok(()) } else { Err(daemon.log()) });
    assert_eq!(manager.workitem("2.25.321")["state"], "IN PROGRESS", "the next start goes on with it");
}
