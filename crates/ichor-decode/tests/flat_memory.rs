//! What comes from outside does not grow the parent: thousands of mutated images, and bombs.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ichor_decode::{Caps, Decoder, DecoderOptions};
use support::{codestream, compressed, decoder, deflated, options, plain, read, resident_kib};
use tempfile::TempDir;

/// Memory is the whole process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Numbers that are the same in every run.
struct Draws(u64);

impl Draws {
    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

#[test]
fn thousands_of_mutations_neither_hang_nor_grow() {
    const EACH: usize = 1500;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = TempDir::new().unwrap();
    let settings = DecoderOptions { timeout: Duration::from_secs(20), ..options() };
    let decoder = Decoder::new(settings).unwrap();
    let (mut draws, mut resident, mut slowest) = (Draws(7), 0, Duration::ZERO);
    let mut outcomes = std::collections::BTreeMap::<(&str, String), usize>::new();
    for (codec, path) in compressed(folder.path(), 64) {
        let bytes = std::fs::read(&path).unwrap();
        let range = if codec == "deflate" { bytes.len() / 3..bytes.len() } else { codestream(&bytes) };
        let mutant = folder.path().join("mutant.dcm");
        let mut place = support::placed(&path);
        place.header.path.clone_from(&mutant);
        for _ in 0..EACH {
            let mut changed = bytes.clone();
            for _ in 0..=draws.below(4) {
                // Headers of codestreams are short, and most is decided there.
                let reach = if draws.below(2) == 0 { range.len().min(128) } else { range.len() };
                let at = range.start + draws.below(reach);
                changed[at] = match draws.below(3) {
                    0 => changed[at] ^ (1 << draws.below(8)),
                    1 => 0xFF,
                    _ => draws.next() as u8,
                };
            }
            std::fs::write(&mutant, &changed).unwrap();
            let begun = Instant::now();
            let outcome = match decoder.read_slice(&place) {
                Ok(slice) => {
                    assert_eq!(slice.hu.len(), 64 * 64);
                    "decoded".to_owned()
                }
                Err(ichor_decode::DecodeError::Slice(reason)) => reason.code.as_str().to_owned(),
                Err(error) => panic!("{codec}: {error}"),
            };
            slowest = slowest.max(begun.elapsed());
            *outcomes.entry((codec, outcome)).or_default() += 1;
        }
        let now = resident_kib(std::process::id());
        if resident == 0 {
            resident = now;
        }
        assert!(now < resident + 16 * 1024, "{codec}: resident memory went from {resident} to {now} KiB");
    }
    println!("slowest {slowest:?}, outcomes {outcomes:#?}");
    // The mutants are not all refused before a decoder sees them.
    assert!(outcomes.keys().any(|(_, outcome)| outcome == "decoded"), "{outcomes:?}");
    assert!(outcomes.keys().any(|(_, outcome)| outcome.starts_with("pixel-data")), "{outcomes:?}");
}

/// Bytes that deflate to about a thousandth.
fn bomb(folder: &Path, side: u16, trailing: usize) -> PathBuf {
    use dicom_core::{DataElement, PrimitiveValue, VR};
    use dicom_dictionary_std::tags;
    let mut object = dicom_object::open_file(plain(folder, 64)).unwrap();
    object.meta_mut().transfer_syntax = "1.2.840.10008.1.2.1.99".to_owned();
    for (tag, value) in [(tags::ROWS, side), (tags::COLUMNS, side)] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    let pixels = vec![0u8; usize::from(side) * usize::from(side) * 2];
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U8(pixels.into())));
    let padding = PrimitiveValue::U8(vec![0u8; trailing].into());
    object.put(DataElement::new(tags::DATA_SET_TRAILING_PADDING, VR::OB, padding));
    let path = folder.join(format!("bomb-{side}.dcm"));
    object.write_to_file(&path).unwrap();
    path
}

#[test]
fn a_deflate_bomb_bursts_in_the_child() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = TempDir::new().unwrap();
    let decoder = decoder();
    // Behind the pixel data, where no header tells of it: 900 MiB of zeros in less than one.
    let hidden = bomb(folder.path(), 64, 900 << 20);
    assert!(hidden.metadata().unwrap().len() < 8 << 20);
    let before = resident_kib(std::process::id());
    let reason = read(&decoder, &hidden).unwrap_err();
    assert!(["decoder-memory", "unreadable"].contains(&reason.code.as_str()), "{reason}");
    let after = resident_kib(std::process::id());
    assert!(after < before + 16 * 1024, "resident memory went from {before} to {after} KiB");
    // In the open: more inflated bytes than are allowed.
    let caps = Caps { max_pixels: u64::MAX, max_inflated_bytes: 16 << 20, ..Caps::default() };
    let strict = Decoder::new(DecoderOptions { caps, ..options() }).unwrap();
    let reason = read(&strict, &bomb(folder.path(), 4096, 0)).unwrap_err();
    assert_eq!(reason.code.as_str(), "pixel-data-too-large", "{reason}");
    assert_eq!(read(&decoder, &deflated(folder.path(), 64)).unwrap().len(), 64 * 64, "the next slice");
}
