//! Work in batches that survives faults: memory that runs out makes the batch smaller, then moves the model to the
//! CPU; a lost GPU moves it at once; a panic becomes an error.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::warn;

use super::RuntimeError;

/// What computes, and where.
pub(super) trait Engine {
    fn on_gpu(&self) -> bool;
    fn move_to_cpu(&mut self) -> Result<(), RuntimeError>;
}

/// How many slices are computed at once.
#[derive(Debug)]
pub(super) struct Batch {
    configured: usize,
    now: usize,
}

#[derive(Debug)]
enum Fault {
    OutOfMemory(String),
    GpuLost(String),
    Other(RuntimeError),
}

impl Batch {
    pub(super) fn new(configured: usize) -> Self {
        let configured = configured.max(1);
        Self { configured, now: configured }
    }

    /// Computes the answers of `slices` by `step`, some at a time. Gives `None` once `abandoned` says that nobody waits.
    pub(super) fn run<E: Engine, T>(
        &mut self,
        engine: &mut E,
        slices: Range<usize>,
        abandoned: impl Fn() -> bool,
        step: impl Fn(&E, Range<usize>) -> Result<Vec<T>, RuntimeError>,
    ) -> Option<Result<Vec<T>, RuntimeError>> {
        let mut answers = Vec::with_capacity(slices.len());
        while answers.len() < slices.len() {
            if abandoned() {
                return None;
            }
            let start = slices.start + answers.len();
            let range = start..slices.end.min(start + self.now);
            match guarded(|| step(engine, range.clone())) {
                Ok(part) => answers.extend(part),
                Err(fault) => {
                    if let Err(error) = self.recover(engine, range.len(), fault) {
                        return Some(Err(error));
                    }
                }
            }
        }
        Some(Ok(answers))
    }

    /// Makes another attempt possible, or gives the error.
    fn recover<E: Engine>(&mut self, engine: &mut E, tried: usize, fault: Fault) -> Result<(), RuntimeError> {
        match fault {
            Fault::OutOfMemory(message) if tried > 1 => {
                self.now = tried / 2;
                warn!("memory ran out with {tried} slices at once, going on with {}: {}", self.now, brief(&message));
                Ok(())
            }
            Fault::OutOfMemory(message) | Fault::GpuLost(message) if engine.on_gpu() => {
                warn!("the GPU cannot go on, the model moves to the CPU: {}", brief(&message));
                engine.move_to_cpu()?;
                self.now = self.configured;
                Ok(())
            }
            Fault::OutOfMemory(message) => Err(RuntimeError::OutOfMemory(brief(&message).to_owned())),
            Fault::GpuLost(message) => Err(RuntimeError::Panicked(brief(&message).to_owned())),
            Fault::Other(error) => Err(error),
        }
    }
}

/// Runs code that may panic: tch's plain methods do whenever libtorch throws.
pub(super) fn caught<T>(f: impl FnOnce() -> Result<T, RuntimeError>) -> Result<T, RuntimeError> {
    guarded(f).map_err(|fault| match fault {
        Fault::OutOfMemory(message) => RuntimeError::OutOfMemory(brief(&message).to_owned()),
        Fault::GpuLost(message) => RuntimeError::Panicked(brief(&message).to_owned()),
        Fault::Other(error) => error,
    })
}

fn guarded<T>(f: impl FnOnce() -> Result<T, RuntimeError>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(RuntimeError::Torch(error))) => {
            Err(fault_of(error.to_string()).unwrap_or(Fault::Other(RuntimeError::Torch(error))))
        }
        Ok(Err(error)) => Err(Fault::Other(error)),
        Err(payload) => {
            let message = panic_text(payload.as_ref());
            let panicked = || Fault::Other(RuntimeError::Panicked(brief(&message).to_owned()));
            Err(fault_of(message.clone()).unwrap_or_else(panicked))
        }
    }
}

/// libtorch's errors have no codes; its texts are the only mark.
fn fault_of(message: String) -> Option<Fault> {
    let names = |marks: &[&str]| marks.iter().any(|mark| message.contains(mark));
    if names(&["out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED"]) {
        Some(Fault::OutOfMemory(message))
    } else if names(&["CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error"]) {
        Some(Fault::GpuLost(message))
    } else {
        None
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

/// libtorch's texts carry a stack of frames; the first line says it all.
fn brief(message: &str) -> &str {
    let end = message.find("\\nException raised").or_else(|| message.find('\n')).unwrap_or(message.len());
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// An engine whose GPU holds only so many slices at once, and whose CPU holds all or none.
    struct Fake {
        gpu: Option<usize>,
        cpu: bool,
        tried: RefCell<Vec<(bool, usize)>>,
    }

    impl Engine for Fake {
        fn on_gpu(&self) -> bool {
            self.gpu.is_some()
        }

        fn move_to_cpu(&mut self) -> Result<(), RuntimeError> {
            self.gpu = None;
            Ok(())
        }
    }

    impl Fake {
        fn new(gpu: Option<usize>, cpu: bool) -> Self {
            Self { gpu, cpu, tried: RefCell::new(Vec::new()) }
        }

        fn step(&self, range: Range<usize>) -> Result<Vec<usize>, RuntimeError> {
            self.tried.borrow_mut().push((self.on_gpu(), range.len()));
            match self.gpu {
                Some(room) if range.len() > room => panic!("CUDA out of memory. Tried to allocate\\nException raised"),
                None if !self.cpu => {
                    let text = "[enforce fail] DefaultCPUAllocator: can't allocate memory".to_owned();
                    Err(RuntimeError::Torch(tch::TchError::Torch(text)))
                }
                _ => Ok(range.collect()),
            }
        }
    }

    fn run(engine: &mut Fake, batch: &mut Batch, slices: usize) -> Result<Vec<usize>, RuntimeError> {
        batch.run(engine, 0..slices, || false, |engine, range| engine.step(range)).unwrap()
    }

    #[test]
    fn batches_shrink_and_stay_small() {
        let (mut engine, mut batch) = (Fake::new(Some(2), true), Batch::new(8));
        assert_eq!(run(&mut engine, &mut batch, 5).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(*engine.tried.borrow(), [(true, 5), (true, 2), (true, 2), (true, 1)]);
        engine.tried.borrow_mut().clear();
        let answers = batch.run(&mut engine, 6..10, || false, |engine, range| engine.step(range));
        assert_eq!(answers.unwrap().unwrap(), [6, 7, 8, 9]);
        assert_eq!(*engine.tried.borrow(), [(true, 2), (true, 2)], "not tried again");
    }

    #[test]
    fn a_gpu_without_room_hands_over_to_the_cpu() {
        let (mut engine, mut batch) = (Fake::new(Some(0), true), Batch::new(2));
        assert_eq!(run(&mut engine, &mut batch, 3).unwrap(), [0, 1, 2]);
        assert_eq!(*engine.tried.borrow(), [(true, 2), (true, 1), (false, 2), (false, 1)]);
    }

    #[test]
    fn a_cpu_without_room_is_an_error() {
        let error = run(&mut Fake::new(Some(0), false), &mut Batch::new(4), 4).unwrap_err();
        assert!(matches!(error, RuntimeError::OutOfMemory(_)), "{error}");
    }

    #[test]
    fn a_lost_gpu_moves_at_once_and_other_panics_are_errors() {
        let (mut engine, mut batch) = (Fake::new(Some(9), true), Batch::new(4));
        let lost = |engine: &Fake, range: Range<usize>| match engine.on_gpu() {
            true => panic!("CUDA error: unspecified launch failure"),
            false => Ok(range.collect::<Vec<_>>()),
        };
        assert_eq!(batch.run(&mut engine, 0..2, || false, lost).unwrap().unwrap(), [0, 1]);
        let panics = |_: &Fake, _: Range<usize>| -> Result<Vec<usize>, RuntimeError> { panic!("index out of range") };
        let error = batch.run(&mut engine, 0..2, || false, panics).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the model panicked: index out of range");
    }

    #[test]
    fn work_that_nobody_waits_for_stops() {
        let mut engine = Fake::new(None, true);
        assert!(Batch::new(1).run(&mut engine, 0..3, || true, |e, range| e.step(range)).is_none());
        assert!(engine.tried.borrow().is_empty());
    }
}
