//! FHIR: the report of a study on a server, as it grows; a server that misbehaves; what a site gets wrong.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Settings};
use crate::support::fhir::{Answer, Server};
use crate::support::raw::RawAssociation;
use crate::support::study::{Phantom, Study};
use crate::support::tools::{python, requires};
use crate::support::{eventually, seconds};

/// A small study: what is told of it does not depend on its verdict.
const STUDY: Phantom = Phantom::BLEEDING.slices(12).matrix(128);

fn channel(port: u16, more: &str) -> String {
    format!(
        "[[channel]]\nname = \"ehr\"\nkind = \"fhir\"\nurl = \"http://127.0.0.1:{port}/fhir\"\n\
         patient_system = \"urn:oid:1.2.3.4\"\nfirst_backoff_s = 0.1\nmax_backoff_s = 0.2\ntimeout_s = 1.0\n{more}\n"
    )
}

fn token_file(folder: &Path, token: &str) -> PathBuf {
    let path = folder.join("token");
    std::fs::write(&path, format!("{token}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn send(daemon: &Daemon, study: &Study) {
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in &study.instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
}

fn messages(daemon: &Daemon) -> Vec<Value> {
    serde_json::from_slice(&daemon.command(&["messages", "list", "--json"]).stdout).unwrap()
}

fn ended(daemon: &Daemon, count: usize) -> Vec<Value> {
    eventually(seconds(40), "messages that came to an end", || {
        let all = messages(daemon);
        let ended = all.iter().filter(|one| one["status"] == "acknowledged" || one["status"] == "dead").count();
        if ended == all.len() && ended >= count { Ok(all) } else { Err(format!("{all:?}")) }
    })
}

/// An alert makes a preliminary report before the study is complete; the whole study makes it final, a late slice corrects
/// it, and it is one report all along.
#[test]
fn one_report_grows_with_the_study() {
    requires!(FhirResources);
    let server = Server::start(&[]);
    let scratch = tempfile::tempdir().unwrap();
    let token = token_file(scratch.path(), "first");
    let sections = format!(
        "[alert]\nthreshold = 0.0\nslices = 4\n{}",
        channel(server.port, &format!("bearer_token_file = {token:?}"))
    );
    let daemon = Daemon::start(&Settings { quiet_period_s: 1.5, sections, ..Settings::default() });
    let study = Phantom::BLEEDING.write(&daemon.folder("study"));
    let pacs = json!({ "resourceType": "ImagingStudy", "description": "the PACS's own",
        "identifier": [{ "system": "urn:dicom:uid", "value": format!("urn:oid:{}", study.study_uid) }] });
    server.keep(pacs.clone());
    let (late, first) = study.instances.split_last().unwrap();
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in &first[..6] {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    eventually(seconds(10), "a preliminary report", || match &server.resources("DiagnosticReport")[..] {
        [report] if report["status"] == "preliminary" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(daemon.find(&study.study_uid).unwrap()["status"], "receiving", "the study is not complete");
    token_file(scratch.path(), "renewed");
    for instance in &first[6..] {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    ended(&daemon, 2);
    let of = |status: &str| server.transactions().iter().any(|one| one["entry"][0]["resource"]["status"] == status);
    assert!(of("final"), "{:?}", server.transactions());

    let mut association = RawAssociation::open(daemon.port).unwrap();
    assert_eq!(association.store(late).unwrap().code, 0);
    association.release().unwrap();
    eventually(seconds(60), "a corrected report", || match &server.resources("DiagnosticReport")[..] {
        [report] if report["conclusion"].as_str().unwrap().starts_with("version 2") => Ok(()),
        [report] if report["status"] == "corrected" && messages(&daemon).len() > 3 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    ended(&daemon, 3);

    let reports = server.resources("DiagnosticReport");
    assert_eq!((reports.len(), reports[0]["status"].as_str()), (1, Some("corrected")));
    let summary = daemon.find(&study.study_uid).unwrap();
    let patient = &reports[0]["subject"]["identifier"];
    assert_eq!((&patient["value"], &patient["system"]), (&summary["patient_id"], &json!("urn:oid:1.2.3.4")));
    let observations = server.resources("Observation");
    assert_eq!(observations.len(), 4, "each once: {observations:?}");
    let probability = observations.iter().find(|one| one["code"]["coding"][0]["code"] == "ICH-PROBABILITY").unwrap();
    let told = probability["valueQuantity"]["value"].as_f64().unwrap();
    assert!(
        (told - summary["probability"].as_f64().unwrap()).abs() < 0.001,
        "{told} is not that of the store: {summary}"
    );
    assert_eq!(server.resources("ImagingStudy"), [pacs], "the PACS's record stays");
    let devices = server.resources("Device");
    assert_eq!(devices.len(), 1);
    assert!(devices[0]["note"][0]["text"].as_str().unwrap().contains("not for clinical use"), "the weights' notice");
    let tokens = server.tokens();
    assert_eq!((tokens[0].as_str(), tokens[tokens.len() - 1].as_str()), ("Bearer first", "Bearer renewed"));
    let name = summary["patient_name"].as_str().unwrap();
    assert!(!server.transactions().iter().any(|one| one.to_string().contains(name)) && !daemon.log().contains(name));

    let mut judge = Command::new(python());
    judge.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/judges/read_fhir.py"));
    for (number, transaction) in server.transactions().iter().enumerate() {
        let path = scratch.path().join(format!("{number}.json"));
        std::fs::write(&path, transaction.to_string()).unwrap();
        judge.arg(path);
    }
    let said = judge.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    daemon.is_told_in_time(&study.study_uid);
}

/// Done but not said, refused, silent: the same transaction again and again, and nothing stands twice.
#[test]
fn a_retry_never_doubles() {
    let script = [
        Answer::DoneInSilence,
        Answer::Status(503),
        Answer::Refused(409),
        Answer::Status(401),
        Answer::DoneLate(Duration::from_millis(1_500)),
        Answer::Page,
        Answer::Refused(500),
    ];
    let server = Server::start(&script);
    let daemon = Daemon::start(&Settings { sections: channel(server.port, ""), ..Settings::default() });
    let study = STUDY.write(&daemon.folder("study"));
    send(&daemon, &study);
    let told = ended(&daemon, 1);
    let attempts = script.len() as u64 + 1;
    assert_eq!(
        (told[0]["status"].as_str(), told[0]["attempts"].as_u64()),
        (Some("acknowledged"), Some(attempts)),
        "{told:?}"
    );
    assert!(told[0]["last_words"].as_str().unwrap().contains("updated"), "it was there already: {told:?}");
    for (kind, count) in [("DiagnosticReport", 1), ("Observation", 4), ("ImagingStudy", 1), ("Device", 1)] {
        assert_eq!(server.resources(kind).len(), count, "{kind}");
    }
    assert_eq!(server.resources("ImagingStudy")[0]["series"][0]["modality"]["code"], "CT");
    let sent = server.transactions();
    assert!(sent.iter().all(|one| *one == sent[0]), "the same at every attempt");
    let why = daemon.why(&study.study_uid);
    for words in ["no answer within", "HTTP 503", "HTTP 409, error invalid at Bundle.entry[0]", "HTTP 401", "no Bundle"]
    {
        assert!(why.contains(words), "{words:?} is not in {why}");
    }
    assert!(!why.contains("Doe") && !daemon.log().contains("Doe"), "the server's words speak of a patient");
}

/// What no other try will change is given up at once, and told once somebody asks for it.
#[test]
fn refused_for_good() {
    let server = Server::start(&[Answer::Refused(422), Answer::Status(404)]);
    let daemon = Daemon::start(&Settings { sections: channel(server.port, ""), ..Settings::default() });
    let study = STUDY.write(&daemon.folder("study"));
    send(&daemon, &study);
    let dead = |words: &str| {
        eventually(seconds(40), words, || match &messages(&daemon)[..] {
            [one] if one["status"] == "dead" && one["last_words"].as_str().unwrap().contains(words) => Ok(one.clone()),
            other => Err(format!("{other:?}")),
        })
    };
    for words in ["HTTP 422, error invalid at Bundle.entry[0]", "HTTP 404"] {
        let message = dead(words);
        assert_eq!(message["attempts"], 1, "{message}");
        assert!(daemon.command(&["messages", "retry", &message["id"].to_string()]).status.success());
    }
    eventually(seconds(10), "a report", || match server.resources("DiagnosticReport").len() {
        1 => Ok(()),
        other => Err(other.to_string()),
    });
}

/// What a site gets wrong is said before the port is opened, without the secret.
#[test]
fn mistakes_keep_the_daemon_from_starting() {
    let scratch = tempfile::tempdir().unwrap();
    let token = token_file(scratch.path(), "sesame");
    let with_token = format!("bearer_token_file = {token:?}");
    let refusal = |sections: String| Daemon::refuses_to_start(&Settings { sections, ..Settings::default() });
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = refusal(channel(1, &with_token));
    assert!(said.contains("ehr") && said.contains("anybody may read it") && !said.contains("sesame"), "{said}");
    token_file(scratch.path(), "two\nlines");
    let said = refusal(channel(1, &with_token));
    assert!(said.contains("bearer token") && !said.contains("lines\n"), "{said}");
    for (sections, word) in [
        (channel(1, "secret_file = \"x\""), "secret_file"),
        (channel(1, "address = \"x:1\""), "address"),
        (channel(1, "tls_ca_file = \"x\""), "http://"),
        (channel(1, "subjects = [\"delivery-dead\"]"), "delivery-dead"),
        (channel(1, "accession_system = \"no uri\""), "accession_system"),
        (channel(1, "imaging_study = \"delete\""), "delete"),
        (channel(1, "").replace("http://", "https://") + "tls_key_file = \"k\"\n", "tls_certificate_file"),
        ("[[channel]]\nname = \"x\"\nkind = \"fhir\"\n".to_owned(), "url"),
        (
            "[[channel]]\nname = \"x\"\nkind = \"hl7\"\naddress = \"h:1\"\ntls_ca_file = \"c\"\n".to_owned(),
            "tls = true",
        ),
        ("[[channel]]\nname = \"x\"\nkind = \"webhook\"\ntls = true\n".to_owned(), "tls"),
    ] {
        let said = refusal(sections);
        assert!(said.contains(word), "{word}: {said}");
    }
}
