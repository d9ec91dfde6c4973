//! Swin transformer (Liu et al. 2021), with timm's parameter names, attention returned as a value.

use tch::nn::{self, Module};
use tch::{Kind, Tensor};

use crate::config::{StagePlan, SwinPlan};

/// Attention of one block: `[batch × windows, heads, N, N]`, N = window², rows queries, columns keys.
#[derive(Debug)]
pub struct BlockAttention {
    /// Softmax input (scaled scores, position bias and shift mask added).
    pub scores: Tensor,
    /// Softmax output.
    pub softmax: Tensor,
}

/// What to keep of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: logits only.
    Nothing,
    /// Softmax outputs.
    Softmax,
    /// Softmax inputs and outputs; the first block's input becomes a leaf that wants gradients.
    Scores,
}

/// A forward pass with its attention.
#[derive(Debug)]
pub struct Forward {
    /// `[batch, classes]`
    pub logits: Tensor,
    /// By stage, then block; empty if nothing was kept.
    pub attention: Vec<Vec<BlockAttention>>,
    /// Output of the last block's first norm, `[batch, grid, grid, dim]`, for Grad-CAM.
    pub last_norm: Tensor,
}

#[derive(Debug)]
struct Attention {
    qkv: nn::Linear,
    proj: nn::Linear,
    bias_table: Tensor,
    bias_index: Tensor,
    heads: i64,
}

impl Attention {
    fn new(path: &nn::Path<'_>, plan: &StagePlan) -> Self {
        let (dim, heads, window) = (plan.dim, plan.heads, plan.window);
        let span = 2 * window - 1;
        Self {
            qkv: nn::linear(path / "qkv", dim, 3 * dim, linear_config()),
            proj: nn::linear(path / "proj", dim, dim, linear_config()),
            bias_table: path.var("relative_position_bias_table", &[span * span, heads], truncated_normal()),
            bias_index: relative_position_index(window).to_device(path.device()),
            heads,
        }
    }

    /// Position bias of every pair: `[heads, N, N]`.
    fn position_bias(&self) -> Tensor {
        let n = (self.bias_index.numel() as f64).sqrt() as i64;
        self.bias_table.index_select(0, &self.bias_index).view([n, n, self.heads]).permute([2, 0, 1])
    }

    /// `x`: `[batch × windows, N, dim]`; `mask`: `[windows, N, N]`.
    fn forward(&self, x: &Tensor, mask: Option<&Tensor>, keep: Keep, first: bool) -> (Tensor, Option<BlockAttention>) {
        let (b, n, dim) = x.size3().unwrap_or_default();
        let head_dim = dim / self.heads;
        let qkv = self.qkv.forward(x).view([b, n, 3, self.heads, head_dim]).permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.select(0, 0), qkv.select(0, 1), qkv.select(0, 2)); // [b, heads, N, head_dim]
        let scale = (head_dim as f64).powf(-0.5);
        let mut scores = (q * scale).matmul(&k.transpose(-2, -1)) + self.position_bias().unsqueeze(0);
        if let Some(mask) = mask {
            let windows = mask.size()[0];
            scores = (scores.view([b / windows, windows, self.heads, n, n]) + mask.unsqueeze(1).unsqueeze(0))
                .view([-1, self.heads, n, n]);
        }
        if keep == Keep::Scores && first {
            scores = scores.detach().set_requires_grad(true);
        }
        let softmax = scores.softmax(-1, scores.kind());
        let mixed = softmax.matmul(&v).transpose(1, 2).reshape([b, n, dim]);
        let attention = match keep {
            Keep::Nothing => None,
            Keep::Softmax | Keep::Scores => Some(BlockAttention { scores, softmax }),
        };
        (self.proj.forward(&mixed), attention)
    }
}

#[derive(Debug)]
struct Block {
    norm1: nn::LayerNorm,
    attention: Attention,
    norm2: nn::LayerNorm,
    fc1: nn::Linear,
    fc2: nn::Linear,
    window: i64,
    shift: i64,
    mask: Option<Tensor>,
}

impl Block {
    fn new(path: &nn::Path<'_>, plan: &StagePlan, index: i64) -> Self {
        let (dim, shift) = (plan.dim, if index % 2 == 1 { plan.shift } else { 0 });
        let mlp = path / "mlp";
        Self {
            norm1: nn::layer_norm(path / "norm1", vec![dim], nn::LayerNormConfig::default()),
            attention: Attention::new(&(path / "attn"), plan),
            norm2: nn::layer_norm(path / "norm2", vec![dim], nn::LayerNormConfig::default()),
            fc1: nn::linear(&mlp / "fc1", dim, 4 * dim, linear_config()),
            fc2: nn::linear(&mlp / "fc2", 4 * dim, dim, linear_config()),
            window: plan.window,
            shift,
            mask: (shift > 0).then(|| shift_mask(plan.grid, plan.window, shift).to_device(path.device())),
        }
    }

    /// `x`: `[batch, grid, grid, dim]`. Also gives the output of the first norm.
    fn forward(&self, x: &Tensor, keep: Keep, first: bool) -> (Tensor, Option<BlockAttention>, Tensor) {
        let grid = x.size()[1];
        let normed = self.norm1.forward(x);
        let rolled =
            if self.shift > 0 { normed.roll([-self.shift, -self.shift], [1, 2]) } else { normed.shallow_clone() };
        let windows = window_partition(&rolled, self.window);
        let (mixed, attention) = self.attention.forward(&windows, self.mask.as_ref(), keep, first);
        let merged = window_reverse(&mixed, self.window, grid);
        let merged = if self.shift > 0 { merged.roll([self.shift, self.shift], [1, 2]) } else { merged };
        let x = x + merged;
        let y = &x + self.fc2.forward(&self.fc1.forward(&self.norm2.forward(&x)).gelu("none"));
        (y, attention, normed)
    }
}

#[derive(Debug)]
struct PatchMerging {
    norm: nn::LayerNorm,
    reduction: nn::Linear,
}

impl PatchMerging {
    fn new(path: &nn::Path<'_>, dim: i64) -> Self {
        let no_bias = nn::LinearConfig { bias: false, ..linear_config() };
        Self {
            norm: nn::layer_norm(path / "norm", vec![4 * dim], nn::LayerNormConfig::default()),
            reduction: nn::linear(path / "reduction", 4 * dim, 2 * dim, no_bias),
        }
    }

    /// `[batch, g, g, dim]` → `[batch, g/2, g/2, 2·dim]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let (b, g, dim) = (x.size()[0], x.size()[1], x.size()[3]);
        let x = x
            .view([b, g / 2, 2, g / 2, 2, dim])
            .permute([0, 1, 3, 4, 2, 5]) // column parity outer, row parity inner: timm's order
            .reshape([b, g / 2, g / 2, 4 * dim]);
        self.reduction.forward(&self.norm.forward(&x))
    }
}

#[derive(Debug)]
struct Stage {
    downsample: Option<PatchMerging>,
    blocks: Vec<Block>,
}

/// A Swin with one linear head on the mean of its tokens.
#[derive(Debug)]
pub struct Swin {
    plan: SwinPlan,
    patch: nn::Conv2D,
    patch_norm: nn::LayerNorm,
    stages: Vec<Stage>,
    norm: nn::LayerNorm,
    head: nn::Linear,
}

impl Swin {
    /// Makes the network's variables under `path`, named as in timm checkpoints (`swin.…`, `head.…`).
    #[must_use]
    pub fn new(path: &nn::Path<'_>, plan: &SwinPlan) -> Self {
        let (config, root) = (&plan.config, path / "swin");
        let patch = &root / "patch_embed";
        let stride = nn::ConvConfig { stride: config.patch_size, ..Default::default() };
        let stages = plan
            .stages
            .iter()
            .enumerate()
            .map(|(index, stage)| {
                let path = &root / "layers" / index;
                Stage {
                    downsample: (index > 0).then(|| PatchMerging::new(&(&path / "downsample"), stage.dim / 2)),
                    blocks: (0..stage.depth).map(|b| Block::new(&(&path / "blocks" / b), stage, b)).collect(),
                }
            })
            .collect();
        let features = plan.stages.last().map_or(config.embed_dim, |stage| stage.dim);
        Self {
            plan: plan.clone(),
            patch: nn::conv2d(&patch / "proj", config.in_chans, config.embed_dim, config.patch_size, stride),
            patch_norm: nn::layer_norm(&patch / "norm", vec![config.embed_dim], nn::LayerNormConfig::default()),
            stages,
            norm: nn::layer_norm(&root / "norm", vec![features], nn::LayerNormConfig::default()),
            head: nn::linear(path / "head", features, config.num_classes, linear_config()),
        }
    }

    /// The sizes.
    #[must_use]
    pub fn plan(&self) -> &SwinPlan {
        &self.plan
    }

    /// `[batch, channels, S, S]` → logits `[batch, classes]`.
    #[must_use]
    pub fn forward(&self, input: &Tensor) -> Tensor {
        self.forward_with_attention(input, Keep::Nothing).logits
    }

    /// The same, with attention kept.
    #[must_use]
    pub fn forward_with_attention(&self, input: &Tensor, keep: Keep) -> Forward {
        let mut x = self.patch_norm.forward(&self.patch.forward(input).permute([0, 2, 3, 1]));
        let (mut attention, mut last_norm, mut first) = (Vec::new(), Tensor::new(), true);
        for stage in &self.stages {
            if let Some(downsample) = &stage.downsample {
                x = downsample.forward(&x);
            }
            let mut kept = Vec::new();
            for block in &stage.blocks {
                let (y, block_attention, normed) = block.forward(&x, keep, first);
                (x, last_norm, first) = (y, normed, false);
                kept.extend(block_attention);
            }
            attention.push(kept);
        }
        let x = self.norm.forward(&x); // [batch, grid, grid, features]
        let logits = self.head.forward(&x.mean_dim([1i64, 2].as_slice(), false, x.kind()));
        Forward { logits, attention, last_norm }
    }
}

fn truncated_normal() -> nn::Init {
    nn::Init::Randn { mean: 0.0, stdev: 0.02 }
}

fn linear_config() -> nn::LinearConfig {
    nn::LinearConfig { ws_init: truncated_normal(), bs_init: Some(nn::Init::Const(0.0)), bias: true }
}

/// `[batch, g, g, dim]` → `[batch × windows, N, dim]`
fn window_partition(x: &Tensor, window: i64) -> Tensor {
    let (b, g, dim) = (x.size()[0], x.size()[1], x.size()[3]);
    let side = g / window;
    x.view([b, side, window, side, window, dim]).permute([0, 1, 3, 2, 4, 5]).reshape([-1, window * window, dim])
}

/// The inverse of [`window_partition`].
fn window_reverse(x: &Tensor, window: i64, grid: i64) -> Tensor {
    let (side, dim) = (grid / window, x.size()[2]);
    x.view([-1, side, side, window, window, dim]).permute([0, 1, 3, 2, 4, 5]).reshape([-1, grid, grid, dim])
}

/// Index into the bias table of each pair of tokens, `[N × N]`.
fn relative_position_index(window: i64) -> Tensor {
    let n = window * window;
    let mut index = Vec::with_capacity((n * n) as usize);
    for query in 0..n {
        for key in 0..n {
            let rows = query / window - key / window + window - 1;
            let columns = query % window - key % window + window - 1;
            index.push(rows * (2 * window - 1) + columns);
        }
    }
    Tensor::from_slice(&index)
}

/// −100 between tokens that the roll brought together, `[windows, N, N]`.
fn shift_mask(grid: i64, window: i64, shift: i64) -> Tensor {
    let region = |at: i64| {
        if at < grid - window {
            0
        } else if at < grid - shift {
            1
        } else {
            2
        }
    };
    let mut regions = Vec::with_capacity((grid * grid) as usize);
    for row in 0..grid {
        for column in 0..grid {
            regions.push((region(row) * 3 + region(column)) as f32);
        }
    }
    let regions = Tensor::from_slice(&regions).view([1, grid, grid, 1]);
    let regions = window_partition(&regions, window).squeeze_dim(-1); // [windows, N]
    let differs = regions.unsqueeze(1).ne_tensor(&regions.unsqueeze(2));
    differs.to_kind(Kind::Float) * -100.0
}
