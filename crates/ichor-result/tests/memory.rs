//! Writing and checking a large object holds no more than a frame of it. Alone in its program: the peak is the process's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ichor_result::{
    Encoding, MaskRun, Provenance, SegmentationForm, SegmentationInput, SegmentationType, SliceMask, check,
    write_segmentation,
};
use support::{Series, model, tilted};
use time::macros::datetime;

/// Peak resident memory in MiB; `None` where the system does not tell.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

#[test]
fn four_hundred_slices_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(512, 512, 12.0, &[0.6; 399]);
    let (header, slices) = Series::new(planes.clone()).write(dir.path());
    let runs = |lesion: u32| (100..220).map(move |row| (row, 60 + lesion * 200));
    let mask = || {
        let mut runs: Vec<MaskRun> = (0..2u32)
            .flat_map(|lesion| {
                runs(lesion).map(move |(row, start)| MaskRun {
                    row,
                    start,
                    end: start + 90,
                    segment: lesion as u16 + 1,
                })
            })
            .collect();
        runs.sort_by_key(|run| (run.row, run.start));
        let pixels = runs.len() * 90;
        SliceMask::new(runs, vec![128; pixels])
    };
    let masks: Vec<SliceMask> = (0..400).map(|_| mask()).collect();
    let Some(before) = peak_mib() else { return };
    for kind in [SegmentationType::Binary, SegmentationType::Fractional, SegmentationType::LabelMap] {
        for encoding in [Encoding::ExplicitLittleEndian, Encoding::Deflated, Encoding::RleLossless] {
            let Ok(form) = SegmentationForm::new(kind, encoding, true) else { continue };
            let input = SegmentationInput {
                provenance: Provenance {
                    header: &header,
                    model: &model(),
                    configuration_digest: "memory",
                    version: 1,
                    accepted_at: datetime!(2026-01-02 03:14:15 UTC),
                    series_number: None,
                    looked_up_accession: None,
                    research_notice: None,
                },
                slices: &slices,
                masks: &masks,
                lesions: 2,
                form,
            };
            let path = dir.path().join("seg.dcm");
            let started = std::time::Instant::now();
            let written = write_segmentation(&input, std::fs::File::create(&path).unwrap()).unwrap();
            let (written_in, started) = (started.elapsed(), std::time::Instant::now());
            check(std::fs::File::open(&path).unwrap(), form).unwrap();
            println!(
                "{}: {} frames, {} bytes, written in {written_in:.2?}, checked in {:.2?}, peak {} MiB",
                form.words(),
                written.frames,
                std::fs::metadata(&path).unwrap().len(),
                started.elapsed(),
                peak_mib().unwrap()
            );
        }
    }
    let grown = peak_mib().unwrap() - before;
    println!("{grown} MiB above the masks");
    // 800 frames of a byte a pixel are 200 MiB, their packed bits 25.
    assert!(grown < 48, "{grown} MiB above the masks");
}
