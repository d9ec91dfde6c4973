//! What a long run tells whoever waits for it.

use crate::checkpoint::EpochRecord;

/// Hears how a run goes on. Every method does nothing unless it is implemented.
pub trait Progress {
    /// `done` of `total` studies of `what` are generated and prepared.
    fn prepared(&mut self, what: &str, done: usize, total: usize) {
        let _ = (what, done, total);
    }

    /// A step is done: its index in the epoch, the epoch's number of steps, and the running mean of the loss.
    fn step(&mut self, step: usize, steps: usize, loss: f64) {
        let _ = (step, steps, loss);
    }

    /// An epoch is done and validated.
    fn epoch(&mut self, record: &EpochRecord) {
        let _ = record;
    }

    /// `done` of `total` studies are evaluated.
    fn evaluated(&mut self, done: usize, total: usize) {
        let _ = (done, total);
    }
}

/// Says nothing.
impl Progress for () {}

/// Writes one line an event to standard error.
#[derive(Debug, Default)]
pub struct PrintProgress;

impl Progress for PrintProgress {
    fn prepared(&mut self, what: &str, done: usize, total: usize) {
        if done == total || done.is_multiple_of(20) {
            eprintln!("{what}: {done} of {total} studies prepared");
        }
    }

    fn step(&mut self, step: usize, steps: usize, loss: f64) {
        if step.is_multiple_of(100) {
            eprintln!("  step {step} of {steps}, loss {loss:.4}");
        }
    }

    fn epoch(&mut self, record: &EpochRecord) {
        eprintln!(
            "{} epoch {}: {} slices in {:.0} s, training loss {:.4}, validation loss {:.4}, validation AUC {:.4}",
            record.phase,
            record.epoch,
            record.slices,
            record.seconds,
            record.training_loss,
            record.validation_loss,
            record.validation_auc,
        );
    }

    fn evaluated(&mut self, done: usize, total: usize) {
        if done == total || done.is_multiple_of(10) {
            eprintln!("{done} of {total} studies evaluated");
        }
    }
}
