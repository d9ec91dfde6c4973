use tempfile::TempDir;

use super::*;
use crate::folder;

fn open(folder: &TempDir, disk: Arc<dyn Disk>) -> BlobStore {
    BlobStore::open(folder.path(), disk).unwrap()
}

fn incoming(folder: &TempDir) -> usize {
    std::fs::read_dir(folder.path().join("incoming")).unwrap().count()
}

/// Bytes without a period that fits a block.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

#[tokio::test]
async fn bytes_come_out_as_they_went_in() {
    let folder = folder();
    let blobs = open(&folder, Arc::new(RealDisk));
    for (length, piece) in [(0, 1), (1, 1), (100_000, 999), (262_144, 262_144), (1_500_000, 16_000), (700_000, 700_000)]
    {
        let content = content(length);
        let mut blob = blobs.begin().await.unwrap();
        for piece in content.chunks(piece) {
            blob.write(piece).await.unwrap();
        }
        let staged = blob.finish().await.unwrap();
        assert_eq!(staged.size(), length as u64);
        assert_eq!(staged.digest(), *blake3::hash(&content).as_bytes(), "{length} bytes");
        assert_eq!(std::fs::read(staged.path()).unwrap(), content);
        let reference = blobs.publish(staged).await.unwrap();
        assert_eq!(std::fs::read(blobs.path_of(&reference)).unwrap(), content);
        assert_eq!(BlobRef::parse(reference.as_str()), Some(reference.clone()));
        assert!(blobs.is_intact(&reference, length as u64).await);
        assert!(!blobs.is_intact(&reference, length as u64 + 1).await);
    }
    assert_eq!(incoming(&folder), 0);
}

#[tokio::test]
async fn what_is_dropped_leaves_nothing() {
    let folder = folder();
    let blobs = open(&folder, Arc::new(RealDisk));
    drop(blobs.begin().await.unwrap());
    let mut large = blobs.begin().await.unwrap();
    for piece in content(2_000_000).chunks(300_000) {
        large.write(piece).await.unwrap();
    }
    drop(large);
    let mut whole = blobs.begin().await.unwrap();
    whole.write(b"staged").await.unwrap();
    drop(whole.finish().await.unwrap());
    // A block that was under way is removed by the thread that wrote it.
    for _ in 0..200 {
        if incoming(&folder) == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} files stay", incoming(&folder));
}

#[tokio::test]
async fn blobs_that_are_published_in_a_row_share_a_shelf() {
    let folder = folder();
    let blobs = open(&folder, Arc::new(RealDisk));
    let mut published = Vec::new();
    for _ in 0..10 {
        let staged = blobs.begin().await.unwrap().finish().await.unwrap();
        published.push(blobs.publish(staged).await.unwrap());
    }
    let shelves: std::collections::HashSet<&str> = published.iter().map(|blob| &blob.as_str()[..6]).collect();
    assert_eq!(shelves.len(), 1);
    let names: std::collections::HashSet<&BlobRef> = published.iter().collect();
    assert_eq!(names.len(), 10);
}

/// Each operation of the file layer fails once with a full disk: the caller is told so, nothing half-written stays,
/// and the next blob goes through.
#[tokio::test]
async fn a_disk_that_is_full_at_any_moment_leaves_nothing_behind() {
    let mut failures = 0;
    for operation in 0.. {
        let folder = folder();
        let disk = Arc::new(FaultyDisk::healthy());
        let blobs = open(&folder, disk.clone());
        disk.fail_after(operation);
        let outcome = write_one(&blobs).await;
        if !disk.has_failed() {
            outcome.unwrap();
            break;
        }
        failures += 1;
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "operation {operation}: {error}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        assert_eq!(incoming(&folder), 0, "operation {operation}");
        let reference = write_one(&blobs).await.unwrap();
        let shelf = blobs.path_of(&reference);
        assert_eq!(std::fs::read_dir(shelf.parent().unwrap()).unwrap().count(), 1, "operation {operation}");
    }
    // create, 3 writes, fsync, mark, 2 folders, 3 fsyncs, rename, fsync
    assert!(failures >= 12, "only {failures} operations could fail");
}

async fn write_one(blobs: &BlobStore) -> Result<BlobRef, StoreError> {
    let mut blob = blobs.begin().await?;
    for piece in content(600_000).chunks(270_000) {
        blob.write(piece).await?;
    }
    blobs.publish(blob.finish().await?).await
}

#[tokio::test]
async fn a_failed_blob_stays_failed() {
    let folder = folder();
    let disk = Arc::new(FaultyDisk::healthy());
    let blobs = open(&folder, disk.clone());
    let mut blob = blobs.begin().await.unwrap();
    disk.fail_after(1);
    blob.write(&content(300_000)).await.unwrap();
    assert!(matches!(blob.write(&content(300_000)).await, Err(StoreError::DiskFull { .. })));
    assert!(blob.write(&content(300_000)).await.is_err());
    assert!(blob.finish().await.is_err(), "a blob with a hole must not be staged");
}

#[test]
fn references_cannot_leave_the_folder() {
    let good = "ab/cd/abcd0123456789abcdef0123456789ab";
    assert!(BlobRef::parse(good).is_some());
    for bad in [
        "",
        "/etc/passwd",
        "../../etc/passwd",
        "ab/cd/../../../../etc/passwd/aaaaaaa",
        "ab/cd/abcd0123456789abcdef0123456789a",
        "ab/cd/ffff0123456789abcdef0123456789ab",
        "AB/CD/ABCD0123456789abcdef0123456789ab",
        "ab/cd/abcd0123456789abcdef0123456789ab/x",
        "ab/cd/abcd0123456789abcdef0123456789ab\0",
    ] {
        assert!(BlobRef::parse(bad).is_none(), "{bad:?}");
    }
}

#[tokio::test]
async fn free_space_is_known() {
    let folder = folder();
    let free = open(&folder, Arc::new(RealDisk)).free_bytes().unwrap();
    assert!(free > 0 && free < 1 << 60, "{free}");
}
