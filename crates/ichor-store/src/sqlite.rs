//! The SQLite backend: every statement of the crate is in here, one file for each stage.
//!
//! One connection writes and several read: within the process nobody ever meets a locked database. The log is
//! fsynced at each commit (WAL, synchronous = FULL).

mod access;
mod analyse;
mod assemble;
mod association;
mod audit_feed;
mod backup;
mod change;
mod commitment;
mod deliver;
mod destination;
mod events;
mod failure;
mod figures;
mod forward;
mod held;
mod latency;
mod lookup;
mod maps;
mod message;
mod models;
mod objects;
mod order;
mod proof;
mod proof_request;
mod query;
mod receive;
mod recovery;
mod retention;
mod route;
mod schema;
mod scores;
mod search;
mod shadow;
mod task;
mod timeline;
mod trace;
mod triage;
mod values;
mod worklist;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite as Dialect};
use tokio::task::spawn_blocking;

use crate::access::Witness;
use crate::store::{LockFile, beside};
use crate::{StoreError, StoreOptions};
pub(crate) use backup::{ListedBlob, copy_database, end_sessions, examine_database, is_listed, listed_blobs};
use change::Change;
pub(crate) use destination::Dead;
use failure::During;
pub(crate) use schema::newest_known;

/// Pages of the log from which on a commit writes it back into the database. A page that many commits change is written
/// back once; at SQLite's usual 1,000 the pages of the index, scattered by their UIDs, would come every hundred instances.
const CHECKPOINT_PAGES: u32 = 8_000;
/// A log that grew beyond this is cut after a checkpoint, in bytes.
const LONGEST_LOG: u32 = 64 << 20;

/// The two pools.
#[derive(Clone, Debug)]
pub(crate) struct Sqlite {
    write: SqlitePool,
    read: SqlitePool,
    /// What stands in the audit trail with whatever is changed.
    witness: Option<Arc<Witness>>,
}

impl Sqlite {
    /// Opens the database, making it if absent, and migrates it.
    pub(crate) async fn open(options: &StoreOptions) -> Result<Self, StoreError> {
        let database = &options.database;
        let opening = {
            let database = database.clone();
            spawn_blocking(move || prepare(&database))
                .await
                .map_err(|error| StoreError::task("opening the database", error))??
        };
        schema::check(database).await?;
        let connect = connect_options(database, options.busy_timeout);
        let write = write_pool_options(options.busy_timeout)
            .connect_with(connect.clone())
            .await
            .during("opening the database")?;
        schema::migrate(&write, database).await?;
        drop(opening);
        let read = pool_options(options.max_connections.max(1), options.busy_timeout)
            .connect_with(connect.pragma("query_only", "ON"))
            .await
            .during("opening the database")?;
        Ok(Self { write, read, witness: None })
    }

    /// Closes both pools; the last connection writes the log back.
    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }

    /// A transaction that holds the write lock from its first statement on.
    async fn begin(&self, during: &str) -> Result<Change, StoreError> {
        let transaction = self.write.begin_with("BEGIN IMMEDIATE").await.during(during)?;
        Ok(Change::new(transaction, self.witness.clone()))
    }

    /// The connection that writes, for a single statement of which nobody is to be the witness.
    fn unwitnessed(&self, during: &str) -> Result<&SqlitePool, StoreError> {
        self.check_unwitnessed(during)?;
        Ok(&self.write)
    }

    /// Refuses what would be done without its row in the audit trail.
    pub(crate) fn check_unwitnessed(&self, during: &str) -> Result<(), StoreError> {
        match &self.witness {
            None => Ok(()),
            Some(witness) => Err(StoreError::Unwitnessed { during: during.to_owned(), action: witness.action() }),
        }
    }

    /// The same database, whose changes stand in the audit trail.
    pub(crate) fn witnessed(&self, witness: Witness) -> Self {
        Self { witness: Some(Arc::new(witness)), ..self.clone() }
    }
}

/// Makes the folder and the file, closed to other users, and takes the lock under which one process at a time
/// migrates. The lock goes with the returned value.
fn prepare(database: &Path) -> Result<LockFile, StoreError> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

    let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(folder)
        .map_err(|source| StoreError::file("making", folder, source))?;
    let lock = LockFile::open(beside(database, "open"))?.lock()?;
    let made = std::fs::File::options().create(true).truncate(false).write(true).mode(0o640).open(database);
    made.map_err(|source| StoreError::file("opening", database, source))?;
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| StoreError::file("syncing", folder, source))?;
    Ok(lock)
}

fn connect_options(database: &Path, busy_timeout: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(busy_timeout)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
        .pragma("journal_size_limit", LONGEST_LOG.to_string())
        .pragma("temp_store", "MEMORY")
}

fn pool_options(connections: u32, busy_timeout: Duration) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(busy_timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// The pool of the one connection that writes.
fn write_pool_options(busy_timeout: Duration) -> SqlitePoolOptions {
    pool_options(1, busy_timeout)
        // On a full disk SQLite rolls a transaction back by itself; sqlx then still believes to be in it, and no
        // other can be begun on that connection. The ping waits until a rollback on drop is through.
        .after_release(|connection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

/// The rows changed by a statement that must change exactly one, else the claim it is made for is stale.
fn one_row(changed: u64, what: impl FnOnce() -> String) -> Result<(), StoreError> {
    if changed == 1 { Ok(()) } else { Err(StoreError::StaleClaim { what: what() }) }
}

/// The connection behind a transaction or a pool.
type Connection = SqliteConnection;

#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod tests;
