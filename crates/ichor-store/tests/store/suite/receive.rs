use std::collections::HashSet;

use ichor_core::StudyStatus;
use ichor_store::{AssociationEnd, NewAssociation, Recorded, StoreError};

use crate::support::*;

pub(crate) async fn new_instance_is_there_when_answered(backend: impl Backend) {
    let store = backend.open().await;
    let recorded = Slice::of("a", 1).record(&store, at(0)).await;
    assert!(matches!(&recorded, Recorded::New { study, .. } if *study == study_uid("a")), "{recorded:?}");

    let other_process = backend.open().await;
    let summary = detail(&other_process, "a").await.summary;
    assert_eq!(summary.status, StudyStatus::Receiving);
    assert_eq!((summary.version, summary.instances), (0, 1));
    assert_eq!(summary.quiet_until, Some(quiet_after(0)));
    assert_eq!(summary.bytes, b"headerpixels".len() as u64);
    assert_eq!(summary.source_ae.as_deref(), Some("SCANNER"));
    let files = files(&backend.blobs());
    assert_eq!(files.len(), 1);
    assert_eq!(std::fs::read(&files[0]).unwrap(), b"headerpixels");
    assert!(!files[0].to_string_lossy().contains(slice_uid("a", 1).as_str()), "the peer named a file");
}

pub(crate) async fn duplicate_is_dropped_and_refreshes_nothing(backend: impl Backend) {
    let store = backend.open().await;
    let association = open_association(&store, at(0)).await;
    Slice::of("a", 1).record(&store, at(0)).await;
    for seconds in [5, 6] {
        let again = Slice { association: Some(association), ..Slice::of("a", 1) };
        assert_eq!(again.record(&store, at(seconds)).await, Recorded::Duplicate);
    }
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.instances, summary.quiet_until), (1, Some(quiet_after(0))));
    assert_eq!(files(&backend.blobs()).len(), 1);

    let timeline = store.timeline(&study_uid("a")).await.unwrap();
    let duplicates: Vec<_> = timeline.iter().filter(|event| event.kind == "duplicate").collect();
    assert_eq!(duplicates.len(), 1, "summed up by association");
    assert_eq!(duplicates[0].detail["count"], 2);
    assert!(duplicates[0].text.starts_with("2 times"), "{}", duplicates[0].text);
    assert_eq!(timeline[0].kind, "association-opened", "an association that brought duplicates only belongs to it");
}

pub(crate) async fn duplicates_at_once_are_stored_once(backend: impl Backend) {
    let store = backend.open().await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { Slice::of("a", 1).record(&store, at(0)).await })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        match task.await.unwrap() {
            Recorded::New { .. } => new += 1,
            Recorded::Duplicate => {}
            Recorded::Conflict => panic!("same content"),
        }
    }
    assert_eq!(new, 1);
    assert_eq!(files(&backend.blobs()).len(), 1);
    assert_eq!(detail(&store, "a").await.summary.instances, 1);
}

pub(crate) async fn header_is_not_content(backend: impl Backend) {
    let store = backend.open().await;
    let blobs = store.blobs();
    let mut digests = HashSet::new();
    for header in [&b""[..], b"one header", &[7; 300_000]] {
        let mut blob = blobs.begin_with_header(header).await.unwrap();
        blob.write(b"data ").await.unwrap();
        blob.write(b"set").await.unwrap();
        let staged = blob.finish().await.unwrap();
        assert_eq!(staged.size(), header.len() as u64 + 8);
        digests.insert(staged.digest());
    }
    assert_eq!(digests.len(), 1);
}

pub(crate) async fn other_content_is_kept_apart(backend: impl Backend) {
    let store = backend.open().await;
    Slice::of("a", 1).record(&store, at(0)).await;
    for seconds in [1, 2] {
        let other = Slice { content: b"other pixels", ..Slice::of("a", 1) };
        assert_eq!(other.record(&store, at(seconds)).await, Recorded::Conflict);
        assert_eq!(files(&backend.blobs()).len(), 2, "the same conflict is kept once");
    }
    let third = Slice { content: b"third", ..Slice::of("a", 1) };
    assert_eq!(third.record(&store, at(3)).await, Recorded::Conflict);
    assert_eq!(files(&backend.blobs()).len(), 3);

    assert_eq!(detail(&store, "a").await.summary.quiet_until, Some(quiet_after(0)), "a conflict refreshes nothing");
    assert!(kinds(&store, "a").await.contains(&"conflict".to_owned()));
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    let claim = store.claim_analysis("w", quiet_after(0)).await.unwrap().unwrap();
    assert_eq!(claim.instances.len(), 1);
    assert_eq!(std::fs::read(&claim.instances[0].path).unwrap(), b"headerpixels");
}

pub(crate) async fn own_result_is_kept_and_never_analysed(backend: impl Backend) {
    let store = backend.open().await;
    let own = || Slice { own: true, ..Slice::of("a", 9) };
    assert!(matches!(own().record(&store, at(0)).await, Recorded::New { .. }));
    assert_eq!(own().record(&store, at(1)).await, Recorded::Duplicate);
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.status, summary.instances), (StudyStatus::NotAnalysed, 0));
    assert_eq!(summary.reason.unwrap().code.as_str(), "own-results-only");
    assert_eq!(store.next_deadline().await.unwrap(), None);

    Slice::of("a", 1).record(&store, at(2)).await;
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.status, summary.reason), (StudyStatus::Receiving, None));
    assert!(!kinds(&store, "a").await.contains(&"reopened".to_owned()), "there was no version before");
    store.close_quiet_studies(quiet_after(2)).await.unwrap();
    let claim = store.claim_analysis("w", quiet_after(2)).await.unwrap().unwrap();
    assert_eq!(claim.instances.len(), 1);
    assert_eq!(claim.instances[0].sop_instance, slice_uid("a", 1));
}

pub(crate) async fn own_result_does_not_open_its_study_again(backend: impl Backend) {
    let store = backend.open().await;
    closed_study(&store, "a", 2, 0).await;
    let claim = analyse(&store, true, &["pacs"], at(20)).await;
    // By what it says of itself, and by its UID if a PACS has written another maker over it.
    Slice { own: true, ..Slice::of("a", 9) }.record(&store, at(30)).await;
    let returned = Slice { sop_instance: Some(object_uid(&claim)), ..Slice::of("a", 10) };
    assert!(matches!(returned.record(&store, at(30)).await, Recorded::New { .. }));
    let summary = detail(&store, "a").await.summary;
    assert_eq!((summary.status, summary.version, summary.instances), (StudyStatus::Analysed, 1, 2));
    assert_eq!(store.close_quiet_studies(at(1_000)).await.unwrap(), []);
    assert!(kinds(&store, "a").await.contains(&"own-result-returned".to_owned()));
}

pub(crate) async fn full_study_takes_no_more(backend: impl Backend) {
    let store = backend.open().await;
    let slice = |study, number| Slice { room: 3, ..Slice::of(study, number) };
    // At once, so that some of them meet in one batch.
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { slice("a", number).try_record(&store, at(0)).await })
        })
        .collect();
    let (mut kept, mut refused) = (Vec::new(), 0);
    for (number, task) in (0..).zip(tasks) {
        match task.await.unwrap() {
            Ok(Recorded::New { .. }) => kept.push(number),
            Err(StoreError::StudyFull { study, most: 3 }) if study == study_uid("a") => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((kept.len(), refused), (3, 5));
    assert_eq!(detail(&store, "a").await.summary.instances, 3);
    assert_eq!(files(&backend.blobs()).len(), 3, "what was refused leaves nothing");
    // What is there already is no more, our own results are none of its slices, and another study has its own room.
    assert_eq!(slice("a", kept[0]).record(&store, at(1)).await, Recorded::Duplicate);
    let own = Slice { own: true, ..slice("a", 99) };
    assert!(matches!(own.record(&store, at(1)).await, Recorded::New { .. }));
    assert!(matches!(slice("b", 0).record(&store, at(1)).await, Recorded::New { .. }));
}

pub(crate) async fn end_of_association_restarts_the_quiet_period(backend: impl Backend) {
    let store = backend.open().await;
    let end = AssociationEnd { outcome: "released".to_owned(), instances: 1, bytes: 12 };
    let (first, second) = (open_association(&store, at(0)).await, open_association(&store, at(0)).await);
    Slice { association: Some(first), ..Slice::of("a", 1) }.record(&store, at(0)).await;
    Slice { association: Some(second), ..Slice::of("a", 1) }.record(&store, at(1)).await;
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(0)));

    store.association_closed(second, &end, at(4)).await.unwrap();
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(0)), "it brought nothing new");
    store.association_closed(first, &end, at(5)).await.unwrap();
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(5)));
    assert_eq!(store.close_quiet_studies(quiet_after(4)).await.unwrap(), []);
    assert_eq!(store.close_quiet_studies(quiet_after(5)).await.unwrap().len(), 1);

    let late = open_association(&store, at(20)).await;
    Slice { association: Some(late), ..Slice::of("b", 1) }.record(&store, at(20)).await;
    store.close_quiet_studies(quiet_after(20)).await.unwrap();
    store.association_closed(late, &end, at(40)).await.unwrap();
    assert_eq!(detail(&store, "b").await.summary.status, StudyStatus::Queued, "a release opens nothing again");
}

pub(crate) async fn association_ends_once<B: Backend>(backend: B) {
    let store = backend.open().await;
    let end = |outcome: &str| AssociationEnd { outcome: outcome.to_owned(), instances: 1, bytes: 12 };
    let association = open_association(&store, at(0)).await;
    Slice { association: Some(association), ..Slice::of("a", 1) }.record(&store, at(0)).await;
    store.association_closed(association, &end("aborted\u{1b}[31m by the peer"), at(1)).await.unwrap();
    store.association_closed(association, &end("released"), at(9)).await.unwrap();
    assert_eq!(store.next_deadline().await.unwrap(), Some(quiet_after(1)));
    let timeline = store.timeline(&study_uid("a")).await.unwrap();
    let ends: Vec<_> = timeline.iter().filter(|event| event.kind == "association-closed").collect();
    assert_eq!(ends.len(), 1);
    assert!(ends[0].text.contains("aborted [31m by the peer"), "control characters are gone: {:?}", ends[0].text);

    drop(store);
    let empty = B::new();
    let error = empty.open().await.association_closed(association, &end("released"), at(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::NotFound { .. }), "{error}");
}

pub(crate) async fn attributes_fill_gaps_and_never_change(backend: impl Backend) {
    let store = backend.open().await;
    Slice { patient: None, ..Slice::of("a", 1) }.record(&store, at(0)).await;
    assert_eq!(detail(&store, "a").await.summary.patient_id, None);
    Slice { patient: Some("P1"), accession: Some("ACC"), ..Slice::of("a", 2) }.record(&store, at(1)).await;
    Slice { patient: Some("P2"), date: Some("19990101"), source: "OTHER", ..Slice::of("a", 3) }
        .record(&store, at(2))
        .await;
    let summary = detail(&store, "a").await.summary;
    assert_eq!(summary.patient_id.as_deref(), Some("P1"));
    assert_eq!(summary.accession_number.as_deref(), Some("ACC"));
    assert_eq!(summary.study_date.as_deref(), Some("20260301"));
    assert_eq!(summary.source_ae.as_deref(), Some("SCANNER"));
    assert_eq!((summary.received_at, summary.last_instance_at), (at(0), at(2)));
}

pub(crate) async fn many_associations_at_once(backend: impl Backend) {
    const ASSOCIATIONS: u32 = 8;
    const SLICES: u32 = 40;
    let store = backend.open().await;
    let tasks: Vec<_> = (0..ASSOCIATIONS)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let association = open_association(&store, at(0)).await;
                // Two associations share each study.
                let study = format!("study {}", task / 2);
                for number in 0..SLICES {
                    let number = number + 1_000 * (task % 2);
                    let slice = Slice { association: Some(association), ..Slice::of(&study, number) };
                    assert!(matches!(slice.record(&store, at(1)).await, Recorded::New { .. }));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(files(&backend.blobs()).len() as u32, ASSOCIATIONS * SLICES);
    for study in 0..ASSOCIATIONS / 2 {
        let study = format!("study {study}");
        assert_eq!(detail(&store, &study).await.summary.instances, 2 * SLICES);
        let received = kinds(&store, &study).await.into_iter().filter(|kind| kind == "instances-received").count();
        assert_eq!(received, 2, "one line an association, not one a slice");
    }
}

pub(crate) async fn lost_file_is_restored_by_a_duplicate(backend: impl Backend) {
    let store = backend.open().await;
    Slice::of("a", 1).record(&store, at(0)).await;
    for cut in [false, true] {
        let file = &files(&backend.blobs())[0];
        if cut { std::fs::write(file, b"cut") } else { std::fs::remove_file(file) }.unwrap();
        assert_eq!(Slice::of("a", 1).record(&store, at(1)).await, Recorded::Duplicate);
    }
    store.close_quiet_studies(quiet_after(0)).await.unwrap();
    let claim = store.claim_analysis("w", quiet_after(0)).await.unwrap().unwrap();
    assert_eq!(std::fs::read(&claim.instances[0].path).unwrap(), b"headerpixels");
    let timeline = store.timeline(&study_uid("a")).await.unwrap();
    let restored: Vec<&str> =
        timeline.iter().filter(|event| event.kind == "blob-restored").map(|event| event.text.as_str()).collect();
    assert_eq!(restored, ["2 files came again and replace those that are gone"]);
    // Another association's are another line, also where many came with it.
    let association = Some(open_association(&store, at(100)).await);
    for _ in 0..3 {
        std::fs::remove_file(&files(&backend.blobs())[0]).unwrap();
        let slice = Slice { association, ..Slice::of("a", 1) };
        assert_eq!(slice.record(&store, at(100)).await, Recorded::Duplicate);
    }
    let timeline = store.timeline(&study_uid("a")).await.unwrap();
    let restored = timeline.iter().filter(|event| event.kind == "blob-restored").count();
    assert_eq!(
        (restored, timeline.iter().filter(|event| event.text.starts_with("3 files came again")).count()),
        (2, 1)
    );
}

pub(crate) async fn refused_association_is_no_secret(backend: impl Backend) {
    let store = backend.open().await;
    let peer = NewAssociation {
        peer_address: "192.0.2.9:1".to_owned(),
        calling_ae: "UNKNOWN".to_owned(),
        called_ae: "ICHOR".to_owned(),
    };
    store.association_refused(&peer, "calling AE title not recognized", at(0)).await.unwrap();
    let refused = store.recent_events(10).await.unwrap();
    assert_eq!(refused[0].kind, "association-refused");
    assert!(refused[0].text.contains("UNKNOWN at 192.0.2.9:1"), "{}", refused[0].text);
}
