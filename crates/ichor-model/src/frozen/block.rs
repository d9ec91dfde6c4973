//! One block, forward and backward, on a residual stream that lies in its window order.

use ichor_core::Precision;
use tch::{Kind, TchError, Tensor};

use super::attention::{Attention, AttentionGradient, Qkv, Wanted};
use super::layout::{Gather, WindowOrder};
use super::linear::{Linear, Normed};
use super::threads::Threads;
use crate::config::StagePlan;
use crate::precision::kind;
use crate::swin;

/// A block of a network whose weights no longer change.
#[derive(Debug)]
pub(super) struct Block {
    /// From the order of the block before, where there is one in this stage.
    gather: Option<Gather>,
    pub(super) order: WindowOrder,
    padding: Option<Padding>,
    qkv: Linear,
    pub(super) attention: Attention,
    proj: Linear,
    fc1: Linear,
    fc2: Linear,
    precision: Precision,
}

/// Padding enters attention as zeros in place of normed tokens: queries, keys and values are the layer's bias there.
#[derive(Debug)]
struct Padding {
    /// 0 for padding, 1 for tokens, `[1, tokens, 1]`.
    mask: Tensor,
    /// Queries, keys and values of padding, 0 for tokens, `[1, tokens, 3 · heads · head dim]`.
    fill: Tensor,
}

/// What a block's backward pass needs of its forward pass.
#[derive(Debug)]
pub(super) struct Tape {
    normed1: Normed,
    qkv: Qkv,
    normed2: Normed,
    /// Before GELU.
    hidden: Tensor,
}

/// What happens to attention on the way.
pub(super) enum Watch<'a> {
    /// Nothing.
    Nothing,
    /// The plain mean that each key receives is put here, one a block, `[windows, N]`.
    MeanKeys(&'a mut Vec<Tensor>),
    /// What the backward pass needs is put here.
    Record(&'a mut Vec<Tape>),
}

impl Block {
    pub(super) fn new(
        block: &swin::Block,
        plan: &StagePlan,
        before: Option<&WindowOrder>,
        precision: Precision,
    ) -> Result<Self, TchError> {
        let attention = &block.attention;
        let device = attention.qkv.ws.device();
        let order = WindowOrder::new(plan, block.shift);
        let width = plan.heads * plan.head_dim();
        let queries = Tensor::f_full([width], attention.scale, (Kind::Double, device))?;
        let others = Tensor::f_ones([2 * width], (Kind::Double, device))?;
        let rows = Tensor::f_cat(&[queries, others], 0)?;
        Ok(Self {
            gather: before.map(|before| before.to(&order, device)),
            padding: padding(&order, attention.qkv.bs.as_ref(), &rows, precision)?,
            qkv: Linear::after_norm(&block.norm1, &attention.qkv, Some(&rows), precision)?,
            attention: Attention {
                heads: plan.heads,
                head_dim: plan.head_dim(),
                tokens: plan.window * plan.window,
                windows: (plan.padded() / plan.window).pow(2),
                bias: bias(attention, precision)?,
            },
            proj: Linear::plain(&attention.proj, precision)?,
            fc1: Linear::after_norm(&block.norm2, &block.fc1, None, precision)?,
            fc2: Linear::plain(&block.fc2, precision)?,
            order,
            precision,
        })
    }

    /// `x`: float32, `[batch, tokens, dim]`, in the order of the block before; the result is in this block's.
    pub(super) fn forward(&self, x: Tensor, watch: &mut Watch<'_>, threads: &Threads) -> Result<Tensor, TchError> {
        let mut x = match &self.gather {
            Some(gather) => gather.forth(&x)?,
            None => x,
        };
        let size = x.size();
        let mut rows = x.f_view([size[0] * size[1], size[2]])?;
        let mut normed1 = Normed::of(&rows, self.precision)?;
        let mut projected = self.qkv.forward(&normed1.x)?;
        if let Some(padding) = &self.padding {
            projected = padding.mask(&projected, size[0])?.f_add(&padding.fill)?.f_view([size[0] * size[1], -1])?;
        }
        let qkv = self.attention.split(&projected)?;
        let mixed = self.attention.forward(&qkv)?;
        if let Watch::MeanKeys(keys) = watch {
            keys.push(self.attention.mean_keys(&qkv, threads)?);
        }
        // In place: nobody looks back at the stream itself, only at its norms.
        let _in_place = rows.f_add_(&self.proj.forward(&mixed)?)?;
        let normed2 = Normed::of(&rows, self.precision)?;
        let mut hidden = self.fc1.forward(&normed2.x)?;
        let out = if let Watch::Record(tape) = watch {
            let out = self.fc2.forward(&hidden.f_gelu("none")?)?;
            tape.push(Tape { normed1, qkv, normed2, hidden });
            out
        } else {
            normed1.x = Tensor::new();
            hidden = hidden.f_gelu_("none")?;
            self.fc2.forward(&hidden)?
        };
        let _in_place = rows.f_add_(&out)?;
        x = rows.f_view(size.as_slice())?;
        Ok(x)
    }

    /// Gradient of the block's output → of its input, both float32, `[batch, tokens, dim]`, the input's in the order of the
    /// block before. `None` if nothing is wanted behind attention. Also what `wanted` says of attention's keys.
    pub(super) fn backward(
        &self,
        gradient: Tensor,
        tape: &Tape,
        wanted: Wanted,
        threads: &Threads,
    ) -> Result<(Option<Tensor>, Option<Tensor>), TchError> {
        let size = gradient.size();
        let mut rows = gradient.f_view([size[0] * size[1], size[2]])?;
        let attention = self.backward_to_qkv(&mut rows, size[0], tape, wanted, threads)?;
        let Some(qkv) = attention.qkv else { return Ok((None, attention.keys)) };
        tape.normed1.backward_into(self.qkv.backward(&qkv)?, &mut rows)?;
        let gradient = rows.f_view(size.as_slice())?;
        let gradient = match &self.gather {
            Some(gather) => gather.back(&gradient)?,
            None => gradient,
        };
        Ok((Some(gradient), attention.keys))
    }

    /// Goes back as far as attention's input. `rows`: gradient of the block's output, float32, `[batch · tokens, dim]`;
    /// becomes that of the stream between attention and MLP.
    pub(super) fn backward_to_qkv(
        &self,
        rows: &mut Tensor,
        batch: i64,
        tape: &Tape,
        wanted: Wanted,
        threads: &Threads,
    ) -> Result<AttentionGradient, TchError> {
        let hidden = tape.hidden.f_gelu_backward(&self.fc2.backward(rows)?, "none")?;
        tape.normed2.backward_into(self.fc1.backward(&hidden)?, rows)?;
        drop(hidden);
        let mut gradient = self.attention.backward(&tape.qkv, &self.proj.backward(rows)?, wanted, threads)?;
        if let (Some(padding), Some(qkv)) = (&self.padding, &gradient.qkv) {
            gradient.qkv = Some(padding.mask(qkv, batch)?.f_view(qkv.size().as_slice())?);
        }
        Ok(gradient)
    }
}

impl Tape {
    /// The tokens at the block's first norm, mean 0 and variance 1 each, `[batch · tokens, dim]`.
    pub(super) fn normed(&self) -> &Tensor {
        &self.normed1.x
    }
}

impl Padding {
    /// `[batch · tokens, width]` → `[batch, tokens, width]`, padding 0.
    fn mask(&self, x: &Tensor, batch: i64) -> Result<Tensor, TchError> {
        x.f_view([batch, self.mask.size()[1], -1])?.f_mul(&self.mask)
    }
}

/// How many times over the shift mask counts: between tokens that are apart, softmax gives 0 then. With −100 alone it gives
/// 4e-44 times what lies between the scores: nothing as well, but a denormal number, on which products take ten times as long.
const APART: f64 = 100.0;

/// What is added to the scores, `[windows or 1, heads, N, N]`.
fn bias(attention: &swin::Attention, precision: Precision) -> Result<Tensor, TchError> {
    let bias = attention.bias().f_detach()?;
    let bias = match attention.mask() {
        Some(mask) => bias.f_add(&mask.f_unsqueeze(1)?.f_mul_scalar(APART - 1.0)?)?,
        None => bias,
    };
    bias.f_to_kind(kind(precision))?.f_contiguous()
}

/// `rows`: what the layer's rows are multiplied by.
fn padding(
    order: &WindowOrder,
    bias: Option<&Tensor>,
    rows: &Tensor,
    precision: Precision,
) -> Result<Option<Padding>, TchError> {
    let Some(mask) = order.mask(rows.device()) else { return Ok(None) };
    let bias = match bias {
        Some(bias) => bias.f_detach()?.f_mul(rows)?,
        None => rows.f_zeros_like()?,
    };
    let fill = mask.f_neg()?.f_add_scalar(1.0)?.f_mul(&bias)?.f_to_kind(kind(precision))?;
    Ok(Some(Padding { mask: mask.f_to_kind(kind(precision))?, fill }))
}
