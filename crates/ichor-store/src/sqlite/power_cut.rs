//! Power cuts: a disk that forgets what was not fsynced, as far as POSIX lets one forget.
//!
//! A file keeps the bytes that it had when it was last fsynced. A name, by creation or by rename, stays once its folder was
//! fsynced, and so does a folder in its own. What was done since may be there or not, each thing for itself, and bytes of
//! a file that was not fsynced may be there in part. SQLite's own files are taken as they are: that a commit with
//! `synchronous = FULL` survives is SQLite's promise (and `sqlite::tests` asserts the setting).

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ichor_core::Uid;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use super::tests::instance;
use crate::blobs::{Disk, RealDisk};
use crate::{Recorded, Store, StoreError, StoreOptions, Timestamp, folder};

#[derive(Debug, Default)]
struct State {
    /// Operations left before the power goes.
    left: u64,
    /// Names as the process sees them, by inode.
    names: HashMap<PathBuf, u64>,
    /// Names that stay, by inode.
    safe_names: HashMap<PathBuf, u64>,
    /// Contents that stay, by inode.
    safe_bytes: HashMap<u64, Vec<u8>>,
    folders: HashSet<PathBuf>,
    safe_folders: HashSet<PathBuf>,
}

#[derive(Debug, Default)]
struct CutDisk {
    state: Mutex<State>,
}

impl CutDisk {
    fn new(operations: u64) -> Self {
        Self { state: Mutex::new(State { left: operations, ..State::default() }) }
    }

    /// The state, while there is power.
    fn powered(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = self.state.lock().unwrap();
        if state.left == 0 {
            return Err(io::Error::other("there is no power"));
        }
        state.left -= 1;
        Ok(state)
    }

    /// Writes what a power cut may leave into another folder.
    fn leave(&self, from: &Path, to: &Path, random: &mut StdRng) {
        let state = self.state.lock().unwrap();
        let moved = |path: &Path| to.join(path.strip_prefix(from).unwrap());
        let (mut folders, mut names) = (state.safe_folders.clone(), state.safe_names.clone());
        for folder in &state.folders {
            if random.random() {
                folders.insert(folder.clone());
            }
        }
        // A rename is there as a whole or not at all.
        let gone: Vec<&PathBuf> = state.safe_names.keys().filter(|name| !state.names.contains_key(*name)).collect();
        for (name, inode) in &state.names {
            if !names.contains_key(name) && random.random() {
                names.retain(|old, other| other != inode || !gone.contains(&old));
                names.insert(name.clone(), *inode);
            }
        }
        let mut ordered: Vec<&PathBuf> = folders.iter().collect();
        ordered.sort();
        for folder in ordered {
            if moved(folder).parent().unwrap().is_dir() {
                fs::create_dir_all(moved(folder)).unwrap();
            }
        }
        for (name, inode) in names {
            let path = moved(&name);
            if !path.parent().unwrap().is_dir() {
                continue;
            }
            let now = state.names.iter().find(|(_, other)| **other == inode).and_then(|(path, _)| fs::read(path).ok());
            let bytes = match (state.safe_bytes.get(&inode), now) {
                (Some(safe), _) => safe.clone(),
                // Never fsynced: some of it.
                (None, Some(bytes)) => bytes[..random.random_range(0..=bytes.len())].to_vec(),
                (None, None) => Vec::new(),
            };
            fs::write(path, bytes).unwrap();
        }
    }
}

impl Disk for CutDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        let mut state = self.powered()?;
        let file = RealDisk.create(path)?;
        state.names.insert(path.to_owned(), file.metadata()?.ino());
        Ok(file)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let _powered = self.powered()?;
        RealDisk.write(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.powered()?;
        let inode = file.metadata()?.ino();
        let name = state.names.iter().find(|(_, other)| **other == inode).map(|(path, _)| path.clone());
        let bytes = fs::read(name.ok_or_else(|| io::Error::other("a file without a name"))?)?;
        state.safe_bytes.insert(inode, bytes);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.powered()?;
        RealDisk.rename(from, to)?;
        if let Some(inode) = state.names.remove(from) {
            state.names.insert(to.to_owned(), inode);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.powered()?;
        RealDisk.remove(path)?;
        state.names.remove(path);
        Ok(())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.powered()?;
        RealDisk.make_folder(path)?;
        state.folders.insert(path.to_owned());
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.powered()?;
        let inside = |name: &Path| name.parent().is_some_and(|folder| folder.join("") == path.join(""));
        let state = &mut *state;
        state.safe_names.retain(|name, _| !inside(name));
        state.safe_names.extend(state.names.iter().filter(|(name, _)| inside(name)).map(|(n, i)| (n.clone(), *i)));
        state.safe_folders.extend(state.folders.iter().filter(|folder| inside(folder)).cloned());
        Ok(())
    }
}

fn options(folder: &TempDir, blobs: &str) -> StoreOptions {
    StoreOptions::new(&folder.path().join("ichor.db"), &folder.path().join(blobs))
}

fn content(number: u32) -> Vec<u8> {
    // Longer than a block, so that a file is written in several pieces.
    format!("slice {number} ").repeat(30_000 + number as usize).into_bytes()
}

async fn record(store: &Store, number: u32) -> Result<Recorded, StoreError> {
    let mut blob = store.blobs().begin_with_header(b"header").await?;
    for piece in content(number).chunks(100_000) {
        blob.write(piece).await?;
    }
    let arrived = store.blobs().finish_in_place(blob).await?;
    let instance = instance(Uid::derive(["slice", &number.to_string()]), arrived);
    store.record_instance(instance, Timestamp::from_millis(0)).await
}

/// Records instances three at a time until the power goes, and looks at what is left.
async fn cut_after(operations: u64, seed: u64) -> usize {
    let folder = folder();
    let disk = Arc::new(CutDisk::new(operations));
    let mut acknowledged = Vec::new();
    if let Ok(store) = Store::open_on(&options(&folder, "blobs"), disk.clone()).await {
        for batch in 0..6_u32 {
            let tasks: Vec<_> = (batch * 3..batch * 3 + 3)
                .map(|number| {
                    let store = store.clone();
                    (number, tokio::spawn(async move { record(&store, number).await }))
                })
                .collect();
            for (number, task) in tasks {
                if let Ok(Recorded::New { .. }) = task.await.unwrap() {
                    acknowledged.push(number);
                }
            }
        }
        store.close().await;
    }
    let mut random = StdRng::seed_from_u64(seed);
    let left = folder.path().join("left");
    fs::create_dir(&left).unwrap();
    disk.leave(&folder.path().join("blobs"), &left, &mut random);

    let store = Store::open(&options(&folder, "left")).await.unwrap();
    let recovery = store.recover(Timestamp::from_millis(1)).await.unwrap();
    // A row that nobody was told of may have lost its file; recovery must say so, and the sender comes again.
    for missing in &recovery.missing_blobs {
        for number in &acknowledged {
            assert_ne!(missing.sop_instance, Uid::derive(["slice", &number.to_string()]).as_str(), "was acknowledged");
        }
    }
    for number in &acknowledged {
        let blob: String = sqlx::query_scalar("SELECT blob FROM instance WHERE sop_instance = ?")
            .bind(Uid::derive(["slice", &number.to_string()]).as_str())
            .fetch_one(&store.index().read)
            .await
            .unwrap();
        let bytes = fs::read(left.join(blob)).unwrap_or_else(|error| panic!("slice {number}: {error}"));
        assert!(bytes == [b"header", content(*number).as_slice()].concat(), "slice {number} is not what was sent");
    }
    // Every one can be sent again and is there then.
    for number in 0..18 {
        assert!(matches!(record(&store, number).await, Ok(Recorded::New { .. } | Recorded::Duplicate)), "{number}");
    }
    store.close().await;
    acknowledged.len()
}

#[tokio::test]
async fn power_cut_after_each_operation_loses_nothing_acknowledged() {
    let mut acknowledged = Vec::new();
    for operations in (0..180).step_by(3) {
        acknowledged.push(cut_after(operations, operations).await);
    }
    assert!(acknowledged.contains(&0) && acknowledged.contains(&18), "{acknowledged:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn power_cut_at_any_moment_loses_nothing_acknowledged(operations in 0u64..190, seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(cut_after(operations, seed));
    }
}
