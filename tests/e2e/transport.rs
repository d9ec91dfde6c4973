//! How destinations are sent to: associations that are kept, queues that are held, contexts that are refused once.

use std::collections::HashSet;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::support::chosen::{called_negative, called_positive};
use crate::support::daemon::{Daemon, Destination, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::orthanc::Orthanc;
use crate::support::proving_pacs::ProvingPacs;
use crate::support::study::{Phantom, Study};
use crate::support::tools::requires;
use crate::support::{eventually, free_port, http, seconds};

/// A destination of these keys.
fn to(keys: &str) -> Settings {
    let sections = format!(
        "[[destination]]\nname = \"pacs\"\nfirst_backoff_s = 0.2\nmax_backoff_s = 0.5\ntimeout_s = 10.0\n{keys}\n"
    );
    Settings { sections, ..Settings::default() }
}

fn c_store(port: u16) -> String {
    format!("kind = \"c-store\"\naddress = \"127.0.0.1:{port}\"\nae_title = \"ORTHANC\"\n")
}

fn send(daemon: &Daemon, phantom: Phantom, name: &str) -> Study {
    let study = phantom.write(&daemon.folder(name));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    study
}

fn destination(daemon: &Daemon) -> Value {
    let output = daemon.command(&["deliveries", "destinations", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["destinations"][0].clone()
}

fn deliveries(daemon: &Daemon, status: &str) -> Vec<Value> {
    let output = daemon.command(&["deliveries", "list", "--json", "--status", status]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap().as_array().unwrap().clone()
}

#[test]
fn absent_destination_holds_its_queue_as_one() {
    requires!(Dcmtk, Orthanc);
    let (http_port, dicom_port, admin) = (free_port(), free_port(), free_port());
    let mut settings = to(&format!("{}attempts = 2\nobjects = [\"segmentation\"]", c_store(dicom_port)));
    settings.sections += &format!("\n[admin]\naddress = \"127.0.0.1:{admin}\"\n");
    let daemon = Daemon::start(&settings);
    let studies = called_positive().map(|phantom| send(&daemon, phantom, &format!("study-{}", phantom.seed)));
    eventually(seconds(30), "five probes", || {
        let state = destination(&daemon);
        if state["failures"].as_u64() >= Some(5) { Ok(()) } else { Err(state.to_string()) }
    });
    for study in &studies {
        let why = daemon.why(&study.study_uid);
        assert!(why.contains("not through yet") && why.contains("pacs is down since"), "{why}");
        assert!(why.matches("delivery-held").count() <= 1, "told once\n{why}");
    }
    assert!(deliveries(&daemon, "dead").is_empty(), "an absent peer costs no attempt");
    assert_eq!(daemon.log().matches("its queue is held").count(), 1, "told once");
    let metrics = String::from_utf8(http::get(admin, "/metrics").unwrap()).unwrap();
    assert!(metrics.contains("ichor_destination_up{name=\"pacs\"} 0"), "{metrics}");

    let pacs = Orthanc::start_on(http_port, dicom_port);
    for study in &studies {
        pacs.wait_for_segmentation(&study.study_uid, seconds(20));
        assert_eq!(daemon.wait_for_acceptance(&study.study_uid, "pacs", seconds(10)), 1);
    }
    assert_eq!(destination(&daemon)["is_up"], true);
}

#[test]
fn one_association_carries_many_objects_in_several_contexts() {
    requires!(Dcmtk, Pynetdicom);
    let pacs = ProvingPacs::start(&json!({}));
    let objects = "idle_s = 20.0\nobjects = [\"segmentation\", \"report\", \"key-objects\", \"capture\"]";
    let daemon = Daemon::start(&to(&format!("{}{objects}", c_store(pacs.port))));
    for phantom in called_positive() {
        let study = send(&daemon, phantom, &format!("study-{}", phantom.seed));
        eventually(seconds(20), "all accepted", || {
            let states = daemon.deliveries(&study.study_uid, "pacs");
            if states.iter().all(|(status, _)| status == "accepted") { Ok(()) } else { Err(format!("{states:?}")) }
        });
    }
    let stores = pacs.noted("store");
    let associations: HashSet<String> = stores.iter().map(|store| store["association"].to_string()).collect();
    assert!(stores.len() >= 8, "{stores:?}");
    assert_eq!(associations.len(), 1, "of {} objects of two studies", stores.len());
    let contexts = pacs.noted("association")[0]["contexts"].as_u64().unwrap();
    assert!(contexts >= 4, "{contexts} presentation contexts");
}

#[test]
fn refused_context_is_found_once_and_holds_nothing_else_up() {
    requires!(Dcmtk, Pynetdicom);
    let port = free_port();
    let pacs = ProvingPacs::start_on(port, &json!({ "refuse": ["1.2.840.10008.5.1.4.1.1.66.4"] }));
    let daemon = Daemon::start(&to(&format!("{}objects = [\"segmentation\", \"report\"]", c_store(port))));
    for phantom in called_positive() {
        let study = send(&daemon, phantom, &format!("study-{}", phantom.seed));
        eventually(seconds(20), "the report, and the Segmentation held", || {
            let states = daemon.deliveries(&study.study_uid, "pacs");
            let of = |wanted: &str| states.iter().filter(|(status, _)| status == wanted).count();
            if (of("accepted"), of("queued")) == (1, 1) { Ok(()) } else { Err(format!("{states:?}")) }
        });
    }
    let before = pacs.noted("association").len();
    std::thread::sleep(seconds(4));
    assert_eq!(pacs.noted("association").len(), before, "nobody asks again and again");
    assert_eq!(daemon.log().matches("does not accept what is queued for it").count(), 1, "told once");
    assert_eq!(destination(&daemon)["refused"].as_array().unwrap().len(), 1);
    let held = deliveries(&daemon, "queued");
    assert!(held.len() == 2 && held.iter().all(|one| one["attempts"] == 0), "{held:?}");
    assert!(held[0]["last_words"].as_str().unwrap().contains("does not accept"), "{held:?}");

    drop(pacs);
    let pacs = ProvingPacs::start_on(port, &json!({}));
    assert!(daemon.command(&["deliveries", "retry", "--destination", "pacs", "--by", "anna"]).status.success());
    let told = daemon.audit_details("deliveries-retried");
    let wanted = json!({ "delivery": null, "destination": "pacs", "by": "anna", "what": { "deliveries": 0 } });
    assert_eq!(told, [wanted], "none was dead; what it did not accept is proposed again");
    eventually(seconds(20), "the Segmentations", || match pacs.noted("store").len() {
        2 => Ok(()),
        other => Err(format!("{other}")),
    });
    assert!(destination(&daemon)["refused"].as_array().unwrap().is_empty());
}

#[test]
fn folder_gets_whole_files_once_it_is_mounted() {
    requires!(Dcmtk);
    let scratch = crate::support::scratch::Scratch::new("folder");
    let path = scratch.path().join("results");
    let daemon = Daemon::start(&to(&format!("kind = \"folder\"\npath = {path:?}\nobjects = [\"segmentation\"]")));
    let study = send(&daemon, called_positive()[0], "study");
    eventually(seconds(20), "a destination that is down", || {
        let state = destination(&daemon);
        if state["is_up"] == false { Ok(()) } else { Err(state.to_string()) }
    });
    assert!(destination(&daemon)["last_words"].as_str().unwrap().contains("not mounted"));
    std::fs::create_dir(&path).unwrap();
    assert_eq!(daemon.wait_for_acceptance(&study.study_uid, "pacs", seconds(20)), 1);
    let shown = daemon.show(&study.study_uid);
    let object = &shown["objects"][0];
    let file = path.join(&study.study_uid).join(format!("{}.dcm", object["sop_instance"].as_str().unwrap()));
    let kept = std::fs::read(object["path"].as_str().unwrap()).unwrap();
    assert_eq!(std::fs::read(file).unwrap(), kept, "byte for byte");
}

#[test]
fn positive_findings_wait_for_no_hour() {
    requires!(Dcmtk, Pynetdicom);
    let pacs = ProvingPacs::start(&json!({}));
    // A window that is an hour long, and opens in ten hours.
    let clock = |hours| {
        let at = OffsetDateTime::now_utc() + Duration::hours(hours);
        format!("{:02}:{:02}", at.hour(), at.minute())
    };
    let keys = format!("hours = \"{}-{}\"\nobjects = [\"report\"]", clock(10), clock(11));
    let daemon = Daemon::start(&to(&format!("{}{keys}", c_store(pacs.port))));
    let negative = send(&daemon, called_negative(), "negative");
    let positive = send(&daemon, called_positive()[0], "positive");
    daemon.wait_for_acceptance(&positive.study_uid, "pacs", seconds(20));
    assert_eq!(daemon.deliveries(&negative.study_uid, "pacs"), [("queued".to_owned(), 0)]);
    assert_eq!(pacs.noted("store").len(), 1);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for (keys, words) in [
        ("kind = \"folder\"", "needs the key path"),
        ("kind = \"folder\"\npath = \"x\"\naddress = \"h:1\"", "address does not belong to kind folder"),
        ("kind = \"folder\"\npath = \"x\"\nproof = { ask = [\"read-back\"] }", "folder cannot be asked"),
        (
            "kind = \"stow-rs\"\nurl = \"https://h\"\nproof = { ask = [\"commitment\"] }",
            "commitment is for kind c-store",
        ),
        ("kind = \"stow-rs\"\nurl = \"http://h\"\ntls_ca_file = \"x\"", "do nothing with an http:// url"),
        ("kind = \"stow-rs\"\nurl = \"https://h\"\ntls_key_file = \"x\"", "together"),
        ("kind = \"folder\"\npath = \"x\"\nhours = \"8-18\"", "hours: \"8-18\" is not of the form"),
        ("kind = \"folder\"\npath = \"x\"\nhours_utc = \"08:00-18:00\"", "those of time_zone"),
        ("kind = \"folder\"\npath = \"x\"\nsends_from = [\"10.0.0.1/8\"]", "sends_from"),
        ("kind = \"folder\"\npath = \"x\"\nsends_as = [\"A TITLE OF TWENTY CHARS\"]", "at most 16"),
        ("kind = \"folder\"\npath = \"x\"\nproof = { ask = [\"faith\"] }", "faith"),
    ] {
        let said = Daemon::refuses_to_start(&to(keys));
        assert!(said.contains(words), "{keys}: {said}");
    }
    let unused = Destination::CStore { name: "pacs", port: 1, timeout_s: 1.0 };
    let twice =
        Daemon::refuses_to_start(&Settings { destinations: vec![unused], ..to("kind = \"folder\"\npath = \"x\"") });
    assert!(twice.contains("stands twice"), "{twice}");
}
