//! The files of a report.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Evaluation, Report, ReportError, html};

/// `evaluation.json`: the summary of a run on phantoms, if it was one, with everything else under `evaluation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationFile {
    /// The summary.
    #[serde(flatten)]
    pub summary: Option<Report>,
    /// Further sets of test studies, with their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<(String, Report)>,
    /// Every figure of the page.
    pub evaluation: Evaluation,
}

/// Writes `evaluation.json` and `evaluation.html` into a folder, which is made if it is not there. Each file is written
/// beside its place and moved there, so that a full disk leaves the last report whole. Says where the page lies.
///
/// # Errors
/// [`ReportError`] if the page cannot be made or a file not written.
pub fn write_evaluation(folder: &Path, file: &EvaluationFile) -> Result<PathBuf, ReportError> {
    let page = html(&file.evaluation)?;
    let json = serde_json::to_string_pretty(file)? + "\n";
    std::fs::create_dir_all(folder).map_err(|source| ReportError::Write { path: folder.to_owned(), source })?;
    put(&folder.join("evaluation.json"), &json)?;
    let path = folder.join("evaluation.html");
    put(&path, &page)?;
    Ok(path)
}

fn put(path: &Path, text: &str) -> Result<(), ReportError> {
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let written = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|source| {
        let _nothing_left = std::fs::remove_file(&partial);
        ReportError::Write { path: path.to_owned(), source }
    })
}
