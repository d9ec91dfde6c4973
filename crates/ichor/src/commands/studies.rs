//! `ichor studies`: the admin queries over the job log.

use std::collections::BTreeSet;

use anyhow::Context;
use ichor_core::{DeliveryStatus, RuleOutcome};
use ichor_pipeline::order::OrderOptions;
use ichor_store::{
    DeliveryDetail, RetryOutcome, Store, StudyDetail, StudyFilter, StudyKey, StudyOrder, StudySummary, Timestamp,
    WaitingAnalysis,
};
use serde_json::json;

use super::job_log::{clock, open};
use super::witness::witnessed;
use crate::cli::{HoldArgs, ListArgs, QueueArgs, StudyArgs, StudyChangeArgs};
use crate::config::{Config, seconds};

/// Places of the queue of analyses that are looked at.
const LONGEST_QUEUE: u32 = 10_000;

/// One study by its UID, the UID's beginning, or its accession number.
async fn find(store: &Store, text: &str) -> anyhow::Result<StudyDetail> {
    store.study(&StudyKey::parse(text)).await.with_context(|| format!("study {text:?}"))
}

/// `ichor studies list`
pub(crate) async fn list(args: ListArgs, json: bool) -> anyhow::Result<()> {
    let filter = StudyFilter {
        date_from: args.from.as_deref().map(date).transpose().context("--from")?,
        date_to: args.to.as_deref().map(date).transpose().context("--to")?,
        patient_id: args.patient.clone(),
        patient_name: args.name.clone(),
        study_instance: args.study.clone(),
        reason: args.reason.clone(),
        mark: args.mark,
        order: if args.by_priority { StudyOrder::Priority } else { StudyOrder::Time },
        accession_number: args.accession.clone(),
        status: args.status,
        positive: args.positive,
        source_ae: args.source.clone(),
        limit: args.limit,
        ..StudyFilter::default()
    };
    let store = open(&args.store).await?;
    let page = store.studies(&filter).await?;
    if page.items.is_empty() {
        check_names(&args, &store).await?;
    }
    if json {
        println!("{}", serde_json::to_string(&page.items)?);
        return Ok(());
    }
    println!("{}", row(["last instance", "status", "verdict", "prob", "mL", "source", "accession", "study"]));
    for study in &page.items {
        println!("{}", line(study));
    }
    if page.items.is_empty() {
        println!("no study matches");
    } else if page.next.is_some() {
        println!("… more; narrow the filter or raise --limit");
    }
    Ok(())
}

/// An empty list is no answer to a question with a slip of the pen in it: a source that nobody knows is refused, and a reason that
/// no study has is named with those that there are.
async fn check_names(args: &ListArgs, store: &Store) -> anyhow::Result<()> {
    if let Some(source) = &args.source {
        let config = Config::load(&args.store.config)?;
        let mut known: BTreeSet<String> = store.known_sources().await?.into_iter().collect();
        known.extend(config.sources.iter().filter_map(|source| source.ae_title.as_ref()).map(ToString::to_string));
        known.extend(
            config.dicomweb.iter().flat_map(|dicomweb| &dicomweb.clients).map(|client| client.name.to_string()),
        );
        let names =
            if known.is_empty() { "there is none".to_owned() } else { Vec::from_iter(known.clone()).join(", ") };
        anyhow::ensure!(known.contains(source.as_str()), "there is no source {:?}; known: {names}", source.as_str());
    }
    if let Some(reason) = &args.reason {
        let known = store.known_reasons().await?;
        if !known.contains(reason) {
            let names = if known.is_empty() { "there is none".to_owned() } else { known.join(", ") };
            eprintln!("ichor: no study has the reason {reason:?}; reasons in the job log: {names}");
        }
    }
    Ok(())
}

/// A date of the command line as the store keeps it, YYYYMMDD.
fn date(text: &str) -> anyhow::Result<String> {
    ichor_store::study_day(text).with_context(|| format!("{text:?} is no day of the form YYYYMMDD or YYYY-MM-DD"))
}

fn row(cells: [&str; 8]) -> String {
    let [at, status, verdict, probability, volume, source, accession, study] = cells;
    format!(
        "{at:<19}  {status:<12}  {verdict:<8}  {probability:>5}  {volume:>6}  {source:<16}  {accession:<16}  {study}"
    )
}

fn line(study: &StudySummary) -> String {
    let verdict = match study.positive {
        Some(true) => "POSITIVE",
        Some(false) => "negative",
        None if study.alerted_at.is_some() => "ALERT",
        None => "",
    };
    let number = |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
    row([
        &clock(study.last_instance_at),
        study.status.as_str(),
        verdict,
        &number(study.probability, 2),
        &number(study.volume_ml, 1),
        study.source_ae.as_deref().unwrap_or(""),
        study.accession_number.as_deref().unwrap_or(""),
        study.study_instance.as_str(),
    ])
}

/// `ichor studies show`
pub(crate) async fn show(args: StudyArgs, json: bool) -> anyhow::Result<()> {
    let study = find(&open(&args.store).await?, &args.study).await?;
    if json {
        println!("{}", serde_json::to_string(&study)?);
        return Ok(());
    }
    let summary = &study.summary;
    println!("study      {}", summary.study_instance);
    let field = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            println!("{name:<10} {value}");
        }
    };
    field("patient", summary.patient_id.as_deref());
    let told = summary.accession_source.as_ref().map_or_else(String::new, |peer| format!(" (told by {peer})"));
    field("accession", summary.accession_number.as_ref().map(|number| format!("{number}{told}")).as_deref());
    field("date", summary.study_date.as_deref());
    field("source", summary.source_ae.as_deref());
    println!("status     {} (version {})", summary.status, summary.version);
    field("instances", completeness(summary).as_deref());
    if let Some(reason) = &summary.reason {
        println!("because    {reason}");
    }
    if let Some(model) = &summary.model {
        println!("model      {model}");
    }
    if let (Some(positive), Some(probability)) = (summary.positive, summary.probability) {
        let verdict = if positive { "POSITIVE" } else { "negative" };
        let spread = summary.volume_sd_ml.map_or_else(String::new, |sd| format!(" ± {sd:.1}"));
        let volume = summary.volume_ml.unwrap_or(0.0);
        println!("verdict    {verdict}, probability {probability:.3}, {volume:.1}{spread} mL");
    }
    if let Some(at) = summary.alerted_at {
        println!("alert      {}, before the study was complete", clock(at));
    }
    print_kept(summary);
    println!("\nseries");
    for series in &study.series {
        let outcome = match series.chosen {
            Some(true) => "analysed",
            Some(false) => "set aside",
            None => "-",
        };
        let modality = series.modality.as_deref().unwrap_or("?");
        println!("  {outcome:<9}  {modality:<4} {:>5} instances  {}", series.instances, series.series_instance);
        for reason in &series.reasons {
            println!("             {reason}");
        }
        print_rules(&series.rules, "             ");
    }
    println!("\nslices by probability");
    let mut slices: Vec<_> = study.slices.iter().collect();
    slices.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    for slice in slices.iter().take(10) {
        let frame = slice.frame.map_or_else(String::new, |frame| format!(" frame {frame}"));
        println!("  {:.3}  {:>7} pixels  {}{frame}", slice.probability, slice.masked_pixels, slice.sop_instance);
    }
    println!("\nobjects and deliveries");
    for object in &study.objects {
        let kept = object.removed_at.map_or("", |_| ", no longer kept");
        println!("  {} {} ({} bytes{kept})", object.kind, object.sop_instance, object.size);
        for delivery in study.deliveries.iter().filter(|d| d.sop_instance == object.sop_instance) {
            let last = delivery.last_words.as_deref().unwrap_or("");
            println!("    {:<12} {:<9} {} attempts  {last}", delivery.destination, delivery.status, delivery.attempts);
        }
    }
    Ok(())
}

/// How many instances are here, if a peer says how many there should be.
fn completeness(study: &StudySummary) -> Option<String> {
    let expected = study.expected_instances?;
    Some(format!("{} of {} expected", study.instances, expected.max(study.instances)))
}

/// What is on hold, and what is no longer kept.
fn print_kept(study: &StudySummary) {
    if let Some(at) = study.held_at {
        println!("on hold    since {}: {}", clock(at), study.hold_reason.as_deref().unwrap_or(""));
    }
    for (what, at) in [("received files", study.pixels_removed_at), ("results", study.results_removed_at)] {
        if let Some(at) = at {
            println!("gone       {what} are no longer kept, since {}", clock(at));
        }
    }
}

/// What each rule of the gate said.
fn print_rules(rules: &[RuleOutcome], indent: &str) {
    for rule in rules {
        println!("{indent}{:<9}  {:<18}  {}", rule.verdict, rule.rule, rule.text);
    }
}

/// `ichor studies why`
pub(crate) async fn why(args: StudyArgs, json: bool) -> anyhow::Result<()> {
    let store = open(&args.store).await?;
    let study = find(&store, &args.study).await?;
    let events = store.timeline(&study.summary.study_instance).await?;
    if json {
        println!("{}", json!({ "study": study.summary, "series": study.series, "timeline": events }));
        return Ok(());
    }
    println!("study {} is {}", study.summary.study_instance, study.summary.status);
    if let Some(reason) = &study.summary.reason {
        println!("because {reason}");
    }
    if let Some(instances) = completeness(&study.summary) {
        println!("instances {instances}");
    }
    print_kept(&study.summary);
    println!();
    let first = events.first().map(|event| event.at);
    for event in &events {
        let offset = first.map_or(0, |first| event.at.as_millis() - first.as_millis());
        println!("{}  {:>+9.3} s  {:<20}  {}", clock(event.at), offset as f64 / 1000.0, event.kind, event.text);
    }
    print_place(&store, &args, &study).await?;
    print_unfinished(&store, &study).await?;
    for series in study.series.iter().filter(|series| !series.rules.is_empty()) {
        println!("\nthe gate on series {}", series.series_instance);
        print_rules(&series.rules, "  ");
    }
    Ok(())
}

/// Where a study that waits for its analysis stands in the queue.
async fn print_place(store: &Store, args: &StudyArgs, study: &StudyDetail) -> anyhow::Result<()> {
    if study.summary.status != ichor_core::StudyStatus::Queued {
        return Ok(());
    }
    let (config, now) = (Config::load(&args.store.config)?, ichor_pipeline::now());
    let order = OrderOptions { rules: Vec::new(), longest_overtaken: seconds(config.analysis.longest_overtaken_s) };
    let overdue = order.overdue(now);
    let queue = store.analysis_queue(overdue, LONGEST_QUEUE, now).await?;
    let place = queue.iter().filter(|other| !other.is_running);
    for (number, analysis) in place.enumerate() {
        if analysis.study_instance == study.summary.study_instance {
            println!("\nanalysis waits at place {} of the queue: {}", number + 1, why_now(analysis, overdue, now));
        }
    }
    Ok(())
}

/// What is not through yet, and what its destination waits for.
async fn print_unfinished(store: &Store, study: &StudyDetail) -> anyhow::Result<()> {
    let states = store.destinations(ichor_pipeline::now()).await?;
    let is_open = |delivery: &&DeliveryDetail| {
        let waits =
            !matches!(delivery.status, DeliveryStatus::Accepted | DeliveryStatus::Committed | DeliveryStatus::Visible);
        waits || delivery.proof_due.is_some()
    };
    // Received instances that are forwarded are many, and fare alike.
    let mut open: Vec<(&DeliveryDetail, usize)> = Vec::new();
    for delivery in study.deliveries.iter().filter(is_open) {
        let fate = |one: &DeliveryDetail| {
            (one.kind.clone(), one.destination.clone(), one.status, one.proof_due.clone(), one.last_words.clone())
        };
        match open.iter_mut().find(|(known, _)| fate(known) == fate(delivery)) {
            Some((_, count)) => *count += 1,
            None => open.push((delivery, 1)),
        }
    }
    if !open.is_empty() {
        println!("\nnot through yet");
    }
    for (delivery, count) in open {
        let times = if count == 1 { String::new() } else { format!("{count} times ") };
        let due = delivery.proof_due.as_deref().map_or_else(String::new, |proof| format!(", {proof} is due"));
        let words = delivery.last_words.as_deref().unwrap_or("");
        println!("  {times}{} for {}: {}{due}  {words}", delivery.kind, delivery.destination, delivery.status);
        if let Some(state) = states.iter().find(|state| state.name == delivery.destination && !state.is_up) {
            let why = state.last_words.as_deref().unwrap_or("");
            println!("    {} is down since {}, {} attempts: {why}", state.name, clock(state.since), state.failures);
        }
    }
    Ok(())
}

/// `ichor studies retry`
pub(crate) async fn retry(args: StudyChangeArgs, json: bool) -> anyhow::Result<()> {
    let StudyChangeArgs { study: args, by } = args;
    let store = open(&args.store).await?;
    let study = find(&store, &args.study).await?.summary.study_instance;
    let store = witnessed(&store, "study-retried", Some(&study), (by.as_deref(), json!({})));
    let outcome: RetryOutcome = store.retry(&study, ichor_pipeline::now()).await?;
    if json {
        println!("{}", json!({ "study": study, "outcome": outcome }));
    } else {
        println!("{outcome}");
    }
    anyhow::ensure!(!matches!(outcome, RetryOutcome::PixelsRemoved { .. }), "study {study} is not analysed anew");
    Ok(())
}

/// `ichor studies queue`
pub(crate) async fn queue(args: QueueArgs, json: bool) -> anyhow::Result<()> {
    let config = Config::load(&args.store.config)?;
    let now = ichor_pipeline::now();
    let order = OrderOptions { rules: Vec::new(), longest_overtaken: seconds(config.analysis.longest_overtaken_s) };
    let overdue = order.overdue(now);
    let waiting = open(&args.store).await?.analysis_queue(overdue, args.limit, now).await?;
    if json {
        println!("{}", serde_json::to_string(&waiting)?);
        return Ok(());
    }
    for analysis in &waiting {
        let state = if analysis.is_running { "analysing" } else { "queued" };
        let (since, study, why) =
            (clock(analysis.queued_at), &analysis.study_instance, why_now(analysis, overdue, now));
        println!("{state:<9}  {since}  {study}  {why}");
    }
    if waiting.is_empty() {
        println!("nothing waits for its analysis");
    }
    Ok(())
}

/// Why an analysis has its place in the queue.
fn why_now(analysis: &WaitingAnalysis, overdue: Timestamp, now: Timestamp) -> String {
    let mut why = Vec::new();
    if let Some(rule) = &analysis.urgent_by {
        why.push(format!("urgent by rule {rule:?}"));
    }
    if analysis.alerted_at.is_some() {
        why.push("alerted".to_owned());
    }
    if analysis.queued_at <= overdue {
        why.push("has waited long".to_owned());
    }
    if analysis.not_before > now {
        why.push(format!("next attempt at {}", clock(analysis.not_before)));
    }
    if why.is_empty() { "routine".to_owned() } else { why.join(", ") }
}

/// `ichor studies hold`
pub(crate) async fn hold(args: HoldArgs, json: bool) -> anyhow::Result<()> {
    anyhow::ensure!(!args.reason.trim().is_empty(), "--reason: say why, so that somebody dares to release it");
    let store = open(&args.study.study.store).await?;
    let study = find(&store, &args.study.study.study).await?.summary.study_instance;
    let detail = (args.study.by.as_deref(), json!({ "reason": args.reason.trim() }));
    let store = witnessed(&store, "study-held", Some(&study), detail);
    let changed = store.hold(&study, &args.reason, ichor_pipeline::now()).await?;
    say_hold(&study, changed, true, json);
    Ok(())
}

/// `ichor studies release-hold`
pub(crate) async fn release_hold(args: StudyChangeArgs, json: bool) -> anyhow::Result<()> {
    let StudyChangeArgs { study: args, by } = args;
    let store = open(&args.store).await?;
    let study = find(&store, &args.study).await?.summary.study_instance;
    let store = witnessed(&store, "study-hold-released", Some(&study), (by.as_deref(), json!({})));
    let changed = store.release_hold(&study, ichor_pipeline::now()).await?;
    say_hold(&study, changed, false, json);
    Ok(())
}

fn say_hold(study: &ichor_core::Uid, changed: bool, held: bool, json: bool) {
    if json {
        println!("{}", json!({ "study": study, "held": held, "changed": changed }));
        return;
    }
    println!(
        "{}",
        match (held, changed) {
            (true, true) => "on hold: nothing of it goes until the hold is released",
            (true, false) => "it was on hold already; its reason stays",
            (false, true) => "the hold is released",
            (false, false) => "it was not on hold",
        }
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date("2026-03-01").unwrap(), "20260301");
        assert_eq!(date("20260301").unwrap(), "20260301");
        assert!(date("March").is_err() && date("2026-13-01").is_err());
    }
}
