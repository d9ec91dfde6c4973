//! Writes phantoms as raw arrays (int16 HU, u8 bleed, u8 brain, and a JSON line of sizes) for a look at them.
//!
//! `cargo run -p ichor-phantom --example dump_phantoms -- OUT MATRIX SPACING_MM SEED POSITIVE [COUNT]`

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use ichor_phantom::{Phantom, PhantomOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [out, matrix, spacing, seed, positive, rest @ ..] = args.as_slice() else {
        return Err("OUT MATRIX SPACING_MM SEED POSITIVE [COUNT]".into());
    };
    let out = PathBuf::from(out);
    fs::create_dir_all(&out)?;
    let (matrix, spacing, first): (u32, f64, u64) = (matrix.parse()?, spacing.parse()?, seed.parse()?);
    let positive = positive.parse::<bool>().ok();
    let count: u64 = rest.first().map_or(Ok(1), |c| c.parse())?;
    for seed in first..first + count {
        let options = PhantomOptions::random(seed, positive).with_matrix(matrix).with_spacing(spacing);
        let start = Instant::now();
        let phantom = Phantom::generate(seed, &options)?;
        let spent = start.elapsed().as_secs_f64() * 1000.0;
        let (mut hu, mut bleed, mut brain) = (Vec::new(), Vec::new(), Vec::new());
        for slice in &phantom.slices {
            hu.extend(slice.hu.iter().flat_map(|v| v.to_le_bytes()));
            bleed.extend_from_slice(&slice.bleed);
            brain.extend_from_slice(&slice.brain);
        }
        fs::write(out.join(format!("{seed}.hu")), hu)?;
        fs::write(out.join(format!("{seed}.bleed")), bleed)?;
        fs::write(out.join(format!("{seed}.brain")), brain)?;
        let bleeds = serde_json::to_string(&phantom.bleeds)?;
        let line = format!(
            "{{\"slices\":{},\"rows\":{matrix},\"columns\":{matrix},\"ms\":{spent:.1},\"bleeds\":{bleeds}}}",
            phantom.slices.len()
        );
        fs::write(out.join(format!("{seed}.json")), &line)?;
        println!("{seed} {line}");
    }
    Ok(())
}
