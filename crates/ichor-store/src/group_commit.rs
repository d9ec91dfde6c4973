//! Group commit: instances that wait at the same time are committed together, so that one fsync of the log serves all of
//! them. Each waits for its own answer, and gets it after the commit.

use std::collections::HashSet;
use std::thread::JoinHandle;

use ichor_core::Uid;
use tokio::sync::{mpsc, oneshot};

use crate::blobs::{ArrivedBlob, BlobStore, PlacedBlob, Unsynced};
use crate::changes::Topics;
use crate::receive::{NewInstance, Recorded};
use crate::sqlite::Sqlite;
use crate::{StoreError, Timestamp, Topic};

/// Most instances in one transaction.
const BATCH: usize = 64;

/// Most instances that wait in the queue; a sender beyond that waits for room.
pub(crate) const QUEUE: usize = 256;

/// What of a [`NewInstance`] is left once its bytes are taken out.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) instance: Description,
    /// Taken when they turn out not to be needed.
    pub(crate) bytes: Option<PlacedBlob>,
    /// Why it is refused: the entry's answer, whatever becomes of its neighbours.
    pub(crate) failure: Option<StoreError>,
    pub(crate) now: Timestamp,
    /// Whether the bytes are on the medium; taken when that is known.
    made_safe: Option<oneshot::Receiver<Result<(), StoreError>>>,
    answer: oneshot::Sender<Result<Recorded, StoreError>>,
}

/// An instance without its bytes.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) sop_instance: Uid,
    pub(crate) sop_class: Uid,
    pub(crate) study: crate::StudyAttributes,
    pub(crate) series: crate::SeriesAttributes,
    pub(crate) transfer_syntax: Uid,
    pub(crate) association: Option<i64>,
    pub(crate) source_ae: Option<ichor_core::AeTitle>,
    pub(crate) quiet_period_ms: i64,
    pub(crate) own: bool,
    pub(crate) max_study_instances: u32,
    pub(crate) size: u64,
    pub(crate) digest: [u8; 32],
}

impl Entry {
    pub(crate) fn new(
        instance: NewInstance,
        now: Timestamp,
        answer: oneshot::Sender<Result<Recorded, StoreError>>,
        made_safe: oneshot::Receiver<Result<(), StoreError>>,
    ) -> (Self, Unsynced) {
        let NewInstance {
            sop_instance,
            sop_class,
            study,
            series,
            transfer_syntax,
            association,
            source_ae,
            arrived: ArrivedBlob { placed, unsynced },
            quiet_period_ms,
            own,
            max_study_instances,
        } = instance;
        let instance = Description {
            sop_instance,
            sop_class,
            study,
            series,
            transfer_syntax,
            association: association.map(|id| id.0),
            source_ae,
            quiet_period_ms,
            own,
            max_study_instances,
            size: placed.size(),
            digest: placed.digest(),
        };
        let made_safe = Some(made_safe);
        (Self { instance, bytes: Some(placed), failure: None, now, made_safe, answer }, unsynced)
    }

    /// Waits until the bytes are on the medium; whether they are. If not, the entry has its failure.
    pub(crate) async fn is_safe(&mut self) -> bool {
        let Some(made_safe) = self.made_safe.take() else { return true };
        match made_safe.await.unwrap_or(Err(StoreError::Closed)) {
            Ok(()) => true,
            Err(error) => {
                self.failure.get_or_insert(error);
                false
            }
        }
    }
}

/// Starts the thread that commits what arrives in `queue` until all senders are gone. A thread of its own, whose files
/// may block it, is woken by the sender itself: on the way of every instance, waking costs more than the work.
pub(crate) fn start(
    index: Sqlite,
    blobs: BlobStore,
    topics: Topics,
    queue: mpsc::Receiver<Entry>,
) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let commit = move || runtime.block_on(run(index, blobs, topics, queue));
    std::thread::Builder::new().name("ichor-record".to_owned()).spawn(commit)
}

async fn run(index: Sqlite, blobs: BlobStore, topics: Topics, mut queue: mpsc::Receiver<Entry>) {
    let mut waiting = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut waiting, BATCH).await > 0 {
        // Two entries of one UID must see each other's row, not race within a transaction.
        while !waiting.is_empty() {
            let mut seen = HashSet::with_capacity(waiting.len());
            let (batch, later): (Vec<Entry>, Vec<Entry>) =
                waiting.drain(..).partition(|entry| seen.insert(entry.instance.sop_instance.clone()));
            waiting = later;
            commit(&index, &blobs, &topics, batch).await;
        }
    }
}

/// Commits a batch; if it fails as a whole, each entry alone, so that no entry suffers for its neighbour.
async fn commit(index: &Sqlite, blobs: &BlobStore, topics: &Topics, mut batch: Vec<Entry>) {
    let alone = batch.len() == 1;
    let error = match index.record_instances(blobs, &mut batch).await {
        Ok(outcomes) => {
            if outcomes.iter().any(|outcome| matches!(outcome, Some(Recorded::New { .. }))) {
                topics.notify(Topic::Received);
            }
            for (mut entry, outcome) in batch.into_iter().zip(outcomes) {
                if let (Some(_), Some(bytes)) = (&outcome, entry.bytes.take()) {
                    bytes.keep();
                }
                let answer = entry.failure.map_or_else(|| outcome.ok_or(StoreError::Closed), Err);
                // Who no longer waits has its instance recorded all the same.
                let _ = entry.answer.send(answer);
            }
            return;
        }
        Err(error) => error,
    };
    if !alone {
        tracing::warn!(%error, instances = batch.len(), "group commit failed; committing one by one");
    }
    let mut error = Some(error);
    for entry in batch {
        if let Some(failure) = entry.failure {
            let _ = entry.answer.send(Err(failure));
        } else if alone {
            discard(index, entry.bytes).await;
            let _ = entry.answer.send(Err(error.take().unwrap_or(StoreError::Closed)));
        } else {
            Box::pin(commit(index, blobs, topics, vec![entry])).await;
        }
    }
}

/// Removes the bytes of an entry that failed. A failed commit may still have reached the medium, so the row is looked
/// for first; where that cannot be seen, recovery removes them.
async fn discard(index: &Sqlite, bytes: Option<PlacedBlob>) {
    if let Some(bytes) = bytes
        && !matches!(index.is_blob_known(bytes.blob()).await, Ok(false))
    {
        bytes.keep();
    }
}
