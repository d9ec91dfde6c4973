use ichor_core::{Reason, StudyStatus};
use ichor_store::{Recorded, StudyRef, Timestamp};

use crate::support::*;

fn just_before(moment: Timestamp) -> Timestamp {
    Timestamp::from_millis(moment.as_millis() - 1)
}

pub(crate) async fn study_closes_when_quiet(backend: impl Backend) {
    let store = backend.open().await;
    assert_eq!(store.next_deadline().await.unwrap(), None);
    Slice::of("a", 1).record(&store, at(0)).await;
    Slice::of("b", 1).record(&store, at(1)).await;
    Slice::of("a", 2).record(&store, at(3)).await;
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(1)));
    assert_eq!(store.close_quiet_studies(just_before(quiet_after(1))).await.unwrap(), []);
    let b = StudyRef { study_instance: study_uid("b"), version: 1 };
    assert_eq!(store.close_quiet_studies(quiet_after(1)).await.unwrap(), [b]);
    assert_eq!(store.close_quiet_studies(quiet_after(1)).await.unwrap(), [], "closing again changes nothing");
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(3)));
    assert_eq!(store.close_quiet_studies(quiet_after(100)).await.unwrap().len(), 1);
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.status, summary.version, summary.quiet_until), (StudyStatus::Queued, 1, None));
}

pub(crate) async fn study_closes_once_for_many_callers(backend: impl Backend) {
    let store = backend.open().await;
    for study in ["a", "b", "c"] {
        Slice::of(study, 1).record(&store, at(0)).await;
    }
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.close_quiet_studies(quiet_after(0)).await.unwrap().len() })
        })
        .collect();
    let mut closed = 0;
    for task in tasks {
        closed += task.await.unwrap();
    }
    assert_eq!(closed, 3);
    assert_eq!(detail(&store, "a").await.summary.version, 1);
}

pub(crate) async fn late_slices_open_one_new_version(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 2, 0).await;
    analyse(&store, true, &["pacs"], at(20)).await;
    for number in 2..5 {
        assert!(matches!(Slice::of("a", number).record(&store, at(30)).await, Recorded::New { .. }));
    }
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.status, summary.version), (StudyStatus::Receiving, 1));
    assert_eq!((summary.positive, summary.result_version), (Some(true), Some(1)), "the first result stays in sight");
    let closed = store.close_quiet_studies(quiet_after(30)).await.unwrap();
    assert_eq!(closed, [StudyRef { study_instance: study_uid("a"), version: 2 }]);
    assert_eq!(kinds(&store, "a").await.iter().filter(|kind| *kind == "reopened").count(), 1);

    let claim = analyse(&store, false, &["pacs"], at(50)).await;
    assert_eq!((claim.version, claim.instances.len(), claim.accepted_at), (2, 5, at(30)));
    let detail = detail(&store, "a").await;
    assert_eq!((detail.summary.positive, detail.summary.result_version), (Some(false), Some(2)));
    assert_eq!(detail.objects.iter().map(|object| object.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(detail.deliveries.len(), 2);
}

pub(crate) async fn late_slice_before_the_claim_supersedes(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 2, 0).await;
    Slice::of("a", 2).record(&store, at(15)).await;
    assert!(store.claim_analysis("w", at(16)).await.unwrap().is_none(), "version 1 is no longer whole");
    store.close_quiet_studies(quiet_after(15)).await.unwrap();
    let claim = store.claim_analysis("w", at(30)).await.unwrap().unwrap();
    assert_eq!((claim.version, claim.instances.len()), (2, 3));
    assert!(store.claim_analysis("w", at(30)).await.unwrap().is_none());
    assert!(kinds(&store, "a").await.contains(&"superseded".to_owned()));
}

pub(crate) async fn late_slice_during_the_analysis_keeps_the_outcome(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 2, 0).await;
    let first = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    Slice::of("a", 2).record(&store, at(21)).await;
    let first_outcome = outcome(&store, &first, true, &["pacs"]).await;
    store.complete_analysis(first, first_outcome, at(22)).await.unwrap();
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.status, summary.result_version), (StudyStatus::Receiving, Some(1)));
    assert_eq!(detail(&store, "a").await.deliveries.len(), 1, "the first result is on its way");

    store.close_quiet_studies(quiet_after(21)).await.unwrap();
    let second = store.claim_analysis("w", at(40)).await.unwrap().unwrap();
    assert_eq!((second.version, second.instances.len()), (2, 3));
    let second_outcome = outcome(&store, &second, true, &["pacs"]).await;
    store.complete_analysis(second, second_outcome, at(41)).await.unwrap();
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.status, summary.result_version), (StudyStatus::Analysed, Some(2)));
}

pub(crate) async fn late_slice_during_a_failing_analysis(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 2, 0).await;
    let first = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    Slice::of("a", 2).record(&store, at(21)).await;
    store.fail_analysis(first, Reason::new("broken", "it broke"), Some(at(22)), at(21)).await.unwrap();
    assert_eq!(detail(&store, "a").await.summary.status, StudyStatus::Receiving);
    assert!(store.claim_analysis("w", at(25)).await.unwrap().is_none(), "version 1 is not tried again");
    store.close_quiet_studies(quiet_after(21)).await.unwrap();
    assert_eq!(store.claim_analysis("w", at(40)).await.unwrap().unwrap().version, 2);
}
