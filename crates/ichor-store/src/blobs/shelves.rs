//! Shelves: the two-level folders in which blobs lie.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::{BlobRef, Disk, PlacedBlob, StagedBlob, WrittenBlob};
use crate::StoreError;

/// Blobs in a row on one shelf before the next one is drawn.
const BLOBS_A_TURN: u32 = 512;

/// One folder: four hexadecimal digits, two a level.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shelf(String);

impl Shelf {
    fn random() -> Self {
        Self(format!("{:04x}", rand::random::<u16>()))
    }

    fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 4 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self(text.to_owned()))
    }

    /// What references to blobs on this shelf begin with, up to the name.
    pub(crate) fn prefix(&self) -> String {
        format!("{}/{}/", &self.0[..2], &self.0[2..])
    }

    /// A reference to a new blob: the shelf's digits and 112 random bits.
    fn new_blob(&self) -> BlobRef {
        let random = rand::random::<u128>() >> 16;
        BlobRef(format!("{}{}{random:028x}", self.prefix(), self.0))
    }
}

/// A blob in its place that is not on the medium yet: recording it as an instance sees to that while the row is made.
/// Dropped, its file is removed.
#[derive(Debug)]
pub struct ArrivedBlob {
    pub(crate) placed: PlacedBlob,
    pub(crate) unsynced: Unsynced,
}

/// A file and its shelf that are still to be fsynced.
#[derive(Debug)]
pub(crate) struct Unsynced {
    disk: Arc<dyn Disk>,
    file: fs::File,
    path: PathBuf,
    shelf: PathBuf,
    may_block: bool,
}

impl Unsynced {
    /// Fsyncs the file and its shelf, and tells `safe` how that went, also if the caller does not wait for it.
    pub(crate) async fn sync(self, safe: oneshot::Sender<Result<(), StoreError>>) {
        if self.may_block {
            // Who no longer listens has failed already.
            let _ = safe.send(self.sync_here());
        } else {
            let _ = spawn_blocking(move || safe.send(self.sync_here())).await;
        }
    }

    fn sync_here(&self) -> Result<(), StoreError> {
        self.disk.sync(&self.file).map_err(|source| StoreError::file("syncing", &self.path, source))?;
        sync_shelf(self.disk.as_ref(), &self.shelf, &self.path)
    }
}

/// Fsyncs a shelf, for the sake of a file that was renamed onto it.
fn sync_shelf(disk: &dyn Disk, shelf: &Path, file: &Path) -> Result<(), StoreError> {
    disk.sync_folder(shelf).map_err(|source| StoreError::file("publishing", file, source))
}

/// The shelf in use, and those used before by this process.
#[derive(Debug, Default)]
struct Turn {
    shelf: Option<Shelf>,
    blobs: u32,
    ours: HashSet<Shelf>,
}

#[derive(Debug)]
pub(super) struct Shelves {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    turn: Mutex<Turn>,
}

impl Shelves {
    pub(super) fn new(root: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { root, disk, turn: Mutex::default() }
    }

    /// Renames a blob that is fsynced onto a shelf, and fsyncs the shelf.
    pub(super) fn publish(&self, staged: StagedBlob) -> Result<BlobRef, StoreError> {
        let (placed, path, shelf) = self.rename(staged)?;
        sync_shelf(self.disk.as_ref(), &shelf, &path)?;
        let blob = placed.blob().clone();
        placed.keep();
        Ok(blob)
    }

    /// Renames a blob onto a shelf; both are still to be fsynced.
    pub(super) fn place(&self, written: WrittenBlob) -> Result<ArrivedBlob, StoreError> {
        let (file, staged, may_block) = written.into_parts();
        let (placed, path, shelf) = self.rename(staged)?;
        let unsynced = Unsynced { disk: Arc::clone(&self.disk), file, path, shelf, may_block };
        Ok(ArrivedBlob { placed, unsynced })
    }

    /// The blob in its place, its path, and that of its shelf.
    fn rename(&self, staged: StagedBlob) -> Result<(PlacedBlob, PathBuf, PathBuf), StoreError> {
        let shelf = self.next_shelf()?;
        let blob = shelf.new_blob();
        let path = self.root.join(blob.as_str());
        self.disk.rename(staged.path(), &path).map_err(|source| StoreError::file("publishing", &path, source))?;
        Ok((PlacedBlob::new(blob, path.clone(), staged), path, self.root.join(shelf.prefix())))
    }

    fn next_shelf(&self) -> Result<Shelf, StoreError> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = &turn.shelf
            && turn.blobs < BLOBS_A_TURN
        {
            let shelf = shelf.clone();
            turn.blobs += 1;
            return Ok(shelf);
        }
        let shelf = Shelf::random();
        self.set_up(&shelf)?;
        turn.ours.insert(shelf.clone());
        turn.shelf = Some(shelf.clone());
        turn.blobs = 1;
        Ok(shelf)
    }

    /// Makes a shelf's folders and mark, and brings them onto the medium before the first blob is put there.
    fn set_up(&self, shelf: &Shelf) -> Result<(), StoreError> {
        let mark = self.mark_of(shelf);
        let marks = self.root.join("shelves");
        let outer = self.root.join(&shelf.0[..2]);
        let inner = self.root.join(shelf.prefix());
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source| StoreError::file("making", &path, source)
        };
        match self.disk.create(&mark) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&mark)(error)),
            _ => {}
        }
        self.disk.make_folder(&outer).map_err(failed(&outer))?;
        self.disk.make_folder(&inner).map_err(failed(&inner))?;
        for folder in [&marks, &outer, &self.root] {
            self.disk.sync_folder(folder).map_err(failed(folder))?;
        }
        Ok(())
    }

    pub(super) fn mark_of(&self, shelf: &Shelf) -> PathBuf {
        self.root.join("shelves").join(&shelf.0)
    }

    /// Shelves that carry a mark and were not used by this process.
    pub(super) fn marked_by_others(&self) -> Result<Vec<Shelf>, StoreError> {
        let folder = self.root.join("shelves");
        let failed = |source| StoreError::file("listing", &folder, source);
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shelves = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(shelf) = name.to_str().and_then(Shelf::parse)
                && !turn.ours.contains(&shelf)
            {
                shelves.push(shelf);
            }
        }
        Ok(shelves)
    }

    pub(super) fn list(&self, shelf: &Shelf) -> Result<Vec<BlobRef>, StoreError> {
        let prefix = shelf.prefix();
        let folder = self.root.join(&prefix);
        let failed = |source| StoreError::file("listing", &folder, source);
        let entries = match fs::read_dir(&folder) {
            // The crash came between the mark and the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(failed)?,
        };
        let mut blobs = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            blobs.extend(name.to_str().and_then(|name| BlobRef::parse(&format!("{prefix}{name}"))));
        }
        Ok(blobs)
    }
}
