//! Proof of delivery: what was accepted is committed and found, or it is noticed.

use serde_json::{Value, json};

use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::http;
use crate::support::orthanc::Orthanc;
use crate::support::proving_pacs::ProvingPacs;
use crate::support::study::Study;
use crate::support::tools::requires;
use crate::support::{eventually, free_port, seconds};

/// A destination `pacs` of which proof is asked, patient for a short time only; it may report on its own association.
fn proven(endpoint: &str, proof: &str) -> Settings {
    let sections = format!(
        "[[source]]\nae_title = \"ORTHANC\"\nnetworks = [\"127.0.0.0/8\"]\nquiet_period_s = 1.0\n\n\
         [[destination]]\nname = \"pacs\"\n{endpoint}\nfirst_backoff_s = 0.2\nmax_backoff_s = 0.5\ntimeout_s = 10.0\n\
         objects = [\"segmentation\"]\n\n\
         [destination.proof]\nafter_s = 0.1\nfirst_backoff_s = 0.2\nmax_backoff_s = 0.5\n{proof}\n"
    );
    Settings { sections, ..Settings::default() }
}

fn c_store(port: u16) -> String {
    format!("kind = \"c-store\"\naddress = \"127.0.0.1:{port}\"\nae_title = \"ORTHANC\"")
}

fn send(daemon: &Daemon) -> Study {
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    study
}

/// Waits until the one delivery is in a state, and returns it.
fn wait_for(daemon: &Daemon, study: &Study, status: &str) -> Value {
    eventually(seconds(60), status, || {
        let shown = daemon.show(&study.study_uid);
        match shown["deliveries"].as_array().unwrap().as_slice() {
            [one] if one["status"] == status => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        }
    })
}

#[test]
fn orthanc_commits_itself_and_is_searched() {
    requires!(Dcmtk, Orthanc);
    let orthanc = Orthanc::start();
    let daemon = Daemon::start(&proven(&c_store(orthanc.dicom_port), "ask = [\"commitment\", \"read-back\"]"));
    orthanc.knows_ichor(daemon.port);
    let study = send(&daemon);
    let delivery = wait_for(&daemon, &study, "visible");
    assert_eq!((delivery["attempts"].clone(), delivery["resends"].clone()), (json!(1), json!(0)));
    let why = daemon.why(&study.study_uid);
    for kind in ["delivery-accepted", "commitment-asked", "delivery-committed", "delivery-visible"] {
        assert!(why.contains(kind), "{kind} is missing in\n{why}");
    }
}

#[test]
fn dicomweb_is_searched_and_a_lost_object_sent_again() {
    requires!(Dcmtk, Orthanc);
    for query in ["qido-rs", "wado-rs"] {
        let orthanc = Orthanc::start();
        let endpoint = format!("kind = \"stow-rs\"\nurl = {:?}", orthanc.dicom_web_url());
        // Long enough before the first question that the object can be lost in between.
        let proof = format!("ask = [\"read-back\"]\nquery = \"{query}\"\nattempts = 2");
        let settings = proven(&endpoint, &proof);
        let sections = settings.sections.replace("after_s = 0.1", "after_s = 3.0");
        let daemon = Daemon::start(&Settings { sections, ..settings });
        let study = send(&daemon);
        let segmentation = orthanc.wait_for_segmentation(&study.study_uid, seconds(60));
        wait_for(&daemon, &study, "accepted");
        orthanc.lose(&segmentation);
        let delivery = wait_for(&daemon, &study, "visible");
        assert_eq!(delivery["resends"], 1, "{query}: {delivery}");
        let [again] = orthanc.segmentations(&study.study_uid).try_into().unwrap();
        assert_eq!(again, segmentation, "the same object");
    }
}

#[test]
fn accepted_and_lost_is_noticed_and_sent_again() {
    requires!(Dcmtk, Pynetdicom);
    for ask in ["commitment", "read-back"] {
        let pacs = ProvingPacs::start(&json!({ "lose": 2 }));
        let daemon =
            Daemon::start(&proven(&c_store(pacs.port), &format!("ask = [{ask:?}]\nattempts = 2\nresends = 3")));
        let study = send(&daemon);
        let delivery = wait_for(&daemon, &study, if ask == "commitment" { "committed" } else { "visible" });
        assert_eq!(delivery["resends"], 2, "{delivery}");
        let stores = pacs.noted("store");
        assert_eq!(stores.len(), 3, "{stores:?}");
        assert!(stores.iter().all(|store| store["instance"] == stores[0]["instance"]), "{stores:?}");
        let why = daemon.why(&study.study_uid);
        assert_eq!(why.matches("delivery-sent-again").count(), 2, "{why}");
        assert!(why.contains(if ask == "commitment" {
            "no such object instance (0x0112)"
        } else {
            "does not find it"
        }));
        assert!(daemon.log().contains("to be sent again"), "a warning each time");
    }
}

#[test]
fn peer_that_loses_everything_ends_in_a_dead_letter() {
    requires!(Dcmtk, Pynetdicom);
    let pacs = ProvingPacs::start(&json!({ "lose": 100 }));
    let admin = free_port();
    let mut settings = proven(&c_store(pacs.port), "ask = [\"commitment\"]\nresends = 1");
    settings.sections += &format!("\n[admin]\naddress = \"127.0.0.1:{admin}\"\n");
    let daemon = Daemon::start(&settings);
    let study = send(&daemon);
    let delivery = wait_for(&daemon, &study, "dead");
    assert_eq!(pacs.noted("store").len(), 2, "once, and once again");
    assert!(delivery["last_words"].as_str().unwrap().contains("0x0112"), "{delivery}");
    let ready = http::get_json(admin, "/health/ready").unwrap();
    let check = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "deliveries").unwrap().clone();
    assert_eq!((ready["ready"].clone(), check["passed"].clone()), (json!(true), json!(false)), "{ready}");
    assert!(check["words"].as_str().unwrap().contains("1 for pacs"), "{check}");
    let metrics = String::from_utf8(http::get(admin, "/metrics").unwrap()).unwrap();
    assert!(metrics.contains("ichor_deliveries{name=\"pacs\",status=\"dead\"} 1"), "{metrics}");
    assert!(metrics.contains("ichor_deliveries_unproven{name=\"pacs\"} 0"), "{metrics}");
}

#[test]
fn late_report_on_an_association_of_the_peer_survives_kill_9() {
    requires!(Dcmtk, Pynetdicom);
    // The port must be known to both sides before either runs.
    let port = free_port();
    let mut daemon = Daemon::start(&proven(&c_store(port), "ask = [\"commitment\"]\nreport_wait_s = 0.2"));
    let pacs = ProvingPacs::start_on(port, &json!({ "report": "late", "report_to": daemon.port, "after": 4.0 }));
    let study = send(&daemon);
    eventually(seconds(60), "a request", || match pacs.noted("asked").len() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    daemon.kill();
    daemon.start_again();
    wait_for(&daemon, &study, "committed");
    let reports = pacs.noted("report");
    assert_eq!((reports.len(), reports[0]["status"].clone()), (1, json!(0)), "{reports:?}");
    assert_eq!(pacs.noted("asked").len(), 1, "the request of the life before is the one that was answered");
}

#[test]
fn peer_that_never_reports_ends_in_a_dead_letter() {
    requires!(Dcmtk, Pynetdicom);
    for (settings, words) in [
        (json!({ "report": "never" }), "no commitment report within"),
        (json!({ "refuse": ["commitment"] }), "accepts none of the proposed presentation contexts"),
    ] {
        let pacs = ProvingPacs::start(&settings);
        let proof = "ask = [\"commitment\"]\nattempts = 2\nreport_wait_s = 0.1\nreport_timeout_s = 0.5";
        let daemon = Daemon::start(&proven(&c_store(pacs.port), proof));
        let study = send(&daemon);
        let delivery = wait_for(&daemon, &study, "dead");
        assert!(delivery["last_words"].as_str().unwrap().contains(words), "{delivery}");
        assert_eq!(pacs.noted("store").len(), 1, "nobody said that it is lost");
        assert!(daemon.why(&study.study_uid).contains("it cannot be proven"));
    }
}
