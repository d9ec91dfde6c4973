//! The child as the tests run it; what is shipped is `ichor-decode` of the crate `ichor`, which is the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    ichor_decode::worker::run()
}
