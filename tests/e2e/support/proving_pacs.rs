//! pynetdicom as a PACS that keeps or loses what it accepts, and is asked for proof.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::free_port;
use super::scratch::Scratch;
use super::tools::python;

/// The PACS; it ends with the value.
pub(crate) struct ProvingPacs {
    pub(crate) port: u16,
    child: Child,
    scratch: Scratch,
}

impl ProvingPacs {
    /// Starts it on a free port with settings of `proving_pacs.py`, and waits until it listens.
    pub(crate) fn start(settings: &Value) -> Self {
        Self::start_on(free_port(), settings)
    }

    /// Starts it on a given port.
    pub(crate) fn start_on(port: u16, settings: &Value) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/counterparts/proving_pacs.py");
        let scratch = Scratch::new("proving-pacs");
        let mut settings = settings.clone();
        settings["port"] = json!(port);
        settings["log"] = json!(scratch.path().join("pacs.log"));
        let mut child = Command::new(python())
            .args([script, &settings.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "listening", "pynetdicom's PACS did not start");
        Self { port, child, scratch }
    }

    /// What happened there, by its kind.
    pub(crate) fn noted(&self, what: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(self.scratch.path().join("pacs.log")).unwrap_or_default();
        // The last line may be under way.
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["what"] == what).collect()
    }
}

impl Drop for ProvingPacs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
