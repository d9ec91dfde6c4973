//! A task manager on pydicom data sets, strict by PS3.4 Annex CC, which misbehaves when it is told to.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::daemon::repository;
use super::tools::python;
use super::{eventually, free_port, http, seconds};

/// The server; it ends with the value.
pub(crate) struct TaskManager {
    pub(crate) port: u16,
    child: Child,
}

/// What a workitem asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) uid: &'a str,
    pub(crate) code: &'a str,
    pub(crate) study: &'a str,
    pub(crate) priority: &'a str,
    pub(crate) url: Option<&'a str>,
    /// Retrieve AE Title.
    pub(crate) title: Option<&'a str>,
    /// SOP Instance UIDs that it names.
    pub(crate) instances: &'a [&'a str],
}

impl TaskManager {
    pub(crate) fn start() -> Self {
        let port = free_port();
        let mut child = Command::new(python())
            .arg(repository("tests/counterparts/task_manager.py"))
            .arg(json!({ "port": port }).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "listening", "the task manager did not start");
        Self { port, child }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Schedules a workitem.
    pub(crate) fn schedule(&self, wanted: &Wanted<'_>) {
        let one = |vr: &str, value: Value| json!({ "vr": vr, "Value": [value] });
        let reference = |uid: &&str| json!({ "00081155": one("UI", json!(uid)) });
        let mut input = json!({ "0040E020": one("CS", json!("DICOM")), "0020000D": one("UI", json!(wanted.study)) });
        if let Some(url) = wanted.url {
            input["0040E025"] = one("SQ", json!({ "00081190": one("UR", json!(url)) }));
        }
        if let Some(title) = wanted.title {
            input["0040E021"] = one("SQ", json!({ "00080054": one("AE", json!(title)) }));
        }
        if !wanted.instances.is_empty() {
            let references: Vec<Value> = wanted.instances.iter().map(reference).collect();
            input["00081199"] = json!({ "vr": "SQ", "Value": references });
        }
        let code = json!({ "00080100": one("SH", json!(wanted.code)), "00080102": one("SH", json!("99TEST")),
            "00080104": one("LO", json!("Detect hemorrhage")) });
        let set = json!({
            "00080018": one("UI", json!(wanted.uid)),
            "00100020": one("LO", json!("P-TASK")),
            "00741000": one("CS", json!("SCHEDULED")),
            "00741200": one("CS", json!(wanted.priority)),
            "00404041": one("CS", json!("READY")),
            "00404018": one("SQ", code),
            "00404021": one("SQ", input),
        });
        http::post(self.port, "/control/workitem", set.to_string().as_bytes()).unwrap();
    }

    /// Tells it what to do from now on.
    pub(crate) fn make(&self, wish: &Value) {
        http::post(self.port, "/control/do", wish.to_string().as_bytes()).unwrap();
    }

    /// A workitem with its state, Transaction UID, data and what was said of it.
    pub(crate) fn workitem(&self, uid: &str) -> Value {
        http::get_json(self.port, "/control/all").unwrap()[uid].clone()
    }

    /// Waits for a state.
    pub(crate) fn wait_for(&self, uid: &str, state: &str, limit: u64) -> Value {
        eventually(seconds(limit), &format!("workitem {state}"), || match self.workitem(uid) {
            item if item["state"] == state => Ok(item),
            item => Err(format!(
                "{} {}\n{:?}",
                item["state"],
                item["updates"],
                self.log().iter().rev().take(6).collect::<Vec<_>>()
            )),
        })
    }

    /// Every request with its answer.
    pub(crate) fn log(&self) -> Vec<Value> {
        http::get_json(self.port, "/control/log").unwrap().as_array().unwrap().clone()
    }

    /// How many requests of a kind got this status.
    pub(crate) fn answered(&self, method: &str, path: &str, status: u64) -> usize {
        let is = |entry: &&Value| {
            entry["method"] == method && entry["path"].as_str().unwrap().contains(path) && entry["status"] == status
        };
        self.log().iter().filter(is).count()
    }
}

impl Drop for TaskManager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
