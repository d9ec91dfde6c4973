//! Window attention with a relative position bias; what it computed is returned as a value.

use tch::Tensor;
use tch::nn::{self, Module};

use super::windows::{relative_position_index, shift_mask};
use super::{Keep, linear_config, small_normal};
use crate::config::StagePlan;

/// Attention of one block: `[batch × windows, heads, N, N]`, N = window², rows queries, columns keys.
#[derive(Debug)]
pub struct BlockAttention {
    /// Softmax input: scaled scores with position bias and shift mask added.
    pub scores: Tensor,
    /// Softmax output.
    pub softmax: Tensor,
}

#[derive(Debug)]
pub(crate) struct Attention {
    pub(crate) qkv: nn::Linear,
    pub(crate) proj: nn::Linear,
    bias_table: Tensor,
    bias_index: Tensor,
    mask: Option<Tensor>,
    /// Bias and mask, put together once the weights stand still.
    settled_bias: Option<Tensor>,
    heads: i64,
    head_dim: i64,
    tokens: i64,
    pub(crate) scale: f64,
}

impl Attention {
    pub(super) fn new(path: &nn::Path<'_>, plan: &StagePlan, shift: i64) -> Self {
        let (dim, heads, span) = (plan.dim, plan.heads, 2 * plan.window - 1);
        let width = heads * plan.head_dim(); // less than dim where that is not a multiple of heads, as in timm
        let mask = (shift > 0).then(|| shift_mask(plan.padded(), plan.window, shift).to_device(path.device()));
        Self {
            qkv: nn::linear(path / "qkv", dim, 3 * width, linear_config()),
            proj: nn::linear(path / "proj", width, dim, linear_config()),
            bias_table: path.var("relative_position_bias_table", &[span * span, heads], small_normal()),
            bias_index: relative_position_index(plan.window).to_device(path.device()),
            mask,
            settled_bias: None,
            heads,
            head_dim: plan.head_dim(),
            tokens: plan.window * plan.window,
            scale: (plan.head_dim() as f64).powf(-0.5),
        }
    }

    /// Position bias of every pair of tokens, shift mask added where there is one: `[windows or 1, heads, N, N]`.
    pub(crate) fn bias(&self) -> Tensor {
        if let Some(bias) = &self.settled_bias {
            return bias.shallow_clone();
        }
        let bias = self.bias_table.index_select(0, &self.bias_index); // [N·N, heads]
        let bias = bias.view([self.tokens, self.tokens, self.heads]).permute([2, 0, 1]).unsqueeze(0);
        match &self.mask {
            Some(mask) => bias + mask.unsqueeze(1),
            None => bias,
        }
    }

    /// The shift mask by itself, where there is one: −100 between tokens apart, else 0, `[windows, N, N]`.
    pub(crate) fn mask(&self) -> Option<&Tensor> {
        self.mask.as_ref()
    }

    pub(super) fn settle(&mut self) {
        self.settled_bias = None;
        self.settled_bias = Some(self.bias().detach().contiguous());
    }

    /// `x`: `[batch × windows, N, dim]`. `leaf`: cut the graph at the scores, so that they alone want gradients.
    pub(super) fn forward(&self, x: &Tensor, keep: Keep, leaf: bool) -> (Tensor, Option<BlockAttention>) {
        let (b, n) = (x.size()[0], self.tokens);
        let qkv = self.qkv.forward(x).view([b, n, 3, self.heads, self.head_dim]).permute([2, 0, 3, 1, 4]);
        let (q, k, v) = (qkv.select(0, 0), qkv.select(0, 1), qkv.select(0, 2)); // [b, heads, N, head dim]
        let bias = self.bias();
        let windows = bias.size()[0];
        let scores =
            (q * self.scale).matmul(&k.transpose(-2, -1)).view([b / windows, windows, self.heads, n, n]) + bias;
        let mut scores = scores.view([b, self.heads, n, n]);
        if leaf {
            scores = scores.detach().set_requires_grad(true);
        }
        let softmax = scores.softmax(-1, scores.kind());
        let mixed = softmax.matmul(&v).transpose(1, 2).reshape([b, n, self.heads * self.head_dim]);
        let attention = match keep {
            Keep::Nothing | Keep::LastNorm => None,
            Keep::Softmax | Keep::Scores => Some(BlockAttention { scores, softmax }),
        };
        (self.proj.forward(&mixed), attention)
    }
}
