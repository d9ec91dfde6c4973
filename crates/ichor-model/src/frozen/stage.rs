//! A stage: blocks, and the merging in front of them.

use ichor_core::Precision;
use tch::{Kind, TchError, Tensor};

use super::block::Block;
use super::layout::Gather;
use super::linear::{Linear, Normed};
use crate::swin::Swin;

/// Blocks of one grid.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) merging: Option<Merging>,
    pub(super) blocks: Vec<Block>,
}

/// Between two stages: four tokens become one.
#[derive(Debug)]
pub(super) struct Merging {
    gather: Gather,
    reduction: Linear,
    precision: Precision,
}

/// The first `count` stages of a network, each in its precision.
pub(super) fn stages(
    swin: &Swin,
    count: usize,
    precision: impl Fn(usize) -> Precision,
) -> Result<Vec<Stage>, TchError> {
    let mut stages: Vec<Stage> = Vec::with_capacity(count);
    for (at, (stage, plan)) in swin.stages.iter().zip(&swin.plan().stages).take(count).enumerate() {
        let precision = precision(at);
        let mut blocks: Vec<Block> = Vec::with_capacity(stage.blocks.len());
        for block in &stage.blocks {
            let made = Block::new(block, plan, blocks.last().map(|before| &before.order), precision)?;
            blocks.push(made);
        }
        let before = stages.last().and_then(|stage| stage.blocks.last());
        let merging = match (&stage.downsample, before, blocks.first()) {
            (Some(merging), Some(before), Some(next)) => Some(Merging {
                gather: before.order.merged(&next.order, swin.device()),
                reduction: Linear::after_norm(&merging.norm, &merging.reduction, None, precision)?,
                precision,
            }),
            _ => None,
        };
        stages.push(Stage { merging, blocks });
    }
    Ok(stages)
}

impl Stage {
    /// Merges what comes from the stage before, if there is one; `[batch, tokens, dim]` both.
    pub(super) fn enter(&self, x: Tensor) -> Result<(Tensor, Option<Normed>), TchError> {
        let Some(merging) = &self.merging else { return Ok((x, None)) };
        let x = merging.gather.forth(&x)?;
        let size = x.size();
        let fours = x.f_view([size[0] * size[1] / 4, size[2] * 4])?;
        let normed = Normed::of(&fours, merging.precision)?;
        let merged = merging.reduction.forward(&normed.x)?.f_to_kind(Kind::Float)?;
        Ok((merged.f_view([size[0], size[1] / 4, -1])?, Some(normed)))
    }
}

impl Merging {
    pub(super) fn backward(&self, gradient: &Tensor, normed: &Normed) -> Result<Tensor, TchError> {
        let size = gradient.size();
        let rows = self.reduction.backward(&gradient.f_view([size[0] * size[1], size[2]])?)?;
        let mut fours = Tensor::f_zeros(rows.size(), (Kind::Float, gradient.device()))?;
        normed.backward_into(rows, &mut fours)?;
        self.gather.back(&fours.f_view([size[0], size[1] * 4, -1])?)
    }
}
