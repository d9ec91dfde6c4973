//! `ichor`: the program that people call.

use std::process::ExitCode;

fn main() -> ExitCode {
    ichor::main_without_engine()
}
