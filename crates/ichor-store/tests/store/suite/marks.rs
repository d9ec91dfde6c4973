use ichor_core::{Reason, Subject};
use ichor_store::{NewAlert, Store, StudyFilter, StudyMark, StudyOrder};

use crate::support::*;

/// The studies that bear a mark, by name, in either order.
async fn bearers(store: &Store, mark: StudyMark) -> Vec<&'static str> {
    let name = |study| ["a", "b", "c"].into_iter().find(|name| study_uid(name) == study).unwrap();
    let mut found = Vec::new();
    for order in [StudyOrder::Time, StudyOrder::Priority] {
        let page = store.studies(&StudyFilter { mark: Some(mark), order, ..StudyFilter::default() }).await.unwrap();
        let mut names: Vec<_> = page.items.into_iter().map(|study| name(study.study_instance)).collect();
        names.sort_unstable();
        found.push(names);
    }
    assert_eq!(found[0], found[1], "{mark}");
    found.swap_remove(0)
}

pub(crate) async fn marks_come_and_go(backend: impl Backend) {
    let store = backend.open().await;
    for (study, seconds) in [("a", 0), ("b", 100), ("c", 200)] {
        closed_study(&store, study, 2, seconds).await;
        analyse(&store, true, &["pacs", "vna"], at(seconds + 20)).await;
    }
    for mark in StudyMark::ALL {
        assert!(bearers(&store, mark).await.is_empty(), "{mark}");
        assert_eq!(mark.as_str().parse::<StudyMark>().unwrap(), mark);
    }
    assert!("held".parse::<StudyMark>().unwrap_err().to_string().contains("on-hold"));

    store.hold(&study_uid("b"), "a complaint", at(300)).await.unwrap();
    assert_eq!(bearers(&store, StudyMark::OnHold).await, ["b"]);
    store.release_hold(&study_uid("b"), at(301)).await.unwrap();
    assert!(bearers(&store, StudyMark::OnHold).await.is_empty());

    Slice::of("c", 9).record(&store, at(310)).await;
    let alert = NewAlert {
        study_instance: study_uid("c"),
        series_instance: uid(&["series", "c"]),
        model: "ichor-demo@1.0.0+0123456789ab physionet".to_owned(),
        notice: None,
        slices: vec![slice_uid("c", 1)],
        probability: 0.75,
        first_received_at: at(200),
    };
    store.record_alert(&alert, at(311)).await.unwrap();
    assert_eq!(bearers(&store, StudyMark::Alerted).await, ["c"]);
}

pub(crate) async fn given_up_is_what_has_something_dead(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", &[Subject::Positive], at(0)).await.unwrap();
    for (study, seconds) in [("a", 0), ("b", 100)] {
        closed_study(&store, study, 2, seconds).await;
        analyse(&store, true, &["pacs", "vna"], at(seconds + 20)).await;
    }
    let refused = || Reason::new("refused", "0xA900");
    // Both deliveries of the older study are given up at the second attempt.
    for (destination, borne) in [("pacs", &[] as &[&str]), ("vna", &["a"])] {
        let claim = store.claim_delivery(destination, at(300)).await.unwrap().unwrap();
        assert_eq!(claim.object.study_instance, study_uid("a"));
        store.delivery_failed(claim, refused(), Some(at(310)), at(301)).await.unwrap();
        assert_eq!(bearers(&store, StudyMark::GivenUp).await, borne, "{destination}");
        let claim = store.claim_delivery(destination, at(310)).await.unwrap().unwrap();
        assert_eq!(claim.object.study_instance, study_uid("a"));
        store.delivery_failed(claim, refused(), None, at(311)).await.unwrap();
    }
    assert_eq!(bearers(&store, StudyMark::GivenUp).await, ["a"]);
    assert_eq!(store.retry_destination("pacs", Some(&study_uid("b")), at(320)).await.unwrap(), 0);
    assert_eq!(store.retry_destination("nowhere", None, at(320)).await.unwrap(), 0);
    assert_eq!(store.retry_destination("pacs", Some(&study_uid("a")), at(320)).await.unwrap(), 1);
    assert_eq!(bearers(&store, StudyMark::GivenUp).await, ["a"], "the other one is dead still");
    assert_eq!(store.retry_destination("vna", None, at(321)).await.unwrap(), 1);
    assert!(bearers(&store, StudyMark::GivenUp).await.is_empty());

    store.follow_events("ris", &[Subject::Positive], at(330)).await.unwrap();
    let message = store.claim_message("ris", at(331)).await.unwrap().unwrap();
    let study = if message.study.study_instance == study_uid("a") { "a" } else { "b" };
    let id = message.id;
    store.message_failed(message, &refused(), None, at(332)).await.unwrap();
    assert_eq!(bearers(&store, StudyMark::GivenUp).await, [study]);
    assert_eq!(store.retry_messages(Some(id), at(340)).await.unwrap(), 1);
    assert!(bearers(&store, StudyMark::GivenUp).await.is_empty());
}

pub(crate) async fn message_that_was_replaced_is_given_up_no_more(backend: impl Backend) {
    let store = backend.open().await;
    let subjects = [Subject::Positive, Subject::Negative, Subject::Failed, Subject::DeliveryDead];
    store.follow_events("ris", &subjects, at(0)).await.unwrap();
    let refused = || Reason::new("refused", "AE");
    let next = async |seconds| {
        store.follow_events("ris", &subjects, at(seconds)).await.unwrap();
        store.claim_message("ris", at(seconds)).await.unwrap().unwrap()
    };
    closed_study(&store, "a", 1, 0).await;
    analyse(&store, false, &["pacs"], at(20)).await;
    store.message_failed(next(21).await, &refused(), None, at(22)).await.unwrap();
    assert_eq!(bearers(&store, StudyMark::GivenUp).await, ["a"]);

    // A version that failed replaces no result.
    Slice::of("a", 8).record(&store, at(30)).await;
    store.close_quiet_studies(quiet_after(30)).await.unwrap();
    let analysis = store.claim_analysis("w", at(50)).await.unwrap().unwrap();
    store.fail_analysis(analysis, Reason::new("model", "no"), None, at(51)).await.unwrap();
    store.message_acknowledged(next(52).await, "AA", at(53)).await.unwrap();
    assert_eq!(bearers(&store, StudyMark::GivenUp).await, ["a"]);

    // The next result does, once it was taken; and not before.
    Slice::of("a", 9).record(&store, at(60)).await;
    store.close_quiet_studies(quiet_after(60)).await.unwrap();
    analyse(&store, true, &[], at(80)).await;
    let positive = next(81).await;
    assert_eq!(positive.subject, Subject::Positive);
    assert_eq!(bearers(&store, StudyMark::GivenUp).await, ["a"]);
    store.message_acknowledged(positive, "AA", at(82)).await.unwrap();
    assert!(bearers(&store, StudyMark::GivenUp).await.is_empty(), "nobody could ever take the mark away");
    assert_eq!(store.retry_messages(None, at(83)).await.unwrap(), 0);
    assert!(bearers(&store, StudyMark::GivenUp).await.is_empty());

    // What is said of a delivery is replaced by nothing.
    let delivery = store.claim_delivery("pacs", at(90)).await.unwrap().unwrap();
    store.delivery_failed(delivery, refused(), None, at(91)).await.unwrap();
    assert_eq!(store.retry_destination("pacs", None, at(92)).await.unwrap(), 1);
    assert!(bearers(&store, StudyMark::GivenUp).await.is_empty());
    let said = next(93).await;
    assert_eq!(said.subject, Subject::DeliveryDead);
    let id = said.id;
    store.message_failed(said, &refused(), None, at(94)).await.unwrap();
    assert_eq!(bearers(&store, StudyMark::GivenUp).await, ["a"]);
    assert_eq!(store.retry_messages(Some(id), at(95)).await.unwrap(), 1);
    assert!(bearers(&store, StudyMark::GivenUp).await.is_empty());
}
