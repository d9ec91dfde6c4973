//! `ichor send`: files and folders, each in the transfer syntax that it has.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use ichor_core::Uid;
use ichor_dimse::part10::{self, Part10};
use ichor_dimse::scu::{ProposedContext, ScuOptions, StorageScu, StoreItem};
use serde_json::json;
use tokio::io::AsyncSeekExt;

use crate::cli::SendArgs;

/// What became of one file.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) path: PathBuf,
    pub(crate) sop_instance: Uid,
    /// The peer's words; `Err` if it did not take the instance.
    pub(crate) answer: Result<String, String>,
}

/// Sends, prints a line a refused file, and fails unless everything was accepted.
pub(crate) async fn run(args: SendArgs, json: bool) -> anyhow::Result<()> {
    let (files, skipped) = find(&args.paths)?;
    for (path, why) in &skipped {
        eprintln!("not sent: {}: {why}", path.display());
    }
    anyhow::ensure!(!files.is_empty(), "no DICOM file among the given paths");
    let options = ScuOptions::new(args.from.clone(), args.to.ae_title.clone(), args.to.address.clone());
    let started = Instant::now();
    let sent = send(&options, &files).await?;
    let (seconds, failed) = (started.elapsed(), sent.iter().filter(|s| s.answer.is_err()).count());
    for sent in &sent {
        if let Err(why) = &sent.answer {
            eprintln!("refused: {} ({}): {why}", sent.path.display(), sent.sop_instance);
        }
    }
    let accepted = sent.len() - failed;
    if json {
        let skipped: Vec<_> =
            skipped.iter().map(|(path, why)| json!({ "path": path.display().to_string(), "reason": why })).collect();
        let refused: Vec<_> = sent
            .iter()
            .filter_map(|s| Some((s, s.answer.as_ref().err()?)))
            .map(|(s, why)| json!({ "path": s.path.display().to_string(), "sop_instance": s.sop_instance, "reason": why }))
            .collect();
        println!(
            "{}",
            json!({ "peer": args.to.to_string(), "accepted": accepted, "refused": refused, "skipped": skipped,
                    "seconds": seconds.as_secs_f64() })
        );
    } else {
        println!("{accepted} of {} instances accepted by {} in {}", sent.len(), args.to, human(seconds));
    }
    anyhow::ensure!(failed == 0, "{failed} instances were not accepted");
    anyhow::ensure!(skipped.is_empty(), "{} files are not DICOM", skipped.len());
    Ok(())
}

/// Sends files on one association.
pub(crate) async fn send(options: &ScuOptions, files: &[(PathBuf, Part10)]) -> anyhow::Result<Vec<Sent>> {
    let mut contexts: Vec<ProposedContext> = Vec::new();
    for (_, header) in files {
        let context = ProposedContext::new(header.sop_class.clone(), [header.transfer_syntax.clone()]);
        if !contexts.contains(&context) {
            contexts.push(context);
        }
    }
    let mut scu = StorageScu::connect(options, &contexts)
        .await
        .with_context(|| format!("no association with {}@{}", options.called_ae, options.address))?;
    let mut sent = Vec::with_capacity(files.len());
    for (path, header) in files {
        let answer = send_one(&mut scu, path, header).await.with_context(|| format!("sending {}", path.display()))?;
        sent.push(Sent { path: path.clone(), sop_instance: header.sop_instance.clone(), answer });
    }
    scu.release().await.context("release of the association")?;
    Ok(sent)
}

async fn send_one(scu: &mut StorageScu, path: &Path, header: &Part10) -> anyhow::Result<Result<String, String>> {
    if !scu.accepts(&header.sop_class, &header.transfer_syntax) {
        return Ok(Err(format!("the peer does not accept {} in {}", header.sop_class, header.transfer_syntax)));
    }
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(std::io::SeekFrom::Start(header.dataset_offset)).await?;
    let item = StoreItem {
        sop_class: header.sop_class.clone(),
        sop_instance: header.sop_instance.clone(),
        transfer_syntax: header.transfer_syntax.clone(),
    };
    let response = scu.store(&item, &mut file).await?;
    let words = match &response.comment {
        Some(comment) => format!("{} ({comment})", response.status),
        None => response.status.to_string(),
    };
    Ok(if response.status.is_success_or_warning() { Ok(words) } else { Err(words) })
}

/// A DICOM file and its header.
type Found = (PathBuf, Part10);

/// A file that is none, and why.
type Skipped = (PathBuf, String);

/// DICOM files at the paths, sorted, and what is none, with the reason. A folder is searched to its depth.
pub(crate) fn find(paths: &[PathBuf]) -> anyhow::Result<(Vec<Found>, Vec<Skipped>)> {
    let mut pending: Vec<PathBuf> = paths.iter().rev().cloned().collect();
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    while let Some(path) = pending.pop() {
        let kind = std::fs::metadata(&path).with_context(|| path.display().to_string())?;
        if kind.is_dir() {
            let entries = std::fs::read_dir(&path).with_context(|| path.display().to_string())?;
            let mut inside: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
            inside.sort();
            pending.extend(inside.into_iter().rev());
            continue;
        }
        match part10::read_header(&path) {
            Ok(header) => files.push((path, header)),
            // A folder may hold other things; a file that was named must be what it was named for.
            Err(_) if !paths.contains(&path) => {}
            Err(error) => skipped.push((path, error.to_string())),
        }
    }
    Ok((files, skipped))
}

fn human(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
