//! Settings of a [`crate::Decoder`].

use std::path::PathBuf;
use std::time::Duration;

use crate::caps::Caps;

/// How children are run, and what they are given.
#[derive(Clone, Debug)]
pub struct DecoderOptions {
    /// The program whose `main` is [`crate::worker::run`].
    pub program: PathBuf,
    /// Most children at once.
    pub processes: usize,
    /// Memory of each child, in bytes: its address space (`RLIMIT_AS`).
    pub memory_bytes: u64,
    /// Time for one slice on the clock, and for a child to start.
    pub timeout: Duration,
    /// Processor time for one slice, in seconds (`RLIMIT_CPU` counts whole ones).
    pub cpu_seconds: u64,
    /// Nice value of the children, 0 to 19: the higher, the more they stand back.
    pub nice: i32,
    /// A child that has decoded so many slices is replaced.
    pub slices_per_process: u32,
    /// What an instance may declare.
    pub caps: Caps,
}

impl DecoderOptions {
    /// The defaults, for a program.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            processes: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: 512 << 20,
            timeout: Duration::from_secs(20),
            cpu_seconds: 10,
            nice: 0,
            slices_per_process: 16,
            caps: Caps::default(),
        }
    }
}
