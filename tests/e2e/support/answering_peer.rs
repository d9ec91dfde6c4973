//! Those who are asked about studies: pynetdicom as a peer that answers what it is told to, and a worklist of DCMTK.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::scratch::Scratch;
use super::tools::{find, python};
use super::{eventually, free_port, seconds};

/// The peer of pynetdicom; it ends with the value.
pub(crate) struct AnsweringPeer {
    pub(crate) port: u16,
    child: Child,
    scratch: Scratch,
}

impl AnsweringPeer {
    /// Starts it on a free port with settings of `answering_peer.py`, and waits until it listens.
    pub(crate) fn start(settings: &Value) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/counterparts/answering_peer.py");
        let (scratch, port) = (Scratch::new("answering-peer"), free_port());
        let mut settings = settings.clone();
        settings["port"] = json!(port);
        settings["log"] = json!(scratch.path().join("peer.log"));
        let mut child = Command::new(python())
            .args([script, &settings.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "listening", "pynetdicom's peer did not start");
        Self { port, child, scratch }
    }

    /// The questions so far.
    pub(crate) fn asked(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.scratch.path().join("peer.log")).unwrap_or_default();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for AnsweringPeer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A scheduled procedure step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScheduledStep<'a> {
    pub(crate) accession: &'a str,
    pub(crate) patient: &'a str,
    pub(crate) study: &'a str,
    pub(crate) date: &'a str,
}

impl ScheduledStep<'_> {
    /// Writes it as a worklist file, by DCMTK.
    pub(crate) fn write(self, folder: &Path) {
        let Self { accession, patient, study, date } = self;
        let dump = folder.join(format!("{accession}.dump"));
        let text = format!(
            "(0008,0005) CS [ISO_IR 100]\n(0008,0050) SH [{accession}]\n(0010,0010) PN [SYNTHETIC^STEP]\n\
             (0010,0020) LO [{patient}]\n(0010,0030) DA [19500101]\n(0010,0040) CS [O]\n(0020,000d) UI [{study}]\n\
             (0032,1032) PN [REQUESTING]\n(0032,1060) LO [CT HEAD]\n(0040,0100) SQ\n(fffe,e000) -\n(0008,0060) CS [CT]\n\
             (0040,0001) AE [CT1]\n(0040,0002) DA [{date}]\n(0040,0003) TM [080000]\n(0040,0006) PN [NOBODY]\n\
             (0040,0007) LO [HEAD]\n(0040,0009) SH [STEP1]\n(fffe,e00d) -\n(fffe,e0dd) -\n(0040,1001) SH [RP1]\n"
        );
        std::fs::write(&dump, text).unwrap();
        let made = Command::new("dump2dcm").arg("+te").arg(&dump).arg(dump.with_extension("wl")).output().unwrap();
        assert!(made.status.success(), "dump2dcm: {}", String::from_utf8_lossy(&made.stderr));
        std::fs::remove_file(dump).unwrap();
    }
}

/// DCMTK's worklist, called RIS; it ends with the value.
pub(crate) struct Worklist {
    pub(crate) port: u16,
    child: Child,
    _scratch: Scratch,
}

impl Worklist {
    pub(crate) fn start(steps: &[ScheduledStep<'_>]) -> Self {
        let (scratch, port) = (Scratch::new("worklist"), free_port());
        let folder = scratch.folder("RIS");
        std::fs::write(folder.join("lockfile"), "").unwrap();
        steps.iter().for_each(|step| step.write(&folder));
        let child = Command::new(find("wlmscpfs").unwrap())
            .arg("-dfp")
            .arg(scratch.path())
            .arg(port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually(seconds(20), "wlmscpfs", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
        });
        Self { port, child, _scratch: scratch }
    }
}

impl Drop for Worklist {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
