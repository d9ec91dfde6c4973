//! highdicom's reading of a Segmentation, beside our own of the bare bits.

use std::path::Path;
use std::process::Command;

use dicom_dictionary_std::tags;
use dicom_object::open_file;
use serde::Deserialize;

use super::tools::python;

/// A Segmentation as highdicom reads it.
#[derive(Debug, Deserialize)]
pub(crate) struct Judgement {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) segmentation_type: String,
    pub(crate) segments: Vec<Segment>,
    pub(crate) frames: Vec<Frame>,
    /// The masks, one byte a pixel, in the order of `frames`: 0 or 1, or in a label map the segments' numbers.
    #[serde(skip)]
    pub(crate) masks: Vec<u8>,
}

/// One segment's description.
#[derive(Debug, Deserialize)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) label: String,
    pub(crate) property_type: String,
    pub(crate) algorithm_type: String,
    pub(crate) algorithm_name: String,
    pub(crate) algorithm_version: String,
    pub(crate) tracking_uid: String,
}

/// One frame: where it lies, which image it was drawn on, and how much is marked.
#[derive(Debug, Deserialize)]
pub(crate) struct Frame {
    pub(crate) source_sop_instance: String,
    /// The frame of that image, where it has several.
    pub(crate) source_frame: Option<u32>,
    pub(crate) position: [f64; 3],
    pub(crate) orientation: [f64; 6],
    pub(crate) spacing: [f64; 2],
    /// None in a label map.
    pub(crate) segment: Option<u32>,
    pub(crate) pixels: usize,
}

/// Lets highdicom read a Segmentation.
pub(crate) fn read_segmentation(file: &Path) -> Judgement {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/judges/read_seg.py");
    let masks = file.with_extension("masks");
    let output = Command::new(python()).arg(script).arg(file).arg(&masks).output().unwrap();
    assert!(output.status.success(), "highdicom refuses the object: {}", String::from_utf8_lossy(&output.stderr));
    let mut judgement: Judgement = serde_json::from_slice(&output.stdout).unwrap();
    judgement.masks = std::fs::read(&masks).unwrap();
    judgement
}

/// What pydicom at its strictest finds wrong with an object as it was delivered; empty if nothing.
pub(crate) fn pydicom_complaints(file: &Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/judges/read_strictly.py");
    let output = Command::new(python()).arg(script).arg(file).output().unwrap();
    let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    if output.status.success() { String::new() } else { said }
}

/// Unpacks the frames of a BINARY Segmentation from the bits themselves: least significant bit first, frames following
/// each other without padding (PS3.5 8.1.1, PS3.3 C.8.20.2). One byte a pixel.
pub(crate) fn unpacked_bits(file: &Path) -> Vec<u8> {
    let object = open_file(file).unwrap();
    let number = |tag| object.element(tag).unwrap().to_int::<usize>().unwrap();
    let pixels = number(tags::ROWS) * number(tags::COLUMNS) * number(tags::NUMBER_OF_FRAMES);
    let bytes = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
    (0..pixels).map(|i| (bytes[i / 8] >> (i % 8)) & 1).collect()
}
