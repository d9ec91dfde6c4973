use std::time::Duration;

use ichor_core::{MessageStatus, Reason, StudyStatus, Subject};
use ichor_store::{
    Candidate, FileKind, Follower, Forwarding, HeldFilter, Measure, NO_SUCH_INSTANCE, NewCommitment, ProofPlan,
    Protection, ReanalysisWish, Recorded, Removal, RetryOutcome, Settled, Store, StoreError, Sweep,
};

use super::latency::counted;
use crate::support::*;

/// What may hear of a study here.
fn followers() -> Vec<Follower> {
    vec![Follower { channel: "ris".to_owned(), subjects: Subject::ALL.to_vec() }]
}

async fn candidates(store: &Store, kind: FileKind) -> Vec<Candidate> {
    store.retention_candidates(kind, at(1_000_000), &followers(), None, 100).await.unwrap()
}

async fn candidate(store: &Store, study: &str, kind: FileKind) -> Candidate {
    let all = candidates(store, kind).await;
    all.into_iter().find(|candidate| candidate.study_instance == study_uid(study)).expect("a candidate")
}

async fn protections(store: &Store, study: &str) -> Vec<Protection> {
    candidate(store, study, FileKind::Received).await.protections
}

/// Decides of everything that closed that nothing is forwarded.
async fn forward_nothing(store: &Store, seconds: i64) {
    for study in store.undecided_studies(100).await.unwrap() {
        store.forward(&study, &Forwarding::default(), at(seconds)).await.unwrap();
    }
}

/// A study that came to an outcome, and of which nothing is left to do.
async fn settled(store: &Store, study: &str, positive: bool, seconds: i64) {
    closed_study(store, study, 3, seconds).await;
    analyse(store, positive, &["pacs"], at(seconds + 20)).await;
    let claim = store.claim_delivery("pacs", at(seconds + 21)).await.unwrap().unwrap();
    let plan = ProofPlan::default();
    store.delivery_accepted(claim, "Success", plan, at(seconds + 22), at(seconds + 22)).await.unwrap();
    forward_nothing(store, seconds + 23).await;
}

async fn remove(store: &Store, study: &str, kind: FileKind, seconds: i64) -> Removal {
    let candidate = candidate(store, study, kind).await;
    store.remove_files(&candidate, kind, "by rule \"old\"", &followers(), at(seconds)).await.unwrap()
}

pub(crate) async fn files_go_and_rows_stay(backend: impl Backend) {
    let store = backend.open().await;
    settled(&store, "a", true, 0).await;
    Slice { content: b"other", ..Slice::of("a", 1) }.record(&store, at(30)).await;
    settled(&store, "b", false, 100).await;
    let found = candidate(&store, "a", FileKind::Received).await;
    assert_eq!((found.files, found.bytes, found.settled), (4, 4 * 6 + 3 * 6 + 5, Some(Settled::Positive)));
    assert!(found.protections.is_empty(), "{found:?}");
    assert_eq!(found.settled_at, at(30), "the copy that was kept apart came last");
    assert_eq!(files(&backend.blobs()).len(), 4 + 1 + 3 + 1);

    assert_eq!(remove(&store, "a", FileKind::Received, 40).await, Removal::Removed { files: 4, bytes: found.bytes });
    assert_eq!(files(&backend.blobs()).len(), 9, "marked, and not removed yet");
    assert_eq!(store.remove_doomed(3).await.unwrap(), Some(3));
    assert_eq!(store.retention_figures().await.unwrap().doomed, 1);
    assert_eq!(store.remove_doomed(3).await.unwrap(), Some(1));
    assert_eq!(store.remove_doomed(3).await.unwrap(), Some(0));
    assert_eq!(files(&backend.blobs()).len(), 5);
    let sweep = Sweep { studies: 1, spared: 2, short_bytes: 7 };
    store.record_sweep(sweep, at(41)).await.unwrap();
    let figures = store.retention_figures().await.unwrap();
    assert_eq!((figures.studies, figures.files, figures.bytes, figures.doomed), (1, 4, found.bytes, 0));
    assert_eq!((figures.spared, figures.short_bytes, figures.swept_at), (2, 7, Some(at(41))));

    let detail = detail(&store, "a").await;
    assert_eq!(detail.summary.pixels_removed_at, Some(at(40)));
    assert_eq!((detail.summary.status, detail.summary.positive), (StudyStatus::Analysed, Some(true)));
    assert_eq!((detail.slices.len(), detail.objects.len(), detail.summary.instances), (3, 1, 3));
    assert!(detail.objects[0].path.is_file() && detail.objects[0].removed_at.is_none());
    assert!(kinds(&store, "a").await.contains(&"pixels-removed".to_owned()));
    let gone = store.instance_file(&study_uid("a"), &slice_uid("a", 1)).await.unwrap_err();
    assert!(matches!(gone, StoreError::NoLongerKept { .. }), "{gone}");
    assert!(store.first_instance(&study_uid("a")).await.unwrap().is_none());
    let outcome = store.retry(&study_uid("a"), at(42)).await.unwrap();
    assert_eq!(outcome, RetryOutcome::PixelsRemoved { deliveries: 0 });
    assert!(outcome.to_string().contains("no longer kept"));
    assert!(store.claim_analysis("w", at(43)).await.unwrap().is_none());
    let left: Vec<_> = candidates(&store, FileKind::Received).await;
    assert_eq!(left.len(), 1, "what has nothing left is not looked at again");

    assert!(matches!(remove(&store, "a", FileKind::Results, 50).await, Removal::Removed { files: 1, .. }));
    store.remove_doomed(10).await.unwrap();
    let detail = crate::support::detail(&store, "a").await;
    assert_eq!((detail.summary.results_removed_at, detail.objects[0].removed_at), (Some(at(50)), Some(at(50))));
    assert!(!detail.objects[0].path.exists());
    let recovery = store.recover(at(60)).await.unwrap();
    assert!(recovery.missing_blobs.is_empty() && recovery.removed_orphans == 0, "{recovery:?}");
}

pub(crate) async fn each_protection_protects(backend: impl Backend) {
    let store = backend.open().await;
    store.follow_events("ris", Subject::ALL, at(0)).await.unwrap();
    let tell = async |seconds| {
        store.follow_events("ris", Subject::ALL, at(seconds)).await.unwrap();
        while let Some(claim) = store.claim_message("ris", at(seconds)).await.unwrap() {
            store.message_acknowledged(claim, "AA", at(seconds)).await.unwrap();
        }
    };
    for number in 0..3 {
        Slice::of("a", number).record(&store, at(0)).await;
    }
    let now = async || protections(&store, "a").await;
    assert_eq!(now().await, [Protection::UnderWay], "receiving");
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    assert_eq!(now().await, [Protection::UnderWay, Protection::NotForwarded], "queued");
    let claim = store.claim_analysis("w", at(20)).await.unwrap().unwrap();
    store.fail_analysis(claim, Reason::new("x", "y"), None, at(21)).await.unwrap();
    forward_nothing(&store, 22).await;
    tell(23).await;
    assert_eq!(now().await, [Protection::Failed]);
    assert_eq!(candidate(&store, "a", FileKind::Received).await.settled, None);
    store.retry(&study_uid("a"), at(24)).await.unwrap();
    analyse(&store, true, &["pacs"], at(25)).await;
    assert_eq!(now().await, [Protection::Undelivered, Protection::Untold]);
    tell(26).await;
    let claim = store.claim_delivery("pacs", at(27)).await.unwrap().unwrap();
    assert_eq!(now().await, [Protection::Undelivered], "it is being sent");
    store.delivery_failed(claim, Reason::new("refused", "no"), None, at(28)).await.unwrap();
    assert!(now().await.contains(&Protection::DeliveryDead), "given up is not delivered");
    store.retry_deliveries(None, None, at(29)).await.unwrap();
    let claim = store.claim_delivery("pacs", at(30)).await.unwrap().unwrap();
    let proof = ProofPlan { read_back: true, ..ProofPlan::default() };
    store.delivery_accepted(claim, "Success", proof, at(31), at(31)).await.unwrap();
    tell(32).await;
    assert_eq!(now().await, [Protection::Unproven]);
    let due = store.due_read_backs("pacs", 10, at(33)).await.unwrap();
    store.read_back_found(due[0].delivery, "there", at(33)).await.unwrap();
    assert!(now().await.is_empty(), "{:?}", now().await);

    // Somebody asks whether it is safe.
    let open = open_association(&store, at(40)).await;
    let asked = NewCommitment {
        peer_ae: "CT1".to_owned(),
        transaction: uid(&["transaction"]),
        association: open,
        references: vec![(ichor_core::Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(), slice_uid("a", 1))],
        wait: Duration::from_secs(5),
    };
    store.record_commitment_request(&asked, at(40)).await.unwrap();
    assert_eq!(now().await, [Protection::CommitmentPending]);
    store.judge_commitments(Duration::from_secs(1), at(40)).await.unwrap();
    let claim = store.claim_commitment_report(Some(open), at(41)).await.unwrap().unwrap();
    assert_eq!(now().await, [Protection::CommitmentPending], "it has not heard yet");
    store.commitment_answered(claim.id, "ok", at(42)).await.unwrap();
    assert!(now().await.is_empty());

    // A message that was given up.
    store.retry(&study_uid("a"), at(50)).await.unwrap();
    analyse(&store, false, &["pacs"], at(51)).await;
    store.follow_events("ris", Subject::ALL, at(52)).await.unwrap();
    let claim = store.claim_message("ris", at(53)).await.unwrap().unwrap();
    store.message_failed(claim, &Reason::new("x", "y"), None, at(54)).await.unwrap();
    assert_eq!(now().await, [Protection::MessageDead]);
    store.retry_messages(None, at(55)).await.unwrap();
    assert_eq!(now().await, [Protection::Untold]);
    tell(56).await;
    assert!(store.messages(Some(MessageStatus::Queued), None, 10).await.unwrap().is_empty());
    assert!(now().await.is_empty());

    // On hold; and what came up between the look and the act.
    let before = candidate(&store, "a", FileKind::Received).await;
    assert!(store.hold(&study_uid("a"), "  a trial\n ", at(60)).await.unwrap());
    assert!(!store.hold(&study_uid("a"), "again", at(61)).await.unwrap());
    assert_eq!(detail(&store, "a").await.summary.hold_reason.as_deref(), Some("a trial"));
    assert_eq!(now().await, [Protection::OnHold]);
    let kept = store.remove_files(&before, FileKind::Received, "x", &followers(), at(62)).await.unwrap();
    assert_eq!(kept, Removal::Kept(vec![Protection::OnHold]));
    assert!(store.release_hold(&study_uid("a"), at(63)).await.unwrap());
    assert!(!store.release_hold(&study_uid("a"), at(64)).await.unwrap());
    assert!(matches!(store.hold(&study_uid("nobody"), "x", at(64)).await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.retention_figures().await.unwrap().doomed, 0);
    assert!(matches!(remove(&store, "a", FileKind::Received, 65).await, Removal::Removed { files: 3, .. }));
}

pub(crate) async fn what_comes_again_is_kept_again(backend: impl Backend) {
    let store = backend.open().await;
    settled(&store, "a", false, 0).await;
    remove(&store, "a", FileKind::Received, 40).await;
    // The file is doomed and still there: it must not count as one that is kept.
    assert_eq!(Slice::of("a", 0).record(&store, at(50)).await, Recorded::Duplicate);
    store.remove_doomed(100).await.unwrap();
    let file = store.instance_file(&study_uid("a"), &slice_uid("a", 0)).await.unwrap();
    assert_eq!(std::fs::read(file).unwrap(), b"headerpixels");
    assert_eq!(detail(&store, "a").await.summary.pixels_removed_at, Some(at(40)), "two are still gone");
    let found = candidate(&store, "a", FileKind::Received).await;
    assert_eq!((found.files, found.settled_at), (1, at(50)), "its age counts from its return");

    // A late slice: half a study is not analysed, and what was found stays.
    Slice::of("a", 7).record(&store, at(60)).await;
    store.close_quiet_studies(quiet_after(60)).await.unwrap();
    let outcomes = counted(&store, Measure::Turnaround, "", "not-analysed").await;
    assert_eq!(outcomes, (1, quiet_after(60).since(at(60)).as_secs_f64()), "it is an outcome like others");
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.status, summary.positive, summary.version), (StudyStatus::NotAnalysed, Some(false), 2));
    assert_eq!(summary.reason.unwrap().code.as_str(), "pixels-removed");
    let kinds = kinds(&store, "a").await;
    assert!(kinds.contains(&"not-analysed-again".to_owned()), "{kinds:?}");
    assert!(!kinds.contains(&"not-analysed".to_owned()), "channels would cancel the result: {kinds:?}");
    assert!(store.claim_analysis("w", at(80)).await.unwrap().is_none());
    let undecided = store.undecided_studies(10).await.unwrap();
    let all = Forwarding { destinations: vec!["vna".to_owned()], ..Forwarding::default() };
    assert_eq!(store.forward(&undecided[0], &all, at(81)).await.unwrap(), 2, "only what is here");

    // The rest comes too: it can be analysed again.
    for number in 1..3 {
        assert_eq!(Slice::of("a", number).record(&store, at(90)).await, Recorded::Duplicate);
    }
    assert_eq!(detail(&store, "a").await.summary.pixels_removed_at, None);
    assert!(matches!(store.retry(&study_uid("a"), at(91)).await.unwrap(), RetryOutcome::Queued { version: 2, .. }));
    let claim = store.claim_analysis("w", at(92)).await.unwrap().unwrap();
    assert_eq!(claim.instances.len(), 4);
    assert!(claim.instances.iter().all(|instance| instance.path.is_file()));
}

pub(crate) async fn results_that_went_can_be_made_again(backend: impl Backend) {
    let store = backend.open().await;
    settled(&store, "a", true, 0).await;
    remove(&store, "a", FileKind::Results, 40).await;
    store.retry(&study_uid("a"), at(41)).await.unwrap();
    analyse(&store, true, &["pacs"], at(42)).await;
    store.remove_doomed(100).await.unwrap();
    let detail = detail(&store, "a").await;
    assert!(detail.objects.len() == 1 && detail.objects[0].path.is_file() && detail.objects[0].removed_at.is_none());
    assert_eq!(detail.summary.results_removed_at, None);
    assert!(store.claim_delivery("pacs", at(43)).await.unwrap().is_none(), "it was delivered already");
}

pub(crate) async fn what_is_no_longer_kept_is_neither_found_nor_analysed(backend: impl Backend) {
    let store = backend.open().await;
    settled(&store, "a", true, 0).await;
    super::models::offer(&store, &['a']).await;
    let (study, all) = (study_uid("a"), HeldFilter::default());
    assert_eq!(store.held_studies(&all, None, 9).await.unwrap().len(), 1);
    remove(&store, "a", FileKind::Received, 40).await;
    let held = store.held_instances(&study, None, None).await.unwrap();
    assert_eq!(held.len(), 1, "the result is still there: {held:?}");
    assert_eq!(store.holder_of(&slice_uid("a", 1)).await.unwrap(), None);
    assert_eq!(store.held_studies(&all, None, 9).await.unwrap().len(), 1);
    let wish = ReanalysisWish {
        study: study.clone(),
        model: super::models::model('a'),
        actor: "anna".to_owned(),
        why: "again".to_owned(),
    };
    let refused = store.reanalyse(&wish, at(41)).await.unwrap();
    assert_eq!(refused, RetryOutcome::PixelsRemoved { deliveries: 0 });
    remove(&store, "a", FileKind::Results, 42).await;
    assert!(store.held_studies(&all, None, 9).await.unwrap().is_empty());
    assert!(store.held_instances(&study, None, None).await.unwrap().is_empty());
}

pub(crate) async fn what_is_no_longer_kept_is_not_committed(backend: impl Backend) {
    let store = backend.open().await;
    settled(&store, "a", true, 0).await;
    remove(&store, "a", FileKind::Received, 40).await;
    let open = open_association(&store, at(41)).await;
    let asked = NewCommitment {
        peer_ae: "CT1".to_owned(),
        transaction: uid(&["transaction"]),
        association: open,
        references: vec![(ichor_core::Uid::parse("1.2.840.10008.5.1.4.1.1.2").unwrap(), slice_uid("a", 1))],
        wait: Duration::ZERO,
    };
    store.record_commitment_request(&asked, at(42)).await.unwrap();
    store.judge_commitments(Duration::from_secs(1), at(43)).await.unwrap();
    let claim = store.claim_commitment_report(Some(open), at(44)).await.unwrap().unwrap();
    assert_eq!(claim.references[0].2, Some(NO_SUCH_INSTANCE), "although the file is still there");
}

pub(crate) async fn candidates_come_in_pages_oldest_first(backend: impl Backend) {
    let store = backend.open().await;
    for number in 0..5 {
        closed_study(&store, &number.to_string(), 1, number * 100).await;
    }
    let (mut place, mut seen) = (None, Vec::new());
    loop {
        let page = store.retention_candidates(FileKind::Received, at(350), &[], place, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        place = Some((last.received_at, last.id));
        seen.extend(page.into_iter().map(|candidate| candidate.received_at));
    }
    assert_eq!(seen, [at(0), at(100), at(200), at(300)], "the fifth is younger");
}

pub(crate) async fn old_events_of_no_study_go(backend: impl Backend) {
    let store = backend.open().await;
    let refused = ichor_store::NewAssociation {
        peer_address: "192.0.2.9:1".to_owned(),
        calling_ae: "NOBODY".to_owned(),
        called_ae: "ICHOR".to_owned(),
    };
    for seconds in 0..5 {
        store.association_refused(&refused, "unknown", at(seconds)).await.unwrap();
    }
    closed_study(&store, "a", 1, 0).await;
    let before = kinds(&store, "a").await;
    assert_eq!(store.remove_events(at(3), 2).await.unwrap(), 2);
    assert_eq!(store.remove_events(at(3), 2).await.unwrap(), 1);
    assert_eq!(store.remove_events(at(3), 2).await.unwrap(), 0);
    assert_eq!(kinds(&store, "a").await, before, "timelines stay");
}

pub(crate) async fn what_is_sent_again_is_young_again(backend: impl Backend) {
    let store = backend.open().await;
    settled(&store, "a", false, 0).await;
    let before = candidate(&store, "a", FileKind::Received).await;
    assert_eq!(Slice::of("a", 1).record(&store, at(500)).await, Recorded::Duplicate);
    assert_eq!(candidate(&store, "a", FileKind::Received).await.settled_at, at(500));
    let kept = store.remove_files(&before, FileKind::Received, "x", &followers(), at(501)).await.unwrap();
    assert_eq!(kept, Removal::Kept(vec![Protection::UnderWay]), "it came between the look and the act");
}
