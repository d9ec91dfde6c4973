//! The file operations on which durability rests, behind a trait so that tests can make each of them fail.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Blocking file operations.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    /// Creates a file that must not exist.
    fn create(&self, path: &Path) -> io::Result<File>;
    /// Writes all bytes.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Asks that bytes of a file begin their way to the medium, without waiting for them. A hint: nothing rests on it.
    fn write_out(&self, _file: &File, _offset: u64, _length: u64) {}
    /// Brings content and size onto the medium.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Renames within the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder; one that exists is fine.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Brings a folder's entries onto the medium.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// The file system itself.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        File::options().write(true).create_new(true).mode(0o640).open(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn write_out(&self, file: &File, offset: u64, length: u64) {
        // Linux begins to write dirty pages in the range, and keeps those it is writing (mm/fadvise.c).
        if let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) {
            let _ = posix_fadvise(file, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match std::fs::DirBuilder::new().mode(0o750).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// A disk that is full exactly once, at a chosen operation.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct FaultyDisk {
    /// Operations left before the failing one; negative: none fails.
    left: std::sync::atomic::AtomicI64,
}

#[cfg(test)]
impl FaultyDisk {
    /// Never fails until told to.
    pub(crate) fn healthy() -> Self {
        Self { left: std::sync::atomic::AtomicI64::new(-1) }
    }

    /// The operation after the next `operations` fails with ENOSPC.
    pub(crate) fn fail_after(&self, operations: i64) {
        self.left.store(operations, std::sync::atomic::Ordering::SeqCst);
    }

    /// Whether the failure has happened.
    pub(crate) fn has_failed(&self) -> bool {
        self.left.load(std::sync::atomic::Ordering::SeqCst) < 0
    }

    fn step(&self) -> io::Result<()> {
        match self.left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Err(io::Error::from_raw_os_error(nix::libc::ENOSPC)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        RealDisk.create(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if let Err(full) = self.step() {
            // A full disk takes a part of the bytes first.
            RealDisk.write(file, &bytes[..bytes.len() / 2])?;
            return Err(full);
        }
        RealDisk.write(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.step()?;
        RealDisk.sync(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.remove(path)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.make_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealDisk.sync_folder(path)
    }
}
