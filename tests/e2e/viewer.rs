//! What a user sees: cornerstone3D loads source and Segmentation from the PACS and shows one over the other.

use std::collections::HashMap;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;

use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Destination, Settings};
use crate::support::dcmtk::StoreScu;
use crate::support::judge::{Judgement, read_segmentation};
use crate::support::orthanc::Orthanc;
use crate::support::seconds;
use crate::support::study::Study;
use crate::support::tools::requires;
use crate::support::viewer::{Difference, Shown, artefacts, show, show_from};

/// Levels of 255 that a grey value may be off: rounding, on the way through a texture and a table.
const GREY_TOLERANCE: f64 = 2.0;

/// A mask of a slice by its SOP instance: every segment of every frame together.
fn masks(judgement: &Judgement) -> HashMap<&str, Vec<u8>> {
    let pixels = judgement.rows * judgement.columns;
    let mut masks: HashMap<&str, Vec<u8>> = HashMap::new();
    for (frame, mask) in judgement.frames.iter().zip(judgement.masks.chunks_exact(pixels)) {
        let whole = masks.entry(&frame.source_sop_instance).or_insert_with(|| vec![0; pixels]);
        whole.iter_mut().zip(mask).for_each(|(whole, one)| *whole |= *one);
    }
    masks
}

/// The mask, so many pixels further.
fn shifted(mask: &[u8], by: usize) -> Vec<u8> {
    let mut shifted = mask.to_vec();
    shifted.rotate_right(by);
    shifted
}

/// Hounsfield units of an uncompressed slice, by its file alone.
fn hounsfield(path: &std::path::Path) -> Vec<f64> {
    let object = dicom_object::open_file(path).unwrap();
    let number = |tag| object.element(tag).unwrap().to_float64().unwrap();
    let (slope, intercept) = (number(tags::RESCALE_SLOPE), number(tags::RESCALE_INTERCEPT));
    let is_signed = number(tags::PIXEL_REPRESENTATION) == 1.0;
    let cell = |pair: &[u8]| match is_signed {
        true => f64::from(i16::from_le_bytes([pair[0], pair[1]])),
        false => f64::from(u16::from_le_bytes([pair[0], pair[1]])),
    };
    let bytes = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
    bytes.chunks_exact(2).map(|pair| cell(pair) * slope + intercept).collect()
}

/// The overlay is the mask, pixel by pixel, on every slice; one that is absent or one voxel off would be found.
fn check_overlay(shown: &Shown, judgement: &Judgement) {
    let (rows, columns) = (judgement.rows, judgement.columns);
    let masks = masks(judgement);
    let empty = vec![0; rows * columns];
    let mut marked = 0;
    for (index, slice) in shown.slices.iter().enumerate() {
        let mask = masks.get(slice.uid.as_str());
        let found = slice.overlay_against(mask.unwrap_or(&empty), rows, columns);
        assert_eq!(found, Difference::default(), "overlay of slice {index}");
        let Some(mask) = mask else { continue };
        marked += 1;
        // The comparison itself: it must see no overlay, and a shift in each direction.
        assert_ne!(slice.overlay_against(&empty, rows, columns).extra, 0, "slice {index} shows no overlay");
        for (direction, by) in [("column", 1), ("row", columns)] {
            let found = slice.overlay_against(&shifted(mask, by), rows, columns);
            assert!(found.missing > 0 && found.extra > 0, "a shift by a {direction} is not seen on slice {index}");
        }
        for neighbour in [index.wrapping_sub(1), index + 1] {
            let Some(neighbour) = shown.slices.get(neighbour) else { continue };
            let found = neighbour.overlay_against(mask, rows, columns);
            assert_ne!(found, Difference::default(), "a shift by a slice is not seen from slice {index}");
        }
    }
    assert_eq!(marked, masks.len(), "a masked slice is not shown");
    assert!(marked > 0);
}

/// The pictures under the overlay are the slices, in the order of the table.
fn check_source(shown: &Shown, study: &Study, judgement: &Judgement) {
    assert_eq!(shown.slices.len(), study.instances.len());
    for (slice, instance) in shown.slices.iter().zip(&study.instances) {
        assert_eq!((&slice.uid, slice.frame), (&instance.sop_instance, 1));
        let off = slice.grey_against(&hounsfield(&instance.path), judgement.rows, judgement.columns);
        assert!(off <= GREY_TOLERANCE, "{} is {off} levels off", instance.sop_instance);
    }
}

fn by_c_store(pacs: &Orthanc) -> Settings {
    Settings::to([Destination::c_store(pacs)])
}

/// Sends a study, lets the Segmentation come to the PACS, puts the source beside it, and looks.
fn seen(name: &str, settings: impl FnOnce(&Orthanc) -> Settings, edit: impl FnOnce(Study, &Daemon) -> Study) {
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&settings(&pacs));
    let study = edit(called_positive()[0].write(&daemon.folder("study")), &daemon);
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    let segmentation = pacs.wait_for_segmentation(&study.study_uid, seconds(30));
    pacs.keep(&study);
    let judgement = read_segmentation(&pacs.fetch(&segmentation));

    let shown = show(&pacs, &study.study_uid, &artefacts(name));
    assert_eq!(shown.segments, judgement.segments.len());
    check_source(&shown, &study, &judgement);
    check_overlay(&shown, &judgement);
}

#[test]
fn viewer_shows_the_mask_where_it_is() {
    requires!(Dcmtk, Orthanc, Highdicom, Viewer);
    seen("viewer", by_c_store, |study, _| study);
}

#[test]
fn viewer_shows_source_and_mask_from_ichor_itself() {
    requires!(Dcmtk, Highdicom, Viewer);
    // A destination that nobody is at: the Segmentation is made all the same, and lies here only. The viewer shows no token.
    let sections = "[[destination]]\nname = \"shelf\"\nkind = \"c-store\"\naddress = \"127.0.0.1:9\"\nae_title = \"NOBODY\"\n\n\
                    [[dicomweb.client]]\nname = \"VIEWER\"\nnetworks = [\"127.0.0.0/8\"]\nmay = [\"search\", \"retrieve\"]\n";
    let daemon = Daemon::start(&Settings { stow: true, sections: sections.to_owned(), ..Settings::default() });
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
    let object = daemon.show(&study.study_uid)["objects"][0].clone();
    let judgement = read_segmentation(std::path::Path::new(object["path"].as_str().unwrap()));

    let shown = show_from(daemon.web_port, &study.study_uid, &artefacts("viewer-ichor"));
    assert_eq!(shown.segments, judgement.segments.len());
    check_source(&shown, &study, &judgement);
    check_overlay(&shown, &judgement);
}

#[test]
fn viewer_shows_a_label_map_where_it_is() {
    requires!(Dcmtk, Orthanc, Highdicom, Viewer);
    // Orthanc's Storage SCP does not know the class, its STOW-RS takes it.
    let label_map = |pacs: &Orthanc| Settings {
        sections: "[destination.segmentation]\ntype = \"labelmap\"\n".to_owned(),
        ..Settings::to([Destination::stow_rs(pacs)])
    };
    seen("viewer-labelmap", label_map, |study, _| study);
}

#[test]
fn viewer_shows_the_mask_of_a_tilted_gantry_where_it_is() {
    requires!(Dcmtk, Orthanc, Highdicom, Viewer);
    let tilt = 15f64.to_radians();
    let tilted = |study: Study, daemon: &Daemon| {
        study.edited(&daemon.folder("tilted"), |_, object| {
            let orientation = PrimitiveValue::from(format!("1\\0\\0\\0\\{:.8}\\{:.8}", tilt.cos(), -tilt.sin()));
            object.put(DataElement::new(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, orientation));
        })
    };
    seen("viewer-tilted", by_c_store, tilted);
}

#[test]
fn comparison_of_hounsfield_units_reads_the_file() {
    // What the pictures are held against must not be flat, or everything would pass.
    let scratch = crate::support::scratch::Scratch::new("hounsfield");
    let study = crate::support::study::Phantom::BLEEDING.slices(8).write(&scratch.folder("study"));
    let hu = hounsfield(&study.instances[4].path);
    let (air, bone) = (hu.iter().copied().fold(f64::MAX, f64::min), hu.iter().copied().fold(f64::MIN, f64::max));
    assert!(air < -900.0 && bone > 500.0, "{air} to {bone} HU");
}
