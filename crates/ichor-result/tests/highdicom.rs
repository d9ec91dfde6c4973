//! highdicom reads what was written: the same masks, the same geometry.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use ichor_result::SourceSlice;
use serde_json::{Value, json};
use support::{Built, Series, blobs, build, describe, real_series, run, tilted};

/// Lets highdicom compare; false with a printed reason where Python or highdicom is absent.
fn read_back(segmentation: &Built, slices: &[SourceSlice], masks: &[Option<Vec<u8>>]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let seg = file("seg.dcm", &segmentation.part10);
    let sources: Vec<Value> = slices
        .iter()
        .zip(masks)
        .enumerate()
        .map(|(i, (slice, mask))| {
            let orientation = [slice.plane.row, slice.plane.column].concat();
            json!({
                "uid": slice.sop_instance.as_str(),
                "position": slice.plane.position,
                "orientation": orientation,
                "spacing": slice.plane.spacing,
                "mask": mask.as_ref().map(|m| file(&format!("{i}.mask"), m)),
            })
        })
        .collect();
    let plane = slices[0].plane;
    let expected = json!({ "rows": plane.rows, "columns": plane.columns, "sources": sources });
    let expected = file("expected.json", expected.to_string().as_bytes());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_with_highdicom.py");
    let python = std::env::var("ICHOR_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let Some(output) = run(&python, &[script.to_str().unwrap(), &seg, &expected]) else { return false };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) {
        eprintln!("skipped: {python}: {out}");
        return false;
    }
    assert!(output.status.success(), "highdicom: {out}{err}");
    println!("highdicom {out}");
    true
}

#[test]
fn written_series_come_back() {
    // Sizes that are, and are not, multiples of 8; tilt; uneven spacing; gaps in the mask.
    let cases: [(u32, u32, f64, &[f64]); 3] = [
        (13, 11, 18.5, &[1.14, 4.22, 7.38, 4.22]),
        (16, 16, 0.0, &[5.0, 5.0, 5.0, 5.0, 5.0]),
        (37, 53, -12.0, &[2.5, 2.5, 5.0]),
    ];
    for (rows, columns, tilt, steps) in cases {
        let dir = tempfile::tempdir().unwrap();
        let planes = tilted(rows, columns, tilt, steps);
        let (header, slices) = Series::new(planes.clone()).write(dir.path());
        let masks = blobs(&planes, |i| i % 3 != 1);
        let seg = build(&header, &slices, &masks, 1).unwrap();
        if !read_back(&seg, &slices, &masks) {
            return;
        }
    }
}

#[test]
fn the_real_series_comes_back() {
    let Some(files) = real_series() else { return };
    let (header, slices) = describe(&files);
    let planes: Vec<_> = slices.iter().map(|s| s.plane).collect();
    let masks = blobs(&planes, |i| (8..14).contains(&i) || i == 20);
    let seg = build(&header, &slices, &masks, 1).unwrap();
    read_back(&seg, &slices, &masks);
}
