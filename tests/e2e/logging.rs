//! The log as machines read it: each line is an object, whatever a peer sends, and none speaks of a patient.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

use dicom_core::VR;
use dicom_dictionary_std::tags;
use serde_json::Value;

use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Destination, Settings};
use crate::support::raw::RawAssociation;
use crate::support::study::put_text;
use crate::support::{eventually, free_port, seconds};

const NAME: &str = "Unmistakable^Nomen";
const ID: &str = "PID-4711-0815";
const ACCESSION: &str = "ACC-2718281828";

/// Every line, read as JSON.
#[track_caller]
fn lines(log: &str) -> Vec<Value> {
    let read = |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}")) };
    log.lines().map(read).collect()
}

#[test]
fn every_line_is_json_and_none_speaks_of_a_patient() {
    let gone = Destination::CStore { name: "pacs", port: free_port(), timeout_s: 2.0 };
    let mut daemon = Daemon::start(&Settings::to([gone]));
    assert!(daemon.terminate(seconds(20)));
    let text = std::fs::read_to_string(&daemon.config).unwrap();
    let config = text.replacen("level = \"info\"\n", "level = \"info\"\nformat = \"json\"\n", 1);
    assert_ne!(config, text);
    std::fs::write(&daemon.config, &config).unwrap();
    let before = daemon.log().len();
    daemon.start_again();

    // A peer that speaks something else, with what would end a string or a line.
    let mut stranger = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
    stranger.write_all(b"\"}{\"\r\n\\\x00\x1b[31m GET / HTTP/1.1\r\n\r\n").unwrap();
    drop(stranger);
    let phantom = called_positive()[0].write(&daemon.folder("phantom"));
    let study = phantom.edited(&daemon.folder("study"), |_, object| {
        put_text(object, tags::PATIENT_NAME, VR::PN, NAME);
        put_text(object, tags::PATIENT_ID, VR::LO, ID);
        put_text(object, tags::ACCESSION_NUMBER, VR::SH, ACCESSION);
    });
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in &study.instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
    let entry = daemon.wait_for_end(&study.study_uid, seconds(120));
    assert_eq!((entry["patient_name"].as_str(), entry["patient_id"].as_str()), (Some(NAME), Some(ID)), "{entry}");
    eventually(seconds(30), "the study and its destination in the log", || {
        let log = daemon.log()[before..].to_owned();
        if log.contains(&study.study_uid) && log.contains("pacs") { Ok(()) } else { Err(log) }
    });
    let told = daemon.log()[before..].to_owned();
    for secret in [NAME, "Unmistakable", ID, ACCESSION] {
        assert!(!told.contains(secret), "{secret} is in the log:\n{told}");
    }

    // Another level comes in force, and the form stays.
    std::fs::write(&daemon.config, config.replacen("level = \"info\"", "level = \"debug\"", 1)).unwrap();
    assert!(Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status().unwrap().success());
    eventually(seconds(20), "lines of the level debug", || {
        RawAssociation::open(daemon.port).and_then(|mut association| association.echo()).unwrap();
        let log = daemon.log()[before..].to_owned();
        if log.contains("\"level\":\"DEBUG\"") { Ok(()) } else { Err(log) }
    });
    assert!(daemon.terminate(seconds(20)));

    let lines = lines(&daemon.log()[before..]);
    for line in &lines {
        let level = line["level"].as_str().unwrap_or_default();
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&level), "{line}");
        assert!(line["timestamp"].as_str().is_some_and(|at| at.contains('T')), "{line}");
        let fields = &line["fields"];
        // A library may say all that it says in fields of other names, as SQLx does of each statement.
        let of_ours = line["target"].as_str().unwrap().starts_with("ichor");
        assert!(fields["message"].is_string() || !of_ours && fields["summary"].is_string(), "{line}");
    }
    let of_study = |line: &&Value| line["fields"]["study"] == study.study_uid.as_str();
    assert!(lines.iter().any(|line| of_study(&line)), "a field that machines can look for: {lines:#?}");
    assert!(lines.iter().any(|line| line["level"] == "WARN"), "a destination that is not there: {lines:#?}");
}
