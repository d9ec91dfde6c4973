//! `ichor commitments`: who asked whether instances are safe, and whether they have heard.

use ichor_store::CommitmentSummary;

use super::job_log::{clock, open};
use crate::cli::CommitmentsArgs;

/// `ichor commitments list`
pub(crate) async fn list(args: CommitmentsArgs, json: bool) -> anyhow::Result<()> {
    let requests = open(&args.store).await?.commitments(args.open, args.limit).await?;
    if json {
        println!("{}", serde_json::to_string(&requests)?);
        return Ok(());
    }
    println!("{}", row(["asked", "status", "instances", "failed", "attempts", "peer", "transaction"]));
    for request in &requests {
        println!("{}", line(request));
    }
    if requests.is_empty() {
        println!("no request");
    }
    Ok(())
}

fn row(cells: [&str; 7]) -> String {
    let [asked, status, instances, failed, attempts, peer, transaction] = cells;
    format!("{asked:<19}  {status:<9}  {instances:>9}  {failed:>6}  {attempts:>8}  {peer:<16}  {transaction}")
}

fn line(request: &CommitmentSummary) -> String {
    let cells = row([
        &clock(request.requested_at),
        &request.status,
        &request.references.to_string(),
        &request.failed.to_string(),
        &request.attempts.to_string(),
        &request.peer_ae,
        request.transaction.as_str(),
    ]);
    match &request.last_words {
        Some(words) => format!("{cells}\n                     {words}"),
        None => cells,
    }
}
