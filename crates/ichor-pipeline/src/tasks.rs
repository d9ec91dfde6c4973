//! Tasks: workitems of others that we perform (PS3.4 Annex CC, IHE AIW-I Task Performer). What matches is claimed; its input comes
//! in like everything else, or is here already; the study goes its ordinary way; and what came of it is told where it was asked for.
//!
//! Each step is written down before the next begins, and can be taken twice: a process that is killed between any two goes on with
//! the claim it has. The Transaction UID is in the store before the server hears of it.

mod ending;
mod fetch;
mod listen;
mod moving;
mod offer;
mod perform;
mod unwell;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ichor_core::{AeTitle, TaskStatus, Uid, chain};
use ichor_dicomweb::server::ups::{DataSet, UpsState};
use ichor_dicomweb::ups::UpsError;
use ichor_dicomweb::{RetrieveLimits, StowClient};
use ichor_dimse::scu::ScuOptions;
use ichor_store::{NewTask, Store, StoreError, Task};
use rand::Rng;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub use ending::Place;
pub use offer::{Code, Ours};

use crate::backoff::Backoff;
use crate::ingest::StowIngest;
use crate::now;
use unwell::Unwell;

/// Longest time between two looks at the store.
const TICK: Duration = Duration::from_millis(500);
/// Time for steps to end what peers were asked for, when the program ends.
const TO_STOP: Duration = Duration::from_secs(3);
/// After so many workitems in a row that nobody answers for, the rest of a look is left for the next.
const MOST_SILENT: u32 = 3;

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

/// Performs the workitems of a list until told to stop, or until another takes over: then the steps in hand are ended first.
pub async fn run_until_retired(
    store: Store,
    ingest: StowIngest,
    list: Arc<TaskList>,
    retired: CancellationToken,
    shutdown: CancellationToken,
) {
    let wake = Notify::new();
    let under_way = JoinSet::new();
    let mut performer = Performer {
        store: store.clone(),
        ingest,
        list: Arc::clone(&list),
        stop: shutdown.clone(),
        under_way,
        offset: 0,
        unwell: Unwell::default(),
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = performer.work(&wake, &retired) => {}
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
    /// Cancelled when the program ends.
    stop: CancellationToken,
    /// Tasks in hand: their numbers, and whether a step was taken.
    under_way: JoinSet<(i64, bool)>,
    /// How many matches the next search leaves out.
    offset: usize,
    /// Workitems that could not be had.
    unwell: Unwell,
}

/// What an answer to the search offers.
struct Candidate {
    workitem: Uid,
    /// The study that it names, if the answer says so.
    study: Option<Uid>,
    urgent: bool,
}

impl Performer {
    async fn work(&mut self, wake: &Notify, retired: &CancellationToken) {
        let (mut next_look, mut in_hand) = (Instant::now(), BTreeSet::new());
        let mut is_busy = true;
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
            let room = self.list.at_once.saturating_sub(open.iter().filter(|task| keeps_busy(task)).count());
            if Instant::now() >= next_look && room > 0 && !self.list.is_leaving {
                if let Err(failure) = self.look(room).await {
                    error!(list = %self.list.name, %failure, "the task list was not looked through; trying again");
                }
                // Several performers that began together do not go on together.
                next_look = Instant::now() + self.list.poll.mul_f64(rand::rng().random_range(0.8..=1.0));
            }
            tokio::select! {
                () = sleep(TICK) => {}
                () = retired.cancelled() => {}
                () = wake.notified() => next_look = Instant::now(),
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
        while self.under_way.join_next().await.is_some() {}
    }

    /// Begins the next step of every task that is due and not in hand.
    fn take_on(&mut self, open: &[Task], in_hand: &mut BTreeSet<i64>) {
        for task in open.iter().filter(|task| task.next_attempt <= now()) {
            if in_hand.insert(task.id) {
                let (store, ingest, list) = (self.store.clone(), self.ingest.clone(), Arc::clone(&self.list));
                let (task, stop) = (task.clone(), self.stop.clone());
                self.under_way.spawn(async move {
                    let id = task.id;
                    (id, perform::step((&store, &ingest), &list, task, &stop).await)
                });
            }
        }
    }

    /// Looks through the list for what is ours, and begins at most `room` tasks. What is wrong with the list is told, and no error.
    async fn look(&mut self, room: usize) -> Result<(), StoreError> {
        let (query, most) = (self.list.ours.query(), self.list.most_found);
        let query: Vec<(&str, &str)> = query.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let found = self.list.server.search_workitems(&query, self.offset, most).await;
        self.note(found.as_ref().err()).await?;
        let found = found.unwrap_or_default();
        let mut candidates: Vec<Candidate> = found.iter().filter_map(candidate).collect();
        // Those that could be had before those that could not: one that nobody answers for hides nothing.
        candidates.sort_by_key(|one| (self.unwell.failures(&one.workitem), !one.urgent));
        let mut rest = candidates.iter();
        let (mut begun, mut silent) = (0, 0);
        while let Some(one) = rest.next().filter(|_| begun < room && silent < MOST_SILENT) {
            let (uid, name) = (&one.workitem, self.list.name.as_str());
            let status = self.store.task_status(name, uid).await?;
            if self.unwell.waits(uid, Instant::now()) || status.is_some_and(|status| !offer::may_begin(status)) {
                continue;
            }
            match self.list.server.workitem(uid).await {
                Ok(set) => {
                    silent = 0;
                    self.unwell.answered(uid);
                    begun += usize::from(self.consider(uid, &set).await?);
                }
                Err(failure) => {
                    silent = if matches!(failure, UpsError::Web(_)) && failure.may_pass() { silent + 1 } else { 0 };
                    self.not_had(one, &failure).await?;
                }
            }
        }
        // Of a list that has fallen silent the others are looked at first the next time.
        let is_cut = silent == MOST_SILENT && rest.any(|one| self.unwell.failures(&one.workitem) == 0);
        // What is not for us may fill an answer for good: then what stands behind it is looked at next.
        self.offset = match (begun, is_cut) {
            (_, true) => self.offset,
            (0, false) if found.len() >= most => self.offset.saturating_add(most),
            _ => 0,
        };
        Ok(())
    }

    /// A workitem that was found is not to be had now. It is asked for again after a while of its own.
    async fn not_had(&mut self, one: &Candidate, failure: &UpsError) -> Result<(), StoreError> {
        let (name, workitem, words) = (self.list.name.as_str(), &one.workitem, chain(failure));
        if self.unwell.failures(workitem) == 0 {
            warn!(list = name, %workitem, words, "a workitem is not to be had; the others are looked at, and it again later");
        }
        self.unwell.failed(workitem, &self.list.backoff, Instant::now());
        // One that is not there is somebody's mistake, and no task.
        if failure.is_gone() {
            return Ok(());
        }
        let study = one.study.clone().unwrap_or_else(|| workitem.clone());
        let new =
            NewTask { urgent: one.urgent, ..self.task(workitem, study, &DataSet::new(), serde_json::Value::Null) };
        self.store.leave_task(&new, &format!("it is not to be had: {words}"), now()).await
    }

    /// Notes whether the list answers, and says so when that changes.
    async fn note(&self, failure: Option<&UpsError>) -> Result<(), StoreError> {
        let (name, words) = (self.list.name.as_str(), failure.map(|failure| chain(failure)));
        if self.store.task_list_looked_at(name, words.as_deref(), now()).await? {
            match words {
                Some(words) => warn!(list = name, words, "the task list does not answer; trying again"),
                None => info!(list = name, "the task list answers"),
            }
        }
        Ok(())
    }

    /// Begins a task, if the workitem is ours and its input can be had; whether it was begun.
    async fn consider(&self, uid: &Uid, set: &DataSet) -> Result<bool, StoreError> {
        if offer::state(set) != Some(UpsState::Scheduled) || !offer::is_ready(set) || !self.list.ours.has(set) {
            return Ok(false);
        }
        let name = self.list.name.as_str();
        let names = |url: &str| offer::allowed(&self.list, url).map(|(_, what)| what);
        let (study_instance, request) = match offer::request(set, &self.list.ours, names) {
            Ok(read) => read,
            Err(why) => {
                debug!(list = name, workitem = %uid, why, "a workitem asks for what cannot be done: left to others");
                let study = offer::any_study(set).unwrap_or_else(|| uid.clone());
                let new = self.task(uid, study, set, serde_json::Value::Null);
                self.store.leave_task(&new, &why, now()).await?;
                return Ok(false);
            }
        };
        let value = serde_json::to_value(&request).unwrap_or_default();
        let new = self.task(uid, study_instance, set, value);
        if let Some(why) = fetch::not_to_be_had(&self.store, &self.list, &new.study_instance, &request).await? {
            debug!(list = name, workitem = %uid, why, "left to others for now");
            self.store.leave_task(&new, &why, now()).await?;
            return Ok(false);
        }
        let begun = self.store.begin_task(&new, now()).await?;
        if begun.is_some() {
            info!(list = name, workitem = %uid, study = %new.study_instance, urgent = new.urgent, "claiming a workitem");
        }
        Ok(begun.is_some())
    }

    fn task(&self, uid: &Uid, study_instance: Uid, set: &DataSet, request: serde_json::Value) -> NewTask {
        let secret: [u8; 32] = rand::rng().random();
        let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        NewTask {
            list: self.list.name.as_str().to_owned(),
            workitem: uid.clone(),
            transaction: Uid::derive(["transaction", uid.as_str(), secret.as_str()]),
            study_instance,
            urgent: offer::is_urgent(set),
            request,
        }
    }
}

/// What an answer to the search offers: it may not say everything, and may hold what was not asked for.
fn candidate(set: &DataSet) -> Option<Candidate> {
    let workitem = offer::name(set)?;
    let state = offer::state(set);
    let is_free = state.is_none_or(|state| state == UpsState::Scheduled);
    is_free.then(|| Candidate { workitem, study: offer::any_study(set), urgent: offer::is_urgent(set) })
}

/// Whether a task counts among those under way at once: one whose list does not hear its end takes no other's place.
fn keeps_busy(task: &Task) -> bool {
    !(task.status == TaskStatus::Ending && task.failures > 0)
}
