//! Window attention: forward in one fused step where its weights are not wanted; where they are, or their gradients,
//! some windows at a time, so that scores stay in the processor's cache and are never all in memory.

use tch::{Device, Kind, TchError, Tensor};

use super::threads::Threads;
use crate::attribution::GradientSite;

/// Scores of one piece on a CPU, in bytes at most (if more than one window): what a core's cache holds with room.
const PIECE_BYTES: i64 = 1 << 20;

/// Queries, keys and values of a block, `[windows, N, 3, heads, head dim]`, queries scaled.
#[derive(Debug)]
pub(super) struct Qkv(pub(super) Tensor);

/// Gradients through attention.
pub(super) struct AttentionGradient {
    /// Of queries, keys and values, as [`Qkv`] flattened: `[windows · N, 3 · heads · head dim]`.
    pub(super) qkv: Option<Tensor>,
    /// What each key receives, heads weighted by the gradient, `[windows, N]`.
    pub(super) keys: Option<Tensor>,
}

/// What is wanted of a backward pass through attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Head-weighted attention, with the gradient of this site.
    pub(super) keys: Option<GradientSite>,
    /// Gradients of queries, keys and values; not for the first block, behind which nothing is wanted.
    pub(super) qkv: bool,
}

/// The constants of a block's attention.
#[derive(Debug)]
pub(super) struct Attention {
    pub(super) heads: i64,
    pub(super) head_dim: i64,
    /// Tokens of a window.
    pub(super) tokens: i64,
    /// Windows of a slice.
    pub(super) windows: i64,
    /// Position bias, shift mask added a hundredfold where there is one, in the block's precision: `[windows or 1, heads, N, N]`.
    pub(super) bias: Tensor,
}

impl Attention {
    /// Queries, keys and values from the layer's output, `[windows · N, 3 · heads · head dim]`.
    pub(super) fn split(&self, qkv: &Tensor) -> Result<Qkv, TchError> {
        Ok(Qkv(qkv.f_view([-1, self.tokens, 3, self.heads, self.head_dim])?))
    }

    /// Mixed values, `[windows · N, heads · head dim]`.
    pub(super) fn forward(&self, qkv: &Qkv) -> Result<Tensor, TchError> {
        let all = qkv.0.size()[0];
        let shared = self.bias.size()[0] == 1;
        let mixed = if shared || all == self.windows {
            self.fused(&qkv.0, all)?
        } else if qkv.0.device() == Device::Cpu {
            let slices: Result<Vec<Tensor>, TchError> = (0..all / self.windows)
                .map(|slice| self.fused(&qkv.0.f_narrow(0, slice * self.windows, self.windows)?, self.windows))
                .collect();
            Tensor::f_cat(&slices?, 0)?
        } else {
            self.fused_batch(&qkv.0, all / self.windows)?
        };
        mixed.f_reshape([all * self.tokens, self.heads * self.head_dim])
    }

    /// `[n, N, 3, heads, head dim]` → `[n, N, heads, head dim]`; the bias belongs to all windows or to each of the `n`.
    fn fused(&self, qkv: &Tensor, n: i64) -> Result<Tensor, TchError> {
        let part = |index| qkv.f_select(2, index)?.f_transpose(1, 2); // [n, heads, N, head dim]
        let bias = self.bias.f_to_kind(qkv.kind())?.f_expand([n, -1, -1, -1], false)?;
        let mixed = Tensor::f_scaled_dot_product_attention(
            &part(0)?,
            &part(1)?,
            &part(2)?,
            Some(&bias),
            0.0,
            false,
            1.0,
            false,
        )?;
        mixed.f_transpose(1, 2)
    }

    /// The same for several slices whose windows have biases of their own: windows count as heads, so that the bias
    /// needs no copy for each slice.
    fn fused_batch(&self, qkv: &Tensor, slices: i64) -> Result<Tensor, TchError> {
        let (windows, n, heads, dim) = (self.windows, self.tokens, self.heads, self.head_dim);
        let parts = qkv.f_view([slices, windows, n, 3, heads, dim])?.f_permute([3, 0, 1, 4, 2, 5])?;
        let parts = parts.f_reshape([3, slices, windows * heads, n, dim])?;
        let part = |index| parts.f_select(0, index);
        let bias = self.bias.f_to_kind(qkv.kind())?.f_view([1, windows * heads, n, n])?;
        let bias = bias.f_expand([slices, -1, -1, -1], false)?;
        let mixed = Tensor::f_scaled_dot_product_attention(
            &part(0)?,
            &part(1)?,
            &part(2)?,
            Some(&bias),
            0.0,
            false,
            1.0,
            false,
        )?;
        mixed.f_view([slices, windows, heads, n, dim])?.f_transpose(2, 3)
    }

    /// Attention that each key receives, plain mean over heads and queries, `[windows, N]`.
    pub(super) fn mean_keys(&self, qkv: &Qkv, threads: &Threads) -> Result<Tensor, TchError> {
        let keys = threads.each(self.pieces(&qkv.0), |piece| {
            let attention = piece.softmax(&piece.part(0)?, &piece.part(1)?)?;
            attention.f_view([piece.count, -1, piece.attention.tokens])?.f_mean_dim([1i64].as_slice(), false, None)
        })?;
        Tensor::f_cat(&keys, 0)
    }

    /// Goes back through attention. `mixed`: gradient of the mixed values, `[windows · N, heads · head dim]`.
    pub(super) fn backward(
        &self,
        qkv: &Qkv,
        mixed: &Tensor,
        wanted: Wanted,
        threads: &Threads,
    ) -> Result<AttentionGradient, TchError> {
        let all = qkv.0.size()[0];
        let mixed = mixed.f_view([all, self.tokens, self.heads, self.head_dim])?;
        let gradient = wanted.qkv.then(|| qkv.0.f_empty_like()).transpose()?;
        let pieces = self.pieces(&qkv.0).map(|piece| {
            let mixed = mixed.f_narrow(0, piece.start, piece.count);
            let into = gradient.as_ref().map(|gradient| gradient.f_narrow(0, piece.start, piece.count)).transpose();
            (piece, mixed, into)
        });
        let keys = threads.each(pieces, |(piece, mixed, into)| piece.backward(&mixed?, into?.as_ref(), wanted.keys))?;
        let keys: Vec<Tensor> = keys.into_iter().flatten().collect();
        let keys = wanted.keys.map(|_| Tensor::f_cat(&keys, 0)).transpose()?;
        let width = 3 * self.heads * self.head_dim;
        let qkv = gradient.map(|gradient| gradient.f_view([all * self.tokens, width])).transpose()?;
        Ok(AttentionGradient { qkv, keys })
    }

    /// Windows that are computed at once: all on a GPU; on a CPU as many as stay in the cache, a divisor of a slice's
    /// windows, or all windows of some slices.
    fn pieces(&self, qkv: &Tensor) -> impl ExactSizeIterator<Item = Piece> {
        let all = qkv.size()[0];
        let count = if qkv.device() == Device::Cpu { self.piece() } else { all };
        let pieces = usize::try_from(all / count).unwrap_or_default();
        (0..pieces).map(move |piece| Piece {
            attention: self.shallow_clone(),
            qkv: qkv.shallow_clone(),
            start: piece as i64 * count,
            count,
        })
    }

    fn piece(&self) -> i64 {
        let window = self.heads * self.tokens * self.tokens * 4;
        let room = (PIECE_BYTES / window).max(1);
        (1..=self.windows).rev().find(|&n| n <= room && self.windows % n == 0).unwrap_or(1)
    }

    fn shallow_clone(&self) -> Self {
        Self { bias: self.bias.shallow_clone(), ..*self }
    }
}

/// Some windows, as one thread computes them.
#[derive(Debug)]
struct Piece {
    attention: Attention,
    /// Of all windows.
    qkv: Tensor,
    start: i64,
    count: i64,
}

impl Piece {
    /// Goes back through the attention of these windows. `mixed`: gradient of their mixed values, `[count, N, heads, head dim]`.
    /// Puts the gradients of queries, keys and values into `into`, if there is one, and returns what each key receives if
    /// `site` is given.
    fn backward(
        &self,
        mixed: &Tensor,
        into: Option<&Tensor>,
        site: Option<GradientSite>,
    ) -> Result<Option<Tensor>, TchError> {
        let [q, k, v] = [self.part(0)?, self.part(1)?, self.part(2)?];
        let mixed = self.by_head(mixed)?;
        let softmax = self.softmax(&q, &k)?;
        let output = mixed.f_bmm(&v.f_transpose(1, 2)?)?; // gradient of the softmax's output
        let needs_input = into.is_some() || site == Some(GradientSite::SoftmaxInput);
        let input = needs_input
            .then(|| Tensor::f_internal_softmax_backward_data(&output, &softmax, -1, Kind::Float))
            .transpose()?;
        let keys = site.map(|site| {
            let at_site = if site == GradientSite::SoftmaxInput { input.as_ref() } else { Some(&output) };
            self.infused_keys(&softmax, at_site.unwrap_or(&output))
        });
        if let (Some(into), Some(input)) = (into, &input) {
            let Attention { tokens, heads, head_dim, .. } = self.attention;
            let put = |index, part: Tensor| -> Result<(), TchError> {
                let mut into = into.f_select(2, index)?.f_transpose(1, 2)?;
                into.f_copy_(&part.f_view([self.count, heads, tokens, head_dim])?)
            };
            put(0, input.f_bmm(&k)?)?;
            put(1, input.f_transpose(1, 2)?.f_bmm(&q)?)?;
            put(2, softmax.f_transpose(1, 2)?.f_bmm(&mixed)?)?;
        }
        keys.transpose()
    }

    /// Mean over heads and queries of weight × attention, the weight being the Frobenius norm of the head's gradient in
    /// the window: `[count · heads, N, N]` each → `[count, N]`.
    fn infused_keys(&self, softmax: &Tensor, gradient: &Tensor) -> Result<Tensor, TchError> {
        let weight = gradient.f_norm_scalaropt_dim(2.0, [-2i64, -1].as_slice(), false)?;
        let keys = softmax.f_mean_dim([1i64].as_slice(), false, None)?; // [count · heads, N]
        let keys = keys.f_mul(&weight.f_unsqueeze(-1)?)?;
        keys.f_view([self.count, self.attention.heads, self.attention.tokens])?.f_mean_dim(
            [1i64].as_slice(),
            false,
            None,
        )
    }

    /// `[count · heads, N, N]`, float32.
    fn softmax(&self, q: &Tensor, k: &Tensor) -> Result<Tensor, TchError> {
        let Attention { ref bias, heads, tokens, .. } = self.attention;
        let scores = q.f_bmm(&k.f_transpose(1, 2)?)?;
        let own = bias.size()[0];
        let bias = match own {
            1 => bias.shallow_clone(),
            _ => bias.f_narrow(0, self.start % own, self.count.min(own))?,
        };
        let mut by_slice = scores.f_view([-1, bias.size()[0], heads, tokens, tokens])?;
        let _in_place = by_slice.f_add_(&bias)?;
        scores.f_softmax(-1, Kind::Float)
    }

    /// Queries (0), keys (1) or values (2): `[count · heads, N, head dim]`, float32.
    fn part(&self, which: i64) -> Result<Tensor, TchError> {
        self.by_head(&self.qkv.f_narrow(0, self.start, self.count)?.f_select(2, which)?)
    }

    /// `[count, N, heads, head dim]` → `[count · heads, N, head dim]`, float32.
    fn by_head(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let Attention { tokens, heads, head_dim, .. } = self.attention;
        x.f_transpose(1, 2)?.f_to_kind(Kind::Float)?.f_reshape([self.count * heads, tokens, head_dim])
    }
}
