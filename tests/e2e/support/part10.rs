//! Part 10 files, read without any of ichor's own code.

use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, OpenFileOptions};

/// Where the data set of a Part 10 file begins: preamble, prefix, and the File Meta Information by its group length
/// (PS3.10 7.1).
pub(crate) fn data_set_offset(bytes: &[u8]) -> usize {
    assert_eq!(&bytes[128..132], b"DICM", "no Part 10 prefix");
    assert_eq!(&bytes[132..138], &[2, 0, 0, 0, b'U', b'L'], "no File Meta Information Group Length");
    let length = u32::from_le_bytes(bytes[140..144].try_into().unwrap());
    144 + length as usize
}

/// The data set's bytes.
pub(crate) fn data_set(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    bytes[data_set_offset(&bytes)..].to_vec()
}

/// The object without its pixels.
pub(crate) fn header(path: &Path) -> DefaultDicomObject {
    OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(path).unwrap()
}

/// A text value without padding; panics if it is absent.
pub(crate) fn text(object: &DefaultDicomObject, tag: dicom_core::Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim_end_matches(['\0', ' ']).to_owned()
}

/// Image Position (Patient).
pub(crate) fn position(path: &Path) -> [f64; 3] {
    let values = header(path).element(tags::IMAGE_POSITION_PATIENT).unwrap().to_multi_float64().unwrap();
    values.try_into().unwrap()
}

/// Every file below a folder, in the order of the names.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Every Part 10 file below a folder.
pub(crate) fn part10_files_below(folder: &Path) -> Vec<PathBuf> {
    let is_part10 = |path: &PathBuf| {
        let mut head = [0u8; 132];
        let read = std::fs::File::open(path).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut head));
        read.is_ok() && &head[128..] == b"DICM"
    };
    files_below(folder).into_iter().filter(is_part10).collect()
}
