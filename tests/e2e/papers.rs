//! The documents are held against the program: what they show, list and link to is what there is. The scripts behind these
//! tests lie in `tests/papers` and can be run by themselves.

use std::path::Path;
use std::process::Command;

use crate::support::daemon::{Daemon, ICHOR, Settings, repository};
use crate::support::tools::{find, python, requires, skipped};

/// Runs one of the scripts with the repository's own Python, and fails with what it says.
fn paper(script: &str, arguments: &[&str]) {
    let output = Command::new(python())
        .arg(repository("tests/papers").join(script))
        .args(arguments)
        .current_dir(repository("."))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}\n{said}", output.status);
}

/// Every command of the tutorial, in a fresh folder.
#[test]
fn the_first_hour_goes_as_it_is_written() {
    requires!(Orthanc);
    if find("curl").is_none() || find("jq").is_none() {
        assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none_or(|v| v != "1"), "curl or jq is not installed");
        return skipped("curl or jq is not installed");
    }
    let document = repository("docs/first-hour.md");
    let programs = Path::new(ICHOR).parent().unwrap();
    paper("follow.py", &[document.to_str().unwrap(), "--path", programs.to_str().unwrap()]);
}

/// A document that shows something else than what comes is found out.
#[test]
fn a_tutorial_that_is_wrong_is_found_out() {
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

/// Links, index, figures of the model card, limits and ports that documents and deployment name.
#[test]
fn documents_agree_with_what_they_speak_of() {
    paper("check.py", &["--ichor", ICHOR]);
}

/// The tables of the conformance statement, asked of a daemon: what they list is accepted, and nothing else is.
#[test]
fn the_conformance_statement_lists_what_is_negotiated() {
    requires!(Pynetdicom);
    let daemon = Daemon::start(&Settings::default());
    paper("negotiation.py", &["--port", &daemon.port.to_string(), "--calling", "STORESCU"]);
}
