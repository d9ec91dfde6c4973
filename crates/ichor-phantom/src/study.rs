//! A whole study on disk, with its truth beside it when asked.

use std::path::{Path, PathBuf};

use ichor_core::{ImagePlane, Uid};
use serde::Serialize;

use crate::companions::{self, Companions};
use crate::dicom::{SOFT, write_dicom};
use crate::error::PhantomError;
use crate::identity::DicomIdentity;
use crate::options::PhantomOptions;
use crate::phantom::{Bleed, Phantom};
use crate::scene::Scene;

/// What is written besides the slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// `truth.json`, and `truth-bleed.npy` and `truth-brain.npy` (u8, slices × rows × columns).
    pub truth: bool,
    /// Series that are not to be analysed.
    pub companions: Companions,
}

/// One slice as it was written.
#[derive(Clone, Debug)]
pub struct WrittenSlice {
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// The file.
    pub path: PathBuf,
    /// Where it lies.
    pub plane: ImagePlane,
    /// Hounsfield units, row by row; −1000 where the file has padding.
    pub hu: Vec<i16>,
    /// 0, or 1 + the index of the subtype in [`ichor_core::HemorrhageSubtype::ALL`].
    pub bleed: Vec<u8>,
    /// 1 inside the skull.
    pub brain: Vec<u8>,
}

impl WrittenSlice {
    /// The mask of all subtypes: 1 where there is blood.
    #[must_use]
    pub fn bleed_mask(&self) -> Vec<u8> {
        self.bleed.iter().map(|b| u8::from(*b != 0)).collect()
    }
}

/// A study on disk and what is known of it.
#[derive(Clone, Debug)]
pub struct WrittenStudy {
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Series Instance UID of the slices.
    pub series_instance: Uid,
    /// Frame of Reference UID.
    pub frame_of_reference: Uid,
    /// Files of the slices, lowest first.
    pub files: Vec<PathBuf>,
    /// Files of the companions.
    pub companions: Vec<PathBuf>,
    /// The slices, in the order of the files.
    pub slices: Vec<WrittenSlice>,
    /// The bleeds.
    pub bleeds: Vec<Bleed>,
    /// `truth.json`, if it was asked for.
    pub truth: Option<PathBuf>,
    truth_ml: f64,
}

impl WrittenStudy {
    /// Volume of all bleeds in mL.
    #[must_use]
    pub fn truth_ml(&self) -> f64 {
        self.truth_ml
    }

    /// Rows and columns of the slices.
    #[must_use]
    pub fn matrix(&self) -> (usize, usize) {
        self.slices.first().map_or((0, 0), |slice| (slice.plane.rows as usize, slice.plane.columns as usize))
    }
}

/// Makes the study of a seed and writes its slices into a folder, which is made if absent.
///
/// # Errors
/// [`PhantomError`] if an option makes no scan, or naming the file that could not be written.
pub fn write_study(seed: u64, options: &PhantomOptions, dir: &Path) -> Result<WrittenStudy, PhantomError> {
    write_study_with(seed, options, WriteOptions::default(), dir)
}

/// As [`write_study`], with truth and companions beside the slices where they are asked for.
///
/// # Errors
/// As [`write_study`].
pub fn write_study_with(
    seed: u64,
    options: &PhantomOptions,
    what: WriteOptions,
    dir: &Path,
) -> Result<WrittenStudy, PhantomError> {
    let scene = Scene::new(seed, options)?;
    let phantom = Phantom::of(&scene);
    let identity = DicomIdentity::of(seed, options)?;
    let files = write_dicom(&phantom, &identity, dir)?;
    let companions = companions::write(what.companions, &phantom, &scene, &identity, dir)?;
    let truth = what.truth.then(|| write_truth(&phantom, &identity, dir)).transpose()?;
    let Phantom { slices, bleeds, truth_ml, .. } = phantom;
    let slices = slices
        .into_iter()
        .zip(&files)
        .enumerate()
        .map(|(index, (slice, path))| WrittenSlice {
            sop_instance: identity.instance(SOFT, index),
            path: path.clone(),
            plane: slice.plane,
            hu: slice.hu,
            bleed: slice.bleed,
            brain: slice.brain,
        })
        .collect();
    Ok(WrittenStudy {
        study_instance: identity.study_instance.clone(),
        series_instance: identity.series(SOFT),
        frame_of_reference: identity.frame_of_reference,
        files,
        companions,
        slices,
        bleeds,
        truth,
        truth_ml,
    })
}

#[derive(Serialize)]
struct Truth<'a> {
    seed: u64,
    study_instance: &'a Uid,
    series_instance: Uid,
    positive: bool,
    truth_ml: f64,
    bleeds: &'a [Bleed],
    slices: Vec<SliceTruth>,
    options: &'a PhantomOptions,
}

#[derive(Serialize)]
struct SliceTruth {
    sop_instance: Uid,
    positive: bool,
    /// In the order epidural, intraparenchymal, intraventricular, subarachnoid, subdural.
    labels: [bool; 5],
    bleed_pixels: u64,
    bleed_area_mm2: f64,
    voxel_ml: f64,
}

fn write_truth(phantom: &Phantom, identity: &DicomIdentity, dir: &Path) -> Result<PathBuf, PhantomError> {
    let slices = phantom
        .slices
        .iter()
        .enumerate()
        .map(|(index, slice)| SliceTruth {
            sop_instance: identity.instance(SOFT, index),
            positive: slice.is_positive(),
            labels: slice.labels(),
            bleed_pixels: slice.bleed_pixels(),
            bleed_area_mm2: slice.bleed_area_mm2(),
            voxel_ml: slice.voxel_ml(),
        })
        .collect();
    let truth = Truth {
        seed: phantom.seed,
        study_instance: &identity.study_instance,
        series_instance: identity.series(SOFT),
        positive: phantom.is_positive(),
        truth_ml: phantom.truth_ml,
        bleeds: &phantom.bleeds,
        slices,
        options: &phantom.options,
    };
    let save = |name: &str, bytes: Vec<u8>| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).map_err(|source| PhantomError::Io { path: path.clone(), source })?;
        Ok::<PathBuf, PhantomError>(path)
    };
    save("truth-bleed.npy", npy(phantom, |slice| &slice.bleed))?;
    save("truth-brain.npy", npy(phantom, |slice| &slice.brain))?;
    save("truth.json", serde_json::to_vec_pretty(&truth)?)
}

/// Masks of all slices in NumPy's format (NEP 1, version 1.0).
fn npy(phantom: &Phantom, of: impl Fn(&crate::phantom::PhantomSlice) -> &Vec<u8>) -> Vec<u8> {
    let (rows, columns) = (phantom.options.rows, phantom.options.columns);
    let shape = format!("({}, {rows}, {columns})", phantom.slices.len());
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length take 10 bytes; the whole is a multiple of 64 and ends with a line feed.
    let padded = (10 + header.len() + 1).next_multiple_of(64);
    header.push_str(&" ".repeat(padded - 10 - header.len() - 1));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    for slice in &phantom.slices {
        bytes.extend_from_slice(of(slice));
    }
    bytes
}
