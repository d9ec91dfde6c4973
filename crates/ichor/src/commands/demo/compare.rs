//! The Segmentation that came back, held against the truth.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context;
use ichor_core::Uid;
use ichor_phantom::WrittenStudy;

use super::overlay::{self, Panel};

/// Panels of the picture.
const PANELS: usize = 8;

/// Mask against truth.
pub(crate) struct Comparison {
    /// Dice over all voxels of the study.
    pub(crate) dice: f64,
    /// Slices whose truth bleeds.
    pub(crate) bleeding_slices: usize,
    /// Mask of each slice of the study, by SOP Instance UID; absent: empty.
    masks: HashMap<Uid, Vec<u8>>,
}

/// Reads the Segmentation and compares it with the truth of the study that was sent.
pub(crate) fn compare(seg: &Path, written: &WrittenStudy) -> anyhow::Result<Comparison> {
    let read = ichor_result::read_segmentation(seg).with_context(|| seg.display().to_string())?;
    let mut masks: HashMap<Uid, Vec<u8>> = HashMap::new();
    for frame in read.frames {
        let mask = masks.entry(frame.source_sop_instance).or_insert_with(|| vec![0; frame.mask.len()]);
        for (pixel, segment) in mask.iter_mut().zip(frame.mask) {
            *pixel |= u8::from(segment != 0);
        }
    }
    let (mut both, mut either, mut bleeding_slices) = (0u64, 0u64, 0usize);
    for slice in &written.slices {
        let truth = slice.bleed_mask();
        bleeding_slices += usize::from(truth.iter().any(|t| *t != 0));
        let mask = masks.get(&slice.sop_instance);
        for (at, t) in truth.iter().enumerate() {
            let (t, m) = (u64::from(*t != 0), u64::from(mask.is_some_and(|mask| mask[at] != 0)));
            both += t * m;
            either += t + m;
        }
    }
    let dice = if either == 0 { 1.0 } else { 2.0 * both as f64 / either as f64 };
    Ok(Comparison { dice, bleeding_slices, masks })
}

/// Draws the slices around the largest extent of truth and mask.
pub(crate) fn draw(path: &Path, comparison: &Comparison, written: &WrittenStudy) -> anyhow::Result<()> {
    let pixels: Vec<usize> = written
        .slices
        .iter()
        .map(|slice| {
            let mask = comparison.masks.get(&slice.sop_instance);
            let masked = mask.map_or(0, |mask| mask.iter().filter(|m| **m != 0).count());
            masked + slice.bleed_mask().iter().filter(|t| **t != 0).count()
        })
        .collect();
    let count = PANELS.min(written.slices.len());
    let start = (0..=written.slices.len() - count)
        .max_by_key(|start| pixels[*start..start + count].iter().sum::<usize>())
        .unwrap_or(0);
    let (rows, columns) = written.matrix();
    let empty = vec![0u8; rows * columns];
    let truths: Vec<Vec<u8>> = written.slices[start..start + count].iter().map(|slice| slice.bleed_mask()).collect();
    let panels: Vec<Panel<'_>> = written.slices[start..start + count]
        .iter()
        .zip(&truths)
        .map(|(slice, truth)| Panel {
            hu: &slice.hu,
            mask: comparison.masks.get(&slice.sop_instance).unwrap_or(&empty),
            truth,
        })
        .collect();
    overlay::write(path, rows, columns, &panels)
}
