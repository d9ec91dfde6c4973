//! Presentation states: their contours are the mask, and others can use them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ichor_result::{
    PresentationInput, Provenance, ResultError, SliceMask, check_presentation, is_own_object, write_presentation,
};
use support::{Series, blobs, model, one_lesion, run, tilted};
use time::macros::datetime;

const STEPS: &[f64] = &[4.5; 5];

#[test]
fn contours_are_the_mask_and_others_can_use_them() {
    let folder = tempfile::tempdir().unwrap();
    let planes = tilted(48, 40, 12.0, STEPS);
    let series = Series::new(planes.clone());
    let (header, slices) = series.write(folder.path());
    let model = model();
    let provenance = Provenance {
        header: &header,
        model: &model,
        configuration_digest: "sha256:00ff",
        version: 1,
        accepted_at: datetime!(2026-01-02 03:14:15.5 +1),
        series_number: None,
        looked_up_accession: None,
        research_notice: Some("For research use only"),
    };
    let masks = blobs(&planes, |i| i == 1 || i == 3);
    let lesions = one_lesion(&planes, &masks);
    let write = |masks: &[SliceMask], rescale| {
        let mut bytes = Vec::new();
        write_presentation(&PresentationInput { provenance, slices: &slices, masks, rescale }, &mut bytes)
            .map(|_| bytes)
    };
    let bytes = write(&lesions, [1.0, -1024.0]).unwrap();
    check_presentation(&bytes[..]).unwrap();
    assert_eq!(write(&lesions, [1.0, -1024.0]).unwrap(), bytes, "the same input gives the same bytes");
    let path = folder.path().join("pr.dcm");
    std::fs::write(&path, &bytes).unwrap();
    let object = dicom_object::open_file(&path).unwrap();
    assert!(is_own_object(&object));

    // Each contour, filled by the even-odd rule, is the mask of its slice.
    let annotations = object.element(tags::GRAPHIC_ANNOTATION_SEQUENCE).unwrap().items().unwrap();
    assert_eq!(annotations.len(), 2);
    for (annotation, at) in annotations.iter().zip([1, 3]) {
        let image = &annotation.element(tags::REFERENCED_IMAGE_SEQUENCE).unwrap().items().unwrap()[0];
        let uid = image.element(tags::REFERENCED_SOP_INSTANCE_UID).unwrap().to_str().unwrap().into_owned();
        assert_eq!(uid.trim_end_matches('\0'), slices[at].sop_instance.as_str());
        let graphics = annotation.element(tags::GRAPHIC_OBJECT_SEQUENCE).unwrap().items().unwrap();
        let points =
            |graphic: &InMemDicomObject| graphic.element(tags::GRAPHIC_DATA).unwrap().to_multi_float32().unwrap();
        let lines: Vec<Vec<f32>> = graphics.iter().map(points).collect();
        let crosses = |row: f32, column: f32, line: &[f32]| {
            let (top, bottom) = (line[1].min(line[3]), line[1].max(line[3]));
            line[0] == line[2] && line[0] < column && top < row && row < bottom
        };
        let inside = |row: usize, column: usize| {
            let (row, column) = (row as f32 + 0.5, column as f32 + 0.5);
            let ways = lines.iter().flat_map(|line| line.windows(4).step_by(2));
            ways.filter(|way| crosses(row, column, way)).count() % 2 == 1
        };
        let mask = masks[at].as_ref().unwrap();
        for (place, value) in mask.iter().enumerate() {
            assert_eq!(inside(place / 40, place % 40), *value != 0, "pixel {place} of slice {at}");
        }
    }

    let file = path.to_str().unwrap();
    for tool in ["dciodvfy", "dcentvfy"] {
        let Some(output) = run(tool, &[file]) else { continue };
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        assert!(!said.lines().any(|line| line.starts_with("Error") || line.starts_with("Warning")), "{tool}: {said}");
    }
    // DCMTK applies it to the very image that it speaks of, contours and words drawn.
    let source = series.write_slice(folder.path(), 1);
    let picture = folder.path().join("picture.pgm");
    if let Some(output) = run("dcmp2pgm", &["-p", file, source.to_str().unwrap(), picture.to_str().unwrap()]) {
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        assert!(output.status.success() && !said.contains("E:"), "dcmp2pgm: {said}");
        assert!(std::fs::metadata(&picture).unwrap().len() > 48 * 40);
    }
    if let Some(output) = run("dcmpschk", &[file]) {
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        assert!(output.status.success() && !said.lines().any(|line| line.starts_with("E:")), "dcmpschk: {said}");
    }
    let script = "import sys, pydicom, highdicom as hd\n\
        pr = pydicom.dcmread(sys.argv[1])\n\
        layers = [l.GraphicLayer for l in pr.GraphicLayerSequence]\n\
        used = {a.GraphicLayer for a in pr.GraphicAnnotationSequence}\n\
        assert used == set(layers), (used, layers)\n\
        for annotation in pr.GraphicAnnotationSequence:\n    \
            for graphic in annotation.GraphicObjectSequence:\n        \
                data = hd.pr.GraphicObject(hd.pr.GraphicTypeValues.POLYLINE, \
                    __import__('numpy').array(graphic.GraphicData).reshape(-1, 2), hd.pr.AnnotationUnitsValues.PIXEL)\n        \
                assert data.NumberOfGraphicPoints == graphic.NumberOfGraphicPoints\n";
    let python = std::env::var("ICHOR_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if run(&python, &["-c", "import highdicom"]).is_some_and(|output| output.status.success()) {
        let output = run(&python, &["-c", script, file]).unwrap();
        assert!(output.status.success(), "highdicom: {}", String::from_utf8_lossy(&output.stderr));
    } else {
        assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none(), "highdicom is absent");
        eprintln!("skipped: no highdicom");
    }

    assert!(matches!(write(&vec![SliceMask::default(); 6], [1.0, 0.0]), Err(ResultError::NothingToSegment)));
    assert!(matches!(write(&lesions[1..], [1.0, 0.0]), Err(ResultError::MaskCount { .. })));
    assert!(matches!(write(&lesions, [0.0, 0.0]), Err(ResultError::Measurement(_))));
    assert!(check_presentation(&bytes[..bytes.len() / 2]).is_err());
}
