//! A network whose weights no longer change, made for inference: what can be folded, cast and put in order once is, and the
//! maps' gradients come from a backward pass of its own, that computes what the maps need and nothing else (no weight
//! gradient, no graph).
//!
//! Equal to [`Swin`] within rounding; the crate's tests hold the two against each other.

mod attention;
mod block;
mod layout;
mod linear;
mod stage;
mod threads;

pub(crate) use threads::have_threads;

use ichor_core::Precision;
use tch::{Device, Kind, TchError, Tensor};

use crate::attribution::{
    Attribution, AttributionError, CamTarget, HGI_STAGES, HgiOptions, RollBack, cam_map, check_logit, check_shapes,
    finish, stage_maps,
};
use crate::config::SwinPlan;
use crate::swin::{PatchEmbed, Swin};
use attention::Wanted;
use block::{Tape, Watch};
use layout::Gather;
use linear::{Linear, Normed};
use stage::{Stage, stages};
use threads::Threads;

/// First stages that are in float32 where maps are made, whatever the precision: their windows are the map's detail, and all
/// that the gradient lost on its way meets there. The last stage, which the logits are read from, is so always.
const FINE_STAGES: usize = 2;

/// The last block's first norm, whose output Grad-CAM looks at.
#[derive(Debug)]
struct CamSite {
    scale: Option<Tensor>,
    shift: Option<Tensor>,
    /// Behind the norm, nothing folded in.
    qkv: Linear,
    to_grid: Gather,
}

/// A network for inference.
#[derive(Debug)]
pub struct Frozen {
    plan: SwinPlan,
    precision: Precision,
    device: Device,
    patch_embed: PatchEmbed,
    first: Gather,
    stages: Vec<Stage>,
    /// What takes the place of the first stages where maps are made; empty if those are in float32 themselves.
    fine: Vec<Stage>,
    last: Gather,
    head: Linear,
    cam: CamSite,
    threads: Threads,
}

/// A forward pass that can be gone back.
struct Recorded {
    logits: Tensor,
    /// By stage, then block.
    tapes: Vec<Vec<Tape>>,
    /// Norms before the merging in front of each stage but the first.
    merged: Vec<Normed>,
    normed: Normed,
}

impl Frozen {
    /// Puts the network together from weights as they are now. `precision` as it is available
    /// ([`crate::available`]).
    ///
    /// # Errors
    /// libtorch's.
    pub fn new(swin: &Swin, precision: Precision) -> Result<Self, TchError> {
        let _guard = tch::no_grad_guard();
        let device = swin.device();
        let count = swin.stages.len();
        let stages = stages(swin, count, |stage| if stage + 1 < count { precision } else { Precision::F32 })?;
        let fine = match precision {
            Precision::F32 => Vec::new(),
            Precision::Bf16 => self::stages(swin, FINE_STAGES.min(count), |_| Precision::F32)?,
        };
        let missing = || TchError::Kind("a Swin without blocks".to_owned());
        let (first, last) = (swin.stages.first(), swin.stages.last());
        let first = first.and(stages.first()).and_then(|stage| stage.blocks.first()).ok_or_else(missing)?;
        let last_block = last.and_then(|stage| stage.blocks.last()).ok_or_else(missing)?;
        let last_made = stages.last().and_then(|stage| stage.blocks.last()).ok_or_else(missing)?;
        let (first, last) = (first.order.grid_gather(device), last_made.order.to_grid(device));
        let cam = CamSite::new(last_block, last_made.order.to_grid(device))?;
        Ok(Self {
            plan: swin.plan().clone(),
            precision,
            device,
            patch_embed: swin.patch_embed.shallow_clone(),
            first,
            stages,
            fine,
            last,
            // One row a slice: not worth less than full precision.
            head: Linear::after_norm(&swin.norm, &swin.head, None, Precision::F32)?,
            cam,
            threads: Threads::new(device),
        })
    }

    /// The sizes.
    #[must_use]
    pub fn plan(&self) -> &SwinPlan {
        &self.plan
    }

    /// The precision of matrix products in all but the last stage, and where maps are made in all but the first two as well.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The device of its weights.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// `[batch, channels, S, S]` → logits `[batch, classes]`.
    ///
    /// # Errors
    /// libtorch's, such as memory that runs out.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let _guard = tch::no_grad_guard();
        let mut x = self.embed(input)?;
        for stage in &self.stages {
            x = stage.enter(x)?.0;
            for block in &stage.blocks {
                x = block.forward(x, &mut Watch::Nothing, &self.threads)?;
            }
        }
        self.read_out(&x).map(|(logits, _normed)| logits)
    }

    /// As [`crate::attribution::hgi_sam`].
    ///
    /// # Errors
    /// [`AttributionError`] if shapes or the logit do not fit the network, or libtorch fails.
    pub fn hgi_sam(
        &self,
        input: &Tensor,
        brain: &Tensor,
        positive: i64,
        options: HgiOptions,
    ) -> Result<Attribution, AttributionError> {
        check_shapes(&self.plan, input, brain)?;
        check_logit(&self.plan, positive)?;
        let _guard = tch::no_grad_guard();
        let recorded = self.record(input)?;
        let logit = Tensor::f_full([input.size()[0]], positive, (Kind::Int64, self.device))?;
        let logits = recorded.logits.shallow_clone();
        let keys = self.infused_keys(recorded, &logit, options)?;
        Ok(finish(logits, stage_maps(&self.plan, keys, options.roll_back), brain))
    }

    /// As [`crate::attribution::swin_sam`].
    ///
    /// # Errors
    /// [`AttributionError`] if shapes do not fit the network, or libtorch fails.
    pub fn swin_sam(
        &self,
        input: &Tensor,
        brain: &Tensor,
        roll_back: RollBack,
    ) -> Result<Attribution, AttributionError> {
        check_shapes(&self.plan, input, brain)?;
        let _guard = tch::no_grad_guard();
        let mut x = self.embed(input)?;
        let mut keys = Vec::with_capacity(self.stages.len());
        for stage in self.stages_for_maps() {
            x = stage.enter(x)?.0;
            let mut of_stage = Vec::with_capacity(stage.blocks.len());
            for block in &stage.blocks {
                x = block.forward(x, &mut Watch::MeanKeys(&mut of_stage), &self.threads)?;
            }
            keys.push(of_stage);
        }
        let (logits, _normed) = self.read_out(&x)?;
        Ok(finish(logits, stage_maps(&self.plan, keys, roll_back), brain))
    }

    /// As [`crate::attribution::grad_cam`].
    ///
    /// # Errors
    /// [`AttributionError`] if shapes or the logit do not fit the network, or libtorch fails.
    pub fn grad_cam(&self, input: &Tensor, brain: &Tensor, target: CamTarget) -> Result<Attribution, AttributionError> {
        check_shapes(&self.plan, input, brain)?;
        let _guard = tch::no_grad_guard();
        let recorded = self.record(input)?;
        let logit = match target {
            CamTarget::Predicted => recorded.logits.f_argmax(-1, false)?,
            CamTarget::Logit(index) => {
                check_logit(&self.plan, index)?;
                Tensor::f_full([input.size()[0]], index, (Kind::Int64, self.device))?
            }
        };
        let gradient = self.read_out_backward(&recorded.normed, &logit)?;
        let block = self.stages_for_maps().next_back().and_then(|stage| stage.blocks.last());
        let tape = recorded.tapes.last().and_then(|tapes| tapes.last());
        let (Some(block), Some(tape)) = (block, tape) else {
            return Err(AttributionError::NoGradient("the last block's first norm".to_owned()));
        };
        let size = gradient.size();
        let mut rows = gradient.f_view([size[0] * size[1], size[2]])?;
        let wanted = Wanted { keys: None, qkv: true };
        let gradient = block.backward_to_qkv(&mut rows, size[0], tape, wanted, &self.threads)?.qkv;
        let gradient = gradient.ok_or_else(|| AttributionError::NoGradient("the last attention".to_owned()))?;
        let (features, gradient) = self.cam.look(tape.normed(), &gradient, &size)?;
        let grid = self.plan.stages.last().map_or(1, |stage| stage.grid);
        let to_grid = |x: Tensor| x.f_view([size[0], grid, grid, -1]);
        let map = cam_map(&to_grid(features)?, &to_grid(gradient)?, self.plan.config.img_size);
        Ok(finish(recorded.logits, vec![map], brain))
    }

    fn stages_for_maps(&self) -> impl DoubleEndedIterator<Item = &Stage> + ExactSizeIterator {
        self.stages.iter().enumerate().map(|(at, stage)| self.fine.get(at).unwrap_or(stage))
    }

    /// `[batch, tokens, dim]`, float32, in the order of the first block.
    fn embed(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let x = self.patch_embed.forward(input);
        let size = x.size();
        self.first.forth(&x.f_view([size[0], size[1] * size[2], size[3]])?)
    }

    /// Logits `[batch, classes]` and the last norm, in grid order.
    fn read_out(&self, x: &Tensor) -> Result<(Tensor, Normed), TchError> {
        let x = self.last.forth(x)?;
        let size = x.size();
        let normed = Normed::of(&x.f_view([size[0] * size[1], size[2]])?, Precision::F32)?;
        let mean = normed.x.f_view(size.as_slice())?.f_mean_dim([1i64].as_slice(), false, None)?;
        Ok((self.head.forward(&mean)?, normed))
    }

    /// Gradient of one logit a slice → of the last block's output, `[batch, tokens, dim]`. `logit`: `[batch]`.
    fn read_out_backward(&self, normed: &Normed, logit: &Tensor) -> Result<Tensor, TchError> {
        let (batch, all, dim) = (logit.size()[0], normed.x.size()[0], normed.x.size()[1]);
        let row = self.head.rows(logit)?; // [batch, dim]
        let tokens = all / batch;
        let row = row.f_div_scalar(tokens as f64)?.f_unsqueeze(1)?.f_expand([-1, tokens, -1], false)?;
        let mut gradient = Tensor::f_zeros([all, dim], (Kind::Float, self.device))?;
        normed.backward_into(row.f_contiguous()?.f_view([all, dim])?, &mut gradient)?;
        self.last.back(&gradient.f_view([batch, tokens, dim])?)
    }

    fn record(&self, input: &Tensor) -> Result<Recorded, TchError> {
        let mut x = self.embed(input)?;
        let (mut tapes, mut merged) = (Vec::with_capacity(self.stages.len()), Vec::new());
        for stage in self.stages_for_maps() {
            let (entered, normed) = stage.enter(x)?;
            merged.extend(normed);
            x = entered;
            let mut of_stage = Vec::with_capacity(stage.blocks.len());
            for block in &stage.blocks {
                x = block.forward(x, &mut Watch::Record(&mut of_stage), &self.threads)?;
            }
            tapes.push(of_stage);
        }
        let (logits, normed) = self.read_out(&x)?;
        Ok(Recorded { logits, tapes, merged, normed })
    }

    /// Goes back to the first block's scores; what each key receives, by stage and block. What was recorded is let go of on
    /// the way.
    fn infused_keys(
        &self,
        recorded: Recorded,
        logit: &Tensor,
        options: HgiOptions,
    ) -> Result<Vec<Vec<Tensor>>, AttributionError> {
        let Recorded { mut tapes, mut merged, normed, .. } = recorded;
        let mut gradient = self.read_out_backward(&normed, logit)?;
        let wanted_stages = HGI_STAGES.min(self.stages.len());
        let mut keys = Vec::with_capacity(wanted_stages);
        for (s, stage) in self.stages_for_maps().enumerate().rev() {
            let lost = || AttributionError::NoGradient(format!("stage {s}"));
            let mut tapes = tapes.pop().ok_or_else(lost)?;
            let mut of_stage = Vec::with_capacity(stage.blocks.len());
            for (b, block) in stage.blocks.iter().enumerate().rev() {
                let tape = tapes.pop().ok_or_else(lost)?;
                let wanted = Wanted { keys: (s < wanted_stages).then_some(options.site), qkv: s + b > 0 };
                let (before, key) = block.backward(gradient, &tape, wanted, &self.threads)?;
                of_stage.extend(key);
                match before {
                    Some(before) => gradient = before,
                    None => {
                        gradient = Tensor::new();
                        break;
                    }
                }
            }
            of_stage.reverse();
            if s < wanted_stages {
                keys.push(of_stage);
            }
            if let (Some(merging), Some(normed)) = (&stage.merging, merged.pop()) {
                gradient = merging.backward(&gradient, &normed)?;
            }
        }
        keys.reverse();
        Ok(keys)
    }
}

impl CamSite {
    fn new(block: &crate::swin::Block, to_grid: Gather) -> Result<Self, TchError> {
        let attention = &block.attention;
        let width = attention.qkv.ws.size()[0] / 3;
        let queries = attention.qkv.ws.f_narrow(0, 0, width)?.f_mul_scalar(attention.scale)?;
        let weight = Tensor::f_cat(&[queries, attention.qkv.ws.f_narrow(0, width, 2 * width)?], 0)?;
        let detached = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::f_detach).transpose();
        Ok(Self {
            scale: detached(&block.norm1.ws)?,
            shift: detached(&block.norm1.bs)?,
            // The last stage's precision.
            qkv: Linear::new(&weight, None, Precision::F32)?,
            to_grid,
        })
    }

    /// The norm's output and its gradient, `[batch, tokens, dim]`, in grid order, from the normed tokens and the gradient of
    /// queries, keys and values. `size`: of the stream.
    fn look(&self, normed: &Tensor, qkv: &Tensor, size: &[i64]) -> Result<(Tensor, Tensor), TchError> {
        let mut features = normed.f_to_kind(Kind::Float)?.f_view(size)?;
        if let Some(scale) = &self.scale {
            features = features.f_mul(scale)?;
        }
        if let Some(shift) = &self.shift {
            features = features.f_add(shift)?;
        }
        let gradient = self.qkv.backward(qkv)?.f_to_kind(Kind::Float)?.f_view(size)?;
        Ok((self.to_grid.forth(&features)?, self.to_grid.forth(&gradient)?))
    }
}
