use std::time::Duration;

use ichor_core::{ModelId, Reason, ShadowStatus};
use ichor_store::{ShadowClaim, ShadowOutcome, Store, StoreError, Timestamp};

use super::models::{model, offer};
use crate::support::*;

fn judged(positive: bool, dice: Option<f64>) -> ShadowOutcome {
    ShadowOutcome::Judged { finding: finding(positive), dice }
}

fn active() -> ModelId {
    "ichor-demo@1.0.0+0123456789ab".parse().unwrap()
}

const MOST: u32 = 100;

async fn queue(store: &Store, now: Timestamp) -> u64 {
    store.queue_shadow_runs(&[model('b')], MOST, now).await.unwrap()
}

async fn claim(store: &Store, now: Timestamp) -> Option<ShadowClaim> {
    store.claim_shadow_run(&[model('b')], now).await.unwrap()
}

async fn count(store: &Store, status: ShadowStatus) -> u64 {
    let depths = store.shadow_depths().await.unwrap();
    depths.iter().filter(|depth| depth.status == status).map(|depth| depth.count).sum()
}

pub(crate) async fn committed_analyses_are_queued_once_and_nothing_follows(backend: impl Backend) {
    let store = backend.open().await;
    offer(&store, &['a', 'b']).await;
    closed_study(&store, "before", 2, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    assert_eq!(queue(&store, at(21)).await, 0, "the shadow begins with what comes");
    closed_study(&store, "s", 3, 30).await;
    assert_eq!(queue(&store, at(45)).await, 0, "not before the analysis is committed");
    analyse(&store, true, &["pacs"], at(50)).await;
    closed_study(&store, "not", 1, 60).await;
    let not = store.claim_analysis("w", at(75)).await.unwrap().unwrap();
    store.complete_analysis(not, not_analysed(), at(76)).await.unwrap();
    Slice::of("s", 7).record(&store, at(80)).await;
    assert_eq!(queue(&store, at(81)).await, 1, "what was not analysed is nobody's to compare");
    assert_eq!(queue(&store, at(82)).await, 0);

    let before = (detail(&store, "s").await, store.queue_depths().await.unwrap(), kinds(&store, "s").await);
    let run = claim(&store, at(83)).await.unwrap();
    assert_eq!((run.model.clone(), run.attempts, run.analysis.version), (model('b'), 1, 1));
    assert_eq!(run.analysis.instances.len(), 3, "the late slice is the next version's");
    assert!(run.segmentation.as_ref().unwrap().is_file());
    assert!(claim(&store, at(84)).await.is_none(), "a claim is held once");
    let outcome = judged(false, None);
    store.complete_shadow_run(&run, &outcome, Duration::from_secs(2), at(85)).await.unwrap();
    let twice = store.complete_shadow_run(&run, &outcome, Duration::ZERO, at(86)).await;
    assert!(matches!(twice, Err(StoreError::StaleClaim { .. })), "{twice:?}");
    let after = (detail(&store, "s").await, store.queue_depths().await.unwrap(), kinds(&store, "s").await);
    assert_eq!(before, after, "no result, no delivery, no event that a channel could tell");
    let results = store.shadow_results(&study_uid("s")).await.unwrap();
    assert_eq!((results.len(), results[0].finding.clone()), (1, Some(finding(false))));
}

pub(crate) async fn full_queue_drops_its_oldest(backend: impl Backend) {
    let store = backend.open().await;
    queue(&store, at(0)).await;
    for (number, study) in ["p", "q", "r"].into_iter().enumerate() {
        let seconds = i64::try_from(number).unwrap() * 100;
        closed_study(&store, study, 1, seconds).await;
        analyse(&store, false, &[], at(seconds + 20)).await;
        store.queue_shadow_runs(&[model('b'), active()], 2, at(seconds + 30)).await.unwrap();
    }
    assert_eq!((count(&store, ShadowStatus::Queued).await, count(&store, ShadowStatus::Dropped).await), (2, 1));
    let first = claim(&store, at(900)).await.unwrap();
    assert_eq!(first.analysis.study.study_instance, study_uid("q"), "the oldest went");
    assert!(store.shadow_depths().await.unwrap().iter().all(|depth| depth.model == model('b')), "none shadows itself");
}

pub(crate) async fn runs_outlive_the_process_and_attempts_are_counted(backend: impl Backend) {
    let store = backend.open().await;
    queue(&store, at(0)).await;
    closed_study(&store, "s", 1, 0).await;
    analyse(&store, false, &[], at(20)).await;
    queue(&store, at(21)).await;
    assert_eq!(claim(&store, at(22)).await.unwrap().attempts, 1);
    store.close().await;

    let store = backend.open().await;
    assert!(claim(&store, at(30)).await.is_none(), "it may be under way elsewhere");
    assert_eq!(store.requeue_shadow_runs(at(31)).await.unwrap(), 1);
    let again = claim(&store, at(32)).await.unwrap();
    assert_eq!(again.attempts, 2);
    let reason = Reason::new("model-failed", "out of memory");
    store.fail_shadow_run(&again, &reason, Some(at(60)), at(33)).await.unwrap();
    assert!(claim(&store, at(59)).await.is_none(), "not before its time");
    let last = claim(&store, at(60)).await.unwrap();
    store.fail_shadow_run(&last, &reason, None, at(61)).await.unwrap();
    assert_eq!(count(&store, ShadowStatus::Failed).await, 1);
    assert_eq!(store.shadow_results(&study_uid("s")).await.unwrap()[0].reason, Some(reason));
    // Analysed again: compared again.
    store.retry(&study_uid("s"), at(70)).await.unwrap();
    analyse(&store, true, &[], at(71)).await;
    assert_eq!(queue(&store, at(72)).await, 1);
    let anew = claim(&store, at(73)).await.unwrap();
    assert_eq!(anew.attempts, 1);
}

pub(crate) async fn real_work_is_seen(backend: impl Backend) {
    let store = backend.open().await;
    let quiet = Duration::from_secs(2);
    let waits = async |now| store.has_real_work(quiet, now).await.unwrap();
    assert!(!waits(at(0)).await);
    Slice::of("s", 1).record(&store, at(10)).await;
    assert!(waits(at(11)).await, "slices arrive");
    assert!(!waits(at(15)).await, "they pause");
    store.close_quiet_studies(at(20)).await.unwrap();
    assert!(waits(at(21)).await, "an analysis is due");
    let claim = store.claim_analysis("w", at(22)).await.unwrap().unwrap();
    assert!(waits(at(23)).await, "one is under way");
    store.fail_analysis(claim, Reason::new("model-failed", "x"), Some(at(100)), at(24)).await.unwrap();
    assert!(!waits(at(25)).await, "it waits for its next attempt");
    assert!(waits(at(100)).await);
}

pub(crate) async fn agreement_is_reported_by_source(backend: impl Backend) {
    let store = backend.open().await;
    offer(&store, &['b']).await;
    store.adopt_model(&active(), "test", at(0)).await.unwrap();
    queue(&store, at(0)).await;
    let cases = [("one", "CT_A", true, true), ("two", "CT_A", true, false), ("three", "CT_B", false, false)];
    for (number, (study, source, ours, theirs)) in cases.into_iter().enumerate() {
        let seconds = i64::try_from(number).unwrap() * 100;
        Slice { source, ..Slice::of(study, 0) }.record(&store, at(seconds)).await;
        store.close_quiet_studies(quiet_after(seconds)).await.unwrap();
        analyse(&store, ours, &[], at(seconds + 20)).await;
        queue(&store, at(seconds + 30)).await;
        let run = claim(&store, at(seconds + 31)).await.unwrap();
        let outcome = judged(theirs, (ours && theirs).then_some(0.75));
        store.complete_shadow_run(&run, &outcome, Duration::ZERO, at(seconds + 32)).await.unwrap();
    }
    let itself = store.active_model().await.unwrap().unwrap().model;
    let error = store.agreement(&itself, at(0)).await.unwrap_err();
    assert!(matches!(error, StoreError::Filter { .. }) && error.to_string().contains("is the active model"), "{error}");
    let report = store.agreement(&model('b'), at(0)).await.unwrap();
    let all = &report.agreement;
    assert_eq!(
        [all.studies, all.both_positive, all.only_active, all.only_other, all.both_negative],
        [3, 1, 1, 0, 1],
        "{report:?}"
    );
    assert_eq!(report.active, Some(active()));
    let sources: Vec<_> = report.sources.iter().map(|s| (s.source_ae.as_deref(), s.agreement.studies)).collect();
    assert_eq!(sources, [(Some("CT_A"), 2), (Some("CT_B"), 1)]);
    assert_eq!((all.dice.unwrap().mean, all.volume.unwrap().studies), (0.75, 2));
    let [apart] = report.disagreements.as_slice() else { panic!("{:?}", report.disagreements) };
    assert_eq!((&apart.study_instance, apart.version), (&study_uid("two"), 1));
    assert_eq!(store.agreement(&model('b'), at(200)).await.unwrap().agreement.studies, 1, "since then");
    // Against another active model it has nothing to say yet.
    store.adopt_model(&model('c'), "test", at(500)).await.unwrap();
    assert_eq!(store.agreement(&model('b'), at(0)).await.unwrap().agreement.studies, 0);
}

pub(crate) async fn scores_are_counted_by_the_hour(backend: impl Backend) {
    let store = backend.open().await;
    let day = 86_400;
    for (number, (study, positive)) in [("old", true), ("month", true), ("now", false)].into_iter().enumerate() {
        let seconds = [0, 20 * day, 40 * day][number];
        closed_study(&store, study, 2, seconds).await;
        analyse(&store, positive, &[], at(seconds + 20)).await;
    }
    let scores = store.scores(&active(), at(40 * day + 60)).await.unwrap();
    let only =
        |bins: [u64; 10]| bins.iter().enumerate().filter(|(_, n)| **n > 0).map(|(b, n)| (b, *n)).collect::<Vec<_>>();
    assert_eq!(only(scores.studies_24h), [(0, 1)], "0.03 today");
    assert_eq!(only(scores.studies_30d), [(0, 1), (9, 1)], "0.97 twenty days ago; forty are too long");
    assert_eq!(only(scores.slices_24h), [(0, 2)]);
    assert_eq!(only(scores.slices_30d), [(0, 4)]);
    let other = store.scores(&model('b'), at(40 * day + 60)).await.unwrap();
    assert_eq!(other, ichor_store::Scores::default(), "another model's scores are its own");
}
