//! Tasks: workitems of others that we perform (PS3.4 Annex CC, IHE AIW-I Task Performer). What matches is claimed; its input comes
//! in like everything else, or is here already; the study goes its ordinary way; and what came of it is told where it was asked for.
//!
//! Each step is written down before the next begins, and can be taken twice: a process that is killed between any two goes on with
//! the claim it has. The Transaction UID is in the store before the server hears of it.

mod ending;
mod fetch;
mod listen;
mod look;
mod moving;
mod offer;
mod perform;
mod unwell;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ichor_core::AeTitle;
use ichor_dicomweb::{RetrieveLimits, StowClient};
use ichor_dimse::scu::ScuOptions;
use ichor_store::{Store, Task, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

pub use ending::Place;
pub use offer::{Code, Ours};

use crate::backoff::Backoff;
use crate::ingest::StowIngest;
use crate::now;
use look::Looker;

/// Longest time between two looks at the store.
const TICK: Duration = Duration::from_millis(500);
/// Time for steps to end what peers were asked for, when the program ends.
const TO_STOP: Duration = Duration::from_secs(3);

/// A task list of another system, and how its workitems are performed.
#[derive(Clone, Debug)]
pub struct TaskList {
    /// Name; what is fetched has it where a calling AE title stands.
    pub name: AeTitle,
    /// The service.
    pub server: StowClient,
    /// The title under which we perform and subscribe.
    pub performer: AeTitle,
    /// Which workitems are ours.
    pub ours: Ours,
    /// Whether nothing more is claimed, and only ended what was.
    pub is_leaving: bool,
    /// Services below whose addresses inputs may be fetched.
    pub sources: Vec<InputSource>,
    /// Peers that may be asked to send inputs here.
    pub movers: Vec<InputMover>,
    /// How much is fetched at most.
    pub limits: RetrieveLimits,
    /// Pause between two looks at the list.
    pub poll: Duration,
    /// Whether we subscribe, so that an event shortens that pause, and hear who wants a workitem canceled.
    pub events: bool,
    /// Tasks under way at once.
    pub at_once: usize,
    /// Tasks whose end the list does not take, or that wait for people, until nothing more is claimed.
    pub most_stuck: usize,
    /// Workitems that are taken of an answer.
    pub most_found: usize,
    /// After that a task whose input is not to be had is given back.
    pub give_up_after: Duration,
    /// So many refusals for good of our claim or last word are outlasted; then somebody has to decide.
    pub most_refusals: u32,
    /// For so long a list that does not take them is asked again; then somebody has to decide.
    pub tell_within: Duration,
    /// Waits after failures.
    pub backoff: Backoff,
    /// Where results can be had from, by the name of the destination that accepted them.
    pub places: Vec<(String, Place)>,
    /// Where they can be had from if they go nowhere.
    pub own_place: Option<Place>,
}

/// A service that inputs may come from.
#[derive(Clone, Debug)]
pub struct InputSource {
    /// Base URL.
    pub url: String,
    /// The service.
    pub client: StowClient,
}

/// A peer that inputs may come from by C-MOVE.
#[derive(Clone, Debug)]
pub struct InputMover {
    /// The peer; its called title is what a workitem names as Retrieve AE Title.
    pub peer: ScuOptions,
    /// Where it sends to: the title of our listener.
    pub destination: AeTitle,
}

/// Performs the workitems of a list until told to stop, or until another takes over: then the steps in hand are ended first. Inputs on
/// their way are cut off, for whoever takes over asks for them again.
pub async fn run_until_retired(
    store: Store,
    ingest: StowIngest,
    list: Arc<TaskList>,
    retired: CancellationToken,
    shutdown: CancellationToken,
) {
    let (wake, begun) = (Notify::new(), Notify::new());
    let mut looker = Looker::new(store.clone(), Arc::clone(&list));
    let mut performer = Performer {
        store: store.clone(),
        ingest,
        list: Arc::clone(&list),
        since: now(),
        stop: shutdown.child_token(),
        under_way: JoinSet::new(),
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = performer.work(&begun, &retired) => {}
        () = looker.run(&wake, &begun, &retired), if !list.is_leaving => {}
        () = listen::run(&store, &list, &wake), if list.events => {}
    }
    // Who was asked to send something is told that it is not wanted any more.
    if shutdown.is_cancelled() && !list.movers.is_empty() {
        let ended = timeout(TO_STOP, async { while performer.under_way.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            debug!(list = %list.name, "steps were cut off; the next start takes them again");
        }
    }
}

struct Performer {
    store: Store,
    ingest: StowIngest,
    list: Arc<TaskList>,
    /// When it began: what was begun before, somebody else may have asked for.
    since: Timestamp,
    /// Cancelled when the program ends, or another takes over.
    stop: CancellationToken,
    /// Tasks in hand: their numbers, and whether a step was taken.
    under_way: JoinSet<(i64, bool)>,
}

impl Performer {
    async fn work(&mut self, begun: &Notify, retired: &CancellationToken) {
        let (mut is_busy, mut in_hand) = (true, BTreeSet::new());
        while !retired.is_cancelled() {
            let open = match self.store.open_tasks(self.list.name.as_str()).await {
                Ok(open) => open,
                Err(failure) => {
                    error!(list = %self.list.name, %failure, "tasks cannot be read; trying again");
                    sleep(TICK).await;
                    continue;
                }
            };
            self.take_on(&open, &mut in_hand);
            if self.list.is_leaving && is_busy == open.is_empty() {
                is_busy = !is_busy;
                info!(list = %self.list.name, is_busy, "a task list is being left");
            }
            tokio::select! {
                () = sleep(TICK) => {}
                () = retired.cancelled() => {}
                () = begun.notified() => {}
                Some(done) = self.under_way.join_next() => {
                    let moved = match done {
                        Ok((id, moved)) => in_hand.remove(&id) && moved,
                        // Which one is not known: all are ended and looked at again. A step can be taken twice.
                        Err(failure) => {
                            error!(%failure, "a task failed");
                            self.under_way.shutdown().await;
                            in_hand.clear();
                            false
                        }
                    };
                    if !moved {
                        sleep(TICK).await;
                    }
                }
            }
        }
        self.stop.cancel();
        while self.under_way.join_next().await.is_some() {}
    }

    /// Begins the next step of every task that is due and not in hand.
    fn take_on(&mut self, open: &[Task], in_hand: &mut BTreeSet<i64>) {
        for task in open.iter().filter(|task| task.next_attempt <= now()) {
            if in_hand.insert(task.id) {
                let (store, ingest, list) = (self.store.clone(), self.ingest.clone(), Arc::clone(&self.list));
                let (task, since, stop) = (task.clone(), self.since, self.stop.clone());
                self.under_way.spawn(async move {
                    let id = task.id;
                    (id, perform::step((&store, &ingest), &list, (task, since), &stop).await)
                });
            }
        }
    }
}
