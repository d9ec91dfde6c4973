//! The real head series: tilt 18.5°, uneven spacing, padding −1500. Public data, not in this repository.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::path::PathBuf;

use ichor_ct::brain::brain_mask;
use ichor_ct::header::InstanceHeader;
use ichor_ct::series::{GateOptions, choose_series_by_attributes};
use ichor_ct::volume::{PADDING_HU, read_slice};

fn series() -> Option<Vec<InstanceHeader>> {
    let data = std::env::var_os("ICHOR_TEST_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let folder = data.join("head-ct-ge");
    if !folder.is_dir() {
        println!("skipped: the real head series is not at {}", folder.display());
        return None;
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "dcm"));
    Some(files.iter().map(|path| InstanceHeader::read(path).unwrap()).collect())
}

#[test]
fn geometry_is_right_to_a_hundredth_of_a_millimetre() {
    let Some(headers) = series() else { return };
    let choice = choose_series_by_attributes(headers, &GateOptions::default());
    let (_, stack) = choice.chosen.expect("the series is eligible");
    assert_eq!(stack.slices.len(), 28);
    assert!(stack.left_out.is_empty());
    let normal = stack.slices[0].plane.normal();
    let tilt = normal[1].atan2(normal[2]).to_degrees().abs();
    assert!((tilt - 18.5).abs() < 0.05, "tilt {tilt}");
    for pair in stack.slices.windows(2) {
        let moved: Vec<f64> = (0..3).map(|i| pair[1].plane.position[i] - pair[0].plane.position[i]).collect();
        let along: f64 = moved.iter().zip(normal).map(|(m, n)| m * n).sum();
        assert!((pair[1].offset_mm - pair[0].offset_mm - along).abs() < 0.01);
        let dz = moved[2].abs();
        assert!([1.14, 4.22, 7.38].iter().any(|known| (dz - known).abs() < 0.01), "step {dz} in z");
    }
    let extent = stack.slices[27].offset_mm;
    let volume: f64 = stack.slices.iter().map(|slice| slice.slab_mm).sum();
    assert!(volume > extent && volume < extent + 15.0, "slabs {volume} mm over {extent} mm");
}

#[test]
fn pixels_are_hounsfield_units_and_the_brain_is_found() {
    let Some(headers) = series() else { return };
    let (_, stack) = choose_series_by_attributes(headers, &GateOptions::default()).chosen.unwrap();
    let mut areas = Vec::new();
    for placed in &stack.slices {
        let slice = read_slice(&placed.header.path).unwrap();
        let (rows, columns) = (slice.plane.rows as usize, slice.plane.columns as usize);
        assert_eq!(slice.hu.len(), rows * columns);
        assert_eq!(slice.hu[0], PADDING_HU, "the corner is padding");
        let mask = brain_mask(&slice.hu, rows, columns, slice.plane.spacing);
        let inside: Vec<i16> = slice.hu.iter().zip(&mask).filter(|(_, m)| **m != 0).map(|(hu, _)| *hu).collect();
        areas.push(inside.len() as f64 * slice.plane.pixel_area() / 100.0);
        support::write_picture(&format!("real-{:02}", areas.len()), &slice.hu, &mask, None, columns);
        if inside.len() as f64 * slice.plane.pixel_area() > 5_000.0 {
            // The blurred edge of the inner table belongs to the inside up to half its height: the mean would be its.
            let mut sorted = inside.clone();
            sorted.sort_unstable();
            let median = sorted[sorted.len() / 2];
            assert!((15..50).contains(&median), "median {median} HU inside the skull");
            let edge = inside.iter().filter(|hu| **hu >= 180).count() as f64 / inside.len() as f64;
            assert!(edge < 0.12, "{edge:.3} of the inside is denser than any blood");
        }
    }
    println!("brain area by slice in cm²: {areas:.0?}");
    let with_brain = areas.iter().filter(|area| **area > 20.0).count();
    assert!(with_brain >= 20, "brain in {with_brain} of 28 slices: {areas:.0?}");
}
