//! Held-out studies made ready for measuring, kept on disk: phantoms at full size take longer to make than the model
//! takes to read them, and every candidate is measured on the same ones.

use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use ichor_core::ImagePlane;
use ichor_ct::brain::{BRAIN_MASK_VERSION, brain_mask};
use ichor_ct::input::{HuImage, InputGrid, InputPreset, model_input};
use ichor_ct::refine::RefineInput;
use ichor_phantom::Difficulty;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::brightness::{BrightInput, BrightnessRule};
use crate::labels::SliceLabel;
use crate::phantoms::{PhantomError, PhantomMix, study};
use crate::slices::SliceSetError;

/// Changes with the form of the files.
const FORM: u32 = 4;

/// A slice made ready for the model, as serving does it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadySlice {
    /// Values in HU, row by row.
    pub hu: Vec<i16>,
    /// Distance between rows and between columns, mm.
    pub spacing_mm: [f64; 2],
    /// Model input, 3·S·S values.
    pub input: Vec<f32>,
    /// Way back to the source grid.
    pub grid: InputGrid,
    /// Computed brain mask on the source grid.
    pub brain: Vec<u8>,
    /// What the brightness rule says: the largest component's area in mm².
    pub brightness: f32,
    /// The brightness rule's mask.
    pub bright_mask: Vec<u8>,
}

impl ReadySlice {
    /// What the refinement asks of the slice.
    #[must_use]
    pub fn refine_input(&self) -> RefineInput<'_> {
        let (rows, columns) = (self.grid.rows, self.grid.columns);
        RefineInput { rows, columns, spacing: self.spacing_mm, hu: &self.hu, brain: &self.brain }
    }

    /// A map (S × S) on the slice's own grid, 0 outside the brain mask, as serving has it.
    #[must_use]
    pub fn map_on_source(&self, map: &[f32]) -> Vec<f32> {
        self.grid.map_within(map, &self.brain)
    }
}

/// A ready slice with its truth.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedSlice {
    /// What the model and serving see.
    pub ready: ReadySlice,
    /// Distance along the normal from the first slice, mm, to the micrometre.
    pub offset_mm: f64,
    /// What the slice shows.
    pub label: SliceLabel,
    /// True mask on the source grid, 0 or 1.
    pub mask: Vec<u8>,
    /// Volume that one pixel stands for, mL.
    pub pixel_ml: f64,
}

/// A held-out study.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedStudy {
    /// The phantom's seed.
    pub seed: u64,
    /// Volume of all bleeds, mL.
    pub truth_ml: f64,
    /// How hard its easiest bleed is to see; `None` without a bleed.
    pub difficulty: Option<Difficulty>,
    /// Its slices, foot to head.
    pub slices: Vec<PreparedSlice>,
}

/// Prepares a slice as serving does, and asks the brightness rule.
#[must_use]
pub fn ready(
    hu: Vec<i16>,
    plane: &ImagePlane,
    window: Option<(f32, f32)>,
    preset: InputPreset,
    size: usize,
) -> ReadySlice {
    let (rows, columns, spacing) = (plane.rows as usize, plane.columns as usize, plane.spacing);
    let brain = brain_mask(&hu, rows, columns, spacing);
    let input = model_input(HuImage { rows, columns, spacing, hu: &hu, window }, preset, size);
    let slice = BrightInput { rows, columns, hu: &hu, brain: &brain, spacing_mm: (spacing[0], spacing[1]) };
    let bright = BrightnessRule::default().apply(&slice);
    ReadySlice {
        hu,
        spacing_mm: spacing,
        input: input.channels,
        grid: input.grid,
        brain,
        brightness: bright.score,
        bright_mask: bright.mask,
    }
}

/// The study of a seed, from the cache (if there is one) or made and kept there. With the folder goes the generator's
/// fingerprint.
///
/// # Errors
/// [`PhantomError`].
pub fn prepare(
    seed: u64,
    mix: &PhantomMix,
    preset: InputPreset,
    size: usize,
    cache: Option<(&Path, &str)>,
) -> Result<PreparedStudy, PhantomError> {
    let Some((cache, generator)) = cache else { return make(seed, mix, preset, size) };
    let key = serde_json::json!({
        "seed": seed, "mix": mix, "form": FORM, "brain_mask": BRAIN_MASK_VERSION, "generator": generator,
    });
    let digest = hex::encode(Sha256::digest(key.to_string()));
    let path = cache.join(format!("{}.study", &digest[..24]));
    let io = |source| SliceSetError::Io { path: path.clone(), source };
    match fs::read(&path) {
        Ok(bytes) => {
            Ok(decode(&bytes, preset, size)
                .ok_or_else(|| SliceSetError::Damaged(path.clone(), "not a prepared study"))?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let study = make(seed, mix, preset, size)?;
            let partial = path.with_extension(format!("partial-{}", std::process::id()));
            let write = || {
                fs::create_dir_all(cache)?;
                fs::write(&partial, encode(&study)?)?;
                fs::rename(&partial, &path)
            };
            write().map_err(io)?;
            Ok(study)
        }
        Err(error) => Err(io(error).into()),
    }
}

fn make(seed: u64, mix: &PhantomMix, preset: InputPreset, size: usize) -> Result<PreparedStudy, PhantomError> {
    let study = study(seed, mix)?;
    let first = study.slices.first().map(|slice| slice.plane);
    let slices = study.slices.into_iter().map(|slice| PreparedSlice {
        offset_mm: first.map_or(0.0, |first| (slice.plane.distance_from(&first) * 1000.0).round() / 1000.0),
        ready: ready(slice.hu, &slice.plane, None, preset, size),
        label: slice.label,
        mask: slice.mask.iter().map(|m| u8::from(*m != 0)).collect(),
        pixel_ml: slice.pixel_ml,
    });
    let (truth_ml, difficulty) = (study.truth_ml, study.difficulty);
    Ok(PreparedStudy { seed, truth_ml, difficulty, slices: slices.collect() })
}

#[derive(Serialize, Deserialize)]
struct Header {
    seed: u64,
    truth_ml: f64,
    difficulty: Option<Difficulty>,
    slices: Vec<SliceHeader>,
}

#[derive(Serialize, Deserialize)]
struct SliceHeader {
    rows: usize,
    columns: usize,
    /// The bits of both distances in mm: JSON keeps them exactly.
    spacing_bits: [u64; 2],
    /// Whole micrometres.
    offset_um: i64,
    label: SliceLabel,
    brightness: f32,
    pixel_ml: f64,
}

/// Length of the header, header (JSON), then for each slice its values (int16, little-endian) and three masks, a bit a
/// pixel. The model's input is made anew: that takes less time than reading it.
fn encode(study: &PreparedStudy) -> std::io::Result<Vec<u8>> {
    let header = |slice: &PreparedSlice| SliceHeader {
        rows: slice.ready.grid.rows,
        columns: slice.ready.grid.columns,
        spacing_bits: slice.ready.spacing_mm.map(f64::to_bits),
        offset_um: (slice.offset_mm * 1000.0).round() as i64,
        label: slice.label,
        brightness: slice.ready.brightness,
        pixel_ml: slice.pixel_ml,
    };
    let slices = study.slices.iter().map(header).collect();
    let (seed, truth_ml, difficulty) = (study.seed, study.truth_ml, study.difficulty);
    let text = serde_json::to_vec(&Header { seed, truth_ml, difficulty, slices })?;
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    for slice in &study.slices {
        bytes.extend(slice.ready.hu.iter().flat_map(|value| value.to_le_bytes()));
        for mask in [&slice.ready.brain, &slice.ready.bright_mask, &slice.mask] {
            bytes.extend(
                mask.chunks(8).map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit != 0))),
            );
        }
    }
    Ok(bytes)
}

fn decode(bytes: &[u8], preset: InputPreset, size: usize) -> Option<PreparedStudy> {
    let mut cursor = Cursor::new(bytes);
    let mut take = |length: usize| {
        let mut part = vec![0; length];
        cursor.read_exact(&mut part).ok().map(|()| part)
    };
    let length = usize::try_from(u64::from_le_bytes(take(8)?.try_into().ok()?)).ok()?;
    let header: Header = serde_json::from_slice(&take(length.min(bytes.len()))?).ok()?;
    let mut slices = Vec::with_capacity(header.slices.len());
    for slice in header.slices {
        let (rows, columns) = (slice.rows, slice.columns);
        let spacing = slice.spacing_bits.map(f64::from_bits);
        let pixels = rows.checked_mul(columns)?;
        let hu: Vec<i16> =
            take(2 * pixels)?.chunks_exact(2).map(|word| i16::from_le_bytes([word[0], word[1]])).collect();
        let mut mask = || -> Option<Vec<u8>> {
            let packed = take(pixels.div_ceil(8))?;
            Some((0..pixels).map(|at| packed[at / 8] >> (at % 8) & 1).collect())
        };
        let (brain, bright_mask, truth) = (mask()?, mask()?, mask()?);
        let input = model_input(HuImage { rows, columns, spacing, hu: &hu, window: None }, preset, size);
        let (input, grid, brightness) = (input.channels, input.grid, slice.brightness);
        let ready = ReadySlice { hu, spacing_mm: spacing, input, grid, brain, brightness, bright_mask };
        let offset_mm = slice.offset_um as f64 / 1000.0;
        slices.push(PreparedSlice { ready, offset_mm, label: slice.label, mask: truth, pixel_ml: slice.pixel_ml });
    }
    let Header { seed, truth_ml, difficulty, .. } = header;
    Some(PreparedStudy { seed, truth_ml, difficulty, slices })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_from_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let mix = PhantomMix {
            positive_share: 1.0,
            matrices: vec![60],
            min_spacing_mm: 15.0,
            bleeds: ichor_phantom::BleedRanges::easy(),
            real_head: None,
        };
        let cache = Some((folder.path(), "0123"));
        let made = prepare(4, &mix, InputPreset::PhysioNet, 32, cache).unwrap();
        assert!(made.slices.iter().any(|slice| slice.label.any() && slice.mask.contains(&1)), "an easy bleed shows");
        assert!(made.slices.iter().all(|slice| slice.label.any() == slice.mask.contains(&1)));
        assert_eq!(prepare(4, &mix, InputPreset::PhysioNet, 32, cache).unwrap(), made);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let path = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(prepare(4, &mix, InputPreset::PhysioNet, 32, cache).is_err());
    }
}
