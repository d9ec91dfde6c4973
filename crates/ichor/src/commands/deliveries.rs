//! `ichor deliveries`: what goes where, and what holds it up.

use std::collections::BTreeSet;

use ichor_store::{DeliveryFilter, DeliverySummary, DestinationState, QueueDepth, Store};
use serde_json::json;

use super::job_log::{clock, open};
use super::witness::witnessed;
use crate::cli::{DeliveriesListArgs, DeliveriesRetryArgs, DestinationsArgs, StoreArg};
use crate::config::Config;

/// `ichor deliveries list`
pub(crate) async fn list(args: DeliveriesListArgs, json: bool) -> anyhow::Result<()> {
    let filter = DeliveryFilter {
        status: args.status,
        destination: args.destination,
        study: args.study,
        limit: args.limit,
        ..DeliveryFilter::default()
    };
    let store = open(&args.store).await?;
    check_destination(&args.store, &store, filter.destination.as_deref()).await?;
    let deliveries = store.deliveries(&filter).await?;
    if json {
        println!("{}", serde_json::to_string(&deliveries)?);
        return Ok(());
    }
    println!("{}", row(["number", "queued", "status", "attempts", "destination", "kind", "study"]));
    for delivery in &deliveries {
        println!("{}", line(delivery));
    }
    if deliveries.is_empty() {
        println!("no delivery");
    }
    Ok(())
}

/// `ichor deliveries destinations`
pub(crate) async fn destinations(args: DestinationsArgs, json: bool) -> anyhow::Result<()> {
    let store = open(&args.store).await?;
    let (states, depths) = (store.destinations(ichor_pipeline::now()).await?, store.queue_depths().await?);
    if json {
        println!("{}", json!({ "destinations": states, "deliveries": depths }));
        return Ok(());
    }
    for state in &states {
        println!("{}", described(state, &depths));
    }
    if states.is_empty() {
        println!("nothing was sent anywhere yet");
    }
    Ok(())
}

/// `ichor deliveries retry`
pub(crate) async fn retry(args: DeliveriesRetryArgs, json: bool) -> anyhow::Result<()> {
    let store = open(&args.store).await?;
    check_destination(&args.store, &store, args.destination.as_deref()).await?;
    let action = if args.number.is_some() { "delivery-retried" } else { "deliveries-retried" };
    let detail = json!({ "delivery": args.number, "destination": args.destination });
    let store = witnessed(&store, action, None, (args.by.as_deref(), detail));
    let revived = store.retry_deliveries(args.number, args.destination.as_deref(), ichor_pipeline::now()).await?;
    if json {
        println!("{}", json!({ "queued": revived }));
    } else {
        println!("{revived} {} queued again", if revived == 1 { "delivery is" } else { "deliveries are" });
    }
    Ok(())
}

/// Refuses a destination that is neither configured nor in the outbox: an empty list would say that all is well.
async fn check_destination(args: &StoreArg, store: &Store, asked: Option<&str>) -> anyhow::Result<()> {
    let Some(asked) = asked else { return Ok(()) };
    let config = Config::load(&args.config)?;
    let queued = store.queue_depths().await?.into_iter().map(|depth| depth.destination);
    let configured = config.destinations.into_iter().map(|destination| destination.name);
    let known: BTreeSet<String> = configured.chain(queued).collect();
    let names = if known.is_empty() { "there is none".to_owned() } else { Vec::from_iter(known.clone()).join(", ") };
    anyhow::ensure!(known.contains(asked), "there is no destination {asked:?}; known: {names}");
    Ok(())
}

fn row(cells: [&str; 7]) -> String {
    let [number, queued, status, attempts, destination, kind, study] = cells;
    format!("{number:>8}  {queued:<19}  {status:<9}  {attempts:>8}  {destination:<16}  {kind:<12}  {study}")
}

fn line(delivery: &DeliverySummary) -> String {
    let cells = row([
        &delivery.id.to_string(),
        &clock(delivery.queued_at),
        delivery.status.as_str(),
        &delivery.attempts.to_string(),
        &delivery.destination,
        &delivery.kind,
        delivery.study_instance.as_str(),
    ]);
    match &delivery.last_words {
        Some(words) => format!("{cells}\n          {words}"),
        None => cells,
    }
}

fn described(state: &DestinationState, depths: &[QueueDepth]) -> String {
    let mut text = format!("{:<16}  {}", state.name, if state.is_up { "up" } else { "DOWN" });
    if !state.is_up {
        text += &format!(" since {}, {} attempts", clock(state.since), state.failures);
        if let Some(next) = state.next_probe {
            text += &format!(", next at {}", clock(next));
        }
    }
    let of_it: Vec<String> = (depths.iter().filter(|depth| depth.destination == state.name))
        .map(|depth| format!("{} {}", depth.count, depth.status))
        .collect();
    text += &format!("  ({})", if of_it.is_empty() { "empty".to_owned() } else { of_it.join(", ") });
    if let Some(words) = &state.last_words {
        text += &format!("\n  {words}");
    }
    for (context, until) in &state.refused {
        let (class, syntax) = (&context.sop_class, &context.transfer_syntax);
        text += &format!("\n  does not accept {class} in {syntax}; proposed again at {}", clock(*until));
    }
    text
}
