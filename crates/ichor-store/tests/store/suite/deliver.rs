use std::collections::HashSet;

use ichor_core::{DeliveryStatus, Reason, StudyStatus};
use ichor_store::{DeliveryClaim, DeliveryObject, ProofPlan, QueueDepth, RetryOutcome, Store, StoreError};

use crate::support::*;

/// A study with one object in the outbox, queued at `seconds`.
async fn queued(store: &Store, study: &str, positive: bool, destinations: &[&str], seconds: i64) {
    closed_study(store, study, 1, seconds - 20).await;
    analyse(store, positive, destinations, at(seconds)).await;
}

fn copy(claim: &DeliveryClaim) -> DeliveryClaim {
    DeliveryClaim {
        id: claim.id,
        destination: claim.destination.clone(),
        object: DeliveryObject { ..claim.object.clone() },
        attempts: claim.attempts,
        queued_at: claim.queued_at,
        was_held: claim.was_held,
    }
}

pub(crate) async fn positives_first_then_the_oldest(backend: impl Backend) {
    let store = backend.open().await;
    for (study, positive, seconds) in [
        ("old negative", false, 100),
        ("positive", true, 200),
        ("new negative", false, 300),
        ("new positive", true, 400),
    ] {
        queued(&store, study, positive, &["pacs"], seconds).await;
    }
    for (study, positive) in
        [("positive", true), ("new positive", true), ("old negative", false), ("new negative", false)]
    {
        let claim = store.claim_delivery("pacs", at(500)).await.unwrap().unwrap();
        assert_eq!(claim.object.study_instance, study_uid(study));
        assert_eq!((claim.object.positive, claim.attempts), (positive, 1));
        assert_eq!(std::fs::read(&claim.object.path).unwrap(), b"headersegmentation");
    }
    assert!(store.claim_delivery("pacs", at(500)).await.unwrap().is_none());
}

pub(crate) async fn claim_is_exclusive(backend: impl Backend) {
    const OBJECTS: usize = 12;
    let store = backend.open().await;
    for study in 0..OBJECTS {
        Slice::of(&study.to_string(), 1).record(&store, at(0)).await;
    }
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    for _ in 0..OBJECTS {
        analyse(&store, true, &["pacs"], at(20)).await;
    }
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut claimed = Vec::new();
                while let Some(claim) = store.claim_delivery("pacs", at(30)).await.unwrap() {
                    claimed.push(claim.object.sop_instance.clone());
                    store.delivery_accepted(claim, "Success", ProofPlan::default(), at(31), at(31)).await.unwrap();
                }
                claimed
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (OBJECTS, OBJECTS));
    let accepted = QueueDepth { destination: "pacs".into(), status: DeliveryStatus::Accepted, count: OBJECTS as u64 };
    assert_eq!(store.queue_depths().await.unwrap(), [accepted]);
}

pub(crate) async fn dead_destination_delays_no_other(backend: impl Backend) {
    let store = backend.open().await;
    queued(&store, "a", true, &["down", "pacs"], 100).await;
    let down = store.claim_delivery("down", at(101)).await.unwrap().unwrap();
    store.delivery_failed(down, Reason::new("unreachable", "no route"), Some(at(900)), at(102)).await.unwrap();
    let pacs = store.claim_delivery("pacs", at(102)).await.unwrap().unwrap();
    store.delivery_accepted(pacs, "Success", ProofPlan::default(), at(103), at(103)).await.unwrap();
    assert_eq!(store.next_delivery_deadline("pacs").await.unwrap(), None);
    assert_eq!(store.next_delivery_deadline("down").await.unwrap(), Some(at(900)));
    assert!(store.claim_delivery("elsewhere", at(900)).await.unwrap().is_none());
}

pub(crate) async fn failed_delivery_is_due_later(backend: impl Backend) {
    let store = backend.open().await;
    queued(&store, "a", true, &["pacs"], 100).await;
    assert_eq!(store.next_delivery_deadline("pacs").await.unwrap(), Some(at(100)));
    let claim = store.claim_delivery("pacs", at(101)).await.unwrap().unwrap();
    assert_eq!(store.next_delivery_deadline("pacs").await.unwrap(), None, "it is being sent");
    store.delivery_failed(claim, Reason::new("unreachable", "no route"), Some(at(110)), at(102)).await.unwrap();
    assert!(store.claim_delivery("pacs", at(109)).await.unwrap().is_none());
    let delivery = &detail(&store, "a").await.deliveries[0];
    assert_eq!((delivery.status, delivery.next_attempt), (DeliveryStatus::Queued, Some(at(110))));
    assert_eq!(delivery.last_words.as_deref(), Some("no route (unreachable)"));

    let claim = store.claim_delivery("pacs", at(110)).await.unwrap().unwrap();
    assert_eq!((claim.attempts, claim.queued_at), (2, at(100)));
    store.delivery_accepted(claim, "0000H\u{7} Success", ProofPlan::default(), at(111), at(111)).await.unwrap();
    let delivery = &detail(&store, "a").await.deliveries[0];
    assert_eq!((delivery.status, delivery.finished_at), (DeliveryStatus::Accepted, Some(at(111))));
    assert_eq!(delivery.last_words.as_deref(), Some("0000H  Success"));
}

pub(crate) async fn dead_delivery_is_revived_by_retry(backend: impl Backend) {
    let store = backend.open().await;
    queued(&store, "a", true, &["pacs"], 100).await;
    let claim = store.claim_delivery("pacs", at(101)).await.unwrap().unwrap();
    store.delivery_failed(claim, Reason::new("refused", "0xA900"), None, at(102)).await.unwrap();
    assert_eq!(detail(&store, "a").await.deliveries[0].status, DeliveryStatus::Dead);
    assert!(store.claim_delivery("pacs", at(9_000)).await.unwrap().is_none());

    let retried = store.retry(&study_uid("a"), at(200)).await.unwrap();
    assert_eq!(retried, RetryOutcome::Queued { version: 1, deliveries: 1 });
    let claim = store.claim_delivery("pacs", at(200)).await.unwrap().unwrap();
    assert_eq!(claim.attempts, 1, "attempts are counted anew");
    store.delivery_accepted(claim, "Success", ProofPlan::default(), at(201), at(201)).await.unwrap();
    assert_eq!(detail(&store, "a").await.summary.status, StudyStatus::Queued);
    analyse(&store, true, &["pacs"], at(202)).await;
    assert!(store.claim_delivery("pacs", at(9_000)).await.unwrap().is_none(), "accepted is accepted");
    let kinds = kinds(&store, "a").await;
    for kind in ["delivery-dead", "delivery-requeued", "delivery-accepted", "retried"] {
        assert!(kinds.contains(&kind.to_owned()), "{kind} is missing: {kinds:?}");
    }
}

pub(crate) async fn stale_claim_is_told(backend: impl Backend) {
    let store = backend.open().await;
    queued(&store, "a", true, &["pacs"], 100).await;
    let claim = store.claim_delivery("pacs", at(101)).await.unwrap().unwrap();
    let stale = copy(&claim);
    store.delivery_accepted(claim, "Success", ProofPlan::default(), at(102), at(102)).await.unwrap();
    let error = store.delivery_failed(copy(&stale), Reason::new("x", "y"), None, at(103)).await.unwrap_err();
    assert!(matches!(error, StoreError::StaleClaim { .. }), "{error}");
    let error = store.delivery_accepted(stale, "again", ProofPlan::default(), at(103), at(103)).await.unwrap_err();
    assert!(matches!(error, StoreError::StaleClaim { .. }), "{error}");
    assert_eq!(detail(&store, "a").await.deliveries[0].last_words.as_deref(), Some("Success"));
}
