//! A parent for the tests, to be killed while its child has a slice in hand: PROGRAM FILE.

use std::path::PathBuf;
use std::process::ExitCode;

use ichor_ct::header::InstanceHeader;
use ichor_ct::volume::PlacedSlice;
use ichor_decode::{Decoder, DecoderOptions};

fn main() -> ExitCode {
    let [program, file] = [1, 2].map(|at| PathBuf::from(std::env::args().nth(at).unwrap_or_default()));
    let Ok(header) = InstanceHeader::read(&file) else { return ExitCode::FAILURE };
    let Ok(plane) = header.plane.clone() else { return ExitCode::FAILURE };
    let Ok(decoder) = Decoder::new(DecoderOptions::new(program)) else { return ExitCode::FAILURE };
    let outcome = decoder.read_slice(&PlacedSlice { header, plane, offset_mm: 0.0, slab_mm: 1.0 });
    println!("{:?}", outcome.err());
    ExitCode::SUCCESS
}
