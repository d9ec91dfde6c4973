//! A scan's slices in Hounsfield units, with what was drawn on them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ichor_core::ImagePlane;
use ichor_ct::volume::{Slice, read_slice, read_slice_from};

use super::catalogue::{Place, Scan, VolumeFiles};
use super::headers::with_plain_meta;
use super::nifti::{Extent, Slicer};

/// A decoded slice.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// Values and plane.
    pub slice: Slice,
    /// Drawn hemorrhage, 0 or 1; absent where the source has none.
    pub mask: Option<Vec<u8>>,
    /// Brain mask that came with the scan, 0 or 1.
    pub brain: Option<Vec<u8>>,
}

/// Decodes the scan's labelled slices in their order, one at a time; `each` hears the slice's index and what it is, or its name
/// and what is wrong with it.
pub fn decode(scan: &Scan, mut each: impl FnMut(usize, Result<Decoded, String>)) {
    match &scan.volume {
        Some(files) => decode_volume(scan, files, each),
        None => {
            for (index, slice) in scan.slices.iter().enumerate() {
                let read = match &slice.place {
                    Place::Dicom(path) => read_dicom(path),
                    Place::Volume(at) => Err(format!("slice {at} of no volume")),
                };
                each(index, read.map(|slice| Decoded { slice, mask: None, brain: None }));
            }
        }
    }
}

fn read_dicom(path: &Path) -> Result<Slice, String> {
    let name = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    // A codec that panics over a corrupt file must not take a training of days along.
    let read = || {
        read_slice(path).or_else(|error| match with_plain_meta(path) {
            Ok(file) => read_slice_from(file),
            Err(_) => Err(error),
        })
    };
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(slice)) => Ok(slice),
        Ok(Err(error)) => Err(format!("{name}: {error}")),
        Err(_) => Err(format!("{name}: the decoder gave up")),
    }
}

fn decode_volume(scan: &Scan, files: &VolumeFiles, mut each: impl FnMut(usize, Result<Decoded, String>)) {
    let mut wanted = scan.slices.iter().enumerate().filter_map(|(index, slice)| match slice.place {
        Place::Volume(at) => Some((index, at)),
        Place::Dicom(_) => None,
    });
    let named = |path: &Path, why: String| format!("{}: {why}", path.display());
    let mut open = |path: &Path| Slicer::open(path).map_err(|why| named(path, why));
    let opened = open(&files.ct)
        .and_then(|ct| Ok((ct, files.mask.as_deref().map(&mut open).transpose()?)))
        .and_then(|(ct, mask)| Ok((ct, mask, files.brain.as_deref().map(&mut open).transpose()?)));
    let (mut ct, mut mask, mut brain) = match opened {
        Ok(opened) => opened,
        Err(why) => return wanted.for_each(|(index, _)| each(index, Err(why.clone()))),
    };
    let extent = ct.extent();
    let mut next = wanted.next();
    for at in 0..extent.slices {
        let Some((index, place)) = next else { return };
        // Every slice is read: volumes are streams.
        let values = ct.next().unwrap_or_else(|| Err("ends too early".to_owned()));
        let drawn = |slicer: &mut Option<Slicer>| match slicer {
            Some(slicer) => slicer.next().unwrap_or_else(|| Err("a mask ends too early".to_owned())).map(Some),
            None => Ok(None),
        };
        let (mask, brain) = (drawn(&mut mask), drawn(&mut brain));
        if at == place {
            let decoded = values.and_then(|values| {
                let bits = |values: Vec<f32>| values.into_iter().map(|v| u8::from(v > 0.0)).collect::<Vec<u8>>();
                let slice = Slice { hu: values.into_iter().map(hu).collect(), plane: plane(&extent, at), window: None };
                // A scan without a mask is one where nothing was drawn.
                let mask = mask?.map_or_else(|| vec![0; extent.rows * extent.columns], bits);
                Ok(Decoded { slice, mask: Some(mask), brain: brain?.map(bits) })
            });
            each(index, decoded.map_err(|why| named(&files.ct, format!("slice {}: {why}", at + 1))));
            next = wanted.next();
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped first")]
fn hu(value: f32) -> i16 {
    if value.is_finite() { value.round().clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16 } else { -1024 }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "sides are a few thousand at most")]
fn plane(extent: &Extent, at: usize) -> ImagePlane {
    ImagePlane {
        position: [0.0, 0.0, at as f64 * extent.spacing[2]],
        row: [1.0, 0.0, 0.0],
        column: [0.0, 1.0, 0.0],
        spacing: [extent.spacing[0], extent.spacing[1]],
        rows: extent.rows as u32,
        columns: extent.columns as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::physionet::{catalogue, tests};

    #[test]
    fn a_volume_comes_with_its_masks() {
        let folder = tempfile::tempdir().unwrap();
        tests::published(folder.path(), 1);
        let scan = &catalogue(&tests::recipe(folder.path())).unwrap().scans[0];
        let mut drawn = Vec::new();
        decode(scan, |index, decoded| {
            let Decoded { slice, mask, brain } = decoded.unwrap();
            assert_eq!((slice.plane.rows, slice.plane.columns, slice.hu.len()), (20, 24, 480));
            assert!((slice.plane.position[2] - 5.0 * index as f64).abs() < 1e-9 && brain.is_none());
            let mask = mask.unwrap();
            assert!(slice.hu.iter().zip(&mask).all(|(hu, mask)| (*hu == 70) == (*mask == 1)));
            drawn.push(mask.iter().filter(|m| **m == 1).count());
            if index == 1 {
                // x 14..18, y 12..17 of the array: columns 14..18, rows 20 − 17 .. 20 − 12.
                let first = mask.iter().position(|m| *m == 1).unwrap();
                assert_eq!((first / 24, first % 24), (3, 14));
            }
        });
        assert_eq!(drawn, [0, 20, 20, 0]);
    }

    #[test]
    fn a_volume_that_is_cut_short_loses_its_last_slices_only() {
        let folder = tempfile::tempdir().unwrap();
        tests::published(folder.path(), 1);
        let scan = &catalogue(&tests::recipe(folder.path())).unwrap().scans[0];
        let path = folder.path().join("ct_scans/049.nii");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
        let mut fates = Vec::new();
        decode(scan, |_, decoded| fates.push(decoded.map(|_| ())));
        assert!(fates[..3].iter().all(Result::is_ok));
        assert!(fates[3].as_ref().unwrap_err().contains("049.nii: slice 4"), "{fates:?}");
    }
}
