//! Key Object Selections, and what others read in them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ichor_core::Uid;
use ichor_result::{
    KeyObjectInput, Provenance, ResultError, SegmentationReference, SourceSlice, check_key_objects, is_own_object,
    write_key_objects,
};
use support::{Series, model, run, tilted};
use time::macros::datetime;

#[test]
fn selection_names_its_slices() {
    let folder = tempfile::tempdir().unwrap();
    let (header, slices) = Series::new(tilted(16, 16, 12.0, &[4.5; 5])).write(folder.path());
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
    let chosen: Vec<(SourceSlice, f64)> =
        [(1, 0.81), (2, 0.974), (4, 0.66)].map(|(at, p): (usize, f64)| (slices[at].clone(), p)).to_vec();
    let segmentation = SegmentationReference {
        sop_class: Uid::parse("1.2.840.10008.5.1.4.1.1.66.4").unwrap(),
        sop_instance: Uid::parse("2.25.77").unwrap(),
        series_instance: Uid::parse("2.25.78").unwrap(),
    };
    let write = |slices: &[(SourceSlice, f64)], segmentation| {
        let mut bytes = Vec::new();
        write_key_objects(&KeyObjectInput { provenance, slices, segmentation }, &mut bytes)
            .map(|object| (object, bytes))
    };
    let (selection, bytes) = write(&chosen, Some(&segmentation)).unwrap();
    check_key_objects(&bytes[..]).unwrap();
    assert_eq!(write(&chosen, Some(&segmentation)).unwrap().1, bytes, "the same input gives the same bytes");
    assert_ne!(write(&chosen, None).unwrap().0.sop_instance, selection.sop_instance);

    let path = folder.path().join("ko.dcm");
    std::fs::write(&path, &bytes).unwrap();
    let object = dicom_object::open_file(&path).unwrap();
    assert!(is_own_object(&object));
    let file = path.to_str().unwrap();
    for tool in ["dciodvfy", "dcentvfy"] {
        let Some(output) = run(tool, &[file]) else { continue };
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        assert!(!said.lines().any(|line| line.starts_with("Error") || line.starts_with("Warning")), "{tool}: {said}");
    }
    if let Some(output) = run("dsrdump", &["+Pl", file]) {
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        assert!(
            said.contains("Key Object Selection Document") && !said.lines().any(|line| line.starts_with("E:")),
            "{said}"
        );
        assert!(said.contains("81 %, 97 %, 66 %") && said.contains("For research use only"), "{said}");
    }
    let script = "import sys, highdicom as hd, pydicom\n\
        ko = hd.ko.KeyObjectSelectionDocument.from_dataset(pydicom.dcmread(sys.argv[1]))\n\
        assert ko.content.get_observer_contexts()[0].observer_identifying_attributes.manufacturer_name == 'ichor'\n\
        found = [r.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for r in ko.content.get_references()]\n\
        assert found == sys.argv[2:], found\n\
        study, series, sop = ko.resolve_reference(found[0])\n\
        assert study == '2.25.100' and series == '2.25.200', (study, series)\n";
    let python = std::env::var("ICHOR_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut expected: Vec<&str> = chosen.iter().map(|(slice, _)| slice.sop_instance.as_str()).collect();
    expected.push(segmentation.sop_instance.as_str());
    let has_highdicom = run(&python, &["-c", "import highdicom"]).is_some_and(|output| output.status.success());
    if has_highdicom {
        let output = run(&python, &[&["-c", script, file], &expected[..]].concat()).unwrap();
        assert!(output.status.success(), "highdicom: {}", String::from_utf8_lossy(&output.stderr));
    } else {
        assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none(), "highdicom is absent");
        eprintln!("skipped: no highdicom");
    }

    assert!(matches!(write(&[], None), Err(ResultError::NoSlices)));
    assert!(matches!(write(&[(slices[0].clone(), f64::NAN)], None), Err(ResultError::Measurement(_))));
    let without = |tag| {
        let mut object = dicom_object::open_file(&path).unwrap();
        let data: &mut InMemDicomObject = &mut object;
        assert!(data.remove_element(tag));
        let mut bytes = Vec::new();
        object.write_all(&mut bytes).unwrap();
        check_key_objects(&bytes[..]).unwrap_err().to_string()
    };
    assert!(without(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE).contains("there is no evidence"));
    assert!(without(tags::MODALITY).contains("modality"));
}
