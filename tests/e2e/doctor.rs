//! What the doctor asks of services that speak HTTP: credentials, paths, certificates, and how long these last; and what it and
//! the daemon say of a destination that is the daemon itself.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::support::daemon::{Daemon, ICHOR, Settings, WEB_TOKEN};
use crate::support::fhir::{Answer, Server};
use crate::support::scratch::Scratch;
use crate::support::{free_port, seconds};

/// A file with this mode.
fn file(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// A certificate of `localhost` that ends in so many days, and its key.
fn certificate(folder: &Path, name: &str, days: i64) -> (PathBuf, PathBuf) {
    let mut parameters = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
    let key = rcgen::KeyPair::generate().unwrap();
    let made = parameters.self_signed(&key).unwrap();
    (
        file(folder, &format!("{name}.crt"), &made.pem(), 0o644),
        file(folder, &format!("{name}.key"), &key.serialize_pem(), 0o600),
    )
}

/// Level and words of the outcome with this subject.
fn of(outcomes: &Value, subject: &str) -> (String, String) {
    let all = outcomes.as_array().unwrap();
    let one = all.iter().find(|one| one["subject"] == subject).unwrap_or_else(|| panic!("{subject}: {outcomes:#}"));
    (one["level"].as_str().unwrap().to_owned(), one["found"].as_str().unwrap().to_owned())
}

/// What the doctor says of the daemon's configuration with further sections.
fn examined(daemon: &Daemon, sections: &str) -> Value {
    let config = std::fs::read_to_string(&daemon.config).unwrap();
    std::fs::write(&daemon.config, format!("{config}\n{sections}")).unwrap();
    let output = daemon.command(&["doctor", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    said["outcomes"].clone()
}

/// A daemon whose pages are behind a certificate that soon ends: to others a service that speaks TLS.
fn behind(port: u16, (certificate, key): &(PathBuf, PathBuf)) -> Settings {
    let address = format!("[admin]\naddress = \"127.0.0.1:{port}\"\n");
    let sections = format!("{address}tls_certificate_file = {certificate:?}\ntls_key_file = {key:?}\n\n");
    Settings { sections, ..Settings::default() }
}

#[test]
fn a_wrong_token_path_or_certificate_of_a_stow_destination_is_found() {
    let (scratch, tls_port) = (Scratch::new("doctor"), free_port());
    let folder = scratch.path();
    let (ours, strange) = (certificate(folder, "ours", 10), certificate(folder, "strange", 90));
    let peer = Daemon::start(&Settings { stow: true, ..Settings::default() });
    let daemon = Daemon::start(&behind(tls_port, &ours));
    let log = daemon.log();
    assert!(log.contains("this certificate expires soon") && log.contains("[admin]"), "{log}");

    let (token, wrong) =
        (file(folder, "token", WEB_TOKEN, 0o600), file(folder, "wrong", "another token altogether", 0o600));
    let open = file(folder, "open.key", &std::fs::read_to_string(&ours.1).unwrap(), 0o644);
    let (web, tls) = (peer.web_url(), format!("https://localhost:{tls_port}/dicom-web"));
    let destination = |name: &str, url: &str, keys: String| {
        format!("[[destination]]\nname = {name:?}\nkind = \"stow-rs\"\nurl = {url:?}\ntimeout_s = 3.0\n{keys}\n\n")
    };
    let bearer = |file: &PathBuf| format!("bearer_token_file = {file:?}");
    let trusting = |file: &PathBuf| format!("tls_ca_file = {file:?}");
    let shown = format!("{}\ntls_certificate_file = {:?}\ntls_key_file = {open:?}", trusting(&ours.0), ours.0);
    let sections = [
        destination("sound", &web, bearer(&token)),
        destination("token", &web, bearer(&wrong)),
        destination("path", &format!("{web}/nowhere"), bearer(&token)),
        destination("page", &tls, trusting(&ours.0)),
        destination("stranger", &tls, trusting(&strange.0)),
        destination("clear", &web.replace("http://", "https://"), trusting(&ours.0)),
        destination("open", &tls, shown),
    ];
    let outcomes = examined(&daemon, &sections.concat());
    let (level, found) = of(&outcomes, "destination \"sound\"");
    assert!(level == "good" && found.contains("answers a search"), "{level}: {found}");
    for (name, words) in [
        ("token", "401"),
        ("path", "404"),
        ("page", "HTTP status"),
        ("stranger", "certificate"),
        ("clear", "no connection"),
        ("open", "anybody may read it"),
    ] {
        let (level, found) = of(&outcomes, &format!("destination {name:?}"));
        assert!(level == "failure" && found.contains(words), "{name}: {level}: {found}");
        assert!(!found.contains("altogether"), "{found}");
    }
    let (level, found) = of(&outcomes, "certificate of [admin]");
    assert!(level == "warning" && found.contains("9 days left"), "{level}: {found}");
}

#[test]
fn what_cannot_be_told_is_found_and_nothing_is_told() {
    let (scratch, tls_port) = (Scratch::new("doctor"), free_port());
    let folder = scratch.path();
    let (ours, strange) = (certificate(folder, "ours", 90), certificate(folder, "strange", 90));
    let daemon = Daemon::start(&behind(tls_port, &ours));
    let token = file(folder, "token", "first\n", 0o600);
    let secret = file(folder, "secret", "a secret of at least twenty-four bytes\n", 0o600);
    let servers = [
        ("sound", Server::start(&[]), "good", "FHIR 4.0.1"),
        ("locked", Server::start(&[Answer::Status(401)]), "failure", "HTTP 401"),
        ("elsewhere", Server::start(&[Answer::Status(404)]), "failure", "HTTP 404"),
        ("page", Server::start(&[Answer::Page]), "failure", "no CapabilityStatement"),
    ];
    let mut sections = String::new();
    for (name, server, _, _) in &servers {
        let url = format!("http://127.0.0.1:{}/fhir", server.port);
        sections += &format!(
            "[[channel]]\nname = {name:?}\nkind = \"fhir\"\nurl = {url:?}\npatient_system = \"urn:oid:1.2.3.4\"\n\
             timeout_s = 3.0\nbearer_token_file = {token:?}\n\n"
        );
    }
    for (name, trusted) in [("hook", &ours.0), ("stranger", &strange.0)] {
        sections += &format!(
            "[[channel]]\nname = {name:?}\nkind = \"webhook\"\nurl = \"https://localhost:{tls_port}/hook\"\n\
             timeout_s = 3.0\nsecret_file = {secret:?}\ntls_ca_file = {trusted:?}\n\n"
        );
    }
    let outcomes = examined(&daemon, &sections);
    for (name, server, wanted, words) in &servers {
        let (level, found) = of(&outcomes, &format!("channel {name:?}"));
        assert!(level == *wanted && found.contains(words) && !found.contains("Doe"), "{name}: {level}: {found}");
        assert_eq!(server.tokens(), ["Bearer first"], "{name}");
        assert!(server.transactions().is_empty(), "{name}");
    }
    let (level, found) = of(&outcomes, "channel \"hook\"");
    assert!(level == "good" && found.contains("its certificate is believed"), "{level}: {found}");
    let (level, found) = of(&outcomes, "channel \"stranger\"");
    assert!(level == "failure" && found.contains("TLS"), "{level}: {found}");
    assert_eq!(of(&outcomes, "certificate of [admin]").0, "good");
}

/// What a daemon says that does not start.
fn refusal(daemon: &Daemon) -> String {
    let mut child = Command::new(ICHOR)
        .args(["serve", "--config"])
        .arg(&daemon.config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > seconds(60) => {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            None => std::thread::sleep(seconds(1) / 20),
        }
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

#[test]
fn a_destination_that_is_the_daemon_itself_is_refused() {
    let mut daemon = Daemon::start(&Settings { stow: true, ..Settings::default() });
    let config = std::fs::read_to_string(&daemon.config).unwrap();
    let c_store =
        |host: &str| format!("kind = \"c-store\"\nae_title = \"ICHOR\"\naddress = \"{host}:{}\"", daemon.port);
    let stow = format!("kind = \"stow-rs\"\nurl = \"{}\"", daemon.web_url());
    let mirrors = [c_store("127.0.0.1"), c_store("localhost"), stow]
        .map(|keys| format!("{config}\n[[destination]]\nname = \"mirror\"\n{keys}\n"));
    let words = "is where this daemon listens itself";
    for mirror in &mirrors {
        std::fs::write(&daemon.config, mirror).unwrap();
        let (level, found) = of(&examined(&daemon, ""), "destination \"mirror\"");
        assert!(level == "failure" && found.contains(words), "{level}: {found}");
    }
    assert!(daemon.terminate(seconds(20)));
    for mirror in &mirrors {
        std::fs::write(&daemon.config, mirror).unwrap();
        let said = refusal(&daemon);
        assert!(said.contains("mirror") && said.contains(words), "{said}");
    }
    // The same file without it is sound.
    std::fs::write(&daemon.config, &config).unwrap();
    daemon.start_again();
}
