//! The documents are held against the program: what they show, list and link to is what there is. The scripts behind these
//! tests lie in `tests/papers` and can be run by themselves.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::daemon::{Daemon, ICHOR, Settings, repository};
use crate::support::tools::{find, python, requires, skipped};

/// What a script exits with that misses a tool.
const MISSING: i32 = 77;

/// Runs one of the scripts with the tests' Python.
fn run(script: &str, arguments: &[&str]) -> Output {
    Command::new(python())
        .arg(repository("tests/papers").join(script))
        .args(arguments)
        .current_dir(repository("."))
        .output()
        .unwrap()
}

/// What it printed.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs one of the scripts, and fails with what it says.
fn paper(script: &str, arguments: &[&str]) {
    let output = run(script, arguments);
    assert!(output.status.success(), "{script}: {}\n{}", output.status, said(&output));
}

/// Whether a tool that a document uses is there; under `ICHOR_REQUIRE_TOOLS=1` it has to be.
fn has(tools: &[&str]) -> bool {
    let Some(missing) = tools.iter().find(|tool| find(tool).is_none()) else { return true };
    assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none_or(|v| v != "1"), "{missing} is not installed");
    skipped(&format!("{missing} is not installed"));
    false
}

/// Runs every command of a document in a fresh folder, and holds what it shows against what comes.
fn follow(document: &str) {
    let document = repository(document);
    let programs = Path::new(ICHOR).parent().unwrap();
    paper("follow.py", &[document.to_str().unwrap(), "--path", programs.to_str().unwrap()]);
}

#[test]
fn the_first_hour_goes_as_it_is_written() {
    requires!(Orthanc);
    if has(&["curl", "jq"]) {
        follow("docs/first-hour.md");
    }
}

#[test]
fn tls_goes_as_it_is_written() {
    requires!(Orthanc, Dcmtk);
    if has(&["curl", "openssl"]) {
        follow("docs/tls.md");
    }
}

/// A document that shows something else than what comes is found out, and so is each of the other faults.
#[test]
fn documents_that_are_wrong_are_found_out() {
    paper("test_papers.py", &[]);
}

/// `ICHOR_WRITE_CONFIGURATION_REFERENCE=1 cargo test -p ichor --test e2e configuration_reference` writes it anew.
#[test]
fn the_configuration_reference_that_is_checked_in_is_this_one() {
    let mut arguments = vec!["--ichor", ICHOR];
    if std::env::var_os("ICHOR_WRITE_CONFIGURATION_REFERENCE").is_some() {
        arguments.push("--write");
    }
    paper("configuration.py", &arguments);
}

/// Links, index, figures of the model card, limits, keys, messages, commands, and what the deployment names.
#[test]
fn documents_agree_with_what_they_speak_of() {
    paper("check.py", &["--ichor", ICHOR]);
}

/// What the tables of the conformance statement list is accepted by a daemon, and nothing else is.
#[test]
fn the_conformance_statement_lists_what_is_negotiated() {
    requires!(Pynetdicom);
    let daemon = Daemon::start(&Settings::default());
    paper("negotiation.py", &["--port", &daemon.port.to_string(), "--calling", "STORESCU"]);
}

/// The systemd unit forbids nothing that the daemon and its decoders need.
#[test]
fn the_daemon_works_behind_the_filter_of_its_unit() {
    requires!(Dcmtk);
    let output = run("unit.py", &["--ichor", ICHOR]);
    if output.status.code() == Some(MISSING) {
        return skipped(said(&output).trim());
    }
    assert!(output.status.success(), "unit.py: {}\n{}", output.status, said(&output));
}
