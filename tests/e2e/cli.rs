//! The command line and the configuration file.

use std::process::{Command, Output, Stdio};

use crate::support::daemon::{Daemon, ICHOR, Settings, repository};
use crate::support::raw::RawAssociation;
use crate::support::scratch::Scratch;
use crate::support::study::{Phantom, Study};
use crate::support::{free_port, part10, seconds};

fn ichor(arguments: &[&str]) -> Output {
    Command::new(ICHOR).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks a configuration that is the documented one with a change.
fn check_changed(change: impl Fn(String) -> String) -> Output {
    let scratch = Scratch::new("config");
    let original = std::fs::read_to_string(repository("deploy/ichor.toml")).unwrap();
    let file = scratch.path().join("ichor.toml");
    let changed = change(original.clone());
    assert_ne!(changed, original, "nothing was changed");
    std::fs::write(&file, changed).unwrap();
    ichor(&["config", "check", file.to_str().unwrap()])
}

#[test]
fn documented_configuration_is_valid() {
    let output = ichor(&["config", "check", repository("deploy/ichor.toml").to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn unknown_key_is_refused_with_its_line() {
    let original = std::fs::read_to_string(repository("deploy/ichor.toml")).unwrap();
    let line = 1 + original.lines().position(|line| line.starts_with("max_associations")).unwrap();
    let output = check_changed(|text| text.replacen("max_associations =", "max_asociations =", 1));
    let error = text(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("max_asociations") && error.contains(&format!("line {line}")), "{error}");
    // A table too, though what is missing for it is elsewhere; and a value that cannot work.
    for (from, to, named) in
        [("\n[dicomweb]\n", "\n[dicomwebx]\n", "`dicomwebx`"), ("max_pdu = 131072", "max_pdu = 100", "listen.max_pdu")]
    {
        let line = 1 + original.lines().position(|line| line == from.trim()).unwrap();
        let error = text(&check_changed(|text| text.replacen(from, to, 1)).stderr);
        assert!(error.contains(named) && error.contains(&format!("line {line}:")), "{line}: {error}");
    }
}

#[test]
fn values_that_cannot_work_are_refused_by_name() {
    for (from, to, named) in [
        ("max_pdu = 131072", "max_pdu = 100", "max_pdu"),
        ("max_associations = 64", "max_associations = 0", "max_associations"),
        ("time_zone = \"UTC\"", "time_zone = \"Europe/Bonn\"", "\"Europe/Bonn\" is no time zone"),
        ("quiet_period_s = 10.0", "quiet_period_s = -1.0", "quiet_period_s"),
        ("\"10.0.0.0/8\"", "\"10.0.0.0/80\"", "networks"),
        ("device = \"auto\"", "device = \"quantum\"", "device"),
        ("precision = \"f32\"", "precision = \"f8\"", "precision"),
        ("kind = \"stow-rs\"", "kind = \"fax\"", "kind"),
        ("ae_title = \"ICHOR\"", "ae_title = \"FAR_TOO_LONG_A_TITLE\"", "ae_title"),
        ("name = \"vna\"", "name = \"pacs\"", "name"),
        ("objects = [\"segmentation\", ", "objects = [\"telegram\", ", "telegram"),
        ("opacity_percent = 25", "opacity_percent = 101", "opacity_percent"),
        ("max_queue = 1000", "max_queue = 0", "shadow.max_queue"),
        (
            "# [[model.also]]\n# As those of [model].\n# weights = \"../models/next/next.safetensors\"",
            "[[model.also]]\nweights = \"../models/demo/demo.safetensors\"",
            "stands twice",
        ),
        ("\"explicit-little-endian\"", "\"rle\"", "segmentation.transfer_syntax"),
        (
            "objects = [\"segmentation\", \"report\", \"key-objects\", \"capture\", \"presentation-state\"]",
            "objects = []",
            "[[forward]]",
        ),
    ] {
        let output = check_changed(|text| text.replacen(from, to, 1));
        let error = text(&output.stderr);
        assert!(!output.status.success(), "{to} was taken");
        assert!(error.contains(named), "{to}: {error}");
    }
}

/// `| head` is no error, and no backtrace.
#[test]
fn output_that_nobody_reads_ends_quietly() {
    let mut command = Command::new(ICHOR);
    let mut child =
        command.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(text(&child.wait_with_output().unwrap().stderr), "");
}

#[test]
fn every_command_explains_itself() {
    let commands: [&[&str]; 35] = [
        &[],
        &["serve"],
        &["demo"],
        &["send"],
        &["echo"],
        &["studies"],
        &["studies", "list"],
        &["studies", "show"],
        &["studies", "why"],
        &["studies", "retry"],
        &["studies", "hold"],
        &["studies", "release-hold"],
        &["retention", "plan"],
        &["route", "test"],
        &["deliveries"],
        &["deliveries", "list"],
        &["deliveries", "destinations"],
        &["deliveries", "retry"],
        &["phantom"],
        &["model", "info"],
        &["model", "verify"],
        &["model", "list"],
        &["model", "activate"],
        &["model", "rollback"],
        &["model", "agreement"],
        &["studies", "reanalyse"],
        &["config", "check"],
        &["train"],
        &["evaluate"],
        &["explain"],
        &["doctor"],
        &["backup"],
        &["restore"],
        &["completions"],
        &["man"],
    ];
    for command in commands {
        let output = ichor(&[command, &["--help"]].concat());
        let help = text(&output.stdout);
        assert!(output.status.success(), "{command:?}");
        assert!(help.contains("Usage: ichor") && help.len() > 150, "{command:?}: {help}");
    }
    assert!(!ichor(&["no-such-command"]).status.success());
}

#[test]
fn binary_finds_libtorch_without_environment() {
    let output = Command::new(ICHOR).args(["model", "info"]).env_clear().output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout).to_lowercase();
    assert!(shown.contains("synthetic") && shown.contains("demonstration"), "{shown}");
}

#[test]
fn shipped_weights_pass_their_own_check() {
    let output = ichor(&["model", "verify"]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn serve_without_a_usable_configuration_fails() {
    let output = ichor(&["serve", "--config", "/nonexistent/ichor.toml"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("/nonexistent/ichor.toml"));
}

#[test]
fn same_seed_gives_the_same_study() {
    let scratch = Scratch::new("phantom");
    let phantom = Phantom::BLEEDING.slices(6).matrix(128);
    let [a, b] = ["a", "b"].map(|name| phantom.write(&scratch.folder(name)));
    let other = phantom.seed(phantom.seed + 1).write(&scratch.folder("other"));
    let bytes = |study: &Study| -> Vec<Vec<u8>> { study.paths().iter().map(|p| part10::data_set(p)).collect() };
    assert!(bytes(&a) == bytes(&b), "the same seed gave other bytes");
    assert_ne!(a.study_uid, other.study_uid);
}

#[test]
fn echo_send_and_the_queries() {
    let daemon = Daemon::start(&Settings { quiet_period_s: 0.5, ..Settings::default() });
    let peer = format!("ICHOR@127.0.0.1:{}", daemon.port);
    assert!(ichor(&["echo", &peer, "--from", "STORESCU"]).status.success());
    assert!(!ichor(&["echo", &peer, "--from", "STRANGER"]).status.success());
    assert!(!ichor(&["echo", &format!("ICHOR@127.0.0.1:{}", free_port())]).status.success());

    let study = Phantom::BLEEDING.slices(6).matrix(128).write(&daemon.folder("study"));
    let folder = study.folder.to_str().unwrap();
    let sent = ichor(&["send", "--to", &peer, "--from", "STORESCU", folder]);
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    let entry = daemon.wait_for_status(&study.study_uid, "analysed", seconds(30));

    let header = part10::header(&study.instances[0].path);
    let patient = part10::text(&header, dicom_dictionary_std::tags::PATIENT_ID);
    let accession = part10::text(&header, dicom_dictionary_std::tags::ACCESSION_NUMBER);
    let count = |arguments: &[&str]| {
        let output = daemon.studies(&[&["list"], arguments, &["--json"]].concat());
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        list.as_array().unwrap().len()
    };
    let positive = format!("--positive={}", entry["positive"]);
    let negative = format!("--positive={}", !entry["positive"].as_bool().unwrap());
    for (filter, wanted) in [
        (&["--patient", patient.as_str()][..], 1),
        (&["--patient", "nobody"], 0),
        (&["--accession", accession.as_str()], 1),
        (&["--accession", "none"], 0),
        (&["--status", "analysed"], 1),
        (&["--status", "failed"], 0),
        (&["--source", "STORESCU"], 1),
        (&[positive.as_str()], 1),
        (&[negative.as_str()], 0),
    ] {
        assert_eq!(count(filter), wanted, "{filter:?}");
    }
    let unknown = daemon.studies(&["list", "--source", "STRANGER"]);
    assert!(!unknown.status.success() && text(&unknown.stderr).contains("STRANGER"), "{}", text(&unknown.stderr));
    // By the accession number, and by the beginning of the UID.
    for name in [accession.as_str(), &study.study_uid[..study.study_uid.len() - 4]] {
        assert!(daemon.why(name).contains("STORESCU"), "{name}");
    }
    assert!(!daemon.studies(&["why", "1.2.3.4.5"]).status.success(), "a story of an unknown study");
    assert!(daemon.show(&study.study_uid).is_object());
}

#[test]
fn send_fails_when_one_instance_is_refused() {
    let daemon = Daemon::start(&Settings::default());
    let peer = format!("ICHOR@127.0.0.1:{}", daemon.port);
    let study = Phantom::BLEEDING.slices(5).matrix(128).write(&daemon.folder("study"));
    let broken = study.edited(&daemon.folder("broken"), |index, object| {
        if index == 2 {
            object.remove_element(dicom_dictionary_std::tags::SERIES_INSTANCE_UID);
        }
    });
    let sent = ichor(&["send", "--to", &peer, "--from", "STORESCU", broken.folder.to_str().unwrap()]);
    assert!(!sent.status.success());
    assert!(RawAssociation::open(daemon.port).unwrap().echo().is_ok());
}

#[test]
fn a_slip_of_the_pen_is_not_an_empty_list() {
    let daemon = Daemon::start(&Settings::default());
    let listed = |arguments: &[&str]| {
        let output = daemon.studies(&[&["list"], arguments].concat());
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    let (success, words) = listed(&["--source", "STORESCUE"]);
    assert!(!success && words.contains("there is no source \"STORESCUE\"; known: STORESCU"), "{words}");
    let (success, words) = listed(&["--source", "STORESCU"]);
    assert!(success && words.contains("no study matches"), "{words}");
    let (success, words) = listed(&["--reason", "nohead"]);
    assert!(
        success && words.contains("no study has the reason \"nohead\"") && words.contains("there is none"),
        "{words}"
    );
    let (success, words) = listed(&["--from", "2026-03-01", "--to", "2026-02-28"]);
    assert!(!success && words.contains("ends before it begins"), "{words}");
    let output = daemon.command(&["deliveries", "list", "--destination", "pcs"]);
    assert!(!output.status.success() && text(&output.stderr).contains("there is no destination \"pcs\""), "{output:?}");
}
