//! Attribution maps: kept with the outcome, gone with the results, backed up and missed like every file.

use ichor_store::{AnalysisOutcome, FileKind, MapPlace, Removal, SliceMap, Store, StoreError};

use crate::support::*;

/// An outcome in which slice 1 and slice 2 have maps.
async fn with_maps(store: &Store, claim: &ichor_store::AnalysisClaim, content: &[u8]) -> AnalysisOutcome {
    let mut outcome = outcome(store, claim, true, &[]).await;
    outcome.slices[1].map = Some(MapPlace { offset: 0, bytes: 5 });
    outcome.slices[2].map = Some(MapPlace { offset: 5, bytes: 6 });
    outcome.maps = Some(stage_made(store, content).await);
    outcome
}

async fn analysed(store: &Store, study: &str, content: &[u8], seconds: i64) {
    closed_study(store, study, 4, seconds).await;
    again(store, content, seconds + 20).await;
}

async fn again(store: &Store, content: &[u8], seconds: i64) {
    let claim = store.claim_analysis("w", at(seconds)).await.unwrap().unwrap();
    let outcome = with_maps(store, &claim, content).await;
    store.complete_analysis(claim, outcome, at(seconds)).await.unwrap();
    for study in store.undecided_studies(100).await.unwrap() {
        store.forward(&study, &ichor_store::Forwarding::default(), at(seconds)).await.unwrap();
    }
}

async fn map(store: &Store, study: &str, slice: u32) -> SliceMap {
    store.slice_map(&study_uid(study), &slice_uid(study, slice), None).await.unwrap()
}

async fn bytes_of(store: &Store, study: &str, slice: u32) -> Vec<u8> {
    let SliceMap::Kept(map) = map(store, study, slice).await else { panic!("no map of slice {slice}") };
    let start = usize::try_from(map.place.offset).unwrap();
    std::fs::read(map.path).unwrap()[start..start + map.place.bytes as usize].to_vec()
}

pub(crate) async fn maps_are_found_or_it_is_said_why_not(backend: impl Backend) {
    let store = backend.open().await;
    analysed(&store, "a", b"firstsecond", 0).await;
    assert_eq!((bytes_of(&store, "a", 1).await, bytes_of(&store, "a", 2).await), (b"first".into(), b"second".into()));
    assert_eq!(map(&store, "a", 0).await, SliceMap::NegativeSlice);
    assert_eq!(map(&store, "a", 9).await, SliceMap::OtherSlice);
    let frame = store.slice_map(&study_uid("a"), &slice_uid("a", 1), Some(3)).await.unwrap();
    assert_eq!(frame, SliceMap::OtherSlice, "it has no frames");
    let has_map: Vec<bool> = detail(&store, "a").await.slices.iter().map(|slice| slice.map.is_some()).collect();
    assert_eq!(has_map, [false, true, true, false]);

    closed_study(&store, "before", 2, 100).await;
    assert_eq!(map(&store, "before", 1).await, SliceMap::NoFinding);
    analyse(&store, true, &[], at(120)).await;
    assert_eq!(map(&store, "before", 1).await, SliceMap::NeverKept);
    closed_study(&store, "negative", 2, 200).await;
    analyse(&store, false, &[], at(220)).await;
    assert_eq!(map(&store, "negative", 1).await, SliceMap::NegativeStudy);
    let unknown = store.slice_map(&study_uid("none"), &slice_uid("a", 1), None).await.unwrap_err();
    assert!(matches!(unknown, StoreError::NotFound { .. }), "{unknown}");
}

pub(crate) async fn maps_made_again_replace_those_of_before(backend: impl Backend) {
    let store = backend.open().await;
    analysed(&store, "a", b"firstsecond", 0).await;
    let there = files(&backend.blobs()).len();
    store.retry(&study_uid("a"), at(30)).await.unwrap();
    again(&store, b"firstsecond", 31).await;
    assert_eq!(
        (files(&backend.blobs()).len(), store.retention_figures().await.unwrap().doomed),
        (there, 0),
        "the same"
    );
    store.retry(&study_uid("a"), at(40)).await.unwrap();
    again(&store, b"FIRSTSECOND", 41).await;
    assert_eq!(bytes_of(&store, "a", 2).await, b"SECOND");
    assert_eq!(store.remove_doomed(10).await.unwrap(), Some(1), "the earlier file goes");
    assert_eq!(files(&backend.blobs()).len(), there);
    store.retry(&study_uid("a"), at(50)).await.unwrap();
    analyse(&store, true, &[], at(51)).await;
    assert_eq!(map(&store, "a", 1).await, SliceMap::NeverKept, "an analysis that kept none leaves none");
    let recovery = store.recover(at(60)).await.unwrap();
    assert!(recovery.missing_blobs.is_empty(), "{recovery:?}");
}

pub(crate) async fn maps_go_with_the_results(backend: impl Backend) {
    let store = backend.open().await;
    analysed(&store, "a", b"firstsecond", 0).await;
    let SliceMap::Kept(kept) = map(&store, "a", 1).await else { panic!("no map") };
    let candidates = store.retention_candidates(FileKind::Results, at(1_000), &[], None, 10).await.unwrap();
    assert_eq!((candidates[0].files, candidates[0].protections.len()), (2, 0), "the Segmentation and the maps");
    let removed = store.remove_files(&candidates[0], FileKind::Results, "by age", &[], at(50)).await.unwrap();
    assert!(matches!(removed, Removal::Removed { files: 2, .. }), "{removed:?}");
    assert_eq!(store.remove_doomed(10).await.unwrap(), Some(2));
    assert!(!kept.path.exists());
    assert_eq!(map(&store, "a", 1).await, SliceMap::Removed(at(50)));
    assert!(detail(&store, "a").await.slices.iter().all(|slice| slice.map.is_none()));
    store.retry(&study_uid("a"), at(60)).await.unwrap();
    again(&store, b"firstsecond", 61).await;
    assert_eq!(bytes_of(&store, "a", 1).await, b"first", "they are made again");
}

pub(crate) async fn a_lost_file_of_maps_is_missed(backend: impl Backend) {
    let store = backend.open().await;
    analysed(&store, "a", b"firstsecond", 0).await;
    let SliceMap::Kept(kept) = map(&store, "a", 1).await else { panic!("no map") };
    std::fs::remove_file(&kept.path).unwrap();
    drop(store);
    let store = backend.open().await;
    let missing = store.recover(at(40)).await.unwrap().missing_blobs;
    assert_eq!((missing.len(), missing[0].kind.as_str(), &missing[0].path), (1, "maps of study", &kept.path));
    assert!(kinds(&store, "a").await.contains(&"blob-missing".to_owned()), "the study's timeline says so");
    store.retry(&study_uid("a"), at(50)).await.unwrap();
    again(&store, b"firstsecond", 51).await;
    assert_eq!(bytes_of(&store, "a", 2).await, b"second");
}
