//! Frames of what is held, as they are stored and decoded.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ichor_ct::CtError;
use ichor_ct::frames::StoredPixels;
use ichor_decode::{DecodeError, Decoder, DecoderOptions};
use ichor_dicomweb::server::{ArchiveFault, FrameBytes, Held};

use super::archive::whole_file;

/// Files whose frames stay found: viewers ask for one frame after the other.
const REMEMBERED: usize = 2;
/// Explicit VR Little Endian.
pub(super) const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
/// Its deflated form.
pub(super) const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
/// Preamble, prefix, and the header's own length (PS3.10 7.1).
const BEFORE_META: usize = 144;

/// Reads frames, compressed ones in child processes.
pub(super) struct Frames {
    decoder: std::io::Result<Decoder>,
    recent: Mutex<VecDeque<(PathBuf, Arc<StoredPixels>)>>,
    /// Most bytes of an instance, uncompressed.
    pub(super) most_bytes: u64,
}

impl Frames {
    pub(super) fn new(options: DecoderOptions, most_bytes: u64) -> Self {
        Self { decoder: Decoder::new(options), recent: Mutex::default(), most_bytes }
    }

    /// The pixels of an instance.
    pub(super) fn open(&self, held: &Held) -> Result<Arc<StoredPixels>, ArchiveFault> {
        // One that was cut, or is gone, has no frame that could be believed: also where its frames were found before.
        whole_file(held)?;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = recent.iter().find(|(path, _)| *path == held.place) {
            return Ok(Arc::clone(found));
        }
        drop(recent);
        self.check_inflation(held)?;
        let opened = StoredPixels::open(&held.place).map_err(|error| fault(held, &error))?;
        let opened = Arc::new(opened);
        recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front((held.place.clone(), Arc::clone(&opened)));
        recent.truncate(REMEMBERED);
        Ok(opened)
    }

    /// A deflated file is inflated as a whole: how large is that?
    pub(super) fn check_inflation(&self, held: &Held) -> Result<(), ArchiveFault> {
        if held.transfer_syntax.as_str() != DEFLATED {
            return Ok(());
        }
        let broken = |error: &dyn std::fmt::Display| {
            ArchiveFault::Broken(format!("instance {} cannot be read: {error}", held.instance))
        };
        let inflated = inflated(&held.place, self.most_bytes).map_err(|error| broken(&error))?;
        if inflated > self.most_bytes { Err(self.too_large(held)) } else { Ok(()) }
    }

    pub(super) fn too_large(&self, held: &Held) -> ArchiveFault {
        let most = self.most_bytes >> 20;
        ArchiveFault::Unsupported(format!("instance {} is larger than {most} MiB, uncompressed", held.instance))
    }

    /// A frame in little endian order.
    pub(super) fn native(&self, held: &Held, pixels: &StoredPixels, frame: u32) -> Result<Vec<u8>, ArchiveFault> {
        if pixels.is_native() {
            return pixels.raw(frame).map_err(|error| fault(held, &error));
        }
        let described = pixels.description();
        if described.samples != 1 || ![8, 16].contains(&described.allocated) {
            let what = format!("{} samples of {} bits", described.samples, described.allocated);
            return Err(ArchiveFault::Unsupported(format!(
                "frames of instance {} ({what}) can be had as they are stored only ({})",
                held.instance, held.transfer_syntax
            )));
        }
        let decoder = self.decoder.as_ref().map_err(|error| ArchiveFault::Unavailable(error.to_string()))?;
        let file = pixels.single(frame).map_err(|error| fault(held, &error))?;
        let cell = if described.allocated == 8 { 1 } else { 2 };
        let decoded = decoder.read_cells(&file, &held.series, [described.rows, described.columns], cell);
        decoded.map_err(|error| match error {
            DecodeError::Slice(reason) => {
                ArchiveFault::Unsupported(format!("frame {frame} of instance {}: {reason}", held.instance))
            }
            DecodeError::Unavailable(error) => ArchiveFault::Unavailable(error.to_string()),
        })
    }

    pub(super) fn frame(&self, held: &Held, frame: u32, is_native: bool) -> Result<FrameBytes, ArchiveFault> {
        let pixels = self.open(held)?;
        let transfer_syntax = if pixels.is_native() || is_native {
            ichor_core::Uid::parse(EXPLICIT_LITTLE_ENDIAN).map_err(|error| ArchiveFault::Broken(error.to_string()))?
        } else {
            held.transfer_syntax.clone()
        };
        let bytes = if is_native {
            self.native(held, &pixels, frame)?
        } else {
            pixels.raw(frame).map_err(|error| fault(held, &error))?
        };
        Ok(FrameBytes { transfer_syntax, bytes })
    }
}

/// What went wrong with an image, to those who asked for it.
pub(super) fn fault(held: &Held, error: &CtError) -> ArchiveFault {
    let instance = &held.instance;
    match error {
        CtError::Missing(what) => {
            ArchiveFault::Unsupported(format!("instance {instance} is no image: {what} is missing"))
        }
        CtError::Attribute { .. } | CtError::Unsupported(_) => {
            ArchiveFault::Unsupported(format!("instance {instance}: {error}"))
        }
        _ => ArchiveFault::Broken(format!("instance {instance}: {error}")),
    }
}

/// Bytes that the data set of a deflated Part 10 file has; counted no further than one past `most`.
fn inflated(path: &Path, most: u64) -> std::io::Result<u64> {
    let mut file = BufReader::new(File::open(path)?);
    let mut start = [0; BEFORE_META];
    file.read_exact(&mut start)?;
    // File Meta Information Group Length (0002,0000): bytes behind it.
    let length = u32::from_le_bytes([start[140], start[141], start[142], start[143]]);
    file.seek(SeekFrom::Current(i64::from(length)))?;
    let inflated = flate2::read::DeflateDecoder::new(file);
    std::io::copy(&mut inflated.take(most.saturating_add(1)), &mut std::io::sink())
}
