//! The model: Swin, attribution maps from its attention, weights with their manifest, and the thread that runs them.
//!
//! Architecture Invariant: this crate knows neither DICOM nor SQL. It takes flat arrays that `ichor-ct` prepared and
//! gives flat arrays back; which preparation belongs to which weights stands in the [`Manifest`].
//!
//! Architecture Invariant: tensors are Send, not Sync. Outside training they live on one thread, behind
//! [`ModelRuntime`].

pub mod attribution;
mod checkpoint;
mod config;
mod device;
mod files;
mod frozen;
mod manifest;
mod precision;
mod runtime;
mod self_test;
mod start;
mod strategy;
mod swin;
mod weights;

pub use config::{PlanError, StagePlan, SwinConfig, SwinPlan};
pub use device::{DeviceError, device_name, resolve};
pub use files::{FilesError, maps_from_files};
pub use frozen::Frozen;
pub use ichor_core::Precision;
pub use manifest::{
    Expected, InputCard, MANIFEST_FORMAT, Manifest, ManifestError, ManifestProblem, MapCard, MapKind, ModelCard,
    RefineCard,
};
pub use precision::{available, available_on_cpu};
pub use runtime::{ModelRuntime, RuntimeError, RuntimeOptions};
pub use self_test::{SelfTest, SelfTestFailed, SelfTestReport};
pub use start::{StartHead, start_from};
pub use strategy::Strategy;
pub use swin::{BlockAttention, Forward, Keep, Swin};
pub use weights::{SaveError, TensorProblem, WeightsError, WeightsProblem, load_frozen, save_model};
