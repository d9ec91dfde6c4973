//! Errors of sqlx, told apart as the rest of the crate needs it.

use sqlx::Error;

use crate::StoreError;

// Result codes, https://www.sqlite.org/rescode.html: the primary code is the low byte.
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const IOERR: i32 = 10;
const FULL: i32 = 13;
const NOTADB: i32 = 26;
/// Extended I/O errors that come of writing: write, fsync, directory fsync, truncate, and making the shared memory
/// file larger, each with the number above the primary code.
const WRITING: [i32; 6] = [3, 4, 5, 6, 18, 19];

/// Says what was being done when a statement failed.
pub(super) trait During<T> {
    /// Maps the error.
    fn during(self, what: &str) -> Result<T, StoreError>;
}

impl<T> During<T> for Result<T, Error> {
    fn during(self, what: &str) -> Result<T, StoreError> {
        self.map_err(|error| classify(error, what))
    }
}

/// The extended result code of an error that SQLite gave.
fn code(error: &Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// Whether the file is no database at all.
pub(super) fn is_not_a_database(error: &Error) -> bool {
    code(error).is_some_and(|code| code & 0xff == NOTADB)
}

fn classify(error: Error, what: &str) -> StoreError {
    let during = what.to_owned();
    let code = code(&error);
    let (primary, extended) = (code.map(|code| code & 0xff), code.map(|code| code >> 8));
    match (&error, primary) {
        (Error::PoolClosed, _) => StoreError::Closed,
        (Error::PoolTimedOut, _) | (_, Some(BUSY | LOCKED)) => StoreError::Busy { during, source: Box::new(error) },
        (_, Some(FULL)) => StoreError::DiskFull { during, source: Box::new(error) },
        (_, Some(IOERR)) if extended.is_some_and(|code| WRITING.contains(&code)) => {
            StoreError::DiskFull { during, source: Box::new(error) }
        }
        (Error::ColumnDecode { index, .. }, _) => {
            StoreError::corrupt(format!("a value of column {index} (found while {what})"))
        }
        _ => StoreError::Database { during, source: Box::new(error) },
    }
}
