//! Blobs: files of the server's naming in a local folder.
//!
//! A blob is written to `incoming/`, renamed onto a *shelf* (`ab/cd/`), and file and shelf are fsynced before a row may
//! point to it. A shelf takes several hundred blobs in a row before a new one is drawn by chance: where metadata is
//! journalled, the fsync of the file has brought its name onto the medium too, and that of the shelf is short. Each shelf leaves a mark in `shelves/`, which tells recovery where blobs
//! without a row can lie; it need not walk the rest.

mod content;
mod disk;
mod incoming;
mod shelves;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::spawn_blocking;

use crate::StoreError;
pub use content::HeaderLength;
pub(crate) use content::{Content, Halt};
pub(crate) use disk::{Disk, RealDisk};
pub(crate) use incoming::PlacedBlob;
pub use incoming::{IncomingBlob, LastBlock, StagedBlob, WrittenBlob};
pub use shelves::ArrivedBlob;
use shelves::Shelves;
pub(crate) use shelves::{Shelf, Unsynced};

#[cfg(test)]
pub(crate) use disk::FaultyDisk;

/// Where a blob lies, relative to the folder: `ab/cd/` and 32 hexadecimal digits that begin with `abcd`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobRef(String);

impl BlobRef {
    /// Reads a reference back; `None` if it is not one, so that nothing in the database can point outside the folder.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = |s: &str| s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = text.split('/');
        let (first, second, name) = (parts.next()?, parts.next()?, parts.next()?);
        let valid = parts.next().is_none()
            && [first.len(), second.len(), name.len()] == [2, 2, 32]
            && [first, second, name].into_iter().all(hex)
            && name.starts_with(first)
            && name[2..].starts_with(second);
        valid.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folder with the blobs. Clones share it.
#[derive(Clone, Debug)]
pub struct BlobStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    /// Prefix of this process's files in `incoming/`.
    session: String,
    begun: AtomicU64,
    shelves: Shelves,
}

impl BlobStore {
    /// Opens the folder, making it and its parts if absent, closed to other users.
    pub(crate) fn open(root: &Path, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::file("making", &path, source)
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(root).map_err(failed(root))?;
        for folder in [root.join("incoming"), root.join("shelves")] {
            disk.make_folder(&folder).map_err(failed(&folder))?;
        }
        // What lies in a folder is as safe as the folder's own name.
        for folder in root.parent().filter(|outer| !outer.as_os_str().is_empty()).into_iter().chain([root]) {
            disk.sync_folder(folder).map_err(failed(folder))?;
        }
        let session = format!("{:016x}", rand::random::<u64>());
        let shelves = Shelves::new(root.to_owned(), Arc::clone(&disk));
        let shared = Shared { root: root.to_owned(), disk, session, begun: AtomicU64::new(0), shelves };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Begins a blob. Nothing is created before the first block is full.
    ///
    /// # Errors
    /// None at present; the file layer may learn to fail here.
    pub async fn begin(&self) -> Result<IncomingBlob, StoreError> {
        self.begin_with_header(&[]).await
    }

    /// Begins a blob with bytes that belong to the file but not to the digest, such as the File Meta Information
    /// that the receiver puts before a data set: the digest is that of what follows.
    ///
    /// # Errors
    /// As [`Self::begin`].
    #[expect(clippy::unused_async, reason = "a backend that is not a local folder has to wait here")]
    pub async fn begin_with_header(&self, header: &[u8]) -> Result<IncomingBlob, StoreError> {
        Ok(self.incoming(header, false))
    }

    /// [`Self::begin_with_header`] on a thread that may be blocked: it writes the blocks itself.
    ///
    /// # Errors
    /// As [`Self::begin`].
    #[expect(clippy::unused_async, reason = "a backend that is not a local folder has to wait here")]
    pub async fn begin_on_this_thread(&self, header: &[u8]) -> Result<IncomingBlob, StoreError> {
        Ok(self.incoming(header, true))
    }

    fn incoming(&self, header: &[u8], may_block: bool) -> IncomingBlob {
        let number = self.shared.begun.fetch_add(1, Ordering::Relaxed);
        let path = self.shared.root.join("incoming").join(format!("{}-{number}", self.shared.session));
        IncomingBlob::new(path, Arc::clone(&self.shared.disk), header, may_block)
    }

    /// Renames a staged blob into place and fsyncs the folder: from here on it survives a power cut.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::File`]; the blob is gone then.
    pub async fn publish(&self, staged: StagedBlob) -> Result<BlobRef, StoreError> {
        let shared = Arc::clone(&self.shared);
        spawn_blocking(move || shared.shelves.publish(staged))
            .await
            .map_err(|error| StoreError::task("publishing a blob", error))?
    }

    /// Renames a blob into place; recording it brings it onto the medium. Blocks the thread.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::File`]; the blob is gone then.
    pub fn place(&self, written: WrittenBlob) -> Result<ArrivedBlob, StoreError> {
        self.shared.shelves.place(written)
    }

    /// Writes what is left of a blob, and [`Self::place`].
    ///
    /// # Errors
    /// As [`IncomingBlob::write`] and [`Self::place`]; the file is removed then.
    pub async fn finish_in_place(&self, blob: IncomingBlob) -> Result<ArrivedBlob, StoreError> {
        let (last, shared) = (blob.last_block().await?, Arc::clone(&self.shared));
        spawn_blocking(move || shared.shelves.place(last.write()?))
            .await
            .map_err(|error| StoreError::task("placing a blob", error))?
    }

    /// The folder.
    pub(crate) fn root(&self) -> &Path {
        &self.shared.root
    }

    /// The file of a blob.
    #[must_use]
    pub fn path_of(&self, blob: &BlobRef) -> PathBuf {
        self.shared.root.join(&blob.0)
    }

    /// Free space for unprivileged users on the file system of the folder, in bytes.
    ///
    /// # Errors
    /// [`StoreError::File`] if the system does not say.
    pub fn free_bytes(&self) -> Result<u64, StoreError> {
        free_bytes(&self.shared.root)
    }

    /// Whether the file of a blob is there with the size that the index knows.
    pub(crate) async fn is_intact(&self, blob: &BlobRef, size: u64) -> bool {
        tokio::fs::metadata(self.path_of(blob)).await.is_ok_and(|file| file.is_file() && file.len() == size)
    }

    /// Removes a published blob that got no row. A failure leaves it to the next recovery.
    pub(crate) async fn remove(&self, blob: &BlobRef) {
        let path = self.path_of(blob);
        if let Err(error) = tokio::fs::remove_file(&path).await {
            tracing::warn!(path = %path.display(), %error, "a blob without a row stays until the next start");
        }
    }

    /// Removes blobs, those that are gone already included, and waits until the medium has forgotten them. Blocks the thread.
    pub(crate) fn remove_all<'a>(&self, blobs: impl Iterator<Item = &'a BlobRef>) -> Result<(), StoreError> {
        let mut shelves = BTreeSet::new();
        for blob in blobs {
            let path = self.path_of(blob);
            match self.shared.disk.remove(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::file("removing", &path, source));
                }
                _ => {}
            }
            shelves.extend(path.parent().map(Path::to_owned));
        }
        for shelf in shelves {
            match self.shared.disk.sync_folder(&shelf) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::file("syncing", &shelf, source));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what earlier processes left in `incoming/`; how many files that were.
    pub(crate) async fn clear_incoming(&self) -> Result<u64, StoreError> {
        let shared = Arc::clone(&self.shared);
        spawn_blocking(move || shared.clear_incoming())
            .await
            .map_err(|error| StoreError::task("clearing the incoming folder", error))?
    }

    /// Shelves that earlier processes marked.
    pub(crate) async fn unswept_shelves(&self) -> Result<Vec<Shelf>, StoreError> {
        let shared = Arc::clone(&self.shared);
        spawn_blocking(move || shared.shelves.marked_by_others())
            .await
            .map_err(|error| StoreError::task("listing shelves", error))?
    }

    /// The blobs on a shelf.
    pub(crate) async fn blobs_on(&self, shelf: &Shelf) -> Result<Vec<BlobRef>, StoreError> {
        let (shared, shelf) = (Arc::clone(&self.shared), shelf.clone());
        spawn_blocking(move || shared.shelves.list(&shelf))
            .await
            .map_err(|error| StoreError::task("listing a shelf", error))?
    }

    /// Takes the mark off a shelf that has been swept.
    pub(crate) async fn unmark(&self, shelf: &Shelf) -> Result<(), StoreError> {
        let path = self.shared.shelves.mark_of(shelf);
        tokio::fs::remove_file(&path).await.map_err(|source| StoreError::file("removing", &path, source))
    }
}

/// Free space for unprivileged users on the file system of a folder, in bytes.
///
/// # Errors
/// [`StoreError::File`] if the system does not say.
pub fn free_bytes(folder: &Path) -> Result<u64, StoreError> {
    let stat = nix::sys::statvfs::statvfs(folder)
        .map_err(|errno| StoreError::file("asking for free space in", folder, errno.into()))?;
    #[expect(clippy::useless_conversion, reason = "the width differs between platforms")]
    Ok(u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size())))
}

impl Shared {
    fn clear_incoming(&self) -> Result<u64, StoreError> {
        let folder = self.root.join("incoming");
        let failed = |source| StoreError::file("listing", &folder, source);
        let mut removed = 0;
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(&self.session) {
                continue;
            }
            let path = entry.path();
            std::fs::remove_file(&path).map_err(|source| StoreError::file("removing", &path, source))?;
            removed += 1;
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests;
