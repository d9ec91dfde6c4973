//! Every codec through the pool: the same values as in the process, and bytes that lie.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ichor_ct::volume::read_slice;
use ichor_decode::{Caps, Decoder, DecoderOptions};
use support::{codestream, compressed, converted, decoder, deflated, noise, options, plain, read, with_matrix};
use tempfile::TempDir;

#[test]
fn values_are_the_same_in_and_out_of_the_process() {
    let folder = TempDir::new().unwrap();
    let decoder = decoder();
    let original = read_slice(&plain(folder.path(), 128)).unwrap().hu;
    for (codec, path) in compressed(folder.path(), 128) {
        let inside = read_slice(&path).unwrap_or_else(|error| panic!("{codec}: {error}"));
        let outside = decoder.read_slice(&support::placed(&path)).unwrap();
        assert!(inside.hu == outside.hu, "{codec} {}", path.display());
        assert_eq!((inside.plane, inside.window), (outside.plane, outside.window), "{codec}");
        if codec != "JPEG baseline" {
            assert!(outside.hu == original, "{codec} is not lossless: {}", path.display());
        }
    }
    assert_eq!(decoder.idle(), 1, "one after the other, one child is enough");
}

/// No counterpart here writes HTJ2K: this codestream was made by OpenJPH (imagecodecs 2026.3.6, `htj2k_encode`,
/// reversible) from the values that are computed below.
#[test]
fn htj2k_is_decoded_as_it_was_encoded() {
    let folder = TempDir::new().unwrap();
    let stream = include_bytes!("data/htj2k-64.j2c");
    let path = support::encapsulated(folder.path(), "1.2.840.10008.1.2.4.201", stream);
    let expected: Vec<i16> = (0..64 * 64).map(|at| (at % 64, at / 64)).map(|(x, y)| (x * x + 3 * y * y) / 4).collect();
    // Stored values begin at −1000, and the phantom's intercept is −1024.
    let expected: Vec<i16> = expected.into_iter().map(|value| value - 1000 - 1024).collect();
    assert!(read_slice(&path).unwrap().hu == expected);
    assert!(read(&decoder(), &path).unwrap() == expected);
}

#[test]
fn uncompressed_slices_need_no_child() {
    let folder = TempDir::new().unwrap();
    let path = plain(folder.path(), 64);
    let decoder = Decoder::new(DecoderOptions::new(PathBuf::from("/nonexistent"))).unwrap();
    assert_eq!(read(&decoder, &path).unwrap(), read_slice(&path).unwrap().hu);
    for arguments in [["+ti"], ["+tb"]] {
        let Some(path) = converted(&path, "dcmconv", &arguments) else { continue };
        assert_eq!(read(&decoder, &path).unwrap(), read_slice(&path).unwrap().hu, "{arguments:?}");
    }
}

/// Writes a copy of an encapsulated file with its codestream changed.
fn changed(path: &Path, change: impl FnOnce(&mut [u8])) -> PathBuf {
    let mut bytes = std::fs::read(path).unwrap();
    let range = codestream(&bytes);
    change(&mut bytes[range]);
    let to = path.with_extension("changed.dcm");
    std::fs::write(&to, bytes).unwrap();
    to
}

/// Puts other sizes into a codestream's own header.
fn lie(codec: &str, stream: &mut [u8], size: u32) {
    match codec {
        "JPEG 2000" => {
            let siz = support::find(stream, &[0xFF, 0x4F, 0xFF, 0x51]) + 4;
            // Image, and the tile as large: one tile.
            for field in [4, 8, 20, 24] {
                stream[siz + field..siz + field + 4].copy_from_slice(&size.to_be_bytes());
            }
        }
        _ => {
            let markers = [0xC0, 0xC1, 0xC3, 0xF7];
            let at = stream.windows(2).position(|w| w[0] == 0xFF && markers.contains(&w[1])).unwrap();
            for field in [5, 7] {
                stream[at + field..at + field + 2].copy_from_slice(&(size as u16).to_be_bytes());
            }
        }
    }
}

#[test]
fn dimensions_that_lie_cost_one_slice() {
    let folder = TempDir::new().unwrap();
    let decoder = decoder();
    for (codec, path) in compressed(folder.path(), 64) {
        let good = read(&decoder, &path).unwrap();
        // The header says more, or less, than the codestream.
        for (rows, columns) in [(512, 512), (64, 65), (32, 32)] {
            let Err(reason) = read(&decoder, &with_matrix(&path, rows, columns)) else {
                assert_eq!((codec, rows), ("deflate", 32), "decoded as {rows} × {columns}");
                continue;
            };
            let expected: &[&str] = match codec {
                // Uncompressed pixel data in a deflated data set: too little shows, and more is cut off.
                "deflate" => &["pixel-data-short"],
                _ => &["pixel-data-mismatch"],
            };
            assert!(expected.contains(&reason.code.as_str()), "{codec} as {rows} × {columns}: {reason}");
        }
        if !matches!(codec, "deflate" | "RLE") {
            for size in [60_000, 63, 65, 1, 0] {
                let lying = changed(&path, |stream| lie(codec, stream, size));
                let reason = read(&decoder, &lying).unwrap_err();
                assert_eq!(reason.code.as_str(), "pixel-data-mismatch", "{codec} of {size}: {reason}");
                assert!(size == 0 || reason.text.contains(&size.to_string()), "{reason}");
            }
        }
        assert!(read(&decoder, &path).unwrap() == good, "{codec}: the next slice");
    }
}

#[test]
fn rle_segments_that_lie_are_named() {
    let folder = TempDir::new().unwrap();
    let Some(path) = converted(&plain(folder.path(), 64), "dcmcrle", &[]) else { return };
    let decoder = decoder();
    for (field, value) in [(0, u32::MAX), (0, 0), (0, 15), (4, 0), (4, u32::MAX), (8, 64), (8, u32::MAX), (8, 65)] {
        let lying = changed(&path, |stream| stream[field..field + 4].copy_from_slice(&value.to_le_bytes()));
        let reason = read(&decoder, &lying).unwrap_err();
        assert_eq!(reason.code.as_str(), "pixel-data-mismatch", "{value} at {field}: {reason}");
    }
}

/// Cut off in the fragment, with the element's structure kept whole.
fn cut(path: &Path, keep: usize) -> PathBuf {
    let bytes = std::fs::read(path).unwrap();
    let range = codestream(&bytes);
    let keep = keep & !1;
    let mut short = bytes[..range.start + keep].to_vec();
    short[range.start - 4..range.start].copy_from_slice(&(keep as u32).to_le_bytes());
    short.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    let to = path.with_extension("cut.dcm");
    std::fs::write(&to, short).unwrap();
    to
}

#[test]
fn what_is_cut_is_refused_or_whole() {
    let folder = TempDir::new().unwrap();
    let decoder = decoder();
    for (codec, path) in compressed(folder.path(), 64).into_iter().filter(|(codec, _)| *codec != "deflate") {
        let good = read(&decoder, &path).unwrap();
        let length = codestream(&std::fs::read(&path).unwrap()).len();
        // Few: CharLS 2.4 spends seconds on each stream of a few kilobytes that is cut.
        for step in 0..12 {
            let keep = length * step / 12;
            match read(&decoder, &cut(&path, keep)) {
                Ok(hu) => assert!(hu == good, "{codec}: {keep} of {length} bytes give another image"),
                Err(reason) => assert!(!reason.text.is_empty()),
            }
        }
    }
}

#[test]
fn caps_hold_before_anything_is_decoded() {
    let folder = TempDir::new().unwrap();
    let path = deflated(folder.path(), 64);
    // No child can be started: whatever is refused is refused by the parent.
    let with = |caps: Caps| DecoderOptions { caps, ..DecoderOptions::new(PathBuf::from("/nonexistent")) };
    let check = |path: &Path, caps: Caps, text: &str| {
        let reason = read(&Decoder::new(with(caps)).unwrap(), path).unwrap_err();
        assert_eq!(reason.code.as_str(), "pixel-data-too-large", "{reason}");
        assert!(reason.text.contains(text), "{reason}");
    };
    let most = Caps::default();
    check(&path, Caps { max_pixels: 64 * 64 - 1, ..most }, "64 rows × 64 columns × 1 frames");
    check(&path, Caps { max_inflated_bytes: 8000, ..most }, "8000 bytes inflated");
    check(&path, Caps { max_encoded_bytes: 500, ..most }, "500 bytes encoded");
    // Uncompressed images, too.
    check(&plain(folder.path(), 64), Caps { max_pixels: 64 * 64 - 1, ..most }, "4095 values");

    let Some(rle) = converted(&plain(folder.path(), 64), "dcmcrle", &[]) else { return };
    let bytes = std::fs::read(&rle).unwrap();
    let stream = codestream(&bytes);
    let mut many = bytes[..stream.end].to_vec();
    for _ in 0..5000 {
        many.extend([0xFE, 0xFF, 0x00, 0xE0, 0, 0, 0, 0]);
    }
    many.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    std::fs::write(folder.path().join("many.dcm"), &many).unwrap();
    check(&folder.path().join("many.dcm"), most, "4096 fragments");
    // A fragment that claims more than there is.
    let mut long = bytes;
    long[stream.start - 4..stream.start].copy_from_slice(&0xFFFF_FFF0u32.to_le_bytes());
    std::fs::write(folder.path().join("long.dcm"), &long).unwrap();
    let reason = read(&Decoder::new(with(most)).unwrap(), &folder.path().join("long.dcm")).unwrap_err();
    assert_eq!(reason.code.as_str(), "unreadable", "{reason}");
}

#[test]
fn memory_and_processor_time_are_limited() {
    let folder = TempDir::new().unwrap();
    let Some(lossless) = converted(&plain(folder.path(), 2048), "dcmcjpeg", &["+e1"]) else { return };
    let Some(j2k) = converted(&noise(folder.path(), 4096), "gdcmconv", &["--j2k"]) else { return };
    let Some(short) = converted(&plain(folder.path(), 256), "gdcmconv", &["--j2k"]) else { return };
    let small = Decoder::new(DecoderOptions { memory_bytes: 24 << 20, ..options() }).unwrap();
    let reason = read(&small, &lossless).unwrap_err();
    assert_eq!(reason.code.as_str(), "decoder-memory", "{reason}");
    assert!(reason.text.starts_with("JPEG lossless decoder ran out of"), "{reason}");

    // Less than a second for each, and much more in all: each has its own.
    let hasty = Decoder::new(DecoderOptions { cpu_seconds: 0, slices_per_process: u32::MAX, ..options() }).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        let outcome = read(&hasty, &short);
        assert!(outcome.is_ok(), "{:?}", outcome.err());
    }
    let reason = read(&hasty, &j2k).unwrap_err();
    assert_eq!(reason.code.as_str(), "decoder-timeout", "{reason}");
    assert!(reason.text.contains("SIGXCPU"), "{reason}");
    assert!(read(&decoder(), &j2k).is_ok());
}
