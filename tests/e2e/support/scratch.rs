//! Temporary folders that stay behind when a test fails.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary folder. When it is dropped while a test panics it is kept, and the ends of its log files are printed.
pub(crate) struct Scratch(Option<TempDir>);

/// How many lines of each log are printed.
const LOG_LINES: usize = 60;

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        Self(Some(tempfile::Builder::new().prefix(&format!("ichor-test-{name}-")).tempdir().unwrap()))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }

    /// A folder inside, made.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(folder) = self.0.take() else { return };
        if !std::thread::panicking() {
            return;
        }
        let path = folder.keep();
        eprintln!("kept {}", path.display());
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            let file = entry.path();
            if file.extension().is_some_and(|e| e == "log") {
                let text = std::fs::read(&file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                let text = text.unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- end of {}", file.display());
                for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                    eprintln!("{line}");
                }
            }
        }
    }
}
