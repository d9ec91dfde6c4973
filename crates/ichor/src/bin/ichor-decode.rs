//! Decodes compressed slices for the daemon, which starts it. A program of its own, because the daemon's links libtorch:
//! loading that takes a child a quarter of a second and a hundred megabytes.

use std::process::ExitCode;

fn main() -> ExitCode {
    ichor_decode::worker::run()
}
