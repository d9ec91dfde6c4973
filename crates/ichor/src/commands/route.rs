//! `ichor route test`: which rule fires, and why each before it does not.

use std::net::IpAddr;

use anyhow::Context;
use ichor_core::Zone;
use ichor_pipeline::deliver::Hours;
use ichor_pipeline::forward::Decision;
use ichor_pipeline::route::{self, Facts, Outcome, Routing};
use ichor_store::{StudyKey, Timestamp};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::job_log::{clock, open};
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
    asked.address = args.address.or(asked.address);
    let now = ichor_pipeline::now();
    let at = args.at.as_deref().map_or(Ok(now), |text| moment(text, now, &config.time_zone)).context("--at")?;
    let facts = Facts {
        source: asked.source.as_deref(),
        instance: asked.instance.as_ref(),
        outcome: asked.outcome,
        reason: asked.reason.as_deref(),
        now: at,
    };
    let routing = route::route(&rules, &facts);
    let gets = gets(&config, &routing)?;
    let forwards = crate::destinations::forward_options(&config)?;
    // What is forwarded is decided when a study closes: its outcome is not known then.
    let forwarding = forwards.decide(&Facts { outcome: None, reason: None, ..facts }, asked.address);
    if json {
        let passed_over: Vec<_> =
            routing.passed_over.iter().map(|(rule, why)| json!({ "rule": rule.name, "why_not": why })).collect();
        let fired = routing.fired.map(|rule| &rule.name);
        println!(
            "{}",
            json!({ "at": at, "fired": fired, "passed_over": passed_over, "destinations": gets,
            "forward": { "fired": forwarding.routing.fired.map(|rule| &rule.name), "destinations": forwarding.on,
                "not_back_to": forwarding.back } })
        );
        return Ok(());
    }
    let minute = config.time_zone.minute_of_day(at.as_millis());
    println!("asked for {} UTC, {:02}:{:02} in {}", clock(at), minute / 60, minute % 60, config.time_zone);
    for (rule, why) in &routing.passed_over {
        println!("{:<20}  no: {why}", rule.name);
    }
    match routing.fired {
        Some(rule) => println!("{:<20}  fires", rule.name),
        None => println!("no rule fires: every destination gets what it asks for"),
    }
    for (destination, objects) in &gets {
        let waits = waits_for(&config, destination, &facts)?.map(|hours| format!("  (waits for {hours})"));
        println!("  {destination}: {}{}", objects.join(", "), waits.unwrap_or_default());
    }
    if gets.is_empty() {
        println!("  nothing goes anywhere");
    }
    match routing.fired.and_then(|rule| rule.urgent) {
        Some(true) => println!("  before others"),
        Some(false) => println!("  with others"),
        None => {}
    }
    print_forwarding(&forwarding);
    Ok(())
}

/// What goes on as it was received, by the decision that the daemon makes.
fn print_forwarding(Decision { routing, on, back }: &Decision<'_>) {
    for (rule, why) in &routing.passed_over {
        println!("{:<20}  does not forward: {why}", rule.name);
    }
    if let Some(rule) = routing.fired {
        let on = if on.is_empty() { "to nobody".to_owned() } else { on.join(", ") };
        println!("{:<20}  forwards what was received: {on}", rule.name);
    }
    if !back.is_empty() {
        println!("  not to {}, which would be back to its sender", back.join(", "));
    }
}

/// A moment of the command line: an hour of this day by the site's clock, or a whole one with its offset.
fn moment(text: &str, now: Timestamp, zone: &Zone) -> anyhow::Result<Timestamp> {
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(Timestamp::from_millis(moment.unix_timestamp() * 1000));
    }
    let moment = text.split_once(':').and_then(|(hour, minute)| {
        let is_plain = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        let number = |part: &str| part.parse::<u8>().ok().filter(|_| is_plain(part));
        zone.on_the_day_of(now.as_millis(), number(hour)?, number(minute)?)
    });
    let moment = moment.with_context(|| format!("{text:?} is neither HH:MM nor such as 2026-03-01T22:15:00+01:00"))?;
    Ok(Timestamp::from_millis(moment))
}

/// What is known of the study.
#[derive(Default)]
struct Asked {
    source: Option<String>,
    address: Option<IpAddr>,
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
            address: store.source_address(&study.study_instance).await?,
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

/// The hours that a destination waits for at that moment; what is positive waits for none.
fn waits_for(config: &Config, destination: &str, facts: &Facts<'_>) -> anyhow::Result<Option<Hours>> {
    let Some(section) = config.destinations.iter().find(|section| section.name == destination) else { return Ok(None) };
    let flow =
        section.flow(&config.time_zone).map_err(|message| anyhow::anyhow!("destination {destination:?}: {message}"))?;
    let is_urgent = facts.outcome == Some(Outcome::Positive);
    Ok(flow.hours.filter(|hours| !is_urgent && !hours.are_open(facts.now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let (day, minute) = (86_400_000, 60_000);
        let now = Timestamp::from_millis(20_000 * day + 13 * 60 * minute + 7);
        let at = |text: &str| moment(text, now, &Zone::UTC).map(Timestamp::as_millis);
        assert_eq!(at("00:00").unwrap(), 20_000 * day);
        assert_eq!(at("22:15").unwrap(), 20_000 * day + (22 * 60 + 15) * minute);
        let berlin = Zone::parse("Europe/Berlin").unwrap();
        assert_eq!(moment("01:00", now, &berlin).unwrap().as_millis(), 20_000 * day - 60 * minute);
        assert_eq!(at("1970-01-03T01:15:00+01:00").unwrap(), 2 * day + 15 * minute);
        assert_eq!(at("1970-01-03T00:15:00Z").unwrap(), 2 * day + 15 * minute);
        for bad in ["", "8:00", "24:00", "08:60", "08:00:00", "-1:00", "tomorrow", "1970-01-03", "+8:00", "08:+5"] {
            let said = format!("{:#}", at(bad).unwrap_err());
            assert!(said.contains(&format!("{bad:?}")) && said.contains("HH:MM"), "{said}");
        }
    }
}
