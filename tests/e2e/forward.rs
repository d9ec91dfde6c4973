//! The auto-router: received studies go on as they are.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::orthanc::Orthanc;
use crate::support::scratch::Scratch;
use crate::support::study::{Phantom, Study};
use crate::support::tools::requires;
use crate::support::{eventually, free_port, part10, seconds};

fn states(daemon: &Daemon, study: &Study, destination: &str) -> BTreeMap<String, usize> {
    let shown = daemon.show(&study.study_uid);
    let mut states = BTreeMap::new();
    for one in shown["deliveries"].as_array().unwrap() {
        if one["destination"] == destination && one["kind"] == "source" {
            *states.entry(one["status"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    states
}

#[test]
fn studies_go_on_byte_for_byte_and_not_back() {
    requires!(Dcmtk, Orthanc);
    let (scratch, orthanc) = (Scratch::new("forward"), Orthanc::start());
    let folder = scratch.folder("archive");
    let destination = |name: &str, keys: &str| {
        format!(
            "[[destination]]\nname = {name:?}\nfirst_backoff_s = 0.2\nmax_backoff_s = 0.5\nobjects = []\n{keys}\n\n"
        )
    };
    let c_store =
        |port: u16, title: &str| format!("kind = \"c-store\"\naddress = \"127.0.0.1:{port}\"\nae_title = \"{title}\"");
    let sections = [
        destination("archive", &format!("kind = \"folder\"\npath = {folder:?}")),
        destination("pacs", &format!("{}\n[destination.proof]\nask = [\"read-back\"]\nafter_s = 0.2", c_store(orthanc.dicom_port, "ORTHANC"))),
        // Whoever sends is called so.
        destination("sender", &c_store(free_port(), "STORESCU")),
        // The same system under another title, and by an address.
        destination("web", &format!("kind = \"stow-rs\"\nurl = \"http://127.0.0.1:{}/dicom-web\"\nsends_as = [\"X\", \"STORESCU\"]", free_port())),
        destination("bridge", &format!("{}\nsends_from = [\"10.0.0.0/8\", \"127.0.0.1\"]", c_store(free_port(), "BRIDGE"))),
        "[[forward]]\nname = \"night\"\nsources = [\"NIGHT\"]\nhours = \"01:00-02:00\"\ndestinations = [\"pacs\"]\n\n".to_owned(),
        "[[forward]]\nname = \"others\"\nsources = [\"OTHER\"]\ndestinations = [\"pacs\"]\n\n".to_owned(),
        "[[forward]]\nname = \"heads\"\ntags = { Modality = \"CT\" }\ndestinations = [\"archive\", \"web\", \"pacs\", \"sender\", \"bridge\"]\n".to_owned(),
    ];
    let mut daemon = Daemon::start(&Settings { sections: sections.concat(), ..Settings::default() });
    let study = Phantom::BLEEDING.slices(16).matrix(128).write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    // In the middle of it, perhaps.
    eventually(seconds(30), "instances in the outbox", || {
        let queued: usize = states(&daemon, &study, "pacs").values().sum();
        if queued == 16 { Ok(()) } else { Err(format!("{queued}")) }
    });
    daemon.kill();
    daemon.start_again();
    eventually(seconds(60), "everything there", || {
        let found = (states(&daemon, &study, "archive"), states(&daemon, &study, "pacs"));
        let wanted = |state: &str| BTreeMap::from([(state.to_owned(), 16)]);
        if found == (wanted("accepted"), wanted("visible")) { Ok(()) } else { Err(format!("{found:?}")) }
    });
    for sender in ["sender", "web", "bridge"] {
        assert!(states(&daemon, &study, sender).is_empty(), "{sender}: back to its sender");
    }
    for instance in &study.instances {
        let file = folder.join(&study.study_uid).join(format!("{}.dcm", instance.sop_instance));
        assert_eq!(part10::data_set(&file), part10::data_set(&instance.path), "byte for byte");
    }
    assert_eq!(orthanc.objects(&study.study_uid, "CT").len(), 16);
    the_command_decides_as_the_daemon(&daemon, &study);
    let why = daemon.why(&study.study_uid);
    assert!(why.contains("forwarding rule \"heads\" fires, to archive, pacs; not to web, sender, bridge"), "{why}");
    assert!(why.contains("none of 16 received instances waits for archive any more"), "{why}");
    assert_eq!(why.matches("delivery-accepted").count(), 0, "not a line for each slice\n{why}");
}

/// What `ichor route test` says of forwarding is what the daemon does.
fn the_command_decides_as_the_daemon(daemon: &Daemon, study: &Study) {
    let route = |arguments: &[&str]| -> Value {
        let output = daemon.command(&[&["route", "test", "--json"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["forward"].clone()
    };
    let decision =
        |rule: &str, on: &[&str], back: &[&str]| json!({ "fired": rule, "destinations": on, "not_back_to": back });
    let of_study = route(&[&study.study_uid]);
    assert_eq!(of_study, decision("heads", &["archive", "pacs"], &["web", "sender", "bridge"]));
    let file = study.instances[0].path.to_str().unwrap();
    let from = |source: &str, more: &[&str]| route(&[&[file, "--source", source], more].concat());
    assert_eq!(from("ORTHANC", &[]), decision("heads", &["archive", "web", "sender", "bridge"], &["pacs"]));
    let routed = from("ROUTER", &["--address", "10.7.7.7"]);
    assert_eq!(routed, decision("heads", &["archive", "web", "pacs", "sender"], &["bridge"]));
    assert_eq!(from("OTHER", &[]), decision("others", &["pacs"], &[]));
    assert_eq!(from("NIGHT", &["--at", "01:30"])["fired"], "night");
    assert_eq!(from("NIGHT", &["--at", "2026-03-01T02:30:00+01:00"])["fired"], "night");
    assert_eq!(from("NIGHT", &["--at", "02:00"])["fired"], "heads");
    let words = daemon.command(&["route", "test", file, "--source", "X", "--at", "02:00"]);
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(
        words.contains("02:00:00 UTC") && words.contains("not to web, which would be back to its sender"),
        "{words}"
    );
    let refused = daemon.command(&["route", "test", file, "--at", "soon"]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("HH:MM"), "{refused:?}");
}
