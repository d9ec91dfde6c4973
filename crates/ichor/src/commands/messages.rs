//! `ichor messages`: who was told what, and whether they have heard.

use ichor_store::MessageSummary;

use super::job_log::{clock, open};
use super::witness::witnessed;
use crate::cli::{MessagesListArgs, MessagesRetryArgs};

/// `ichor messages list`
pub(crate) async fn list(args: MessagesListArgs, json: bool) -> anyhow::Result<()> {
    let messages = open(&args.store).await?.messages(args.status, args.study.as_ref(), args.limit).await?;
    if json {
        println!("{}", serde_json::to_string(&messages)?);
        return Ok(());
    }
    println!("{}", row(["number", "queued", "status", "attempts", "channel", "subject", "study"]));
    for message in &messages {
        println!("{}", line(message));
    }
    if messages.is_empty() {
        println!("no message");
    }
    Ok(())
}

/// `ichor messages retry`
pub(crate) async fn retry(args: MessagesRetryArgs, json: bool) -> anyhow::Result<()> {
    let action = if args.number.is_some() { "message-retried" } else { "messages-retried" };
    let detail = serde_json::json!({ "message": args.number });
    let store = witnessed(&open(&args.store).await?, action, None, (args.by.as_deref(), detail));
    let revived = store.retry_messages(args.number, ichor_pipeline::now()).await?;
    if json {
        println!("{}", serde_json::json!({ "queued": revived }));
    } else {
        println!("{revived} {} queued again", if revived == 1 { "message is" } else { "messages are" });
    }
    Ok(())
}

fn row(cells: [&str; 7]) -> String {
    let [number, queued, status, attempts, channel, subject, study] = cells;
    format!("{number:>8}  {queued:<19}  {status:<12}  {attempts:>8}  {channel:<16}  {subject:<15}  {study}")
}

fn line(message: &MessageSummary) -> String {
    let cells = row([
        &message.id.to_string(),
        &clock(message.queued_at),
        message.status.as_str(),
        &message.attempts.to_string(),
        &message.channel,
        message.subject.as_str(),
        message.study_instance.as_str(),
    ]);
    let after = message.latency_ms.map(|ms| format!("; {ms} ms after what it rests on")).unwrap_or_default();
    match &message.last_words {
        Some(words) => format!("{cells}\n          {words}{after}"),
        None => cells,
    }
}
