use ichor_core::{DeliveryStatus, Reason, StudyStatus};
use ichor_store::{ProofPlan, Recorded, Recovery, Store, StoreError};

use crate::support::*;

/// One study in every state of work, and a half-written blob; then the process is gone.
async fn crash_in_the_middle(backend: &impl Backend) {
    let store = backend.open().await;
    store.recover(at(0)).await.unwrap();
    closed_study(&store, "sending", 1, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    store.claim_delivery("pacs", at(21)).await.unwrap().unwrap();
    closed_study(&store, "analysing", 2, 30).await;
    store.claim_analysis("w", at(50)).await.unwrap().unwrap();
    closed_study(&store, "overtaken", 1, 60).await;
    store.claim_analysis("w", at(80)).await.unwrap().unwrap();
    Slice::of("overtaken", 2).record(&store, at(81)).await;
    let association = open_association(&store, at(90)).await;
    Slice { association: Some(association), ..Slice::of("receiving", 1) }.record(&store, at(90)).await;
    let mut half = store.blobs().begin().await.unwrap();
    half.write(&vec![7; 600_000]).await.unwrap();
    half.write(&vec![7; 600_000]).await.unwrap();
    // A killed process runs no destructor.
    std::mem::forget(half);
}

pub(crate) async fn interrupted_work_is_queued_again(backend: impl Backend) {
    crash_in_the_middle(&backend).await;
    let store = backend.open().await;
    let recovery = store.recover(at(95)).await.unwrap();
    let expected = Recovery {
        requeued_analyses: 1,
        requeued_deliveries: 1,
        requeued_commitments: 0,
        requeued_messages: 0,
        ended_associations: 1,
        removed_incoming: 1,
        removed_orphans: 0,
        missing_blobs: Vec::new(),
    };
    assert_eq!(recovery, expected);

    assert_eq!(detail(&store, "analysing").await.summary.status, StudyStatus::Queued);
    assert_eq!(detail(&store, "overtaken").await.summary.status, StudyStatus::Receiving);
    assert_eq!(detail(&store, "sending").await.deliveries[0].status, DeliveryStatus::Queued);
    let receiving = detail(&store, "receiving").await.summary;
    assert_eq!(receiving.quiet_until, Some(quiet_after(95)), "the sender may come back for the rest");

    let claim = store.claim_analysis("w", at(96)).await.unwrap().unwrap();
    assert_eq!((claim.study.study_instance.clone(), claim.attempts), (study_uid("analysing"), 2));
    assert!(claim.instances.iter().all(|instance| instance.path.is_file()));
    assert!(store.claim_analysis("w", at(96)).await.unwrap().is_none());
    let delivery = store.claim_delivery("pacs", at(96)).await.unwrap().unwrap();
    assert_eq!(delivery.attempts, 2);
    for (study, kind) in [
        ("analysing", "analysis-interrupted"),
        ("sending", "delivery-interrupted"),
        ("receiving", "association-closed"),
    ] {
        assert!(kinds(&store, study).await.contains(&kind.to_owned()), "{study}: {kind}");
    }
}

pub(crate) async fn files_without_rows_go(backend: impl Backend) {
    let store = backend.open().await;
    store.recover(at(0)).await.unwrap();
    Slice::of("a", 1).record(&store, at(0)).await;
    let orphan = store.blobs().publish(stage(&store, b"published, then the power went").await).await.unwrap();
    let orphan = store.blobs().path_of(&orphan);
    drop(store);

    let store = backend.open().await;
    assert!(orphan.is_file());
    let during = stage(&store, b"on its way while recovery runs").await;
    assert_eq!(store.recover(at(1)).await.unwrap().removed_orphans, 1);
    assert!(!orphan.is_file());
    assert!(during.path().is_file(), "what this process writes is not touched");
    drop(during);
    assert_eq!(files(&backend.blobs()).len(), 1);
    assert_eq!(Slice::of("a", 1).record(&store, at(2)).await, Recorded::Duplicate);

    drop(store);
    let store = backend.open().await;
    assert_eq!(store.recover(at(3)).await.unwrap(), Recovery::default(), "swept once");
}

pub(crate) async fn rows_without_files_are_reported(backend: impl Backend) {
    let store = backend.open().await;
    store.recover(at(0)).await.unwrap();
    closed_study(&store, "a", 2, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    Slice { content: b"other", ..Slice::of("a", 1) }.record(&store, at(30)).await;
    let all = files(&backend.blobs());
    assert_eq!(all.len(), 4);
    for path in &all {
        std::fs::remove_file(path).unwrap();
    }
    drop(store);

    let store = backend.open().await;
    let missing = store.recover(at(40)).await.unwrap().missing_blobs;
    let mut reported: Vec<_> = missing.iter().map(|missing| missing.kind.as_str()).collect();
    reported.sort_unstable();
    assert_eq!(reported, ["conflict", "instance", "instance", "object"]);
    assert!(missing.iter().all(|missing| all.contains(&missing.path)));
    assert_eq!(kinds(&store, "a").await.iter().filter(|kind| *kind == "blob-missing").count(), 4);

    drop(store);
    let store = backend.open().await;
    let missing = store.recover(at(50)).await.unwrap().missing_blobs;
    assert_eq!(missing.len(), 1, "what queued work needs is reported at every start: {missing:?}");
    assert_eq!(missing[0].kind, "object");
}

pub(crate) async fn store_has_one_owner(backend: impl Backend) {
    let owner = backend.open().await;
    owner.recover(at(0)).await.unwrap();
    owner.recover(at(1)).await.unwrap();
    let other = backend.open().await;
    let error = other.recover(at(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    Slice::of("a", 1).record(&owner, at(2)).await;
    assert_eq!(detail(&other, "a").await.summary.instances, 1, "others may ask");
    drop(owner);
    other.recover(at(3)).await.unwrap();
}

pub(crate) async fn closed_store_says_so(backend: impl Backend) {
    let store = backend.open().await;
    let clone: Store = store.clone();
    Slice::of("a", 1).record(&store, at(0)).await;
    let staged_before = Slice::of("a", 2);
    store.close().await;
    store.close().await;
    let error = staged_before.try_record(&clone, at(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error}");
    let error = clone.next_deadline().await.unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error}");
    assert_eq!(files(&backend.blobs()).len(), 1, "the refused bytes are gone");
    assert_eq!(detail(&backend.open().await, "a").await.summary.instances, 1);
}

pub(crate) async fn recovery_of_a_healthy_store_changes_nothing(backend: impl Backend) {
    let store = backend.open().await;
    assert_eq!(store.recover(at(0)).await.unwrap(), Recovery::default());
    closed_study(&store, "a", 2, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    let before = detail(&store, "a").await;
    let told = store.timeline(&study_uid("a")).await.unwrap();
    store.close().await;
    let store = backend.open().await;
    assert_eq!(store.recover(at(30)).await.unwrap(), Recovery::default());
    assert_eq!(detail(&store, "a").await, before);
    assert_eq!(store.timeline(&study_uid("a")).await.unwrap(), told);
}

pub(crate) async fn clock_that_was_set_back_holds_nothing_up(backend: impl Backend) {
    let day = 86_400;
    let store = backend.open().await;
    store.recover(at(day)).await.unwrap();
    queued_for_later(&store, day).await;
    closed_study(&store, "reported later", 1, day - 20).await;
    analyse(&store, true, &["archive"], at(day)).await;
    let claim = store.claim_delivery("archive", at(day)).await.unwrap().unwrap();
    let commitment = ProofPlan { commitment: true, read_back: false };
    store.delivery_accepted(claim, "Success", commitment, at(day), at(day)).await.unwrap();
    let asked = store.request_commitment("archive", &uid(&["asked"]), 10, at(day + 600), at(day)).await.unwrap();
    assert!(asked.is_some());
    closed_study(&store, "failed once", 1, day).await;
    let claim = store.claim_analysis("w", quiet_after(day)).await.unwrap().unwrap();
    let reason = Reason::new("model-failed", "once");
    store.fail_analysis(claim, reason, Some(at(day + 60)), quiet_after(day)).await.unwrap();
    Slice::of("receiving", 1).record(&store, at(day)).await;
    store.close().await;

    // A day earlier.
    let store = backend.open().await;
    store.recover(at(0)).await.unwrap();
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    assert_eq!(detail(&store, "receiving").await.summary.status, StudyStatus::Queued);
    let later = at(601);
    assert_eq!(store.claim_delivery("pacs", later).await.unwrap().map(|claim| claim.attempts), Some(2));
    assert_eq!(store.overdue_commitments("archive", later).await.unwrap().len(), 1, "its report has had its time");
    let claims = [store.claim_analysis("w", later).await.unwrap(), store.claim_analysis("w", later).await.unwrap()];
    let studies: Vec<_> = claims.into_iter().map(|claim| claim.unwrap().study.study_instance).collect();
    assert!(studies.contains(&study_uid("failed once")) && studies.contains(&study_uid("receiving")), "{studies:?}");
}

/// A delivery that failed at `seconds` and is to be tried an hour later.
async fn queued_for_later(store: &Store, seconds: i64) {
    closed_study(store, "delivered later", 1, seconds - 20).await;
    analyse(store, true, &["pacs"], at(seconds)).await;
    let claim = store.claim_delivery("pacs", at(seconds)).await.unwrap().unwrap();
    let reason = Reason::new("unreachable", "no answer");
    store.delivery_failed(claim, reason, Some(at(seconds + 3_600)), at(seconds)).await.unwrap();
}
