//! Swin, head-wise gradient-infused self-attention, weights.

mod config;
mod swin;

pub use config::{PlanError, StagePlan, SwinConfig, SwinPlan};
pub use swin::{BlockAttention, Forward, Keep, Swin};
