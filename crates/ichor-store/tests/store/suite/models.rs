use ichor_core::{ActivationKind, ActivationStatus, ModelId, OfferState, Reason, StudyStatus};
use ichor_store::{Activation, NewOffer, ReanalysisWish, RetryOutcome, Store, StoreError};
use serde_json::json;

use crate::support::*;

pub(crate) fn model(letter: char) -> ModelId {
    ModelId::new(&format!("model-{letter}"), "1", &"ab".repeat(32)).unwrap()
}

pub(crate) async fn offer(store: &Store, letters: &[char]) {
    let offer = |letter: &char| NewOffer {
        weights: format!("/models/{letter}.safetensors"),
        model: Some(model(*letter)),
        state: OfferState::Waiting,
        words: String::new(),
    };
    store.offer_models(&letters.iter().map(offer).collect::<Vec<_>>(), at(0)).await.unwrap();
}

async fn kinds_of_models(store: &Store) -> Vec<String> {
    let events = store.recent_events(100).await.unwrap();
    events.into_iter().rev().map(|event| event.kind).filter(|kind| kind.starts_with("model-")).collect()
}

async fn history(store: &Store) -> Vec<(ModelId, ActivationKind, ActivationStatus)> {
    let all = store.activations(100).await.unwrap();
    all.into_iter().rev().map(|Activation { model, kind, status, .. }| (model, kind, status)).collect()
}

pub(crate) async fn offers_are_what_the_last_start_found(backend: impl Backend) {
    let store = backend.open().await;
    assert!(store.offers().await.unwrap().is_empty());
    offer(&store, &['x', 'y', 'z']).await;
    let broken = NewOffer {
        weights: "/models/broken.safetensors".to_owned(),
        model: None,
        state: OfferState::Failed,
        words: "no manifest".to_owned(),
    };
    let good = NewOffer {
        weights: "/models/a".to_owned(),
        model: Some(model('a')),
        state: OfferState::Waiting,
        words: String::new(),
    };
    store.offer_models(&[good, broken], at(1)).await.unwrap();
    store.note_offer(&model('a'), Ok(json!({ "id": "a" })), "cpu, f32", at(2)).await.unwrap();
    let offers = store.offers().await.unwrap();
    assert_eq!(offers.len(), 2, "those of the start before are gone");
    assert_eq!((offers[0].state, offers[0].words.as_str()), (OfferState::Ready, "cpu, f32"));
    assert_eq!(offers[0].facts, Some(json!({ "id": "a" })));
    assert_eq!((offers[1].state, &offers[1].model), (OfferState::Failed, &None));
    store.note_offer(&model('a'), Err("out of memory".to_owned()), "", at(3)).await.unwrap();
    let offers = store.offers().await.unwrap();
    assert_eq!((offers[0].state, offers[0].words.as_str()), (OfferState::Failed, "out of memory"));
    assert_eq!(kinds_of_models(&store).await, ["model-failed", "model-failed"], "each failure is an event");
    assert_eq!(store.offered_model("model-a@1").await.unwrap(), model('a'));
    assert!(matches!(store.offered_model("model-q@1").await, Err(StoreError::NotFound { .. })));
}

pub(crate) async fn change_of_model_is_one_intent_and_has_a_history(backend: impl Backend) {
    let store = backend.open().await;
    offer(&store, &['a', 'b']).await;
    assert_eq!(store.active_model().await.unwrap(), None);
    let nothing = store.request_rollback("anna", "because", at(0)).await;
    assert!(matches!(nothing, Err(StoreError::NotFound { .. })), "{nothing:?}");
    store.adopt_model(&model('a'), "it stands there", at(1)).await.unwrap();
    let stranger = store.request_model(&model('q'), "anna", "why", at(2)).await;
    assert!(matches!(stranger, Err(StoreError::NotFound { .. })), "{stranger:?}");
    let same = store.request_model(&model('a'), "anna", "why", at(2)).await;
    assert!(matches!(same, Err(StoreError::Filter { .. })), "{same:?}");

    let requested = store.request_model(&model('b'), "anna", "it is better", at(3)).await.unwrap();
    assert_eq!(store.requested_model().await.unwrap().as_ref(), Some(&requested));
    assert_eq!(store.active_model().await.unwrap().unwrap().model, model('a'), "a wish changes nothing");
    store.settle_model(&requested, Ok(()), at(4)).await.unwrap();
    let active = store.active_model().await.unwrap().unwrap();
    assert_eq!((active.model, active.from_at, active.actor.as_str()), (model('b'), Some(at(4)), "anna"));
    let again = store.settle_model(&requested, Ok(()), at(5)).await;
    assert!(matches!(again, Err(StoreError::StaleClaim { .. })), "{again:?}");
    assert_eq!(store.active_model().await.unwrap().unwrap().model, model('b'), "a stale change is undone whole");

    let back = store.request_rollback("bert", "it was not", at(6)).await.unwrap();
    assert_eq!((&back.model, back.kind), (&model('a'), ActivationKind::RolledBack));
    store.settle_model(&back, Ok(()), at(7)).await.unwrap();
    let all = store.activations(10).await.unwrap();
    assert_eq!((all[1].until_at, all[2].until_at), (Some(at(7)), Some(at(4))));
    assert_eq!(
        history(&store).await,
        [
            (model('a'), ActivationKind::Configured, ActivationStatus::Former),
            (model('b'), ActivationKind::Activated, ActivationStatus::Former),
            (model('a'), ActivationKind::RolledBack, ActivationStatus::Active)
        ]
    );
}

pub(crate) async fn refused_model_leaves_the_active_one(backend: impl Backend) {
    let store = backend.open().await;
    offer(&store, &['a', 'b', 'c']).await;
    store.adopt_model(&model('a'), "it stands there", at(1)).await.unwrap();
    let first = store.request_model(&model('b'), "anna", "why", at(2)).await.unwrap();
    let second = store.request_model(&model('c'), "bert", "why not", at(3)).await.unwrap();
    let late = store.settle_model(&first, Ok(()), at(4)).await;
    assert!(matches!(late, Err(StoreError::StaleClaim { .. })), "the later request holds: {late:?}");
    assert_eq!(store.active_model().await.unwrap().unwrap().model, model('a'));
    store.settle_model(&second, Err("self-test failed".to_owned()), at(5)).await.unwrap();
    assert_eq!(store.requested_model().await.unwrap(), None);
    let refused = store.activation(second.id).await.unwrap();
    assert_eq!((refused.status, refused.words.as_deref()), (ActivationStatus::Refused, Some("self-test failed")));
    assert_eq!(store.active_model().await.unwrap().unwrap().model, model('a'));
    let events = kinds_of_models(&store).await;
    assert_eq!(events, ["model-activated", "model-requested", "model-requested", "model-refused"]);
    // Over a restart as well.
    store.close().await;
    let store = backend.open().await;
    assert_eq!(store.active_model().await.unwrap().unwrap().model, model('a'));
}

pub(crate) async fn reanalysis_is_a_new_version_by_the_wanted_model(backend: impl Backend) {
    let store = backend.open().await;
    offer(&store, &['a', 'b']).await;
    let wish = |letter| ReanalysisWish {
        study: study_uid("s"),
        model: model(letter),
        actor: "anna".to_owned(),
        why: "second opinion".to_owned(),
    };
    let unknown = store.reanalyse(&wish('b'), at(0)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })), "{unknown:?}");
    closed_study(&store, "s", 3, 0).await;
    let early = store.reanalyse(&wish('b'), at(15)).await.unwrap();
    assert!(matches!(early, RetryOutcome::UnderWay { status: StudyStatus::Queued, .. }), "{early:?}");
    let first = analyse(&store, true, &["pacs"], at(20)).await;
    assert_eq!(first.wanted_model, None);

    let stranger = store.reanalyse(&wish('q'), at(21)).await;
    assert!(matches!(stranger, Err(StoreError::NotFound { .. })), "{stranger:?}");
    let queued = store.reanalyse(&wish('b'), at(22)).await.unwrap();
    assert_eq!(queued, RetryOutcome::Queued { version: 2, deliveries: 0 });
    let claim = store.claim_analysis("w", at(23)).await.unwrap().unwrap();
    assert_eq!((claim.version, claim.wanted_model.clone()), (2, Some(model('b'))));
    let outcome = outcome(&store, &claim, false, &["pacs"]).await;
    store.complete_analysis(claim, outcome, at(24)).await.unwrap();
    let detail = detail(&store, "s").await;
    assert_eq!((detail.summary.version, detail.summary.positive), (2, Some(false)));
    assert_eq!(detail.objects.len(), 2, "both versions' objects");
    assert!(kinds(&store, "s").await.contains(&"reanalysis-asked".to_owned()));
    // A late slice's version is the active model's again.
    Slice::of("s", 9).record(&store, at(30)).await;
    store.close_quiet_studies(quiet_after(30)).await.unwrap();
    let claim = store.claim_analysis("w", quiet_after(30)).await.unwrap().unwrap();
    assert_eq!((claim.version, claim.wanted_model), (3, None));

    store.note_offer(&model('b'), Err("broken".to_owned()), "", at(50)).await.unwrap();
    let refused = store.reanalyse(&wish('b'), at(51)).await;
    assert!(matches!(refused, Err(StoreError::Filter { .. })), "{refused:?}");
}

pub(crate) async fn late_slice_keeps_the_wanted_model(backend: impl Backend) {
    let store = backend.open().await;
    offer(&store, &['a', 'b']).await;
    closed_study(&store, "s", 3, 0).await;
    analyse(&store, true, &[], at(20)).await;
    let wish = ReanalysisWish {
        study: study_uid("s"),
        model: model('b'),
        actor: "anna".to_owned(),
        why: "second opinion".to_owned(),
    };
    store.reanalyse(&wish, at(22)).await.unwrap();
    for (number, seconds) in [(8, 30), (9, 60)] {
        Slice::of("s", number).record(&store, at(seconds)).await;
        store.close_quiet_studies(quiet_after(seconds)).await.unwrap();
    }
    let claim = store.claim_analysis("w", quiet_after(60)).await.unwrap().unwrap();
    assert_eq!((claim.version, claim.wanted_model), (4, Some(model('b'))));
}

pub(crate) async fn failed_version_leaves_its_wish_to_the_next(backend: impl Backend) {
    let store = backend.open().await;
    offer(&store, &['a', 'b']).await;
    closed_study(&store, "s", 3, 0).await;
    analyse(&store, true, &[], at(20)).await;
    let wish = ReanalysisWish {
        study: study_uid("s"),
        model: model('b'),
        actor: "anna".to_owned(),
        why: "second opinion".to_owned(),
    };
    store.reanalyse(&wish, at(22)).await.unwrap();
    let reason = || Reason::new("model", "out of memory");
    // The next version closes while the wish is being worked on, and then the work fails.
    let claim = store.claim_analysis("w", at(23)).await.unwrap().unwrap();
    Slice::of("s", 8).record(&store, at(30)).await;
    store.close_quiet_studies(quiet_after(30)).await.unwrap();
    store.fail_analysis(claim, reason(), Some(at(50)), at(45)).await.unwrap();
    let claim = store.claim_analysis("w", at(50)).await.unwrap().unwrap();
    assert_eq!((claim.version, claim.wanted_model.clone()), (3, Some(model('b'))));
    // The same over a crash.
    Slice::of("s", 9).record(&store, at(60)).await;
    store.close_quiet_studies(quiet_after(60)).await.unwrap();
    store.close().await;
    let store = backend.open().await;
    store.recover(at(80)).await.unwrap();
    let claim = store.claim_analysis("w", at(81)).await.unwrap().unwrap();
    assert_eq!((claim.version, claim.wanted_model.clone()), (4, Some(model('b'))));
    // And where it was given up before.
    store.fail_analysis(claim, reason(), None, at(82)).await.unwrap();
    Slice::of("s", 10).record(&store, at(90)).await;
    store.close_quiet_studies(quiet_after(90)).await.unwrap();
    let claim = store.claim_analysis("w", quiet_after(90)).await.unwrap().unwrap();
    assert_eq!((claim.version, claim.wanted_model.clone()), (5, Some(model('b'))));
    // Once there is a result the wish is fulfilled.
    let outcome = outcome(&store, &claim, false, &[]).await;
    store.complete_analysis(claim, outcome, at(110)).await.unwrap();
    Slice::of("s", 11).record(&store, at(120)).await;
    store.close_quiet_studies(quiet_after(120)).await.unwrap();
    assert_eq!(store.claim_analysis("w", quiet_after(120)).await.unwrap().unwrap().wanted_model, None);
}
