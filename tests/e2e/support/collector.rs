//! A collector of traces in Python, which reads them with OpenTelemetry's own messages.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::scratch::Scratch;
use super::tools::python;

/// The collector; it ends with the value.
pub(crate) struct Collector {
    child: Child,
    scratch: Scratch,
}

impl Collector {
    /// Starts it on a port, with answers for its first requests.
    pub(crate) fn start_on(port: u16, statuses: &Value) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/counterparts/otlp_collector.py");
        let scratch = Scratch::new("collector");
        let (log, raw) = (scratch.path().join("requests.log"), scratch.path().join("bodies.bin"));
        let settings = json!({ "port": port, "log": log, "raw": raw, "statuses": statuses });
        let mut child = Command::new(python())
            .args([script, &settings.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "listening", "the collector did not start");
        Self { child, scratch }
    }

    /// The requests that came, whatever was answered.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.scratch.path().join("requests.log")).unwrap_or_default();
        // The last line may be under way.
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// All spans that came, repetitions included.
    pub(crate) fn spans(&self) -> Vec<Value> {
        self.requests().iter().flat_map(|request| request["spans"].as_array().unwrap().clone()).collect()
    }

    /// Every byte of every body.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.scratch.path().join("bodies.bin")).unwrap_or_default()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
