//! A disk that is really full: a small file system in memory, mounted where the tests run as root.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::*;
use ichor_store::{Recorded, Store, StoreError, StoreOptions};
use tempfile::TempDir;

/// A mounted file system, unmounted when dropped.
struct Mount {
    folder: TempDir,
}

impl Mount {
    /// `None`, with the reason on standard error, where mounting is not allowed.
    fn new(size: &str) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "ichor-test"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => {
                eprintln!("skipped: cannot mount: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("skipped: cannot mount: {error}");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.folder.path().display());
    }
}

/// Records until the disk is full; how many were kept.
async fn fill(store: &Store, content: &[u8]) -> u32 {
    for number in 0..10_000 {
        match (Slice { content, ..Slice::of("a", number) }).try_record(store, at(0)).await {
            Ok(Recorded::New { .. }) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
                return number;
            }
        }
    }
    panic!("the disk is never full");
}

async fn check(store: &Store, blobs: &Path, kept: u32) {
    assert_eq!(detail(store, "a").await.summary.instances, kept);
    assert_eq!(files(blobs).len() as u32, kept, "neither a file too many nor one too few");
}

#[tokio::test]
async fn full_blob_folder_is_told_and_recovers() {
    let Some(mount) = Mount::new("4m") else { return };
    let database = TempDir::new().unwrap();
    let blobs = mount.path().join("blobs");
    let store = Store::open(&StoreOptions::new(&database.path().join("ichor.db"), &blobs)).await.unwrap();
    let content = vec![7; 600_000];
    let kept = fill(&store, &content).await;
    assert!((4..=6).contains(&kept), "{kept} of 600 kB in 4 MiB");
    assert!(store.blobs().free_bytes().unwrap() < 700_000);
    check(&store, &blobs, kept).await;

    // Somebody makes room: the next one goes through, without a restart.
    let ballast = files(&blobs)[0].clone();
    std::fs::remove_file(ballast).unwrap();
    let again = Slice { content: &content, ..Slice::of("a", kept) }.record(&store, at(1)).await;
    assert!(matches!(again, Recorded::New { .. }), "{again:?}");
    store.close().await;
}

#[tokio::test]
async fn full_database_folder_is_told_and_recovers() {
    // An empty store takes a megabyte of it.
    let Some(mount) = Mount::new("4m") else { return };
    let elsewhere = TempDir::new().unwrap();
    let blobs = elsewhere.path().join("blobs");
    let ballast = mount.path().join("ballast");
    let store = Store::open(&StoreOptions::new(&mount.path().join("ichor.db"), &blobs)).await.unwrap();
    // What is freed later must hold the log a second time: closing writes it back into the database.
    std::fs::write(&ballast, vec![0; 2 << 20]).unwrap();
    let kept = fill(&store, b"small").await;
    check(&store, &blobs, kept).await;
    let error = Slice::of("a", kept).try_record(&store, at(0)).await.unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "still full: {error:?}");

    std::fs::remove_file(&ballast).unwrap();
    assert!(matches!(Slice::of("a", kept).record(&store, at(1)).await, Recorded::New { .. }));
    check(&store, &blobs, kept + 1).await;
    store.close().await;
    let reopened = Store::open(&StoreOptions::new(&mount.path().join("ichor.db"), &blobs)).await.unwrap();
    check(&reopened, &blobs, kept + 1).await;
    reopened.close().await;
}
