//! `ichor phantom`.

use anyhow::Context;
use ichor_phantom::{Companions, PhantomOptions, WriteOptions, write_study_with};
use serde_json::json;

use crate::cli::PhantomArgs;

/// Writes one study a seed, each in a folder of its own unless there is only one.
pub(crate) fn run(args: &PhantomArgs, json: bool) -> anyhow::Result<()> {
    anyhow::ensure!(args.count > 0, "--count must be at least 1");
    for seed in args.seed..args.seed.saturating_add(args.count) {
        let mut options = PhantomOptions::random(seed, args.positive);
        if let Some(side) = args.matrix {
            options = options.with_matrix(side);
        }
        if let Some(slices) = args.slices {
            options = options.with_slices(slices);
        }
        let folder = if args.count == 1 { args.out.clone() } else { args.out.join(format!("{seed:06}")) };
        let what = WriteOptions { truth: true, companions: Companions::default() };
        let written = write_study_with(seed, &options, what, &folder).with_context(|| format!("seed {seed}"))?;
        let bleeding = written.slices.iter().filter(|slice| slice.bleed.iter().any(|b| *b != 0)).count();
        if json {
            println!(
                "{}",
                json!({ "seed": seed, "folder": folder, "study_uid": written.study_instance,
                        "slices": written.slices.len(), "bleeding_slices": bleeding, "truth_ml": written.truth_ml() })
            );
        } else {
            println!(
                "seed {seed}: {} slices, {bleeding} with blood, {:.1} mL, in {}",
                written.slices.len(),
                written.truth_ml(),
                folder.display()
            );
        }
    }
    Ok(())
}
