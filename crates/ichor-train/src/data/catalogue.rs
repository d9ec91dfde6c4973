//! What a source holds: scans of patients, each slice with its label, before a pixel is decoded.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::labels::SliceLabel;

/// Names that a report gives of each kind of finding.
const NAMED: usize = 5;

/// All usable scans of a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    /// In the order of their names.
    pub scans: Vec<Scan>,
    /// Whether labels tell subtypes apart.
    pub has_subtypes: bool,
    /// What was left out, and why.
    pub report: DataReport,
}

/// One series of one patient.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// Who it is; a split never divides one patient.
    pub patient: String,
    /// What it is called: a series or a file.
    pub name: String,
    /// Its files, where one file holds all slices.
    pub volume: Option<VolumeFiles>,
    /// Its labelled slices along the patient.
    pub slices: Vec<ScanSlice>,
}

/// NIfTI files of a scan, all of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFiles {
    /// Hounsfield units.
    pub ct: PathBuf,
    /// Drawn hemorrhage; absent = none was drawn.
    pub mask: Option<PathBuf>,
    /// Brain mask.
    pub brain: Option<PathBuf>,
}

/// One labelled slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanSlice {
    /// What it shows.
    pub label: SliceLabel,
    /// Where it is.
    pub place: Place,
}

/// Where a slice lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A DICOM file.
    Dicom(PathBuf),
    /// The slice of the scan's volume, from 0.
    Volume(usize),
}

/// What was found amiss, by kind: how often, and the first few names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataReport(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Scan {
    /// Slices that bleed.
    #[must_use]
    pub fn positive(&self) -> usize {
        self.slices.iter().filter(|slice| slice.label.any()).count()
    }
}

impl DataReport {
    /// Counts one finding and keeps its name if it is among the first.
    pub fn add(&mut self, what: &'static str, name: impl Into<String>) {
        let (count, names) = self.0.entry(what).or_default();
        *count += 1;
        if names.len() < NAMED {
            names.push(name.into());
        }
    }

    /// Findings of a kind.
    #[must_use]
    pub fn count(&self, what: &str) -> usize {
        self.0.get(what).map_or(0, |(count, _)| *count)
    }

    /// One line for each kind: how often, what, and which.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(what, (count, names))| {
            let more = if *count > names.len() { ", …" } else { "" };
            format!("{count} {what}: {}{more}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_all_and_names_a_few() {
        let mut report = DataReport::default();
        (0..7).for_each(|n| report.add("files without labels", format!("{n}.dcm")));
        report.add("corrupt files", "x.dcm");
        let lines: Vec<String> = report.lines().collect();
        assert_eq!(lines, ["1 corrupt files: x.dcm", "7 files without labels: 0.dcm, 1.dcm, 2.dcm, 3.dcm, 4.dcm, …"]);
        assert_eq!((report.count("files without labels"), report.count("other")), (7, 0));
    }
}
