//! Swin blocks (Liu et al. 2021) on grids of any size: where windows do not divide a grid, it is padded with zeros at its
//! end, as Swin-UNETR does. (The classifier's Swin in `ichor-model` asks for sizes that divide.)

use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};

/// One stage: blocks of alternating shift, then patch merging.
#[derive(Debug)]
pub(super) struct Stage {
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
    reduction: nn::Linear,
    /// Side of the grid that comes in.
    grid: i64,
}

/// Sizes of one stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct StageSizes {
    pub(super) dim: i64,
    pub(super) heads: i64,
    pub(super) depth: i64,
    pub(super) grid: i64,
    pub(super) window: i64,
}

impl Stage {
    pub(super) fn new(path: &nn::Path<'_>, sizes: StageSizes) -> Self {
        let (merge, dim) = (path / "downsample", sizes.dim);
        let no_bias = nn::LinearConfig { bias: false, ..linear() };
        Self {
            blocks: (0..sizes.depth).map(|at| Block::new(&(path / "blocks" / at), sizes, at % 2 == 1)).collect(),
            norm: norm(&(&merge / "norm"), 4 * dim),
            reduction: nn::linear(&merge / "reduction", 4 * dim, 2 * dim, no_bias),
            grid: sizes.grid,
        }
    }

    /// `[batch, g, g, dim]` → `[batch, g/2, g/2, 2·dim]`
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.blocks.iter().fold(x.shallow_clone(), |x, block| block.forward(&x));
        let (b, half, dim) = (x.size()[0], self.grid / 2, x.size()[3]);
        // Four neighbours side by side, row parity fastest.
        let quads = x.view([b, half, 2, half, 2, dim]).permute([0, 1, 3, 4, 2, 5]).reshape([b, half, half, 4 * dim]);
        self.reduction.forward(&self.norm.forward(&quads))
    }
}

#[derive(Debug)]
struct Block {
    norm1: nn::LayerNorm,
    qkv: nn::Linear,
    bias_table: Tensor,
    bias_index: Tensor,
    /// `[windows, N, N]`, 0 or −100.
    mask: Option<Tensor>,
    proj: nn::Linear,
    norm2: nn::LayerNorm,
    fc1: nn::Linear,
    fc2: nn::Linear,
    heads: i64,
    grid: i64,
    padded: i64,
    window: i64,
    shift: i64,
}

impl Block {
    fn new(path: &nn::Path<'_>, sizes: StageSizes, shifted: bool) -> Self {
        let StageSizes { dim, heads, grid, .. } = sizes;
        let window = sizes.window.min(grid);
        let shift = if shifted && grid > window { window / 2 } else { 0 };
        let padded = (grid + window - 1) / window * window;
        let (attention, mlp, span) = (path / "attn", path / "mlp", 2 * sizes.window - 1);
        let normal = nn::Init::Randn { mean: 0.0, stdev: 0.02 };
        Self {
            norm1: norm(&(path / "norm1"), dim),
            qkv: nn::linear(&attention / "qkv", dim, 3 * dim, linear()),
            bias_table: attention.var("relative_position_bias_table", &[span * span, heads], normal),
            bias_index: position_index(window, sizes.window).to_device(path.device()),
            mask: (shift > 0).then(|| shift_mask(padded, window, shift, path.device())),
            proj: nn::linear(&attention / "proj", dim, dim, linear()),
            norm2: norm(&(path / "norm2"), dim),
            fc1: nn::linear(&mlp / "linear1", dim, 4 * dim, linear()),
            fc2: nn::linear(&mlp / "linear2", 4 * dim, dim, linear()),
            heads,
            grid,
            padded,
            window,
            shift,
        }
    }

    /// `[batch, g, g, dim]`, in and out.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attend(&self.norm1.forward(x));
        &x + self.fc2.forward(&self.fc1.forward(&self.norm2.forward(&x)).gelu("none"))
    }

    fn attend(&self, normed: &Tensor) -> Tensor {
        let (pad, shift) = (self.padded - self.grid, self.shift);
        let padded = normed.constant_pad_nd([0, 0, 0, pad, 0, pad]);
        let rolled = if shift > 0 { padded.roll([-shift, -shift], [1, 2]) } else { padded };
        let mixed = reversed(&self.attention(&partitioned(&rolled, self.window)), self.window, self.padded);
        let back = if shift > 0 { mixed.roll([shift, shift], [1, 2]) } else { mixed };
        back.narrow(1, 0, self.grid).narrow(2, 0, self.grid)
    }

    /// `[batch · windows, N, dim]`, in and out.
    fn attention(&self, x: &Tensor) -> Tensor {
        let (b, n, dim) = x.size3().unwrap_or_default();
        let width = dim / self.heads;
        let qkv = self.qkv.forward(x).view([b, n, 3, self.heads, width]).permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.select(0, 0), qkv.select(0, 1), qkv.select(0, 2)); // [b, heads, N, width]
        #[expect(clippy::cast_precision_loss, reason = "a width of a few hundred")]
        let scale = (width as f64).powf(-0.5);
        let bias = self.bias_table.index_select(0, &self.bias_index).view([n, n, self.heads]).permute([2, 0, 1]);
        let mut scores = (q * scale).matmul(&k.transpose(-2, -1)) + bias.unsqueeze(0); // [b, heads, N, N]
        if let Some(mask) = &self.mask {
            let windows = mask.size()[0];
            let split = scores.view([b / windows, windows, self.heads, n, n]) + mask.unsqueeze(1);
            scores = split.view([b, self.heads, n, n]);
        }
        let mixed = scores.softmax(-1, Kind::Float).matmul(&v).transpose(1, 2).reshape([b, n, dim]);
        self.proj.forward(&mixed)
    }
}

/// `[batch, g, g, dim]` → `[batch · windows, N, dim]`
fn partitioned(x: &Tensor, window: i64) -> Tensor {
    let (b, g, dim) = (x.size()[0], x.size()[1], x.size()[3]);
    let side = g / window;
    x.reshape([b, side, window, side, window, dim]).permute([0, 1, 3, 2, 4, 5]).reshape([-1, window * window, dim])
}

/// The inverse of [`partitioned`].
fn reversed(x: &Tensor, window: i64, grid: i64) -> Tensor {
    let (side, dim) = (grid / window, x.size()[2]);
    x.view([-1, side, side, window, window, dim]).permute([0, 1, 3, 2, 4, 5]).reshape([-1, grid, grid, dim])
}

/// Row of the bias table for each pair of tokens of a `window`, in a table made for windows of side `full`: `[N·N]`.
fn position_index(window: i64, full: i64) -> Tensor {
    let (tokens, span) = (window * window, 2 * full - 1);
    let pairs = (0..tokens).flat_map(|query| (0..tokens).map(move |key| (query, key)));
    let index = pairs.map(|(query, key)| {
        let rows = query / window - key / window + full - 1;
        let columns = query % window - key % window + full - 1;
        rows * span + columns
    });
    Tensor::from_slice(&index.collect::<Vec<i64>>())
}

/// −100 between tokens that only the cyclic shift brought together, else 0: `[windows, N, N]`.
fn shift_mask(grid: i64, window: i64, shift: i64, device: Device) -> Tensor {
    let band = |at: i64| i64::from(at >= grid - window) + i64::from(at >= grid - shift);
    let cells = (0..grid).flat_map(|row| (0..grid).map(move |column| 3 * band(row) + band(column)));
    let regions = Tensor::from_slice(&cells.collect::<Vec<i64>>()).view([1, grid, grid, 1]);
    let regions = partitioned(&regions, window).squeeze_dim(-1); // [windows, N]
    let apart = regions.unsqueeze(1).ne_tensor(&regions.unsqueeze(2)); // [windows, N, N]
    (apart.to_kind(Kind::Float) * -100.0).to_device(device)
}

fn linear() -> nn::LinearConfig {
    let normal = nn::Init::Randn { mean: 0.0, stdev: 0.02 };
    nn::LinearConfig { ws_init: normal, bs_init: Some(nn::Init::Const(0.0)), bias: true }
}

fn norm(path: &nn::Path<'_>, dim: i64) -> nn::LayerNorm {
    nn::layer_norm(path, vec![dim], nn::LayerNormConfig::default())
}
