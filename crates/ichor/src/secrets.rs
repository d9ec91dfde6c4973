//! Secrets in files of their own.

use std::io::Read;
use std::path::Path;

use anyhow::Context;

/// Longest secret, in bytes.
const LONGEST: u64 = 64 << 10;

/// Reads a secret, without the line end behind it.
///
/// # Errors
/// With the path: the file cannot be read, is empty or too long, or others than its owner and group may read it.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let file = std::fs::File::open(path).with_context(|| format!("reading {}", path.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The rights are those of the file that is read, not of whatever lies at its path a moment later.
        let mode =
            file.metadata().with_context(|| format!("reading {}", path.display()))?.permissions().mode() & 0o7777;
        let path = path.display();
        anyhow::ensure!(
            mode & 0o006 == 0,
            "{path} holds a secret and anybody may read it (mode {mode:04o}); chmod o= {path}"
        );
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(text.len() as u64 <= LONGEST, "{} is longer than {LONGEST} bytes", path.display());
    let secret = text.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!secret.is_empty(), "{} is empty", path.display());
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_closed_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let with = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read(&path).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(with("word\n", 0o600).unwrap(), "word");
        assert_eq!(with("word\r\n", 0o640).unwrap(), "word");
        for mode in [0o644, 0o604, 0o602] {
            let error = with("word", mode).unwrap_err();
            assert!(error.contains("anybody") && error.contains("secret") && !error.contains("word"), "{error}");
        }
        assert!(with("\n", 0o600).unwrap_err().contains("empty"));
        assert!(with(&"x".repeat(70_000), 0o600).unwrap_err().contains("longer"));
        assert!(read(&folder.path().join("none")).is_err());
    }
}
