use ichor_core::{Reason, Subject};
use ichor_store::{
    FileKind, Follower, Forwarding, LATENCY_BOUNDS_MS, LatencyHistogram, Measure, NewAlert, ProofPlan, ReanalysisWish,
    Store,
};

use crate::support::*;

async fn histogram(store: &Store, measure: Measure, name: &str, of_what: &str) -> LatencyHistogram {
    let all = store.latencies().await.unwrap();
    let found = all.into_iter().find(|one| (one.measure, &*one.name, &*one.of_what) == (measure, name, of_what));
    found.map(|found| found.histogram).unwrap_or_default()
}

/// How many, and all of them together in seconds.
pub(super) async fn counted(store: &Store, measure: Measure, name: &str, of_what: &str) -> (u64, f64) {
    let found = histogram(store, measure, name, of_what).await;
    (found.count(), found.sum_ms as f64 / 1_000.0)
}

pub(crate) async fn each_end_is_counted_once_and_outlives_the_process(backend: impl Backend) {
    let store = backend.open().await;
    assert!(store.latencies().await.unwrap().is_empty());
    closed_study(&store, "positive", 3, 0).await;
    let claim = store.claim_analysis("w", at(11)).await.unwrap().unwrap();
    let done = outcome(&store, &claim, true, &["pacs"]).await;
    let again = (copy(&claim), outcome(&store, &claim, true, &[]).await);
    store.complete_analysis(claim, done, at(14)).await.unwrap();
    // Who has lost the claim counts nothing.
    store.complete_analysis(again.0, again.1, at(15)).await.unwrap_err();
    closed_study(&store, "single", 1, 20).await;
    let claim = store.claim_analysis("w", at(31)).await.unwrap().unwrap();
    store.complete_analysis(claim, not_analysed(), at(32)).await.unwrap();
    closed_study(&store, "broken", 1, 40).await;
    let claim = store.claim_analysis("w", at(51)).await.unwrap().unwrap();
    store.fail_analysis(claim, Reason::new("model", "no"), Some(at(60)), at(53)).await.unwrap();
    assert_eq!(counted(&store, Measure::Turnaround, "", "failed").await, (0, 0.0), "it will be tried again");
    let claim = store.claim_analysis("w", at(60)).await.unwrap().unwrap();
    store.fail_analysis(claim, Reason::new("model", "no"), None, at(61)).await.unwrap();

    let expected = [
        (Measure::Turnaround, "", "positive", (1, 14.0)),
        (Measure::Turnaround, "", "negative", (0, 0.0)),
        (Measure::Turnaround, "", "not-analysed", (1, 12.0)),
        (Measure::Turnaround, "", "failed", (1, 21.0)),
        (Measure::Analysis, "", "", (2, 4.0)),
        (Measure::Stage, "", "classify", (1, 1.2)),
        (Measure::Stage, "", "mask", (1, 0.8)),
    ];
    drop(store);
    let store = backend.open().await;
    for (measure, name, of_what, counts) in expected {
        assert_eq!(counted(&store, measure, name, of_what).await, counts, "{measure:?} {of_what}");
    }
    // Under the first bound that is not below: 12 s under 15 s, 21 s under 30 s.
    for (of_what, bound) in [("not-analysed", 15_000), ("failed", 30_000)] {
        let found = histogram(&store, Measure::Turnaround, "", of_what).await;
        let place = LATENCY_BOUNDS_MS.iter().position(|known| *known == bound).unwrap();
        assert_eq!(found.counts[place], 1, "{found:?}");
    }
    let told = detail_of(&store, "positive", "analysed").await;
    assert_eq!(told["turnaround_ms"], 14_000);
    assert_eq!(detail_of(&store, "broken", "analysis-failed").await["turnaround_ms"], 21_000);
}

async fn detail_of(store: &Store, study: &str, kind: &str) -> serde_json::Value {
    let events = store.timeline(&study_uid(study)).await.unwrap();
    events.into_iter().rfind(|event| event.kind == kind).unwrap().detail
}

pub(crate) async fn late_slices_and_wishes_begin_their_own_time(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "study", 2, 0).await;
    let claim = store.claim_analysis("w", at(12)).await.unwrap().unwrap();
    // Too late for the version that is under way.
    Slice::of("study", 7).record(&store, at(13)).await;
    let done = outcome(&store, &claim, false, &[]).await;
    store.complete_analysis(claim, done, at(15)).await.unwrap();
    assert_eq!(counted(&store, Measure::Turnaround, "", "negative").await, (1, 15.0), "not two");
    store.close_quiet_studies(quiet_after(13)).await.unwrap();
    analyse(&store, false, &[], at(33)).await;
    assert_eq!(counted(&store, Measure::Turnaround, "", "negative").await, (2, 35.0));
    // Asked for a day later, and done in four seconds.
    super::models::offer(&store, &['a']).await;
    let wish = ReanalysisWish {
        study: study_uid("study"),
        model: super::models::model('a'),
        actor: "anna".to_owned(),
        why: "the other erred".to_owned(),
    };
    store.reanalyse(&wish, at(86_400)).await.unwrap();
    analyse(&store, true, &[], at(86_404)).await;
    assert_eq!(counted(&store, Measure::Turnaround, "", "positive").await, (1, 4.0));
}

pub(crate) async fn messages_count_from_what_they_rest_on(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", Subject::ALL, at(0)).await.unwrap();
    Slice::of("study", 1).record(&store, at(1)).await;
    let alert = NewAlert {
        study_instance: study_uid("study"),
        series_instance: uid(&["series", "study"]),
        model: "m@1.0.0+0123456789ab".to_owned(),
        notice: None,
        slices: vec![slice_uid("study", 1)],
        probability: 0.75,
        first_received_at: at(1),
    };
    store.record_alert(&alert, at(3)).await.unwrap().unwrap();
    assert_eq!(counted(&store, Measure::Alert, "", "").await, (1, 2.0));
    tell(&store, 5).await;
    store.close_quiet_studies(quiet_after(1)).await.unwrap();
    analyse(&store, true, &["pacs"], at(20)).await;
    // A late slice, before anybody is told of the version before it.
    Slice::of("study", 2).record(&store, at(22)).await;
    tell(&store, 25).await;
    let delivery = store.claim_delivery("pacs", at(30)).await.unwrap().unwrap();
    store.delivery_failed(delivery, Reason::new("refused", "no"), None, at(40)).await.unwrap();
    tell(&store, 42).await;

    assert_eq!(counted(&store, Measure::Message, "ris", "alert").await, (1, 4.0), "from the first suspicious slice");
    assert_eq!(
        counted(&store, Measure::Message, "ris", "positive").await,
        (1, 24.0),
        "from the last slice of its version"
    );
    assert_eq!(counted(&store, Measure::Message, "ris", "delivery-dead").await, (1, 2.0), "from when it was given up");
    let mut kept: Vec<(Subject, Option<u64>)> =
        store.messages(None, None, 10).await.unwrap().iter().map(|one| (one.subject, one.latency_ms)).collect();
    kept.reverse();
    let expected =
        [(Subject::Alert, Some(4_000)), (Subject::Positive, Some(24_000)), (Subject::DeliveryDead, Some(2_000))];
    assert_eq!(kept, expected);
    let texts: Vec<String> = (store.timeline(&study_uid("study")).await.unwrap().into_iter())
        .filter(|event| event.kind == "message-acknowledged")
        .map(|event| event.text)
        .collect();
    assert!(texts[0].ends_with("4000 ms after the first suspicious slice"), "{texts:?}");
    assert!(texts[1].ends_with("24000 ms after what it rests on"), "{texts:?}");
    assert!(texts[2].ends_with("2000 ms after it was given up"), "{texts:?}");
}

/// Tells everything that there is, each acknowledged.
async fn tell(store: &Store, seconds: i64) {
    store.follow_events("ris", Subject::ALL, at(seconds)).await.unwrap();
    while let Some(claim) = store.claim_message("ris", at(seconds)).await.unwrap() {
        assert_eq!(claim.version, 1, "{claim:?}");
        store.message_acknowledged(claim, "AA", at(seconds)).await.unwrap();
    }
}

pub(crate) async fn deliveries_count_the_first_time_they_arrive(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "study", 2, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    let plan = ProofPlan { commitment: false, read_back: true };
    let claim = store.claim_delivery("pacs", at(21)).await.unwrap().unwrap();
    store.delivery_failed(claim, Reason::new("unreachable", "no"), Some(at(22)), at(21)).await.unwrap();
    let claim = store.claim_delivery("pacs", at(22)).await.unwrap().unwrap();
    store.delivery_accepted(claim, "Success", plan, at(23), at(23)).await.unwrap();
    assert_eq!(counted(&store, Measure::Accepted, "pacs", "result").await, (1, 3.0), "from the outbox");
    // Lost, and sent again.
    let due = store.due_read_backs("pacs", 10, at(23)).await.unwrap().remove(0);
    let lost = Reason::new("not-there", "it is not there");
    store.read_back_came_to_nothing(&[due.delivery], &lost, ichor_store::Consequence::Lost, at(24)).await.unwrap();
    let lost = store.lost_deliveries("pacs").await.unwrap().remove(0);
    store.send_again(&lost, Some(at(25)), at(25)).await.unwrap();
    let claim = store.claim_delivery("pacs", at(25)).await.unwrap().unwrap();
    store.delivery_accepted(claim, "Success", plan, at(26), at(26)).await.unwrap();
    assert_eq!(counted(&store, Measure::Accepted, "pacs", "result").await, (1, 3.0), "once");
    assert_eq!(counted(&store, Measure::Visible, "pacs", "result").await, (0, 0.0));
    store.read_back_found(due.delivery, "found", at(30)).await.unwrap();
    assert_eq!(counted(&store, Measure::Visible, "pacs", "result").await, (1, 10.0));
    store.read_back_found(due.delivery, "found", at(31)).await.unwrap_err();
    assert_eq!(counted(&store, Measure::Visible, "pacs", "result").await, (1, 10.0));
    // What is passed on stands by itself.
    for study in store.undecided_studies(100).await.unwrap() {
        let forwarding = Forwarding { destinations: vec!["vna".to_owned()], ..Forwarding::default() };
        store.forward(&study, &forwarding, at(32)).await.unwrap();
    }
    while let Some(claim) = store.claim_delivery("vna", at(33)).await.unwrap() {
        store.delivery_accepted(claim, "Success", ProofPlan::default(), at(33), at(33)).await.unwrap();
    }
    assert_eq!(counted(&store, Measure::Accepted, "vna", "received").await, (2, 2.0));
}

pub(crate) async fn retention_takes_nothing(backend: impl Backend) {
    let store = backend.open().await;
    let followers = [Follower { channel: "ris".to_owned(), subjects: Subject::ALL.to_vec() }];
    store.follow_events("ris", Subject::ALL, at(0)).await.unwrap();
    closed_study(&store, "study", 2, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    let claim = store.claim_delivery("pacs", at(21)).await.unwrap().unwrap();
    store.delivery_accepted(claim, "Success", ProofPlan::default(), at(22), at(22)).await.unwrap();
    tell(&store, 23).await;
    for study in store.undecided_studies(100).await.unwrap() {
        store.forward(&study, &Forwarding::default(), at(24)).await.unwrap();
    }
    let before = store.latencies().await.unwrap();
    assert!(before.len() >= 6, "{before:?}");
    for kind in [FileKind::Received, FileKind::Results] {
        let found = store.retention_candidates(kind, at(1_000_000), &followers, None, 10).await.unwrap().remove(0);
        store.remove_files(&found, kind, "by rule \"old\"", &followers, at(30)).await.unwrap();
        while store.remove_doomed(10).await.unwrap() != Some(0) {}
    }
    assert_eq!(store.latencies().await.unwrap(), before);
}
