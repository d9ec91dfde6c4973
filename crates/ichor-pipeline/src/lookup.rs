//! Look-ups: a worklist or a PACS is asked about studies that are arriving. What it says goes into the store, beside what was
//! received: the accession number, and how many instances there should be, by which a study closes sooner or waits.
//!
//! Nobody waits for an answer: a study whose look-up fails, hangs or lies closes by its quiet period, or by the bound of its
//! waiting. One task a peer, one question at a time.

mod ask;
mod judge;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use ichor_core::AeTitle;
use ichor_dicomweb::StowClient;
use ichor_dimse::scu::ScuOptions;
use ichor_store::{DueLookup, LookupPeer, Store, StoreError, Topic};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::backoff::Backoff;
use crate::now;
use ask::{Asked, Asker};
use plan::Step;

/// Longest time between two looks, whatever the wake-ups say.
const POLL: Duration = Duration::from_secs(1);
/// Wake-ups within this time lead to one look.
const TOGETHER: Duration = Duration::from_millis(300);
/// Questions before somebody asks whether it is time to stop.
const AT_ONCE: u32 = 100;

/// How a peer is asked.
#[derive(Clone, Debug)]
pub enum Inquiry {
    /// A modality worklist (PS3.4 Annex K).
    Worklist(ScuOptions, Match),
    /// The Study Root model (PS3.4 C.6.2).
    Find(ScuOptions, Count),
    /// QIDO-RS (PS3.18 10.6).
    Web(Box<StowClient>, Count),
}

/// Which steps of a worklist are a study's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// What must be the same.
    pub by: MatchBy,
    /// Scheduled Station AE Title that is asked for; `None`: any.
    pub station: Option<AeTitle>,
}

/// By what a scheduled procedure step is known to be a study's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchBy {
    /// Its Study Instance UID: the scanner took it from the worklist.
    Study,
    /// Its Patient ID, if all steps of that patient for CT on the study's day have one accession number.
    Patient,
}

/// What is asked about numbers of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Nothing.
    Nothing,
    /// Number of Study Related Instances.
    Study,
    /// Number of Series Related Instances of each series.
    Series,
}

/// Settings of a peer.
#[derive(Clone, Debug)]
pub struct LookupOptions {
    /// Its name.
    pub name: String,
    /// Its place in the configuration.
    pub rank: u32,
    /// How it is asked.
    pub inquiry: Inquiry,
    /// Whether it is asked for accession numbers.
    pub accession: bool,
    /// Modalities of series whose instances are waited for; empty: all.
    pub modalities: Vec<String>,
    /// Senders whose studies it is asked about; empty: everybody's.
    pub sources: Vec<AeTitle>,
    /// Time for one question with all its answers.
    pub timeout: Duration,
    /// When it is asked again after a failure, and how often.
    pub backoff: Backoff,
    /// For how long nothing has arrived before it is asked for numbers.
    pub settle: Duration,
    /// How soon it is asked again while a study is open.
    pub interval: Duration,
    /// Most questions about one version of a study.
    pub most_questions: u32,
    /// Most questions a minute; 0: as fast as it goes.
    pub per_minute: u32,
    /// Most matches of one answer.
    pub most_matches: usize,
    /// More instances than this in a study are no number.
    pub most_instances: u32,
    /// Whether a study that is complete closes before its quiet period has passed.
    pub close_when_complete: bool,
    /// For how long the same numbers must have been told before that.
    pub stable: Duration,
    /// For how long after its quiet period a study waits for instances that are missing.
    pub wait_for_missing: Duration,
}

impl LookupOptions {
    /// What it is asked about numbers.
    #[must_use]
    pub const fn count(&self) -> Count {
        match &self.inquiry {
            Inquiry::Worklist(..) => Count::Nothing,
            Inquiry::Find(_, count) | Inquiry::Web(_, count) => *count,
        }
    }

    fn counts(&self) -> bool {
        self.count() != Count::Nothing
    }

    fn peer(&self) -> LookupPeer {
        LookupPeer {
            name: self.name.clone(),
            rank: self.rank,
            accession: self.accession,
            counts: self.counts(),
            sources: self.sources.clone(),
        }
    }
}

/// Asks one peer until `shutdown`.
pub async fn run(store: Store, options: Arc<LookupOptions>, shutdown: CancellationToken) {
    let mut received = store.changes(Topic::Received);
    loop {
        let wait = tokio::select! {
            // A question in flight is asked again by the next start.
            () = shutdown.cancelled() => return,
            round = ask_all(&store, &options) => match round {
                Ok(wait) => wait,
                Err(error) => {
                    error!(peer = options.name, %error, "look-ups cannot be recorded; trying again");
                    POLL
                }
            },
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            // Instances come by the hundred a second; a study is opened by one of them.
            () = received.changed() => tokio::time::sleep(TOGETHER).await,
        }
    }
}

/// Asks about every study that is due, and says how long to wait for the next.
async fn ask_all(store: &Store, options: &LookupOptions) -> Result<Duration, StoreError> {
    store.open_lookups(&options.peer(), now()).await?;
    let due = store.due_lookups(&options.name, AT_ONCE, now()).await?;
    let mut asker = Asker::new(options);
    let mut unreachable: Option<String> = None;
    for study in &due {
        match plan::step(study, options, now()) {
            Step::Drop => store.postpone_lookup(study, None).await?,
            Step::Wait(until) => store.postpone_lookup(study, Some(until)).await?,
            Step::Ask { .. } if unreachable.is_some() => {
                // Nobody is there: the others of this round hear so without a wait of their own.
                let words = unreachable.as_deref().unwrap_or_default();
                failed(store, options, study, words).await?;
            }
            Step::Ask { accession, count } => {
                let asked_at = now();
                let asked = tokio::time::timeout(options.timeout, asker.ask(study, accession, count)).await;
                match asked.unwrap_or_else(|_| Asked::Unreachable(format!("no answer within {:?}", options.timeout))) {
                    Asked::Answered(answer) => {
                        let next = plan::after_answer(study, options, &answer, now());
                        debug!(peer = options.name, study = %study.study_instance, ?next, "look-up answered");
                        let completeness = plan::completeness(options, asked_at);
                        store.record_lookup(study, &answer, completeness, next, now()).await?;
                    }
                    Asked::Refused(words) => failed(store, options, study, &words).await?,
                    Asked::Unreachable(words) => {
                        asker.forget();
                        failed(store, options, study, &words).await?;
                        unreachable = Some(words);
                    }
                }
                tokio::time::sleep(pause(options.per_minute)).await;
            }
        }
    }
    asker.hang_up().await;
    let next = store.next_lookup(&options.name).await?.map_or(POLL, |next| next.since(now()));
    Ok(next.clamp(Duration::from_millis(10), POLL))
}

async fn failed(store: &Store, options: &LookupOptions, study: &DueLookup, words: &str) -> Result<(), StoreError> {
    let next = plan::after_failure(study, options, now());
    if study.failures == 0 {
        warn!(peer = options.name, study = %study.study_instance, words, "look-up failed");
    } else {
        info!(peer = options.name, study = %study.study_instance, words, again = next.is_some(), "look-up failed again");
    }
    store.lookup_failed(study, words, next, now()).await
}

/// The pause after a question.
fn pause(per_minute: u32) -> Duration {
    match per_minute {
        0 => Duration::ZERO,
        rate => Duration::from_secs(60) / rate,
    }
}
