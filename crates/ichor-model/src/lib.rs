//! The model: Swin, attribution maps from its attention, weights with their manifest, and the thread that runs them.
//!
//! Architecture Invariant: this crate knows neither DICOM nor SQL. It takes flat arrays that `ichor-ct` prepared and
//! gives flat arrays back; which preparation belongs to which weights stands in the [`Manifest`].
//!
//! Architecture Invariant: tensors are Send, not Sync. Outside training they live on one thread, behind
//! [`ModelRuntime`].

pub mod attribution;
mod config;
mod strategy;
mod swin;

pub use config::{PlanError, StagePlan, SwinConfig, SwinPlan};
pub use strategy::Strategy;
pub use swin::{BlockAttention, Forward, Keep, Swin};
