//! What else a study holds: a localizer, the same slices with a bone kernel, a page of doses. None of it is to be
//! analysed.

use std::path::{Path, PathBuf};

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::{tags, uids};
use ichor_core::ImagePlane;
use rayon::prelude::*;

use crate::dicom::{Image, Series, common, write_object, write_series};
use crate::error::PhantomError;
use crate::geometry::norm;
use crate::identity::DicomIdentity;
use crate::options::{PhantomOptions, Storage, generator, stream};
use crate::outside::AIR;
use crate::phantom::Phantom;
use crate::scanner::{blur, grain};
use crate::scene::Scene;

/// Which companions a study has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Companions {
    /// A lateral scout view: CT Image Storage, Image Type `LOCALIZER`.
    pub localizer: bool,
    /// The same slices, reconstructed with a bone kernel.
    pub bone_kernel: bool,
    /// A page of doses: Secondary Capture.
    pub dose_page: bool,
}

impl Companions {
    /// All of them.
    #[must_use]
    pub const fn all() -> Self {
        Self { localizer: true, bone_kernel: true, dose_page: true }
    }
}

/// Side of the localizer and of the dose page, in pixels.
const SIDE: usize = 256;
/// Pixel of the localizer in mm.
const SCOUT_PIXEL_MM: f64 = 1.2;

/// Writes the companions into a folder and returns their files.
pub(crate) fn write(
    which: Companions,
    phantom: &Phantom,
    scene: &Scene,
    identity: &DicomIdentity,
    dir: &Path,
) -> Result<Vec<PathBuf>, PhantomError> {
    let mut files = Vec::new();
    if which.localizer {
        files.extend(localizer(scene, identity, dir)?);
    }
    if which.bone_kernel {
        files.extend(bone(phantom, identity, dir)?);
    }
    if which.dose_page {
        files.push(dose_page(identity, dir)?);
    }
    Ok(files)
}

/// A view from the side: what an X-ray meets on its way from left to right.
fn localizer(scene: &Scene, identity: &DicomIdentity, dir: &Path) -> Result<Vec<PathBuf>, PhantomError> {
    const KIND: &str = "localizer";
    let half = (SIDE as f64 - 1.0) / 2.0 * SCOUT_PIXEL_MM;
    let plane = ImagePlane {
        position: [0.0, scene.scanner.centre[1] - half, scene.scanner.table_mm + half],
        row: [0.0, 1.0, 0.0],
        column: [0.0, 0.0, -1.0],
        spacing: [SCOUT_PIXEL_MM; 2],
        rows: SIDE as u32,
        columns: SIDE as u32,
    };
    let hu: Vec<i16> = (0..SIDE * SIDE)
        .into_par_iter()
        .map(|at| shadow(scene, plane.point((at / SIDE) as f64, (at % SIDE) as f64)))
        .collect();
    let options = PhantomOptions { tilt_degrees: 0.0, storage: Storage::Signed16, ..scene.options.clone() };
    let series = Series {
        identity,
        options: &options,
        instance: identity.series(KIND),
        number: 1,
        description: "SCOUT LATERAL SYNTHETIC",
        kind: "LOCALIZER",
        kernel: "NONE",
        window: [0.0, 1200.0],
    };
    let image = Image { sop_instance: identity.instance(KIND, 0), number: 1, plane, hu: &hu, circle_mm: None };
    write_series(&series, std::iter::once(image), dir, "scout")
}

/// Mean attenuation along a line from left to right, on the localizer's own scale.
fn shadow(scene: &Scene, p: [f64; 3]) -> i16 {
    const STEP_MM: f64 = 8.0;
    const STEPS: i32 = 12;
    let sum: f32 = (-STEPS..=STEPS)
        .map(|i| {
            let at = scene.to_head([f64::from(i) * STEP_MM, p[1], p[2]]);
            let place = scene.head.place(at);
            if scene.is_air(at) || norm(at) > 150.0 {
                AIR
            } else if place.depth() > 0.0 {
                35.0
            } else {
                scene.outside.hu(at, &place, &scene.head, scene.brain.noise(), 1.0)
            }
        })
        .sum();
    (sum / (2 * STEPS + 1) as f32 * 1.6 + 600.0).clamp(-1024.0, 3071.0) as i16
}

/// The phantom's slices with edges and noise enhanced.
fn bone(phantom: &Phantom, identity: &DicomIdentity, dir: &Path) -> Result<Vec<PathBuf>, PhantomError> {
    const KIND: &str = "bone";
    let sharp: Vec<Vec<i16>> = phantom
        .slices
        .par_iter()
        .enumerate()
        .map(|(index, slice)| {
            let columns = slice.plane.columns as usize;
            let image: Vec<f32> = slice.hu.iter().map(|hu| f32::from(*hu)).collect();
            let mut low = image.clone();
            blur(&mut low, columns, 1.2);
            let mut rng = generator(phantom.seed, stream::COMPANIONS + ((index as u64) << 16));
            let grain = grain(&mut rng, image.len() / columns, columns, 0.3);
            let noise = 5.0 * phantom.options.noise_hu;
            image
                .iter()
                .zip(low.iter().zip(&grain))
                .map(|(hu, (low, grain))| (hu + 1.3 * (hu - low) + noise * grain).clamp(-1024.0, 3071.0) as i16)
                .collect()
        })
        .collect();
    let series = Series {
        identity,
        options: &phantom.options,
        instance: identity.series(KIND),
        number: 3,
        description: "HEAD BONE SYNTHETIC",
        kind: "AXIAL",
        kernel: "BONEPLUS",
        window: [600.0, 2800.0],
    };
    let images = phantom.slices.iter().zip(&sharp).enumerate().map(|(index, (slice, hu))| Image {
        sop_instance: identity.instance(KIND, index),
        number: index + 1,
        plane: slice.plane,
        hu,
        circle_mm: phantom.circle_mm,
    });
    write_series(&series, images, dir, "bone")
}

/// A screen page with a table, as scanners store their doses.
fn dose_page(identity: &DicomIdentity, dir: &Path) -> Result<PathBuf, PhantomError> {
    const KIND: &str = "dose-page";
    let sop_instance = identity.instance(KIND, 0);
    let mut set = common(identity, uids::SECONDARY_CAPTURE_IMAGE_STORAGE, &sop_instance);
    set.text(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY\\SCREEN SAVE")
        .text(tags::MODALITY, VR::CS, "CT")
        .text(tags::CONVERSION_TYPE, VR::CS, "WSD")
        .text(tags::SERIES_DESCRIPTION, VR::LO, "DOSE REPORT SYNTHETIC")
        .text(tags::SERIES_INSTANCE_UID, VR::UI, identity.series(KIND).as_str())
        .text(tags::SERIES_NUMBER, VR::IS, "999")
        .text(tags::INSTANCE_NUMBER, VR::IS, "1")
        .text(tags::PATIENT_ORIENTATION, VR::CS, "")
        .number(tags::SAMPLES_PER_PIXEL, 1)
        .text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2")
        .number(tags::ROWS, SIDE as u16)
        .number(tags::COLUMNS, SIDE as u16)
        .number(tags::BITS_ALLOCATED, 8)
        .number(tags::BITS_STORED, 8)
        .number(tags::HIGH_BIT, 7)
        .number(tags::PIXEL_REPRESENTATION, 0);
    let page: Vec<u8> = (0..SIDE * SIDE)
        .map(|at| {
            let (row, column) = (at / SIDE, at % SIDE);
            let ruled = (40..216).contains(&row) && (row % 22 == 18 || column % 62 == 4);
            if ruled { 255 } else { 0 }
        })
        .collect();
    set.0.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(page)));
    let path = dir.join("dose-0001.dcm");
    write_object(set.0, uids::SECONDARY_CAPTURE_IMAGE_STORAGE, &sop_instance, &path)?;
    Ok(path)
}
