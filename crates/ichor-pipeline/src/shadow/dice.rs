//! Overlap of masks with those that the active model sent.

use std::collections::HashMap;
use std::path::Path;

use ichor_core::Uid;
use ichor_result::{ReadSegmentation, read_segmentation};
use tracing::warn;

use crate::analyse::study::Scored;

/// Dice of these masks against those of a Segmentation; `None` where one of the two has none, or it cannot be read.
pub(super) fn against(segmentation: &Path, scored: &Scored) -> Option<f64> {
    let read = match read_segmentation(segmentation) {
        Ok(read) => read,
        Err(error) => {
            warn!(%error, "the active model's masks cannot be read; none are compared");
            return None;
        }
    };
    let theirs = by_slice(&read);
    let (mut shared, mut ours) = (0u64, 0u64);
    for (index, slice) in scored.stack.slices.iter().enumerate() {
        let Some(mask) = scored.masks.mask(index) else { continue };
        ours += mask.iter().filter(|value| **value != 0).count() as u64;
        if let Some(other) = theirs.get(&(&slice.header.sop_instance, slice.header.frame)) {
            shared += mask.iter().zip(other).filter(|(a, b)| **a != 0 && **b).count() as u64;
        }
    }
    let theirs: u64 = theirs.values().map(|mask| mask.iter().filter(|is_in| **is_in).count() as u64).sum();
    (ours > 0 && theirs > 0).then(|| 2.0 * shared as f64 / (ours + theirs) as f64)
}

/// Every segment's frames of a slice together.
fn by_slice(read: &ReadSegmentation) -> HashMap<(&Uid, Option<u32>), Vec<bool>> {
    let mut slices: HashMap<(&Uid, Option<u32>), Vec<bool>> = HashMap::new();
    for frame in &read.frames {
        let mask = slices
            .entry((&frame.source_sop_instance, frame.source_frame))
            .or_insert_with(|| vec![false; frame.mask.len()]);
        mask.iter_mut().zip(&frame.mask).for_each(|(is_in, value)| *is_in |= *value != 0);
    }
    slices
}
