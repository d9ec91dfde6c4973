//! `[analysis]`, `[alert]`, `[model]` and `[shadow]`: how studies are analysed, and with which weights.

use std::path::{Path, PathBuf};

use ichor_core::Priority;
use serde::{Deserialize, Serialize};

use super::{Durations, Fault, at_least_one, between, fault};

/// `[analysis]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AnalysisConfig {
    /// Attempts before a study is marked failed.
    pub(crate) attempts: u32,
    /// Wait before the second attempt, in seconds; doubles after each.
    pub(crate) first_backoff_s: f64,
    /// Lesions below this volume are dropped from the mask, in millilitres.
    pub(crate) min_lesion_ml: f64,
    /// Whether the attribution maps of positive studies are kept, for the pages.
    pub(crate) keep_maps: bool,
    /// Whether slices are classified as they arrive.
    pub(crate) while_receiving: bool,
    /// Nice value of the threads that decode and classify, 0 to 19.
    pub(crate) nice: i32,
    /// Whether the threads that prepare and classify run only on cores that nothing else of the process wants.
    pub(crate) idle_cores_only: bool,
    /// A study that has waited longer than this is as urgent as those that are urgent by rule, in seconds.
    pub(crate) longest_overtaken_s: f64,
    /// The share of the time for which slices are classified while others follow each other without a pause.
    pub(crate) share_while_receiving: f64,
}

/// `[alert]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AlertConfig {
    /// Neighbouring slices that must be suspicious.
    pub(crate) slices: usize,
    /// A slice is suspicious from this probability on; absent: the weights' own threshold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threshold: Option<f32>,
    /// Slices that have arrived are neighbours up to this distance, in mm.
    pub(crate) max_gap_mm: f64,
}

/// `[model]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The `.safetensors` file; its manifest lies beside it.
    pub weights: PathBuf,
    /// `auto`, `cpu` or `cuda:N`.
    #[serde(default = "default::device")]
    pub device: String,
    /// Precision of matrix products, `f32` or `bf16`.
    #[serde(default = "default::precision")]
    pub precision: String,
    /// Threads of libtorch on the CPU; 0: as many as there are cores.
    #[serde(default)]
    pub threads: usize,
    /// Slices classified at once.
    #[serde(default = "default::batch")]
    pub batch: usize,
    /// Further weights: in the shadow, until somebody makes them the active ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<AlsoConfig>,
}

/// `[[model.also]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlsoConfig {
    /// The `.safetensors` file; its manifest lies beside it.
    pub weights: PathBuf,
    /// `auto`, `cpu` or `cuda:N`.
    #[serde(default = "default::device")]
    pub device: String,
    /// Precision of matrix products, `f32` or `bf16`.
    #[serde(default = "default::precision")]
    pub precision: String,
    /// Threads of libtorch on the CPU; 0: as many as there are cores.
    #[serde(default)]
    pub threads: usize,
    /// Slices classified at once.
    #[serde(default = "default::batch")]
    pub batch: usize,
}

/// `[shadow]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShadowConfig {
    /// Whether the models that are not active score what the active one has analysed.
    pub(crate) run: bool,
    /// Studies that may wait for one model.
    pub(crate) max_queue: u32,
    /// Attempts at one study.
    pub(crate) attempts: u32,
    /// Slices that arrived within this time are real work, in seconds.
    pub(crate) quiet_s: f64,
    /// Wait before a model that could not be loaded, or a process that ended, is tried again, in seconds.
    pub(crate) retry_s: f64,
}

impl Default for AnalysisConfig {
    fn default() -> Self {
        Self {
            attempts: 3,
            first_backoff_s: 10.0,
            min_lesion_ml: 0.1,
            keep_maps: true,
            while_receiving: true,
            nice: 10,
            idle_cores_only: true,
            share_while_receiving: 0.2,
            longest_overtaken_s: 900.0,
        }
    }
}

impl AnalysisConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        at_least_one("analysis.attempts", self.attempts as usize)?;
        between("analysis.nice", f64::from(self.nice), 19.0)?;
        if !(0.01..=1.0).contains(&self.share_while_receiving) {
            return fault("analysis.share_while_receiving", "must be from 0.01 to 1".to_owned());
        }
        between("analysis.min_lesion_ml", self.min_lesion_ml, 1000.0)
    }

    /// The priority of the threads that prepare and classify.
    pub(crate) fn priority(&self) -> Priority {
        Priority { nice: self.nice, idle_cores_only: self.idle_cores_only }
    }

    pub(super) fn durations(&self) -> Durations {
        vec![
            ("analysis.first_backoff_s".to_owned(), self.first_backoff_s),
            ("analysis.longest_overtaken_s".to_owned(), self.longest_overtaken_s),
        ]
    }
}

impl Default for ShadowConfig {
    fn default() -> Self {
        Self { run: true, max_queue: 1000, attempts: 2, quiet_s: 2.0, retry_s: 600.0 }
    }
}

impl ShadowConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        at_least_one("shadow.max_queue", self.max_queue as usize)?;
        at_least_one("shadow.attempts", self.attempts as usize)
    }

    pub(super) fn durations(&self) -> Durations {
        vec![("shadow.quiet_s".to_owned(), self.quiet_s), ("shadow.retry_s".to_owned(), self.retry_s)]
    }
}

impl Default for AlertConfig {
    fn default() -> Self {
        Self { slices: 3, threshold: None, max_gap_mm: 10.0 }
    }
}

impl AlertConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        at_least_one("alert.slices", self.slices)?;
        between("alert.threshold", f64::from(self.threshold.unwrap_or(0.0)), 1.0)?;
        between("alert.max_gap_mm", self.max_gap_mm, 1000.0)
    }
}

impl ModelConfig {
    pub(super) fn resolve(&mut self, folder: &Path) {
        self.weights = folder.join(&self.weights);
        self.also.iter_mut().for_each(|also| also.weights = folder.join(&also.weights));
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        check_model("model", &self.device, &self.precision, self.batch)?;
        for also in &self.also {
            check_model("model.also", &also.device, &also.precision, also.batch)?;
        }
        let all = || std::iter::once(&self.weights).chain(self.also.iter().map(|also| &also.weights));
        match all().enumerate().find(|(place, weights)| all().take(*place).any(|earlier| earlier == *weights)) {
            Some((_, twice)) => fault("model.also", format!("{} stands twice", twice.display())),
            None => Ok(()),
        }
    }

    /// Every model that is named, `[model]` first.
    pub(crate) fn each(&self) -> Vec<Self> {
        let also = |also: &AlsoConfig| Self {
            weights: also.weights.clone(),
            device: also.device.clone(),
            precision: also.precision.clone(),
            threads: also.threads,
            batch: also.batch,
            also: Vec::new(),
        };
        std::iter::once(Self { also: Vec::new(), ..self.clone() }).chain(self.also.iter().map(also)).collect()
    }
}

fn check_model(key: &str, device: &str, precision: &str, batch: usize) -> Result<(), Fault> {
    at_least_one(&format!("{key}.batch"), batch)?;
    if let Err(error) = precision.parse::<ichor_core::Precision>() {
        return fault(&format!("{key}.precision"), error.to_string());
    }
    match device.parse::<ichor_core::DeviceChoice>() {
        Ok(_) => Ok(()),
        Err(error) => fault(&format!("{key}.device"), error.to_string()),
    }
}

/// The defaults of single keys.
mod default {
    pub(super) fn device() -> String {
        "auto".to_owned()
    }
    pub(super) fn precision() -> String {
        ichor_core::Precision::default().to_string()
    }
    pub(super) const fn batch() -> usize {
        8
    }
}
