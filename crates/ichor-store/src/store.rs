//! The store as a whole: opening, closing, ownership.

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::StoreError;
use crate::blobs::{BlobStore, Disk, RealDisk};
use crate::changes::{Changes, Topic, Topics};
use crate::group_commit::{self, Entry};
use crate::sqlite::Sqlite;

/// Where the store lies, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The SQLite database; made if absent.
    pub database: PathBuf,
    /// The folder with the blobs; made if absent.
    pub blobs: PathBuf,
    /// Connections for reading; there is one more for writing.
    pub max_connections: u32,
    /// Longest wait for another process that writes, and for a connection of this process.
    pub busy_timeout: Duration,
}

impl StoreOptions {
    /// Options with defaults: four connections for reading, a wait of at most 30 s.
    #[must_use]
    pub fn new(database: &Path, blobs: &Path) -> Self {
        Self {
            database: database.to_owned(),
            blobs: blobs.to_owned(),
            max_connections: 4,
            busy_timeout: Duration::from_secs(30),
        }
    }
}

/// Job log, index, blobs and outbox. Clones share everything.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
    index: Sqlite,
}

#[derive(Debug)]
struct Inner {
    database: PathBuf,
    blobs: BlobStore,
    topics: Topics,
    /// Taken by [`Store::close`].
    queue: Mutex<Option<mpsc::Sender<Entry>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    /// Held while this process owns the store.
    ownership: Mutex<Option<LockFile>>,
}

impl Store {
    /// Opens the store: makes what is absent and brings the database to the present schema.
    ///
    /// Any number of processes may have the store open, to ask and to retry; one of them may own it (see
    /// [`Store::recover`]).
    ///
    /// # Errors
    /// [`StoreError::NewerDatabase`] and [`StoreError::ForeignDatabase`] with the file untouched;
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::File`], [`StoreError::Database`].
    pub async fn open(options: &StoreOptions) -> Result<Self, StoreError> {
        Self::open_on(options, Arc::new(RealDisk)).await
    }

    /// [`Self::open`] with a file layer of the caller's.
    pub(crate) async fn open_on(options: &StoreOptions, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let index = Sqlite::open(options).await?;
        let folder = options.blobs.clone();
        let blobs = spawn_blocking(move || BlobStore::open(&folder, disk))
            .await
            .map_err(|error| StoreError::task("opening the blobs", error))??;
        let topics = Topics::new();
        let (queue, queued) = mpsc::channel(group_commit::QUEUE);
        let committer = group_commit::start(index.clone(), blobs.clone(), topics.clone(), queued)
            .map_err(|source| StoreError::Database { during: "starting to record".into(), source: source.into() })?;
        let inner = Inner {
            database: options.database.clone(),
            blobs,
            topics,
            queue: Mutex::new(Some(queue)),
            committer: Mutex::new(Some(committer)),
            ownership: Mutex::new(None),
        };
        Ok(Self { inner: Arc::new(inner), index })
    }

    /// Waits for what is being recorded, writes the log back into the database and closes it. Intents on this store
    /// and its clones fail from then on. A store that is dropped, or killed, instead loses nothing.
    pub async fn close(&self) {
        drop(lock(&self.inner.queue).take());
        let committer = lock(&self.inner.committer).take();
        if let Some(committer) = committer
            && !matches!(spawn_blocking(move || committer.join()).await, Ok(Ok(())))
        {
            tracing::error!("the recording thread ended with a failure");
        }
        self.index.close().await;
        drop(lock(&self.inner.ownership).take());
    }

    /// The blobs.
    #[must_use]
    pub fn blobs(&self) -> &BlobStore {
        &self.inner.blobs
    }

    /// Wake-ups about a topic, from now on.
    #[must_use]
    pub fn changes(&self, topic: Topic) -> Changes {
        self.inner.topics.subscribe(topic)
    }

    pub(crate) fn database(&self) -> &Path {
        &self.inner.database
    }

    pub(crate) fn index(&self) -> &Sqlite {
        &self.index
    }

    pub(crate) fn with_index(&self, index: Sqlite) -> Self {
        Self { inner: Arc::clone(&self.inner), index }
    }

    pub(crate) fn topics(&self) -> &Topics {
        &self.inner.topics
    }

    pub(crate) fn record_queue(&self) -> Result<mpsc::Sender<Entry>, StoreError> {
        // What is recorded in groups goes another way than a witnessed change.
        self.index.check_unwitnessed("recording an instance")?;
        lock(&self.inner.queue).clone().ok_or(StoreError::Closed)
    }

    /// Takes the lock that tells processes apart; it goes with the process, however that ends.
    pub(crate) async fn own(&self) -> Result<(), StoreError> {
        if lock(&self.inner.ownership).is_some() {
            return Ok(());
        }
        let database = self.inner.database.clone();
        let owned = spawn_blocking(move || {
            let lock = LockFile::open(beside(&database, "owner"))?;
            lock.try_lock()?.ok_or(StoreError::InUse { path: database })
        })
        .await
        .map_err(|error| StoreError::task("locking the store", error))??;
        *lock(&self.inner.ownership) = Some(owned);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file beside the database: its name and a suffix.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-");
    name.push(suffix);
    PathBuf::from(name)
}

/// A file that only serves as a lock between processes.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Opens the file, making it if absent. It is not locked yet.
    pub(crate) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let file = File::options().create(true).truncate(false).write(true).mode(0o640).open(&path);
        match file {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(StoreError::file("opening", &path, source)),
        }
    }

    /// Waits for the lock.
    pub(crate) fn lock(self) -> Result<Self, StoreError> {
        self.file.lock().map_err(|source| StoreError::file("locking", &self.path, source))?;
        Ok(self)
    }

    /// Takes the lock; `None` if another process has it.
    pub(crate) fn try_lock(self) -> Result<Option<Self>, StoreError> {
        match self.file.try_lock() {
            Ok(()) => Ok(Some(self)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StoreError::file("locking", &self.path, source)),
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing does not do: a child process that is just being started has a copy of the file.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "a lock stays until the process ends");
        }
    }
}
