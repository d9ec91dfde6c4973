//! Random sequences of intents, crashes included, keep the invariants.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::*;
use ichor_core::{DeliveryStatus, Reason, StudyStatus, Uid};
use ichor_store::{AnalysisClaim, DeliveryClaim, ProofPlan, Recorded, RetryOutcome, Store, StudyFilter, Timestamp};
use proptest::prelude::*;

const STUDIES: [&str; 3] = ["a", "b", "c"];
const DESTINATIONS: [&str; 2] = ["pacs", "archive"];

#[derive(Clone, Debug)]
enum Step {
    Instance { study: usize, number: u32, own: bool, other_content: bool },
    Wait { seconds: i64 },
    Close,
    Claim,
    Complete { positive: bool },
    NotAnalysed,
    Fail { again: bool },
    ClaimDelivery { destination: usize },
    Accept,
    Refuse { again: bool },
    Retry { study: usize },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let study = 0..STUDIES.len();
    prop_oneof![
        6 => (study.clone(), 0..4u32, prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(study, number, own, other_content)| Step::Instance { study, number, own, other_content }),
        3 => (1..15i64).prop_map(|seconds| Step::Wait { seconds }),
        4 => Just(Step::Close),
        4 => Just(Step::Claim),
        4 => any::<bool>().prop_map(|positive| Step::Complete { positive }),
        1 => Just(Step::NotAnalysed),
        1 => any::<bool>().prop_map(|again| Step::Fail { again }),
        4 => (0..DESTINATIONS.len()).prop_map(|destination| Step::ClaimDelivery { destination }),
        3 => Just(Step::Accept),
        1 => any::<bool>().prop_map(|again| Step::Refuse { again }),
        1 => study.prop_map(|study| Step::Retry { study }),
        1 => Just(Step::Crash),
    ]
}

/// The store, the clock, what workers hold, and what was seen so far.
struct World {
    backend: SqliteFolder,
    store: Store,
    now: Timestamp,
    analysis: Option<AnalysisClaim>,
    delivery: Option<DeliveryClaim>,
    /// Answered with success, and not an own result.
    acknowledged: BTreeMap<&'static str, BTreeSet<u32>>,
    versions: BTreeMap<&'static str, u32>,
    accepted: BTreeSet<(Uid, String)>,
}

impl World {
    async fn new() -> Self {
        let backend = SqliteFolder::new();
        let store = backend.open().await;
        store.recover(at(0)).await.unwrap();
        Self {
            backend,
            store,
            now: at(0),
            analysis: None,
            delivery: None,
            acknowledged: BTreeMap::new(),
            versions: BTreeMap::new(),
            accepted: BTreeSet::new(),
        }
    }

    async fn take(&mut self, step: Step) {
        if let Step::Crash = step {
            return self.crash().await;
        }
        let (store, now) = (self.store.clone(), self.now);
        match step {
            Step::Instance { study, number, own, other_content } => {
                self.instance(STUDIES[study], number, own, other_content).await;
            }
            Step::Wait { seconds } => self.now = now.after(std::time::Duration::from_secs(seconds.unsigned_abs())),
            Step::Close => {
                for closed in store.close_quiet_studies(now).await.unwrap() {
                    let study = *STUDIES.iter().find(|name| study_uid(name) == closed.study_instance).unwrap();
                    let version = self.versions.entry(study).or_default();
                    *version += 1;
                    assert_eq!(closed.version, *version, "versions go up by one");
                }
            }
            Step::Claim if self.analysis.is_none() => {
                self.analysis = store.claim_analysis("w", now).await.unwrap();
                if let Some(claim) = &self.analysis {
                    self.check_claim(claim);
                }
            }
            Step::Complete { positive } => {
                if let Some(claim) = self.analysis.take() {
                    let outcome = outcome(&store, &claim, positive, &DESTINATIONS).await;
                    store.complete_analysis(claim, outcome, now).await.unwrap();
                }
            }
            Step::NotAnalysed => {
                if let Some(claim) = self.analysis.take() {
                    store.complete_analysis(claim, not_analysed(), now).await.unwrap();
                }
            }
            Step::Fail { again } => {
                if let Some(claim) = self.analysis.take() {
                    let retry_at = again.then_some(now);
                    store.fail_analysis(claim, Reason::new("x", "y"), retry_at, now).await.unwrap();
                }
            }
            Step::ClaimDelivery { destination } if self.delivery.is_none() => {
                self.delivery = store.claim_delivery(DESTINATIONS[destination], now).await.unwrap();
            }
            Step::Accept => {
                if let Some(claim) = self.delivery.take() {
                    let sent = (claim.object.sop_instance.clone(), claim.destination.clone());
                    assert!(self.accepted.insert(sent), "accepted twice");
                    store.delivery_accepted(claim, "Success", ProofPlan::default(), now, now).await.unwrap();
                }
            }
            Step::Refuse { again } => {
                if let Some(claim) = self.delivery.take() {
                    let next = again.then_some(now);
                    store.delivery_failed(claim, Reason::new("x", "y"), next, now).await.unwrap();
                }
            }
            Step::Retry { study } if self.acknowledged.contains_key(STUDIES[study]) => {
                let before = detail(&store, STUDIES[study]).await.summary;
                let outcome = store.retry(&study_uid(STUDIES[study]), now).await.unwrap();
                let is_queued = matches!(outcome, RetryOutcome::Queued { version, .. } if version == before.version);
                let under_way = matches!(outcome, RetryOutcome::UnderWay { status, .. } if status == before.status);
                assert!(is_queued || under_way, "{outcome:?} from {before:?}");
            }
            // Held already, or not there yet.
            Step::Claim | Step::ClaimDelivery { .. } | Step::Retry { .. } | Step::Crash => {}
        }
    }

    async fn instance(&mut self, study: &'static str, number: u32, own: bool, other_content: bool) {
        // Own results have numbers of their own.
        let number = if own { number + 100 } else { number };
        let content: &[u8] = if other_content { b"other" } else { b"pixels" };
        let slice = Slice { own, content, ..Slice::of(study, number) };
        let recorded = slice.record(&self.store, self.now).await;
        if !own {
            let is_new = self.acknowledged.entry(study).or_default().insert(number);
            assert_eq!(is_new, matches!(recorded, Recorded::New { .. }));
        }
    }

    /// The claim holds everything that was acknowledged when its version closed; what came later reopened the study.
    fn check_claim(&self, claim: &AnalysisClaim) {
        let study = STUDIES.iter().find(|name| study_uid(name) == claim.study.study_instance).unwrap();
        assert_eq!(claim.version, self.versions[study]);
        let expected: BTreeSet<Uid> = self.acknowledged[study].iter().map(|n| slice_uid(study, *n)).collect();
        let claimed: BTreeSet<Uid> = claim.instances.iter().map(|i| i.sop_instance.clone()).collect();
        assert_eq!(claimed, expected);
        assert!(claim.instances.iter().all(|instance| instance.path.is_file()));
    }

    async fn crash(&mut self) {
        (self.analysis, self.delivery) = (None, None);
        let old = std::mem::replace(&mut self.store, self.backend.open().await);
        drop(old);
        let recovery = self.store.recover(self.now).await.unwrap();
        assert!(recovery.missing_blobs.is_empty(), "{recovery:?}");
        assert_eq!(recovery.removed_orphans, 0, "nothing was cut off in the middle of an intent");
    }

    /// Does all the work that is left, as workers without faults would.
    async fn drain(&mut self) {
        self.now = self.now.after(std::time::Duration::from_secs(3_600));
        self.take(Step::Close).await;
        loop {
            self.take(Step::Claim).await;
            if self.analysis.is_none() {
                break;
            }
            self.take(Step::Complete { positive: true }).await;
        }
        for destination in 0..DESTINATIONS.len() {
            loop {
                self.take(Step::ClaimDelivery { destination }).await;
                if self.delivery.is_none() {
                    break;
                }
                self.take(Step::Accept).await;
            }
        }
    }

    /// After the work is done and what failed was retried, nothing is stuck: every study has its last version's
    /// outcome, and every object is where it belongs.
    async fn check_that_nothing_is_stuck(&mut self) {
        self.drain().await;
        for study in 0..STUDIES.len() {
            self.take(Step::Retry { study }).await;
        }
        self.drain().await;
        for study in self.acknowledged.keys() {
            let detail = detail(&self.store, study).await;
            assert_eq!(detail.summary.status, StudyStatus::Analysed);
            assert_eq!(detail.summary.result_version, Some(detail.summary.version));
            assert!(detail.objects.iter().any(|object| object.version == detail.summary.version));
            let undelivered = detail.deliveries.iter().find(|d| d.status != DeliveryStatus::Accepted);
            assert_eq!(undelivered, None);
        }
    }

    async fn check(&self) {
        let mut objects = 0;
        let mut files_expected = 0;
        for (study, numbers) in &self.acknowledged {
            let detail = detail(&self.store, study).await;
            let summary = &detail.summary;
            assert_eq!(summary.instances as usize, numbers.len());
            assert_eq!(summary.version, self.versions.get(study).copied().unwrap_or(0));
            assert_eq!(summary.quiet_until.is_some(), summary.status == StudyStatus::Receiving);
            assert!(summary.result_version.is_none_or(|version| version <= summary.version));
            if summary.status == StudyStatus::Analysed {
                assert_eq!(summary.result_version, Some(summary.version));
            }
            if matches!(summary.status, StudyStatus::NotAnalysed | StudyStatus::Failed) {
                assert!(summary.reason.is_some(), "a reason for {}", summary.status);
            }
            let pairs: BTreeSet<_> = detail.deliveries.iter().map(|d| (&d.sop_instance, &d.destination)).collect();
            assert_eq!(pairs.len(), detail.deliveries.len(), "one delivery for each object and destination");
            assert_eq!(pairs.len(), detail.objects.len() * DESTINATIONS.len());
            let versions: BTreeSet<u32> = detail.objects.iter().map(|object| object.version).collect();
            assert_eq!(versions.len(), detail.objects.len(), "one object for each version");
            for delivery in &detail.deliveries {
                let accepted = self.accepted.contains(&(delivery.sop_instance.clone(), delivery.destination.clone()));
                assert_eq!(accepted, delivery.status == DeliveryStatus::Accepted);
            }
            objects += detail.objects.len();
            files_expected += numbers.len();
        }
        let listed = self.store.studies(&StudyFilter::default()).await.unwrap().items;
        assert!(listed.len() >= self.acknowledged.len(), "no study without a state");
        assert!(files(&self.backend.blobs()).len() >= files_expected + objects);
    }
}

/// 48 histories, or as many as `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let default = ProptestConfig { max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { default } else { ProptestConfig { cases: 48, ..default } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn invariants_hold_after_every_step(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.take(step).await;
                world.check().await;
            }
            world.crash().await;
            world.check().await;
            world.check_that_nothing_is_stuck().await;
            world.check().await;
        });
    }
}
