//! Looks at a task list: what is ours is begun, beside the tasks that are under way.

use std::future::pending;
use std::sync::Arc;

use ichor_core::{TaskStatus, Uid, chain};
use ichor_dicomweb::server::ups::{DataSet, UpsState};
use ichor_dicomweb::ups::UpsError;
use ichor_store::{NewTask, Store, StoreError, Task};
use rand::Rng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::unwell::Unwell;
use super::{TICK, TaskList, fetch, offer};
use crate::now;

/// After so many workitems in a row that nobody answers for, the rest of a look is left for the next.
const MOST_SILENT: u32 = 3;

/// Who looks at a list.
pub(super) struct Looker {
    store: Store,
    list: Arc<TaskList>,
    /// How many matches the next search leaves out.
    offset: usize,
    /// Workitems that could not be had.
    unwell: Unwell,
    /// Whether so much waits for people that nothing more is claimed.
    is_held_back: bool,
}

/// What an answer to the search offers.
struct Candidate {
    workitem: Uid,
    /// The study that it names, if the answer says so.
    study: Option<Uid>,
    urgent: bool,
}

impl Looker {
    pub(super) fn new(store: Store, list: Arc<TaskList>) -> Self {
        Self { store, list, offset: 0, unwell: Unwell::default(), is_held_back: false }
    }

    /// Looks at the list again and again, until another takes over; never ends. A list that is slow to answer keeps no task from its
    /// steps.
    pub(super) async fn run(&mut self, wake: &Notify, begun: &Notify, retired: &CancellationToken) {
        retired.run_until_cancelled(self.look_on(wake, begun)).await;
        pending::<()>().await;
    }

    async fn look_on(&mut self, wake: &Notify, begun: &Notify) {
        let mut next_look = Instant::now();
        loop {
            if Instant::now() >= next_look {
                match self.look_if_there_is_room(begun).await {
                    // Several performers that began together do not go on together.
                    Ok(true) => {
                        next_look = Instant::now() + self.list.poll.mul_f64(rand::rng().random_range(0.8..=1.0));
                    }
                    Ok(false) => {}
                    Err(failure) => {
                        error!(list = %self.list.name, %failure, "the task list was not looked through; trying again");
                        next_look = Instant::now() + self.list.poll;
                    }
                }
            }
            tokio::select! {
                () = sleep(TICK) => {}
                () = wake.notified() => next_look = Instant::now(),
            }
        }
    }

    /// Whether there was room for more: then the next look has time.
    async fn look_if_there_is_room(&mut self, begun: &Notify) -> Result<bool, StoreError> {
        let open = self.store.open_tasks(self.list.name.as_str()).await?;
        let busy = open.iter().filter(|task| keeps_busy(task)).count();
        let room = self.list.at_once.saturating_sub(busy);
        if room > 0 && !self.holds_back(open.len() - busy).await? {
            self.look(room, begun).await?;
        }
        Ok(room > 0)
    }

    /// Whether nothing more is claimed, for a list that does not take what becomes of it would have everything claimed in the end. It
    /// is said where the list is said to be up or down.
    async fn holds_back(&mut self, untold: usize) -> Result<bool, StoreError> {
        let (name, most) = (self.list.name.as_str(), self.list.most_stuck);
        let depths = self.store.task_depths().await?;
        let refused = depths.iter().filter(|depth| depth.list == name && depth.status == TaskStatus::Refused);
        let stuck = usize::try_from(refused.map(|depth| depth.count).sum::<u64>()).unwrap_or(usize::MAX);
        let is_held_back = untold.saturating_add(stuck) >= most;
        if is_held_back {
            let words = format!(
                "nothing more is claimed: {most} workitems or more stand there as ours whose end is not taken (ichor tasks list)"
            );
            self.store.task_list_looked_at(name, Some(&words), now()).await?;
            if !self.is_held_back {
                error!(
                    list = name,
                    untold,
                    refused = stuck,
                    most,
                    "nothing more is claimed from a task list that does not take the ends"
                );
            }
        } else if self.is_held_back {
            info!(list = name, "workitems are claimed again");
        }
        self.is_held_back = is_held_back;
        Ok(is_held_back)
    }

    /// Looks through the list for what is ours, and begins at most `room` tasks. What is wrong with the list is told, and no error.
    async fn look(&mut self, room: usize, begun_one: &Notify) -> Result<(), StoreError> {
        let (query, most) = (self.list.ours.query(), self.list.most_found);
        let query: Vec<(&str, &str)> = query.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let found = self.list.server.search_workitems(&query, self.offset, most).await;
        self.note(found.as_ref().err()).await?;
        let found = found.unwrap_or_default();
        let mut candidates: Vec<Candidate> = found.iter().filter_map(candidate).collect();
        // Those that could be had before those that could not: one that nobody answers for hides nothing.
        candidates.sort_by_key(|one| (self.unwell.failures(&one.workitem), !one.urgent));
        let mut rest = candidates.iter();
        let (mut begun, mut silent, mut was_unwell) = (0, 0, false);
        while let Some(one) = rest.next().filter(|_| begun < room && silent < MOST_SILENT) {
            let (uid, name) = (&one.workitem, self.list.name.as_str());
            let status = self.store.task_status(name, uid).await?;
            if self.unwell.waits(uid, Instant::now()) || status.is_some_and(|status| !offer::may_begin(status)) {
                continue;
            }
            // One of those that could not be had, each time: each may take as long as an answer may.
            let is_unwell = self.unwell.failures(uid) > 0;
            if is_unwell && was_unwell {
                break;
            }
            was_unwell |= is_unwell;
            match self.list.server.workitem(uid).await {
                Ok(set) => {
                    silent = 0;
                    self.unwell.answered(uid);
                    if self.consider(uid, &set).await? {
                        begun += 1;
                        begun_one.notify_one();
                    }
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
