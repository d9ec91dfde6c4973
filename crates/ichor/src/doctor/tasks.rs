//! Workitems of others that somebody has to decide about.

use ichor_core::TaskStatus;
use ichor_store::{Examined, TaskDepth};

use super::Outcome;
use crate::config::Config;
use crate::daemon::open_store;

/// Looks for tasks that their lists refuse, and for those of lists that are not configured any more.
pub(super) async fn examine(config: &Config) -> Vec<Outcome> {
    // A database that is not there, or of an older schema, is named elsewhere, and not migrated here.
    match ichor_store::examine(&config.store.database).await {
        Ok(Examined { schema: Some(schema), newest }) if schema == newest => {}
        _ => return Vec::new(),
    }
    let found = async {
        let store = open_store(config).await?;
        let depths = store.task_depths().await;
        store.close().await;
        anyhow::Ok(depths?)
    };
    match found.await {
        Ok(depths) => judged(config, &depths),
        Err(error) => vec![Outcome::failure("tasks", format!("{error:#}"), "see the database above")],
    }
}

fn judged(config: &Config, depths: &[TaskDepth]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for TaskDepth { list, status, count, .. } in depths {
        let subject = format!("tasks of {list:?}");
        let is_configured = config.task_lists.iter().any(|section| section.name.as_str() == list);
        match status {
            TaskStatus::Refused => outcomes.push(Outcome::failure(
                subject,
                format!("{count} are refused: they stand in their list as ours"),
                "see ichor tasks list --status refused; mend the list, then ichor tasks retry, or ichor tasks give-up",
            )),
            open if open.is_open() && !is_configured => outcomes.push(Outcome::warning(
                subject,
                format!("{count} are {open}, and their list is not configured any more"),
                "a daemon that read the change while it ran ends them; else put its [[task_list]] back, or ichor tasks give-up",
            )),
            _ => {}
        }
    }
    outcomes
}
