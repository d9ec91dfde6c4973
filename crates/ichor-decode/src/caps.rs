//! What an instance may declare before anybody decodes it.

use std::io::{Read, Seek};

use ichor_core::Reason;

use crate::survey::{Form, Survey};

/// Caps that are checked from the header and the fragments' lengths alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Most values of one instance: rows × columns × frames × samples a pixel.
    pub max_pixels: u64,
    /// Most bytes of a compressed instance, as a file.
    pub max_encoded_bytes: u64,
    /// Most bytes that a deflated data set may inflate to.
    pub max_inflated_bytes: u64,
    /// Most fragments of encapsulated pixel data, the offset table not counted.
    pub max_fragments: u64,
}

impl Default for Caps {
    /// A matrix of 4096 × 4096, 64 MiB encoded, 128 MiB inflated, 4096 fragments.
    fn default() -> Self {
        Self {
            max_pixels: 4096 * 4096,
            max_encoded_bytes: 64 << 20,
            max_inflated_bytes: 128 << 20,
            max_fragments: 4096,
        }
    }
}

impl Caps {
    /// Checks a Part 10 file of `length` bytes, from its header and its fragments' lengths.
    ///
    /// # Errors
    /// The reason for which its slice is not decoded.
    pub fn check_file(&self, file: impl Read + Seek, length: u64) -> Result<(), Reason> {
        self.check(&Survey::read(file, length, self).map_err(|error| error.reason())?)
    }

    /// Checks a survey.
    ///
    /// # Errors
    /// The reason for which the slice is not decoded.
    pub(crate) fn check(&self, survey: &Survey) -> Result<(), Reason> {
        let Survey { rows, columns, frames, samples, .. } = *survey;
        let pixels = [rows, columns, frames, samples].into_iter().fold(1u64, u64::saturating_mul);
        if pixels > self.max_pixels {
            return Err(too_large(format!(
                "{rows} rows × {columns} columns × {frames} frames × {samples} samples are more than the {} values \
                 allowed",
                self.max_pixels
            )));
        }
        if survey.form == Form::Native {
            return Ok(());
        }
        let limits = [
            (survey.encoded_bytes, self.max_encoded_bytes, "bytes encoded"),
            (survey.inflated_bytes, self.max_inflated_bytes, "bytes inflated"),
            (survey.fragments, self.max_fragments, "fragments"),
        ];
        match limits.into_iter().find(|(found, most, _)| found > most) {
            Some((_, most, what)) => Err(too_large(format!("compressed pixel data have more than {most} {what}"))),
            None => Ok(()),
        }
    }
}

fn too_large(text: String) -> Reason {
    Reason::new("pixel-data-too-large", text)
}
