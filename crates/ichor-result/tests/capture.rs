//! Secondary Captures: the right pixels, and what others say of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dicom_dictionary_std::tags;
use ichor_core::ImagePlane;
use ichor_result::{
    CaptureInput, CaptureLook, Provenance, ResultError, SliceMask, SourceHeader, SourceSlice, check_capture,
    is_own_object, write_capture,
};
use proptest::prelude::*;
use support::{Series, model, run, tilted};
use time::macros::datetime;

const PROBABILITIES: [f32; 6] = [0.02, 0.31, 0.93, 0.88, 0.47, 0.05];

struct Case {
    header: SourceHeader,
    slices: Vec<SourceSlice>,
    planes: Vec<ImagePlane>,
    folder: tempfile::TempDir,
}

impl Case {
    fn new(rows: u32, columns: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let planes = tilted(rows, columns, 12.0, &[4.5; 5]);
        let (header, slices) = Series::new(planes.clone()).write(folder.path());
        Self { header, slices, planes, folder }
    }

    fn write(&self, masks: &[SliceMask], look: CaptureLook, at: usize, hu: &[i16]) -> Result<Vec<u8>, ResultError> {
        let model = model();
        let provenance = Provenance {
            header: &self.header,
            model: &model,
            configuration_digest: "sha256:00ff",
            version: 1,
            accepted_at: datetime!(2026-01-02 03:14:15.5 +1),
            series_number: None,
            looked_up_accession: None,
            research_notice: Some("Synthetic data, demonstration only; not for clinical use"),
        };
        let (slices, probabilities, slice_threshold) = (&self.slices[..], &PROBABILITIES[..], 0.5);
        let input = CaptureInput { provenance, slices, probabilities, slice_threshold, masks, look };
        let mut bytes = Vec::new();
        write_capture(&input, at, hu, &mut bytes)?;
        check_capture(&bytes[..]).unwrap();
        Ok(bytes)
    }

    /// A ramp of HU, and a mask of a disc in the slices 2 and 3.
    fn scene(&self) -> (Vec<i16>, Vec<SliceMask>, Vec<u8>) {
        let (rows, columns) = (self.planes[0].rows as i32, self.planes[0].columns as i32);
        let hu = (0..rows * columns).map(|at| (at % columns * 160 / columns - 40 + at / columns % 3) as i16).collect();
        let inside = |at: i32| {
            let (y, x) = (at / columns - rows / 2, at % columns - columns / 3);
            u8::from(x * x + y * y <= (rows / 5) * (rows / 5))
        };
        let disc: Vec<u8> = (0..rows * columns).map(inside).collect();
        let mask = SliceMask::from_labels(&disc, columns as u32);
        let none = SliceMask::default;
        (hu, vec![none(), none(), mask.clone(), mask, none(), none()], disc)
    }
}

#[test]
fn others_see_what_was_painted() {
    let case = Case::new(96, 128);
    let (hu, masks, disc) = case.scene();
    let bytes = case.write(&masks, CaptureLook::default(), 2, &hu).unwrap();
    assert_eq!(bytes, case.write(&masks, CaptureLook::default(), 2, &hu).unwrap(), "the same input, the same bytes");
    let path = case.folder.path().join("capture.dcm");
    std::fs::write(&path, &bytes).unwrap();
    let object = dicom_object::open_file(&path).unwrap();
    assert!(is_own_object(&object));
    assert_eq!(object.element(tags::INSTANCE_NUMBER).unwrap().to_str().unwrap().trim(), "3");
    let file = path.to_str().unwrap();
    for tool in ["dciodvfy", "dcentvfy"] {
        let Some(output) = run(tool, &[file]) else { continue };
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        assert!(!said.lines().any(|line| line.starts_with("Error") || line.starts_with("Warning")), "{tool}: {said}");
    }
    let picture = case.folder.path().join("capture.ppm");
    if let Some(output) = run("dcm2pnm", &["+Wn", file, picture.to_str().unwrap()]) {
        assert!(output.status.success(), "dcm2pnm: {}", String::from_utf8_lossy(&output.stderr));
    }
    let raw = |name: &str, bytes: Vec<u8>| {
        let path = case.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let hu_file = raw("hu", hu.iter().flat_map(|hu| hu.to_le_bytes()).collect());
    let mask_file = raw("mask", disc);
    let arguments = [file, picture.to_str().unwrap(), &hu_file, &mask_file, "96", "128"];
    support::python("compare_capture.py", &arguments);
    // Without a body part the standard wants a side.
    let mut nameless = Series::new(case.planes.clone());
    nameless.without.push(tags::BODY_PART_EXAMINED);
    let (header, slices) = nameless.write(case.folder.path());
    let nameless = Case { header, slices, planes: case.planes.clone(), folder: tempfile::tempdir().unwrap() };
    std::fs::write(&path, nameless.write(&masks, CaptureLook::default(), 2, &hu).unwrap()).unwrap();
    if let Some(output) = run("dciodvfy", &[path.to_str().unwrap()]) {
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        assert!(!said.lines().any(|line| line.starts_with("Error")), "dciodvfy: {said}");
    }
    // Kept to be looked at.
    let artefacts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-artefacts");
    std::fs::create_dir_all(&artefacts).unwrap();
    let _ = std::fs::copy(&picture, artefacts.join("capture.ppm"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new(16, 16);
    let (hu, masks, _) = case.scene();
    let look = CaptureLook::default();
    assert!(matches!(case.write(&masks, look, 6, &hu), Err(ResultError::NoSlices)));
    assert!(matches!(case.write(&masks[1..], look, 0, &hu), Err(ResultError::MaskCount { masks: 5, slices: 6 })));
    let error = case.write(&masks, look, 0, &hu[1..]).unwrap_err().to_string();
    assert!(error.contains("255 pixels of 16 rows x 16 columns"), "{error}");
    let beyond = SliceMask::from_labels(&[1; 17 * 17], 17);
    assert!(matches!(case.write(&vec![beyond; 6], look, 0, &hu), Err(ResultError::Mask { .. })));
    assert!(check_capture(&b"no object"[..]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the slice holds, what leaves passes the check.
    #[test]
    fn any_slice_is_painted(
        (rows, columns) in (1u32..40, 1u32..40),
        seed: u32,
        window_center: i16,
        window_width: u16,
        opacity_percent: u8,
    ) {
        let case = Case::new(rows, columns);
        let pixels = rows as usize * columns as usize;
        let noise = |at: usize| (seed ^ at as u32).wrapping_mul(2_654_435_761) >> 16;
        let hu: Vec<i16> = (0..pixels).map(|at| noise(at) as i16).collect();
        let labels: Vec<u8> = (0..pixels).map(|at| u8::from(noise(at + pixels) % 3 == 0)).collect();
        let masks = vec![SliceMask::from_labels(&labels, columns); 6];
        let look = CaptureLook { window_center, window_width, opacity_percent };
        for at in [0, 5] {
            prop_assert!(case.write(&masks, look, at, &hu).is_ok());
        }
    }
}
