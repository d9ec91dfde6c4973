//! A copy of the whole store while it is in use, and the way back.
//!
//! A blob never changes, so that a second backup into the same folder copies only what has come since. The database is
//! copied at one moment, in one piece, and takes its place in the folder after its blobs: at any moment the folder holds
//! a whole backup, the last one or the new one.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use crate::sqlite::{copy_database, end_sessions, examine_database, listed_blobs};
use crate::store::{LockFile, beside};
use crate::{BlobRef, Store, StoreError, StoreOptions, Timestamp};

/// The database in a backup.
const DATABASE: &str = "ichor.db";
/// The folder of blobs in a backup.
const BLOBS: &str = "blobs";
/// Rights of copied files, as the store has them: there are patients in them.
const FILE_MODE: u32 = 0o640;
/// Blobs that are looked for at once.
const BATCH: usize = 512;

/// What a backup or a restoration came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blobs that the database points to.
    pub blobs: u64,
    /// Those of them that were copied; the others were there already.
    pub copied: u64,
    /// Bytes of the copied ones.
    pub bytes: u64,
    /// Blobs that could not be copied, each with the reason: the copy lacks them.
    pub missing: Vec<(BlobRef, String)>,
    /// Restored: sessions of before, which were ended; invitations of before are withdrawn.
    pub ended_sessions: u64,
    /// Restored: tokens that are valid again.
    pub valid_tokens: u64,
    /// Restored: tokens that were revoked by the way.
    pub revoked_tokens: u64,
}

/// What is known of a database without opening it for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Its newest migration; `None` if there is no database yet, or an empty one.
    pub schema: Option<i64>,
    /// The newest migration that this program knows.
    pub newest: i64,
}

impl Store {
    /// Copies database and blobs into a folder, which is made if absent. The store may be in use meanwhile, by this
    /// process or another: what comes later belongs to the next backup.
    ///
    /// # Errors
    /// [`StoreError::OwnFolder`] if the folder is the store's; [`StoreError::DiskFull`], [`StoreError::File`],
    /// [`StoreError::Busy`], [`StoreError::Database`]; the folder then holds the last whole backup, if there was one. A blob that cannot be read is no error: it is named in the answer.
    pub async fn back_up(&self, to: &Path) -> Result<Copied, StoreError> {
        make_folder(to)?;
        self.check_elsewhere(to)?;
        let partial = to.join(format!("{DATABASE}.partial"));
        remove(&partial)?;
        // SQLite writes into a file that is there and empty, whose mode is ours to choose.
        drop(create_closed(&partial)?);
        let kept = self.keep_files().await?;
        copy_database(self.database(), &partial).await?;
        sync(&partial)?;
        let blobs = self.blobs().clone();
        let copied = copy_blobs(&partial, move |blob| blobs.path_of(blob), &to.join(BLOBS)).await?;
        drop(kept);
        rename(&partial, &to.join(DATABASE))?;
        sync(to)?;
        Ok(copied)
    }

    /// Refuses a folder in which the store would be overwritten, or would grow by its own copies.
    fn check_elsewhere(&self, to: &Path) -> Result<(), StoreError> {
        let real = |path: &Path| fs::canonicalize(path).map_err(|source| StoreError::file("looking for", path, source));
        let (place, database, blobs) = (real(to)?, real(self.database())?, real(self.blobs().root())?);
        let is_own = database.parent() == Some(&place) || place.starts_with(&blobs) || blobs == place.join(BLOBS);
        if is_own { Err(StoreError::OwnFolder { path: to.to_owned() }) } else { Ok(()) }
    }
}

/// Brings a backup to the places of a store that does not exist yet. Sessions of before are ended; tokens are valid as they were
/// when the backup was made, or, with a moment in `revoke_tokens`, revoked at it.
///
/// # Errors
/// [`StoreError::Occupied`] if there is a database already, or a log that another one left: they are not touched. [`StoreError::NotFound`] if the folder
/// holds no backup; [`StoreError::ForeignDatabase`], [`StoreError::NewerDatabase`] and [`StoreError::Corrupt`] if its
/// database cannot be used; else as [`Store::back_up`]. The database takes its place last.
pub async fn restore(
    from: &Path,
    options: &StoreOptions,
    revoke_tokens: Option<Timestamp>,
) -> Result<Copied, StoreError> {
    let (backup, database) = (from.join(DATABASE), &options.database);
    if !backup.is_file() {
        return Err(StoreError::NotFound { what: format!("{} (a backup's database)", backup.display()) });
    }
    // A log beside it would be taken for that of the restored one.
    for part in [database.clone(), beside(database, "wal"), beside(database, "shm"), beside(database, "journal")] {
        if is_there(&part)? {
            return Err(StoreError::Occupied { path: part });
        }
    }
    examine_database(&backup, true).await?;
    let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_folder(folder)?;
    make_folder(&options.blobs)?;
    // Nobody takes the place over while it is being filled.
    let owner = LockFile::open(beside(database, "owner"))?.try_lock()?;
    let Some(_owner) = owner else { return Err(StoreError::InUse { path: database.clone() }) };
    let blobs = from.join(BLOBS);
    let copied = copy_blobs(&backup, move |blob| blobs.join(blob.as_str()), &options.blobs).await?;
    let partial = beside(database, "restoring");
    copy_file(&backup, &partial).map_err(|source| StoreError::file("writing", &partial, source))?;
    // Who was logged in when the backup was made is not logged in again.
    let access = end_sessions(&partial, revoke_tokens).await?;
    sync(&partial)?;
    rename(&partial, database)?;
    sync(folder)?;
    Ok(Copied {
        ended_sessions: access.sessions,
        valid_tokens: access.tokens,
        revoked_tokens: access.revoked,
        ..copied
    })
}

/// Looks at a database without changing it.
///
/// # Errors
/// [`StoreError::ForeignDatabase`], [`StoreError::NewerDatabase`], [`StoreError::File`], [`StoreError::Database`].
pub async fn examine(database: &Path) -> Result<Examined, StoreError> {
    if !is_there(database)? {
        return Ok(Examined { schema: None, newest: crate::sqlite::newest_known() });
    }
    examine_database(database, false).await
}

/// Copies the blobs that a database names, those that are not at their place with their size.
async fn copy_blobs(
    database: &Path,
    source: impl Fn(&BlobRef) -> PathBuf + Clone + Send + 'static,
    to: &Path,
) -> Result<Copied, StoreError> {
    make_folder(to)?;
    let mut all = Copied::default();
    let mut after = None;
    loop {
        let listed = listed_blobs(database, after.as_ref(), BATCH).await?;
        let Some((last, _)) = listed.last() else { return Ok(all) };
        after = Some(last.clone());
        let (source, to) = (source.clone(), to.to_owned());
        let part = spawn_blocking(move || copy_listed(&listed, &source, &to)).await;
        let part = part.map_err(|error| StoreError::task("copying blobs", error))??;
        all.blobs += part.blobs;
        all.copied += part.copied;
        all.bytes += part.bytes;
        all.missing.extend(part.missing);
    }
}

fn copy_listed(
    listed: &[(BlobRef, u64)],
    source: &impl Fn(&BlobRef) -> PathBuf,
    to: &Path,
) -> Result<Copied, StoreError> {
    let mut copied = Copied { blobs: listed.len() as u64, ..Copied::default() };
    for (blob, size) in listed {
        let (from, place) = (source(blob), to.join(blob.as_str()));
        if fs::metadata(&place).is_ok_and(|file| file.is_file() && file.len() == *size) {
            continue;
        }
        match fs::metadata(&from) {
            Ok(file) if file.len() == *size => {}
            Ok(file) => {
                let reason = format!("has {} bytes, the database says {size}", file.len());
                copied.missing.push((blob.clone(), reason));
                continue;
            }
            Err(error) => {
                copied.missing.push((blob.clone(), error.to_string()));
                continue;
            }
        }
        let shelf = place.parent().unwrap_or(to);
        make_folder(shelf)?;
        let partial = place.with_extension("partial");
        let written = copy_file(&from, &partial).map_err(|source| StoreError::file("writing", &partial, source))?;
        rename(&partial, &place)?;
        sync(shelf)?;
        copied.copied += 1;
        copied.bytes += written;
    }
    Ok(copied)
}

/// Copies a file, closed to other users, and waits until it is on the medium; its length.
fn copy_file(from: &Path, to: &Path) -> io::Result<u64> {
    let mut copy = closed_file(to)?;
    let length = io::copy(&mut File::open(from)?, &mut copy)?;
    copy.sync_all()?;
    Ok(length)
}

/// An empty file that other users cannot read, whatever stood there before.
fn closed_file(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(true).write(true).mode(FILE_MODE).open(path)?;
    file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    Ok(file)
}

fn create_closed(path: &Path) -> Result<File, StoreError> {
    closed_file(path).map_err(|source| StoreError::file("making", path, source))
}

/// Whether something is there; what may not be looked at is an error, not an absence.
fn is_there(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|source| StoreError::file("looking for", path, source))
}

fn make_folder(folder: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o750).create(folder);
    made.map_err(|source| StoreError::file("making", folder, source))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError::file("removing", path, source)),
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|source| StoreError::file("renaming", from, source))
}

fn sync(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|source| StoreError::file("syncing", path, source))
}
