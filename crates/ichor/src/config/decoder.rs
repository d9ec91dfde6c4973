//! `[decoder]`: the child processes in which compressed slices are decoded.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Durations, Fault, at_least_one, fault, seconds};

/// Name of the program, which lies beside this one.
const PROGRAM: &str = "ichor-decode";
/// Less than this, and a child cannot start.
const LEAST_MEMORY_MIB: u64 = 32;

/// `[decoder]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DecoderConfig {
    /// Most children at once; 0: as many as there are cores.
    pub(crate) processes: usize,
    /// Memory of each child, in MiB.
    pub(crate) memory_mib: u64,
    /// Time for one slice on the clock, in seconds.
    pub(crate) timeout_s: f64,
    /// Processor time for one slice, in whole seconds.
    pub(crate) cpu_s: u64,
    /// A child is replaced after so many slices.
    pub(crate) slices_per_process: u32,
    /// Most values of one instance: rows × columns × frames × samples a pixel.
    pub(crate) max_pixels: u64,
    /// Largest compressed instance, in MiB.
    pub(crate) max_encoded_mib: u64,
    /// Most that a deflated data set may inflate to, in MiB.
    pub(crate) max_inflated_mib: u64,
    /// Most fragments of one instance.
    pub(crate) max_fragments: u64,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self {
            processes: 0,
            memory_mib: 512,
            timeout_s: 20.0,
            cpu_s: 10,
            slices_per_process: 16,
            max_pixels: 4096 * 4096,
            max_encoded_mib: 64,
            max_inflated_mib: 128,
            max_fragments: 4096,
        }
    }
}

impl DecoderConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.memory_mib < LEAST_MEMORY_MIB {
            let message = format!("{} is less than the {LEAST_MEMORY_MIB} that a decoder needs", self.memory_mib);
            return fault("decoder.memory_mib", message);
        }
        if self.timeout_s == 0.0 {
            return fault("decoder.timeout_s", "0 would stop everything".to_owned());
        }
        for (key, value) in [
            ("decoder.cpu_s", self.cpu_s),
            ("decoder.slices_per_process", u64::from(self.slices_per_process)),
            ("decoder.max_pixels", self.max_pixels),
            ("decoder.max_encoded_mib", self.max_encoded_mib),
            ("decoder.max_inflated_mib", self.max_inflated_mib),
            ("decoder.max_fragments", self.max_fragments),
        ] {
            at_least_one(key, usize::try_from(value).unwrap_or(usize::MAX))?;
        }
        // The child holds the instance as it came and as it was parsed, before anything is decoded.
        if self.max_encoded_mib.saturating_mul(2) > self.memory_mib {
            let message = format!("more than half of decoder.memory_mib, {}", self.memory_mib);
            return fault("decoder.max_encoded_mib", message);
        }
        Ok(())
    }

    pub(super) fn durations(&self) -> Durations {
        vec![("decoder.timeout_s".to_owned(), self.timeout_s)]
    }

    /// The options of the decoder, with the program that lies beside the running one.
    ///
    /// # Errors
    /// If the running program does not know where it lies.
    pub(crate) fn options(&self) -> std::io::Result<ichor_decode::DecoderOptions> {
        let program: PathBuf = std::env::current_exe()?.with_file_name(PROGRAM);
        let mut options = ichor_decode::DecoderOptions::new(program);
        if self.processes > 0 {
            options.processes = self.processes;
        }
        options.memory_bytes = self.memory_mib.saturating_mul(1 << 20);
        options.timeout = seconds(self.timeout_s);
        options.cpu_seconds = self.cpu_s;
        options.slices_per_process = self.slices_per_process;
        options.caps = ichor_decode::Caps {
            max_pixels: self.max_pixels,
            max_encoded_bytes: self.max_encoded_mib.saturating_mul(1 << 20),
            max_inflated_bytes: self.max_inflated_mib.saturating_mul(1 << 20),
            max_fragments: self.max_fragments,
        };
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_decoder() {
        let (ours, theirs) =
            (DecoderConfig::default().options().unwrap(), ichor_decode::DecoderOptions::new(PathBuf::new()));
        assert_eq!((ours.caps, ours.memory_bytes, ours.timeout), (theirs.caps, theirs.memory_bytes, theirs.timeout));
        assert_eq!(
            (ours.processes, ours.cpu_seconds, ours.slices_per_process),
            (theirs.processes, theirs.cpu_seconds, theirs.slices_per_process)
        );
    }

    #[test]
    fn values_that_cannot_work_are_named() {
        let good = DecoderConfig::default;
        assert!(good().check().is_ok());
        for (config, key) in [
            (DecoderConfig { memory_mib: 8, ..good() }, "decoder.memory_mib"),
            (DecoderConfig { timeout_s: 0.0, ..good() }, "decoder.timeout_s"),
            (DecoderConfig { cpu_s: 0, ..good() }, "decoder.cpu_s"),
            (DecoderConfig { max_pixels: 0, ..good() }, "decoder.max_pixels"),
            (DecoderConfig { max_encoded_mib: 300, ..good() }, "decoder.max_encoded_mib"),
        ] {
            assert_eq!(config.check().unwrap_err().0, key);
        }
    }
}
