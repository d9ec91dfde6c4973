//! `ichor echo`.

use std::time::Instant;

use anyhow::Context;
use ichor_dimse::scu::{ProposedContext, ScuOptions, StorageScu};
use serde_json::json;

use crate::cli::EchoArgs;

/// Opens an association, asks, and says how long it took.
pub(crate) async fn run(args: EchoArgs, json: bool) -> anyhow::Result<()> {
    let options = ScuOptions::new(args.from, args.to.ae_title.clone(), args.to.address.clone());
    let started = Instant::now();
    let mut scu = StorageScu::connect(&options, &[ProposedContext::verification()])
        .await
        .with_context(|| format!("no association with {}", args.to))?;
    let status = scu.echo().await.with_context(|| format!("C-ECHO to {}", args.to))?;
    scu.release().await.with_context(|| format!("release of the association with {}", args.to))?;
    let milliseconds = started.elapsed().as_millis();
    anyhow::ensure!(status.is_success(), "{} answered C-ECHO with {status}", args.to);
    if json {
        println!("{}", json!({ "peer": args.to.to_string(), "status": "success", "milliseconds": milliseconds }));
    } else {
        println!("{} answers ({milliseconds} ms)", args.to);
    }
    Ok(())
}
