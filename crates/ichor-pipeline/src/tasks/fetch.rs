//! The input of a task: what is here already is used, what is not is fetched by WADO-RS from where the configuration lets it come
//! from, or sent here by whom the configuration lets be asked by C-MOVE, through the stage that everything comes in by.

use std::collections::BTreeSet;

use ichor_core::{Uid, chain};
use ichor_dicomweb::server::{PartOutcome, RequestEnd, StowHandler};
use ichor_dicomweb::{InstancesOf, RetrieveError, Retrieved};
use ichor_store::{Store, StoreError, StudyKey, Task};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::offer::{Input, Request, allowed};
use super::{InputMover, TaskList, moving};
use crate::ingest::StowIngest;

/// 0xA900, Data Set Does Not Match SOP Class: the instance is of another study, or is not what its header says.
const NOT_WHAT_WAS_SAID: u16 = 0xA900;

const CUT_OFF: &str = "cut off, as another takes over or the program ends";

/// What came of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// The input is here.
    Here(String),
    /// Not yet; why.
    NotYet(String),
    /// It is not what the workitem says, and will not be.
    Wrong(String),
}

/// Why the input of a workitem cannot be had; `None` if it can.
///
/// # Errors
/// The store's.
pub(super) async fn not_to_be_had(
    store: &Store,
    list: &TaskList,
    study: &Uid,
    request: &Request,
) -> Result<Option<String>, StoreError> {
    for input in &request.inputs {
        let may_be_fetched = input.urls.iter().any(|url| allowed(list, url).is_some()) || mover(list, input).is_some();
        if may_be_fetched || is_here(store, study, input).await? {
            continue;
        }
        if let Some(url) = input.urls.first() {
            return Ok(Some(format!(
                "its Retrieve URL {:?} is below no address that inputs may come from",
                short(url)
            )));
        }
        if !is_known(store, study).await? {
            return Ok(Some(match input.titles.first() {
                Some(title) => format!(
                    "its study is not here, and its Retrieve AE Title {title} is that of no source that inputs may come from"
                ),
                None => "its study is not here, and it names no WADO-RS URL and no AE title to have it from".to_owned(),
            }));
        }
    }
    Ok(None)
}

/// Who may be asked to send an input here.
fn mover<'a>(list: &'a TaskList, input: &Input) -> Option<&'a InputMover> {
    list.movers.iter().find(|mover| input.titles.contains(&mover.peer.called_ae))
}

/// What a peer wrote, cut.
fn short(url: &str) -> String {
    url.chars().filter(|c| !c.is_control()).take(200).collect()
}

async fn is_here(store: &Store, study: &Uid, input: &Input) -> Result<bool, StoreError> {
    Ok(!input.instances.is_empty() && store.missing_instances(study, &input.instances).await?.is_empty())
}

async fn is_known(store: &Store, study: &Uid) -> Result<bool, StoreError> {
    match store.study(&StudyKey::Uid(study.clone())).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has the whole input of a task here.
///
/// # Errors
/// The store's.
pub(super) async fn fetch(
    (store, ingest): (&Store, &StowIngest),
    list: &TaskList,
    (task, request): (&Task, &Request),
    stop: &CancellationToken,
) -> Result<Fetched, StoreError> {
    let study = &task.new.study_instance;
    let (mut came, mut warned, mut was_here) = (0, 0, true);
    let mut without = Vec::new();
    for input in &request.inputs {
        if is_here(store, study, input).await? {
            continue;
        }
        was_here = false;
        if let Some((source, what)) = input.urls.iter().find_map(|url| allowed(list, url)) {
            // No more than is asked for.
            let what = InstancesOf { series: what.series.or_else(|| input.series.clone()), ..what };
            match retrieve(ingest, list, (source, &what), stop).await {
                Ok(count) => came += count,
                Err(failed) => return Ok(failed),
            }
        } else if let Some(mover) = mover(list, input) {
            match moving::fetch(store, list, mover, (task, input), stop).await? {
                Ok((sent, warnings, missed)) => {
                    (came, warned) = (came + sent, warned + warnings);
                    without.extend(missed);
                }
                Err(failed) => return Ok(failed),
            }
        } else {
            let missing = store.missing_instances(study, &input.instances).await?.len();
            if missing == 0 && is_known(store, study).await? {
                continue;
            }
            return Ok(Fetched::NotYet(format!("{missing} of its instances have not arrived")));
        }
        let missing = store.missing_instances(study, &input.instances).await?;
        if let Some(first) = missing.first() {
            let (missing, of) = (missing.len(), input.instances.len());
            return Ok(Fetched::NotYet(format!(
                "{missing} of {of} instances of its input did not come, among them {first}"
            )));
        }
    }
    if !without.is_empty() {
        return Ok(Fetched::Here(format!(
            "its input was fetched: {came} instances; the rest never comes: {}",
            without.join(", ")
        )));
    }
    Ok(Fetched::Here(match (was_here, came) {
        (true, _) | (_, 0) => "its input is here".to_owned(),
        (_, came) if warned > 0 => format!("its input was fetched: {came} instances, {warned} of them with a warning"),
        (_, came) => format!("its input was fetched: {came} instances"),
    }))
}

/// Fetches instances; how many came.
async fn retrieve(
    ingest: &StowIngest,
    list: &TaskList,
    (source, what): (&super::InputSource, &InstancesOf),
    stop: &CancellationToken,
) -> Result<u64, Fetched> {
    let url = source.client.retrieve_url(what);
    let opened = ingest.retrieval_opened(&list.name, &url, &what.study).await;
    let request = opened.map_err(|refusal| Fetched::NotYet(refusal.to_string()))?;
    let mut retrieved = Retrieved::default();
    let retrieving = Box::pin(source.client.retrieve(what, &list.limits, &mut retrieved, || ingest.begin(&request)));
    // Whoever sends a byte now and then does not hold a claim for ever; the first try is one, however soon it is given up.
    let longest = list.give_up_after.max(list.limits.idle);
    let ended = stop.run_until_cancelled(timeout(longest, retrieving)).await;
    let is_cut_off = ended.is_none();
    let ended = ended.unwrap_or(Ok(Ok(()))).unwrap_or(Err(RetrieveError::Late(longest)));
    let mut counted = Counted::default();
    for part in &retrieved.parts {
        counted.add(&part.outcome);
    }
    let outcome = match &ended {
        Err(error) => chain(error),
        Ok(()) if is_cut_off => CUT_OFF.to_owned(),
        Ok(()) => "retrieved".to_owned(),
    };
    let end = RequestEnd {
        status: Some(200),
        outcome,
        instances: counted.stored,
        failures: retrieved.parts.len() as u64 - counted.stored,
        bytes: retrieved.bytes,
    };
    ingest.request_closed(request, end).await;
    info!(list = %list.name, %url, stored = counted.stored, refused = retrieved.parts.len() as u64 - counted.stored,
        "input of a task retrieved");
    if is_cut_off {
        return Err(Fetched::NotYet(CUT_OFF.to_owned()));
    }
    counted.judge(ended.err().map(|error| (error.may_pass(), chain(&error))))
}

#[derive(Default)]
struct Counted {
    stored: u64,
    later: Option<String>,
    wrong: Option<String>,
    refused: BTreeSet<String>,
}

impl Counted {
    fn add(&mut self, outcome: &PartOutcome) {
        match outcome {
            PartOutcome::Stored | PartOutcome::Warning { .. } => self.stored += 1,
            PartOutcome::Failed(failure) if failure.is_temporary => self.later = Some(failure.text.clone()),
            PartOutcome::Failed(failure) if failure.reason == NOT_WHAT_WAS_SAID => {
                self.wrong = Some(failure.text.clone());
            }
            PartOutcome::Failed(failure) => {
                self.refused.insert(failure.text.clone());
            }
        }
    }

    /// What the parts, and the end of the answer, come to.
    fn judge(self, failure: Option<(bool, String)>) -> Result<u64, Fetched> {
        if let Some(wrong) = self.wrong {
            return Err(Fetched::Wrong(format!("what came is not what the workitem names: {wrong}")));
        }
        match failure {
            Some((true, words)) => return Err(Fetched::NotYet(format!("its input was not retrieved: {words}"))),
            Some((false, words)) => return Err(Fetched::Wrong(format!("its input cannot be retrieved: {words}"))),
            None => {}
        }
        if let Some(later) = self.later {
            return Err(Fetched::NotYet(format!("its input could not be kept: {later}")));
        }
        match (self.stored, self.refused.first()) {
            (0, Some(why)) => Err(Fetched::Wrong(format!("nothing of its input can be taken: {why}"))),
            (0, None) => Err(Fetched::NotYet("an empty answer where its input should be".to_owned())),
            (stored, _) => Ok(stored),
        }
    }
}

#[cfg(test)]
mod tests {
    use ichor_dicomweb::server::PartFailure;

    use super::*;

    fn failed(reason: u16, is_temporary: bool) -> PartOutcome {
        PartOutcome::Failed(PartFailure { reason, text: format!("reason {reason:04X}"), is_temporary })
    }

    #[test]
    fn what_parts_come_to() {
        let judge = |outcomes: &[PartOutcome], failure: Option<(bool, &str)>| {
            let mut counted = Counted::default();
            outcomes.iter().for_each(|outcome| counted.add(outcome));
            match counted.judge(failure.map(|(may_pass, words)| (may_pass, words.to_owned()))) {
                Ok(count) => format!("here {count}"),
                Err(Fetched::NotYet(_)) => "later".to_owned(),
                Err(Fetched::Wrong(_)) => "wrong".to_owned(),
                Err(Fetched::Here(_)) => unreachable!(),
            }
        };
        let stored = PartOutcome::Stored;
        assert_eq!(judge(&[stored.clone(), stored.clone()], None), "here 2");
        // A presentation state that is not accepted costs nothing but itself.
        assert_eq!(judge(&[stored.clone(), failed(0x0122, false)], None), "here 1");
        assert_eq!(judge(&[failed(0x0122, false)], None), "wrong");
        assert_eq!(judge(&[stored.clone(), failed(0xA900, false)], None), "wrong", "a file of another study");
        assert_eq!(judge(&[stored.clone(), failed(0xA700, true)], None), "later", "a full disk");
        assert_eq!(judge(std::slice::from_ref(&stored), Some((true, "cut"))), "later");
        assert_eq!(judge(&[stored], Some((false, "too long"))), "wrong");
        assert_eq!(judge(&[], None), "later");
    }
}
