//! Attribution maps from a Swin's attention (arXiv 2304.04902v2, sections 3.2 and 3.3): HGI-SAM, Swin-SAM, and
//! Grad-CAM on the same network.
//!
//! Everything is normalised per slice, and no slice sees another: a batch gives the maps of its slices one by one.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use thiserror::Error;

use crate::config::{StagePlan, SwinPlan};
use crate::swin::{BlockAttention, Keep, Swin, tokens_to_grid};

/// Stages that HGI-SAM multiplies: the first three (section 3.3); the last one's grid is too coarse.
pub const HGI_STAGES: usize = 3;

/// Where HGI-SAM takes its gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientSite {
    /// The softmax's input, as the reference implementation does.
    #[default]
    SoftmaxInput,
    /// The softmax's output, as the paper's text has it.
    SoftmaxOutput,
}

/// How far odd blocks are rolled back when windows become a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RollBack {
    /// By the shift that the block really had.
    #[default]
    AsShifted,
    /// By ⌊window / 2⌋ in every odd block, as the reference does, even where one window is the whole grid and nothing
    /// was shifted. For parity with it.
    AsReference,
}

/// Settings of [`hgi_sam`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HgiOptions {
    /// Where gradients are taken.
    pub site: GradientSite,
    /// How odd blocks are rolled back.
    pub roll_back: RollBack,
}

/// Which logit Grad-CAM explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CamTarget {
    /// Each slice's highest logit, as in the paper.
    Predicted,
    /// One logit for all slices.
    Logit(i64),
}

/// Maps of a batch.
#[derive(Debug)]
pub struct Attribution {
    /// `[batch, classes]`
    pub logits: Tensor,
    /// One map a stage, each min–max normalised per slice, then brought to the input's size: `[batch, stages, S, S]`.
    pub stages: Tensor,
    /// Product of the stages inside the brain mask, min–max normalised per slice: `[batch, S, S]`.
    pub map: Tensor,
}

/// Why there are no maps.
#[derive(Debug, Error)]
pub enum AttributionError {
    /// A tensor has another shape than the network wants.
    #[error("{what} is {got:?}, the model wants {want:?} (batch first)")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// Its shape.
        got: Vec<i64>,
        /// The shape it should have, -1 for the batch.
        want: Vec<i64>,
    },
    /// The network has no such logit.
    #[error("logit {0} of a model with {1} logits")]
    NoSuchLogit(i64, i64),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// libtorch returned no gradient.
    #[error("no gradient came back for {0}")]
    NoGradient(String),
}

/// Head-wise gradient-infused self-attention maps.
///
/// `input`: `[batch, channels, S, S]`; `brain`: `[batch, S, S]`, 0 or 1; `positive`: index of the logit whose gradient
/// is taken. Gradients of the weights are neither needed nor computed.
///
/// # Errors
/// [`AttributionError`] if shapes or the logit do not fit the network.
pub fn hgi_sam(
    swin: &Swin,
    input: &Tensor,
    brain: &Tensor,
    positive: i64,
    options: HgiOptions,
) -> Result<Attribution, AttributionError> {
    check_shapes(swin.plan(), input, brain)?;
    let stages = HGI_STAGES.min(swin.plan().stages.len());
    let infused = attention_gradients(swin, input, positive, options.site, stages)?;
    let _guard = tch::no_grad_guard();
    let keys = infused.blocks.iter().map(|blocks| blocks.iter().map(InfusedBlock::key_attention).collect());
    let maps = stage_maps(swin.plan(), keys.collect(), options.roll_back);
    Ok(finish(infused.logits, maps, brain))
}

/// Self-attention maps without gradients, over all stages.
///
/// `input`: `[batch, channels, S, S]`; `brain`: `[batch, S, S]`, 0 or 1.
///
/// # Errors
/// [`AttributionError`] if shapes do not fit the network.
pub fn swin_sam(
    swin: &Swin,
    input: &Tensor,
    brain: &Tensor,
    roll_back: RollBack,
) -> Result<Attribution, AttributionError> {
    check_shapes(swin.plan(), input, brain)?;
    let _guard = tch::no_grad_guard();
    let forward = swin.forward_with_attention(input, Keep::Softmax);
    // Mean over heads, then over queries: [batch · windows, N].
    let key_attention = |block: &BlockAttention| block.softmax.mean_dim([1i64, 2].as_slice(), false, None);
    let keys = forward.attention.iter().map(|blocks| blocks.iter().map(key_attention).collect());
    let maps = stage_maps(swin.plan(), keys.collect(), roll_back);
    Ok(finish(forward.logits, maps, brain))
}

/// Grad-CAM (Selvaraju et al. 2017) on the first norm of the last block. `stages` of the result is the one map before
/// the brain mask.
///
/// `input`: `[batch, channels, S, S]`; `brain`: `[batch, S, S]`, 0 or 1.
///
/// # Errors
/// [`AttributionError`] if shapes or the logit do not fit the network.
pub fn grad_cam(
    swin: &Swin,
    input: &Tensor,
    brain: &Tensor,
    target: CamTarget,
) -> Result<Attribution, AttributionError> {
    check_shapes(swin.plan(), input, brain)?;
    let forward = tch::with_grad(|| swin.forward_with_attention(input, Keep::LastNorm));
    let missing = || AttributionError::NoGradient("the last block's first norm".to_owned());
    let features = forward.last_norm.ok_or_else(missing)?;
    let logit = match target {
        CamTarget::Predicted => forward.logits.argmax(-1, true), // [batch, 1]
        CamTarget::Logit(index) => {
            check_logit(swin.plan(), index)?;
            Tensor::full([input.size()[0], 1], index, (Kind::Int64, input.device()))
        }
    };
    let score = tch::with_grad(|| forward.logits.gather(1, &logit, false).sum(None));
    let gradient = Tensor::run_backward(&[score], &[&features], false, false).pop().filter(Tensor::defined);
    let gradient = gradient.ok_or_else(missing)?; // [batch, g, g, dim]
    let _guard = tch::no_grad_guard();
    let map = cam_map(&features.detach(), &gradient, swin.plan().config.img_size);
    Ok(finish(forward.logits.detach(), vec![map], brain))
}

/// Grad-CAM from features and their gradient, `[batch, g, g, dim]` both → `[batch, size, size]`.
pub(crate) fn cam_map(features: &Tensor, gradient: &Tensor, size: i64) -> Tensor {
    let weights = gradient.mean_dim([1i64, 2].as_slice(), true, None); // [batch, 1, 1, dim]
    let cam = (weights * features).sum_dim_intlist([-1i64].as_slice(), false, None).relu();
    // Again after upsampling, as is customary: no pixel centre lies on a token's centre, so the extremes move.
    min_max(&upsample(&min_max(&cam), size))
}

/// Attention of a block and its gradient: `[batch · windows, heads, N, N]` each.
#[derive(Debug)]
pub struct InfusedBlock {
    /// Softmax output.
    pub attention: Tensor,
    /// Gradient of the positive logit at the chosen site.
    pub gradient: Tensor,
}

impl InfusedBlock {
    /// Weight of every head in every window: the Frobenius norm of its gradient, `[batch · windows, heads]`.
    pub fn head_weight(&self) -> Tensor {
        self.gradient.square().sum_dim_intlist([-2i64, -1].as_slice(), false, None).sqrt()
    }

    /// What each key receives, heads weighted: mean over heads and queries of weight × attention,
    /// `[batch · windows, N]`. Both means are linear, so the smaller one goes first.
    fn key_attention(&self) -> Tensor {
        let keys = self.attention.mean_dim([-2i64].as_slice(), false, None); // [batch · windows, heads, N]
        (keys * self.head_weight().unsqueeze(-1)).mean_dim([1i64].as_slice(), false, None)
    }
}

/// Attention and gradients of the first stages, detached from the graph.
#[derive(Debug)]
pub struct Infused {
    /// `[batch, classes]`
    pub logits: Tensor,
    /// By stage, then block.
    pub blocks: Vec<Vec<InfusedBlock>>,
}

/// Gradients of the positive logit (summed over the batch, whose slices do not meet) at every block of the first
/// `stages` stages, by one backward pass that ends at the first block's scores.
///
/// # Errors
/// [`AttributionError`] if the logit does not exist or libtorch gives no gradient.
pub fn attention_gradients(
    swin: &Swin,
    input: &Tensor,
    positive: i64,
    site: GradientSite,
    stages: usize,
) -> Result<Infused, AttributionError> {
    check_logit(swin.plan(), positive)?;
    // The caller's thread may have gradients off, as it should for everything else.
    let forward = tch::with_grad(|| swin.forward_with_attention(input, Keep::Scores));
    let score = tch::with_grad(|| forward.logits.select(1, positive).sum(None));
    let wanted = || forward.attention.iter().take(stages);
    let sites: Vec<&Tensor> = wanted()
        .flatten()
        .map(|block| match site {
            GradientSite::SoftmaxInput => &block.scores,
            GradientSite::SoftmaxOutput => &block.softmax,
        })
        .collect();
    let mut gradients = Tensor::run_backward(&[score], &sites, false, false).into_iter();
    let mut blocks = Vec::with_capacity(stages);
    for (s, stage) in wanted().enumerate() {
        let mut infused = Vec::with_capacity(stage.len());
        for (b, block) in stage.iter().enumerate() {
            let gradient = gradients.next().filter(Tensor::defined);
            let gradient = gradient.ok_or_else(|| AttributionError::NoGradient(format!("stage {s}, block {b}")))?;
            infused.push(InfusedBlock { attention: block.softmax.detach(), gradient });
        }
        blocks.push(infused);
    }
    Ok(Infused { logits: forward.logits.detach(), blocks })
}

/// One map a stage from what each key receives in each block: consecutive blocks multiplied, pairs averaged, min–max,
/// then bilinear to the input's size. An unpaired last block stands for itself.
pub(crate) fn stage_maps(plan: &SwinPlan, keys: Vec<Vec<Tensor>>, roll_back: RollBack) -> Vec<Tensor> {
    let stages = plan.stages.iter().zip(keys);
    stages
        .map(|(stage, blocks)| {
            let grids = blocks.iter().enumerate().map(|(index, keys)| block_grid(stage, index, keys, roll_back));
            let grids: Vec<Tensor> = grids.collect();
            let pairs: Vec<Tensor> = grids
                .chunks(2)
                .map(|pair| match pair {
                    [even, odd] => even * odd,
                    rest => Tensor::stack(rest, 0).prod_dim_int(0, false, None),
                })
                .collect();
            let mean = Tensor::stack(&pairs, 0).mean_dim([0i64].as_slice(), false, None); // [batch, g, g]
            upsample(&min_max(&mean), plan.config.img_size)
        })
        .collect()
}

/// `[batch · windows, N]` → `[batch, g, g]` in the image's own position.
fn block_grid(stage: &StagePlan, index: usize, keys: &Tensor, roll_back: RollBack) -> Tensor {
    let grid = tokens_to_grid(keys, stage.window, stage.padded()).narrow(1, 0, stage.grid).narrow(2, 0, stage.grid);
    let shift = match roll_back {
        _ if index.is_multiple_of(2) => 0,
        RollBack::AsShifted => stage.shift,
        RollBack::AsReference => stage.window / 2,
    };
    if shift > 0 { grid.roll([shift, shift], [1, 2]) } else { grid }
}

pub(crate) fn finish(logits: Tensor, stages: Vec<Tensor>, brain: &Tensor) -> Attribution {
    let stages = Tensor::stack(&stages, 1); // [batch, stages, S, S]
    let map = min_max(&(stages.prod_dim_int(1, false, None) * brain.to_kind(Kind::Float)));
    Attribution { logits, stages, map }
}

/// Brings each slice of `[batch, h, w]` to 0..1. A constant slice becomes 0: nothing stands out in it.
fn min_max(x: &Tensor) -> Tensor {
    let plane = [1i64, 2];
    let least = x.amin(plane.as_slice(), true);
    let range = x.amax(plane.as_slice(), true) - &least;
    let range = range.where_self(&range.ne(0.0), &range.ones_like());
    (x - least) / range
}

/// Bilinear, corners not aligned: `[batch, g, g]` → `[batch, size, size]`.
fn upsample(x: &Tensor, size: i64) -> Tensor {
    x.unsqueeze(1).upsample_bilinear2d([size, size], false, None, None).squeeze_dim(1)
}

pub(crate) fn check_shapes(plan: &SwinPlan, input: &Tensor, brain: &Tensor) -> Result<(), AttributionError> {
    let side = plan.config.img_size;
    let check = |what, got: Vec<i64>, want: Vec<i64>| {
        let fits = got.len() == want.len() && got.first() > Some(&0) && got.get(1..) == want.get(1..);
        if fits { Ok(()) } else { Err(AttributionError::Shape { what, got, want }) }
    };
    check("input", input.size(), vec![-1, plan.config.in_chans, side, side])?;
    check("brain mask", brain.size(), vec![-1, side, side])?;
    if brain.size()[0] == input.size()[0] {
        Ok(())
    } else {
        let want = vec![input.size()[0], side, side];
        Err(AttributionError::Shape { what: "brain mask", got: brain.size(), want })
    }
}

pub(crate) fn check_logit(plan: &SwinPlan, index: i64) -> Result<(), AttributionError> {
    let classes = plan.config.num_classes;
    if (0..classes).contains(&index) { Ok(()) } else { Err(AttributionError::NoSuchLogit(index, classes)) }
}
