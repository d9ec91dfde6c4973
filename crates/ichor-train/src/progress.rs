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

    /// How fast it goes, after each step.
    fn timing(&mut self, timing: &Timing) {
        let _ = timing;
    }

    /// Something that whoever waits should know: what was left out, what goes on otherwise than asked for.
    fn note(&mut self, text: &str) {
        let _ = text;
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

/// How fast training goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Steps of the epoch that are done.
    pub step: usize,
    /// Steps of the epoch.
    pub steps: usize,
    /// Slices shown a second, since the epoch began or was taken up again.
    pub slices_per_second: f64,
    /// Seconds until the phase ends at this pace, validation and an early stop not counted.
    pub phase_left_s: f64,
    /// Share of the time in which the device waited for slices.
    pub waited_share: f64,
}

/// Seconds as whoever waits reads them: `40 s`, `12 min`, `3 h 05 min`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round();
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        _ if minutes < 60.0 => format!("{minutes:.0} min"),
        _ => format!("{:.0} h {:02.0} min", (minutes / 60.0).floor(), minutes % 60.0),
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

    fn timing(&mut self, timing: &Timing) {
        if timing.step.is_multiple_of(100) {
            eprintln!(
                "  {:.1} slices/s, {:.1} % of the time waiting for slices, {} left of this phase",
                timing.slices_per_second,
                100.0 * timing.waited_share,
                duration(timing.phase_left_s),
            );
        }
    }

    fn note(&mut self, text: &str) {
        eprintln!("{text}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_at_a_glance() {
        for (seconds, text) in
            [(0.4, "0 s"), (89.0, "89 s"), (95.0, "2 min"), (3_599.0, "1 h 00 min"), (11_100.0, "3 h 05 min")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
