//! A real head series without a bleed, as anatomy for implanted lesions.
//!
//! The series is not part of this repository. Its folder is looked for under `ICHOR_TEST_DATA`, else under
//! `../shared/data`, unless the recipe names an absolute path.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ichor_ct::brain::brain_mask;
use ichor_ct::distance::distance_to;
use ichor_ct::header::InstanceHeader;
use ichor_ct::volume::{Stack, read_slice};
use ichor_phantom::{HeadSlice, PhantomSlice, RealHead};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A real head cannot be had.
#[derive(Debug, Error)]
pub enum AnatomyError {
    /// The folder cannot be read.
    #[error("real head {path}: {source} (a relative folder is looked for under ICHOR_TEST_DATA, else ../shared/data)")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// An image cannot be read.
    #[error("real head {path}: {source}")]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ichor_ct::CtError,
    },
    /// The images make no head.
    #[error("real head {path}: {source}")]
    Head {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: ichor_phantom::PhantomError,
    },
}

/// Which slices of a real head take part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SliceChoice {
    /// Each one.
    #[default]
    All,
    /// Two of three, for training.
    Training,
    /// The others, which no training has seen.
    HeldOut,
}

impl SliceChoice {
    /// Whether the slice at `index`, counted from the foot, takes part.
    #[must_use]
    pub fn takes(self, index: usize) -> bool {
        let held_out = index % 3 == 2;
        match self {
            Self::All => true,
            Self::Training => !held_out,
            Self::HeldOut => held_out,
        }
    }
}

/// Studies made of a real head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealHeadMix {
    /// Folder of the series, a file an image.
    pub series: PathBuf,
    /// Share of the studies that are made of it; the others are synthetic.
    pub share: f64,
    /// Its slices that take part.
    #[serde(default)]
    pub slices: SliceChoice,
    /// Whether each study has its own mirror image, blur, noise and calibration, or the images are left as they are.
    #[serde(default = "yes")]
    pub varied: bool,
}

fn yes() -> bool {
    true
}

impl RealHeadMix {
    /// Says what is wrong with the values, if anything is.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self) -> Result<(), String> {
        if (0.0..=1.0).contains(&self.share) { Ok(()) } else { Err(format!("share {} is not within 0..1", self.share)) }
    }

    /// The head, read once for each folder.
    ///
    /// # Errors
    /// [`AnatomyError`] names the folder or the file.
    pub fn head(&self) -> Result<Arc<RealHead>, AnatomyError> {
        static HEADS: Mutex<Option<HashMap<PathBuf, Arc<RealHead>>>> = Mutex::new(None);
        let folder = found(&self.series);
        let mut heads = HEADS.lock().unwrap_or_else(PoisonError::into_inner);
        let heads = heads.get_or_insert_default();
        if let Some(head) = heads.get(&folder) {
            return Ok(Arc::clone(head));
        }
        let head = Arc::new(read_head(&folder)?);
        heads.insert(folder, Arc::clone(&head));
        Ok(head)
    }

    /// Those of a study's slices that take part.
    #[must_use]
    pub fn chosen(&self, slices: Vec<PhantomSlice>) -> Vec<PhantomSlice> {
        slices.into_iter().enumerate().filter(|(index, _)| self.slices.takes(*index)).map(|(_, slice)| slice).collect()
    }
}

/// Where a series named in a recipe lies.
fn found(series: &Path) -> PathBuf {
    if series.is_absolute() {
        return series.to_owned();
    }
    let data = std::env::var_os("ICHOR_TEST_DATA").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from);
    data.join(series)
}

/// Reads the CT images of a folder as one head; other files are left out.
///
/// # Errors
/// [`AnatomyError`] names the folder or the file.
pub fn read_head(folder: &Path) -> Result<RealHead, AnatomyError> {
    let io = |source| AnatomyError::Folder { path: folder.to_owned(), source };
    let mut headers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        // What is no image (a licence, a note) is no concern of the head.
        headers.extend(InstanceHeader::read(&path).ok().filter(InstanceHeader::is_ct_image));
    }
    let stack = Stack::new(headers);
    let slice = |placed: &ichor_ct::volume::PlacedSlice| {
        let path = &placed.header.path;
        let read = read_slice(path).map_err(|source| AnatomyError::Image { path: path.clone(), source })?;
        let (rows, columns, spacing) = (read.plane.rows as usize, read.plane.columns as usize, read.plane.spacing);
        let brain = brain_mask(&read.hu, rows, columns, spacing);
        let outside: Vec<bool> = brain.iter().map(|inside| *inside == 0).collect();
        let depth_mm = distance_to(&outside, rows, columns, spacing);
        let thickness_mm = placed.header.slice_thickness.unwrap_or(placed.slab_mm);
        Ok(HeadSlice { plane: read.plane, slab_mm: placed.slab_mm, thickness_mm, hu: read.hu, brain, depth_mm })
    };
    let slices: Vec<HeadSlice> = stack.slices.par_iter().map(slice).collect::<Result<_, AnatomyError>>()?;
    RealHead::new(slices).map_err(|source| AnatomyError::Head { path: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_slices_stays_out_of_training() {
        let of = |choice: SliceChoice| (0..28).filter(|index| choice.takes(*index)).count();
        assert_eq!([of(SliceChoice::All), of(SliceChoice::Training), of(SliceChoice::HeldOut)], [28, 19, 9]);
        assert!((0..28).all(|index| SliceChoice::Training.takes(index) != SliceChoice::HeldOut.takes(index)));
    }

    #[test]
    fn a_head_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing =
            RealHeadMix { series: folder.path().join("none"), share: 1.0, slices: SliceChoice::All, varied: true };
        let error = missing.head().unwrap_err().to_string();
        assert!(error.contains("none") && error.contains("ICHOR_TEST_DATA"), "{error}");
        std::fs::write(folder.path().join("note.txt"), "no image").unwrap();
        let empty = RealHeadMix { series: folder.path().to_owned(), ..missing };
        assert!(empty.head().unwrap_err().to_string().contains("inside of a skull"));
        assert!(RealHeadMix { share: 1.5, ..empty }.check().unwrap_err().contains("1.5"));
    }
}
