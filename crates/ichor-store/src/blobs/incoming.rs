//! A blob on its way in: bytes are hashed as they come and gathered in blocks. Blocks are written by the thread that brings
//! them, or, where that must not block, on the blocking pool, while the next one is filled.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blake3::Hasher;
use tokio::task::{JoinHandle, spawn_blocking};

use super::{BlobRef, Disk};
use crate::StoreError;

/// Bytes gathered before they go to the disk.
const BLOCK: usize = 128 << 10;

/// A file that is removed when dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct TemporaryFile {
    path: Option<PathBuf>,
}

impl TemporaryFile {
    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "a temporary file stays until the next start");
        }
    }
}

/// The half that travels to the blocking pool and back.
#[derive(Debug)]
struct Writer {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Option<(File, TemporaryFile)>,
    size: u64,
}

impl Writer {
    fn write(&mut self, block: &[u8]) -> Result<(), StoreError> {
        let (file, _) = match &mut self.file {
            Some(open) => open,
            closed @ None => {
                let file = self.disk.create(&self.path).map_err(|e| StoreError::file("making", &self.path, e))?;
                closed.insert((file, TemporaryFile { path: Some(self.path.clone()) }))
            }
        };
        self.disk.write(file, block).map_err(|e| StoreError::file("writing", &self.path, e))?;
        // The disk begins while the next block comes, so that the fsync finds little to do.
        self.disk.write_out(file, self.size, block.len() as u64);
        self.size += block.len() as u64;
        Ok(())
    }

    fn finish(mut self, block: &[u8], digest: [u8; 32], may_block: bool) -> Result<WrittenBlob, StoreError> {
        self.write(block)?;
        let Some((file, temporary)) = self.file.take() else { return Err(StoreError::Closed) };
        let Self { disk, path, size, .. } = self;
        Ok(WrittenBlob { disk, file, staged: StagedBlob { path, temporary, size, digest }, may_block })
    }
}

/// What comes back from the blocking pool.
type Written = (Box<Writer>, Vec<u8>, Result<(), StoreError>);

#[derive(Debug)]
enum State {
    Idle(Box<Writer>),
    Writing(JoinHandle<Written>),
    Failed,
}

/// A blob that is being written. Dropped before [`Self::finish`] it leaves nothing behind.
#[derive(Debug)]
pub struct IncomingBlob {
    path: PathBuf,
    hash: Hasher,
    buffer: Vec<u8>,
    /// The other buffer, while no block is under way.
    spare: Vec<u8>,
    state: State,
    may_block: bool,
}

impl IncomingBlob {
    pub(super) fn new(path: PathBuf, disk: Arc<dyn Disk>, header: &[u8], may_block: bool) -> Self {
        let state = State::Idle(Box::new(Writer { disk, path: path.clone(), file: None, size: 0 }));
        Self { path, hash: Hasher::new(), buffer: header.to_vec(), spare: Vec::new(), state, may_block }
    }

    /// The file that is being written; it is there once a block is full or [`Self::finish`] is done.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes. They are on the disk after [`Self::finish`] only.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::File`], perhaps for bytes of an earlier call; the blob is of no use
    /// then.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hash.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < BLOCK {
            return Ok(());
        }
        let mut writer = self.settle().await?;
        if self.may_block {
            writer.write(&self.buffer)?;
            self.buffer.clear();
            self.state = State::Idle(writer);
            return Ok(());
        }
        let mut block = std::mem::replace(&mut self.buffer, std::mem::take(&mut self.spare));
        self.state = State::Writing(spawn_blocking(move || {
            let written = writer.write(&block);
            block.clear();
            (writer, block, written)
        }));
        Ok(())
    }

    /// Writes what is left and fsyncs the file.
    ///
    /// # Errors
    /// As [`Self::write`]; the file is removed then.
    pub async fn finish(self) -> Result<StagedBlob, StoreError> {
        let last = self.last_block().await?;
        spawn_blocking(move || last.write()?.sync()).await.map_err(|error| StoreError::task("writing a blob", error))?
    }

    /// Waits for the block under way; what is left can be written by a thread that may block.
    ///
    /// # Errors
    /// As [`Self::write`]; the file is removed then.
    pub async fn last_block(mut self) -> Result<LastBlock, StoreError> {
        let writer = self.settle().await?;
        let Self { buffer, hash, may_block, .. } = self;
        Ok(LastBlock { writer, block: buffer, digest: hash.finalize().into(), may_block })
    }

    /// Waits for the block under way and takes the writer. Until the caller puts a state back, the blob counts as
    /// failed.
    async fn settle(&mut self) -> Result<Box<Writer>, StoreError> {
        if let State::Writing(task) = &mut self.state {
            // Should the caller give up while waiting, the task is still here for the next call.
            let outcome = task.await;
            self.state = State::Failed;
            let (writer, spare, written) = outcome.map_err(|error| StoreError::task("writing a blob", error))?;
            written?;
            self.spare = spare;
            self.state = State::Idle(writer);
        }
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle(writer) => Ok(writer),
            State::Writing(_) | State::Failed => Err(StoreError::File {
                action: "writing after a failure to",
                path: self.path.clone(),
                source: std::io::Error::other("an earlier block could not be written"),
            }),
        }
    }
}

/// A blob of which the last block is still to be written. Dropped, its file is removed.
#[derive(Debug)]
pub struct LastBlock {
    writer: Box<Writer>,
    block: Vec<u8>,
    digest: [u8; 32],
    may_block: bool,
}

impl LastBlock {
    /// Writes the block: the file can be read to its end, and is still to be fsynced. Blocks the thread.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::File`]; the file is removed then.
    pub fn write(self) -> Result<WrittenBlob, StoreError> {
        self.writer.finish(&self.block, self.digest, self.may_block)
    }
}

/// A blob that is complete, but may not survive a power cut. Dropped, its file is removed.
#[derive(Debug)]
pub struct WrittenBlob {
    disk: Arc<dyn Disk>,
    file: File,
    staged: StagedBlob,
    may_block: bool,
}

impl WrittenBlob {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.staged.path()
    }

    /// Fsyncs the file. Blocks the thread.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] or [`StoreError::File`]; the file is removed then.
    pub fn sync(self) -> Result<StagedBlob, StoreError> {
        let Self { disk, file, staged, .. } = self;
        match disk.sync(&file) {
            Ok(()) => Ok(staged),
            Err(error) => Err(StoreError::file("syncing", staged.path(), error)),
        }
    }

    /// The file, still open, what is known of it, and whether the thread that brought it may be blocked.
    pub(super) fn into_parts(self) -> (File, StagedBlob, bool) {
        (self.file, self.staged, self.may_block)
    }
}

/// A blob that is complete and fsynced, but not yet in its place. Dropped, its file is removed.
#[derive(Debug)]
pub struct StagedBlob {
    path: PathBuf,
    temporary: TemporaryFile,
    size: u64,
    digest: [u8; 32],
}

impl StagedBlob {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file in bytes, header included.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// BLAKE3 digest of the content, header excluded.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The file has been renamed; there is nothing to remove any more.
    pub(super) fn moved(self) {
        self.temporary.keep();
    }
}

/// A blob in its place that no row points to yet. Dropped, its file is removed.
#[derive(Debug)]
pub(crate) struct PlacedBlob {
    blob: BlobRef,
    file: TemporaryFile,
    size: u64,
    digest: [u8; 32],
}

impl PlacedBlob {
    /// `path` is where `staged` has just been renamed to.
    pub(super) fn new(blob: BlobRef, path: PathBuf, staged: StagedBlob) -> Self {
        let (size, digest) = (staged.size, staged.digest);
        staged.moved();
        Self { blob, file: TemporaryFile { path: Some(path) }, size, digest }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    pub(crate) fn blob(&self) -> &BlobRef {
        &self.blob
    }

    /// A row points to it, or may.
    pub(crate) fn keep(self) {
        self.file.keep();
    }
}
