//! The TLS port of the whole daemon: DCMTK as the scanner, the certificate renewed under way.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use sha2::{Digest, Sha256};

use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::{StoreScu, echo};
use crate::support::scratch::Scratch;
use crate::support::study::Phantom;
use crate::support::tools::requires;
use crate::support::{eventually, free_port, seconds, stays};

const SMALL: Phantom = Phantom { slices: 8, matrix: 128, ..Phantom::BLEEDING };

/// Writes a new certificate and its key where the daemon reads them, and a copy of the certificate for the scanner.
/// Returns its SHA-256 in hexadecimal digits.
fn renew(folder: &Path, copy: &str) -> String {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("ichor.crt"), cert.pem()).unwrap();
    let key = folder.join("ichor.key");
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(folder.join(copy), cert.pem()).unwrap();
    hex::encode(Sha256::digest(cert.der()))
}

fn hang_up(daemon: &Daemon) {
    assert!(Command::new("kill").args(["-HUP", &daemon.pid().to_string()]).status().unwrap().success());
}

/// A scanner that believes this certificate only.
fn trusting(port: u16, certificate: &Path) -> StoreScu {
    StoreScu::to(port).option("+tla").option("-rc").option("+cf").option(certificate.to_str().unwrap())
}

#[test]
fn renewed_certificate_is_taken_up_and_a_broken_one_is_not() {
    requires!(Dcmtk);
    let folder = Scratch::new("certificates");
    let first = renew(folder.path(), "first.crt");
    let tls_port = free_port();
    let sections = format!(
        "[listen.tls]\naddress = \"127.0.0.1:{tls_port}\"\ncertificate_file = {:?}\nkey_file = {:?}\n\
         reload_interval_s = 0.0\n",
        folder.path().join("ichor.crt"),
        folder.path().join("ichor.key"),
    );
    let mut daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    assert!(daemon.log().contains(&first), "{}", daemon.log());
    let study = SMALL.write(&daemon.folder("study"));
    trusting(tls_port, &folder.path().join("first.crt")).send(&study).expect_all(study.instances.len());
    assert_eq!(daemon.find(&study.study_uid).unwrap()["instances"], study.instances.len());

    let second = renew(folder.path(), "second.crt");
    hang_up(&daemon);
    eventually(seconds(10), "the second certificate in the log", || match daemon.log() {
        log if log.contains(&second) => Ok(()),
        log => Err(log),
    });
    trusting(tls_port, &folder.path().join("second.crt")).send(&study).expect_all(study.instances.len());
    let old = trusting(tls_port, &folder.path().join("first.crt")).send(&study);
    assert!(!old.success && old.acknowledged() == 0, "the certificate read first is still shown:\n{}", old.log);

    // A key that is half written: complained of, and the second certificate serves on.
    std::fs::write(folder.path().join("ichor.key"), "-----BEGIN PRIVATE KEY-----\nMIGH").unwrap();
    hang_up(&daemon);
    eventually(seconds(10), "a complaint in the log", || match daemon.log() {
        log if log.contains("stays in force") && log.contains("ichor.key") => Ok(()),
        log => Err(log),
    });
    trusting(tls_port, &folder.path().join("second.crt")).send(&study).expect_all(study.instances.len());
    assert!(echo(daemon.port, "STORESCU") && daemon.is_running());
}

#[test]
fn port_of_the_other_kind_is_told_apart() {
    requires!(Dcmtk);
    let folder = Scratch::new("certificates");
    renew(folder.path(), "first.crt");
    let tls_port = free_port();
    let sections = format!(
        "[listen.tls]\naddress = \"127.0.0.1:{tls_port}\"\ncertificate_file = {:?}\nkey_file = {:?}\n",
        folder.path().join("ichor.crt"),
        folder.path().join("ichor.key"),
    );
    let daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    let study = SMALL.write(&daemon.folder("study"));
    let to_plain = trusting(daemon.port, &folder.path().join("first.crt")).send(&study);
    let to_tls = StoreScu::to(tls_port).send(&study);
    for report in [to_plain, to_tls] {
        assert!(!report.success && report.acknowledged() == 0, "{}", report.log);
    }
    let log = daemon.log();
    assert!(log.contains("TLS"), "{log}");
    assert!(echo(daemon.port, "STORESCU"));
    trusting(tls_port, &folder.path().join("first.crt")).send(&study).expect_all(study.instances.len());
}

#[test]
fn hangup_does_not_end_a_daemon_without_certificates() {
    let mut daemon = Daemon::start(&Settings::default());
    hang_up(&daemon);
    stays(seconds(1), || assert!(daemon.is_running(), "SIGHUP ended the daemon"));
}

#[test]
fn doctor_speaks_tls_with_those_who_are_told() {
    let folder = Scratch::new("certificates");
    renew(folder.path(), "believed.crt");
    let tls_port = free_port();
    let own = |name: &str| folder.path().join(name);
    let sections = format!(
        "[listen.tls]\naddress = \"127.0.0.1:{tls_port}\"\ncertificate_file = {:?}\nkey_file = {:?}\n\n",
        own("ichor.crt"),
        own("ichor.key"),
    );
    let daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    // A certificate of somebody else: written after the daemon has read its own.
    renew(folder.path(), "strange.crt");
    let channel = |name: &str, port: u16, ca: &str| {
        format!(
            "[[channel]]\nname = {name:?}\nkind = \"hl7\"\naddress = \"127.0.0.1:{port}\"\ntls = true\ntls_ca_file = {:?}\n\
             tls_server_name = \"localhost\"\ntimeout_s = 3.0\n\n",
            own(ca)
        )
    };
    let channels = channel("sound", tls_port, "believed.crt")
        + &channel("stranger", tls_port, "strange.crt")
        + &channel("plain", daemon.port, "believed.crt");
    let config = std::fs::read_to_string(&daemon.config).unwrap();
    std::fs::write(&daemon.config, config + "\n" + &channels).unwrap();
    let output = daemon.command(&["doctor", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |name: &str| {
        let subject = format!("channel {name:?}");
        let all = said["outcomes"].as_array().unwrap();
        let one = all.iter().find(|one| one["subject"] == subject).unwrap_or_else(|| panic!("{subject}: {said}"));
        (one["level"].as_str().unwrap().to_owned(), one["found"].as_str().unwrap().to_owned())
    };
    let (level, found) = of("sound");
    assert!(level == "good" && found.contains("its certificate is believed"), "{level}: {found}");
    for name in ["stranger", "plain"] {
        let (level, found) = of(name);
        assert!(level == "failure" && found.contains("TLS"), "{name}: {level}: {found}");
    }
}
