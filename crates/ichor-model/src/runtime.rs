//! The model on threads of its own. Tensors never leave them: requests and answers are flat arrays.

mod batches;
mod worker;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ichor_core::{DeviceChoice, ModelId, Precision, Priority};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use crate::attribution::AttributionError;
use crate::device::{DeviceError, resolve};
use crate::manifest::{Expected, Manifest, ManifestError};
use crate::precision::available;
use crate::self_test::{SelfTestFailed, SelfTestReport};
use crate::weights::{WeightsError, is_small_model};
use worker::{Job, Jobs, Reply, Worker};

/// So many copies of a small model at most: each holds the activations of a batch.
const MAX_COPIES: usize = 4;

/// Settings of a [`ModelRuntime`].
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// The `.safetensors` file; its manifest lies beside it.
    pub weights: PathBuf,
    /// What the calling program can do.
    pub expected: Expected,
    /// Where to run.
    pub device: DeviceChoice,
    /// Precision of matrix products. [`Precision::Bf16`] falls back to float32, with a warning, where the processor has
    /// no such instructions, or where the self-test is not within 0.01 with it.
    pub precision: Precision,
    /// Threads on the CPU; 0: as many as there are cores. A model of up to 64 MiB is loaded
    /// once for each (at most four times), and each copy computes its own slices; a larger one is loaded once, and
    /// libtorch's threads share its operations.
    pub threads: usize,
    /// Slices computed at once.
    pub batch: usize,
    /// Requests that may wait; a further one waits for its place.
    pub queue: usize,
    /// Priority of the model's threads on the CPU.
    pub priority: Priority,
}

impl RuntimeOptions {
    /// Defaults: device `auto`, float32, all cores, 8 slices at once, 16 waiting requests, priority as it is.
    #[must_use]
    pub fn new(weights: impl Into<PathBuf>, expected: Expected) -> Self {
        Self {
            weights: weights.into(),
            expected,
            device: DeviceChoice::Auto,
            precision: Precision::default(),
            threads: 0,
            batch: 8,
            queue: 16,
            priority: Priority::default(),
        }
    }
}

/// Why there is no model, or no answer.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The thread cannot be started.
    #[error("model thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// A request of the wrong size.
    #[error("{what} of {slices} slices holds {got} values, {want} are needed")]
    Size {
        /// Input or brain mask.
        what: &'static str,
        /// Slices announced.
        slices: usize,
        /// Values given.
        got: usize,
        /// Values needed.
        want: usize,
    },
    /// The model gave NaN or infinity.
    #[error("{what} of slice {slice} is not finite")]
    NotFinite {
        /// Probability or map.
        what: &'static str,
        /// Slice within the request.
        slice: usize,
    },
    /// There are no maps.
    #[error(transparent)]
    Attribution(AttributionError),
    /// Memory ran out with a single slice on the CPU.
    #[error("memory ran out with a single slice: {0}")]
    OutOfMemory(String),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// The model's code panicked; the thread lives on.
    #[error("the model panicked: {0}")]
    Panicked(String),
    /// The weights say something else than when they were saved.
    #[error(transparent)]
    SelfTest(#[from] SelfTestFailed),
    /// The threads are gone.
    #[error("the model's threads have stopped")]
    Stopped,
}

impl From<AttributionError> for RuntimeError {
    /// libtorch's errors stay libtorch's: memory that ran out is told by them.
    fn from(error: AttributionError) -> Self {
        match error {
            AttributionError::Torch(error) => Self::Torch(error),
            other => Self::Attribution(other),
        }
    }
}

/// A loaded model. Clones are handles to the same threads, which end, after the batches in hand, with the last of
/// them.
#[derive(Clone, Debug)]
pub struct ModelRuntime {
    shared: Arc<Shared>,
}

/// What a model shows of itself; it may change while it runs.
#[derive(Clone, Debug)]
struct Shown {
    device: String,
    precision: Precision,
}

#[derive(Debug)]
struct Shared {
    manifest: Manifest,
    id: ModelId,
    batch: usize,
    shown: Arc<Mutex<Shown>>,
    queue: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Closing the queue ends the threads; libtorch must not be computing while the process tears itself down.
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl ModelRuntime {
    /// Checks manifest and weights, settles on a device, and loads the model on its thread.
    ///
    /// # Errors
    /// [`RuntimeError`] says what cannot be used and why.
    pub async fn start(options: RuntimeOptions) -> Result<Self, RuntimeError> {
        let manifest = Manifest::load(&options.weights, &options.expected)?;
        let id = manifest.id().map_err(|error| ManifestError {
            path: Manifest::path_for(&options.weights),
            problem: crate::manifest::ManifestProblem::Id(error),
        })?;
        // Before the first tensor of the process.
        let target = resolve(options.device)?;
        let precision = available(options.precision, target);
        let options = RuntimeOptions { precision, ..options };
        let shown = Arc::new(Mutex::new(Shown { device: crate::device::device_name(target), precision }));
        let (queue, jobs) = mpsc::channel(options.queue.max(1));
        let jobs: Jobs = Arc::new(Mutex::new(jobs));
        let batch = options.batch.max(1);
        let layout = Layout::of(&options, target);
        let mut shared = Shared { manifest, id, batch, shown, queue: Some(queue), threads: Vec::new() };
        let mut loading = Vec::with_capacity(layout.copies);
        for copy in 0..layout.copies {
            let (ready, loaded) = oneshot::channel();
            let (options, manifest, jobs) = (options.clone(), shared.manifest.clone(), Arc::clone(&jobs));
            let shown = Arc::clone(&shared.shown);
            let thread = std::thread::Builder::new()
                .name(format!("ichor-model-{copy}"))
                .spawn(move || match Worker::load(&options, layout.threads_each, manifest, target, shown) {
                    // If nobody waits any more there is nobody to work for either.
                    Ok(worker) => drop(ready.send(Ok(())).map(|()| worker.run(&jobs))),
                    Err(error) => drop(ready.send(Err(error))),
                })
                .map_err(RuntimeError::Thread)?;
            shared.threads.push(thread);
            loading.push(loaded);
        }
        for loaded in loading {
            loaded.await.map_err(|_| RuntimeError::Stopped)??;
        }
        let Layout { copies, threads_each } = layout;
        let runtime = Self { shared: Arc::new(shared) };
        let precision = runtime.precision();
        info!(model = %runtime.model_id(), %precision, copies, threads_each, batch, "model loaded");
        Ok(runtime)
    }

    /// The manifest of the loaded weights.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.shared.manifest
    }

    /// Name, version and digest of the loaded weights.
    #[must_use]
    pub fn model_id(&self) -> &ModelId {
        &self.shared.id
    }

    /// Side of the square input, in pixels.
    #[must_use]
    pub fn input_size(&self) -> usize {
        usize::try_from(self.manifest().model.sizes.img_size).unwrap_or_default()
    }

    /// Slices computed at once: requests of a multiple of this many are the most economical.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.shared.batch
    }

    /// The device in use now, `cpu` or `cuda:N`.
    #[must_use]
    pub fn device(&self) -> String {
        self.shown().device
    }

    /// The precision in use now, which is float32 where bfloat16 was asked for and cannot be had.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.shown().precision
    }

    fn shown(&self) -> Shown {
        self.shared.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Probability of hemorrhage of each slice. `inputs`: `slices` × channels × S × S values.
    ///
    /// Dropping the future abandons what has not been computed.
    ///
    /// # Errors
    /// [`RuntimeError`]; never a value that is not finite.
    pub async fn classify(&self, inputs: Vec<f32>, slices: usize) -> Result<Vec<f32>, RuntimeError> {
        self.check_input(&inputs, slices)?;
        let inputs = Arc::new(inputs);
        self.spread(slices, |range, reply| Job::Classify { inputs: Arc::clone(&inputs), range, reply }).await
    }

    /// The manifest's kind of map for each slice: S × S values, 0 outside the brain, 0 to 1 inside.
    ///
    /// `inputs`: `slices` × channels × S × S values; `brain_masks`: `slices` × S × S, 0 outside the brain.
    ///
    /// # Errors
    /// [`RuntimeError`]; never a value that is not finite.
    pub async fn maps(
        &self,
        inputs: Vec<f32>,
        brain_masks: Vec<u8>,
        slices: usize,
    ) -> Result<Vec<Vec<f32>>, RuntimeError> {
        self.check_input(&inputs, slices)?;
        let plane = self.input_size().pow(2);
        check_size("brain mask", brain_masks.len(), slices, plane)?;
        let (inputs, brain_masks) = (Arc::new(inputs), Arc::new(brain_masks));
        let job = |range, reply| {
            let (inputs, brain_masks) = (Arc::clone(&inputs), Arc::clone(&brain_masks));
            Job::Maps { inputs, brain_masks, range, reply }
        };
        self.spread(slices, job).await
    }

    /// [`ModelRuntime::maps`] cut at the manifest's threshold: S × S values, 0 or 1, for each slice.
    ///
    /// # Errors
    /// As [`ModelRuntime::maps`].
    pub async fn masks(
        &self,
        inputs: Vec<f32>,
        brain_masks: Vec<u8>,
        slices: usize,
    ) -> Result<Vec<Vec<u8>>, RuntimeError> {
        let threshold = self.manifest().model.map.threshold;
        let maps = self.maps(inputs, brain_masks, slices).await?;
        Ok(maps.iter().map(|map| map.iter().map(|&value| u8::from(value >= threshold)).collect()).collect())
    }

    /// Repeats the self-test of the manifest on the device in use.
    ///
    /// # Errors
    /// [`RuntimeError::SelfTest`] with the differences if the weights now say something else.
    pub async fn verify(&self) -> Result<SelfTestReport, RuntimeError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Verify { reply }).await?;
        answer.await.map_err(|_| RuntimeError::Stopped)?
    }

    /// Cuts a request into jobs and puts their answers together, in order.
    async fn spread<T>(
        &self,
        slices: usize,
        job: impl Fn(Range<usize>, Reply<Vec<T>>) -> Job,
    ) -> Result<Vec<T>, RuntimeError> {
        let each = self.shared.batch.min(slices.div_ceil(self.shared.threads.len().max(1))).max(1);
        let mut waiting = Vec::with_capacity(slices.div_ceil(each));
        for start in (0..slices).step_by(each) {
            let (reply, answer) = oneshot::channel();
            self.send(job(start..slices.min(start + each), reply)).await?;
            waiting.push(answer);
        }
        let mut answers = Vec::with_capacity(slices);
        for answer in waiting {
            answers.extend(answer.await.map_err(|_| RuntimeError::Stopped)??);
        }
        Ok(answers)
    }

    async fn send(&self, job: Job) -> Result<(), RuntimeError> {
        let queue = self.shared.queue.as_ref().ok_or(RuntimeError::Stopped)?;
        queue.send(job).await.map_err(|_| RuntimeError::Stopped)
    }

    fn check_input(&self, inputs: &[f32], slices: usize) -> Result<(), RuntimeError> {
        let channels = usize::try_from(self.manifest().model.sizes.in_chans).unwrap_or_default();
        check_size("input", inputs.len(), slices, channels * self.input_size().pow(2))
    }
}

/// How the threads are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    copies: usize,
    threads_each: usize,
}

impl Layout {
    fn of(options: &RuntimeOptions, device: tch::Device) -> Self {
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        if is_small_model(&options.weights) && !device.is_cuda() {
            Self { copies: threads.min(MAX_COPIES), threads_each: 1 }
        } else {
            Self { copies: 1, threads_each: threads }
        }
    }
}

fn check_size(what: &'static str, got: usize, slices: usize, each: usize) -> Result<(), RuntimeError> {
    let want = slices.saturating_mul(each);
    if got == want { Ok(()) } else { Err(RuntimeError::Size { what, slices, got, want }) }
}
