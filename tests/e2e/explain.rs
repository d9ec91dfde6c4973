//! `ichor explain`: what the model says of single slices, as pictures.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use serde_json::Value;

use crate::support::daemon::ICHOR;
use crate::support::scratch::Scratch;
use crate::support::study::{Phantom, Study};

/// The contour's colour.
const RED: [u8; 3] = [255, 72, 64];

fn explain(files: &[PathBuf], out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(ICHOR);
    command.arg("explain").args(files).arg("--out").arg(out).args(["--device", "cpu"]).args(more);
    command.output().unwrap()
}

fn said(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("explain.json")).unwrap()).unwrap()
}

/// A picture's columns, rows, RGB pixels and text chunks.
struct Png {
    columns: usize,
    rows: usize,
    rgb: Vec<u8>,
    texts: Vec<(String, String)>,
}

impl Png {
    fn read(path: &str) -> Self {
        let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgb);
        let texts = reader.info().utf8_text.iter().map(|t| (t.keyword.clone(), t.get_text().unwrap())).collect();
        Self { columns: info.width as usize, rows: info.height as usize, rgb, texts }
    }

    fn pixel(&self, row: usize, column: usize) -> [u8; 3] {
        let at = (row * self.columns + column) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }
}

/// Slices through the bleed's middle: those with the most pixels of truth lie where the phantom has them; the middle of the
/// stack is where most bleeds are.
fn middle(study: &Study, count: usize) -> Vec<PathBuf> {
    let start = study.instances.len() / 2 - count / 2;
    study.paths()[start..start + count].to_vec()
}

#[test]
fn slices_become_pictures_and_the_contour_encloses_the_mask() {
    let scratch = Scratch::new("explain");
    let study = Phantom::BLEEDING.write(&scratch.folder("study"));
    let out = scratch.folder("out");
    let files = middle(&study, 6);
    let output = explain(&files, &out, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = said(&out);
    let notice = "synthetic data, demonstration only; not for clinical use";
    assert_eq!(said["notice"], notice);
    let slices = said["slices"].as_array().unwrap();
    assert_eq!((slices.len(), said["failures"].as_array().unwrap().len()), (6, 0));
    for slice in slices {
        let probability = slice["probability"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&probability));
        assert_eq!(slice["positive"], probability >= said["slice_threshold"].as_f64().unwrap());
        let picture = |name: &str| Png::read(slice["pictures"][name].as_str().unwrap());
        let (mask, plain) = (picture("mask"), picture("slice"));
        assert_eq!((mask.columns, mask.rows), (256, 256));
        let inside = |row: usize, column: usize| mask.pixel(row, column) == [255; 3];
        let pixels = (0..256 * 256).filter(|at| inside(at / 256, at % 256)).count();
        assert_eq!(slice["mask_pixels"], pixels);
        assert_encloses(&picture("contour"), &inside, &plain);
        let map = picture("map");
        assert!(map.columns > 2 * 256 && map.rows == 2 * 256, "with its legend");
        let all = picture("all");
        assert!(all.columns > 2 * 512 && all.rows > 2 * 512);
        for picture in [&mask, &map, &all] {
            let of = |keyword: &str| picture.texts.iter().find(|text| text.0 == keyword).unwrap().1.clone();
            assert_eq!(of("Disclaimer"), notice);
            assert!(of("Description").contains(said["model"].as_str().unwrap()));
        }
    }
    let masked = slices.iter().filter(|slice| slice["mask_pixels"].as_u64().unwrap() > 0).count();
    assert!(masked > 0, "no slice has a mask: nothing was tested");
}

/// Filling the picture from its corner, without stepping on the contour, never comes into the mask; and off the contour the
/// picture is the slice's.
fn assert_encloses(contour: &Png, inside: &dyn Fn(usize, usize) -> bool, plain: &Png) {
    let scale = contour.columns / plain.columns;
    assert!(scale >= 1 && contour.rows == plain.rows * scale);
    let is_inside = |row: usize, column: usize| inside(row / scale, column / scale);
    let mut seen = vec![false; contour.rows * contour.columns];
    let mut stack = vec![(0, 0)];
    assert!(!is_inside(0, 0));
    while let Some((row, column)) = stack.pop() {
        let at = row * contour.columns + column;
        if contour.pixel(row, column) == RED || std::mem::replace(&mut seen[at], true) {
            continue;
        }
        assert!(!is_inside(row, column), "the contour is open at row {row}, column {column}");
        for near_row in row.saturating_sub(1)..(row + 2).min(contour.rows) {
            for near_column in column.saturating_sub(1)..(column + 2).min(contour.columns) {
                stack.push((near_row, near_column));
            }
        }
    }
    for row in 0..contour.rows {
        for column in 0..contour.columns {
            let pixel = contour.pixel(row, column);
            assert!(pixel == RED || pixel == plain.pixel(row / scale, column / scale));
        }
    }
}

#[test]
fn bad_files_are_named_and_the_others_go_on() {
    let scratch = Scratch::new("explain-bad");
    let study = Phantom::BLEEDING.slices(6).matrix(128).write(&scratch.folder("study"));
    let broken = study.edited(&scratch.folder("broken"), |index, object| match index {
        1 => object
            .put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(vec![0u16; 100].into())))
            .map_or((), drop),
        2 => drop(object.remove_element(tags::IMAGE_ORIENTATION_PATIENT)),
        3 => drop(object.remove_element(tags::RESCALE_SLOPE)),
        _ => {}
    });
    let by_index = |index: usize| broken.folder.join(format!("{index:05}.dcm"));
    let words = scratch.path().join("words.txt");
    std::fs::write(&words, "no DICOM at all").unwrap();
    let gone = scratch.path().join("gone.dcm");
    let mut files: Vec<PathBuf> = (0..4).map(by_index).collect();
    files.extend([words.clone(), gone.clone()]);
    let out = scratch.folder("out");
    let output = explain(&files, &out, &["--json"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    for file in files[1..].iter() {
        assert!(error.contains(&*file.to_string_lossy()), "{} is not named: {error}", file.display());
    }
    assert!(error.contains("5 of 6 could not be explained"), "{error}");
    let said = said(&out);
    assert_eq!(said["slices"].as_array().unwrap().len(), 1);
    let reasons: Vec<&str> =
        said["failures"].as_array().unwrap().iter().map(|failure| failure["reason"].as_str().unwrap()).collect();
    for wanted in ["Image Orientation", "Rescale Slope", "No such file"] {
        assert!(reasons.iter().any(|reason| reason.contains(wanted)), "{wanted}: {reasons:?}");
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 1, "one line a slice");
    assert!(out.join("00000.png").is_file() && out.join("00000-contour.png").is_file());
}

#[test]
fn folders_are_searched_and_frames_chosen() {
    let scratch = Scratch::new("explain-frames");
    let study = Phantom::BLEEDING.slices(4).matrix(128).write(&scratch.folder("study"));
    let out = scratch.folder("out");
    let output = explain(std::slice::from_ref(&study.folder), &out, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said(&out)["slices"].as_array().unwrap().len(), 4);
    let output = explain(&study.paths()[..1], &out, &["--frame", "2"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("there is no frame 2"), "{error}");
}
