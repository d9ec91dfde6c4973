//! pynetdicom as a PACS that answers what it is told to.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::free_port;
use super::tools::python;

/// A Storage SCP that answers every C-STORE with one status; it ends with the value.
pub(crate) struct StorageScp {
    pub(crate) port: u16,
    child: Child,
}

impl StorageScp {
    /// Starts it and waits until it listens.
    pub(crate) fn answering(status: u16) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/counterparts/storage_scp.py");
        let port = free_port();
        let mut child = Command::new(python())
            .args([script, &port.to_string(), &status.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "listening", "pynetdicom's Storage SCP did not start");
        Self { port, child }
    }
}

impl Drop for StorageScp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
