//! `ichor route test`: which rule fires, and why each before it does not.

use anyhow::Context;
use ichor_pipeline::route::{self, Facts, Outcome, Routing};
use ichor_store::StudyKey;
use serde_json::json;

use super::job_log::open;
use crate::cli::{RouteTestArgs, StoreArg};
use crate::config::Config;

/// `ichor route test`
pub(crate) async fn test(args: RouteTestArgs, json: bool) -> anyhow::Result<()> {
    let config = Config::load(&args.store.config)?;
    let rules = config.rules.iter().map(|rule| rule.rule(&config.time_zone)).collect::<Result<Vec<_>, _>>();
    let rules = rules.map_err(|(key, message)| anyhow::anyhow!("{key}: {message}"))?;
    let mut asked = Asked::of(&args).await?;
    if let Some(source) = &args.source {
        asked.source = Some(source.to_string());
    }
    asked.outcome = args.verdict.map(Outcome::from).or(asked.outcome);
    asked.reason = args.reason.clone().or(asked.reason);
    let facts = Facts {
        source: asked.source.as_deref(),
        instance: asked.instance.as_ref(),
        outcome: asked.outcome,
        reason: asked.reason.as_deref(),
        now: ichor_pipeline::now(),
    };
    let routing = route::route(&rules, &facts);
    let gets = gets(&config, &routing)?;
    let forwards = crate::destinations::forward_options(&config)?.rules;
    // What is forwarded is decided when a study closes: its outcome is not known then.
    let forwarding = route::route(&forwards, &Facts { outcome: None, reason: None, ..facts });
    let goes_on = forwarding.fired.and_then(|rule| rule.destinations.clone()).unwrap_or_default();
    if json {
        let passed_over: Vec<_> =
            routing.passed_over.iter().map(|(rule, why)| json!({ "rule": rule.name, "why_not": why })).collect();
        let fired = routing.fired.map(|rule| &rule.name);
        println!(
            "{}",
            json!({ "fired": fired, "passed_over": passed_over, "destinations": gets,
            "forward": { "fired": forwarding.fired.map(|rule| &rule.name), "destinations": goes_on } })
        );
        return Ok(());
    }
    for (rule, why) in &routing.passed_over {
        println!("{:<20}  no: {why}", rule.name);
    }
    match routing.fired {
        Some(rule) => println!("{:<20}  fires", rule.name),
        None => println!("no rule fires: every destination gets what it asks for"),
    }
    for (destination, objects) in &gets {
        println!("  {destination}: {}", objects.join(", "));
    }
    if gets.is_empty() {
        println!("  nothing goes anywhere");
    }
    match routing.fired.and_then(|rule| rule.urgent) {
        Some(true) => println!("  before others"),
        Some(false) => println!("  with others"),
        None => {}
    }
    for (rule, why) in &forwarding.passed_over {
        println!("{:<20}  does not forward: {why}", rule.name);
    }
    if let Some(rule) = forwarding.fired {
        println!("{:<20}  forwards what was received: {}", rule.name, goes_on.join(", "));
    }
    Ok(())
}

/// What is known of the study.
#[derive(Default)]
struct Asked {
    source: Option<String>,
    instance: Option<dicom_object::DefaultDicomObject>,
    outcome: Option<Outcome>,
    reason: Option<String>,
}

impl Asked {
    /// From a DICOM file, if there is one of this name, else from the job log.
    async fn of(args: &RouteTestArgs) -> anyhow::Result<Self> {
        let file = std::path::Path::new(&args.target);
        let read = |path: &std::path::Path| {
            route::read_instance(path).map_err(|message| anyhow::anyhow!("{}: {message}", path.display()))
        };
        if file.is_file() {
            return Ok(Self { instance: Some(read(file)?), ..Self::default() });
        }
        let store = open(&StoreArg { config: args.store.config.clone() }).await?;
        let study = store.study(&StudyKey::parse(&args.target)).await;
        let study = study.with_context(|| format!("{:?} is neither a file nor a study", args.target))?.summary;
        let outcome = match (study.positive, &study.reason) {
            (Some(true), _) => Some(Outcome::Positive),
            (Some(false), _) => Some(Outcome::Negative),
            (None, Some(_)) => Some(Outcome::NotAnalysed),
            (None, None) => None,
        };
        let first = store.first_instance(&study.study_instance).await?;
        Ok(Self {
            source: study.source_ae,
            instance: first.as_deref().map(read).transpose()?,
            outcome,
            reason: study.reason.map(|reason| reason.code.as_str().to_owned()),
        })
    }
}

/// Destinations with the names of the objects that they get, if the verdict suits these.
fn gets(config: &Config, routing: &Routing<'_>) -> anyhow::Result<Vec<(String, Vec<&'static str>)>> {
    let mut gets = Vec::new();
    for section in &config.destinations {
        let asks = section.objects().map_err(|message| anyhow::anyhow!("destination {:?}: {message}", section.name))?;
        let narrowed = routing.fired.map_or_else(|| Some(asks.clone()), |rule| rule.narrow(&asks));
        if let Some(narrowed) = narrowed {
            gets.push((narrowed.name, narrowed.objects.iter().map(|kind| kind.name()).collect()));
        }
    }
    Ok(gets)
}
