//! One step of a task: what is due is asked of the server, of the source or of the store, and what came of it is written down.

use std::time::Duration;

use ichor_core::{StudyStatus, TaskStatus, chain};
use ichor_dicomweb::server::ups::{UpsState, attribute, data_set, sequence};
use ichor_dicomweb::ups::UpsError;
use ichor_store::{Store, StoreError, StudyDetail, StudyKey, Task, TaskStep, Timestamp};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::TaskList;
use super::ending::{self, Ending, Why};
use super::fetch::{self, Fetched};
use super::offer::{self, Request};
use crate::ingest::StowIngest;
use crate::now;

/// Progress that is told, in percent.
const INPUT_HERE: u8 = 10;
const ANALYSING: u8 = 50;
const DELIVERING: u8 = 90;

/// Takes the next step of a task; whether it has got any further. With the moment since when nobody else takes steps of the list here.
pub(super) async fn step(
    (store, ingest): (&Store, &StowIngest),
    list: &TaskList,
    (task, since): (Task, Timestamp),
    stop: &CancellationToken,
) -> bool {
    let hand = Hand { store, ingest, list, task, since, stop };
    let (workitem, name) = (&hand.task.new.workitem, &list.name);
    match hand.take().await {
        Ok(moved) => moved,
        // Somebody else has taken the step: the next look sees it.
        Err(StoreError::StaleClaim { .. }) => false,
        Err(failure) => {
            error!(list = %name, %workitem, failure = %chain(&failure), "a task stands still; trying again");
            false
        }
    }
}

/// What was being told when a server objected.
#[derive(Clone, Copy)]
enum Said<'a> {
    Progress(u8),
    End(&'a Ending),
}

struct Hand<'a> {
    store: &'a Store,
    ingest: &'a StowIngest,
    list: &'a TaskList,
    task: Task,
    since: Timestamp,
    stop: &'a CancellationToken,
}

impl Hand<'_> {
    async fn take(&self) -> Result<bool, StoreError> {
        match self.task.status {
            TaskStatus::Claiming => self.claim().await,
            TaskStatus::Claimed => self.fetch().await,
            TaskStatus::Waiting => self.wait().await,
            TaskStatus::Ending => self.end().await,
            TaskStatus::Left
            | TaskStatus::Completed
            | TaskStatus::Canceled
            | TaskStatus::Lost
            | TaskStatus::Refused
            | TaskStatus::GivenUp => Ok(false),
        }
    }

    async fn advance(&self, step: &TaskStep, words: &str) -> Result<bool, StoreError> {
        let (list, workitem) = (&self.list.name, &self.task.new.workitem);
        match step {
            TaskStep::Again(_) | TaskStep::AgainRefused(_) => warn!(%list, %workitem, words, "a task is delayed"),
            TaskStep::LeftToPeople => error!(%list, %workitem, words, "a task is refused: somebody has to decide"),
            TaskStep::Ended(TaskStatus::Lost) => warn!(%list, %workitem, words, "a task is lost"),
            _ => info!(%list, %workitem, words, "task"),
        }
        self.store.advance_task(&self.task, step, words, now()).await?;
        Ok(!matches!(step, TaskStep::Again(_) | TaskStep::AgainRefused(_)))
    }

    async fn again(&self, words: &str) -> Result<bool, StoreError> {
        let wait = self.list.backoff.after(self.task.failures + 1).unwrap_or(self.list.backoff.longest);
        self.advance(&TaskStep::Again(now().after(wait)), words).await
    }

    /// The server does not take what has to be said: it is said again within bounds, and then left to people.
    async fn not_taken(&self, words: &str, refused: &UpsError) -> Result<bool, StoreError> {
        let (list, task) = (self.list, &self.task);
        let words = format!("{words}: {}", chain(refused));
        let is_for_good = !refused.may_pass();
        let refusals = task.refusals + u32::from(is_for_good);
        let is_late = now().since(task.asked_since) >= list.tell_within;
        if is_late || refusals >= list.most_refusals {
            let words = format!(
                "{words}; not taken {} times in {}: ichor tasks retry {id}, or give-up {id}",
                task.failures + 1,
                hours(now().since(task.asked_since)),
                id = task.id
            );
            return self.advance(&TaskStep::LeftToPeople, &words).await;
        }
        let at = now().after(list.backoff.after(task.failures + 1).unwrap_or(list.backoff.longest));
        let step = if is_for_good { TaskStep::AgainRefused(at) } else { TaskStep::Again(at) };
        self.advance(&step, &words).await
    }

    async fn lose(&self, words: &str) -> Result<bool, StoreError> {
        self.advance(&TaskStep::Ended(TaskStatus::Lost), words).await
    }

    async fn give_up(&self, why: Why, words: &str, detail: Option<&StudyDetail>) -> Result<bool, StoreError> {
        let ending = ending::canceled(self.list, &self.task, &self.request(), (why, words), detail);
        self.advance(&TaskStep::Ending(value(&ending)), &ending.words).await
    }

    fn request(&self) -> Request {
        let empty = Request { code: None, station: None, inputs: Vec::new() };
        serde_json::from_value(self.task.new.request.clone()).unwrap_or(empty)
    }

    /// Claims the workitem. A claim whose answer nobody heard is made again, and refused again: whoever may update it has it.
    async fn claim(&self) -> Result<bool, StoreError> {
        let (workitem, transaction) = (&self.task.new.workitem, &self.task.new.transaction);
        match self.list.server.change_workitem_state(workitem, UpsState::InProgress, transaction).await {
            Ok(()) => self.advance(&TaskStep::Claimed, "claimed").await,
            Err(refused) if refused.is_gone() => self.gone(&refused).await,
            Err(refused) if refused.may_pass() => self.not_taken("not claimed yet", &refused).await,
            Err(refused) => self.whose_is_it(&refused).await,
        }
    }

    async fn whose_is_it(&self, refused: &UpsError) -> Result<bool, StoreError> {
        let (workitem, transaction) = (&self.task.new.workitem, &self.task.new.transaction);
        let progress = progress(0, "claimed");
        match self.list.server.update_workitem(workitem, transaction, progress).await {
            Ok(()) => self.advance(&TaskStep::Claimed, "claimed, by a request whose answer was not heard").await,
            Err(other) if other.may_pass() => self.not_taken("whether it is claimed is not known", &other).await,
            Err(other) if other.is_of_another() => self.anothers(refused).await,
            Err(other) if other.is_conflict() || other.is_gone() => self.is_it_ours(refused).await,
            // It does not like the update; if the workitem is ours all the same it must not stay so.
            Err(other) => {
                match self.list.server.change_workitem_state(workitem, UpsState::Canceled, transaction).await {
                    Ok(()) => {
                        let words = format!("given back, as its list does not take our reports: {}", chain(&other));
                        self.advance(&TaskStep::Ended(TaskStatus::Canceled), &words).await
                    }
                    Err(later) if later.may_pass() => self.not_taken("not given back yet", &later).await,
                    Err(later) if later.is_of_another() => self.anothers(refused).await,
                    Err(_) => self.is_it_ours(refused).await,
                }
            }
        }
    }

    async fn anothers(&self, refused: &UpsError) -> Result<bool, StoreError> {
        self.lose(&format!("somebody else was first: {}", chain(refused))).await
    }

    /// The claim was refused, and whether it is ours by one whose answer nobody heard was not said: its state says more.
    async fn is_it_ours(&self, refused: &UpsError) -> Result<bool, StoreError> {
        let state = match self.list.server.workitem(&self.task.new.workitem).await {
            Ok(set) => offer::state(&set),
            Err(gone) if gone.is_gone() => return self.gone(&gone).await,
            Err(other) => return self.not_taken("whose it is is not known", &other).await,
        };
        match state {
            Some(state) if state.is_final() => {
                self.lose(&format!("somebody else has made it {}", state.as_str())).await
            }
            // Nobody's: if it is offered again it is begun again.
            Some(UpsState::Scheduled) => self.lose(&format!("not claimed: {}", chain(refused))).await,
            _ if self.is_first_claim() => self.anothers(refused).await,
            _ => self.not_taken("it may be claimed by us, and is not given to us", refused).await,
        }
    }

    /// The list says that there is no such workitem. It is lost if it cannot be ours: an address that has changed says so as well.
    async fn gone(&self, gone: &UpsError) -> Result<bool, StoreError> {
        if self.is_first_claim() {
            return self.lose("it is gone").await;
        }
        self.not_taken("it is gone, or its list has another address", gone).await
    }

    /// Whether nothing was asked for before, by a process that was killed either: no claim whose answer was not heard has made it ours.
    fn is_first_claim(&self) -> bool {
        let task = &self.task;
        task.status == TaskStatus::Claiming
            && task.asked_since >= self.since
            && task.failures == 0
            && task.claimed_at.is_none()
            && task.last_words.is_none()
    }

    async fn fetch(&self) -> Result<bool, StoreError> {
        if self.task.cancel_words.is_some() {
            return self.give_up(Why::Asked, "canceled as asked, before anything was begun", None).await;
        }
        let request = self.request();
        match fetch::fetch((self.store, self.ingest), self.list, (&self.task, &request), self.stop).await? {
            Fetched::Here(words) => self.advance(&TaskStep::InputHere, &words).await,
            Fetched::Wrong(words) => self.give_up(Why::WrongInput, &words, None).await,
            // One that is cut off is no failure.
            Fetched::NotYet(words) if self.is_overdue() && !self.stop.is_cancelled() => {
                let words = format!("{words}; given up after {}", hours(self.list.give_up_after));
                self.give_up(Why::Incomplete, &words, None).await
            }
            Fetched::NotYet(words) => self.again(&words).await,
        }
    }

    fn is_overdue(&self) -> bool {
        let since = self.task.claimed_at.unwrap_or(self.task.seen_at);
        now().since(since) >= self.list.give_up_after
    }

    /// Waits for the outcome of the newest version, and until its objects are where they go.
    async fn wait(&self) -> Result<bool, StoreError> {
        let detail = match self.store.study(&StudyKey::Uid(self.task.new.study_instance.clone())).await {
            Ok(detail) => detail,
            Err(StoreError::NotFound { .. }) if self.is_overdue() => {
                return self.give_up(Why::Incomplete, "its study is not here", None).await;
            }
            Err(StoreError::NotFound { .. }) => return self.again("its study is not here").await,
            Err(error) => return Err(error),
        };
        let summary = &detail.summary;
        let is_begun = !matches!(summary.status, StudyStatus::Receiving | StudyStatus::Queued);
        if self.task.cancel_words.is_some() {
            if !is_begun && summary.result_version.is_none() {
                return self.give_up(Why::Asked, "canceled as asked, before the analysis began", None).await;
            }
            let words = "it goes on: cancellation was asked for after the analysis had begun";
            return self.advance(&TaskStep::CancelDeclined, words).await;
        }
        match summary.status {
            StudyStatus::Receiving | StudyStatus::Queued => self.tell(INPUT_HERE, "waits for its analysis").await,
            StudyStatus::Analysing => self.tell(ANALYSING, "being analysed").await,
            StudyStatus::Failed => {
                let reason = summary.reason.as_ref().map(|reason| reason.text.as_str()).unwrap_or_default();
                self.give_up(Why::Failed, &format!("the analysis failed: {reason}"), None).await
            }
            StudyStatus::Analysed | StudyStatus::NotAnalysed => self.settle(&detail).await,
        }
    }

    async fn settle(&self, detail: &StudyDetail) -> Result<bool, StoreError> {
        let outputs = ending::outputs(self.list, detail);
        if let Some(waiting) = outputs.waiting.first() {
            return self.tell(DELIVERING, &format!("results wait for {waiting}")).await;
        }
        if !outputs.undelivered.is_empty() {
            let words = format!("{} results were accepted nowhere", outputs.undelivered.len());
            return self.give_up(Why::Failed, &words, Some(detail)).await;
        }
        if detail.summary.status == StudyStatus::NotAnalysed {
            let reason = detail.summary.reason.as_ref().map(|reason| reason.text.as_str()).unwrap_or_default();
            return self.give_up(Why::NotAnalysed, &format!("not analysed: {reason}"), Some(detail)).await;
        }
        let ending = ending::completed(self.list, &self.task, &self.request(), detail);
        self.advance(&TaskStep::Ending(value(&ending)), &ending.words).await
    }

    /// Tells how far it is, once. What the server does not hear now it hears with the next word.
    async fn tell(&self, percent: u8, words: &str) -> Result<bool, StoreError> {
        if self.task.progress >= percent {
            return Ok(false);
        }
        let (workitem, transaction) = (&self.task.new.workitem, &self.task.new.transaction);
        match self.list.server.update_workitem(workitem, transaction, progress(percent, words)).await {
            Ok(()) => self.advance(&TaskStep::Progress(percent), &format!("{percent} %: {words}")).await,
            Err(refused) if refused.is_conflict() => self.is_it_over(&refused, Said::Progress(percent)).await,
            Err(refused) if refused.may_pass() => {
                debug!(%workitem, failure = %chain(&refused), "progress was not told");
                self.again(&format!("its progress could not be told: {}", chain(&refused))).await
            }
            Err(refused) => self.progress_refused(percent, &refused).await,
        }
    }

    /// Who does not take progress may take the end: it goes on.
    async fn progress_refused(&self, percent: u8, refused: &UpsError) -> Result<bool, StoreError> {
        let words = format!("its list does not take that it is at {percent} %, it goes on: {}", chain(refused));
        self.advance(&TaskStep::Progress(percent), &words).await
    }

    /// Tells what came of it, and then that it is over. Both can be said twice.
    async fn end(&self) -> Result<bool, StoreError> {
        let ending: Option<Ending> = self.task.ending.clone().and_then(|ending| serde_json::from_value(ending).ok());
        let Some(ending) = ending else {
            return Err(StoreError::Corrupt { what: format!("the ending of task {}", self.task.id) });
        };
        let (workitem, transaction) = (&self.task.new.workitem, &self.task.new.transaction);
        let (state, status) = ending.state();
        let told = match self.list.server.update_workitem(workitem, transaction, ending.update.clone()).await {
            Ok(()) => self.list.server.change_workitem_state(workitem, state, transaction).await,
            refused => refused,
        };
        match told {
            Ok(()) => self.advance(&TaskStep::Ended(status), &format!("{}: {}", state.as_str(), ending.words)).await,
            Err(refused) if refused.is_gone() => self.gone(&refused).await,
            Err(refused) if refused.is_conflict() => self.is_it_over(&refused, Said::End(&ending)).await,
            Err(refused) => self.not_taken("its outcome was not taken", &refused).await,
        }
    }

    /// After a conflict: how the workitem stands. It may be over by a request of ours whose answer nobody heard.
    async fn is_it_over(&self, refused: &UpsError, said: Said<'_>) -> Result<bool, StoreError> {
        let workitem = &self.task.new.workitem;
        let state = match self.list.server.workitem(workitem).await {
            Ok(set) => offer::state(&set),
            Err(gone) if gone.is_gone() => return self.gone(&gone).await,
            Err(other) => return self.not_taken("how it stands is not known", &other).await,
        };
        match (state, said) {
            (Some(state), Said::End(ending)) if state == ending.state().0 => {
                let words = format!("{}, by a request whose answer was not heard", state.as_str());
                self.advance(&TaskStep::Ended(ending.state().1), &words).await
            }
            (Some(state), _) if state.is_final() => {
                self.lose(&format!("somebody else has made it {}", state.as_str())).await
            }
            // The server has forgotten our claim: it is made anew, with the same name.
            (Some(UpsState::Scheduled), _) => {
                let transaction = &self.task.new.transaction;
                let claimed = self.list.server.change_workitem_state(workitem, UpsState::InProgress, transaction).await;
                match claimed {
                    // A list that forgets it again and again is one that refuses.
                    Ok(()) => self.not_taken("its list had forgotten the claim: claimed anew", refused).await,
                    // If somebody else has it, that is said the next time.
                    Err(other) => self.not_taken("not claimed anew", &other).await,
                }
            }
            // Ours, unless the server says otherwise: what it does not like is then what we say.
            (Some(UpsState::InProgress), _) if refused.is_of_another() => {
                self.lose(&format!("claimed by somebody else: {}", chain(refused))).await
            }
            (Some(UpsState::InProgress), Said::Progress(percent)) => self.progress_refused(percent, refused).await,
            (_, Said::Progress(_)) => self.again(&format!("how it stands cannot be read: {}", chain(refused))).await,
            (_, Said::End(_)) => self.not_taken("its outcome was not taken", refused).await,
        }
    }
}

fn value(ending: &Ending) -> Value {
    serde_json::to_value(ending).unwrap_or_default()
}

/// Procedure Step Progress Information Sequence (PS3.3 C.30.1).
fn progress(percent: u8, words: &str) -> ichor_dicomweb::server::ups::DataSet {
    let item = data_set([("00741004", attribute("DS", percent)), ("00741006", attribute("ST", words))]);
    data_set([("00741002", sequence(vec![item]))])
}

fn hours(duration: Duration) -> String {
    format!("{:.1} h", duration.as_secs_f64() / 3600.0)
}
