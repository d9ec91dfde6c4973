//! Look-ups: what a worklist or a PACS says of studies that arrive, and peers that fail, hang and lie.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use dicom_core::VR;
use dicom_dictionary_std::tags;
use serde_json::{Value, json};

use crate::support::answering_peer::{AnsweringPeer, ScheduledStep, Worklist};
use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Settings};
use crate::support::mllp::Receiver;
use crate::support::orthanc::Orthanc;
use crate::support::raw::RawAssociation;
use crate::support::study::{Instance, Phantom, Study, put_text};
use crate::support::tools::requires;
use crate::support::{eventually, free_port, http, part10, seconds, stays};

/// What happens to a study here does not depend on its verdict.
const SMALL: Phantom = Phantom::BLEEDING.slices(12).matrix(128);

/// A look-up that asks soon and often.
fn lookup(name: &str, place: &str) -> String {
    format!(
        "[[lookup]]\nname = {name:?}\nsettle_s = 0.2\ninterval_s = 0.3\ntimeout_s = 2.0\nfirst_backoff_s = 0.3\n\
         max_backoff_s = 0.5\nattempts = 4\n{place}\n\n"
    )
}

fn c_find(port: u16, title: &str) -> String {
    format!("kind = \"c-find\"\naddress = \"127.0.0.1:{port}\"\nae_title = {title:?}\n")
}

fn mwl(port: u16, title: &str) -> String {
    format!("kind = \"mwl\"\naddress = \"127.0.0.1:{port}\"\nae_title = {title:?}\n")
}

fn with(sections: String, quiet_period_s: f64) -> Settings {
    Settings { sections, quiet_period_s, ..Settings::default() }
}

fn without_accession(study: &Study, folder: &Path) -> Study {
    study.edited(folder, |_, object| put_text(object, tags::ACCESSION_NUMBER, VR::SH, ""))
}

fn send(daemon: &Daemon, instances: &[Instance]) {
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
}

/// Texts of a study's events of one kind.
fn events(daemon: &Daemon, study: &Study, kind: &str) -> Vec<String> {
    let output = daemon.studies(&["why", &study.study_uid, "--json"]);
    let why: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = why["timeline"].as_array().unwrap().iter().filter(|event| event["kind"] == kind);
    all.map(|event| event["text"].as_str().unwrap().to_owned()).collect()
}

fn closed(daemon: &Daemon, study: &Study, times: usize) -> Vec<String> {
    eventually(seconds(60), "a study that closes", || {
        let closed = events(daemon, study, "closed");
        if closed.len() == times { Ok(closed) } else { Err(format!("{closed:?}\n{}", daemon.log())) }
    })
}

/// Sends a study without accession number, and follows the one that `number` is to be told by `peer`.
fn follow(daemon: &Daemon, receiver: &Receiver, study: &Study, (number, peer): (&str, &str)) {
    send(daemon, &study.instances);
    daemon.wait_for_end(&study.study_uid, seconds(60));
    let summary = daemon.show(&study.study_uid)["summary"].clone();
    assert_eq!(
        (summary["accession_number"].as_str(), summary["accession_source"].as_str()),
        (Some(number), Some(peer))
    );
    let why = daemon.why(&study.study_uid);
    assert!(why.contains(&format!("{peer} tells the accession number")), "{why}");
    assert!(!why.contains(number), "events hold no patient data: {why}");
    // Found by it, and told by it.
    let found = daemon.studies(&["list", "--accession", number, "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    eventually(seconds(30), "an HL7 message with the number", || {
        let received = receiver.received();
        match received.iter().any(|message| message.text.contains(&format!("|{number}|"))) {
            true => Ok(()),
            false => Err(received.iter().map(|message| message.text.replace('\r', "\n")).collect::<String>()),
        }
    });
    // Received bytes are kept as received.
    let kept = daemon.stored_data_sets();
    for instance in &study.instances {
        assert_eq!(kept[&instance.sop_instance], [part10::data_set(&instance.path)]);
    }
}

fn hl7(receiver: &Receiver) -> String {
    format!(
        "[[channel]]\nname = \"ris\"\nkind = \"hl7\"\naddress = \"127.0.0.1:{}\"\nreceiving_application = \"RIS\"\n\
         receiving_facility = \"H\"\n\n",
        receiver.port
    )
}

#[test]
fn pacs_tells_the_accession_number() {
    requires!(Dcmtk, Orthanc);
    let orthanc = Orthanc::start();
    let web = format!("kind = \"qido-rs\"\nurl = {:?}\n", orthanc.dicom_web_url());
    for (number, place) in [("FIND-1", c_find(orthanc.dicom_port, "ORTHANC")), ("QIDO-1", web)] {
        let receiver = Receiver::start(&[]);
        let daemon = Daemon::start(&with(hl7(&receiver) + &lookup("pacs", &place), 2.0));
        // Orthanc must not take the second for the first.
        let suffix = if number == "FIND-1" { "71" } else { "72" };
        let made = SMALL.write(&daemon.folder("made")).restamped(&daemon.folder("own"), suffix);
        let known =
            made.edited(&daemon.folder("known"), |_, object| put_text(object, tags::ACCESSION_NUMBER, VR::SH, number));
        orthanc.keep(&known);
        follow(&daemon, &receiver, &without_accession(&made, &daemon.folder("sent")), (number, "pacs"));
        let closed = closed(&daemon, &made, 1);
        assert_eq!(closed, ["quiet; closed as version 1 with 12 instances"]);
        assert_eq!(daemon.show(&made.study_uid)["summary"]["expected_instances"], 12);
    }
}

#[test]
fn worklist_tells_the_accession_number_and_reports_name_the_order() {
    requires!(Dcmtk, Orthanc, Dciodvfy);
    let pacs = Orthanc::start();
    let scratch = crate::support::scratch::Scratch::new("steps");
    let study = without_accession(&called_positive()[0].write(&scratch.folder("made")), &scratch.folder("sent"));
    let header = part10::header(&study.instances[0].path);
    let (patient, date) = (part10::text(&header, tags::PATIENT_ID), part10::text(&header, tags::STUDY_DATE));
    let ours = ScheduledStep { accession: "MWL-1", patient: &patient, study: &study.study_uid, date: &date };
    let other = ScheduledStep { accession: "MWL-2", study: "1.2.3.4", ..ours };
    // A stranger's step of another day; by the patient alone the two of today would contradict each other.
    let orthanc = Orthanc::with_worklist(&[ours, other]);
    let receiver = Receiver::start(&[]);
    let destination = format!(
        "[[destination]]\nname = \"pacs\"\nkind = \"c-store\"\naddress = \"127.0.0.1:{}\"\nae_title = \"ORTHANC\"\n\
         objects = [\"segmentation\", \"report\"]\n\n",
        pacs.dicom_port
    );
    let sections = hl7(&receiver) + &destination + &lookup("ris", &mwl(orthanc.dicom_port, "ORTHANC"));
    let daemon = Daemon::start(&with(sections, 2.0));
    follow(&daemon, &receiver, &study, ("MWL-1", "ris"));
    let report = pacs.wait_for_object(&study.study_uid, "SR", seconds(60));
    let report = pacs.fetch(&report);
    assert_eq!(crate::support::dcmtk::dciodvfy_errors(&report), Vec::<String>::new());
    let object = part10::header(&report);
    assert_eq!(part10::text(&object, tags::ACCESSION_NUMBER), "", "of the study as its images have it");
    let request = &object.element(tags::REFERENCED_REQUEST_SEQUENCE).unwrap().items().unwrap()[0];
    assert_eq!(request.element(tags::ACCESSION_NUMBER).unwrap().to_str().unwrap().trim(), "MWL-1");
    let segmentation = pacs.wait_for_segmentation(&study.study_uid, seconds(60));
    assert_eq!(part10::text(&part10::header(&pacs.fetch(&segmentation)), tags::ACCESSION_NUMBER), "");
}

#[test]
fn worklist_of_dcmtk_is_asked_by_patient() {
    requires!(Dcmtk, Pynetdicom);
    let scratch = crate::support::scratch::Scratch::new("steps");
    let study = without_accession(&SMALL.write(&scratch.folder("made")), &scratch.folder("sent"));
    let header = part10::header(&study.instances[0].path);
    let (patient, date) = (part10::text(&header, tags::PATIENT_ID), part10::text(&header, tags::STUDY_DATE));
    // The scanner has made a Study Instance UID of its own.
    let today = ScheduledStep { accession: "PAT-1", patient: &patient, study: "1.2.3.4", date: &date };
    let another_day = ScheduledStep { accession: "PAT-2", date: "19990101", ..today };
    let another = ScheduledStep { accession: "PAT-3", patient: "SOMEBODY-ELSE", ..today };
    let worklist = Worklist::start(&[today, another_day, another]);
    let receiver = Receiver::start(&[]);
    let place = format!("{}match_by = \"patient\"\nscheduled_ae_title = \"CT1\"\n", mwl(worklist.port, "RIS"));
    let daemon = Daemon::start(&with(hl7(&receiver) + &lookup("ris", &place), 2.0));
    follow(&daemon, &receiver, &study, ("PAT-1", "ris"));
}

#[test]
fn complete_study_closes_before_its_quiet_period() {
    requires!(Dcmtk, Orthanc);
    let orthanc = Orthanc::start();
    let place = format!("{}close_when_complete = true\nstable_s = 1.0\n", c_find(orthanc.dicom_port, "ORTHANC"));
    let daemon = Daemon::start(&with(lookup("pacs", &place), 600.0));
    let study = SMALL.write(&daemon.folder("study"));
    orthanc.keep(&study);
    let (last, others) = study.instances.split_last().unwrap();
    send(&daemon, others);
    // One is missing: it waits, however long the number stays the same.
    stays(seconds(3), || assert_eq!(events(&daemon, &study, "closed"), Vec::<String>::new()));
    send(&daemon, std::slice::from_ref(last));
    let begun = Instant::now();
    let closed = closed(&daemon, &study, 1);
    assert_eq!(closed, ["complete; closed as version 1 with 12 of 12 expected instances"]);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(900), "it was asked twice");
}

#[test]
fn alert_about_an_order_waits_for_its_number() {
    requires!(Dcmtk, Pynetdicom);
    let scratch = crate::support::scratch::Scratch::new("order");
    let study = without_accession(&Phantom::BLEEDING.write(&scratch.folder("made")), &scratch.folder("sent"));
    // The peer thinks for four seconds; every slice is suspicious, so that the alert comes long before.
    let found = json!([[{ "StudyInstanceUID": "$study", "AccessionNumber": "A-9" }]]);
    let peer = AnsweringPeer::start(&json!({ "hang": 4, "STUDY": found }));
    let (results, orders) = (Receiver::start(&[]), Receiver::start(&[]));
    let alerts = |channel: String, name: &str| {
        let channel = channel.replace("\"ris\"", &format!("{name:?}"));
        channel.trim_end().to_owned() + "\nsubjects = [\"alert\"]\n"
    };
    let mut sections = "[alert]\nthreshold = 0.0\nslices = 4\n\n".to_owned();
    sections += &alerts(hl7(&results), "results");
    sections += &(alerts(hl7(&orders), "orders") + "template = \"orm\"\norder_wait_s = 30.0\n\n");
    let place = format!("{}count = \"none\"\n", c_find(peer.port, "PEER"));
    sections += &lookup("pacs", &place).replace("timeout_s = 2.0", "timeout_s = 10.0");
    let daemon = Daemon::start(&with(sections, 60.0));
    send(&daemon, &study.instances);
    eventually(seconds(20), "an order with its number", || match orders.received().as_slice() {
        [] => Err(daemon.log()),
        received => {
            assert_eq!(received[0].fields("ORC")[2..4], ["A-9", "A-9"], "{}", received[0].text);
            Ok(())
        }
    });
    let output = daemon.studies(&["why", &study.study_uid, "--json"]);
    let why: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kinds: Vec<&str> =
        why["timeline"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    let place =
        |kind: &str| kinds.iter().position(|one| *one == kind).unwrap_or_else(|| panic!("no {kind}: {kinds:?}"));
    assert!(place("alert") < place("message-waits") && place("message-waits") < place("looked-up"), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "message-waits").count(), 1, "said once: {kinds:?}");
    // The observation waited for nothing.
    assert_eq!(results.received()[0].fields("OBR")[3], "", "{}", results.received()[0].text);
    assert!(results.received()[0].at < orders.received()[0].at);
}

#[test]
fn growing_number_closes_nothing() {
    requires!(Dcmtk, Pynetdicom);
    let study_folder = crate::support::scratch::Scratch::new("growing");
    let study = SMALL.write(&study_folder.folder("study"));
    let series = part10::text(&part10::header(&study.instances[0].path), tags::SERIES_INSTANCE_UID);
    let told = |count: usize| json!([{ "SeriesInstanceUID": series, "Modality": "CT", "NumberOfSeriesRelatedInstances": count }]);
    // The PACS receives beside us: what it has is what we have, for a while.
    let growing: Vec<Value> = (6..=12).map(told).collect();
    let peer = AnsweringPeer::start(&json!({ "SERIES": growing }));
    let place = format!("{}close_when_complete = true\nstable_s = 1.0\naccession = false\n", c_find(peer.port, "PEER"));
    let daemon = Daemon::start(&with(lookup("pacs", &place), 600.0));
    send(&daemon, &study.instances[..6]);
    // It grows at every question, and ends at twice what is here.
    eventually(seconds(30), "eight questions", || match peer.asked().len() {
        few @ ..8 => Err(few.to_string()),
        _ => Ok(()),
    });
    stays(seconds(2), || assert_eq!(events(&daemon, &study, "closed"), Vec::<String>::new()));
    send(&daemon, &study.instances[6..]);
    assert_eq!(closed(&daemon, &study, 1), ["complete; closed as version 1 with 12 of 12 expected instances"]);
}

#[test]
fn study_waits_for_what_is_missing_and_says_what_it_lacks() {
    requires!(Dcmtk, Orthanc);
    let orthanc = Orthanc::start();
    let admin = free_port();
    let place = format!("{}wait_for_missing_s = 6.0\n", c_find(orthanc.dicom_port, "ORTHANC"));
    let sections = lookup("pacs", &place) + &format!("[admin]\naddress = \"127.0.0.1:{admin}\"\n");
    let mut daemon = Daemon::start(&with(sections, 2.0));
    let study = SMALL.write(&daemon.folder("study"));
    orthanc.keep(&study);
    let (last, others) = study.instances.split_last().unwrap();
    let begun = Instant::now();
    send(&daemon, others);
    eventually(
        seconds(10),
        "an expectation",
        || match daemon.show(&study.study_uid)["summary"]["expected_instances"] {
            Value::Null => Err(daemon.log()),
            ref expected => {
                assert_eq!(expected, 12);
                Ok(())
            }
        },
    );
    // What it waits for is in the store.
    daemon.kill();
    daemon.start_again();
    let closed_once = closed(&daemon, &study, 1);
    assert!(begun.elapsed() >= seconds(7), "{:?}", begun.elapsed());
    assert_eq!(closed_once, ["quiet; closed as version 1 with 11 of 12 expected instances"]);
    assert!(events(&daemon, &study, "looked-up").iter().any(|text| text.contains("11 are here: 1 are missing")));
    let shown = daemon.studies(&["show", &study.study_uid]);
    assert!(String::from_utf8(shown.stdout).unwrap().contains("instances  11 of 12 expected"));
    assert!(daemon.why(&study.study_uid).contains("instances 11 of 12 expected"));
    // The late slice opens it again, as ever.
    daemon.wait_for_end(&study.study_uid, seconds(60));
    send(&daemon, std::slice::from_ref(last));
    assert_eq!(closed(&daemon, &study, 2)[1], "quiet; closed as version 2 with 12 instances");
    let metrics = String::from_utf8(http::get(admin, "/metrics").unwrap()).unwrap();
    assert!(metrics.contains("ichor_lookups_total{name=\"pacs\",outcome=\"answered\"}"), "{metrics}");
    assert!(metrics.contains("ichor_lookups_due{name=\"pacs\"}"), "{metrics}");
}

#[test]
fn peers_that_fail_hang_and_lie_hold_nothing_up() {
    requires!(Dcmtk, Pynetdicom);
    let scratch = crate::support::scratch::Scratch::new("liars");
    let study = without_accession(&SMALL.write(&scratch.folder("made")), &scratch.folder("sent"));
    let of_study = |count: &str, number: &str| json!([[{ "StudyInstanceUID": "$study", "AccessionNumber": number, "NumberOfStudyRelatedInstances": count }]]);
    let liars: [(&str, &str, Value, &str); 12] = [
        ("down", "series", Value::Null, "no connection"),
        ("hanging", "series", json!({ "hang": 30 }), "no answer within"),
        ("failing", "series", json!({ "status": 0xA700 }), "0xA700"),
        ("aborting", "series", json!({ "abort": true }), "abort"),
        ("endless", "study", json!({ "endless": true, "STUDY": of_study("12", "A-1") }), "more than 100 matches"),
        ("none", "study", json!({ "STUDY": of_study("0", "") }), "0 instances"),
        ("negative", "study", json!({ "STUDY": of_study("-12", "") }), "negative"),
        ("huge", "study", json!({ "STUDY": of_study("999999999", "") }), "more than 20000 instances"),
        (
            "wrong-study",
            "study",
            json!({ "STUDY": [[{ "StudyInstanceUID": "1.2.3", "AccessionNumber": "A-2",
            "NumberOfStudyRelatedInstances": "13" }]] }),
            "none of which is of this study",
        ),
        (
            "several",
            "study",
            json!({ "STUDY": [[
            { "StudyInstanceUID": "$study", "AccessionNumber": "A-3", "NumberOfStudyRelatedInstances": "12" },
            { "StudyInstanceUID": "$study", "AccessionNumber": "A-4", "NumberOfStudyRelatedInstances": "14" }]] }),
            "2 accession numbers",
        ),
        ("wrong-set", "study", json!({ "STUDY": of_study("", ""), "raw": "Ä-5" }), "printable characters"),
        (
            "wrong-patient",
            "series",
            json!({ "STUDY": [[{ "StudyInstanceUID": "$study", "PatientID": "SOMEBODY-ELSE",
            "AccessionNumber": "A-6" }]], "SERIES": [[{ "Modality": "CT", "NumberOfSeriesRelatedInstances": "12" }]] }),
            "another patient ID",
        ),
    ];
    let mut sections = String::new();
    let mut peers = Vec::new();
    for (name, count, settings, _) in &liars {
        let port = if settings.is_null() {
            free_port()
        } else {
            peers.push(AnsweringPeer::start(settings));
            peers[peers.len() - 1].port
        };
        let place = format!("{}count = {count:?}\nwait_for_missing_s = 2.0\n", c_find(port, "PEER"));
        let _ = write!(sections, "{}", lookup(name, &place));
    }
    let mut daemon = Daemon::start(&with(sections, 4.0));
    let begun = Instant::now();
    send(&daemon, &study.instances);
    let closed = closed(&daemon, &study, 1);
    // The quiet period; what a daemon of twelve peers on a busy machine takes comes on top.
    assert!((seconds(4)..seconds(15)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(closed[0].starts_with("quiet; closed as version 1 with 12 instances; the look-up at down"), "{closed:?}");
    let told = [events(&daemon, &study, "look-up-failed"), events(&daemon, &study, "look-up-doubtful")].concat();
    for (name, _, _, words) in &liars {
        let of_peer = told.iter().filter(|text| text.split(' ').any(|word| word == *name));
        assert!(of_peer.clone().any(|text| text.contains(words)), "{name}: {words:?} in\n{}", told.join("\n"));
    }
    let summary = daemon.show(&study.study_uid)["summary"].clone();
    assert_eq!(
        (summary["accession_number"].clone(), summary["expected_instances"].clone()),
        (Value::Null, Value::Null)
    );
    assert!(daemon.is_running());
    daemon.wait_for_end(&study.study_uid, seconds(60));
}

#[test]
fn received_number_is_not_asked_for_and_doctor_asks_every_peer() {
    requires!(Dcmtk, Pynetdicom);
    let peer =
        AnsweringPeer::start(&json!({ "WORKLIST": [[{ "StudyInstanceUID": "$study", "AccessionNumber": "A-1" }]] }));
    let sections = lookup("ris", &mwl(peer.port, "PEER")) + &lookup("gone", &mwl(free_port(), "GONE"));
    let daemon = Daemon::start(&with(sections, 1.0));
    let study = SMALL.write(&daemon.folder("study"));
    send(&daemon, &study.instances);
    daemon.wait_for_end(&study.study_uid, seconds(60));
    assert_eq!(peer.asked(), Vec::<Value>::new());
    assert_eq!(daemon.show(&study.study_uid)["summary"]["accession_source"], Value::Null);
    let said = daemon.command(&["doctor"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("takes the worklist"), "{said}");
    assert!(said.contains("look-up \"gone\"") && said.contains("no connection to"), "{said}");
    assert_eq!(peer.asked(), Vec::<Value>::new(), "nobody is asked about anybody");
}
