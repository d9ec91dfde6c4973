//! A disk that can be filled and spoilt.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::scratch::Scratch;
use super::tools::skipped;

/// A small file system in memory, unmounted with the value.
pub(crate) struct SmallDisk {
    pub(crate) folder: PathBuf,
    _scratch: Scratch,
}

impl SmallDisk {
    /// Mounts one, if this process may.
    pub(crate) fn mount(mib: u32) -> Option<Self> {
        let scratch = Scratch::new("disk");
        let folder = scratch.folder("small");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { folder, _scratch: scratch }),
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                skipped(&format!("cannot mount a small file system: {reason}"));
                None
            }
            Err(error) => {
                skipped(&format!("cannot run mount: {error}"));
                None
            }
        }
    }

    /// Takes all the room but so many KiB, and returns the file that holds it.
    pub(crate) fn fill_but(&self, kib: u64) -> PathBuf {
        let file = self.folder.join("filler");
        let free = free_kib(&self.folder);
        let blocks = format!("count={}", free.saturating_sub(kib));
        let output = format!("of={}", file.display());
        let status = Command::new("dd").args(["if=/dev/zero", "bs=1024", &blocks, &output]).output().unwrap().status;
        assert!(status.success());
        file
    }

    /// Makes everything in it read-only, or takes that back, as a file system does that met an error.
    pub(crate) fn set_read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        // It cannot be while a file is open for writing.
        super::eventually(super::seconds(5), options, || {
            let output = Command::new("mount").args(["-o", options]).arg(&self.folder).output().unwrap();
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the daemon, which is dropped before, may still be on its way out.
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).status();
    }
}

/// Room that is left, in KiB.
pub(crate) fn free_kib(folder: &Path) -> u64 {
    let output = Command::new("df").args(["--output=avail", "-k"]).arg(folder).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().nth(1).unwrap().trim().parse().unwrap()
}
