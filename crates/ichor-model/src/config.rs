//! Sizes of a Swin: configuration → checked plan, before any tensor exists.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Sizes as they stand in a manifest, with timm's meanings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwinConfig {
    /// Side of the square input, in pixels.
    pub img_size: i64,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// Side of an attention window, in tokens.
    pub window_size: i64,
    /// Channels of the first stage; doubles with each stage.
    pub embed_dim: i64,
    /// Blocks of each stage.
    pub depths: Vec<i64>,
    /// Heads of each stage.
    pub num_heads: Vec<i64>,
    /// Logits.
    pub num_classes: i64,
    /// Input channels.
    #[serde(default = "three")]
    pub in_chans: i64,
}

const fn three() -> i64 {
    3
}

/// One stage, sizes settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePlan {
    /// Channels.
    pub dim: i64,
    /// Heads.
    pub heads: i64,
    /// Blocks.
    pub depth: i64,
    /// Side of the token grid.
    pub grid: i64,
    /// Side of a window: the configured one, or the grid where that is smaller.
    pub window: i64,
    /// Shift of odd blocks: 0 where one window is the whole grid.
    pub shift: i64,
}

impl StagePlan {
    /// Channels of a head. Where `dim` is no multiple of `heads` the rest takes no part in attention, as in timm.
    #[must_use]
    pub const fn head_dim(&self) -> i64 {
        self.dim / self.heads
    }

    /// Side of the grid that windows cover: `grid`, with zeros below and at the right where no whole windows fit it.
    #[must_use]
    pub const fn padded(&self) -> i64 {
        (self.grid + self.window - 1) / self.window * self.window
    }
}

/// A configuration that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwinPlan {
    /// Where it came from.
    pub config: SwinConfig,
    /// Every stage.
    pub stages: Vec<StagePlan>,
}

/// Why sizes do not make a Swin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// A size is zero, negative or beyond reason.
    #[error("{0} is {1}, which is not between 1 and {2}")]
    Range(&'static str, i64, i64),
    /// Depths and heads differ in number, or there are none.
    #[error("{depths} depths and {heads} numbers of heads: there must be as many of each, 1 to 8")]
    Stages {
        /// Number of depths.
        depths: usize,
        /// Number of head counts.
        heads: usize,
    },
    /// Something does not divide.
    #[error("stage {stage}: {what} {a} is not a multiple of {by} {b}")]
    Multiple {
        /// Stage, from 0.
        stage: usize,
        /// What should be a multiple.
        what: &'static str,
        /// Its value.
        a: i64,
        /// Of what.
        by: &'static str,
        /// Its value.
        b: i64,
    },
    /// Nothing is left for a head.
    #[error("stage {stage}: num_heads is {heads}, more than its {dim} channels")]
    Heads {
        /// Stage, from 0.
        stage: usize,
        /// Heads.
        heads: i64,
        /// Channels.
        dim: i64,
    },
}

fn in_range(name: &'static str, value: i64, most: i64) -> Result<(), PlanError> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(PlanError::Range(name, value, most)) }
}

fn divides(stage: usize, what: &'static str, a: i64, by: &'static str, b: i64) -> Result<(), PlanError> {
    if a % b == 0 { Ok(()) } else { Err(PlanError::Multiple { stage, what, a, by, b }) }
}

impl SwinPlan {
    /// Checks sizes.
    ///
    /// # Errors
    /// [`PlanError`] says which size cannot be.
    pub fn check(config: &SwinConfig) -> Result<Self, PlanError> {
        in_range("img_size", config.img_size, 2048)?;
        in_range("patch_size", config.patch_size, 64)?;
        in_range("window_size", config.window_size, 64)?;
        in_range("embed_dim", config.embed_dim, 1024)?;
        in_range("num_classes", config.num_classes, 1000)?;
        in_range("in_chans", config.in_chans, 16)?;
        let (depths, heads) = (config.depths.len(), config.num_heads.len());
        if depths != heads || !(1..=8).contains(&depths) {
            return Err(PlanError::Stages { depths, heads });
        }
        divides(0, "img_size", config.img_size, "patch_size", config.patch_size)?;
        let mut stages = Vec::with_capacity(depths);
        let (mut dim, mut grid) = (config.embed_dim, config.img_size / config.patch_size);
        for (index, (&depth, &heads)) in config.depths.iter().zip(&config.num_heads).enumerate() {
            in_range("depth", depth, 64)?;
            in_range("num_heads", heads, 128)?;
            if index > 0 {
                divides(index, "grid of the stage before,", grid, "merging", 2)?;
                (dim, grid) = (dim * 2, grid / 2);
            }
            if heads > dim {
                return Err(PlanError::Heads { stage: index, heads, dim });
            }
            let window = config.window_size.min(grid);
            let shift = if grid <= config.window_size { 0 } else { window / 2 };
            stages.push(StagePlan { dim, heads, depth, grid, window, shift });
        }
        Ok(Self { config: config.clone(), stages })
    }
}
