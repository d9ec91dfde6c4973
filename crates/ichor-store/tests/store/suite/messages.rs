use std::time::Duration;

use ichor_core::{MessageStatus, Reason, Subject};
use ichor_store::{MessageClaim, NewAlert, Store, StoreError};

use crate::support::*;

const ALL: &[Subject] = Subject::ALL;

fn alert(study: &str, seconds: i64) -> NewAlert {
    NewAlert {
        study_instance: study_uid(study),
        series_instance: uid(&["series", study]),
        model: "ichor-demo@1.0.0+0123456789ab physionet".to_owned(),
        notice: Some("made for tests".to_owned()),
        slices: vec![slice_uid(study, 1)],
        probability: 0.75,
        first_received_at: at(seconds),
    }
}

/// Everything that `channel` can be told now, in order, each acknowledged.
async fn tell(store: &Store, channel: &str, seconds: i64) -> Vec<(Subject, String)> {
    store.follow_events(channel, ALL, at(seconds)).await.unwrap();
    let mut told = Vec::new();
    while let Some(claim) = store.claim_message(channel, at(seconds)).await.unwrap() {
        told.push((claim.subject, claim.study.study_instance.to_string()));
        store.message_acknowledged(claim, "AA", at(seconds)).await.unwrap();
    }
    told
}

async fn claimed(store: &Store, channel: &str, seconds: i64) -> MessageClaim {
    store.claim_message(channel, at(seconds)).await.unwrap().expect("a message")
}

async fn stands(store: &Store, id: i64) -> MessageStatus {
    store.messages(None, None, 100).await.unwrap().into_iter().find(|message| message.id == id).unwrap().status
}

pub(crate) async fn a_new_channel_begins_with_now(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "before", 2, 0).await;
    analyse(&store, true, &[], at(20)).await;
    assert!(tell(&store, "ris", 21).await.is_empty());
    closed_study(&store, "after", 2, 30).await;
    analyse(&store, true, &[], at(50)).await;
    // A restart changes nothing of that.
    drop(store);
    let store = backend.open().await;
    assert_eq!(tell(&store, "ris", 51).await, [(Subject::Positive, study_uid("after").to_string())]);
    assert!(tell(&store, "ris", 52).await.is_empty(), "told once");
    assert!(tell(&store, "another", 53).await.is_empty(), "what happened before it was configured");
}

pub(crate) async fn messages_know_the_version_that_they_belong_to(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", &[Subject::Negative, Subject::Alert], at(0)).await.unwrap();
    closed_study(&store, "study", 2, 0).await;
    // Complete, and alerted before it is looked at whole.
    store.record_alert(&alert("study", 0), at(11)).await.unwrap().unwrap();
    analyse(&store, false, &["pacs"], at(12)).await;
    Slice::of("study", 7).record(&store, at(20)).await;
    store.close_quiet_studies(quiet_after(20)).await.unwrap();
    analyse(&store, false, &["pacs"], at(40)).await;
    closed_study(&store, "late", 2, 50).await;
    analyse(&store, false, &[], at(62)).await;
    Slice::of("late", 7).record(&store, at(63)).await;
    store.record_alert(&alert("late", 63), at(64)).await.unwrap().unwrap();
    let delivery = |destination: &'static str| store.claim_delivery(destination, at(70));
    let versions = [delivery("pacs").await.unwrap().unwrap(), delivery("pacs").await.unwrap().unwrap()];
    assert_eq!(versions.map(|claim| claim.object.version), [1, 2]);
    store.follow_events("ris", &[Subject::Negative, Subject::Alert], at(80)).await.unwrap();
    let mut told = Vec::new();
    while let Some(claim) = store.claim_message("ris", at(80)).await.unwrap() {
        told.push((claim.study.study_instance.clone(), claim.subject, claim.version));
        store.message_acknowledged(claim, "AA", at(80)).await.unwrap();
    }
    let of = |study: &str| -> Vec<(Subject, u32)> {
        let of_study = told.iter().filter(|(found, _, _)| *found == study_uid(study));
        of_study.map(|(_, subject, version)| (*subject, *version)).collect()
    };
    assert_eq!(of("study"), [(Subject::Alert, 1), (Subject::Negative, 1), (Subject::Negative, 2)]);
    assert_eq!(of("late"), [(Subject::Negative, 1), (Subject::Alert, 2)], "alerted while the second arrives");
}

pub(crate) async fn each_subject_is_told_once(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", ALL, at(0)).await.unwrap();
    store.follow_events("only failures", &[Subject::Failed], at(0)).await.unwrap();
    // An alert that the whole study does not bear out.
    Slice { patient: Some("P1"), accession: Some("A1"), ..Slice::of("study", 1) }.record(&store, at(1)).await;
    store.record_alert(&alert("study", 1), at(4)).await.unwrap().unwrap();
    store.follow_events("ris", ALL, at(4)).await.unwrap();
    let claim = claimed(&store, "ris", 4).await;
    assert_eq!((claim.subject, claim.at, claim.attempts), (Subject::Alert, at(4), 1));
    assert_eq!(claim.since, at(1), "counted from the first suspicious slice");
    assert_eq!(claim.study.patient_id.as_deref(), Some("P1"));
    assert_eq!(claim.study.accession_number.as_deref(), Some("A1"));
    assert_eq!((claim.series.len(), claim.series[0].modality.as_deref()), (1, Some("CT")), "{:?}", claim.series);
    assert_eq!(
        (claim.detail["probability"].as_f64(), claim.detail["notice"].as_str()),
        (Some(0.75), Some("made for tests"))
    );
    assert_eq!(store.message_acknowledged(claim, "AA\u{1b}", at(6)).await.unwrap(), 5_000);
    store.close_quiet_studies(quiet_after(1)).await.unwrap();
    analyse(&store, false, &[], at(20)).await;
    // Not analysed.
    closed_study(&store, "single", 1, 21).await;
    let claim = store.claim_analysis("w", at(40)).await.unwrap().unwrap();
    store.complete_analysis(claim, not_analysed(), at(41)).await.unwrap();
    // Failed.
    closed_study(&store, "broken", 1, 42).await;
    let claim = store.claim_analysis("w", at(60)).await.unwrap().unwrap();
    store.fail_analysis(claim, Reason::new("model", "no"), None, at(61)).await.unwrap();
    // A delivery that is given up.
    closed_study(&store, "undelivered", 1, 62).await;
    analyse(&store, true, &["pacs"], at(80)).await;
    let delivery = store.claim_delivery("pacs", at(81)).await.unwrap().unwrap();
    store.delivery_failed(delivery, Reason::new("refused", "0xA900"), None, at(82)).await.unwrap();

    let mut told = tell(&store, "ris", 90).await;
    assert_eq!(told.remove(0), (Subject::Positive, study_uid("undelivered").to_string()), "before older ones");
    let said = |subject, study: &str| (subject, study_uid(study).to_string());
    assert_eq!(
        told,
        [
            said(Subject::Negative, "study"),
            said(Subject::AlertWithdrawn, "study"),
            said(Subject::NotAnalysed, "single"),
            said(Subject::Failed, "broken"),
            said(Subject::DeliveryDead, "undelivered"),
        ]
    );
    assert!(tell(&store, "ris", 91).await.is_empty());
    assert_eq!(store.follow_events("only failures", &[Subject::Failed], at(92)).await.unwrap(), 1);

    let events = store.timeline(&study_uid("study")).await.unwrap();
    let told = events.iter().find(|event| event.kind == "message-acknowledged").unwrap();
    assert!(told.text.contains("ris") && told.text.contains("5000 ms") && !told.text.contains('\u{1b}'), "{told:?}");
    assert_eq!(told.detail["latency_ms"], 5_000);
    let withdrawn = events.iter().find(|event| event.kind == "alert-withdrawn").unwrap();
    assert_eq!(withdrawn.detail["outcome"]["finding"]["verdict"], "negative", "what it came to instead");
}

pub(crate) async fn urgent_first_and_one_of_a_study_at_a_time(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", ALL, at(0)).await.unwrap();
    for (study, positive, seconds) in [("negative", false, 1), ("positive", true, 40)] {
        closed_study(&store, study, 1, seconds).await;
        analyse(&store, positive, &[], at(seconds + 20)).await;
    }
    // A late slice: the same study once more.
    Slice::of("positive", 9).record(&store, at(70)).await;
    store.close_quiet_studies(quiet_after(70)).await.unwrap();
    analyse(&store, true, &[], at(90)).await;
    assert_eq!(store.follow_events("ris", ALL, at(91)).await.unwrap(), 3);
    let first = claimed(&store, "ris", 91).await;
    assert_eq!(
        (first.study.study_instance.clone(), first.detail["version"].as_u64()),
        (study_uid("positive"), Some(1))
    );
    // Its second version waits for the first, another study does not.
    let other = claimed(&store, "ris", 91).await;
    assert_eq!(other.study.study_instance, study_uid("negative"));
    assert!(store.claim_message("ris", at(91)).await.unwrap().is_none());
    store.message_failed(first, &Reason::new("refused", "AE"), Some(at(200)), at(92)).await.unwrap();
    assert!(store.claim_message("ris", at(93)).await.unwrap().is_none(), "still waits");
    assert_eq!(store.next_message_deadline("ris").await.unwrap(), Some(at(200)));
    let first = claimed(&store, "ris", 200).await;
    assert_eq!(first.attempts, 2);
    // Given up, it holds up nobody.
    store.message_failed(first, &Reason::new("refused", "AE"), None, at(201)).await.unwrap();
    assert_eq!(claimed(&store, "ris", 202).await.detail["version"], 2);
}

pub(crate) async fn failed_message_waits_and_dies(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", ALL, at(0)).await.unwrap();
    closed_study(&store, "study", 1, 0).await;
    analyse(&store, true, &[], at(20)).await;
    store.follow_events("ris", ALL, at(21)).await.unwrap();
    let claim = claimed(&store, "ris", 21).await;
    let id = claim.id;
    let unreachable = Reason::new("unreachable", "connection refused");
    store.message_failed(claim, &unreachable, Some(at(30)), at(22)).await.unwrap();
    assert!(store.claim_message("ris", at(29)).await.unwrap().is_none());
    store.message_failed(claimed(&store, "ris", 30).await, &unreachable, None, at(31)).await.unwrap();
    assert_eq!(stands(&store, id).await, MessageStatus::Dead);
    assert_eq!(store.next_message_deadline("ris").await.unwrap(), None);
    let dead = store.messages(Some(MessageStatus::Dead), Some(&study_uid("study")), 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].attempts, dead[0].next_attempt), (1, 2, None));
    assert!(dead[0].last_words.as_deref().unwrap().contains("refused"));

    assert!(matches!(store.retry_messages(Some(id + 1), at(40)).await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.retry_messages(Some(id), at(40)).await.unwrap(), 1);
    let by_another = store.retry_messages(Some(id), at(40)).await.unwrap_err();
    assert_eq!(by_another.to_string(), format!("message {id} is queued already, and will be sent"));
    let claim = claimed(&store, "ris", 41).await;
    assert_eq!((claim.id, claim.attempts), (id, 1));
    // Killed while it is being sent.
    drop(store);
    let store = backend.open().await;
    assert!(store.claim_message("ris", at(42)).await.unwrap().is_none());
    assert_eq!(store.recover(at(43)).await.unwrap().requeued_messages, 1);
    let again = claimed(&store, "ris", 44).await;
    assert_eq!((again.id, again.attempts), (id, 2), "the same message");
    assert!(matches!(store.message_acknowledged(claim, "AA", at(45)).await, Err(StoreError::StaleClaim { .. })));
    store.message_acknowledged(again, "AA", at(45)).await.unwrap();
    let depths = store.channel_depths().await.unwrap();
    assert_eq!((depths.len(), depths[0].status, depths[0].count), (1, MessageStatus::Acknowledged, 1));
}

pub(crate) async fn stale_message_claim_is_refused(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", ALL, at(0)).await.unwrap();
    closed_study(&store, "study", 1, 0).await;
    analyse(&store, true, &[], at(20)).await;
    store.follow_events("ris", ALL, at(21)).await.unwrap();
    let claim = claimed(&store, "ris", 21).await;
    let late = claim.clone();
    assert_eq!(store.requeue_messages(Some("another"), at(22)).await.unwrap(), 0);
    assert_eq!(store.requeue_messages(Some("ris"), at(22)).await.unwrap(), 1);
    let failed = store.message_failed(claim, &Reason::new("late", "late"), None, at(23)).await;
    assert!(matches!(failed, Err(StoreError::StaleClaim { .. })));
    assert!(matches!(store.message_acknowledged(late, "AA", at(23)).await, Err(StoreError::StaleClaim { .. })));
    assert!(store.claim_message("ris", at(24)).await.unwrap().is_some());
}

pub(crate) async fn attempts_that_will_be_repeated_are_not_told(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", ALL, at(0)).await.unwrap();
    closed_study(&store, "study", 1, 0).await;
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    store.fail_analysis(claim, Reason::new("model", "no"), Some(at(30)), at(21)).await.unwrap();
    // A late slice takes the place of a version that then fails.
    let claim = store.claim_analysis("w", at(31)).await.unwrap().unwrap();
    Slice::of("study", 9).record(&store, at(32)).await;
    store.fail_analysis(claim, Reason::new("model", "no"), None, at(33)).await.unwrap();
    assert!(tell(&store, "ris", 40).await.is_empty());
    store.close_quiet_studies(at(32).after(Duration::from_secs(10))).await.unwrap();
    let claim = store.claim_analysis("w", at(60)).await.unwrap().unwrap();
    store.fail_analysis(claim, Reason::new("model", "no"), None, at(61)).await.unwrap();
    assert_eq!(tell(&store, "ris", 62).await, [(Subject::Failed, study_uid("study").to_string())]);
}

pub(crate) async fn dead_message_that_was_replaced_is_not_queued_again(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", ALL, at(0)).await.unwrap();
    closed_study(&store, "study", 1, 0).await;
    analyse(&store, false, &[], at(20)).await;
    store.follow_events("ris", ALL, at(21)).await.unwrap();
    let claim = claimed(&store, "ris", 21).await;
    let id = claim.id;
    store.message_failed(claim, &Reason::new("refused", "AE"), None, at(22)).await.unwrap();
    Slice::of("study", 9).record(&store, at(30)).await;
    store.close_quiet_studies(quiet_after(30)).await.unwrap();
    analyse(&store, true, &[], at(50)).await;
    assert_eq!(tell(&store, "ris", 51).await, [(Subject::Positive, study_uid("study").to_string())]);
    assert_eq!(store.retry_messages(None, at(52)).await.unwrap(), 0);
    assert!(matches!(store.retry_messages(Some(id), at(53)).await, Err(StoreError::NotFound { .. })));
    assert_eq!(stands(&store, id).await, MessageStatus::Dead);
    assert!(kinds(&store, "study").await.contains(&"message-superseded".to_owned()));
}

pub(crate) async fn message_waits_for_the_number_of_its_order(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", ALL, at(0)).await.unwrap();
    Slice::of("study", 1).record(&store, at(1)).await;
    store.record_alert(&alert("study", 1), at(4)).await.unwrap().unwrap();
    store.follow_events("ris", ALL, at(4)).await.unwrap();
    let (unknown, refused) = (Reason::new("no-order", "the order is not known"), Reason::new("refused", "AE"));
    // It is put off, said once, and costs no attempt; what else there is goes on.
    for second in 4..7 {
        let claim = claimed(&store, "ris", second).await;
        assert_eq!(claim.attempts, 1);
        store.message_waits(claim, &unknown, at(second + 1), at(second)).await.unwrap();
        assert!(store.claim_message("ris", at(second)).await.unwrap().is_none());
        assert_eq!(store.next_message_deadline("ris").await.unwrap(), Some(at(second + 1)));
    }
    let said = |kinds: Vec<String>, kind: &str| kinds.iter().filter(|one| *one == kind).count();
    assert_eq!(said(kinds(&store, "study").await, "message-waits"), 1);
    let claim = claimed(&store, "ris", 7).await;
    let id = claim.id;
    store.message_failed(claim, &unknown, None, at(7)).await.unwrap();
    assert_eq!(store.revive_messages("ris", &unknown, at(8)).await.unwrap(), 0, "nobody knows it yet");

    // A later slice brings the number.
    Slice { accession: Some("A1"), ..Slice::of("study", 2) }.record(&store, at(9)).await;
    assert_eq!(store.revive_messages("ris", &refused, at(10)).await.unwrap(), 0, "it died of something else");
    assert_eq!(store.revive_messages("another", &unknown, at(10)).await.unwrap(), 0);
    assert_eq!(store.revive_messages("ris", &unknown, at(10)).await.unwrap(), 1);
    assert_eq!(store.revive_messages("ris", &unknown, at(10)).await.unwrap(), 0, "it is queued");
    assert_eq!(said(kinds(&store, "study").await, "message-requeued"), 1);
    let claim = claimed(&store, "ris", 10).await;
    assert_eq!((claim.id, claim.attempts, claim.study.accession_number.as_deref()), (id, 1, Some("A1")));
    store.message_acknowledged(claim, "AA", at(11)).await.unwrap();
    assert_eq!(stands(&store, id).await, MessageStatus::Acknowledged);
}

pub(crate) async fn message_that_waits_goes_once_its_order_is_known(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", ALL, at(0)).await.unwrap();
    for study in ["study", "another"] {
        Slice::of(study, 1).record(&store, at(1)).await;
        store.record_alert(&alert(study, 1), at(4)).await.unwrap().unwrap();
    }
    store.follow_events("ris", ALL, at(4)).await.unwrap();
    let unknown = Reason::new("no-order", "the order is not known");
    // Put off once, and far.
    for _ in 0..2 {
        store.message_waits(claimed(&store, "ris", 4).await, &unknown, at(1_000), at(4)).await.unwrap();
    }
    assert_eq!(store.revive_messages("ris", &unknown, at(5)).await.unwrap(), 0, "nobody knows it yet");
    assert_eq!(store.next_message_deadline("ris").await.unwrap(), Some(at(1_000)));

    Slice { accession: Some("A1"), ..Slice::of("study", 2) }.record(&store, at(9)).await;
    let refused = Reason::new("refused", "AE");
    assert_eq!(store.revive_messages("ris", &refused, at(10)).await.unwrap(), 0, "it waits for something else");
    assert_eq!(store.revive_messages("another", &unknown, at(10)).await.unwrap(), 0);
    assert_eq!(store.revive_messages("ris", &unknown, at(10)).await.unwrap(), 1);
    assert_eq!(store.revive_messages("ris", &unknown, at(10)).await.unwrap(), 0, "it is due");
    let claim = claimed(&store, "ris", 10).await;
    assert_eq!((&claim.study.study_instance, claim.attempts), (&study_uid("study"), 1), "no attempt was counted");
    assert!(!kinds(&store, "study").await.contains(&"message-requeued".to_owned()), "it had never ended");
    store.message_acknowledged(claim, "AA", at(11)).await.unwrap();
    assert!(store.claim_message("ris", at(12)).await.unwrap().is_none(), "the other one waits on");

    // Whoever takes the channel up looks at it for itself.
    assert_eq!(store.release_waiting_messages("another", &unknown, at(20)).await.unwrap(), 0);
    assert_eq!(store.release_waiting_messages("ris", &refused, at(20)).await.unwrap(), 0);
    assert_eq!(store.release_waiting_messages("ris", &unknown, at(20)).await.unwrap(), 1);
    assert_eq!(claimed(&store, "ris", 20).await.study.study_instance, study_uid("another"));
}
