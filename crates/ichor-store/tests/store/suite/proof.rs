use std::time::Duration;

use ichor_core::{DeliveryStatus, Reason, Uid};
use ichor_store::{
    Consequence, DeliveryDetail, ProofPlan, ProofReport, ProofReported, ProofRequest, RetryOutcome, Store, StoreError,
};

use crate::support::*;

const BOTH: ProofPlan = ProofPlan { commitment: true, read_back: true };
const COMMITMENT: ProofPlan = ProofPlan { commitment: true, read_back: false };
const READ_BACK: ProofPlan = ProofPlan { commitment: false, read_back: true };

/// A study whose object `pacs` accepts at `seconds`; proofs are due two seconds later.
async fn accepted(store: &Store, study: &str, plan: ProofPlan, seconds: i64) -> Uid {
    closed_study(store, study, 1, seconds - 20).await;
    analyse(store, true, &["pacs"], at(seconds)).await;
    accept(store, plan, seconds).await
}

async fn accept(store: &Store, plan: ProofPlan, seconds: i64) -> Uid {
    let claim = store.claim_delivery("pacs", at(seconds)).await.unwrap().unwrap();
    let object = claim.object.sop_instance.clone();
    store.delivery_accepted(claim, "Success", plan, at(seconds + 2), at(seconds)).await.unwrap();
    object
}

async fn ask(store: &Store, number: &str, seconds: i64) -> Option<ProofRequest> {
    store.request_commitment("pacs", &uid(&["asked", number]), 100, at(seconds + 60), at(seconds)).await.unwrap()
}

async fn delivery(store: &Store, study: &str) -> DeliveryDetail {
    detail(store, study).await.deliveries.remove(0)
}

fn report(number: &str, committed: &[&Uid], failed: &[&Uid]) -> ProofReport {
    ProofReport {
        transaction: uid(&["asked", number]),
        peer_ae: "PACS".to_owned(),
        committed: committed.iter().map(|uid| (*uid).clone()).collect(),
        failed: failed.iter().map(|uid| ((*uid).clone(), 0x0112, "no such object instance".to_owned())).collect(),
    }
}

fn reason() -> Reason {
    Reason::new("no-report", "nothing came")
}

pub(crate) async fn accepted_becomes_committed_and_visible(backend: impl Backend) {
    let store = backend.open().await;
    let object = accepted(&store, "a", BOTH, 100).await;
    let before = delivery(&store, "a").await;
    assert_eq!((before.status, before.proof_due.as_deref()), (DeliveryStatus::Accepted, Some("commitment+read-back")));
    assert_eq!(store.figures(at(0)).await.unwrap().unproven, [("pacs".to_owned(), 1)]);
    assert_eq!(ask(&store, "early", 101).await, None, "it is not due yet");
    assert!(store.due_read_backs("pacs", 10, at(200)).await.unwrap().is_empty(), "commitment comes first");
    let request = ask(&store, "1", 102).await.unwrap();
    assert_eq!((request.items.len(), &request.items[0].sop_instance), (1, &object));
    assert_eq!(ask(&store, "2", 103).await, None, "the report is waited for");
    // As after a restart: the request is in the store.
    drop(store);
    let store = backend.open().await;
    assert_eq!(store.next_proof_deadline("pacs").await.unwrap(), Some(at(162)));
    let reported = store.commitment_report(&report("1", &[&object], &[]), at(110)).await.unwrap();
    assert_eq!(reported, Some(ProofReported { committed: 1, lost: 0 }));
    let committed = delivery(&store, "a").await;
    assert_eq!((committed.status, committed.proof_due.as_deref()), (DeliveryStatus::Committed, Some("read-back")));
    assert_eq!(store.commitment_report(&report("unknown", &[&object], &[]), at(111)).await.unwrap(), None);

    let due = store.due_read_backs("pacs", 10, at(111)).await.unwrap();
    assert_eq!((&due[0].sop_instance, &due[0].study_instance), (&object, &study_uid("a")));
    store.read_back_found(due[0].delivery, "found", at(112)).await.unwrap();
    let visible = delivery(&store, "a").await;
    assert_eq!((visible.status, visible.proof_due, visible.proven_at), (DeliveryStatus::Visible, None, Some(at(112))));
    let again = store.read_back_found(due[0].delivery, "found", at(113)).await.unwrap_err();
    assert!(matches!(again, StoreError::StaleClaim { .. }), "{again}");
    let kinds = kinds(&store, "a").await;
    for kind in ["delivery-accepted", "commitment-asked", "delivery-committed", "delivery-visible"] {
        assert!(kinds.contains(&kind.to_owned()), "{kind} is missing: {kinds:?}");
    }
    assert!(store.figures(at(0)).await.unwrap().unproven.is_empty());
    assert_eq!(store.next_proof_deadline("pacs").await.unwrap(), None);
}

pub(crate) async fn what_is_not_committed_is_sent_again_and_then_dead(backend: impl Backend) {
    let store = backend.open().await;
    let object = accepted(&store, "a", COMMITMENT, 100).await;
    for round in 0..3_i64 {
        let number = round.to_string();
        let second = 110 + round * 100;
        ask(&store, &number, second).await.expect("a request");
        let reported = store.commitment_report(&report(&number, &[], &[&object]), at(second + 1)).await.unwrap();
        assert_eq!(reported, Some(ProofReported { committed: 0, lost: 1 }));
        let lost = store.lost_deliveries("pacs").await.unwrap();
        assert_eq!((lost.len(), i64::from(lost[0].resends)), (1, round));
        assert!(lost[0].words.contains("no such object instance (0x0112)"), "{lost:?}");
        if round < 2 {
            store.send_again(&lost[0], Some(at(second + 5)), at(second + 2)).await.unwrap();
            let stale = store.send_again(&lost[0], Some(at(second + 5)), at(second + 2)).await.unwrap_err();
            assert!(matches!(stale, StoreError::StaleClaim { .. }), "{stale}");
            assert!(store.claim_delivery("pacs", at(second + 4)).await.unwrap().is_none());
            assert_eq!(accept(&store, COMMITMENT, second + 5).await, object);
        } else {
            store.send_again(&lost[0], None, at(second + 2)).await.unwrap();
        }
    }
    let dead = delivery(&store, "a").await;
    assert_eq!((dead.status, dead.resends), (DeliveryStatus::Dead, 2));
    assert!(dead.last_words.unwrap().contains("no such object instance"));
    let kinds = kinds(&store, "a").await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "delivery-lost").count(), 3, "{kinds:?}");
    assert!(kinds.contains(&"delivery-dead".to_owned()), "{kinds:?}");
    let retried = store.retry(&study_uid("a"), at(900)).await.unwrap();
    assert_eq!(retried, RetryOutcome::Queued { version: 1, deliveries: 1 });
    assert_eq!(delivery(&store, "a").await.resends, 0, "counted anew");
}

pub(crate) async fn late_report_is_taken_and_a_late_failure_is_not(backend: impl Backend) {
    let store = backend.open().await;
    let object = accepted(&store, "a", COMMITMENT, 100).await;
    ask(&store, "1", 110).await.unwrap();
    assert!(store.overdue_commitments("pacs", at(169)).await.unwrap().is_empty());
    let overdue = store.overdue_commitments("pacs", at(170)).await.unwrap();
    assert_eq!((overdue.len(), overdue[0].items.len()), (1, 1));
    let again = Consequence::AskAgain { at: at(180), counts: true };
    store.commitment_came_to_nothing(&overdue[0], &reason(), again, at(170)).await.unwrap();
    assert!(ask(&store, "early", 179).await.is_none());
    let second = ask(&store, "2", 180).await.unwrap();
    assert_eq!(second.items[0].attempts, 1);
    // The first request is not waited for any more: its failure says nothing, its success is one.
    let none = store.commitment_report(&report("1", &[], &[&object]), at(181)).await.unwrap();
    assert_eq!(none, Some(ProofReported { committed: 0, lost: 0 }));
    assert_eq!(delivery(&store, "a").await.status, DeliveryStatus::Accepted);
    store.commitment_came_to_nothing(&second, &reason(), Consequence::GiveUp, at(250)).await.unwrap();
    assert_eq!(delivery(&store, "a").await.status, DeliveryStatus::Dead);
    let late = store.commitment_report(&report("1", &[&object], &[]), at(300)).await.unwrap();
    assert_eq!(late, Some(ProofReported { committed: 1, lost: 0 }));
    assert_eq!(delivery(&store, "a").await.status, DeliveryStatus::Committed);
}

pub(crate) async fn absent_peer_costs_no_attempt_and_one_event(backend: impl Backend) {
    let store = backend.open().await;
    accepted(&store, "a", READ_BACK, 100).await;
    let due = store.due_read_backs("pacs", 10, at(102)).await.unwrap();
    for second in 103..110 {
        let again = Consequence::AskAgain { at: at(second + 1), counts: false };
        store.read_back_came_to_nothing(&[due[0].delivery], &reason(), again, at(second)).await.unwrap();
    }
    let still = store.due_read_backs("pacs", 10, at(200)).await.unwrap();
    assert_eq!(still[0].attempts, 0);
    let missed = kinds(&store, "a").await.into_iter().filter(|kind| kind == "proof-missed").count();
    assert_eq!(missed, 1, "the same words are said once");
    store.read_back_came_to_nothing(&[due[0].delivery], &reason(), Consequence::Lost, at(201)).await.unwrap();
    assert_eq!(store.lost_deliveries("pacs").await.unwrap().len(), 1);
    assert!(store.due_read_backs("pacs", 10, at(300)).await.unwrap().is_empty());
}

pub(crate) async fn report_that_is_silent_about_an_instance_is_a_failure(backend: impl Backend) {
    let store = backend.open().await;
    accepted(&store, "a", COMMITMENT, 100).await;
    ask(&store, "1", 110).await.unwrap();
    store.commitment_report(&report("1", &[&uid(&["another"])], &[]), at(111)).await.unwrap();
    let lost = store.lost_deliveries("pacs").await.unwrap();
    assert!(lost[0].words.contains("does not speak of it"), "{lost:?}");
}

pub(crate) async fn plan_that_changed_settles_what_is_due(backend: impl Backend) {
    let store = backend.open().await;
    accepted(&store, "a", BOTH, 100).await;
    assert_eq!(store.settle_proofs("pacs", BOTH, at(101)).await.unwrap(), 0);
    assert_eq!(store.settle_proofs("pacs", READ_BACK, at(101)).await.unwrap(), 1);
    assert_eq!(delivery(&store, "a").await.proof_due.as_deref(), Some("read-back"));
    assert_eq!(store.settle_proofs("pacs", ProofPlan::default(), at(102)).await.unwrap(), 1);
    let settled = delivery(&store, "a").await;
    assert_eq!((settled.status, settled.proof_due), (DeliveryStatus::Accepted, None));
    assert_eq!(store.next_proof_deadline("pacs").await.unwrap(), None);
    // A loss that was reported under the old plan is one.
    let object = accepted(&store, "lost", COMMITMENT, 200).await;
    ask(&store, "1", 210).await.unwrap();
    store.commitment_report(&report("1", &[], &[&object]), at(211)).await.unwrap();
    assert_eq!(store.settle_proofs("pacs", ProofPlan::default(), at(212)).await.unwrap(), 0);
    let lost = store.lost_deliveries("pacs").await.unwrap();
    store.send_again(&lost[0], Some(at(213)), at(212)).await.unwrap();
    assert_eq!(accept(&store, ProofPlan::default(), 213).await, object);
}

pub(crate) async fn request_takes_what_was_asked_for_equally_often(backend: impl Backend) {
    let store = backend.open().await;
    for (number, study) in ["a", "b", "c"].into_iter().enumerate() {
        accepted(&store, study, COMMITMENT, 100 + i64::try_from(number).unwrap()).await;
    }
    let bounded = store.request_commitment("pacs", &uid(&["asked", "1"]), 2, at(170), at(110)).await.unwrap().unwrap();
    assert_eq!(bounded.items.len(), 2, "as many as one request may hold");
    let again = Consequence::AskAgain { at: at(120), counts: true };
    store.commitment_came_to_nothing(&bounded, &reason(), again, at(111)).await.unwrap();
    let other = ask(&store, "2", 130).await.unwrap();
    assert_eq!((other.items.len(), other.items[0].attempts), (1, 0));
    assert_eq!(ask(&store, "3", 130).await.unwrap().items.len(), 2);
    assert!(at(130).since(at(120)) > Duration::ZERO);
}
