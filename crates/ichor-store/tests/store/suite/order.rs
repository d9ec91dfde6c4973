use ichor_store::{NewAlert, Urgency};

use crate::support::*;

/// The studies in the order in which they are claimed, when what was queued until `overdue` counts as urgent.
async fn claimed(store: &ichor_store::Store, overdue: i64, now: i64) -> Vec<String> {
    let listed: Vec<String> = (store.analysis_queue(at(overdue), 100, at(now)).await.unwrap().iter())
        .filter(|waiting| !waiting.is_running)
        .map(|waiting| waiting.study_instance.to_string())
        .collect();
    let mut claimed = Vec::new();
    while let Some(claim) = store.claim_analysis_in_order("w", at(overdue), at(now)).await.unwrap() {
        claimed.push(claim.study.study_instance.to_string());
    }
    assert_eq!(listed, claimed, "the list says what is done");
    claimed
}

fn uids(studies: &[&str]) -> Vec<String> {
    studies.iter().map(|study| study_uid(study).to_string()).collect()
}

async fn decide(store: &ichor_store::Store, urgent: &str) {
    for analysis in store.undecided_analyses(100).await.unwrap() {
        let is_urgent = analysis.study_instance == study_uid(urgent);
        assert!(analysis.first_instance.as_ref().unwrap().is_file());
        let words = is_urgent.then(|| "urgent by rule \"er\"".to_owned());
        let urgency = Urgency { by: is_urgent.then(|| "er".to_owned()), words };
        store.decide_urgency(&analysis, &urgency, at(900)).await.unwrap();
        store.decide_urgency(&analysis, &Urgency::default(), at(901)).await.unwrap();
    }
    assert!(store.undecided_analyses(100).await.unwrap().is_empty(), "decided once");
}

pub(crate) async fn urgent_and_alerted_first_then_the_oldest(backend: impl Backend) {
    let store = backend.open().await;
    for (study, seconds) in [("old", 0), ("older-routine", 100), ("urgent", 200), ("alerted", 300), ("new", 400)] {
        closed_study(&store, study, 2, seconds).await;
    }
    decide(&store, "urgent").await;
    let alert = NewAlert {
        study_instance: study_uid("alerted"),
        series_instance: uid(&["series", "alerted"]),
        model: "m".to_owned(),
        notice: None,
        slices: vec![slice_uid("alerted", 1)],
        probability: 0.75,
        first_received_at: at(300),
    };
    store.record_alert(&alert, at(950)).await.unwrap().expect("it is queued");
    assert_eq!(claimed(&store, -1, 1_000).await, uids(&["urgent", "alerted", "old", "older-routine", "new"]));
    assert!(kinds(&store, "urgent").await.contains(&"analysis-order".to_owned()));
    assert!(!kinds(&store, "old").await.contains(&"analysis-order".to_owned()));
}

pub(crate) async fn who_has_waited_long_is_overtaken_no_more(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "routine", 2, 0).await;
    closed_study(&store, "young", 2, 500).await;
    closed_study(&store, "urgent", 2, 600).await;
    decide(&store, "urgent").await;
    assert_eq!(claimed(&store, 100, 1_000).await, uids(&["routine", "urgent", "young"]));
}
