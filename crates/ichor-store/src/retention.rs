//! Retention: files that are no longer kept. Rows, verdicts and timelines stay for ever.
//!
//! A file goes in two steps: [`Store::remove_files`] marks its row and dooms the file, in one transaction;
//! [`Store::remove_doomed`] removes doomed files and then forgets them. A process that is killed between, or within, either
//! leaves the rest to the next call.

use std::fmt;
use std::path::PathBuf;

use ichor_core::{Subject, Uid};
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::blobs::BlobRef;
use crate::store::{LockFile, beside};
use crate::{Store, StoreError, Timestamp};

/// Suffix of the lock that a backup holds so that no file goes under its hands.
const FILES_LOCK: &str = "files";

/// Longest reason of a hold, in characters.
const LONGEST_REASON: usize = 200;

/// Which files of a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// What was received: instances, copies that were kept apart, and our own results that came back.
    Received,
    /// Result objects.
    Results,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Received => "received files",
            Self::Results => "results",
        })
    }
}

/// What a finished study came to, by its newest finished version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settled {
    /// Hemorrhage.
    Positive,
    /// None detected.
    Negative,
    /// Not analysed, with a reason.
    NotAnalysed,
}

/// Why a study's files stay, whatever its age and the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Somebody put it on hold.
    OnHold,
    /// It is being received, or waits for its analysis, or is being analysed.
    UnderWay,
    /// Its analysis failed: it has no result yet.
    Failed,
    /// Whether it is forwarded is not decided.
    NotForwarded,
    /// A delivery waits or is under way.
    Undelivered,
    /// A delivery was given up.
    DeliveryDead,
    /// A proof of a delivery is still to come.
    Unproven,
    /// A channel has not been told of it yet, or has not acknowledged.
    Untold,
    /// A message was given up.
    MessageDead,
    /// Somebody asked whether its instances are safe, and has not heard.
    CommitmentPending,
}

impl Protection {
    /// The word for machines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnHold => "on-hold",
            Self::UnderWay => "under-way",
            Self::Failed => "failed",
            Self::NotForwarded => "not-forwarded",
            Self::Undelivered => "undelivered",
            Self::DeliveryDead => "delivery-dead",
            Self::Unproven => "unproven",
            Self::Untold => "untold",
            Self::MessageDead => "message-dead",
            Self::CommitmentPending => "commitment-pending",
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnHold => "it is on hold",
            Self::UnderWay => "it is under way",
            Self::Failed => "its analysis failed",
            Self::NotForwarded => "whether it is forwarded is not decided",
            Self::Undelivered => "something of it is not delivered",
            Self::DeliveryDead => "a delivery of it was given up",
            Self::Unproven => "a delivery of it is not proven",
            Self::Untold => "a channel has not acknowledged it",
            Self::MessageDead => "a message about it was given up",
            Self::CommitmentPending => "a storage commitment is not answered",
        })
    }
}

/// A channel that must have heard, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Follower {
    /// Name of the channel.
    pub channel: String,
    /// What it is told.
    pub subjects: Vec<Subject>,
}

/// A study that has files of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Number of its row: where the next page begins.
    #[serde(skip)]
    pub id: i64,
    /// When its first instance was recorded.
    pub received_at: Timestamp,
    /// When anything last happened to it that its age counts from: its last instance, its outcome, its files' return.
    pub settled_at: Timestamp,
    /// What it came to; `None` while it has no outcome.
    pub settled: Option<Settled>,
    /// Files of the kind asked for.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Why they stay; empty: they may go.
    pub protections: Vec<Protection>,
}

/// What became of an attempt to give up a study's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They are marked as gone, and doomed.
    Removed {
        /// How many.
        files: u64,
        /// Bytes of these.
        bytes: u64,
    },
    /// Something has come up since the candidate was read: they stay.
    Kept(Vec<Protection>),
}

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Studies of which files went.
    pub studies: u64,
    /// Studies whose time had come and which a protection kept.
    pub spared: u64,
    /// Bytes that are wanted and that no study may give.
    pub short_bytes: u64,
}

/// What retention has done, for a monitor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RetentionFigures {
    /// Studies of which files went, counted once a kind of file.
    pub studies: u64,
    /// Files removed from the medium.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// When the last sweep ended.
    pub swept_at: Option<Timestamp>,
    /// Studies that a protection kept in the last sweep.
    pub spared: u64,
    /// Bytes that the last sweep wanted and that no study may give.
    pub short_bytes: u64,
    /// Files that are doomed and still there.
    pub doomed: u64,
}

impl Store {
    /// Studies that have files of a kind and were received until `received_until`, oldest first, each with what protects
    /// it: up to `most` that come after the place `after` ([`Candidate::received_at`] and [`Candidate::id`]).
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn retention_candidates(
        &self,
        kind: FileKind,
        received_until: Timestamp,
        followers: &[Follower],
        after: Option<(Timestamp, i64)>,
        most: u32,
    ) -> Result<Vec<Candidate>, StoreError> {
        self.index().retention_candidates(kind, received_until, followers, after, most).await
    }

    /// Marks a candidate's files as no longer kept and dooms them, unless something protects it by now; `why` stands in its
    /// timeline.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn remove_files(
        &self,
        candidate: &Candidate,
        kind: FileKind,
        why: &str,
        followers: &[Follower],
        now: Timestamp,
    ) -> Result<Removal, StoreError> {
        self.index().remove_files(candidate, kind, why, followers, now).await
    }

    /// Removes up to `most` doomed files; how many went, `None` while a backup is being made. A file is forgotten when the
    /// medium has forgotten it.
    ///
    /// # Errors
    /// [`StoreError::File`] if a file cannot be removed: it stays doomed; else as [`Self::remove_files`].
    pub async fn remove_doomed(&self, most: u32) -> Result<Option<u64>, StoreError> {
        let doomed = self.index().doomed_blobs(most).await?;
        if doomed.is_empty() {
            return Ok(Some(0));
        }
        let (database, blobs) = (self.database().to_owned(), self.blobs().clone());
        let removed = spawn_blocking(move || {
            let lock = LockFile::open(beside(&database, FILES_LOCK))?;
            let Some(_held) = lock.try_lock()? else { return Ok(None) };
            blobs.remove_all(doomed.iter().map(|(blob, _)| blob))?;
            Ok::<_, StoreError>(Some(doomed))
        })
        .await
        .map_err(|error| StoreError::task("removing files", error))??;
        let Some(removed) = removed else { return Ok(None) };
        self.index().forget_doomed(&removed).await?;
        Ok(Some(removed.len() as u64))
    }

    /// Deletes events of no study from before a moment, at most so many; how many went.
    ///
    /// # Errors
    /// As [`Self::remove_files`].
    pub async fn remove_events(&self, before: Timestamp, most: u32) -> Result<u64, StoreError> {
        self.index().remove_events(before, most).await
    }

    /// Notes what a sweep came to.
    ///
    /// # Errors
    /// As [`Self::remove_files`].
    pub async fn record_sweep(&self, sweep: Sweep, now: Timestamp) -> Result<(), StoreError> {
        self.index().record_sweep(sweep, now).await
    }

    /// What retention has done.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn retention_figures(&self) -> Result<RetentionFigures, StoreError> {
        self.index().retention_figures().await
    }

    /// Puts a study on hold: none of its files goes until the hold is released. Whether it was free before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; else as [`Self::remove_files`].
    pub async fn hold(&self, study: &Uid, reason: &str, now: Timestamp) -> Result<bool, StoreError> {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect();
        self.index().hold(study, Some(reason.trim()), now).await
    }

    /// Releases a hold. Whether there was one.
    ///
    /// # Errors
    /// As [`Self::hold`].
    pub async fn release_hold(&self, study: &Uid, now: Timestamp) -> Result<bool, StoreError> {
        self.index().hold(study, None, now).await
    }

    /// Keeps every file that is there until the lock is dropped.
    pub(crate) async fn keep_files(&self) -> Result<LockFile, StoreError> {
        let path: PathBuf = beside(self.database(), FILES_LOCK);
        spawn_blocking(move || LockFile::open(path)?.lock())
            .await
            .map_err(|error| StoreError::task("waiting for files to be removed", error))?
    }
}

/// A file and its size.
pub(crate) type Doomed = (BlobRef, u64);
