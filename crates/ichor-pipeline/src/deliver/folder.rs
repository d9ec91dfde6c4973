//! A folder as a destination: one file an object, there as a whole or not at all.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use ichor_core::Reason;
use ichor_store::DeliveryObject;

use super::Attempt;

/// Copies an object to `root/STUDY/OBJECT.dcm`.
pub(super) async fn deliver(root: &Path, object: &DeliveryObject) -> Attempt {
    let (root, source) = (root.to_owned(), object.path.clone());
    let (study, name) = (safe(object.study_instance.as_str()), safe(object.sop_instance.as_str()));
    let copied = tokio::task::spawn_blocking(move || copy(&root, &source, &study, &name)).await;
    copied.unwrap_or_else(|error| Attempt::Transient(Reason::new("task-failed", error.to_string())))
}

/// A name for a UID. One of a peer's may begin or end with full stops, or be ".."; these become underscores, which no UID holds,
/// so that no two UIDs share a name.
fn safe(uid: &str) -> String {
    let inner = uid.trim_matches('.');
    let before = uid.len() - uid.trim_start_matches('.').len();
    let after = if inner.is_empty() { 0 } else { uid.len() - uid.trim_end_matches('.').len() };
    format!("{}{inner}{}", "_".repeat(before), "_".repeat(after))
}

fn copy(root: &Path, source: &Path, study: &str, name: &str) -> Attempt {
    let mut from = match File::open(source) {
        Ok(file) => file,
        Err(error) => {
            let reason = Reason::new("object-unreadable", format!("{}: {error}", source.display()));
            let is_gone = error.kind() == io::ErrorKind::NotFound;
            return if is_gone { Attempt::Permanent(reason) } else { Attempt::Transient(reason) };
        }
    };
    // The folder itself is not made: one that is not there is one that is not mounted.
    if !root.is_dir() {
        let text = format!("{} is no folder, or not mounted", root.display());
        return Attempt::PeerDown(Reason::new("folder-missing", text));
    }
    match place(&mut from, root, study, name) {
        Ok(path) => Attempt::Accepted(format!("written to {}", path.display())),
        Err(Refusal { is_of_root, error }) => {
            let reason = Reason::new("folder-refuses", format!("{}: {error}", root.display()));
            if is_of_root { Attempt::PeerDown(reason) } else { Attempt::Transient(reason) }
        }
    }
}

/// Why an object could not be placed.
struct Refusal {
    /// The next object would fare the same.
    is_of_root: bool,
    error: io::Error,
}

impl Refusal {
    /// At the folder itself.
    fn at_root(error: io::Error) -> Self {
        let is_forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        let refusal = Self::from(error);
        Self { is_of_root: refusal.is_of_root || is_forbidden, ..refusal }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        Self { is_of_root: matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem), error }
    }
}

/// Writes beside the place, syncs, renames, and syncs the folders.
fn place(from: &mut File, root: &Path, study: &str, name: &str) -> Result<PathBuf, Refusal> {
    let folder = root.join(study);
    if !folder.is_dir() {
        std::fs::create_dir(&folder).map_err(Refusal::at_root)?;
        File::open(root).and_then(|root| root.sync_all()).map_err(Refusal::at_root)?;
    }
    let (path, part) = (folder.join(format!("{name}.dcm")), folder.join(format!(".{name}.part")));
    let written = (|| {
        let mut to = File::create(&part)?;
        io::copy(from, &mut to)?;
        to.sync_all()?;
        std::fs::rename(&part, &path)
    })();
    if let Err(error) = written {
        let _ = std::fs::remove_file(&part);
        return Err(error.into());
    }
    File::open(&folder)?.sync_all()?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_uids_share_a_name() {
        let uids = ["1.2", "1.2.", ".1.2", "1.2..", "..1.2", "..", "."];
        let names: std::collections::BTreeSet<String> = uids.iter().map(|uid| safe(uid)).collect();
        assert_eq!(names.len(), uids.len(), "{names:?}");
        assert!(names.iter().all(|name| !name.starts_with('.') && !name.ends_with('.')), "{names:?}");
        assert_eq!(safe("1.2.840.10008"), "1.2.840.10008");
    }

    #[test]
    fn object_is_there_whole_or_not_at_all() {
        let scratch = tempfile::TempDir::new().unwrap();
        let (source, root) = (scratch.path().join("object"), scratch.path().join("out"));
        std::fs::write(&source, b"DICM").unwrap();
        let attempt = copy(&root, &source, "1.2", "1.2.3");
        assert!(matches!(&attempt, Attempt::PeerDown(reason) if reason.to_string().contains("not mounted")));
        std::fs::create_dir(&root).unwrap();
        for _ in 0..2 {
            assert!(matches!(copy(&root, &source, "1.2", "1.2.3"), Attempt::Accepted(_)));
        }
        assert_eq!(std::fs::read(root.join("1.2/1.2.3.dcm")).unwrap(), b"DICM");
        assert_eq!(std::fs::read_dir(root.join("1.2")).unwrap().count(), 1, "nothing lies beside it");
        let gone = copy(&root, &scratch.path().join("absent"), "1.2", "1.2.4");
        assert!(matches!(gone, Attempt::Permanent(_)));
        // A file where the study's folder should be, a folder where the object should be, and one as the object: of these alone.
        std::fs::write(root.join("1.9"), b"").unwrap();
        assert!(matches!(copy(&root, &source, "1.9", "1.2.3"), Attempt::Transient(_)));
        std::fs::create_dir(root.join("1.2/1.2.5.dcm")).unwrap();
        assert!(matches!(copy(&root, &source, "1.2", "1.2.5"), Attempt::Transient(_)));
        assert!(matches!(copy(&root, scratch.path(), "1.2", "1.2.6"), Attempt::Transient(_)));
        let refusal = |code| Refusal::from(io::Error::from_raw_os_error(code)).is_of_root;
        let (eacces, eio, enospc, erofs) = (13, 5, 28, 30);
        assert_eq!([eacces, eio, enospc, erofs].map(refusal), [false, false, true, true]);
        assert!(Refusal::at_root(io::Error::from_raw_os_error(eacces)).is_of_root);
        assert!(!Refusal::at_root(io::Error::from_raw_os_error(eio)).is_of_root);
    }
}
