//! Readiness: whether a study that came now would be kept, and analysed.

use serde::Serialize;

use crate::Facts;

/// Whether the daemon is ready, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether every check that matters passed.
    pub ready: bool,
    /// Each check.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub passed: bool,
    /// What was seen.
    pub words: String,
}

pub(crate) async fn check(facts: &Facts) -> Readiness {
    let store = match facts.store.queue_depths().await {
        Ok(_) => Check { name: "store", passed: true, words: "the job log answers".to_owned() },
        Err(error) => Check { name: "store", passed: false, words: error.to_string() },
    };
    let (wanted, mib) = (facts.min_free_bytes, |bytes: u64| bytes >> 20);
    let disk = match facts.store.blobs().free_bytes() {
        Ok(free) => {
            let words = format!("{} MiB free, {} MiB are kept free", mib(free), mib(wanted));
            Check { name: "disk", passed: free >= wanted, words }
        }
        Err(error) => Check { name: "disk", passed: false, words: error.to_string() },
    };
    // Receiving without a model is a mode of its own: studies are kept and wait.
    let model = match facts.model() {
        Some(model) => Check { name: "model", passed: true, words: model.to_owned() },
        None => Check { name: "model", passed: true, words: "none: studies are received and wait".to_owned() },
    };
    let checks = vec![store, disk, model];
    Readiness { ready: checks.iter().all(|check| check.passed), checks }
}
