//! The event channel of a task list: an event wakes whoever looks through the list, and says who wants a workitem canceled. Whatever
//! is missed here is found by looking.

use std::time::Duration;

use ichor_core::{Uid, chain};
use ichor_dicomweb::server::ups::{DataSet, text};
use ichor_dicomweb::ups::UpsError;
use ichor_store::Store;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::TaskList;
use crate::now;

/// Affected SOP Instance UID: the workitem that an event is about.
const WORKITEM: &str = "00001000";
/// Event Type ID.
const EVENT: &str = "00001002";
/// UPS Cancel Requested.
const CANCEL_REQUESTED: u64 = 2;
/// Longest words of whoever asks, in characters.
const LONGEST: usize = 500;

/// Subscribes, and listens until it is dropped.
pub(super) async fn run(store: &Store, list: &TaskList, wake: &Notify) {
    let mut failures = 0;
    loop {
        let begun = tokio::time::Instant::now();
        let ended = hear(store, list, wake).await;
        // A channel that lasted was one.
        failures = if begun.elapsed() > Duration::from_secs(60) { 1 } else { failures + 1 };
        let wait = list.backoff.after(failures).unwrap_or(list.backoff.longest);
        match ended {
            Ok(()) => info!(list = %list.name, "the event channel of the task list has ended; opened again"),
            Err(failure) => {
                warn!(list = %list.name, failure = %chain(&failure), ?wait, "no events from the task list; it is looked at");
            }
        }
        sleep(wait).await;
    }
}

async fn hear(store: &Store, list: &TaskList, wake: &Notify) -> Result<(), UpsError> {
    list.server.subscribe_to_workitems(&list.performer).await?;
    let mut channel = list.server.open_event_channel(&list.performer).await?;
    info!(list = %list.name, subscriber = %list.performer, "hears the events of the task list");
    // What happened before the subscription is seen by looking.
    wake.notify_one();
    while let Some(report) = channel.next().await? {
        if let Some((workitem, words)) = cancel_request(&report) {
            // Written down before the server hears that it was heard.
            match store.ask_task_cancel(list.name.as_str(), &workitem, &words, now()).await {
                Ok(true) => {
                    info!(list = %list.name, %workitem, "somebody asks for the cancellation of a workitem of ours")
                }
                Ok(false) => debug!(%workitem, "cancellation of what is not ours"),
                Err(failure) => return Err(UpsError::NotAnAnswer(format!("it cannot be kept: {}", chain(&failure)))),
            }
        }
        wake.notify_one();
    }
    Ok(())
}

/// Which workitem somebody wants canceled, and why.
fn cancel_request(report: &DataSet) -> Option<(Uid, String)> {
    let event = &report.get(EVENT)?["Value"][0];
    let event = event.as_u64().or_else(|| event.as_str()?.trim().parse().ok())?;
    let workitem = text(report, WORKITEM).and_then(|text| Uid::parse(text).ok())?;
    let words = text(report, "00741238").unwrap_or("no reason was given");
    let words = words.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    (event == CANCEL_REQUESTED).then_some((workitem, words))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn reports_are_read_with_suspicion() {
        let read = |report: Value| cancel_request(report.as_object().unwrap());
        let report = |event: Value| {
            json!({ "00001000": { "vr": "UI", "Value": ["1.2"] }, "00001002": { "vr": "US", "Value": [event] },
                "00741238": { "vr": "LT", "Value": ["no\u{7} need"] } })
        };
        let wanted = Some((Uid::parse("1.2").unwrap(), "no need".to_owned()));
        assert_eq!(read(report(json!(2))), wanted);
        assert_eq!(read(report(json!("2"))), wanted);
        for other in [json!(1), json!("x"), json!(null), json!(-2), json!({})] {
            assert_eq!(read(report(other)), None);
        }
        assert_eq!(read(json!({})), None);
        assert_eq!(read(json!({ "00001002": { "vr": "US", "Value": [2] } })), None);
    }
}
