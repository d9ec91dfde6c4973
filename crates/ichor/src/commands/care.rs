//! `ichor doctor`, `ichor backup`, `ichor restore`, `ichor verify`, `ichor invite`.

use std::path::Path;

use anyhow::Context;
use ichor_dimse::part10::decode_header;
use ichor_pipeline::now;
use ichor_store::{Copied, HeaderLength, StoreOptions, UnsoundBlob};
use serde_json::json;

use super::job_log;
use crate::admin;
use crate::cli::{BackupArgs, DoctorArgs, InviteArgs, RestoreArgs, VerifyArgs};
use crate::config::Config;
use crate::doctor::{Level, Outcome, examine};

/// The File Meta Information, which belongs to a received file and not to its digest.
const HEADER: HeaderLength = |first| decode_header(first).ok().map(|header| header.dataset_offset);

/// Looks at everything that a configuration names; an error if anything failed.
pub(crate) async fn doctor(args: DoctorArgs, json: bool) -> anyhow::Result<()> {
    let config = Config::load(&args.config.config)?;
    let outcomes = examine(&config).await;
    let count = |level| outcomes.iter().filter(|outcome| outcome.level == level).count();
    let (warnings, failures) = (count(Level::Warning), count(Level::Failure));
    if json {
        println!("{}", json!({ "outcomes": outcomes, "warnings": warnings, "failures": failures }));
    } else {
        outcomes.iter().for_each(|outcome| println!("{}", line(outcome)));
    }
    anyhow::ensure!(failures == 0, "{failures} of {} looks failed, {warnings} with a warning", outcomes.len());
    Ok(())
}

fn line(outcome: &Outcome) -> String {
    let level = match outcome.level {
        Level::Good => "good   ",
        Level::Warning => "WARNING",
        Level::Failure => "FAILURE",
    };
    let mend = outcome.mend.as_ref().map_or_else(String::new, |mend| format!("\n        mend: {mend}"));
    format!("{level} {}: {}{mend}", outcome.subject, outcome.found)
}

/// Copies the store, which may be in use, into a folder.
pub(crate) async fn backup(args: BackupArgs, json: bool) -> anyhow::Result<()> {
    let store = job_log::open(&args.store).await?;
    let copied = store.back_up(&args.to, HEADER).await.with_context(|| format!("backup to {}", args.to.display()));
    store.close().await;
    say(&copied?, &args.to, json)
}

/// Prints a one-time link with which a user chooses a new password.
pub(crate) async fn invite(args: InviteArgs, json: bool) -> anyhow::Result<()> {
    let config = Config::load(&args.store.config)?;
    let store = job_log::open(&args.store).await?;
    let link = admin::link_for(&config, &store, &args.name).await;
    store.close().await;
    let link = link?;
    if json {
        println!("{}", json!({ "user": args.name, "link": link }))
    } else {
        println!("{link}")
    }
    Ok(())
}

/// Brings a backup to the places that a configuration names.
pub(crate) async fn restore(args: RestoreArgs, json: bool) -> anyhow::Result<()> {
    let config = Config::load(&args.store.config)?;
    let options = StoreOptions::new(&config.store.database, &config.store.blobs);
    let copied = ichor_store::restore(&args.from, &options, HEADER, args.revoke_tokens.then(now)).await;
    let copied = copied.with_context(|| format!("restoring from {}", args.from.display()))?;
    if !json && copied.ended_sessions > 0 {
        println!("{} sessions of before are ended: everybody logs in again", copied.ended_sessions);
    }
    if !json && copied.revoked_tokens > 0 {
        println!("{} API tokens are revoked: whoever needs one makes another", copied.revoked_tokens);
    }
    if !json && copied.valid_tokens > 0 {
        println!(
            "{} API tokens are valid as they were when the backup was made, also those that were revoked since: look \
             through them (Account, or /api/tokens), or restore with --revoke-tokens",
            copied.valid_tokens
        );
    }
    say(&copied, &config.store.database, json)
}

/// Reads all that is kept and names what is damaged.
pub(crate) async fn verify(args: VerifyArgs, json: bool) -> anyhow::Result<()> {
    let config = Config::load(&args.store.config)?;
    let options = match &args.backup {
        Some(folder) => ichor_store::in_backup(folder),
        None => StoreOptions::new(&config.store.database, &config.store.blobs),
    };
    let rate = (args.rate > 0).then(|| u64::from(args.rate) << 20);
    let found = ichor_store::verify(&options, HEADER, rate).await;
    let found = found.with_context(|| format!("reading what {} names", options.database.display()))?;
    if json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        let (files, mebibytes) = (found.blobs - found.unsound.len() as u64, found.bytes >> 20);
        println!("{}: {files} files are sound ({mebibytes} MiB)", options.blobs.display());
        found.unsound.iter().for_each(name);
    }
    let unsound = found.unsound.len();
    anyhow::ensure!(unsound == 0, "{unsound} of {} files are damaged or missing", found.blobs);
    Ok(())
}

fn name(unsound: &UnsoundBlob) {
    let UnsoundBlob { study_instance, kind, sop_instance, path, reason } = unsound;
    println!("  study {study_instance}, {kind} {sop_instance}: {} {reason}", path.display());
}

fn say(copied: &Copied, place: &Path, json: bool) -> anyhow::Result<()> {
    if json {
        let (blobs, new, bytes) = (copied.blobs, copied.copied, copied.bytes);
        let place = place.display().to_string();
        println!(
            "{}",
            json!({ "place": place, "files": blobs, "copied": new, "bytes": bytes, "missing": copied.missing,
            "ended_sessions": copied.ended_sessions, "valid_tokens": copied.valid_tokens,
            "revoked_tokens": copied.revoked_tokens })
        );
    } else {
        let already = copied.blobs - copied.copied - copied.missing.len() as u64;
        println!(
            "{}: {} files copied ({} MiB), {already} were there",
            place.display(),
            copied.copied,
            copied.bytes >> 20
        );
        copied.missing.iter().for_each(name);
    }
    let missing = copied.missing.len();
    anyhow::ensure!(missing == 0, "{missing} files are damaged or missing and were not copied; all others were");
    Ok(())
}
