use std::time::Duration;

use ichor_core::{AeTitle, StudyStatus};
use ichor_store::{
    AssociationEnd, Completeness, DueLookup, LookupAnswer, LookupPeer, Store, StudyFilter, StudyKey, Timestamp,
    ToldInstances, ToldSeries,
};

use crate::support::*;

fn peer(name: &str, rank: u32) -> LookupPeer {
    LookupPeer { name: name.to_owned(), rank, accession: true, counts: true, sources: Vec::new() }
}

/// What is asked of the one study that is due.
async fn due(store: &Store, peer: &LookupPeer, now: Timestamp) -> DueLookup {
    store.open_lookups(peer, now).await.unwrap();
    let due = store.due_lookups(&peer.name, 10, now).await.unwrap();
    let [one] = due.as_slice() else { panic!("{due:?}") };
    one.clone()
}

fn accession(number: &str) -> LookupAnswer {
    LookupAnswer { accession_number: Some(number.to_owned()), ..LookupAnswer::default() }
}

/// A number of instances of the one series of a study.
fn series(study: &str, instances: u32) -> LookupAnswer {
    let told = ToldSeries { series_instance: uid(&["series", study]), instances, counts: true };
    LookupAnswer { instances: Some(ToldInstances::Series(vec![told])), ..LookupAnswer::default() }
}

/// A study waits for a minute, and closes early if the same was told for five seconds.
fn completeness(asked_at: Timestamp) -> Completeness {
    Completeness {
        asked_at,
        close_when_complete: true,
        stable: Duration::from_secs(5),
        wait_for_missing: Duration::from_secs(60),
    }
}

async fn told(store: &Store, peer: &LookupPeer, answer: &LookupAnswer, now: Timestamp) {
    let due = due(store, peer, now).await;
    store.record_lookup(&due, answer, completeness(now), Some(now), now).await.unwrap();
}

async fn status(store: &Store, study: &str) -> StudyStatus {
    detail(store, study).await.summary.status
}

async fn texts(store: &Store, study: &str, kind: &str) -> Vec<String> {
    let events = store.timeline(&study_uid(study)).await.unwrap();
    events.into_iter().filter(|event| event.kind == kind).map(|event| event.text).collect()
}

pub(crate) async fn accession_number_is_kept_beside_the_received_one(backend: impl Backend) {
    let store = backend.open().await;
    Slice::of("a", 1).record(&store, at(0)).await;
    let (first, second) = (peer("ris", 0), peer("pacs", 1));
    told(&store, &second, &accession("A-2"), at(1)).await;
    let shown = |detail: ichor_store::StudyDetail| (detail.summary.accession_number, detail.summary.accession_source);
    let pair = |number: &str, source: &str| (Some(number.to_owned()), Some(source.to_owned()));
    assert_eq!(shown(detail(&store, "a").await), pair("A-2", "pacs"));
    told(&store, &first, &accession("A-1"), at(2)).await;
    assert_eq!(shown(detail(&store, "a").await), pair("A-1", "ris"), "the first of the configuration");
    // It is found by it, and told by it.
    let filter = StudyFilter { accession_number: Some("A-1".to_owned()), ..StudyFilter::default() };
    assert_eq!(store.studies(&filter).await.unwrap().items.len(), 1);
    assert!(store.study(&StudyKey::Accession("A-1".to_owned())).await.is_ok());
    let why = texts(&store, "a", "looked-up").await;
    assert!(why.len() == 2 && why[0].contains("pacs tells the accession number"), "{why:?}");
    assert!(why.iter().all(|text| !text.contains("A-")), "no patient data in events: {why:?}");
    // What is received comes first, and what was told is not forgotten by a restart.
    drop(store);
    let store = backend.open().await;
    assert_eq!(shown(detail(&store, "a").await), pair("A-1", "ris"));
    Slice { accession: Some("A-9"), ..Slice::of("a", 2) }.record(&store, at(3)).await;
    assert_eq!(shown(detail(&store, "a").await), (Some("A-9".to_owned()), None));
    assert!(due(&store, &first, at(4)).await.has_accession);
}

pub(crate) async fn objects_speak_of_the_order_that_was_known_at_the_first_claim(backend: impl Backend) {
    let store = backend.open().await;
    let ris = peer("ris", 0);
    Slice::of("a", 1).record(&store, at(0)).await;
    let early = due(&store, &ris, at(1)).await;
    store.record_lookup(&early, &accession("A-1"), completeness(at(1)), None, at(1)).await.unwrap();
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    let claim = store.claim_analysis("worker", at(20)).await.unwrap().unwrap();
    assert_eq!(claim.looked_up_accession.as_deref(), Some("A-1"));
    assert_eq!(claim.study.accession_number.as_deref(), Some("A-1"));

    // Known too late for the version that is under way, and for every attempt at it; not for the list.
    Slice::of("b", 1).record(&store, at(30)).await;
    let late = due(&store, &ris, at(31)).await;
    store.close_quiet_studies(quiet_after(30)).await.unwrap();
    let claim = store.claim_analysis("worker", at(50)).await.unwrap().unwrap();
    assert_eq!(claim.looked_up_accession, None);
    store.record_lookup(&late, &accession("B-1"), completeness(at(31)), None, at(51)).await.unwrap();
    let reason = ichor_core::Reason::new("out-of-memory", "once");
    store.fail_analysis(claim, reason, Some(at(52)), at(52)).await.unwrap();
    let again = store.claim_analysis("worker", at(53)).await.unwrap().unwrap();
    assert_eq!((again.attempts, again.looked_up_accession.clone()), (2, None), "byte for byte the same objects");
    assert_eq!(detail(&store, "b").await.summary.accession_number.as_deref(), Some("B-1"));
    let outcome = outcome(&store, &again, true, &[]).await;
    store.complete_analysis(again, outcome, at(54)).await.unwrap();
    store.retry(&study_uid("b"), at(55)).await.unwrap();
    let retried = store.claim_analysis("worker", at(56)).await.unwrap().unwrap();
    assert_eq!(retried.looked_up_accession, None);
}

pub(crate) async fn study_that_lacks_instances_waits_and_says_so(backend: impl Backend) {
    let store = backend.open().await;
    let pacs = peer("pacs", 0);
    for number in 0..27 {
        Slice::of("a", number).record(&store, at(0)).await;
    }
    told(&store, &pacs, &series("a", 28), at(3)).await;
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(60)));
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.expected_instances, summary.quiet_until), (Some(28), Some(quiet_after(60))));
    assert_eq!(store.close_quiet_studies(quiet_after(59)).await.unwrap(), []);
    // Whatever is told while it waits, the bound stays where it is.
    told(&store, &pacs, &series("a", 29), at(50)).await;
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(60)));
    assert_eq!(store.close_quiet_studies(quiet_after(60)).await.unwrap().len(), 1);
    let closed = texts(&store, "a", "closed").await;
    assert_eq!(closed, ["quiet; closed as version 1 with 27 of 29 expected instances"]);
    assert_eq!(detail(&store, "a").await.summary.expected_instances, Some(29));
    // The late ones open it again, and it is asked about again.
    Slice::of("a", 27).record(&store, at(100)).await;
    let again = due(&store, &pacs, at(101)).await;
    assert_eq!((again.version, again.asks, again.is_receiving), (1, 0, true));
}

pub(crate) async fn study_that_has_its_instances_waits_no_longer(backend: impl Backend) {
    let store = backend.open().await;
    let pacs = peer("pacs", 0);
    Slice::of("a", 1).record(&store, at(0)).await;
    told(&store, &pacs, &series("a", 2), at(3)).await;
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(60)));
    // What was missing comes: nobody need be asked to know that the wait is over.
    Slice::of("a", 2).record(&store, at(30)).await;
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(30)));
    assert_eq!(store.close_quiet_studies(quiet_after(30)).await.unwrap().len(), 1);
    assert_eq!(texts(&store, "a", "closed").await, ["quiet; closed as version 1 with 2 instances"]);
}

pub(crate) async fn complete_study_closes_early_and_a_growing_one_does_not(backend: impl Backend) {
    let store = backend.open().await;
    let pacs = peer("pacs", 0);
    for number in 0..3 {
        Slice::of("a", number).record(&store, at(0)).await;
    }
    for (now, told_there, closes) in [
        (1, 3, false),
        // The PACS itself receives: the number grows, and has to be told anew for as long.
        (4, 2, false),
        (5, 3, false),
        (9, 3, false),
    ] {
        told(&store, &pacs, &series("a", told_there), at(now)).await;
        assert_eq!(store.close_quiet_studies(at(now)).await.unwrap().len() == 1, closes, "at {now}");
    }
    // Another slice comes, there and here.
    Slice::of("a", 3).record(&store, at(9)).await;
    told(&store, &pacs, &series("a", 4), at(10)).await;
    told(&store, &pacs, &series("a", 4), at(14)).await;
    assert_eq!(store.close_quiet_studies(at(14)).await.unwrap(), []);
    told(&store, &pacs, &series("a", 4), at(15)).await;
    assert_eq!(store.close_quiet_studies(at(15)).await.unwrap().len(), 1, "five seconds, and four seconds early");
    assert_eq!(texts(&store, "a", "closed").await, ["complete; closed as version 1 with 4 of 4 expected instances"]);
}

pub(crate) async fn open_association_keeps_a_complete_study_open(backend: impl Backend) {
    let store = backend.open().await;
    let pacs = peer("pacs", 0);
    let association = open_association(&store, at(0)).await;
    Slice { association: Some(association), ..Slice::of("a", 1) }.record(&store, at(0)).await;
    for now in [1, 7] {
        told(&store, &pacs, &series("a", 1), at(now)).await;
    }
    assert_eq!(store.close_quiet_studies(at(7)).await.unwrap(), [], "more may be on the way");
    let end = AssociationEnd { outcome: "released".to_owned(), instances: 1, bytes: 6 };
    store.association_closed(association, &end, at(8)).await.unwrap();
    told(&store, &pacs, &series("a", 1), at(8)).await;
    assert_eq!(store.close_quiet_studies(at(8)).await.unwrap().len(), 1);
}

pub(crate) async fn peers_must_agree_before_a_study_closes_early(backend: impl Backend) {
    let store = backend.open().await;
    let (pacs, archive) = (peer("pacs", 0), peer("archive", 1));
    Slice::of("a", 1).record(&store, at(0)).await;
    told(&store, &archive, &series("a", 3), at(1)).await;
    for now in [1, 8] {
        told(&store, &pacs, &series("a", 1), at(now)).await;
    }
    assert_eq!(store.close_quiet_studies(at(8)).await.unwrap(), []);
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(60)), "the archive knows of two more");
}

pub(crate) async fn failed_look_up_holds_nothing_up(backend: impl Backend) {
    let store = backend.open().await;
    let pacs = peer("pacs", 0);
    Slice::of("a", 1).record(&store, at(0)).await;
    for (now, next) in [(1, Some(at(2))), (2, Some(at(3))), (3, None)] {
        let due = due(&store, &pacs, at(now)).await;
        store.lookup_failed(&due, "no connection\u{1b}", next, at(now)).await.unwrap();
    }
    assert_eq!(store.due_lookups("pacs", 10, at(9)).await.unwrap(), [], "it is not asked any more");
    assert_eq!(store.close_quiet_studies(quiet_after(0)).await.unwrap().len(), 1);
    assert_eq!(
        texts(&store, "a", "closed").await,
        ["quiet; closed as version 1 with 1 instances; the look-up at pacs failed"]
    );
    let failed = texts(&store, "a", "look-up-failed").await;
    assert_eq!(failed.len(), 2, "the first and the last: {failed:?}");
    assert!(failed[0].contains("pacs failed: no connection ; it is asked again"), "{failed:?}");
    let figures = store.lookup_figures().await.unwrap();
    assert_eq!(figures.iter().map(|f| (f.outcome, f.count)).collect::<Vec<_>>(), [("failed", 3)]);
}

pub(crate) async fn only_studies_of_its_sources_are_asked_about(backend: impl Backend) {
    let store = backend.open().await;
    Slice { source: "CT1", ..Slice::of("a", 1) }.record(&store, at(0)).await;
    Slice { source: "CT2", ..Slice::of("b", 1) }.record(&store, at(0)).await;
    Slice { source: "CT1", accession: Some("A-1"), ..Slice::of("c", 1) }.record(&store, at(0)).await;
    let ct1 = vec![AeTitle::parse("CT1").unwrap()];
    let ris = LookupPeer { counts: false, sources: ct1, ..peer("ris", 0) };
    assert_eq!(due(&store, &ris, at(1)).await.study_instance, study_uid("a"), "c came with its number");
    assert_eq!(store.open_lookups(&ris, at(1)).await.unwrap(), 0, "each once");
    let answer = LookupAnswer { doubts: vec!["3 accession numbers".to_owned()], ..LookupAnswer::default() };
    for now in [2, 3] {
        told(&store, &ris, &answer, at(now)).await;
    }
    assert_eq!(texts(&store, "a", "look-up-doubtful").await.len(), 1, "said once");
    assert_eq!(detail(&store, "a").await.summary.accession_number, None);
    assert_eq!(status(&store, "a").await, StudyStatus::Receiving);
}

pub(crate) async fn waits_are_short_after_a_clock_was_set_back(backend: impl Backend) {
    let store = backend.open().await;
    let pacs = peer("pacs", 0);
    Slice::of("a", 1).record(&store, at(100_000)).await;
    told(&store, &pacs, &series("a", 2), at(100_001)).await;
    drop(store);
    let store = backend.open().await;
    store.recover(at(0)).await.unwrap();
    let deadline = store.next_deadline().await.unwrap().unwrap();
    assert!(deadline <= at(600), "{deadline:?}");
    assert!(store.next_lookup("pacs").await.unwrap().unwrap() <= at(600));
}
