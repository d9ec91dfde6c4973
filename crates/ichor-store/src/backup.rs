//! A copy of the whole store while it is in use, and the way back.
//!
//! A blob never changes, so that a second backup into the same folder copies only what has come since. The database is
//! copied at one moment, in one piece, and takes its place in the folder after its blobs: at any moment the folder holds
//! a whole backup, the last one or the new one.
//!
//! What is copied is held against its digest on the way. What is damaged is named and not copied: it would pass for the
//! whole thing. [`verify`] reads what is kept without copying it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ichor_core::Uid;
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::blobs::{Content, Halt};
use crate::sqlite::{ListedBlob, copy_database, end_sessions, examine_database, is_listed, listed_blobs};
use crate::store::{LockFile, beside};
use crate::{BlobRef, HeaderLength, Store, StoreError, StoreOptions, Timestamp};

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
    /// Blobs that are not there, cannot be read or are damaged: the copy lacks them.
    pub missing: Vec<UnsoundBlob>,
    /// Restored: sessions of before, which were ended; invitations of before are withdrawn.
    pub ended_sessions: u64,
    /// Restored: tokens that are valid again.
    pub valid_tokens: u64,
    /// Restored: tokens that were revoked by the way.
    pub revoked_tokens: u64,
}

/// A file that is not what the database says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnsoundBlob {
    /// The study that it belongs to.
    pub study_instance: Uid,
    /// `instance`, `conflict` or `object`.
    pub kind: String,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl UnsoundBlob {
    fn new(listed: &ListedBlob, path: PathBuf, reason: String) -> Self {
        let ListedBlob { study, kind, sop_instance, .. } = listed.clone();
        Self { study_instance: study, kind, sop_instance, path, reason }
    }
}

/// What reading all that is kept came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files that the database points to.
    pub blobs: u64,
    /// Bytes of the sound ones.
    pub bytes: u64,
    /// The others.
    pub unsound: Vec<UnsoundBlob>,
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
    /// process or another: what comes later belongs to the next backup. What is copied is held against its digest.
    ///
    /// # Errors
    /// [`StoreError::OwnFolder`] if the folder is the store's; [`StoreError::DiskFull`], [`StoreError::File`],
    /// [`StoreError::Busy`], [`StoreError::Database`]; the folder then holds the last whole backup, if there was one. A blob that cannot be read or is damaged is no error:
    /// it is named in the answer.
    pub async fn back_up(&self, to: &Path, header: HeaderLength) -> Result<Copied, StoreError> {
        make_folder(to)?;
        self.check_elsewhere(to)?;
        let partial = to.join(format!("{DATABASE}.partial"));
        remove(&partial)?;
        // SQLite writes into a file that is there and empty, whose mode is ours to choose.
        drop(create_closed(&partial)?);
        let kept = self.keep_files().await?;
        copy_database(self.database(), &partial).await?;
        sync(&partial)?;
        let (blobs, present) = (self.blobs().clone(), (header, Present::Believed));
        let copied = copy_blobs(&partial, move |blob| blobs.path_of(blob), &to.join(BLOBS), present).await?;
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
/// database cannot be used; else as [`Store::back_up`]. What is at its place already is held against its digest, and replaced if it is
/// damaged. The database takes its place last.
pub async fn restore(
    from: &Path,
    options: &StoreOptions,
    header: HeaderLength,
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
    let present = (header, Present::Read);
    let copied = copy_blobs(&backup, move |blob| blobs.join(blob.as_str()), &options.blobs, present).await?;
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

/// The places of database and blobs in a backup.
#[must_use]
pub fn in_backup(folder: &Path) -> StoreOptions {
    StoreOptions::new(&folder.join(DATABASE), &folder.join(BLOBS))
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

/// Reads every file that the database of a store, or of a backup, points to, and holds it against its digest: nothing else tells
/// that a medium has forgotten something. Changes nothing; the store may be in use.
///
/// `bytes_a_second` bounds how fast it is read; `None`: as fast as it goes.
///
/// # Errors
/// [`StoreError::NotFound`] if there is no database; [`StoreError::ForeignDatabase`], [`StoreError::NewerDatabase`],
/// [`StoreError::Corrupt`], [`StoreError::Busy`], [`StoreError::Database`]. A file that is damaged is no error: it is named in
/// the answer.
pub async fn verify(
    options: &StoreOptions,
    header: HeaderLength,
    bytes_a_second: Option<u64>,
) -> Result<Verified, StoreError> {
    let database = &options.database;
    if !is_there(database)? {
        return Err(StoreError::NotFound { what: format!("the database {}", database.display()) });
    }
    examine_database(database, true).await?;
    let mut all = Verified::default();
    let mut after = None;
    loop {
        let listed = listed_blobs(database, after.as_ref(), BATCH).await?;
        let Some(last) = listed.last() else { return Ok(all) };
        after = Some(last.blob.clone());
        let blobs = options.blobs.clone();
        let read = spawn_blocking(move || verify_listed(&listed, &blobs, header, bytes_a_second)).await;
        let part = read.map_err(|error| StoreError::task("reading blobs", error))?;
        all.blobs += part.blobs;
        all.bytes += part.bytes;
        for (blob, unsound) in part.unsound {
            // Removed or replaced meanwhile, as it should be.
            if is_listed(database, &blob).await? {
                all.unsound.push(unsound);
            } else {
                all.blobs -= 1;
            }
        }
    }
}

/// What of some blobs was found.
#[derive(Default)]
struct VerifiedPart {
    blobs: u64,
    bytes: u64,
    unsound: Vec<(BlobRef, UnsoundBlob)>,
}

fn verify_listed(
    listed: &[ListedBlob],
    blobs: &Path,
    header: HeaderLength,
    bytes_a_second: Option<u64>,
) -> VerifiedPart {
    let mut part = VerifiedPart { blobs: listed.len() as u64, ..VerifiedPart::default() };
    for one in listed {
        let (path, mut pace) = (blobs.join(one.blob.as_str()), Pace::new(bytes_a_second));
        let read = Content::read(&path, header, |piece| {
            pace.wait(piece.len());
            Ok(())
        });
        let checked = match read {
            Ok(content) => content.check(one.size, &one.digest),
            Err(Halt::Read(error) | Halt::Take(error)) => Err(error.to_string()),
        };
        match checked {
            Ok(()) => part.bytes += one.size,
            Err(reason) => part.unsound.push((one.blob.clone(), UnsoundBlob::new(one, path, reason))),
        }
    }
    part
}

/// No faster than so.
struct Pace {
    begun: Instant,
    bytes: u64,
    bytes_a_second: Option<u64>,
}

impl Pace {
    fn new(bytes_a_second: Option<u64>) -> Self {
        Self { begun: Instant::now(), bytes: 0, bytes_a_second }
    }

    fn wait(&mut self, bytes: usize) {
        let Some(most) = self.bytes_a_second else { return };
        self.bytes += bytes as u64;
        let due = Duration::from_secs_f64(self.bytes as f64 / most.max(1) as f64);
        std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
    }
}

/// What is done about a file that is at its place already, with its length.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    /// It was held against its digest when it came.
    Believed,
    /// It is held against its digest now: a medium may have forgotten something of it.
    Read,
}

/// Copies the blobs that a database names, those that are not at their place.
async fn copy_blobs(
    database: &Path,
    source: impl Fn(&BlobRef) -> PathBuf + Clone + Send + 'static,
    to: &Path,
    how: (HeaderLength, Present),
) -> Result<Copied, StoreError> {
    make_folder(to)?;
    let mut all = Copied::default();
    let mut after = None;
    loop {
        let listed = listed_blobs(database, after.as_ref(), BATCH).await?;
        let Some(last) = listed.last() else { return Ok(all) };
        after = Some(last.blob.clone());
        let (source, to) = (source.clone(), to.to_owned());
        let part = spawn_blocking(move || copy_listed(&listed, &source, &to, how)).await;
        let part = part.map_err(|error| StoreError::task("copying blobs", error))??;
        all.blobs += part.blobs;
        all.copied += part.copied;
        all.bytes += part.bytes;
        all.missing.extend(part.missing);
    }
}

fn copy_listed(
    listed: &[ListedBlob],
    source: &impl Fn(&BlobRef) -> PathBuf,
    to: &Path,
    (header, present): (HeaderLength, Present),
) -> Result<Copied, StoreError> {
    let mut copied = Copied { blobs: listed.len() as u64, ..Copied::default() };
    for one in listed {
        let (from, place) = (source(&one.blob), to.join(one.blob.as_str()));
        if is_at_its_place(one, &place, header, present) {
            continue;
        }
        match copy_checked(one, &from, &place, header)? {
            Ok(()) => {
                copied.copied += 1;
                copied.bytes += one.size;
            }
            Err(reason) => copied.missing.push(UnsoundBlob::new(one, from, reason)),
        }
    }
    Ok(copied)
}

fn is_at_its_place(listed: &ListedBlob, place: &Path, header: HeaderLength, present: Present) -> bool {
    let has_length = fs::metadata(place).is_ok_and(|file| file.is_file() && file.len() == listed.size);
    let is_sound = || {
        let read = Content::read(place, header, |_| Ok(()));
        read.is_ok_and(|content| content.check(listed.size, &listed.digest).is_ok())
    };
    has_length && (present == Present::Believed || is_sound())
}

/// Copies a blob to its place; what is wrong with it otherwise.
fn copy_checked(
    listed: &ListedBlob,
    from: &Path,
    place: &Path,
    header: HeaderLength,
) -> Result<Result<(), String>, StoreError> {
    // Before anything is made for it.
    match fs::metadata(from) {
        Ok(file) if file.len() == listed.size => {}
        Ok(file) => return Ok(Err(format!("has {} bytes, the database says {}", file.len(), listed.size))),
        Err(error) => return Ok(Err(error.to_string())),
    }
    let shelf = place.parent().unwrap_or(Path::new("."));
    make_folder(shelf)?;
    let partial = place.with_extension("partial");
    let mut copy = create_closed(&partial)?;
    let failed = |source| StoreError::file("writing", &partial, source);
    let checked = match Content::read(from, header, |piece| copy.write_all(piece)) {
        Ok(content) => content.check(listed.size, &listed.digest),
        Err(Halt::Read(error)) => Err(error.to_string()),
        Err(Halt::Take(error)) => return Err(failed(error)),
    };
    if checked.is_err() {
        remove(&partial)?;
        return Ok(checked);
    }
    copy.sync_all().map_err(failed)?;
    rename(&partial, place)?;
    sync(shelf)?;
    Ok(Ok(()))
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
