//! What runs on a thread of the model.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ichor_core::Precision;
use tch::{Device, Kind, Tensor};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::batches::{Batch, Engine, caught};
use super::{RuntimeError, RuntimeOptions, Shown};
use crate::attribution::{Attribution, CamTarget, HgiOptions, RollBack};
use crate::config::SwinPlan;
use crate::device::device_name;
use crate::frozen::{Frozen, have_threads};
use crate::manifest::{Manifest, ManifestError, ManifestProblem, MapKind, ModelCard};
use crate::precision::available;
use crate::self_test::{SelfTest, SelfTestReport};
use crate::weights::Weights;

pub(super) type Reply<T> = oneshot::Sender<Result<T, RuntimeError>>;

/// The queue that all threads take from.
pub(super) type Jobs = Arc<Mutex<mpsc::Receiver<Job>>>;

/// A part of a request: some of its slices. Sizes were checked by the handle.
#[derive(Debug)]
pub(super) enum Job {
    Classify { inputs: Arc<Vec<f32>>, range: Range<usize>, reply: Reply<Vec<f32>> },
    Maps { inputs: Arc<Vec<f32>>, brain_masks: Arc<Vec<u8>>, range: Range<usize>, reply: Reply<Vec<Vec<f32>>> },
    Verify { reply: Reply<SelfTestReport> },
}

/// The loaded network.
struct Loaded {
    path: PathBuf,
    manifest: Manifest,
    plan: SwinPlan,
    frozen: Frozen,
    /// What the handles show.
    shown: Arc<Mutex<Shown>>,
}

pub(super) struct Worker {
    model: Loaded,
    classify: Batch,
    maps: Batch,
}

impl Worker {
    pub(super) fn load(
        options: &RuntimeOptions,
        threads: usize,
        manifest: Manifest,
        device: Device,
        shown: Arc<Mutex<Shown>>,
    ) -> Result<Self, RuntimeError> {
        caught(|| {
            // Of this thread, and of those that libtorch starts from it.
            if let Err(error) = options.priority.apply_to_this_thread() {
                warn!(%error, wanted = ?options.priority, "the priority of the model's thread stays as it is");
            }
            // On this thread: OpenMP keeps the number for each thread that starts parallel work.
            have_threads(i32::try_from(threads).unwrap_or(i32::MAX));
            let plan = SwinPlan::check(&manifest.model.sizes).map_err(|error| ManifestError {
                path: Manifest::path_for(&options.weights),
                problem: ManifestProblem::Plan(error),
            })?;
            let frozen = read(&options.weights, &manifest, &plan, device, options.precision)?;
            let mut model = Loaded { path: options.weights.clone(), manifest, plan, frozen, shown };
            model.check_precision()?;
            model.show();
            Ok(Self { model, classify: Batch::new(options.batch), maps: Batch::new(options.batch) })
        })
    }

    /// Works until the last handle is gone.
    pub(super) fn run(mut self, jobs: &Jobs) {
        let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        while let Some(job) = next() {
            match job {
                Job::Classify { inputs, range, reply } => {
                    let step = |model: &Loaded, range| model.classify(&inputs, range);
                    let answer = self.classify.run(&mut self.model, range, || reply.is_closed(), step);
                    send(reply, answer);
                }
                Job::Maps { inputs, brain_masks, range, reply } => {
                    let step = |model: &Loaded, range| model.maps(&inputs, &brain_masks, range);
                    let answer = self.maps.run(&mut self.model, range, || reply.is_closed(), step);
                    send(reply, answer);
                }
                Job::Verify { reply } => send(reply, Some(caught(|| self.model.verify()))),
            }
        }
    }
}

/// Nobody waiting is no fault: a caller may have given up.
fn send<T>(reply: Reply<T>, answer: Option<Result<T, RuntimeError>>) {
    if let Some(answer) = answer {
        let _gone = reply.send(answer);
    }
}

fn read(
    path: &std::path::Path,
    manifest: &Manifest,
    plan: &SwinPlan,
    device: Device,
    precision: Precision,
) -> Result<Frozen, RuntimeError> {
    let weights = Weights::read(path)?;
    weights.check_digest(&manifest.sha256)?;
    Ok(weights.freeze(plan, device, precision)?)
}

impl Engine for Loaded {
    fn on_gpu(&self) -> bool {
        self.frozen.device().is_cuda()
    }

    /// Reads the file again: after a fault nothing on the GPU can be trusted to be readable.
    fn move_to_cpu(&mut self) -> Result<(), RuntimeError> {
        self.reload(Device::Cpu, available(self.frozen.precision(), Device::Cpu))?;
        self.show();
        Ok(())
    }
}

impl Loaded {
    fn card(&self) -> &ModelCard {
        &self.manifest.model
    }

    fn reload(&mut self, device: Device, precision: Precision) -> Result<(), RuntimeError> {
        self.frozen = caught(|| read(&self.path, &self.manifest, &self.plan, device, precision))?;
        Ok(())
    }

    fn show(&self) {
        let (device, precision) = (device_name(self.frozen.device()), self.frozen.precision());
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Shown { device, precision };
    }

    /// Goes back to float32 if the self-test is not within the bounds in less.
    fn check_precision(&mut self) -> Result<(), RuntimeError> {
        if self.frozen.precision() == Precision::F32 {
            return Ok(());
        }
        match self.verify() {
            Err(RuntimeError::SelfTest(failed)) => {
                warn!("the model stays at f32: {failed}");
                self.reload(self.frozen.device(), Precision::F32)
            }
            other => other.map(drop),
        }
    }

    /// `[slices, channels, S, S]` on the model's device.
    fn input(&self, inputs: &[f32], range: &Range<usize>) -> Result<Tensor, RuntimeError> {
        let (channels, side) = (self.plan.config.in_chans, self.plan.config.img_size);
        let each = (channels * side * side) as usize;
        let flat = Tensor::f_from_slice(&inputs[range.start * each..range.end * each])?;
        let input = flat.f_view([range.len() as i64, channels, side, side])?;
        Ok(input.f_to_device(self.frozen.device())?)
    }

    fn classify(&self, inputs: &[f32], range: Range<usize>) -> Result<Vec<f32>, RuntimeError> {
        let _guard = tch::no_grad_guard();
        let logits = self.frozen.forward(&self.input(inputs, &range)?)?;
        let probabilities: Vec<f32> = self.card().strategy.probability(&logits).f_to_kind(Kind::Float)?.try_into()?;
        match probabilities.iter().position(|p| !p.is_finite()) {
            Some(slice) => Err(RuntimeError::NotFinite { what: "probability", slice: range.start + slice }),
            None => Ok(probabilities),
        }
    }

    fn maps(&self, inputs: &[f32], brain: &[u8], range: Range<usize>) -> Result<Vec<Vec<f32>>, RuntimeError> {
        let side = self.plan.config.img_size;
        let plane = (side * side) as usize;
        let input = self.input(inputs, &range)?;
        let brain = Tensor::f_from_slice(&brain[range.start * plane..range.end * plane])?;
        let brain = brain.f_view([range.len() as i64, side, side])?.f_to_device(self.frozen.device())?.f_ne(0)?;
        let map: Vec<f32> = self.attribute(&input, &brain)?.map.f_flatten(0, -1)?.try_into()?;
        match map.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(RuntimeError::NotFinite { what: "map", slice: range.start + at / plane }),
            None => Ok(map.chunks_exact(plane).map(<[f32]>::to_vec).collect()),
        }
    }

    fn attribute(&self, input: &Tensor, brain: &Tensor) -> Result<Attribution, RuntimeError> {
        let (map, positive) = (&self.card().map, self.card().strategy.positive_logit());
        Ok(match map.kind {
            MapKind::HgiSam => {
                let options = HgiOptions { site: map.gradient_site, roll_back: RollBack::AsShifted };
                self.frozen.hgi_sam(input, brain, positive, options)?
            }
            MapKind::SwinSam => self.frozen.swin_sam(input, brain, RollBack::AsShifted)?,
            // Not the predicted class: maps are asked for where hemorrhage was called, whatever the threshold.
            MapKind::GradCam => self.frozen.grad_cam(input, brain, CamTarget::Logit(positive))?,
        })
    }

    fn verify(&self) -> Result<SelfTestReport, RuntimeError> {
        let (device, precision) = (self.frozen.device(), self.frozen.precision());
        let forward = |input: &Tensor| self.frozen.forward(input);
        let now = SelfTest::run(&self.plan.config, self.card().strategy, device, forward)?;
        Ok(self.manifest.self_test.compare(&now, device_name(device), precision)?)
    }
}
