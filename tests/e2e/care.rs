//! The care of the machine: a doctor who is right, backups that are stores again, and a supervisor that is told.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use dicom_dictionary_std::tags;
use serde_json::Value;

use crate::support::daemon::{Daemon, Destination, ICHOR, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::orthanc::Orthanc;
use crate::support::part10;
use crate::support::scratch::Scratch;
use crate::support::study::{Phantom, Study};
use crate::support::tools::requires;
use crate::support::{free_port, seconds};

/// What `ichor doctor` says, and whether it is content.
fn doctor(daemon: &Daemon) -> (bool, Vec<Value>) {
    let output = daemon.command(&["doctor", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.success(), said["outcomes"].as_array().unwrap().clone())
}

/// The outcome whose subject begins with this: level, what was found, how to mend it.
fn outcome<'a>(outcomes: &'a [Value], subject: &str) -> (&'a str, &'a str, &'a str) {
    let found = outcomes.iter().find(|outcome| outcome["subject"].as_str().unwrap().starts_with(subject));
    let found = found.unwrap_or_else(|| panic!("nothing of {subject}: {outcomes:#?}"));
    (found["level"].as_str().unwrap(), found["found"].as_str().unwrap(), found["mend"].as_str().unwrap_or_default())
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn doctor_finds_a_healthy_site_healthy() {
    requires!(Orthanc);
    let orthanc = Orthanc::start();
    let sections = format!("[admin]\naddress = \"127.0.0.1:{}\"\n", free_port());
    let destinations = Settings::to([Destination::c_store(&orthanc), Destination::stow_rs(&orthanc)]);
    let daemon = Daemon::start(&Settings { stow: true, sections, ..destinations });
    let (content, outcomes) = doctor(&daemon);
    assert!(content, "{outcomes:#?}");
    for subject in ["STOW-RS port", "port of health and metrics"] {
        let (level, found, _) = outcome(&outcomes, subject);
        assert!(level == "good" && found.contains("by ichor-torch itself"), "{subject}: {level}, {found}");
    }
    let (level, found, _) = outcome(&outcomes, "DICOM port");
    assert!(level == "good" && found.contains("DICOM peer"), "{found}");
    let (level, found, _) = outcome(&outcomes, "destination \"pacs\"");
    assert!(level == "good" && found.contains("answers C-ECHO"), "{found}");
    assert_eq!(outcome(&outcomes, "destination \"web\"").0, "good");
    let (level, found, _) = outcome(&outcomes, "model");
    assert!(level == "good" && found.contains("ichor-demo"), "{found}");
    assert_eq!(outcome(&outcomes, "decoder").0, "good");
    assert!(outcome(&outcomes, "database").1.starts_with("has schema"));
}

#[test]
fn doctor_names_each_thing_that_is_wrong_and_how_to_mend_it() {
    let (gone, silent) = (free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let silent_port = silent.local_addr().unwrap().port();
    let sections = format!(
        "[[channel]]\nname = \"ris\"\nkind = \"hl7\"\naddress = \"127.0.0.1:{gone}\"\n\
         [[channel]]\nname = \"chat\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{silent_port}/hook\"\n\
         secret_file = \"chat.secret\"\n"
    );
    let destination = Destination::CStore { name: "pacs", port: gone, timeout_s: 2.0 };
    let mut daemon = Daemon::start(&Settings { min_free_mib: 1, ..Settings::to([destination]) });
    assert!(daemon.terminate(seconds(20)));
    // The daemon is gone; then somebody else has its port, anybody may read a secret, and its files are not what they were.
    let stranger = TcpListener::bind(("127.0.0.1", daemon.port)).unwrap();
    let folder = daemon.config.parent().unwrap();
    let secret = folder.join("chat.secret");
    std::fs::write(&secret, "whsec_bm90aGluZyB0aGF0IGFueWJvZHkgbWF5IGtub3c=\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(folder.join("no.safetensors"), "no weights").unwrap();
    let config = std::fs::read_to_string(&daemon.config).unwrap();
    let weights = config.lines().find(|line| line.starts_with("weights = ")).unwrap().to_owned();
    let config = config
        .replace(&weights, "weights = \"no.safetensors\"")
        .replace("min_free_mib = 1\n", "min_free_mib = 900000000000\n");
    std::fs::write(&daemon.config, config + &sections).unwrap();
    std::fs::write(daemon.database(), "a letter").unwrap();
    let (content, outcomes) = doctor(&daemon);
    assert!(!content);
    for (subject, found_part, mend_part) in [
        ("database", "is not a database of this program", "store.database"),
        ("free space", "0xA700", "make room"),
        ("DICOM port", "no DICOM peer", "ss -ltnp"),
        ("secret of channel \"chat\"", "anybody may read it", "readable by ichor's user alone"),
        ("model", "no.manifest.json", "belong together"),
        ("destination \"pacs\"", "no connection", "firewall"),
        ("channel \"ris\"", "refused", "firewall"),
    ] {
        let (level, found, mend) = outcome(&outcomes, subject);
        assert!(
            level == "failure" && found.contains(found_part) && mend.contains(mend_part),
            "{subject}: {found}; {mend}"
        );
    }
    assert_eq!(outcome(&outcomes, "channel \"chat\"").0, "good");
    assert_eq!(std::fs::read(daemon.database()).unwrap(), b"a letter", "nothing is touched");
    drop((stranger, silent));
}

#[test]
fn a_backup_of_a_running_daemon_becomes_another_daemon() {
    requires!(Dcmtk);
    let daemon = Daemon::start(&Settings::default());
    let study = Phantom::BLEEDING.slices(8).matrix(128).write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    daemon.wait_for_end(&study.study_uid, seconds(120));
    let backup = daemon.folder("backup");
    let output = daemon.command(&["backup", "--to", backup.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));

    let mut other = Daemon::start(&Settings::default());
    let refused = other.command(&["restore", "--from", backup.to_str().unwrap()]);
    assert!(!refused.status.success() && text(&refused).contains("is there already"), "{}", text(&refused));
    assert!(other.list().is_empty());
    assert!(other.terminate(seconds(20)));
    for part in ["ichor.db", "ichor.db-wal", "ichor.db-shm"] {
        let _absent_is_fine = std::fs::remove_file(other.config.with_file_name(part));
    }
    let output = other.command(&["restore", "--from", backup.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    other.start_again();
    let (was, is) = (daemon.show(&study.study_uid), other.show(&study.study_uid));
    assert_eq!(was["series"], is["series"]);
    assert_eq!(was["status"], is["status"]);
    assert_eq!(daemon.stored_data_sets(), other.stored_data_sets());
    a_forgotten_bit_is_found(&daemon, &study, &backup);
}

/// Files as they are received, with a header that is not in the digest, and as they are made.
fn a_forgotten_bit_is_found(daemon: &Daemon, study: &Study, backup: &Path) {
    for arguments in [vec!["verify", "--rate", "0"], vec!["verify", "--backup", backup.to_str().unwrap()]] {
        let sound = daemon.command(&arguments);
        assert!(sound.status.success() && text(&sound).contains("files are sound"), "{}", text(&sound));
    }
    let received = part10::part10_files_below(&daemon.blobs);
    let file = received.iter().find(|path| part10::text(&part10::header(path), tags::MODALITY) == "CT").unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(file, bytes).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let again = daemon.folder("another-backup");
    for arguments in [vec!["verify"], vec!["backup", "--to", again.to_str().unwrap()]] {
        let found = daemon.command(&arguments);
        let words = text(&found);
        assert!(!found.status.success(), "{words}");
        assert!(words.contains(&study.study_uid) && words.contains(name) && words.contains("is damaged"), "{words}");
    }
    let all = std::fs::read_dir(&again).unwrap().count();
    assert_eq!(all, 2, "database and files of the rest");
    let damaged = daemon.command(&["verify", "--backup", again.to_str().unwrap()]);
    assert!(text(&damaged).contains("No such file"), "what is damaged was not copied: {}", text(&damaged));
}

#[test]
fn the_supervisor_is_told() {
    let mut daemon = Daemon::start(&Settings::default());
    daemon.kill();
    let socket = daemon.folder("notify").join("socket");
    let supervisor = UnixDatagram::bind(&socket).unwrap();
    supervisor.set_read_timeout(Some(seconds(60))).unwrap();
    let mut child = Command::new(ICHOR)
        .args(["serve", "--config"])
        .arg(&daemon.config)
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "600000")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut heard = Vec::new();
    let hear = || {
        let mut buffer = [0; 4096];
        let length = supervisor.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    while heard.iter().filter(|said: &&String| said.contains("WATCHDOG=1")).count() < 3 {
        heard.push(hear());
    }
    assert!(heard[0].contains("READY=1"), "{heard:?}");
    terminate(child.id());
    let stopping = std::iter::from_fn(|| Some(hear())).take(100).any(|said| said.contains("STOPPING=1"));
    assert!(stopping);
    assert!(child.wait().unwrap().success());
}

fn terminate(pid: u32) {
    assert!(Command::new("kill").arg("-TERM").arg(pid.to_string()).status().unwrap().success());
}

#[test]
fn tokens_of_a_backup_are_spoken_of_or_revoked() {
    let scratch = Scratch::new("tokens");
    let backup = scratch.path().join("backup");
    let mut daemon = Daemon::start(&Settings::default());
    let insert = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); \
                  db.execute(\"INSERT INTO admin_user (id, name, role, created_at) VALUES (1, 'anna', 'admin', 0)\"); \
                  db.execute(\"INSERT INTO admin_token (hash, user_id, label, created_at) VALUES (x'00', 1, 'x', 0)\"); \
                  db.commit()";
    let inserted = Command::new("python3").args(["-c", insert]).arg(daemon.database()).output().unwrap();
    assert!(inserted.status.success(), "{}", text(&inserted));
    assert!(daemon.command(&["backup", "--to", backup.to_str().unwrap()]).status.success());
    assert!(daemon.terminate(seconds(20)));
    for (arguments, words) in
        [(&[][..], "1 API tokens are valid as they were"), (&["--revoke-tokens"], "1 API tokens are revoked")]
    {
        for part in ["ichor.db", "ichor.db-wal", "ichor.db-shm"] {
            let _absent_is_fine = std::fs::remove_file(daemon.config.with_file_name(part));
        }
        let output = daemon.command(&[&["restore", "--from", backup.to_str().unwrap()][..], arguments].concat());
        assert!(output.status.success() && text(&output).contains(words), "{}", text(&output));
    }
}
