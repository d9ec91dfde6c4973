//! `ichor model list | activate | rollback | agreement`, and `ichor studies reanalyse`.

use std::time::Duration;

use anyhow::Context;
use ichor_core::{ActivationStatus, Agreement, ModelId, OfferState, Zone};
use ichor_pipeline::now;
use ichor_store::{Activation, AgreementReport, Offer, ReanalysisWish, RetryOutcome, Store, StudyKey, Timestamp};
use serde_json::json;

use super::job_log::{clock, open};
use super::witness::{who, witnessed};
use crate::cli::ReanalyseArgs;
use crate::cli::models::{ActivateArgs, AgreementArgs, ModelListArgs, RollbackArgs, StoreModelCommand, WordArgs};
use crate::config::Config;

/// Time between two looks at what became of a request.
const LOOK: Duration = Duration::from_millis(200);

/// What needs the job log only.
pub(crate) async fn run(command: StoreModelCommand, json: bool) -> anyhow::Result<()> {
    match command {
        StoreModelCommand::List(args) => list(args, json).await,
        StoreModelCommand::Activate(args) => activate(args, json).await,
        StoreModelCommand::Rollback(args) => rollback(args, json).await,
        StoreModelCommand::Agreement(args) => agreement(args, json).await,
    }
}

async fn list(args: ModelListArgs, json: bool) -> anyhow::Result<()> {
    let store = open(&args.store).await?;
    let (offers, active, history) =
        (store.offers().await?, store.active_model().await?, store.activations(args.limit).await?);
    if json {
        println!("{}", json!({ "offered": offers, "active": active, "history": history }));
        return Ok(());
    }
    let active = active.map(|activation| activation.model);
    for offer in &offers {
        println!("{}", offered(offer, active.as_ref()));
    }
    if offers.is_empty() {
        println!("the daemon has not run yet");
    }
    if let Some(missing) = active.filter(|id| !offers.iter().any(|offer| offer.model.as_ref() == Some(id))) {
        println!("MISSING   {missing} was chosen to be the active one and is not configured: studies wait");
    }
    println!("\nhistory");
    for entry in &history {
        println!("{}", line(entry));
    }
    Ok(())
}

fn offered(offer: &Offer, active: Option<&ModelId>) -> String {
    let role = match offer.state {
        OfferState::Failed => "FAILED",
        _ if offer.model.is_some() && offer.model.as_ref() == active => "active",
        OfferState::Ready => "shadow",
        OfferState::Waiting => "waiting",
    };
    let name = offer.model.as_ref().map_or(offer.weights.as_str(), ModelId::as_str);
    format!("{role:<8}  {name}  {}", offer.words)
}

fn line(entry: &Activation) -> String {
    let from = entry.from_at.unwrap_or(entry.requested_at);
    let until = entry.until_at.map_or_else(|| " ".repeat(19), clock);
    let words = entry.words.as_deref().map_or_else(String::new, |words| format!(" ({words})"));
    let Activation { model, kind, status, actor, why, .. } = entry;
    format!("{}  {until}  {status:<9}  {kind:<11}  {model}  by {actor}: {why}{words}", clock(from))
}

async fn activate(args: ActivateArgs, json: bool) -> anyhow::Result<()> {
    let store = open(&args.store).await?;
    let (by, why) = word(&args.word)?;
    let model = store.offered_model(&args.model).await?;
    let detail = json!({ "model": model, "why": why });
    let store = witnessed(&store, "model-activation-requested", None, (Some(by.as_str()), detail));
    let requested = store.request_model(&model, &by, &why, now()).await?;
    outcome(&store, requested, args.word.wait, json).await
}

async fn rollback(args: RollbackArgs, json: bool) -> anyhow::Result<()> {
    let store = open(&args.store).await?;
    let (by, why) = word(&args.word)?;
    let store = witnessed(&store, "model-rollback-requested", None, (Some(by.as_str()), json!({ "why": why })));
    let requested = store.request_rollback(&by, &why, now()).await?;
    outcome(&store, requested, args.word.wait, json).await
}

fn word(word: &WordArgs) -> anyhow::Result<(String, String)> {
    Ok((who(word.by.as_deref()), reason(&word.why)?))
}

pub(super) fn reason(why: &str) -> anyhow::Result<String> {
    let why = why.trim();
    anyhow::ensure!(!why.is_empty() && why.chars().count() <= 500, "--why is 1 to 500 characters");
    Ok(why.to_owned())
}

/// Waits for the daemon's answer.
async fn outcome(store: &Store, requested: Activation, wait: u64, json: bool) -> anyhow::Result<()> {
    let limit = tokio::time::Instant::now() + Duration::from_secs(wait);
    let mut seen = requested;
    while seen.status == ActivationStatus::Requested && tokio::time::Instant::now() < limit {
        tokio::time::sleep(LOOK).await;
        seen = store.activation(seen.id).await?;
    }
    if json {
        println!("{}", serde_json::to_string(&seen)?);
    }
    let Activation { model, words, .. } = &seen;
    let said = match seen.status {
        ActivationStatus::Refused => {
            anyhow::bail!("{model} does not become active: {}", words.as_deref().unwrap_or(""))
        }
        ActivationStatus::Requested => {
            format!("{model} is asked for; no daemon has answered in {wait} s, the next takes it up")
        }
        ActivationStatus::Active | ActivationStatus::Former => format!("{model} is the active model"),
    };
    if !json {
        println!("{said}");
    }
    Ok(())
}

async fn agreement(args: AgreementArgs, json: bool) -> anyhow::Result<()> {
    let store = open(&args.store).await?;
    let zone = Config::load(&args.store.config)?.time_zone;
    let since = args.since.as_deref().map(|text| day(text, &zone)).transpose().context("--since")?;
    let since = since.unwrap_or(Timestamp::from_millis(0));
    let models = match &args.model {
        Some(text) => vec![store.offered_model(text).await?],
        None => {
            let active = store.active_model().await?.map(|activation| activation.model);
            let offered = store.offers().await?.into_iter().filter_map(|offer| offer.model);
            offered.filter(|id| Some(id) != active.as_ref()).collect()
        }
    };
    let mut reports = Vec::with_capacity(models.len());
    for model in &models {
        reports.push(store.agreement(model, since).await?);
    }
    if json {
        println!("{}", serde_json::to_string(&reports)?);
        return Ok(());
    }
    if reports.is_empty() {
        println!("there is no model beside the active one");
    }
    reports.iter().for_each(print_report);
    Ok(())
}

/// The beginning of a day in a zone.
fn day(text: &str, zone: &Zone) -> anyhow::Result<Timestamp> {
    let day = ichor_store::study_day(text)
        .with_context(|| format!("{text:?} is no day of the form YYYYMMDD or YYYY-MM-DD"))?;
    zone.beginning_of(&day).map(Timestamp::from_millis).with_context(|| format!("{text:?} is no day"))
}

fn print_report(report: &AgreementReport) {
    let active = report.active.as_ref().map_or("none", ModelId::as_str);
    println!("{} in the shadow of {active}", report.model);
    print_agreement(&report.agreement);
    println!("  not analysed by it {}, given up {}", report.not_analysed, report.failed);
    if report.sources.len() > 1 {
        for source in &report.sources {
            println!("\n  from {}", source.source_ae.as_deref().unwrap_or("(unnamed)"));
            print_agreement(&source.agreement);
        }
    }
    if !report.disagreements.is_empty() {
        println!("\n  studies that they disagree on (active, shadow)");
    }
    for one in &report.disagreements {
        let verdict = |is_positive| if is_positive { "positive" } else { "negative" };
        println!(
            "    {:<8} {:.3}  {:<8} {:.3}  {} version {}",
            verdict(one.active.is_positive()),
            one.active.probability,
            verdict(one.other.is_positive()),
            one.other.probability,
            one.study_instance,
            one.version
        );
    }
}

fn print_agreement(agreement: &Agreement) {
    let share = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
    println!("  studies              {}", agreement.studies);
    println!("                       shadow positive  shadow negative");
    println!("  active positive      {:>15}  {:>15}", agreement.both_positive, agreement.only_active);
    println!("  active negative      {:>15}  {:>15}", agreement.only_other, agreement.both_negative);
    match agreement.kappa {
        Some(kappa) => {
            println!("  Cohen's kappa        {:.3} (95 %: {:.3} to {:.3})", kappa.value, kappa.low, kappa.high)
        }
        None => println!("  Cohen's kappa        -"),
    }
    println!("  positive agreement   {}", share(agreement.positive_agreement));
    println!("  negative agreement   {}", share(agreement.negative_agreement));
    println!("  |Δ probability|      {}", share(agreement.probability_difference));
    if let Some(volume) = agreement.volume {
        let (mean, low, high) = (volume.mean_ml, volume.low_ml, volume.high_ml);
        println!("  Δ volume             {mean:+.1} mL, limits {low:+.1} to {high:+.1} mL, {} studies", volume.studies);
    }
    if let Some(dice) = agreement.dice {
        println!(
            "  Dice of masks        mean {:.3}, median {:.3}, lowest {:.3}, {} studies",
            dice.mean, dice.median, dice.lowest, dice.studies
        );
    }
}

/// `ichor studies reanalyse`
pub(crate) async fn reanalyse(args: ReanalyseArgs, json: bool) -> anyhow::Result<()> {
    let store = open(&args.store).await?;
    let found = store.study(&StudyKey::parse(&args.study)).await.with_context(|| format!("study {:?}", args.study))?;
    let study = found.summary.study_instance;
    let (model, actor, why) = (store.offered_model(&args.model).await?, who(args.by.as_deref()), reason(&args.why)?);
    let detail = json!({ "model": model, "why": why });
    let store = witnessed(&store, "study-reanalysed", Some(&study), (Some(actor.as_str()), detail));
    let outcome =
        store.reanalyse(&ReanalysisWish { study: study.clone(), model: model.clone(), actor, why }, now()).await?;
    if json {
        println!("{}", json!({ "study": study, "model": model, "outcome": outcome }));
    } else {
        println!("{outcome}");
    }
    anyhow::ensure!(matches!(outcome, RetryOutcome::Queued { .. }), "study {study} is not analysed anew");
    Ok(())
}
