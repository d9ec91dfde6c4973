//! Readiness: whether a study that came now would be kept, and analysed.

use ichor_core::{DeliveryStatus, TaskStatus};
use ichor_store::{DestinationState, QueueDepth};
use serde::Serialize;

use crate::{Facts, words};

/// Whether the daemon is ready, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether every check passed that says whether a study would be kept.
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
    let (store, deliveries) = match facts.store.queue_depths().await {
        Ok(depths) => {
            (Check { name: "store", passed: true, words: "the job log answers".to_owned() }, given_up(&depths))
        }
        Err(error) => {
            let check = |name| Check { name, passed: false, words: error.to_string() };
            (check("store"), check("deliveries"))
        }
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
        Some(model) => Check { name: "model", passed: true, words: model },
        None if facts.active.is_missing() => {
            let words = "the active model cannot be used: studies are received and wait (ichor model list)".to_owned();
            Check { name: "model", passed: false, words }
        }
        None => Check { name: "model", passed: true, words: "none: studies are received and wait".to_owned() },
    };
    let tasks = tasks(facts).await;
    // What cannot be analysed or delivered is for people to see; a study that came now would be kept all the same.
    let ready = [&store, &disk].iter().all(|check| check.passed);
    let destinations = match facts.store.destinations((facts.now)()).await {
        Ok(states) => reachable(&facts.site().destinations, &states),
        Err(error) => Check { name: "destinations", passed: false, words: error.to_string() },
    };
    Readiness { ready, checks: vec![store, disk, model, destinations, deliveries, tasks] }
}

/// Whether every destination that is configured is there, and takes what it is sent. Why not is for those who log in: health
/// is told to everybody.
fn reachable(configured: &[String], states: &[DestinationState]) -> Check {
    let configured = states.iter().filter(|state| configured.contains(&state.name));
    let trouble = |state: &DestinationState| {
        let refused = state.refused.len();
        match (state.is_up, refused) {
            (true, 0) => None,
            (true, 1) => Some(format!("{} does not accept one kind of object", state.name)),
            (true, _) => Some(format!("{} does not accept {refused} kinds of objects", state.name)),
            (false, _) => Some(format!("{} is down since {} UTC", state.name, words::clock(state.since))),
        }
    };
    let troubles: Vec<String> = configured.filter_map(trouble).collect();
    let words = if troubles.is_empty() { "none is down".to_owned() } else { troubles.join(", ") };
    Check { name: "destinations", passed: troubles.is_empty(), words }
}

/// Whether a workitem of others waits for somebody here.
async fn tasks(facts: &Facts) -> Check {
    let name = "tasks";
    let depths = match facts.store.task_depths().await {
        Ok(depths) => depths,
        Err(error) => return Check { name, passed: false, words: error.to_string() },
    };
    let refused = depths.iter().filter(|depth| depth.status == TaskStatus::Refused && depth.count > 0);
    let refused: Vec<String> = refused.map(|depth| format!("{} by {}", depth.count, depth.list)).collect();
    let site = facts.site();
    let orphans = depths.iter().filter(|depth| depth.status.is_open() && !site.task_lists.contains(&depth.list));
    let orphans: Vec<String> = orphans.map(|depth| format!("{} of {}", depth.count, depth.list)).collect();
    let said: Vec<String> =
        [("refused, and somebody has to decide", refused), ("in hand, and their list is gone", orphans)]
            .into_iter()
            .filter(|(_, which)| !which.is_empty())
            .map(|(what, which)| format!("{what} (ichor tasks list): {}", which.join(", ")))
            .collect();
    let words = if said.is_empty() { "none waits for a decision".to_owned() } else { said.join("; ") };
    Check { name, passed: said.is_empty(), words }
}

/// Whether a result was given up.
fn given_up(depths: &[QueueDepth]) -> Check {
    let dead = depths.iter().filter(|depth| depth.status == DeliveryStatus::Dead && depth.count > 0);
    let dead: Vec<String> = dead.map(|depth| format!("{} for {}", depth.count, depth.destination)).collect();
    let words = if dead.is_empty() { "none is given up".to_owned() } else { format!("given up: {}", dead.join(", ")) };
    Check { name: "deliveries", passed: dead.is_empty(), words }
}
