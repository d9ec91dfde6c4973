//! Threads that compute pieces of one step side by side, each by itself.
//!
//! libtorch shares every single operation among its threads and lets them wait for each other at its end. For windows of
//! attention, a dozen small operations each, the waiting is most of the time, and all of it where something else
//! runs on one of the cores. Here each thread goes through windows of its own and waits once a block.

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tch::{Device, TchError};
use tracing::warn;

/// As many threads as libtorch has for the thread that made them; none beside it on a GPU, or where there is one only.
#[derive(Debug)]
pub(super) struct Threads(Option<ThreadPool>);

impl Threads {
    /// They take over the priority of the thread that makes them.
    pub(super) fn new(device: Device) -> Self {
        let count = tch::get_num_threads();
        if device != Device::Cpu || count < 2 {
            return Self(None);
        }
        let built = ThreadPoolBuilder::new()
            .num_threads(usize::try_from(count).unwrap_or(1))
            .thread_name(|at| format!("attention-{at}"))
            .start_handler(|_| have_threads(1))
            .build();
        match built {
            Ok(pool) => {
                // The last number that was given is that of threads to come.
                let _started = pool.broadcast(|_| ());
                tch::set_num_threads(count);
                Self(Some(pool))
            }
            Err(error) => {
                warn!(%error, "no threads for attention: one does it all");
                Self(None)
            }
        }
    }

    /// The results of all pieces, in their order.
    pub(super) fn each<P: Send, R: Send>(
        &self,
        pieces: impl ExactSizeIterator<Item = P>,
        compute: impl Fn(P) -> Result<R, TchError> + Sync,
    ) -> Result<Vec<R>, TchError> {
        match &self.0 {
            Some(pool) if pieces.len() > 1 => {
                let pieces: Vec<P> = pieces.collect();
                let compute = |piece| tch::no_grad(|| compute(piece));
                pool.install(|| pieces.into_par_iter().map(compute).collect())
            }
            _ => pieces.map(compute).collect(),
        }
    }
}

/// From now on libtorch has so many threads for operations of this one.
///
/// The number is one's own, but a thread that never asked for it takes the process's at its first question or operation, which is
/// the last that anybody gave: so it is asked for first.
pub(crate) fn have_threads(count: i32) {
    let _asked = tch::get_num_threads();
    tch::set_num_threads(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_computed_alone_and_come_back_in_order() {
        // A thread of its own: other tests give other numbers meanwhile.
        let checked = std::thread::spawn(|| {
            have_threads(2);
            let threads = Threads::new(Device::Cpu);
            assert!(threads.0.is_some());
            assert_eq!(tch::get_num_threads(), 2);
            let numbers = threads.each(0..100, |piece| {
                // An operation that is large enough for several threads, had it any.
                let _sum = tch::Tensor::f_ones([100_000], tch::kind::FLOAT_CPU)?.f_sum(tch::Kind::Float)?;
                Ok((piece, tch::get_num_threads()))
            });
            let expected: Vec<(usize, i32)> = (0..100).map(|piece| (piece, 1)).collect();
            assert_eq!(numbers.unwrap(), expected);
            assert_eq!(tch::get_num_threads(), 2);
            let failed = threads.each(0..100, |piece| match piece {
                70 => Err(TchError::Kind("seventy".to_owned())),
                _ => Ok(piece),
            });
            assert!(matches!(failed, Err(TchError::Kind(said)) if said == "seventy"));
        });
        checked.join().unwrap();
    }

    #[test]
    fn one_thread_needs_no_other() {
        let checked = std::thread::spawn(|| {
            have_threads(1);
            let threads = Threads::new(Device::Cpu);
            assert!(threads.0.is_none());
            assert_eq!(threads.each(0..3, Ok).unwrap(), [0, 1, 2]);
        });
        checked.join().unwrap();
    }
}
