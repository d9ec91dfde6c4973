use ichor_core::{DeliveryStatus, Reason, Uid};
use ichor_store::{Among, Context, DeliveryFilter, ProofPlan, Store, StoreError};

use crate::support::*;

async fn queued(store: &Store, study: &str, positive: bool, seconds: i64) {
    closed_study(store, study, 1, seconds - 20).await;
    analyse(store, positive, &["pacs"], at(seconds)).await;
}

fn seg() -> Context {
    Context {
        sop_class: Uid::parse("1.2.840.10008.5.1.4.1.1.66.4").unwrap(),
        transfer_syntax: Uid::parse("1.2.840.10008.1.2.1").unwrap(),
    }
}

fn away() -> Reason {
    Reason::new("unreachable", "no route")
}

async fn events(store: &Store, kind: &str) -> usize {
    store.recent_events(1_000).await.unwrap().into_iter().filter(|event| event.kind == kind).count()
}

pub(crate) async fn absence_is_told_once_and_costs_nothing(backend: impl Backend) {
    let store = backend.open().await;
    queued(&store, "a", true, 100).await;
    for second in 101..111 {
        let claim = store.claim_delivery("pacs", at(second)).await.unwrap().unwrap();
        assert_eq!(claim.attempts, 1);
        store.delivery_held(claim, &away(), None, at(second)).await.unwrap();
        store.destination_down("pacs", &away(), at(second + 1), at(second)).await.unwrap();
    }
    let state = store.destinations(at(111)).await.unwrap().remove(0);
    assert_eq!((state.is_up, state.failures, state.since, state.next_probe), (false, 10, at(101), Some(at(111))));
    assert_eq!((events(&store, "destination-down").await, events(&store, "delivery-held").await), (1, 1));
    assert_eq!(events(&store, "delivery-started").await, 1);
    let held = &detail(&store, "a").await.deliveries[0];
    assert_eq!((held.status, held.attempts), (DeliveryStatus::Queued, 0));
    assert_eq!(held.last_words.as_deref(), Some("held: no route (unreachable)"));

    let claim = store.claim_delivery("pacs", at(120)).await.unwrap().unwrap();
    store.delivery_accepted(claim, "Success", ProofPlan::default(), at(121), at(121)).await.unwrap();
    for _ in 0..2 {
        store.destination_up("pacs", at(121)).await.unwrap();
    }
    let state = store.destinations(at(122)).await.unwrap().remove(0);
    assert_eq!((state.is_up, state.failures, state.since, state.last_words), (true, 0, at(121), None));
    assert_eq!(events(&store, "destination-up").await, 1);
    store.destination_down("pacs", &away(), at(140), at(130)).await.unwrap();
    assert_eq!(events(&store, "destination-down").await, 2, "away again");
}

pub(crate) async fn held_ones_let_others_go_first(backend: impl Backend) {
    let store = backend.open().await;
    let mut studies = Vec::new();
    for (study, seconds) in [("a", 100), ("b", 101), ("c", 102)] {
        queued(&store, study, true, seconds).await;
        studies.push(study_uid(study));
    }
    for (second, study) in (200..).zip(&studies) {
        let claim = store.claim_delivery("pacs", at(second)).await.unwrap().unwrap();
        assert_eq!((&claim.object.study_instance, claim.was_held), (study, false), "each probe takes another");
        store.delivery_held(claim, &away(), Some(at(90_000 + second)), at(second)).await.unwrap();
        store.destination_down("pacs", &away(), at(second + 1), at(second)).await.unwrap();
    }
    // None is left: they come again one at a time, in the same order, and what is new goes before them.
    assert!(store.claim_delivery("pacs", at(210)).await.unwrap().is_none());
    assert!(!store.release_held("elsewhere", Among::All, at(210)).await.unwrap());
    assert!(store.release_held("pacs", Among::Urgent, at(210)).await.unwrap());
    let claim = store.claim_delivery("pacs", at(210)).await.unwrap().unwrap();
    assert_eq!((&claim.object.study_instance, claim.was_held, claim.attempts), (&studies[0], true, 1));
    store.delivery_held(claim, &away(), Some(at(90_210)), at(210)).await.unwrap();
    queued(&store, "new", true, 220).await;
    let claim = store.claim_delivery("pacs", at(221)).await.unwrap().unwrap();
    assert_eq!(claim.object.study_instance, study_uid("new"));
    store.delivery_accepted(claim, "Success", ProofPlan::default(), at(222), at(222)).await.unwrap();
    assert!(store.claim_delivery("pacs", at(222)).await.unwrap().is_none());
    // Somebody is there: all are due.
    store.destination_up("pacs", at(222)).await.unwrap();
    for study in &studies {
        let claim = store.claim_delivery("pacs", at(222)).await.unwrap().unwrap();
        assert_eq!((&claim.object.study_instance, claim.was_held), (study, true));
        store.delivery_failed(claim, away(), Some(at(300)), at(222)).await.unwrap();
    }
    // One that has failed by itself keeps its wait.
    assert!(!store.release_held("pacs", Among::All, at(223)).await.unwrap());
    assert!(store.claim_delivery("pacs", at(223)).await.unwrap().is_none());
}

pub(crate) async fn refused_contexts_are_left_out_until_their_time(backend: impl Backend) {
    let store = backend.open().await;
    for study in ["a", "b"] {
        queued(&store, study, true, 100).await;
    }
    assert_eq!(store.queued_contexts("pacs", at(100)).await.unwrap(), [seg()]);
    assert_eq!(store.contexts_refused("pacs", &[seg()], at(200), at(101)).await.unwrap(), 2);
    assert!(store.claim_delivery("pacs", at(102)).await.unwrap().is_none());
    assert!(store.queued_contexts("pacs", at(102)).await.unwrap().is_empty());
    let words = detail(&store, "b").await.deliveries.remove(0).last_words.unwrap();
    assert!(words.starts_with("held: ") && words.contains("does not accept"), "{words}");
    // Queued afterwards: it says why it waits, once.
    queued(&store, "late", true, 110).await;
    assert_eq!(store.hold_refused("pacs", at(111)).await.unwrap(), 1);
    assert_eq!(store.hold_refused("pacs", at(112)).await.unwrap(), 0);
    let late = detail(&store, "late").await.deliveries.remove(0);
    assert!(late.last_words.unwrap().starts_with("held: "));
    assert_eq!(store.hold_refused("elsewhere", at(112)).await.unwrap(), 0);
    // Known after a restart, and proposed again in time.
    drop(store);
    let store = backend.open().await;
    assert!(store.claim_delivery("pacs", at(199)).await.unwrap().is_none());
    let claim = store.claim_delivery("pacs", at(200)).await.unwrap().unwrap();
    store.delivery_held(claim, &Reason::new("no-context", "still not"), None, at(200)).await.unwrap();
    store.contexts_refused("pacs", &[seg()], at(300), at(200)).await.unwrap();
    assert_eq!(events(&store, "context-refused").await, 1, "told once");
    assert_eq!(store.retry_deliveries(None, Some("pacs"), at(201)).await.unwrap(), 0);
    assert!(store.claim_delivery("pacs", at(202)).await.unwrap().is_some(), "somebody asked for it");
}

pub(crate) async fn urgent_ones_are_claimed_alone(backend: impl Backend) {
    let store = backend.open().await;
    queued(&store, "negative", false, 100).await;
    queued(&store, "positive", true, 200).await;
    let claim = store.claim_delivery_among("pacs", Among::Urgent, at(300)).await.unwrap().unwrap();
    assert_eq!(claim.object.study_instance, study_uid("positive"));
    assert!(store.claim_delivery_among("pacs", Among::Urgent, at(300)).await.unwrap().is_none());
    assert!(store.claim_delivery_among("pacs", Among::All, at(300)).await.unwrap().is_some());
}

pub(crate) async fn deliveries_are_listed_and_retried(backend: impl Backend) {
    let store = backend.open().await;
    for (study, seconds) in [("a", 100), ("b", 200), ("c", 300)] {
        queued(&store, study, true, seconds).await;
    }
    for _ in 0..2 {
        let claim = store.claim_delivery("pacs", at(400)).await.unwrap().unwrap();
        store.delivery_failed(claim, Reason::new("refused", "0xA900"), None, at(401)).await.unwrap();
    }
    let list = |status, study: Option<&str>| {
        let study = study.map(study_uid);
        let filter = DeliveryFilter {
            status,
            study,
            destination: Some("pacs".to_owned()),
            limit: 10,
            ..DeliveryFilter::default()
        };
        let store = store.clone();
        async move { store.deliveries(&filter).await.unwrap() }
    };
    assert_eq!(list(None, None).await.len(), 3);
    assert_eq!(list(Some(DeliveryStatus::Dead), None).await.len(), 2);
    let [one] = list(None, Some("c")).await.try_into().unwrap();
    assert_eq!((one.status, one.kind.as_str(), one.next_attempt), (DeliveryStatus::Queued, "seg", Some(at(300))));
    let error = store.retry_deliveries(Some(one.id), None, at(500)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
    let [dead] = list(Some(DeliveryStatus::Dead), Some("a")).await.try_into().unwrap();
    assert_eq!(store.retry_deliveries(Some(dead.id), None, at(500)).await.unwrap(), 1);
    assert_eq!(store.retry_deliveries(None, Some("elsewhere"), at(500)).await.unwrap(), 0);
    assert_eq!(store.retry_deliveries(None, None, at(500)).await.unwrap(), 1);
    assert!(list(Some(DeliveryStatus::Dead), None).await.is_empty());
}
