//! Label files: comma-separated values with a header, read by the names of their columns.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use ichor_core::HemorrhageSubtype;
use thiserror::Error;

use crate::labels::SliceLabel;

/// A label file cannot be used.
#[derive(Debug, Error)]
pub enum LabelsError {
    /// It cannot be read.
    #[error("labels {}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A column is missing.
    #[error("labels {} have no column {wanted}; the columns are {found:?}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// What is missing.
        wanted: String,
        /// What is there.
        found: Vec<String>,
    },
    /// A column is not one of those that the form has.
    #[error("labels {} have a column {name:?} that is not known; known are {known}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The column.
        name: String,
        /// Those of the form.
        known: String,
    },
    /// A column occurs twice.
    #[error("labels {} have two columns {name:?}", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The column.
        name: String,
    },
    /// A value is not what the column holds.
    #[error("labels {} line {line}: {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        why: String,
    },
}

/// A label file under the reader.
pub(super) struct LabelFile {
    path: PathBuf,
    reader: csv::Reader<File>,
    columns: BTreeMap<String, usize>,
}

/// One row.
pub(super) struct Row<'a> {
    file: &'a Path,
    columns: &'a BTreeMap<String, usize>,
    record: &'a csv::StringRecord,
    line: u64,
}

/// A column's name without what people vary: case, spaces, underscores, a byte order mark.
fn plain(name: &str) -> String {
    name.trim_start_matches('\u{feff}').chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

impl LabelFile {
    /// Opens a file whose columns are all among `known`; names are compared without case and punctuation.
    pub(super) fn open(path: &Path, known: &[&str]) -> Result<Self, LabelsError> {
        let read = |error: csv::Error| LabelsError::Read { path: path.to_owned(), why: error.to_string() };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(read)?;
        let mut columns = BTreeMap::new();
        for (at, name) in reader.headers().map_err(read)?.iter().enumerate() {
            if !known.iter().any(|known| plain(known) == plain(name)) {
                let (path, name, known) = (path.to_owned(), name.to_owned(), known.join(", "));
                return Err(LabelsError::Unknown { path, name, known });
            }
            if columns.insert(plain(name), at).is_some() {
                return Err(LabelsError::Twice { path: path.to_owned(), name: name.to_owned() });
            }
        }
        Ok(Self { path: path.to_owned(), reader, columns })
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.contains_key(&plain(column))
    }

    /// Refuses a file that lacks one of these columns.
    pub(super) fn require(&mut self, columns: &[&str]) -> Result<(), LabelsError> {
        match columns.iter().find(|column| !self.has(column)) {
            None => Ok(()),
            Some(missing) => Err(self.missing(missing)),
        }
    }

    pub(super) fn missing(&mut self, wanted: &str) -> LabelsError {
        let found = self.reader.headers().map(|row| row.iter().map(str::to_owned).collect()).unwrap_or_default();
        LabelsError::Column { path: self.path.clone(), wanted: wanted.to_owned(), found }
    }

    /// Calls `each` with every row.
    pub(super) fn rows(
        &mut self,
        mut each: impl FnMut(&Row<'_>) -> Result<(), LabelsError>,
    ) -> Result<(), LabelsError> {
        let mut record = csv::StringRecord::new();
        let read = |error: csv::Error, path: &Path| LabelsError::Read { path: path.to_owned(), why: error.to_string() };
        while self.reader.read_record(&mut record).map_err(|error| read(error, &self.path))? {
            let line = record.position().map_or(0, csv::Position::line);
            each(&Row { file: &self.path, columns: &self.columns, record: &record, line })?;
        }
        Ok(())
    }
}

impl Row<'_> {
    /// The value of a column, empty if there is none.
    pub(super) fn text(&self, column: &str) -> &str {
        self.columns.get(&plain(column)).and_then(|at| self.record.get(*at)).unwrap_or_default()
    }

    /// 0 or 1.
    pub(super) fn flag(&self, column: &str) -> Result<bool, LabelsError> {
        match self.text(column) {
            "0" | "0.0" => Ok(false),
            "1" | "1.0" => Ok(true),
            other => Err(self.fault(format!("{column} is {other:?}, which is neither 0 nor 1"))),
        }
    }

    /// A whole number from 1 on.
    pub(super) fn number(&self, column: &str) -> Result<usize, LabelsError> {
        let text = self.text(column);
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| self.fault(format!("{column} is {text:?}, which is no number from 1 on")))
    }

    pub(super) fn fault(&self, why: String) -> LabelsError {
        LabelsError::Value { path: self.file.to_owned(), line: self.line, why }
    }

    /// Line of the file, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }
}

/// The name of a subtype's column.
pub(super) fn column(subtype: HemorrhageSubtype) -> &'static str {
    match subtype {
        HemorrhageSubtype::Epidural => "epidural",
        HemorrhageSubtype::Intraparenchymal => "intraparenchymal",
        HemorrhageSubtype::Intraventricular => "intraventricular",
        HemorrhageSubtype::Subarachnoid => "subarachnoid",
        HemorrhageSubtype::Subdural => "subdural",
    }
}

/// The label of five subtypes (in [`HemorrhageSubtype::ALL`]'s order) and what is said of `any`; `None` if they contradict.
pub(super) fn label(subtypes: [bool; 5], any: bool) -> Option<SliceLabel> {
    let label = SliceLabel::of(HemorrhageSubtype::ALL.into_iter().zip(subtypes).filter(|(_, is)| *is).map(|(s, _)| s));
    (label.any() == any).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<LabelFile, LabelsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.csv");
        std::fs::write(&path, text).unwrap();
        LabelFile::open(&path, &["Slice Number", "any"])
    }

    #[test]
    fn columns_go_by_name() {
        let mut file = open("\u{feff}ANY, slice_number\n1, 7\n0,8\n").unwrap();
        let mut rows = Vec::new();
        file.rows(|row| {
            rows.push((row.number("Slice Number")?, row.flag("any")?, row.line()));
            Ok(())
        })
        .unwrap();
        assert_eq!(rows, [(7, true, 2), (8, false, 3)]);
        assert!(file.require(&["any"]).is_ok());
    }

    #[test]
    fn other_columns_and_values_are_named() {
        let error = |text: &str| open(text).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error("any,colour\n").contains("\"colour\""));
        assert!(error("any,Any\n").contains("two columns"));
        assert!(open("any\n").unwrap().require(&["slice number"]).unwrap_err().to_string().contains("[\"any\"]"));
        let value = |text: &str| open(text).unwrap().rows(|row| row.flag("any").map(|_| ())).unwrap_err().to_string();
        assert!(value("any\n0\nyes\n").contains("line 3: any is \"yes\""));
        assert!(value("any,slice number\n0,1\n1\n").contains("labels"));
    }
}
