//! Retain: files that are no longer kept, by age, by outcome and by free space. Nothing goes that a [`Protection`] keeps, and
//! nothing at all without a rule.
//!
//! A sweep looks, marks and removes, at a bounded rate, so that receiving is not disturbed. What it would do can be asked
//! for without doing it: [`plan`].

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use ichor_core::chain;
use ichor_store::{Candidate, FileKind, Follower, Protection, Removal, Settled, Store, StoreError, Sweep, Timestamp};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::now;

/// Candidates that are read at once.
const PAGE: u32 = 200;
/// Studies of one plan; a sweep makes plans until nothing more goes.
const STUDIES_A_PLAN: usize = 1_000;
/// Protected studies that a plan names.
const SPARED_NAMED: usize = 1_000;
/// Events that are deleted in one transaction.
const EVENTS_AT_ONCE: u32 = 500;
/// How often in a second files are removed.
const TURNS_A_SECOND: u32 = 10;
/// Wait while a backup keeps every file.
const BACKUP: Duration = Duration::from_secs(5);

/// By which outcome and age files go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// Name; stands in the job log.
    pub name: String,
    /// Outcomes of which the study has one; empty: any.
    pub outcomes: Vec<Settled>,
    /// What goes.
    pub files: Vec<FileKind>,
    /// So long after anything last happened to the study.
    pub after: Duration,
}

/// How much space there must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceRule {
    /// With less free space than this, received files of the oldest studies go, in bytes.
    pub below: u64,
    /// Until so much is free, in bytes.
    pub until: u64,
    /// What is younger stays.
    pub after: Duration,
}

/// Settings of the stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionOptions {
    /// By age and outcome.
    pub rules: Vec<RetentionRule>,
    /// By free space.
    pub space: Option<SpaceRule>,
    /// Events of no study go after so long.
    pub events_after: Option<Duration>,
    /// Between two sweeps.
    pub interval: Duration,
    /// Most files removed in a second.
    pub files_per_second: u32,
    /// Channels that must have heard.
    pub followers: Vec<Follower>,
}

/// Files that go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Going {
    /// Of which study.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// Which files.
    pub kind: FileKind,
    /// By which rule, in words.
    pub why: String,
}

/// What a sweep would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What goes, at most so much as one plan holds.
    pub going: Vec<Going>,
    /// Whose time has come, or whose space is wanted, and what keeps them; the first thousand.
    pub spared: Vec<Going>,
    /// How many studies that are; each once, whatever kinds of files it has.
    pub spared_studies: u64,
    /// How many studies each protection keeps.
    pub protected_by: BTreeMap<Protection, u64>,
    /// Whether more goes.
    pub more: bool,
    /// Free space at present, in bytes.
    pub free_bytes: u64,
    /// Bytes that are wanted and that no study may give.
    pub short_bytes: u64,
    /// Rows of studies that stand in it, with the kind of their files.
    #[serde(skip)]
    listed: HashSet<(FileKind, i64)>,
    /// Rows of spared studies, by what protects them; `None`: of all.
    #[serde(skip)]
    counted: HashSet<(Option<Protection>, i64)>,
}

impl Plan {
    /// Studies of which something goes; each once.
    #[must_use]
    pub fn studies(&self) -> usize {
        let of = self.going.iter().filter(|going| going.candidate.files > 0).map(|going| going.candidate.id);
        of.collect::<HashSet<_>>().len()
    }

    /// Bytes of what goes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.going.iter().map(|going| going.candidate.bytes).sum()
    }

    /// Takes a study in; whether its files go.
    fn take(&mut self, going: Going) -> bool {
        self.listed.insert((going.kind, going.candidate.id));
        // One without an outcome is protected too.
        let goes = going.candidate.protections.is_empty() && going.candidate.settled.is_some();
        if goes {
            self.going.push(going);
        } else if going.candidate.files > 0 {
            let id = going.candidate.id;
            self.spared_studies += u64::from(self.counted.insert((None, id)));
            for protection in &going.candidate.protections {
                let is_new = self.counted.insert((Some(*protection), id));
                *self.protected_by.entry(*protection).or_default() += u64::from(is_new);
            }
            if self.spared.len() < SPARED_NAMED {
                self.spared.push(going);
            }
        }
        goes
    }

    fn is_full(&mut self) -> bool {
        self.more |= self.going.len() >= STUDIES_A_PLAN;
        self.more
    }
}

/// What a sweep at this moment would do, with so much free space.
///
/// # Errors
/// As [`Store::retention_candidates`].
pub async fn plan(store: &Store, options: &RetentionOptions, free: u64, now: Timestamp) -> Result<Plan, StoreError> {
    let mut plan = Plan { free_bytes: free, ..Plan::default() };
    for kind in [FileKind::Received, FileKind::Results] {
        plan_by_age(store, options, kind, &mut plan, now).await?;
    }
    plan_by_space(store, options, &mut plan, now).await?;
    Ok(plan)
}

/// The candidates of a kind that were received before `age` ago, page by page.
struct Candidates<'a> {
    store: &'a Store,
    options: &'a RetentionOptions,
    kind: FileKind,
    until: Timestamp,
    place: Option<(Timestamp, i64)>,
}

impl Candidates<'_> {
    async fn next_page(&mut self) -> Result<Vec<Candidate>, StoreError> {
        let Self { store, options, kind, until, place } = self;
        let page = store.retention_candidates(*kind, *until, &options.followers, *place, PAGE).await?;
        *place = page.last().map(|last| (last.received_at, last.id));
        Ok(page)
    }
}

fn earlier(now: Timestamp, age: Duration) -> Timestamp {
    Timestamp::from_millis(now.as_millis().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
}

async fn plan_by_age(
    store: &Store,
    options: &RetentionOptions,
    kind: FileKind,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<(), StoreError> {
    let rules: Vec<&RetentionRule> = options.rules.iter().filter(|rule| rule.files.contains(&kind)).collect();
    let Some(youngest) = rules.iter().map(|rule| rule.after).min() else { return Ok(()) };
    let mut candidates = Candidates { store, options, kind, until: earlier(now, youngest), place: None };
    loop {
        let page = candidates.next_page().await?;
        if page.is_empty() {
            return Ok(());
        }
        for candidate in page {
            let fits = |rule: &&&RetentionRule| {
                let suits = rule.outcomes.is_empty()
                    || candidate.settled.is_none_or(|settled| rule.outcomes.contains(&settled));
                suits && now.since(candidate.settled_at) >= rule.after
            };
            let Some(rule) = rules.iter().find(fits) else { continue };
            if plan.is_full() {
                return Ok(());
            }
            let days = now.since(candidate.settled_at).as_secs() / 86_400;
            let why = format!("by rule {:?}: nothing has happened for {days} days", rule.name);
            plan.take(Going { candidate, kind, why });
        }
    }
}

async fn plan_by_space(
    store: &Store,
    options: &RetentionOptions,
    plan: &mut Plan,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(space) = options.space.filter(|space| plan.free_bytes < space.below) else { return Ok(()) };
    let mut wanted = space.until.saturating_sub(plan.free_bytes).saturating_sub(plan.bytes());
    let kind = FileKind::Received;
    let mut candidates = Candidates { store, options, kind, until: earlier(now, space.after), place: None };
    while wanted > 0 {
        let page = candidates.next_page().await?;
        if page.is_empty() {
            plan.short_bytes = wanted;
            return Ok(());
        }
        for candidate in page {
            let is_young = now.since(candidate.settled_at) < space.after;
            let is_listed = plan.listed.contains(&(kind, candidate.id));
            if wanted == 0 || candidate.files == 0 || is_young || is_listed {
                continue;
            }
            if plan.is_full() {
                return Ok(());
            }
            let free = plan.free_bytes >> 20;
            let why = format!("for free space: {free} MiB are less than the {} MiB there must be", space.below >> 20);
            let bytes = candidate.bytes;
            if plan.take(Going { candidate, kind, why }) {
                wanted = wanted.saturating_sub(bytes);
            }
        }
    }
    Ok(())
}

/// Sweeps every so often, until `shutdown`. What was doomed before goes first.
pub async fn run(store: Store, options: RetentionOptions, shutdown: CancellationToken) {
    loop {
        let swept = tokio::select! {
            () = shutdown.cancelled() => return,
            swept = sweep(&store, &options) => swept,
        };
        if let Err(error) = swept {
            error!(error = chain(&error), "a sweep could not be finished; trying again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(options.interval) => {}
        }
    }
}

/// One sweep: plans, and what they say, until nothing more goes; one line in the log.
///
/// # Errors
/// As the store's intents; the next sweep goes on where this one ended.
pub async fn sweep(store: &Store, options: &RetentionOptions) -> Result<Sweep, StoreError> {
    let mut files = remove_all_doomed(store, options).await?;
    let (mut bytes, mut events) = (0, 0);
    let mut sweep = Sweep::default();
    let mut swept = HashSet::new();
    let protected_by = loop {
        let plan = plan(store, options, store.blobs().free_bytes()?, now()).await?;
        let mut looked_at = 0;
        for Going { candidate, kind, why } in &plan.going {
            match store.remove_files(candidate, *kind, why, &options.followers, now()).await? {
                Removal::Removed { files: 0, .. } => looked_at += 1,
                Removal::Removed { bytes: of_study, .. } => {
                    looked_at += 1;
                    swept.insert(candidate.id);
                    bytes += of_study;
                    files += remove_all_doomed(store, options).await?;
                }
                Removal::Kept(why) => info!(study = %candidate.study_instance, ?why, "files stay after all"),
            }
        }
        if plan.more && looked_at > 0 {
            continue;
        }
        sweep.studies = swept.len() as u64;
        sweep.spared = plan.spared_studies;
        sweep.short_bytes = plan.short_bytes;
        break plan.protected_by;
    };
    if let Some(age) = options.events_after {
        loop {
            let deleted = store.remove_events(earlier(now(), age), EVENTS_AT_ONCE).await?;
            events += deleted;
            if deleted < u64::from(EVENTS_AT_ONCE) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    store.record_sweep(sweep, now()).await?;
    let Sweep { studies, spared, short_bytes } = sweep;
    info!(studies, files, bytes, events, spared, ?protected_by, short_bytes, "retention swept");
    if short_bytes > 0 {
        warn!(short_mib = short_bytes >> 20, spared, "less space is free than there must be, and nothing more may go");
    }
    Ok(sweep)
}

/// Removes what is doomed, so many files a second; how many went.
async fn remove_all_doomed(store: &Store, options: &RetentionOptions) -> Result<u64, StoreError> {
    let (at_once, pause) = turn(options.files_per_second);
    let mut files = 0;
    loop {
        match store.remove_doomed(at_once).await? {
            Some(0) => return Ok(files),
            Some(removed) => {
                files += removed;
                tokio::time::sleep(pause).await;
            }
            None => tokio::time::sleep(BACKUP).await,
        }
    }
}

/// Files of one turn, and the pause after it.
fn turn(files_per_second: u32) -> (u32, Duration) {
    let rate = files_per_second.max(1);
    let at_once = (rate / TURNS_A_SECOND).max(1);
    (at_once, Duration::from_secs(1) * at_once / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_study_of_which_both_kinds_go_or_stay_is_one_study() {
        let candidate = |id: i64, protections: &[Protection]| Candidate {
            study_instance: ichor_core::Uid::derive(["study", &id.to_string()]),
            id,
            received_at: Timestamp::from_millis(id),
            settled_at: Timestamp::from_millis(id),
            settled: Some(Settled::Negative),
            files: 3,
            bytes: 100,
            protections: protections.to_vec(),
        };
        let mut plan = Plan::default();
        for kind in [FileKind::Received, FileKind::Results] {
            for (id, protections) in
                [(1, &[][..]), (2, &[]), (3, &[Protection::OnHold]), (4, &[Protection::OnHold, Protection::Untold])]
            {
                plan.take(Going { candidate: candidate(id, protections), kind, why: "by rule".to_owned() });
            }
        }
        assert_eq!((plan.going.len(), plan.studies(), plan.bytes()), (4, 2, 400));
        assert_eq!(plan.spared_studies, 2);
        assert_eq!(plan.protected_by, BTreeMap::from([(Protection::OnHold, 2), (Protection::Untold, 1)]));
    }

    #[test]
    fn the_rate_is_kept() {
        for rate in [1, 3, 10, 200, 5_000] {
            let (at_once, pause) = turn(rate);
            let a_second = f64::from(at_once) / pause.as_secs_f64();
            assert!((a_second - f64::from(rate)).abs() < 0.01 * f64::from(rate), "{rate}: {a_second}");
        }
        assert_eq!(turn(0), (1, Duration::from_secs(1)));
    }
}
