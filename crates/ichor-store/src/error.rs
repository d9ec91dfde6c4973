//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};

use ichor_core::Uid;
use thiserror::Error;

/// What the operating system or the database said.
pub type StorageFailure = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why an intent was not carried out.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No space is left, the quota is used up, or the database could not be written: nothing was kept.
    #[error("no space left while {during}")]
    DiskFull {
        /// What was being done.
        during: String,
        /// What the system said.
        source: StorageFailure,
    },
    /// The database did not become free in time.
    #[error("the database is busy while {during}")]
    Busy {
        /// What was being done.
        during: String,
        /// What the database said.
        source: StorageFailure,
    },
    /// The database was written by a newer version of the program; it was not touched.
    #[error("{path} has schema {found}, this version knows up to {known}")]
    NewerDatabase {
        /// The database file.
        path: PathBuf,
        /// Newest migration in it.
        found: i64,
        /// Newest migration of this version.
        known: i64,
    },
    /// The file is not a database of ours; it was not touched.
    #[error("{path} is not a database of this program")]
    ForeignDatabase {
        /// The file.
        path: PathBuf,
    },
    /// Another process owns the store.
    #[error("another process works on {path}")]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// There is a database already; it was not touched.
    #[error("{path} is there already: a backup is restored to a place that is empty")]
    Occupied {
        /// The database file.
        path: PathBuf,
    },
    /// The folder of a backup is the store's own, or lies in it.
    #[error("{path} is the store itself: a backup belongs elsewhere, best on another medium")]
    OwnFolder {
        /// The folder.
        path: PathBuf,
    },
    /// There is no such thing in the store.
    #[error("{what} is not in the store")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The file was given up by retention; its row stays.
    #[error("{what} is no longer kept")]
    NoLongerKept {
        /// What was looked for.
        what: String,
    },
    /// A text is no place in a list, or one of another question's list.
    #[error("the page token {why}")]
    PageToken {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A filter that cannot be answered.
    #[error("{what}")]
    Filter {
        /// What is wrong with it.
        what: String,
    },
    /// A key fits several studies.
    #[error("{key} fits {} studies, such as {}", .matches.len(), .matches.first().map_or("", Uid::as_str))]
    Ambiguous {
        /// The key.
        key: String,
        /// Study Instance UIDs that it fits; at most 20.
        matches: Vec<Uid>,
    },
    /// The study has as many instances as one may have.
    #[error("study {study} has {most} instances, the most allowed")]
    StudyFull {
        /// Study Instance UID.
        study: Uid,
        /// How many it may have.
        most: u32,
    },
    /// The claim is no longer the caller's: it was completed, failed or taken back.
    #[error("the claim on {what} is no longer held")]
    StaleClaim {
        /// What had been claimed.
        what: String,
    },
    /// The change cannot be made in one transaction with its row in the audit trail: it was not made.
    #[error("{during} has no witness: {action} was not done")]
    Unwitnessed {
        /// What was being done.
        during: String,
        /// What the row would have said.
        action: &'static str,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A file or folder could not be used.
    #[error("{action} {path}")]
    File {
        /// What was being done, such as `writing`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database could not do it.
    #[error("database failure while {during}")]
    Database {
        /// What was being done.
        during: String,
        /// What the database said.
        source: StorageFailure,
    },
    /// A value in the database cannot be understood.
    #[error("the store holds {what}, which cannot be understood")]
    Corrupt {
        /// The value, and where it stands.
        what: String,
    },
}

impl StoreError {
    /// Maps an error of the file layer; a full disk is told apart.
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { during: format!("{action} {}", path.display()), source: Box::new(source) }
            }
            _ => Self::File { action, path: path.to_owned(), source },
        }
    }

    /// A blocking task that did not come back.
    pub(crate) fn task(during: &str, source: tokio::task::JoinError) -> Self {
        Self::Database { during: during.to_owned(), source: Box::new(source) }
    }

    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        let path = Path::new("incoming/1");
        for code in [nix::libc::ENOSPC, nix::libc::EDQUOT] {
            let error = StoreError::file("writing", path, io::Error::from_raw_os_error(code));
            assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        }
        let error = StoreError::file("writing", path, io::Error::from_raw_os_error(nix::libc::EIO));
        assert_eq!(error.to_string(), "writing incoming/1");
    }
}
