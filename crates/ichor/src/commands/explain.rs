//! `ichor explain`: what the model says of single slices, and where it looks, as pictures.

mod files;
mod picture;

use std::path::{Path, PathBuf};

use anyhow::Context;
use ichor_ct::header::InstanceHeader;
use ichor_decode::Decoder;
use ichor_pipeline::analyse::{AnalysisError, Explanation, SliceModel, explain};
use serde::Serialize;

use crate::cli::ExplainArgs;
use crate::config::{DecoderConfig, ModelConfig};
use crate::engine::{Engine, weights_or_demo};
use files::{Failure, Names, headers};
use picture::{Facts, Pictures};

/// `explain.json`.
#[derive(Debug, Serialize)]
struct Explained {
    /// `name@version+hash`.
    model: String,
    /// What must be said of all that this model makes.
    notice: Option<String>,
    /// The map, in words.
    map: String,
    /// A pixel belongs to the mask from this map value on.
    mask_threshold: f32,
    /// A slice is positive from this probability on.
    slice_threshold: f32,
    slices: Vec<ExplainedSlice>,
    failures: Vec<Failure>,
}

/// One slice of it.
#[derive(Debug, Serialize)]
struct ExplainedSlice {
    file: PathBuf,
    /// Counted from 1, where the file has several.
    frame: Option<u32>,
    sop_instance: String,
    rows: u32,
    columns: u32,
    /// Between rows, between columns, mm.
    spacing_mm: [f64; 2],
    /// Of hemorrhage, the neighbours that were given made consistent.
    probability: f32,
    /// Of this slice by itself.
    own_probability: f32,
    /// Whether the slice is called positive; where it is not, the daemon makes no mask.
    positive: bool,
    mask_pixels: usize,
    mask_mm2: f64,
    pictures: Pictures,
}

/// Explains the slices of all files.
pub(crate) async fn run<E: Engine>(args: ExplainArgs, json: bool) -> anyhow::Result<()> {
    let (found, mut failures) = headers(&args.paths, args.frame);
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let weights = weights_or_demo(args.weights.as_deref())?;
    let precision = ichor_core::Precision::default().to_string();
    let config =
        ModelConfig { weights, device: args.device.clone(), precision, threads: 0, batch: 8, also: Vec::new() };
    let (model, _device) = E::load(&config, ichor_core::Priority::default()).await?;
    let decoder = Decoder::new(DecoderConfig::default().options()?).context("decoder")?;
    let traits = model.traits();
    let facts = Facts {
        model: traits.id.to_string(),
        notice: traits.notice.clone(),
        slice_threshold: traits.slice_threshold,
        mask_threshold: traits.mask_threshold,
    };
    let (mut slices, mut names) = (Vec::with_capacity(found.len()), Names::default());
    let broken = explain(&model, &decoder, found, |explanation| {
        let slice = draw(&args.out, &mut names, &facts, &explanation)?;
        say(&slice, json)?;
        slices.push(slice);
        Ok::<(), Fault>(())
    })
    .await?;
    failures.extend(broken.into_iter().map(|(header, reason)| Failure::of(&header, reason.text)));
    failures.iter().for_each(|failure| eprintln!("{failure}"));
    let (explained, failed) = (slices.len(), failures.len());
    let map = traits.map.clone();
    let Facts { model, notice, slice_threshold, mask_threshold } = facts;
    let result = Explained { model, notice, map, mask_threshold, slice_threshold, slices, failures };
    let path = args.out.join("explain.json");
    let text = serde_json::to_string_pretty(&result)? + "\n";
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    anyhow::ensure!(failed == 0, "{failed} of {} could not be explained", explained + failed);
    Ok(())
}

/// Writes the pictures of a slice.
fn draw(out: &Path, names: &mut Names, facts: &Facts, explanation: &Explanation) -> anyhow::Result<ExplainedSlice> {
    let header: &InstanceHeader = &explanation.header;
    let plane = header.plane.clone().map_err(|reason| anyhow::anyhow!("{}: {reason}", header.path.display()))?;
    let name = names.name(header);
    let pictures = picture::draw(out, &name, facts, explanation, (plane.rows as usize, plane.columns as usize))
        .with_context(|| format!("pictures of {}", header.path.display()))?;
    let mask_pixels = explanation.mask.iter().filter(|value| **value != 0).count();
    #[expect(clippy::cast_precision_loss, reason = "a count of pixels")]
    let mask_mm2 = mask_pixels as f64 * plane.pixel_area();
    Ok(ExplainedSlice {
        file: header.path.clone(),
        frame: header.frame,
        sop_instance: header.sop_instance.to_string(),
        rows: plane.rows,
        columns: plane.columns,
        spacing_mm: plane.spacing,
        probability: explanation.probability,
        own_probability: explanation.own_probability,
        positive: explanation.probability >= facts.slice_threshold,
        mask_pixels,
        mask_mm2,
        pictures,
    })
}

fn say(slice: &ExplainedSlice, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(slice)?);
        return Ok(());
    }
    let frame = slice.frame.map_or_else(String::new, |frame| format!(" frame {frame}"));
    println!(
        "{}{frame}: probability {:.3} ({}), mask {:.0} mm², {}",
        slice.file.display(),
        slice.probability,
        if slice.positive { "positive" } else { "negative" },
        slice.mask_mm2,
        slice.pictures.all.display()
    );
    Ok(())
}

/// What a run fails of: the analysis, or writing.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}
