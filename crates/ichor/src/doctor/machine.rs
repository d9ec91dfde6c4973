//! The store, the limits of the process, and the clock.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ichor_store::StoreError;

use super::Outcome;
use crate::config::Config;

/// Times the least free space below which somebody should think of the disk.
const ROOM: u64 = 5;
/// Files that the process has open besides those of associations: database, libraries, deliveries.
const OTHER_FILES: u64 = 256;
/// Files an association may have open.
const FILES_AN_ASSOCIATION: u64 = 4;
/// 2026-01-01: a clock before this was never set.
const NO_EARLIER: Duration = Duration::from_secs(1_767_225_600);

/// Database, folders and space.
pub(super) async fn store(config: &Config) -> Vec<Outcome> {
    let database = &config.store.database;
    let mut outcomes = vec![schema(database).await];
    let folder = database.parent().unwrap_or(Path::new("."));
    outcomes.push(writable("folder of the database", folder));
    outcomes.push(writable("folder of the blobs", &config.store.blobs));
    outcomes.push(space(&config.store.blobs, config.store.min_free_mib, config.retention.is_some()));
    outcomes
}

async fn schema(database: &Path) -> Outcome {
    let subject = format!("database {}", database.display());
    match ichor_store::examine(database).await {
        Ok(found) => Outcome::good(
            subject,
            match found.schema {
                None => "is not there yet and will be made".to_owned(),
                Some(schema) if schema < found.newest => {
                    format!("has schema {schema} and will be brought to {} at the next start", found.newest)
                }
                Some(schema) => format!("has schema {schema}"),
            },
        ),
        Err(error @ StoreError::NewerDatabase { .. }) => {
            Outcome::failure(subject, error.to_string(), "install the version that wrote it, or restore a backup")
        }
        Err(error @ StoreError::ForeignDatabase { .. }) => {
            Outcome::failure(subject, error.to_string(), "name another file in store.database")
        }
        Err(error) => Outcome::failure(
            subject,
            format!("{:#}", anyhow::Error::new(error)),
            "ichor must be able to read and write it: check owner, rights and medium",
        ),
    }
}

/// The folder itself, or the nearest one above it that is there.
fn existing(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|folder| folder.is_dir() || folder.as_os_str().is_empty());
    match found {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether a folder can be written, or made.
pub(super) fn writable(subject: &str, folder: &Path) -> Outcome {
    // The folder of a file that is named by itself.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let subject = format!("{subject} {}", folder.display());
    let place = existing(folder);
    match tempfile::Builder::new().prefix(".ichor-doctor-").tempfile_in(&place) {
        Ok(_removed_again) if place == folder => Outcome::good(subject, "can be written"),
        Ok(_removed_again) => Outcome::good(subject, format!("will be made in {}", place.display())),
        Err(error) => Outcome::failure(
            subject,
            format!("cannot be written: {error}"),
            "give it to the user that runs ichor (systemd: StateDirectory=), or name another folder",
        ),
    }
}

fn space(blobs: &Path, min_free_mib: u64, is_swept: bool) -> Outcome {
    let subject = "free space";
    let place = existing(blobs);
    let free = match ichor_store::free_bytes(&place) {
        Ok(bytes) => bytes >> 20,
        Err(error) => return Outcome::failure(subject, format!("{:#}", anyhow::Error::new(error)), "check the medium"),
    };
    let found = format!("{free} MiB; below {min_free_mib} MiB every instance is refused (0xA700)");
    if free < min_free_mib {
        Outcome::failure(subject, found, "make room, or name a larger disk in store.blobs")
    } else if free < min_free_mib.saturating_mul(ROOM) {
        let mend =
            if is_swept { "make room, or let more go by [retention]" } else { "make room: nothing is ever deleted" };
        Outcome::warning(subject, found, mend)
    } else {
        Outcome::good(subject, found)
    }
}

/// Open files, against what the configuration allows at once.
pub(super) fn limits(config: &Config) -> Option<Outcome> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let most = open_files(&limits)?;
    let associations = u64::try_from(config.listen.max_associations).unwrap_or(u64::MAX);
    let wanted = associations.saturating_mul(FILES_AN_ASSOCIATION).saturating_add(OTHER_FILES);
    let found = format!("{most} here; {associations} associations at once may need {wanted}");
    let subject = "open files";
    Some(if most < wanted {
        Outcome::warning(subject, found, "raise the limit (systemd: LimitNOFILE=65536; shell: ulimit -n)")
    } else {
        Outcome::good(subject, found)
    })
}

/// The soft limit in the text of `/proc/self/limits`.
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Whether the clock was set, and is kept right.
pub(super) fn clock() -> Outcome {
    let asked = Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]).output();
    let answer = asked.ok().map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned());
    judge_clock(SystemTime::now(), answer.as_deref())
}

/// What a time says of the clock that shows it, and what `timedatectl` answered; `None`: it is not there.
fn judge_clock(now: SystemTime, answer: Option<&str>) -> Outcome {
    let subject = "clock";
    let mend = "timedatectl set-ntp true, or another time service: content times and turn-around are wrong otherwise";
    // A time before 1970 has no distance from it.
    if now.duration_since(UNIX_EPOCH).unwrap_or_default() < NO_EARLIER {
        return Outcome::failure(subject, "was never set", mend);
    }
    match answer.map(str::trim) {
        Some("yes") => Outcome::good(subject, "is kept right by a time service"),
        Some("no") => Outcome::warning(subject, "no time service keeps it right", mend),
        _ => Outcome::warning(
            subject,
            "whether it is kept right cannot be told here",
            "check it against your time server",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn limits_are_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             127                  128                  processes \n\
                    Max open files            1024                 4096                 files     \n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files            unlimited            unlimited            files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files("nothing"), None);
    }

    #[test]
    fn clocks() {
        let day = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 86_400);
        // 2026-01-01 is day 20,454.
        let (never, last, first) = (day(0), day(20_454) - Duration::from_secs(1), day(20_454));
        let before = UNIX_EPOCH - Duration::from_secs(86_400);
        for (now, answer, level, found) in [
            (before, Some("yes\n"), Level::Failure, "was never set"),
            (never, Some("yes\n"), Level::Failure, "was never set"),
            (last, Some("yes\n"), Level::Failure, "was never set"),
            (last, None, Level::Failure, "was never set"),
            (first, Some("yes\n"), Level::Good, "is kept right"),
            (first, Some("no\n"), Level::Warning, "no time service"),
            (first, Some(""), Level::Warning, "cannot be told"),
            (first, Some("Failed to connect to bus\n"), Level::Warning, "cannot be told"),
            (first, None, Level::Warning, "cannot be told"),
        ] {
            let outcome = judge_clock(now, answer);
            assert!(outcome.level == level && outcome.found.contains(found), "{now:?}, {answer:?}: {outcome:?}");
            assert_eq!((outcome.subject.as_str(), outcome.mend.is_none()), ("clock", level == Level::Good));
        }
        assert!([Level::Good, Level::Warning].contains(&clock().level), "this machine's clock was set");
    }

    #[test]
    fn space_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("not/made/yet");
        assert_eq!(existing(&deep), folder.path());
        assert_eq!(writable("folder", &deep).level, Level::Good);
        assert!(!folder.path().join("not").exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        assert_eq!(space(&deep, 0, false).level, Level::Good);
        assert_eq!(space(&deep, u64::MAX >> 20, false).level, Level::Failure);
        let full = writable("folder", Path::new("/proc/1"));
        assert_eq!(full.level, Level::Failure, "{full:?}");
    }
}
