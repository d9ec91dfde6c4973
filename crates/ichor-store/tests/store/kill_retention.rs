//! `kill -9` in the middle of giving up files: no file that is kept is gone, and none that is gone for the rows stays for ever.

use std::path::Path;

use ichor_store::{FileKind, Forwarding, Removal, Store};
use tempfile::TempDir;

use crate::child::{self, options};
use crate::support::*;

/// Set in the child: where its store is.
const STORE: &str = "ICHOR_STORE_KILL_RETENTION_TEST";

const STUDIES: u32 = 24;
const SLICES: u32 = 15;

/// The child: gives up study after study, and says so.
#[test]
fn child() {
    child::work(STORE, at(500), |store| async move {
        while store.remove_doomed(4).await.unwrap() != Some(0) {
            println!("\nstep");
        }
        for candidate in store.retention_candidates(FileKind::Received, at(1_000), &[], None, 100).await.unwrap() {
            let removal = store.remove_files(&candidate, FileKind::Received, "by age", &[], at(500)).await.unwrap();
            assert!(matches!(removal, Removal::Removed { .. }));
            println!("\nstep");
            while store.remove_doomed(4).await.unwrap() != Some(0) {
                println!("\nstep");
            }
        }
        // Nothing is left: the parent kills it all the same.
        loop {
            println!("\nstep");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}

#[test]
fn what_is_kept_survives_kill_9() {
    let folder = TempDir::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fill(folder.path()));
    let mut gone = Vec::new();
    for round in 0..6usize {
        let (mut child, lines) = child::start("kill_retention::child", STORE, folder.path());
        // At no particular moment between two steps.
        let steps = lines.map_while(Result::ok).filter(|line| line == "step").take(5 + 4 * round).count();
        assert_eq!(steps, 5 + 4 * round, "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let now_gone = runtime.block_on(check(folder.path()));
        assert!(gone.iter().all(|study| now_gone.contains(study)), "what is gone stays gone");
        gone = now_gone;
    }
    assert!(!gone.is_empty() && gone.len() < STUDIES as usize, "killed in the middle: {}", gone.len());
    runtime.block_on(finish(folder.path()));
}

async fn fill(folder: &Path) {
    let store = Store::open(&options(folder)).await.unwrap();
    for study in 0..STUDIES {
        closed_study(&store, &study.to_string(), SLICES, 0).await;
        analyse(&store, false, &[], at(20)).await;
    }
    for study in store.undecided_studies(100).await.unwrap() {
        store.forward(&study, &Forwarding::default(), at(30)).await.unwrap();
    }
    store.close().await;
}

/// The studies whose files are gone for their rows. All files of the others are there.
async fn check(folder: &Path) -> Vec<u32> {
    let store = Store::open(&options(folder)).await.unwrap();
    let recovery = store.recover(at(600)).await.unwrap();
    assert!(recovery.missing_blobs.is_empty() && recovery.removed_orphans == 0, "{recovery:?}");
    let doomed = store.retention_figures().await.unwrap().doomed as usize;
    let mut gone = Vec::new();
    for study in 0..STUDIES {
        let name = study.to_string();
        if detail(&store, &name).await.summary.pixels_removed_at.is_some() {
            gone.push(study);
            continue;
        }
        for number in 0..SLICES {
            let file = store.instance_file(&study_uid(&name), &slice_uid(&name, number)).await.unwrap();
            assert_eq!(std::fs::read(&file).unwrap(), b"headerpixels", "{}", file.display());
        }
    }
    // Results, kept studies, and what is doomed and perhaps removed already.
    let kept = STUDIES as usize + (STUDIES as usize - gone.len()) * SLICES as usize;
    let there = files(&folder.join("blobs")).len();
    assert!((kept..=kept + doomed).contains(&there), "{there} files, {kept} kept, {doomed} doomed");
    store.close().await;
    gone
}

/// Another process takes up what is doomed: then there is no file more than there should be.
async fn finish(folder: &Path) {
    let store = Store::open(&options(folder)).await.unwrap();
    while store.remove_doomed(50).await.unwrap() != Some(0) {}
    let mut kept = STUDIES as usize;
    for study in 0..STUDIES {
        let is_gone = detail(&store, &study.to_string()).await.summary.pixels_removed_at.is_some();
        kept += if is_gone { 0 } else { SLICES as usize };
    }
    assert_eq!(files(&folder.join("blobs")).len(), kept);
    store.close().await;
}
