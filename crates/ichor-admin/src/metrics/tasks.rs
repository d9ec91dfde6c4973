//! Workitems of others that are performed here.

use std::collections::BTreeSet;

use ichor_core::TaskStatus;
use ichor_store::{StoreError, Timestamp};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Name, Queue, count};
use crate::Facts;

/// Tasks by list and state, how long the oldest that is under way has taken, and whether lists answer.
pub(super) async fn tasks(registry: &mut Registry, facts: &Facts, now: Timestamp) -> Result<(), StoreError> {
    let (lists, depths) = (facts.store.task_lists().await?, facts.store.task_depths().await?);
    let names: BTreeSet<&String> =
        lists.iter().map(|list| &list.name).chain(depths.iter().map(|depth| &depth.list)).collect();
    let (counts, oldest, up) =
        (Family::<Queue, Gauge>::default(), Family::<Name, Gauge>::default(), Family::<Name, Gauge>::default());
    for name in names {
        let of_list = || depths.iter().filter(|depth| depth.list == *name);
        for status in TaskStatus::ALL {
            let found = of_list().find(|depth| depth.status == *status).map_or(0, |depth| count(depth.count));
            counts.get_or_create(&Queue { name: name.clone(), status: status.as_str() }).set(found);
        }
        let first = of_list().filter(|depth| depth.status.is_open()).map(|depth| depth.oldest).min();
        let seconds = first.map_or(0, |first| count(now.since(first).as_secs()));
        oldest.get_or_create(&Name { name: name.clone() }).set(seconds);
        let answers = lists.iter().find(|list| list.name == *name).is_some_and(|list| list.is_up);
        up.get_or_create(&Name { name: name.clone() }).set(i64::from(answers));
    }
    registry.register("tasks", "Workitems of others by task list and state", counts);
    registry.register("task_wait_seconds", "How long the oldest task of a list that is under way has taken", oldest);
    registry.register("task_list_up", "Whether a task list answered when it was looked at last", up);
    Ok(())
}
