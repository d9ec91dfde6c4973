use ichor_core::Uid;
use ichor_store::{ArrivedInstance, NewAlert, Recorded, SliceProbability, Store, Topic};

use crate::support::*;

const MODEL: &str = "ichor-demo@1.0.0+0123456789ab physionet";

fn said(instance: i64, probability: f32) -> SliceProbability {
    SliceProbability { instance, frame: None, probability, height_mm: instance as f64 * 5.0 }
}

fn alert(study: &str, numbers: &[u32], seconds: i64) -> NewAlert {
    NewAlert {
        study_instance: study_uid(study),
        series_instance: uid(&["series", study]),
        model: MODEL.to_owned(),
        notice: Some("made for tests".to_owned()),
        slices: numbers.iter().map(|number| slice_uid(study, *number)).collect(),
        probability: 0.75,
        first_received_at: at(seconds),
    }
}

async fn waiting(store: &Store, model: &str, after: i64) -> Vec<ArrivedInstance> {
    store.unclassified_instances(model, after, 100).await.unwrap()
}

fn numbers(waiting: &[ArrivedInstance]) -> Vec<&Uid> {
    waiting.iter().map(|arrived| &arrived.instance.sop_instance).collect()
}

pub(crate) async fn slices_wait_in_the_order_of_arrival(backend: impl Backend) {
    let store = backend.open().await;
    assert_eq!(store.newest_instance().await.unwrap(), 0);
    closed_study(&store, "closed", 2, 0).await;
    assert!(waiting(&store, MODEL, 0).await.is_empty(), "a closed study's slices are for its analysis");
    let before = store.newest_instance().await.unwrap();
    assert!(before > 0);
    for (study, number) in [("a", 7), ("b", 1), ("a", 3)] {
        Slice::of(study, number).record(&store, at(20)).await;
    }
    let own = Slice { own: true, ..Slice::of("a", 9) };
    assert!(matches!(own.record(&store, at(20)).await, Recorded::New { .. }));
    let arrived = waiting(&store, MODEL, before).await;
    assert_eq!(numbers(&arrived), [&slice_uid("a", 7), &slice_uid("b", 1), &slice_uid("a", 3)]);
    assert_eq!(arrived[1].study_instance, study_uid("b"));
    assert!(arrived[0].instance.path.is_file());
    assert_eq!(store.unclassified_instances(MODEL, before, 2).await.unwrap().len(), 2);

    let first = arrived[0].instance.id;
    store.record_probabilities(MODEL, &[said(first, 0.5)]).await.unwrap();
    assert_eq!(numbers(&waiting(&store, MODEL, before).await), [&slice_uid("b", 1), &slice_uid("a", 3)]);
    assert_eq!(waiting(&store, "another", before).await.len(), 3, "another model has not seen it");
    assert_eq!(waiting(&store, "another", first).await.len(), 2);
}

pub(crate) async fn probabilities_stay_for_the_analysis(backend: impl Backend) {
    let store = backend.open().await;
    for number in 0..3 {
        Slice::of("a", number).record(&store, at(0)).await;
    }
    let ids: Vec<i64> = waiting(&store, MODEL, 0).await.iter().map(|arrived| arrived.instance.id).collect();
    store.record_probabilities(MODEL, &[said(ids[0], 0.25), said(ids[2], 0.75)]).await.unwrap();
    store.record_probabilities(MODEL, &[said(ids[0], 0.5)]).await.unwrap();
    store.record_probabilities(MODEL, &[]).await.unwrap();
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    let claim = store.claim_analysis("w", quiet_after(0)).await.unwrap().unwrap();
    let mut known: Vec<_> = store.probabilities(&claim, MODEL).await.unwrap().into_iter().collect();
    known.sort_by(|a, b| a.1.total_cmp(&b.1));
    assert_eq!(known, [((slice_uid("a", 0), None), 0.25), ((slice_uid("a", 2), None), 0.75)], "the first word stays");
    assert!(store.probabilities(&claim, "another").await.unwrap().is_empty());

    // A late slice finds them again.
    let outcome = outcome(&store, &claim, false, &[]).await;
    store.complete_analysis(claim, outcome, at(20)).await.unwrap();
    Slice::of("a", 3).record(&store, at(30)).await;
    store.close_quiet_studies(quiet_after(30)).await.unwrap();
    let claim = store.claim_analysis("w", quiet_after(30)).await.unwrap().unwrap();
    assert_eq!(store.probabilities(&claim, MODEL).await.unwrap().len(), 2);
}

pub(crate) async fn frames_are_slices_of_their_own(backend: impl Backend) {
    let store = backend.open().await;
    Slice::of("a", 0).record(&store, at(0)).await;
    Slice::of("a", 1).record(&store, at(0)).await;
    let ids: Vec<i64> = waiting(&store, MODEL, 0).await.iter().map(|arrived| arrived.instance.id).collect();
    let frame = |frame, probability| SliceProbability { frame, ..said(ids[0], probability) };
    let all = [frame(Some(1), 0.25), frame(Some(2), 0.5), said(ids[1], 0.75)];
    store.record_probabilities(MODEL, &all[..1]).await.unwrap();
    store.record_probabilities(MODEL, &all).await.unwrap();
    store.record_probabilities(MODEL, &[frame(Some(2), 1.0)]).await.unwrap();
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    let claim = store.claim_analysis("w", quiet_after(0)).await.unwrap().unwrap();
    let mut known: Vec<_> = store.probabilities(&claim, MODEL).await.unwrap().into_iter().collect();
    known.sort_by(|a, b| a.1.total_cmp(&b.1));
    let uids = [slice_uid("a", 0), slice_uid("a", 1)];
    let wanted =
        [((uids[0].clone(), Some(1)), 0.25), ((uids[0].clone(), Some(2)), 0.5), ((uids[1].clone(), None), 0.75)];
    assert_eq!(known, wanted, "each frame keeps its first word");
}

pub(crate) async fn study_is_alerted_once(backend: impl Backend) {
    let store = backend.open().await;
    for (number, seconds) in [(2, 0), (0, 1), (1, 2)] {
        Slice::of("a", number).record(&store, at(seconds)).await;
    }
    let arrived = waiting(&store, MODEL, 0).await;
    let heights = [10.0, 0.0, 5.0];
    let said: Vec<_> = (arrived.iter().zip(heights))
        .map(|(arrived, height_mm)| SliceProbability {
            instance: arrived.instance.id,
            frame: None,
            probability: 0.75,
            height_mm,
        })
        .collect();
    store.record_probabilities(MODEL, &said).await.unwrap();
    let series = uid(&["series", "a"]);
    let slices = store.slices_to_alert(&study_uid("a"), &series, MODEL).await.unwrap();
    let order: Vec<_> = slices.iter().map(|slice| slice.sop_instance.clone()).collect();
    assert_eq!(order, [slice_uid("a", 0), slice_uid("a", 1), slice_uid("a", 2)], "along the patient");
    assert_eq!((slices[2].received_at, slices[2].probability), (at(0), 0.75));
    assert!(store.slices_to_alert(&study_uid("a"), &series, "another").await.unwrap().is_empty());

    let mut alerts = store.changes(Topic::Alert);
    let latency = store.record_alert(&alert("a", &[0, 1, 2], 0), at(4)).await.unwrap();
    assert_eq!(latency, Some(4_000));
    alerts.changed().await;
    assert_eq!(store.record_alert(&alert("a", &[0, 1, 2], 0), at(5)).await.unwrap(), None);
    assert!(store.slices_to_alert(&study_uid("a"), &series, MODEL).await.unwrap().is_empty());
    let detail = detail(&store, "a").await;
    assert_eq!((detail.summary.alerted_at, detail.summary.positive), (Some(at(4)), None));
    let timeline = store.timeline(&study_uid("a")).await.unwrap();
    let events: Vec<_> = timeline.iter().filter(|event| event.kind == "alert").collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].detail["latency_ms"], 4_000);
    assert_eq!(events[0].detail["slices"].as_array().unwrap().len(), 3);
    assert!(store.record_alert(&alert("nowhere", &[0], 0), at(5)).await.is_err());

    // A clock that was set back.
    Slice::of("b", 0).record(&store, at(9)).await;
    assert_eq!(store.record_alert(&alert("b", &[0], 9), at(5)).await.unwrap(), Some(0));
}

pub(crate) async fn alert_that_was_wrong_is_withdrawn(backend: impl Backend) {
    let store = backend.open().await;
    for (study, seconds, positive) in [("wrong", 0, false), ("right", 100, true)] {
        Slice::of(study, 0).record(&store, at(seconds)).await;
        store.record_alert(&alert(study, &[0], seconds), at(seconds + 1)).await.unwrap();
        store.close_quiet_studies(quiet_after(seconds)).await.unwrap();
        analyse(&store, positive, &[], quiet_after(seconds)).await;
        let withdrawn = kinds(&store, study).await.contains(&"alert-withdrawn".to_owned());
        assert_eq!(withdrawn, !positive, "{study}");
        assert_eq!(detail(&store, study).await.summary.alerted_at, Some(at(seconds + 1)));
    }
    // What has its result is not alerted any more.
    closed_study(&store, "late", 1, 200).await;
    analyse(&store, false, &[], quiet_after(200)).await;
    assert_eq!(store.record_alert(&alert("late", &[0], 200), quiet_after(201)).await.unwrap(), None);
}

pub(crate) async fn alert_stands_if_nobody_looked_at_the_whole(backend: impl Backend) {
    let store = backend.open().await;
    Slice::of("a", 0).record(&store, at(0)).await;
    store.record_alert(&alert("a", &[0], 0), at(1)).await.unwrap();
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    store.complete_analysis(claim, not_analysed(), at(21)).await.unwrap();
    assert!(!kinds(&store, "a").await.contains(&"alert-withdrawn".to_owned()));
    let events = store.timeline(&study_uid("a")).await.unwrap();
    let detail = |kind: &str| events.iter().find(|event| event.kind == kind).unwrap().detail.clone();
    assert_eq!(detail("not-analysed")["alert"], detail("alert"));
    // It was looked at in the end.
    store.retry(&study_uid("a"), at(22)).await.unwrap();
    analyse(&store, false, &[], at(23)).await;
    assert!(kinds(&store, "a").await.contains(&"alert-withdrawn".to_owned()));
}
