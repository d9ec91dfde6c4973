//! Audit messages: rsyslog as the repository, behind TLS, and the schema of PS3.15 as the judge.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::daemon::{Daemon, Settings, repository};
use crate::support::raw::RawAssociation;
use crate::support::scratch::Scratch;
use crate::support::stow;
use crate::support::study::Phantom;
use crate::support::tools::{find, requires};
use crate::support::{eventually, free_port, seconds};

/// rsyslog, which writes what it hears into a file, one line a message.
struct Rsyslog {
    folder: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Rsyslog {
    fn new(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("arr.crt"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("arr.key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(folder.join("arr.key"), PermissionsExt::from_mode(0o600)).unwrap();
        let port = free_port();
        let at = |name: &str| folder.join(name).display().to_string();
        let configuration = format!(
            "global(workDirectory=\"{}\" maxMessageSize=\"64k\" DefaultNetstreamDriver=\"gtls\"\n\
             DefaultNetstreamDriverCAFile=\"{}\" DefaultNetstreamDriverCertFile=\"{}\" DefaultNetstreamDriverKeyFile=\"{}\")\n\
             module(load=\"imtcp\" StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\")\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
             template(name=\"all\" type=\"string\" string=\"%pri%|%app-name%|%msgid%|%procid%|%hostname%|%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{}\" template=\"all\")\n",
            folder.display(),
            at("arr.crt"),
            at("arr.crt"),
            at("arr.key"),
            at("heard"),
        );
        std::fs::write(folder.join("rsyslog.conf"), configuration).unwrap();
        Self { folder: folder.to_owned(), port, child: None }
    }

    fn start(&mut self) {
        let mut command = Command::new(find("rsyslogd").unwrap());
        command.arg("-n").arg("-f").arg(self.folder.join("rsyslog.conf")).arg("-i").arg(self.folder.join("pid"));
        let log = std::fs::File::create(self.folder.join("log")).unwrap();
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let port = self.port;
        eventually(seconds(20), "rsyslog listens", || {
            TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        });
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Header and document of each message.
    fn heard(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.folder.join("heard")).unwrap_or_default();
        let line = |line: &str| {
            let (header, message) =
                line.split_once("|\u{feff}").unwrap_or_else(|| panic!("no byte order mark: {line}"));
            (header.to_owned(), message.to_owned())
        };
        text.lines().filter(|line| !line.contains("|rsyslogd|")).map(line).collect()
    }

    fn wait_for(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        eventually(seconds(40), what, || {
            let heard = self.heard();
            let found = heard.iter().find(|(_, message)| fits(message)).map(|(_, message)| message.clone());
            found.ok_or_else(|| format!("{} messages, not this one", heard.len()))
        })
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A message of this kind, about this.
fn is(code: &'static str, about: &'static str) -> impl Fn(&str) -> bool {
    move |message| message.contains(&format!("<EventID csd-code=\"{code}\"")) && message.contains(about)
}

#[test]
fn repository_hears_who_did_what_with_whose_study() {
    requires!(Rsyslog, Xmllint);
    let scratch = Scratch::new("audit");
    let mut arr = Rsyslog::new(scratch.path());
    arr.start();
    let admin = free_port();
    let sections = format!(
        "[admin]\naddress = \"127.0.0.1:{admin}\"\n[audit]\naddress = \"localhost:{}\"\ntls_ca_file = {:?}\n\
         source_id = \"ichor-1\"\nsite = \"Ward <3>\"\ntimeout_s = 2.0\nmax_backoff_s = 1.0\n",
        arr.port,
        scratch.path().join("arr.crt"),
    );
    let mut daemon = Daemon::start(&Settings { sections, stow: true, ..Settings::default() });
    arr.wait_for("the start", is("110100", "csd-code=\"110120\""));

    // Somebody who is not let in, a study that comes, a search, a view, and a wrong password.
    assert!(RawAssociation::propose(daemon.port, "STRANGER", &[]).is_err());
    let study = Phantom::BLEEDING.slices(12).matrix(128).write(&daemon.folder("study"));
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in &study.instances {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    association.release().unwrap();
    let (status, ..) = stow::get(&daemon, "studies?PatientName=O'Brien*%26%3Cx%3E", "application/dicom+json");
    assert!(matches!(status, 200 | 204), "{status}");
    let path = format!("studies/{}/metadata", study.study_uid);
    assert_eq!(stow::get(&daemon, &path, "application/dicom+json").0, 200);
    assert!(guess(admin).starts_with("HTTP/1.1 401"));
    arr.wait_for("the wrong password", is("110114", "EventOutcomeIndicator=\"4\""));
    arr.wait_for("the stranger", is("110113", "STRANGER"));
    let received = arr.wait_for("the study", is("110104", "STORESCU"));
    let summary = daemon.find(&study.study_uid).unwrap();
    assert!(received.contains(&study.study_uid) && received.contains("NumberOfInstances=\"12\""), "{received}");
    assert!(received.contains(summary["patient_name"].as_str().unwrap()), "{received}");
    arr.wait_for("the search", is("110112", "dicomweb:"));
    arr.wait_for("the view", is("110104", "dicomweb:"));

    // Away for a while: what happens meanwhile is told afterwards.
    arr.stop();
    assert_eq!(stow::get(&daemon, "series?Modality=CT", "application/dicom+json").0, 200);
    daemon.wait_for_end(&study.study_uid, seconds(60));
    eventually(seconds(20), "a failure", || {
        let metrics = String::from_utf8(crate::support::http::get(admin, "/metrics").unwrap()).unwrap();
        let failing = metrics.lines().any(|line| line == "ichor_audit_failing 1");
        if failing { Ok(()) } else { Err(metrics) }
    });
    arr.start();
    arr.wait_for("what happened meanwhile", is("110112", "series-searched"));
    assert!(daemon.terminate(seconds(20)));
    arr.wait_for("the stop", is("110100", "csd-code=\"110121\""));

    let heard = arr.heard();
    for (header, _) in &heard {
        let fields: Vec<&str> = header.split('|').collect();
        assert!(matches!(fields[0], "85" | "84") && fields[1..3] == ["ichor", "DICOM+RFC3881"], "{header}");
        assert_eq!(fields[3], daemon_pid(&heard), "{header}");
    }
    let files: Vec<PathBuf> = (0..heard.len()).map(|number| scratch.path().join(format!("{number}.xml"))).collect();
    for (file, (_, message)) in files.iter().zip(&heard) {
        std::fs::write(file, message).unwrap();
    }
    let schema = repository("tests/judges/dicom-audit-message.rng");
    let judged = Command::new("xmllint").args(["--noout", "--relaxng"]).arg(schema).args(&files).output().unwrap();
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
    assert!(heard.iter().all(|(_, message)| message.contains("AuditEnterpriseSiteID=\"Ward &lt;3&gt;\"")));

    // All there, none of it in the daemon's log.
    let name = summary["patient_name"].as_str().unwrap();
    assert!(!daemon.log().contains(name), "names of patients stay out of the log");
}

/// A login with a wrong password.
fn guess(port: u16) -> String {
    let form = "name=eve&password=guess";
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    write!(
        stream,
        "POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
        form.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The process that sent the first of them: all of them are one process's.
fn daemon_pid(heard: &[(String, String)]) -> &str {
    heard[0].0.split('|').nth(3).unwrap()
}

#[test]
fn doctor_looks_at_the_repository() {
    let scratch = Scratch::new("audit-doctor");
    let sections = format!("[audit]\naddress = \"127.0.0.1:{}\"\ntransport = \"tls\"\ntimeout_s = 1.0\n", free_port());
    let daemon = Daemon::start(&Settings { sections, ..Settings::default() });
    let looked = daemon.command(&["doctor"]);
    let text = String::from_utf8_lossy(&looked.stdout);
    assert!(text.contains("FAILURE audit repository 127.0.0.1"), "{text}");
    drop((daemon, scratch));
    for (lines, fault) in [
        ("address = \"arr\"", "audit.address"),
        ("address = \"127.0.0.1:514\"\ntransport = \"udp\"\ntls_check_name = false", "audit.transport"),
        ("address = \"arr:6514\"\ntls_ca_file = \"/nowhere/ca.pem\"", "/nowhere/ca.pem"),
    ] {
        let sections = format!("[audit]\n{lines}\n");
        let said = Daemon::refuses_to_start(&Settings { sections, ..Settings::default() });
        assert!(said.contains(fault), "{lines}: {said}");
    }
}
