//! The files that are to be explained, and how their pictures are called.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use ichor_ct::header::InstanceHeader;
use serde::Serialize;

/// A file or frame that cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Failure {
    pub(super) file: PathBuf,
    /// Counted from 1, where the file has several.
    pub(super) frame: Option<u32>,
    pub(super) reason: String,
}

impl Failure {
    /// A slice whose header could be read.
    pub(super) fn of(header: &InstanceHeader, reason: String) -> Self {
        Self { file: header.path.clone(), frame: header.frame, reason }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        self.frame.map_or(Ok(()), |frame| write!(f, " frame {frame}"))?;
        write!(f, ": {}", self.reason)
    }
}

/// The slices in files, and in the DICOM files of folders, sorted; with what cannot be one and why. A folder may hold other
/// things; a file that was named must be a CT image.
pub(super) fn headers(paths: &[PathBuf], frame: Option<u32>) -> (Vec<InstanceHeader>, Vec<Failure>) {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    let mut pending: Vec<(PathBuf, bool)> = paths.iter().rev().map(|path| (path.clone(), true)).collect();
    while let Some((path, was_named)) = pending.pop() {
        if path.is_dir() {
            match inside(&path) {
                Ok(files) => pending.extend(files.into_iter().rev().map(|file| (file, false))),
                Err(error) => failures.push(Failure { file: path, frame: None, reason: error.to_string() }),
            }
            continue;
        }
        if !was_named && ichor_dimse::part10::read_header(&path).is_err() {
            continue;
        }
        match slices(&path, frame) {
            Ok(slices) => found.extend(slices),
            Err(reason) => failures.push(Failure { file: path, frame: None, reason }),
        }
    }
    (found, failures)
}

fn inside(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// The slices of one file.
fn slices(path: &Path, frame: Option<u32>) -> Result<Vec<InstanceHeader>, String> {
    // What the parser says of a file that is not there is less clear.
    std::fs::File::open(path).map_err(|error| error.to_string())?;
    let header = InstanceHeader::read(path).map_err(|error| error.to_string())?;
    if !header.is_ct_image() && !header.is_enhanced_ct() {
        return Err(format!("is no CT image: SOP class {}, modality {:?}", header.sop_class, header.modality));
    }
    if let Some(reason) = &header.unscaled
        && !header.is_enhanced_ct()
    {
        return Err(reason.text.clone());
    }
    let all = InstanceHeader::read_all(path).map_err(|error| error.to_string())?;
    let Some(wanted) = frame else { return Ok(all) };
    let frames = all.len();
    let index = usize::try_from(wanted).ok().and_then(|wanted| wanted.checked_sub(1));
    let chosen = index.and_then(|index| all.into_iter().nth(index));
    chosen.map(|header| vec![header]).ok_or_else(|| format!("has {frames} frames, there is no frame {wanted}"))
}

/// Names of pictures: that of the file, with the frame; none is given twice.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, usize>);

impl Names {
    /// A name of letters, digits and `._-`.
    pub(super) fn name(&mut self, header: &InstanceHeader) -> String {
        let stem = header.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&letter);
        let mut name: String = stem.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
        if name.trim_matches('.').is_empty() {
            name = "slice".to_owned();
        }
        if let Some(frame) = header.frame {
            name = format!("{name}-f{frame:04}");
        }
        let mut candidate = name.clone();
        while self.0.contains_key(&candidate) {
            let count = self.0.entry(name.clone()).or_insert(1);
            *count += 1;
            candidate = format!("{name}_{count}");
        }
        self.0.insert(candidate.clone(), 1);
        candidate
    }
}
