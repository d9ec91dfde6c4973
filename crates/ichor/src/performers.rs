//! Task lists of a configuration: whose workitems we perform.
//!
//! A list that is gone from the configuration is left: nothing more is claimed there, and what was claimed is ended by the settings
//! that it had.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ichor_core::{AeTitle, TaskStatus};
use ichor_dicomweb::{RetrieveLimits, StowClient};
use ichor_dimse::scp::SopClassRule;
use ichor_pipeline::backoff::Backoff;
use ichor_pipeline::deliver::Transport;
use ichor_pipeline::ingest::{Ingest, StowClientRule, StowIngest};
use ichor_pipeline::tasks::{self, InputMover, InputSource, Place, TaskList};
use ichor_store::{Store, TaskDepth};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::config::{Config, Endpoint, TaskListConfig, WebEndpoint, seconds};
use crate::destinations::{transport, web_options};
use crate::stages::{Stages, made_of};

/// What the names of task lists' stages begin with.
const STAGE: &str = "task list ";

/// What all performers have in common.
pub(crate) struct Performing {
    /// The stage that everything comes in by.
    pub(crate) ingest: Ingest,
    /// What is taken, as from associations.
    pub(crate) sop_classes: Vec<SopClassRule>,
    /// Lists that are gone from the configuration, and have workitems in hand.
    pub(crate) leaving: Vec<TaskListConfig>,
}

/// A list that is set up and not looked at yet.
pub(crate) struct Opened {
    /// Name of its stage.
    stage: String,
    /// What it is made of.
    of: String,
    list: TaskList,
    quiet_period: Duration,
}

/// The lists that are gone from a new configuration and are not done with: those that were in force, and of those that were being
/// left the ones that have tasks in hand.
///
/// # Errors
/// The store's.
pub(crate) async fn leaving(
    (old, new): (&Config, &Config),
    before: &[TaskListConfig],
    store: &Store,
) -> anyhow::Result<Vec<TaskListConfig>> {
    let is_gone = |section: &&TaskListConfig| new.task_lists.iter().all(|list| list.name != section.name);
    let mut leaving: Vec<TaskListConfig> = old.task_lists.iter().filter(is_gone).cloned().collect();
    for section in before.iter().filter(is_gone) {
        if has_tasks(store, section).await? && leaving.iter().all(|list| list.name != section.name) {
            leaving.push(section.clone());
        }
    }
    Ok(leaving)
}

/// Whether a list has tasks that are not over, or that somebody may have tried again.
async fn has_tasks(store: &Store, section: &TaskListConfig) -> anyhow::Result<bool> {
    let depths = store.task_depths().await.context("tasks")?;
    let in_hand = |depth: &TaskDepth| depth.status.is_open() || depth.status == TaskStatus::Refused;
    Ok(depths.iter().any(|depth| depth.list == section.name.as_str() && depth.count > 0 && in_hand(depth)))
}

/// Sets every list up, and those that are being left; nothing is asked yet. With those of the latter that could be set up: for the
/// others nobody ends anything.
///
/// # Errors
/// With the list's name: a secret or certificate that cannot be used. Of a list that is left and has nothing in hand that is none.
pub(crate) async fn open_all(
    config: &Config,
    leaving: Vec<TaskListConfig>,
    store: &Store,
) -> anyhow::Result<(Vec<Opened>, Vec<TaskListConfig>)> {
    let (mut opened, mut left) = (Vec::new(), Vec::new());
    for section in &config.task_lists {
        opened.push(opened_as(config, section, false)?);
    }
    for section in leaving {
        match opened_as(config, &section, true) {
            Ok(list) => {
                opened.push(list);
                left.push(section);
            }
            Err(error) if has_tasks(store, &section).await? => {
                return Err(error.context("it is to go, and has workitems in hand that could not be ended"));
            }
            Err(error) => debug!(list = section.name.as_str(), "it is to go, and has nothing in hand: {error:#}"),
        }
    }
    Ok((opened, left))
}

fn opened_as(config: &Config, section: &TaskListConfig, is_leaving: bool) -> anyhow::Result<Opened> {
    let named = || format!("task list {:?}", section.name.as_str());
    let list = TaskList { is_leaving, ..open(config, section).with_context(named)? };
    // Where results go is told in the end.
    let places = format!("{:?} {:?}", list.places, list.own_place);
    let of = made_of(&(section, is_leaving, &config.listen.ae_title, places))?;
    let stage = format!("{STAGE}{}", section.name.as_str());
    Ok(Opened { stage, of, list, quiet_period: seconds(section.quiet_period_s) })
}

/// Performs for these lists and no others. One that is made otherwise ends the steps in hand first; the next goes on with its tasks.
/// What changed, in words.
pub(crate) fn serve(
    performing: &Performing,
    opened: Vec<Opened>,
    store: &Store,
    stop: &CancellationToken,
    (stages, tasks): (&mut Stages, &mut JoinSet<&'static str>),
) -> Vec<String> {
    let wanted: Vec<String> = opened.iter().map(|opened| opened.stage.clone()).collect();
    let mut changed: Vec<String> =
        stages.retire_others(STAGE, &wanted).into_iter().map(|name| format!("{name} is performed no more")).collect();
    for Opened { stage, of, list, quiet_period } in opened {
        if !stages.needs(&stage, &of) {
            continue;
        }
        let what = if list.is_leaving { "claims nothing more, and what it has is ended" } else { "is performed anew" };
        changed.push(format!("{stage} {what}"));
        let rule = StowClientRule { name: list.name.clone(), quiet_period };
        let ingest = StowIngest::new(performing.ingest.clone(), vec![rule], performing.sop_classes.clone());
        let (store, stop) = (store.clone(), stop.clone());
        let work = |retired| tasks::run_until_retired(store, ingest, Arc::new(list), retired, stop);
        stages.start(tasks, ("task list", stage, of), work);
    }
    changed
}

/// Says which lists have tasks in hand and are not configured any more.
///
/// # Errors
/// The store's.
pub(crate) async fn warn_of_orphans(config: &Config, leaving: &[TaskListConfig], store: &Store) -> anyhow::Result<()> {
    let is_known = |name: &str| config.task_lists.iter().chain(leaving).any(|list| list.name.as_str() == name);
    for TaskDepth { list, status, count, .. } in store.task_depths().await.context("tasks")? {
        if status.is_open() && !is_known(&list) {
            warn!(list, %status, count, "workitems are claimed from a task list that is not configured any more");
        }
    }
    Ok(())
}

fn open(config: &Config, section: &TaskListConfig) -> anyhow::Result<TaskList> {
    let endpoint = section.endpoint().map_err(anyhow::Error::msg)?;
    let (sources, movers) = inputs(config, section)?;
    Ok(TaskList {
        name: section.name.clone(),
        server: client(endpoint, section)?,
        performer: section.ae_title.clone().unwrap_or_else(|| config.listen.ae_title.clone()),
        ours: section.ours(),
        is_leaving: false,
        sources,
        movers,
        limits: RetrieveLimits {
            max_bytes: section.max_input_mib.saturating_mul(1 << 20),
            max_part_bytes: config.listen.max_instance_mib.saturating_mul(1 << 20),
            max_parts: config.limits.study_instances as usize,
            idle: seconds(section.timeout_s),
        },
        poll: seconds(section.poll_s),
        events: section.events,
        at_once: section.at_once,
        most_stuck: section.most_stuck,
        most_found: section.max_found,
        give_up_after: seconds(section.give_up_after_s),
        most_refusals: section.most_refusals,
        tell_within: seconds(section.tell_within_s),
        backoff: Backoff {
            first: seconds(section.first_backoff_s),
            longest: seconds(section.max_backoff_s),
            attempts: 0,
        },
        places: places(config),
        own_place: own_place(config),
    })
}

/// Where inputs may come from.
fn inputs(config: &Config, section: &TaskListConfig) -> anyhow::Result<(Vec<InputSource>, Vec<InputMover>)> {
    let source = |endpoint: WebEndpoint| {
        let url = endpoint.url.clone();
        anyhow::Ok(InputSource { url, client: client(endpoint, section)? })
    };
    if section.sources.is_empty() {
        return Ok((vec![source(section.endpoint().map_err(anyhow::Error::msg)?)?], Vec::new()));
    }
    let (mut sources, mut movers) = (Vec::new(), Vec::new());
    for one in &section.sources {
        match one.endpoint().map_err(anyhow::Error::msg)? {
            Endpoint::StowRs(endpoint) => sources.push(source(endpoint)?),
            endpoint @ Endpoint::CStore { .. } => movers.extend(mover(config, section, endpoint)?),
            // No kind of source is a folder.
            Endpoint::Folder(_) => {}
        }
    }
    Ok((sources, movers))
}

/// A peer that is asked to send to our listener, from which it must be allowed to come.
fn mover(config: &Config, section: &TaskListConfig, endpoint: Endpoint) -> anyhow::Result<Option<InputMover>> {
    let own = &config.listen.ae_title;
    let Transport::CStore(peer) = transport(endpoint, seconds(section.timeout_s), own)? else { return Ok(None) };
    if !may_come(config, &peer.called_ae) {
        let (list, ae_title) = (section.name.as_str(), peer.called_ae.as_str());
        warn!(list, ae_title, "no [[source]] has its AE title: what it is asked to send here is refused");
    }
    Ok(Some(InputMover { peer, destination: own.clone() }))
}

/// Whether a peer may send here, as far as its title says.
pub(crate) fn may_come(config: &Config, title: &AeTitle) -> bool {
    config.sources.iter().any(|source| source.ae_title.as_ref().is_none_or(|known| known == title))
}

fn client(endpoint: WebEndpoint, section: &TaskListConfig) -> anyhow::Result<StowClient> {
    if endpoint.credentials.is_some() && endpoint.url.starts_with("http://") {
        warn!(list = section.name.as_str(), url = endpoint.url, "credentials travel in the clear: the url is http://");
    }
    let mut options = web_options(endpoint)?;
    options.timeout = seconds(section.timeout_s);
    options.max_response_bytes = section.max_answer_mib << 20;
    Ok(StowClient::new(options)?)
}

/// Where results can be had from that a destination accepted. A folder is no place that DICOM has a name for.
fn places(config: &Config) -> Vec<(String, Place)> {
    let place = |title: Option<&AeTitle>, endpoint| match endpoint {
        Endpoint::CStore { .. } => title.cloned().map(Place::AeTitle),
        Endpoint::StowRs(endpoint) => Some(Place::WadoRs(endpoint.url)),
        Endpoint::Folder(_) => None,
    };
    let destinations = config.destinations.iter();
    destinations
        .filter_map(|section| {
            let endpoint = section.endpoint().ok()?;
            Some((section.name.clone(), place(section.ae_title.as_ref(), endpoint)?))
        })
        .collect()
}

/// Where results can be had here, if others know the address.
fn own_place(config: &Config) -> Option<Place> {
    let section = config.dicomweb.as_ref()?;
    section.url.as_ref().map(|url| Place::WadoRs(format!("{url}{}", section.prefix)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ichor_core::Uid;
    use ichor_pipeline::now;
    use ichor_store::{NewTask, StoreOptions, TaskStep};

    use super::*;

    /// Its token is not there: without tasks nobody leaves it, so what is claimed of it is an orphan; with tasks, those that wait for
    /// people included, the configuration is refused.
    #[tokio::test]
    async fn a_list_that_cannot_be_set_up_is_not_being_left() {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(&folder.path().join("ichor.db"), &folder.path().join("blobs"));
        let store = Store::open(&options).await.unwrap();
        store.recover(now()).await.unwrap();
        let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/ichor.toml"));
        let mut config = Config::load(file).unwrap();
        let mut section = config.task_lists.remove(0);
        config.task_lists.clear();
        section.bearer_token_file = Some(folder.path().join("gone.token"));
        let leave = async || open_all(&config, vec![section.clone()], &store).await;
        let (opened, left) = leave().await.unwrap();
        assert!(opened.is_empty() && left.is_empty());

        let uid = |text: &str| Uid::parse(text).unwrap();
        let new = NewTask {
            list: section.name.as_str().to_owned(),
            workitem: uid("2.25.1"),
            transaction: uid("2.25.2"),
            study_instance: uid("2.25.3"),
            urgent: false,
            request: serde_json::Value::Null,
        };
        let task = store.begin_task(&new, now()).await.unwrap().unwrap();
        assert!(leave().await.is_err(), "one is in hand");
        store.advance_task(&task, &TaskStep::LeftToPeople, "refused", now()).await.unwrap();
        assert!(leave().await.is_err(), "somebody may have it tried again");
        store.give_up_task(task.id, "over", now()).await.unwrap();
        assert!(leave().await.unwrap().1.is_empty());
    }
}
