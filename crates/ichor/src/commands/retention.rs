//! `ichor retention`: what goes, and what stays.

use std::fmt::Write as _;

use anyhow::Context;
use ichor_pipeline::retain::{Going, Plan, plan};
use serde_json::json;

use super::job_log;
use crate::cli::RetentionPlanArgs;
use crate::config::Config;
use crate::retention;

/// Says what a sweep at this moment would do; nothing is changed.
pub(crate) async fn plan_now(args: RetentionPlanArgs, json: bool) -> anyhow::Result<()> {
    let config = Config::load(&args.store.config)?;
    let Some(options) = retention::options(&config) else {
        if json {
            println!("{}", json!({ "configured": false }));
        } else {
            println!("there is no [retention]: nothing is ever deleted");
        }
        return Ok(());
    };
    let store = job_log::open(&args.store).await?;
    let free = store.blobs().free_bytes().context("free space")?;
    let plan = plan(&store, &options, free, ichor_pipeline::now()).await?;
    if json {
        println!("{}", json!({ "configured": true, "plan": plan }));
    } else {
        print!("{}", words(&plan, args.limit));
    }
    Ok(())
}

/// The plan for people: the first `limit` studies of each kind.
fn words(plan: &Plan, limit: usize) -> String {
    let mut text = String::new();
    let going: Vec<&Going> = plan.going.iter().filter(|going| going.candidate.files > 0).collect();
    let more = if plan.more { " or more" } else { "" };
    let (studies, bytes, free) = (plan.studies(), plan.bytes() >> 20, plan.free_bytes >> 20);
    let _ = writeln!(text, "goes: {studies}{more}, {bytes} MiB; {free} MiB are free");
    for Going { candidate, kind, why } in going.iter().take(limit) {
        let (files, mib) = (candidate.files, candidate.bytes >> 20);
        let _ = writeln!(text, "  {}  {kind}: {files} files, {mib} MiB, {why}", candidate.study_instance);
    }
    if plan.spared_studies > 0 {
        let _ = writeln!(text, "{} studies are due and stay", plan.spared_studies);
    }
    for (protection, studies) in &plan.protected_by {
        let _ = writeln!(text, "  {studies:>6}  {}: {protection}", protection.as_str());
    }
    for Going { candidate, kind, .. } in plan.spared.iter().take(limit) {
        let why: Vec<String> = candidate.protections.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "  {}  {kind} stay: {}", candidate.study_instance, why.join(", "));
    }
    if plan.short_bytes > 0 {
        let _ = writeln!(text, "{} MiB more should be free, and nothing more may go", plan.short_bytes >> 20);
    }
    text
}
