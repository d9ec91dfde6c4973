use std::time::Duration;

use ichor_core::Reason;
use ichor_store::{
    AssociationEnd, AssociationId, CLASS_INSTANCE_CONFLICT, CommitmentRecorded, NO_SUCH_INSTANCE, NewCommitment,
    PROCESSING_FAILURE, Store, StoreError,
};

use crate::support::*;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const AGAIN: Duration = Duration::from_secs(1);

fn request(association: AssociationId, references: &[(&str, u32)]) -> NewCommitment {
    let class = |class: &str| ichor_core::Uid::parse(class).unwrap();
    NewCommitment {
        peer_ae: "CT1".to_owned(),
        transaction: uid(&["transaction"]),
        association,
        references: references.iter().map(|(c, number)| (class(c), slice_uid("a", *number))).collect(),
        wait: Duration::from_secs(5),
    }
}

async fn end(store: &Store, association: AssociationId, seconds: i64) {
    let end = AssociationEnd { outcome: "released".to_owned(), instances: 0, bytes: 0 };
    store.association_closed(association, &end, at(seconds)).await.unwrap();
}

async fn status(store: &Store) -> String {
    store.commitments(false, 10).await.unwrap()[0].status.clone()
}

pub(crate) async fn what_is_there_is_committed_at_once(backend: impl Backend) {
    let store = backend.open().await;
    for number in 1..=3 {
        Slice::of("a", number).record(&store, at(0)).await;
    }
    let open = open_association(&store, at(1)).await;
    let asked = request(open, &[(CT, 1), (CT, 2), (CT, 3)]);
    assert_eq!(store.record_commitment_request(&asked, at(1)).await.unwrap(), CommitmentRecorded::New);
    assert!(!store.has_commitment_report(open, at(1)).await.unwrap(), "it is not judged yet");
    assert_eq!(store.judge_commitments(AGAIN, at(1)).await.unwrap(), None);
    assert!(store.has_commitment_report(open, at(1)).await.unwrap());
    assert!(store.claim_commitment_report(None, at(1)).await.unwrap().is_none(), "its association is open");
    let claim = store.claim_commitment_report(Some(open), at(1)).await.unwrap().unwrap();
    assert_eq!((claim.references.len(), claim.attempts, claim.peer_ae.as_str()), (3, 1, "CT1"));
    assert!(claim.references.iter().all(|(_, _, failure)| failure.is_none()));
    store.commitment_answered(claim.id, "0x0000 success", at(2)).await.unwrap();
    assert_eq!(status(&store).await, "answered");
    let stale = store.commitment_answered(claim.id, "again", at(2)).await.unwrap_err();
    assert!(matches!(stale, StoreError::StaleClaim { .. }), "{stale}");
    assert!(store.commitments(true, 10).await.unwrap().is_empty(), "nothing is open");
}

pub(crate) async fn each_failure_has_its_reason(backend: impl Backend) {
    let store = backend.open().await;
    Slice::of("a", 1).record(&store, at(0)).await;
    let damaged = &files(&backend.blobs())[0];
    std::fs::write(damaged, b"cut").unwrap();
    for number in 2..=3 {
        Slice::of("a", number).record(&store, at(0)).await;
    }
    let open = open_association(&store, at(1)).await;
    let asked = request(open, &[(CT, 1), (CT, 2), ("1.2.3", 3), (CT, 4)]);
    store.record_commitment_request(&asked, at(1)).await.unwrap();
    assert_eq!(store.judge_commitments(AGAIN, at(2)).await.unwrap(), Some(at(3)), "what lacks may still come");
    store.judge_commitments(AGAIN, at(6)).await.unwrap();
    let claim = store.claim_commitment_report(Some(open), at(6)).await.unwrap().unwrap();
    let reasons: Vec<(bool, Option<u16>)> = (1..=4).map(|number| found(&claim.references, number)).collect();
    let expected = [Some(PROCESSING_FAILURE), None, Some(CLASS_INSTANCE_CONFLICT), Some(NO_SUCH_INSTANCE)];
    assert_eq!(reasons, expected.map(|reason| (true, reason)));
}

/// Whether slice `number` is among the references, and what was found of it.
fn found(references: &[(ichor_core::Uid, ichor_core::Uid, Option<u16>)], number: u32) -> (bool, Option<u16>) {
    let reference = references.iter().find(|(_, instance, _)| *instance == slice_uid("a", number));
    (reference.is_some(), reference.and_then(|(_, _, failure)| *failure))
}

pub(crate) async fn late_instances_are_waited_for(backend: impl Backend) {
    let store = backend.open().await;
    let open = open_association(&store, at(0)).await;
    store.record_commitment_request(&request(open, &[(CT, 1)]), at(0)).await.unwrap();
    assert_eq!(store.judge_commitments(AGAIN, at(0)).await.unwrap(), Some(at(1)));
    Slice::of("a", 1).record(&store, at(1)).await;
    assert_eq!(store.judge_commitments(AGAIN, at(1)).await.unwrap(), None);
    let claim = store.claim_commitment_report(Some(open), at(1)).await.unwrap().unwrap();
    assert_eq!(claim.references[0].2, None);
}

pub(crate) async fn same_request_is_answered_again_and_another_refused(backend: impl Backend) {
    let store = backend.open().await;
    Slice::of("a", 1).record(&store, at(0)).await;
    let open = open_association(&store, at(0)).await;
    store.record_commitment_request(&request(open, &[(CT, 1), (CT, 2)]), at(0)).await.unwrap();
    store.judge_commitments(AGAIN, at(9)).await.unwrap();
    let claim = store.claim_commitment_report(Some(open), at(9)).await.unwrap().unwrap();
    store.commitment_answered(claim.id, "0x0000", at(9)).await.unwrap();

    let other = store.record_commitment_request(&request(open, &[(CT, 1)]), at(10)).await.unwrap();
    assert_eq!((other, status(&store).await.as_str()), (CommitmentRecorded::Conflict, "answered"));
    Slice::of("a", 2).record(&store, at(10)).await;
    let again = store.record_commitment_request(&request(open, &[(CT, 2), (CT, 1)]), at(11)).await.unwrap();
    assert_eq!(again, CommitmentRecorded::Again, "the order of references says nothing");
    store.judge_commitments(AGAIN, at(11)).await.unwrap();
    let claim = store.claim_commitment_report(Some(open), at(11)).await.unwrap().unwrap();
    assert!(claim.references.iter().all(|(_, _, failure)| failure.is_none()), "judged anew: slice 2 has come");
    assert_eq!(claim.attempts, 1, "attempts are counted anew");
}

pub(crate) async fn unanswered_reports_outlive_association_and_process(backend: impl Backend) {
    let store = backend.open().await;
    store.recover(at(0)).await.unwrap();
    let open = open_association(&store, at(0)).await;
    store.record_commitment_request(&request(open, &[(CT, 1)]), at(0)).await.unwrap();
    store.judge_commitments(AGAIN, at(6)).await.unwrap();
    let claim = store.claim_commitment_report(Some(open), at(6)).await.unwrap().unwrap();
    assert_eq!(store.requeue_commitment_reports(Some(open), at(7)).await.unwrap(), 1);
    end(&store, open, 7).await;
    let again = store.claim_commitment_report(None, at(7)).await.unwrap().unwrap();
    assert_eq!((again.id, again.attempts), (claim.id, 2));
    store.close().await;
    drop(store);

    let store = backend.open().await;
    assert_eq!(store.recover(at(8)).await.unwrap().requeued_commitments, 1);
    let claim = store.claim_commitment_report(None, at(8)).await.unwrap().unwrap();
    let reason = Reason::new("unreachable", "no route");
    store.commitment_failed(claim.id, &reason, Some(at(20)), at(9)).await.unwrap();
    assert!(store.claim_commitment_report(None, at(19)).await.unwrap().is_none());
    let claim = store.claim_commitment_report(None, at(20)).await.unwrap().unwrap();
    store.commitment_failed(claim.id, &reason, None, at(21)).await.unwrap();
    let dead = &store.commitments(true, 10).await.unwrap()[0];
    assert_eq!((dead.status.as_str(), dead.failed, dead.attempts), ("dead", 1, 4));
    assert_eq!(dead.last_words.as_deref(), Some("no route (unreachable)"));
    let kinds: Vec<_> = store.recent_events(100).await.unwrap().into_iter().map(|event| event.kind).collect();
    for kind in ["commitment-requested", "commitment-judged", "commitment-report-interrupted", "commitment-report-dead"]
    {
        assert!(kinds.contains(&kind.to_owned()), "{kind} is missing: {kinds:?}");
    }
}

pub(crate) async fn a_thousand_instances(backend: impl Backend) {
    let store = backend.open().await;
    let open = open_association(&store, at(0)).await;
    let numbers: Vec<(&str, u32)> = (1..=1_000).map(|number| (CT, number)).collect();
    store.record_commitment_request(&request(open, &numbers), at(0)).await.unwrap();
    store.judge_commitments(AGAIN, at(9)).await.unwrap();
    let claim = store.claim_commitment_report(Some(open), at(9)).await.unwrap().unwrap();
    assert_eq!(claim.references.iter().filter(|(_, _, failure)| failure.is_some()).count(), 1_000);
}
