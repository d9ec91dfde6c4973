//! Swin transformer (Liu et al. 2021) with timm's parameter names: `swin.layers.0.blocks.0.attn.qkv.weight`,
//! `head.weight`.

mod attention;
mod windows;

use tch::Tensor;
use tch::nn::{self, Module};

use crate::config::{StagePlan, SwinPlan};
pub(crate) use attention::Attention;
pub use attention::BlockAttention;
pub(crate) use windows::tokens_to_grid;
use windows::{window_partition, window_reverse};

/// Added to the variance in every layer norm: timm's value, and tch's default.
pub(crate) const NORM_EPSILON: f64 = 1e-5;

/// What to keep of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Logits only.
    Nothing,
    /// Softmax outputs (and inputs) of every block.
    Softmax,
    /// The same, with the first block's softmax input as a leaf that wants gradients: the graph starts there, and no
    /// weight needs to take part in it.
    Scores,
    /// The output of the last block's first norm, as a leaf that wants gradients (for Grad-CAM).
    LastNorm,
}

/// A forward pass and what was kept of it.
#[derive(Debug)]
pub struct Forward {
    /// `[batch, classes]`
    pub logits: Tensor,
    /// By stage, then block; empty unless [`Keep::Softmax`] or [`Keep::Scores`].
    pub attention: Vec<Vec<BlockAttention>>,
    /// `[batch, grid, grid, dim]`; present for [`Keep::LastNorm`].
    pub last_norm: Option<Tensor>,
}

/// Non-overlapping patches, projected: a convolution whose stride is its kernel. Done as a matrix product, which
/// stays in full precision on GPUs whose convolutions round to TF32.
#[derive(Debug)]
pub(crate) struct PatchEmbed {
    /// `[dim, channels, p, p]`
    weight: Tensor,
    bias: Option<Tensor>,
    norm_weight: Option<Tensor>,
    norm_bias: Option<Tensor>,
    patch: i64,
}

impl PatchEmbed {
    fn new(path: &nn::Path<'_>, plan: &SwinPlan) -> Self {
        let (config, patch) = (&plan.config, plan.config.patch_size);
        let stride = nn::ConvConfig { stride: patch, ..Default::default() };
        let proj = nn::conv2d(path / "proj", config.in_chans, config.embed_dim, patch, stride);
        let norm = layer_norm(&(path / "norm"), config.embed_dim);
        Self { weight: proj.ws, bias: proj.bs, norm_weight: norm.ws, norm_bias: norm.bs, patch }
    }

    /// Another handle to the same weights.
    pub(crate) fn shallow_clone(&self) -> Self {
        let same = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::shallow_clone);
        Self {
            weight: self.weight.shallow_clone(),
            bias: same(&self.bias),
            norm_weight: same(&self.norm_weight),
            norm_bias: same(&self.norm_bias),
            patch: self.patch,
        }
    }

    /// `[batch, channels, S, S]` → `[batch, g, g, dim]`
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let (b, channels, grid, p) = (x.size()[0], x.size()[1], x.size()[2] / self.patch, self.patch);
        let patches = x.reshape([b, channels, grid, p, grid, p]).permute([0, 2, 4, 1, 3, 5]).reshape([
            b,
            grid,
            grid,
            channels * p * p,
        ]);
        let weight = self.weight.flatten(1, -1); // [dim, channels · p · p]
        let x = patches.linear(&weight, self.bias.as_ref());
        x.layer_norm([weight.size()[0]], self.norm_weight.as_ref(), self.norm_bias.as_ref(), NORM_EPSILON, true)
    }
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) norm1: nn::LayerNorm,
    pub(crate) attention: Attention,
    pub(crate) norm2: nn::LayerNorm,
    pub(crate) fc1: nn::Linear,
    pub(crate) fc2: nn::Linear,
    grid: i64,
    padded: i64,
    window: i64,
    pub(crate) shift: i64,
}

impl Block {
    fn new(path: &nn::Path<'_>, plan: &StagePlan, index: i64) -> Self {
        let dim = plan.dim;
        let shift = if index % 2 == 1 { plan.shift } else { 0 };
        let mlp = path / "mlp";
        Self {
            norm1: layer_norm(&(path / "norm1"), dim),
            attention: Attention::new(&(path / "attn"), plan, shift),
            norm2: layer_norm(&(path / "norm2"), dim),
            fc1: nn::linear(&mlp / "fc1", dim, 4 * dim, linear_config()),
            fc2: nn::linear(&mlp / "fc2", 4 * dim, dim, linear_config()),
            grid: plan.grid,
            padded: plan.padded(),
            window: plan.window,
            shift,
        }
    }

    /// The residual branch of the attention, from the first norm's output. Both `[batch, g, g, dim]`.
    fn attend(&self, normed: &Tensor, keep: Keep, leaf: bool) -> (Tensor, Option<BlockAttention>) {
        let (shift, rows_and_columns) = (self.shift, [1, 2]);
        let rolled = (shift > 0).then(|| normed.roll([-shift, -shift], rows_and_columns));
        let normed = rolled.as_ref().unwrap_or(normed);
        let missing = self.padded - self.grid;
        let padded = (missing > 0).then(|| normed.constant_pad_nd([0, 0, 0, missing, 0, missing]));
        let windows = window_partition(padded.as_ref().unwrap_or(normed), self.window); // [b · windows, N, dim]
        let (mixed, attention) = self.attention.forward(&windows, keep, leaf);
        let merged = window_reverse(&mixed, self.window, self.padded);
        let merged = if missing > 0 { merged.narrow(1, 0, self.grid).narrow(2, 0, self.grid) } else { merged };
        let merged = if shift > 0 { merged.roll([shift, shift], rows_and_columns) } else { merged };
        (merged, attention)
    }

    /// `x`: `[batch, g, g, dim]`; `normed`: its first norm.
    fn forward(&self, x: &Tensor, normed: &Tensor, keep: Keep, leaf: bool) -> (Tensor, Option<BlockAttention>) {
        let (attended, attention) = self.attend(normed, keep, leaf);
        let x = x + attended;
        let hidden = self.fc1.forward(&self.norm2.forward(&x)).gelu("none"); // [batch, g, g, 4 · dim]
        (x + self.fc2.forward(&hidden), attention)
    }
}

#[derive(Debug)]
pub(crate) struct PatchMerging {
    pub(crate) norm: nn::LayerNorm,
    pub(crate) reduction: nn::Linear,
}

impl PatchMerging {
    fn new(path: &nn::Path<'_>, dim: i64) -> Self {
        let no_bias = nn::LinearConfig { bias: false, ..linear_config() };
        Self {
            norm: layer_norm(&(path / "norm"), 4 * dim),
            reduction: nn::linear(path / "reduction", 4 * dim, 2 * dim, no_bias),
        }
    }

    /// `[batch, g, g, dim]` → `[batch, g/2, g/2, 2·dim]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let (b, g, dim) = (x.size()[0], x.size()[1], x.size()[3]);
        let x = x
            .view([b, g / 2, 2, g / 2, 2, dim])
            .permute([0, 1, 3, 4, 2, 5]) // column parity before row parity: the checkpoints' order
            .reshape([b, g / 2, g / 2, 4 * dim]);
        self.reduction.forward(&self.norm.forward(&x))
    }
}

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) downsample: Option<PatchMerging>,
    pub(crate) blocks: Vec<Block>,
}

impl Stage {
    fn new(path: &nn::Path<'_>, plan: &StagePlan, index: usize) -> Self {
        Self {
            downsample: (index > 0).then(|| PatchMerging::new(&(path / "downsample"), plan.dim / 2)),
            blocks: (0..plan.depth).map(|b| Block::new(&(path / "blocks" / b), plan, b)).collect(),
        }
    }
}

/// A Swin with one linear head on the mean of its tokens, without drop path or dropout.
#[derive(Debug)]
pub struct Swin {
    plan: SwinPlan,
    pub(crate) patch_embed: PatchEmbed,
    pub(crate) stages: Vec<Stage>,
    pub(crate) norm: nn::LayerNorm,
    pub(crate) head: nn::Linear,
}

impl Swin {
    /// Makes the network's variables under `path`, named as in timm checkpoints (`swin.…`, `head.…`).
    #[must_use]
    pub fn new(path: &nn::Path<'_>, plan: &SwinPlan) -> Self {
        let (config, root) = (&plan.config, path / "swin");
        let layers = &root / "layers";
        let stages = plan.stages.iter().enumerate();
        let features = plan.stages.last().map_or(config.embed_dim, |stage| stage.dim);
        Self {
            plan: plan.clone(),
            patch_embed: PatchEmbed::new(&(&root / "patch_embed"), plan),
            stages: stages.map(|(index, stage)| Stage::new(&(&layers / index), stage, index)).collect(),
            norm: layer_norm(&(&root / "norm"), features),
            head: nn::linear(path / "head", features, config.num_classes, linear_config()),
        }
    }

    /// The sizes.
    #[must_use]
    pub fn plan(&self) -> &SwinPlan {
        &self.plan
    }

    /// The device of its variables.
    #[must_use]
    pub fn device(&self) -> tch::Device {
        self.head.ws.device()
    }

    /// Puts position bias and shift mask of every block together once, instead of in each forward pass. For weights
    /// that no longer change: call it after they are loaded, never before training.
    pub fn settle(&mut self) {
        let _guard = tch::no_grad_guard();
        for block in self.stages.iter_mut().flat_map(|stage| &mut stage.blocks) {
            block.attention.settle();
        }
    }

    /// `[batch, channels, S, S]` → logits `[batch, classes]`.
    ///
    /// # Panics
    /// As all of tch's plain methods: on a wrong shape, and when memory runs out.
    pub fn forward(&self, input: &Tensor) -> Tensor {
        self.forward_with_attention(input, Keep::Nothing).logits
    }

    /// The same, with attention kept as values.
    ///
    /// # Panics
    /// As [`Swin::forward`].
    #[must_use]
    pub fn forward_with_attention(&self, input: &Tensor, keep: Keep) -> Forward {
        let mut x = self.patch_embed.forward(input); // [batch, g, g, dim]
        let (mut attention, mut last_norm) = (Vec::new(), None);
        for (s, stage) in self.stages.iter().enumerate() {
            if let Some(downsample) = &stage.downsample {
                x = downsample.forward(&x);
            }
            let mut kept = Vec::new();
            for (b, block) in stage.blocks.iter().enumerate() {
                let last = s + 1 == self.stages.len() && b + 1 == stage.blocks.len();
                let mut normed = block.norm1.forward(&x);
                if last && keep == Keep::LastNorm {
                    normed = normed.detach().set_requires_grad(true);
                    last_norm = Some(normed.shallow_clone());
                }
                let leaf = keep == Keep::Scores && s == 0 && b == 0;
                let (y, block_attention) = block.forward(&x, &normed, keep, leaf);
                x = y;
                kept.extend(block_attention);
            }
            if !kept.is_empty() {
                attention.push(kept);
            }
        }
        let x = self.norm.forward(&x).mean_dim([1i64, 2].as_slice(), false, None); // [batch, features]
        Forward { logits: self.head.forward(&x), attention, last_norm }
    }
}

fn small_normal() -> nn::Init {
    nn::Init::Randn { mean: 0.0, stdev: 0.02 }
}

fn linear_config() -> nn::LinearConfig {
    nn::LinearConfig { ws_init: small_normal(), bs_init: Some(nn::Init::Const(0.0)), bias: true }
}

fn layer_norm(path: &nn::Path<'_>, dim: i64) -> nn::LayerNorm {
    nn::layer_norm(path, vec![dim], nn::LayerNormConfig { eps: NORM_EPSILON, ..Default::default() })
}
