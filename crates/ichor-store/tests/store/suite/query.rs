use std::collections::BTreeSet;
use std::time::Duration;

use ichor_core::{AeTitle, Reason, StudyStatus};
use ichor_store::{AssociationEnd, ProofPlan, RetryOutcome, Store, StoreError, StudyFilter, StudyKey, Topic};

use crate::support::*;

/// Four studies: an analysed positive one, an analysed negative one, a failed one, a receiving one.
async fn four(store: &Store) {
    let end = AssociationEnd { outcome: "released".to_owned(), instances: 1, bytes: 12 };
    for (study, seconds) in [("positive", 0), ("negative", 100), ("failed", 200), ("receiving", 300)] {
        let association = open_association(store, at(seconds)).await;
        let is_first = study == "positive";
        let slice = Slice {
            association: Some(association),
            patient: Some(if is_first { "P1" } else { "P2" }),
            accession: Some(if is_first { "A1" } else { "A2" }),
            date: Some(if is_first { "20260101" } else { "20260301" }),
            source: if is_first { "CT1" } else { "CT2" },
            ..Slice::of(study, 1)
        };
        slice.record(store, at(seconds)).await;
        store.association_closed(association, &end, at(seconds)).await.unwrap();
        if study != "receiving" {
            store.close_quiet_studies(quiet_after(seconds)).await.unwrap();
        }
        match study {
            "positive" | "negative" => drop(analyse(store, is_first, &["pacs"], at(seconds + 20)).await),
            "failed" => {
                let claim = store.claim_analysis("w", at(seconds + 20)).await.unwrap().unwrap();
                store.fail_analysis(claim, Reason::new("x", "y"), None, at(seconds + 21)).await.unwrap();
            }
            _ => {}
        }
    }
}

async fn names(store: &Store, filter: StudyFilter) -> Vec<&'static str> {
    let page = store.studies(&filter).await.unwrap();
    assert_eq!(page.next, None);
    let name = |study| ["positive", "negative", "failed", "receiving"].into_iter().find(|n| study_uid(n) == study);
    page.items.into_iter().map(|study| name(study.study_instance).unwrap()).collect()
}

pub(crate) async fn each_filter_filters(backend: impl Backend) {
    let store = backend.open().await;
    four(&store).await;
    assert_eq!(store.known_sources().await.unwrap(), ["CT1", "CT2"]);
    assert_eq!(store.known_reasons().await.unwrap(), ["x"]);
    for reversed in [
        StudyFilter {
            date_from: Some("20260301".to_owned()),
            date_to: Some("20260228".to_owned()),
            ..StudyFilter::default()
        },
        StudyFilter { received_from: Some(at(2)), received_to: Some(at(1)), ..StudyFilter::default() },
    ] {
        let error = store.studies(&reversed).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Filter { .. }) && error.to_string().contains("before it begins"),
            "{error}"
        );
    }
    let none = StudyFilter::default;
    let text = |value: &str| Some(value.to_owned());
    let cases: Vec<(StudyFilter, Vec<&str>)> = vec![
        (none(), vec!["receiving", "failed", "negative", "positive"]),
        (StudyFilter { patient_id: text("P1"), ..none() }, vec!["positive"]),
        (StudyFilter { accession_number: text("A2"), ..none() }, vec!["receiving", "failed", "negative"]),
        (StudyFilter { date_to: text("20260131"), ..none() }, vec!["positive"]),
        (StudyFilter { date_from: text("20260301"), ..none() }, vec!["receiving", "failed", "negative"]),
        (
            StudyFilter { received_from: Some(at(100)), received_to: Some(at(200)), ..none() },
            vec!["failed", "negative"],
        ),
        (StudyFilter { status: Some(StudyStatus::Failed), ..none() }, vec!["failed"]),
        (StudyFilter { positive: Some(true), ..none() }, vec!["positive"]),
        (StudyFilter { positive: Some(false), ..none() }, vec!["negative"]),
        (StudyFilter { source_ae: Some(AeTitle::parse("CT1").unwrap()), ..none() }, vec!["positive"]),
        (StudyFilter { patient_id: text("P2"), positive: Some(true), ..none() }, vec![]),
        (StudyFilter { patient_id: text("' OR 1=1 --"), ..none() }, vec![]),
    ];
    for (filter, expected) in cases {
        assert_eq!(names(&store, filter.clone()).await, expected, "{filter:?}");
    }
}

pub(crate) async fn pages_hold_every_study_once(backend: impl Backend) {
    const STUDIES: u32 = 23;
    let store = backend.open().await;
    for study in 0..STUDIES {
        // Several at the same moment.
        Slice::of(&study.to_string(), 1).record(&store, at(i64::from(study / 5))).await;
    }
    let mut filter = StudyFilter { limit: 4, ..StudyFilter::default() };
    let (mut seen, mut last) = (BTreeSet::new(), None);
    loop {
        let page = store.studies(&filter).await.unwrap();
        for study in &page.items {
            assert!(last.is_none_or(|last| study.received_at <= last), "newest first");
            last = Some(study.received_at);
            assert!(seen.insert(study.study_instance.clone()), "twice");
        }
        // What arrives meanwhile is newer and moves nothing.
        Slice::of(&format!("late {}", seen.len()), 1).record(&store, at(1_000)).await;
        let Some(next) = page.next else { break };
        assert_eq!(page.items.len(), 4);
        filter.after = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(seen.len() as u32, STUDIES);
}

pub(crate) async fn keys_find_studies(backend: impl Backend) {
    let store = backend.open().await;
    four(&store).await;
    let positive = study_uid("positive");
    for key in [
        StudyKey::Uid(positive.clone()),
        StudyKey::Accession("A1".to_owned()),
        StudyKey::UidPrefix(positive.as_str()[..20].to_owned()),
        StudyKey::parse(positive.as_str()),
        StudyKey::parse(" A1 "),
        StudyKey::parse(&positive.as_str()[..20]),
    ] {
        assert_eq!(store.study(&key).await.unwrap().summary.study_instance, positive, "{key:?}");
    }
    for key in [
        StudyKey::Uid(uid(&["nobody"])),
        StudyKey::Accession("A".to_owned()),
        StudyKey::UidPrefix(String::new()),
        StudyKey::parse(""),
        StudyKey::parse("%"),
    ] {
        let error = store.study(&key).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound { .. }), "{key:?}: {error}");
    }
    for key in [StudyKey::parse("A2"), StudyKey::parse("2.25.")] {
        match store.study(&key).await.unwrap_err() {
            StoreError::Ambiguous { matches, .. } => assert!(matches.len() >= 3, "{matches:?}"),
            other => panic!("{key:?}: {other}"),
        }
    }
}

pub(crate) async fn timeline_tells_the_story_without_the_patient(backend: impl Backend) {
    let store = backend.open().await;
    four(&store).await;
    let delivery = store.claim_delivery("pacs", at(500)).await.unwrap().unwrap();
    store.delivery_accepted(delivery, "0000H", ProofPlan::default(), at(501), at(501)).await.unwrap();
    let timeline = store.timeline(&study_uid("positive")).await.unwrap();
    let kinds: Vec<_> = timeline.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "association-opened",
            "study-opened",
            "instances-received",
            "association-closed",
            "closed",
            "analysis-started",
            "series-chosen",
            "analysed",
            "object-created",
            "delivery-started",
            "delivery-accepted",
        ]
    );
    assert!(timeline.is_sorted_by_key(|event| event.at));
    let told = serde_json::to_string(&timeline).unwrap();
    for secret in ["SECRET", "\"P1\"", "20260101", "HEAD"] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    assert!(matches!(store.timeline(&uid(&["nobody"])).await, Err(StoreError::NotFound { .. })));
}

pub(crate) async fn two_retries_at_once(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 1, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    let (one, two) = (backend.open().await, backend.open().await);
    let study = study_uid("a");
    let (one, two) = tokio::join!(one.retry(&study, at(30)), two.retry(&study, at(30)));
    let outcomes = [one.unwrap(), two.unwrap()];
    assert!(outcomes.contains(&RetryOutcome::Queued { version: 1, deliveries: 0 }), "{outcomes:?}");
    let under_way = RetryOutcome::UnderWay { status: StudyStatus::Queued, deliveries: 0 };
    assert!(outcomes.contains(&under_way), "{outcomes:?}");
    assert_eq!(under_way.to_string(), "nothing to repeat: the study is queued already");
    assert!(store.claim_analysis("w", at(31)).await.unwrap().is_some());
    assert!(store.claim_analysis("w", at(31)).await.unwrap().is_none());
}

pub(crate) async fn retry_answers_for_every_state(backend: impl Backend) {
    let store = backend.open().await;
    four(&store).await;
    let retry = async |study: &str| store.retry(&study_uid(study), at(400)).await.unwrap();
    let queued = RetryOutcome::Queued { version: 1, deliveries: 0 };
    for study in ["positive", "negative", "failed"] {
        assert_eq!(retry(study).await, queued, "{study}");
    }
    let under_way = |status| RetryOutcome::UnderWay { status, deliveries: 0 };
    assert_eq!(retry("receiving").await, under_way(StudyStatus::Receiving));
    let claim = store.claim_analysis("w", at(401)).await.unwrap().unwrap();
    assert_eq!(store.retry(&claim.study.study_instance, at(402)).await.unwrap(), under_way(StudyStatus::Analysing));
    Slice { own: true, ..Slice::of("own", 1) }.record(&store, at(400)).await;
    assert_eq!(retry("own").await, RetryOutcome::NothingToAnalyse);
    assert!(matches!(store.retry(&uid(&["nobody"]), at(400)).await, Err(StoreError::NotFound { .. })));
}

pub(crate) async fn changes_wake_pollers(backend: impl Backend) {
    let store = backend.open().await;
    let woken = async |changes: &mut ichor_store::Changes| {
        tokio::time::timeout(Duration::from_millis(200), changes.changed()).await.is_ok()
    };
    let (mut received, mut closed, mut outbox) =
        (store.changes(Topic::Received), store.changes(Topic::Closed), store.changes(Topic::Outbox));
    Slice::of("a", 1).record(&store, at(0)).await;
    assert!(woken(&mut received).await);
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    assert!(woken(&mut closed).await);
    analyse(&store, true, &["pacs"], at(20)).await;
    assert!(woken(&mut outbox).await);
    assert!(!woken(&mut received).await, "nothing arrived since");
}
