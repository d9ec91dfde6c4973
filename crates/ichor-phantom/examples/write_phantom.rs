//! Writes one study as DICOM, with companions and truth: `cargo run -p ichor-phantom --example write_phantom -- DIR SEED [MATRIX] [SLICES]`

use std::path::PathBuf;

use ichor_phantom::{Companions, PhantomOptions, WriteOptions, write_study_with};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, seed, rest @ ..] = args.as_slice() else { return Err("DIR SEED [MATRIX] [SLICES]".into()) };
    let seed: u64 = seed.parse()?;
    let mut options = PhantomOptions::random(seed, Some(true));
    if let Some(matrix) = rest.first() {
        options = options.with_matrix(matrix.parse()?);
    }
    if let Some(slices) = rest.get(1) {
        options = options.with_slices(slices.parse()?);
    }
    let what = WriteOptions { truth: true, companions: Companions::all() };
    let written = write_study_with(seed, &options, what, &PathBuf::from(dir))?;
    println!("{} {} slices {:.2} mL", written.study_instance, written.files.len(), written.truth_ml());
    Ok(())
}
