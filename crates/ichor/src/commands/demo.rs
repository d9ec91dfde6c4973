//! `ichor demo`: the whole way once, with a synthetic study whose bleed is known.

mod compare;
mod overlay;
mod pacs;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use ichor_core::{AeTitle, StudyStatus, Zone};
use ichor_dimse::scu::ScuOptions;
use ichor_phantom::{PhantomOptions, WrittenStudy};
use ichor_store::{Store, StudyKey, StudySummary};
use serde_json::json;
use tokio::sync::oneshot;

use crate::cli::DemoArgs;
use crate::commands::send;
use crate::config::{
    AlertConfig, AnalysisConfig, CommitmentConfig, Config, DecoderConfig, DestinationConfig, GateConfig, LimitsConfig,
    ListenConfig, LogConfig, ModelConfig, ShadowConfig, SourceConfig, StoreConfig,
};
use crate::daemon::{Daemon, Work};
use crate::engine::{Engine, weights_or_demo};
use compare::Comparison;
use pacs::FolderPacs;

/// Seed of the study that is shown without `--seed`: outside the ranges that the weights were trained, validated and
/// tested on, and neither the easiest nor the hardest.
pub(crate) const DEFAULT_SEED: u64 = 7_000_009;

/// How long after the last slice the Segmentation may take before the demonstration counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);
const QUIET_PERIOD_S: f64 = 2.0;
const SEGMENTATION_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.66.4";

/// What the demonstration came to; printed for people or as the last line of JSON.
struct Outcome {
    summary: StudySummary,
    comparison: Option<Comparison>,
    truth_ml: f64,
    turnaround: Duration,
    kept: Kept,
}

/// What stays after the demonstration.
struct Kept {
    seg_path: Option<PathBuf>,
    overlay: PathBuf,
    /// The configuration, with which the job log can be asked; only where everything is kept.
    configuration: Option<PathBuf>,
}

/// Runs it; an error is a failed demonstration.
pub(crate) async fn run<E: Engine>(args: DemoArgs, json: bool) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir().context("temporary folder")?;
    let folder = match &args.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            folder.canonicalize()?
        }
        None => temporary.path().to_owned(),
    };
    let say = |text: &str| {
        if !json {
            println!("{text}");
        }
    };

    say("Synthetic data and demonstration weights: not for clinical use.\n");
    let study_folder = folder.join("study");
    let options = PhantomOptions::random(args.seed, Some(true)).with_matrix(512).with_slices(32);
    let written = ichor_phantom::write_study(args.seed, &options, &study_folder).context("synthetic study")?;
    let truth_ml = written.truth_ml();
    say(&format!("made      {} slices, a bleed of {truth_ml:.1} mL (seed {})", written.files.len(), args.seed));

    let mut pacs = FolderPacs::start(&folder.join("pacs"), AeTitle::parse("DEMO_PACS")?).await?;
    let config = config(&args, &folder, &pacs)?;
    let daemon = Daemon::start::<E>(&config, Work::Everything).await?;
    say(&format!("started   ichor on {}, a PACS on {}", daemon.address(), pacs.address));
    let (address, store) = (daemon.address(), daemon.store().clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(daemon.run_until(async {
        let _ = stopped.await;
    }));

    let shown = show(&written, address, &store, &mut pacs, &say).await;
    // The receiver is gone only if the daemon ended by itself, which its own result says below.
    let _ = stop.send(());
    running.await.context("the daemon failed")?.context("the daemon ended")?;
    let (summary, seg_path, turnaround) = shown?;
    let comparison = seg_path.as_deref().map(|seg| compare::compare(seg, &written)).transpose()?;
    pacs.stop().await;

    let kept = keep_results(args.keep.as_deref().map(|_| folder.as_path()), seg_path)?;
    if let Some(comparison) = &comparison {
        compare::draw(&kept.overlay, comparison, &written)?;
    }
    let outcome = Outcome { summary, comparison, truth_ml, turnaround, kept };
    print(&outcome, json);
    verdict(&outcome)
}

/// Where the Segmentation and the picture stay: in the folder that keeps everything, else by themselves in one of their
/// own.
fn keep_results(everything: Option<&Path>, seg_path: Option<PathBuf>) -> anyhow::Result<Kept> {
    if let Some(folder) = everything {
        let configuration = Some(folder.join("ichor.toml"));
        return Ok(Kept { seg_path, overlay: folder.join("overlay.png"), configuration });
    }
    let folder = tempfile::Builder::new().prefix("ichor-demo-").tempdir().context("folder of the results")?.keep();
    let copy = |seg: PathBuf| {
        let kept = folder.join("seg.dcm");
        std::fs::copy(&seg, &kept).with_context(|| seg.display().to_string()).map(|_| kept)
    };
    let seg_path = seg_path.map(copy).transpose()?;
    Ok(Kept { seg_path, overlay: folder.join("overlay.png"), configuration: None })
}

/// Sends the study and waits for what comes of it: the study's row, the Segmentation in the PACS if there is one, and
/// the time since the last slice.
async fn show(
    written: &WrittenStudy,
    address: std::net::SocketAddr,
    store: &Store,
    pacs: &mut FolderPacs,
    say: &impl Fn(&str),
) -> anyhow::Result<(StudySummary, Option<PathBuf>, Duration)> {
    let (files, _) = send::find(&written.files)?;
    let scu = ScuOptions::new(AeTitle::parse("DEMO_CT")?, AeTitle::parse("ICHOR")?, address.to_string());
    let sending = Instant::now();
    let sent = send::send(&scu, &files).await?;
    let last_slice = Instant::now();
    if let Some(refused) = sent.iter().find_map(|sent| sent.answer.as_ref().err()) {
        anyhow::bail!("an instance was refused: {refused}");
    }
    say(&format!("sent      {} slices by C-STORE in {:.2} s", sent.len(), sending.elapsed().as_secs_f64()));

    let key = StudyKey::Uid(written.study_instance.clone());
    let mut seg = None;
    while last_slice.elapsed() < PATIENCE {
        if let Ok(Some(stored)) = tokio::time::timeout(Duration::from_millis(100), pacs.stored.recv()).await
            && stored.sop_class.as_str() == SEGMENTATION_STORAGE
        {
            seg = Some((stored.path, last_slice.elapsed()));
        }
        let summary = store.study(&key).await?.summary;
        match (summary.status, &seg) {
            (StudyStatus::Analysed, Some((path, turnaround))) => {
                say(&format!("delivered SEG to the PACS {:.2} s after the last slice", turnaround.as_secs_f64()));
                return Ok((summary, Some(path.clone()), *turnaround));
            }
            (StudyStatus::Analysed, None) if summary.positive != Some(true) => {
                return Ok((summary, None, last_slice.elapsed()));
            }
            (StudyStatus::NotAnalysed | StudyStatus::Failed, _) => return Ok((summary, None, last_slice.elapsed())),
            _ => {}
        }
    }
    anyhow::bail!("no Segmentation within {} s after the last slice", PATIENCE.as_secs())
}

fn print(outcome: &Outcome, json: bool) {
    let summary = &outcome.summary;
    if json {
        println!(
            "{}",
            json!({
                "study_uid": summary.study_instance,
                "status": summary.status,
                "positive": summary.positive,
                "probability": summary.probability,
                "volume_ml": summary.volume_ml,
                "truth_ml": outcome.truth_ml,
                "dice": outcome.comparison.as_ref().map(|c| c.dice),
                "turnaround_s": outcome.turnaround.as_secs_f64(),
                "seg_path": outcome.kept.seg_path.as_ref().map(|path| path.display().to_string()),
            })
        );
        return;
    }
    println!();
    println!("study        {}", summary.study_instance);
    println!("status       {}", summary.status);
    if let Some(reason) = &summary.reason {
        println!("because      {reason}");
    }
    if let (Some(positive), Some(probability)) = (summary.positive, summary.probability) {
        println!("verdict      {}", if positive { "POSITIVE" } else { "negative" });
        println!("probability  {probability:.3}");
    }
    println!("volume       {:.1} mL, truth {:.1} mL", summary.volume_ml.unwrap_or(0.0), outcome.truth_ml);
    if let Some(comparison) = &outcome.comparison {
        println!("Dice         {:.2} over {} bleeding slices", comparison.dice, comparison.bleeding_slices);
    }
    println!(
        "turnaround   {:.2} s after the last slice, quiet period {QUIET_PERIOD_S} s",
        outcome.turnaround.as_secs_f64()
    );
    if let Some(seg) = &outcome.kept.seg_path {
        println!("SEG          {}", seg.display());
        println!("overlay      {}", outcome.kept.overlay.display());
    }
    match &outcome.kept.configuration {
        Some(file) => println!("\nTry: ichor studies why {} --config {}", summary.study_instance, file.display()),
        None => println!("\nWith --keep DIR the database and all received files stay, too."),
    }
}

/// Fails unless the bleed was found and masked.
fn verdict(outcome: &Outcome) -> anyhow::Result<()> {
    let summary = &outcome.summary;
    anyhow::ensure!(summary.status == StudyStatus::Analysed, "the study ended as {}", summary.status);
    anyhow::ensure!(summary.positive == Some(true), "the study bleeds and was called negative");
    let comparison = outcome.comparison.as_ref().context("no Segmentation came back")?;
    anyhow::ensure!(comparison.dice > 0.0, "the mask misses the bleed");
    Ok(())
}

/// A configuration for the demonstration, written into the folder too, so that `ichor studies` can read it.
fn config(args: &DemoArgs, folder: &Path, pacs: &FolderPacs) -> anyhow::Result<Config> {
    let config = Config {
        time_zone: Zone::UTC,
        store: StoreConfig { database: folder.join("ichor.db"), blobs: folder.join("blobs"), min_free_mib: 64 },
        listen: ListenConfig::on(std::net::SocketAddr::from(([127, 0, 0, 1], 0)), AeTitle::parse("ICHOR")?),
        sources: vec![SourceConfig {
            ae_title: Some(AeTitle::parse("DEMO_CT")?),
            networks: vec!["127.0.0.0/8".to_owned()],
            quiet_period_s: QUIET_PERIOD_S,
            user: None,
            passcode_file: None,
            report_address: None,
        }],
        dicomweb: None,
        worklist: None,
        admin: None,
        audit: None,
        gate: GateConfig::default(),
        limits: LimitsConfig::default(),
        commitment: CommitmentConfig::default(),
        analysis: AnalysisConfig::default(),
        decoder: DecoderConfig::default(),
        alert: AlertConfig::default(),
        model: ModelConfig {
            weights: weights_or_demo(args.weights.as_deref())?,
            device: args.device.clone(),
            precision: "f32".to_owned(),
            threads: 0,
            batch: 8,
            also: Vec::new(),
        },
        shadow: ShadowConfig::default(),
        rules: Vec::new(),
        urgent: Vec::new(),
        forwards: Vec::new(),
        lookups: Vec::new(),
        channels: Vec::new(),
        task_lists: Vec::new(),
        telemetry: None,
        destinations: vec![DestinationConfig::c_store("pacs", pacs.address, pacs.ae_title.clone())],
        retention: None,
        log: LogConfig::default(),
    };
    std::fs::write(folder.join("ichor.toml"), toml::to_string(&config)?)?;
    Ok(config)
}
