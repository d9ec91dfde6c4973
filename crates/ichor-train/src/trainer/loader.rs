//! The thread that makes the next batches while the device works on this one.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tch::Tensor;

use super::TrainError;
use super::input::stack;
use crate::augment::{AugmentOptions, augment};
use crate::slices::{SliceSetError, Slices};

/// Batches that are made ahead.
const AHEAD: usize = 3;

/// One batch to make.
pub(super) struct Job<'a> {
    pub(super) indices: &'a [usize],
    /// Of the random changes; `None` makes none.
    pub(super) seed: Option<u64>,
}

/// How batches are changed, and where.
#[derive(Clone, Copy)]
pub(super) struct Changes<'a> {
    pub(super) options: &'a AugmentOptions,
    pub(super) pairs_alike: bool,
    /// On the loader's thread: right where the network computes elsewhere. On a CPU the network's threads would only be
    /// disturbed, and slices are changed when their turn comes.
    pub(super) ahead: bool,
}

/// A batch as it left the loader.
enum Made {
    Bytes(Vec<u8>),
    Changed(Tensor),
}

/// Where batches come out, in order.
pub(super) struct Feed<'a> {
    size: usize,
    jobs: std::slice::Iter<'a, Job<'a>>,
    changes: Changes<'a>,
    made: Receiver<Result<Made, TrainError>>,
    /// Time that the training waited for batches.
    pub(super) waited: Duration,
}

impl Feed<'_> {
    /// The next batch, B×3×S×S values 0..1; `None` after the last.
    pub(super) fn next(&mut self) -> Option<Result<Tensor, TrainError>> {
        let job = self.jobs.next()?;
        let asked = Instant::now();
        let made = self.made.recv();
        self.waited += asked.elapsed();
        Some(match made {
            Ok(Ok(Made::Changed(batch))) => Ok(batch),
            Ok(Ok(Made::Bytes(bytes))) => change(&bytes, job, self.size, self.changes),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(TrainError::Panicked("the loader's thread has ended".to_owned())),
        })
    }
}

fn change(bytes: &[u8], job: &Job<'_>, size: usize, changes: Changes<'_>) -> Result<Tensor, TrainError> {
    let batch = stack(bytes, job.indices.len(), size)?;
    match job.seed {
        Some(seed) => Ok(augment(&batch, changes.options, changes.pairs_alike, seed)?),
        None => Ok(batch),
    }
}

/// Runs `work` with a feed of the batches that `jobs` ask for.
pub(super) fn feed<R>(
    slices: &dyn Slices,
    jobs: &[Job<'_>],
    changes: Changes<'_>,
    work: impl FnOnce(&mut Feed<'_>) -> R,
) -> R {
    thread::scope(|scope| {
        let (send, made) = sync_channel(AHEAD);
        scope.spawn(move || {
            for job in jobs {
                let batch = read(slices, job.indices).map_err(TrainError::from).and_then(|bytes| {
                    if changes.ahead {
                        change(&bytes, job, slices.size(), changes).map(Made::Changed)
                    } else {
                        Ok(Made::Bytes(bytes))
                    }
                });
                let failed = batch.is_err();
                // Whoever took batches may have had enough.
                if send.send(batch).is_err() || failed {
                    break;
                }
            }
        });
        let mut feed = Feed { size: slices.size(), jobs: jobs.iter(), changes, made, waited: Duration::ZERO };
        work(&mut feed)
    })
}

fn read(slices: &dyn Slices, indices: &[usize]) -> Result<Vec<u8>, SliceSetError> {
    let mut bytes = Vec::with_capacity(indices.len() * 3 * slices.size() * slices.size());
    indices.iter().try_for_each(|&index| slices.read_input(index, &mut bytes))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::SliceLabel;

    /// Slices that take their time, the last of which cannot be read.
    struct Slow;

    impl Slices for Slow {
        fn size(&self) -> usize {
            2
        }

        fn labels(&self) -> &[SliceLabel] {
            &[]
        }

        fn studies(&self) -> &[u64] {
            &[]
        }

        fn read_input(&self, index: usize, bytes: &mut Vec<u8>) -> Result<(), SliceSetError> {
            thread::sleep(Duration::from_millis(20));
            if index == 99 {
                return Err(SliceSetError::Damaged("slices".into(), "gone"));
            }
            bytes.extend([u8::try_from(index).unwrap(); 12]);
            Ok(())
        }
    }

    fn changes(options: &AugmentOptions) -> Changes<'_> {
        Changes { options, pairs_alike: false, ahead: true }
    }

    #[test]
    fn batches_come_in_order_and_beside_the_work() {
        let options = AugmentOptions::default();
        let jobs: Vec<Job<'_>> = [&[1usize, 2][..], &[3, 4], &[5, 6], &[7, 8]]
            .into_iter()
            .map(|indices| Job { indices, seed: None })
            .collect();
        let (first, waited) = feed(&Slow, &jobs, changes(&options), |feed| {
            let mut first = Vec::new();
            while let Some(batch) = feed.next() {
                first.push((batch.unwrap().double_value(&[0, 0, 0, 0]) * 255.0).round());
                thread::sleep(Duration::from_millis(60));
            }
            (first, feed.waited)
        });
        assert_eq!(first, [1.0, 3.0, 5.0, 7.0]);
        // 160 ms of reading beside 240 ms of work: little more than the first batch is waited for.
        assert!(waited >= Duration::from_millis(30) && waited < Duration::from_millis(140), "{waited:?}");
    }

    #[test]
    fn a_fault_arrives_in_its_turn_and_an_early_end_is_no_fault() {
        let options = AugmentOptions::default();
        let jobs: Vec<Job<'_>> =
            [&[1usize][..], &[99], &[2]].into_iter().map(|indices| Job { indices, seed: None }).collect();
        feed(&Slow, &jobs, changes(&options), |feed| {
            assert!(feed.next().unwrap().is_ok());
            assert!(matches!(feed.next().unwrap(), Err(TrainError::Slices(_))));
        });
        feed(&Slow, &jobs, changes(&options), |_| ());
    }
}
