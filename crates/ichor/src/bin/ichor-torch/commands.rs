//! `ichor model`.

use std::path::PathBuf;

use ichor::engine::{MapsArgs, WeightsArg, weights_or_demo};
use ichor_core::{DeviceChoice, Precision};
use ichor_model::{Manifest, ModelRuntime, RuntimeOptions, available_on_cpu, maps_from_files};
use serde_json::json;

use crate::model::expected;

fn weights(args: &WeightsArg) -> anyhow::Result<PathBuf> {
    weights_or_demo(args.weights.as_deref())
}

/// `ichor model info`
pub(crate) fn info(args: &WeightsArg, json: bool) -> anyhow::Result<()> {
    let weights = weights(args)?;
    let manifest = Manifest::load(&weights, &expected())?;
    let id = manifest.id()?;
    if json {
        println!("{}", json!({ "id": id, "weights": weights, "manifest": manifest }));
        return Ok(());
    }
    let card = &manifest.model;
    let sizes = &card.sizes;
    println!("model        {id}");
    println!("weights      {}", weights.display());
    println!("sha256       {}", manifest.sha256);
    println!(
        "network      Swin, input {}x{}, patch {}, window {}, width {}, depths {:?}, heads {:?}",
        sizes.img_size,
        sizes.img_size,
        sizes.patch_size,
        sizes.window_size,
        sizes.embed_dim,
        sizes.depths,
        sizes.num_heads
    );
    println!("input        preset {}, preprocessing version {}", card.input.preset, card.input.preprocessing_version);
    println!("strategy     {:?}", card.strategy);
    println!(
        "verdict      slices made consistent over {} mm, slice from {}; study by {}",
        card.slice_reach_mm,
        card.slice_threshold,
        card.study_rule()
    );
    println!(
        "mask         {:?}, gradient at {:?}, threshold {}",
        card.map.kind, card.map.gradient_site, card.map.threshold
    );
    match card.map.refine {
        Some(refine) => println!(
            "             refined (version {}): support {}, floor {}, contrast {} HU",
            refine.version, refine.support, refine.floor, refine.contrast_hu
        ),
        None => println!("             not refined"),
    }
    if let Some(choice) = &card.map_choice {
        println!("map          chosen {choice}");
    }
    println!(
        "calibration  slices: log-odds times {:.3} plus {:.3}; studies: times {:.3} plus {:.3}",
        card.slice_calibration.slope,
        card.slice_calibration.offset,
        card.study_calibration.slope,
        card.study_calibration.offset
    );
    if let Some(volume) = card.volume {
        println!(
            "volume       one standard deviation: {:.1} mL and {:.0} % of it",
            volume.floor_ml,
            100.0 * volume.share
        );
    }
    let wanted = args.precision.parse::<Precision>()?;
    println!("precision    {wanted} asked for, {} on this processor", available_on_cpu(wanted));
    println!("trained on   {}", card.training_data);
    if card.demonstration {
        println!("             demonstration only");
    }
    if let Some(notice) = &card.notice {
        println!("notice       {notice}");
    }
    Ok(())
}

/// `ichor model verify`
pub(crate) async fn verify(args: WeightsArg, json: bool) -> anyhow::Result<()> {
    let mut options = RuntimeOptions::new(weights(&args)?, expected());
    options.device = args.device.parse::<DeviceChoice>()?;
    options.precision = args.precision.parse::<Precision>()?;
    let runtime = ModelRuntime::start(options).await?;
    let report = runtime.verify().await?;
    if json {
        println!(
            "{}",
            json!({ "id": runtime.model_id(), "device": report.device,
                    "precision": report.precision.to_string(), "verified": true,
                    "logit_difference": report.logit_difference,
                    "probability_difference": report.probability_difference })
        );
    } else {
        println!("{} is what its manifest says", runtime.model_id());
        println!(
            "self-test on {} in {}: logits within {:.1e}, probabilities within {:.1e}",
            report.device, report.precision, report.logit_difference, report.probability_difference
        );
    }
    Ok(())
}

/// `ichor model maps`
pub(crate) fn maps(args: &MapsArgs) -> anyhow::Result<()> {
    maps_from_files(&args.config, &args.weights, &args.input, &args.output)?;
    Ok(())
}
