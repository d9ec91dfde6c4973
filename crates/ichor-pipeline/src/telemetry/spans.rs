//! From the events of a study to spans: one trace a version, its root from the first instance to the last thing that had ended
//! when it was told of. A span holds UIDs, names of the site, codes and counts; never a peer's words, which may speak of a patient.

use std::collections::{BTreeMap, HashMap};

use ichor_core::Uid;
use ichor_store::{TraceArrival, TraceClaim, TraceEvent};
use ichor_telemetry::{Attribute, Moment, Span};
use serde_json::Value;

use super::names;
use super::version::{Outcome, Version};

/// Stages of an analysis, and what their spans are called.
const STAGES: [(&str, &str); 4] =
    [("choose", "gate"), ("classify", "classify"), ("mask", "mask"), ("result", "objects")];

/// The spans that ended after what was exported before, and by what is exported now.
pub(super) fn of(claim: &TraceClaim) -> Vec<Span> {
    let mut story = Story::new(claim);
    for event in &claim.events {
        story.tell(event);
    }
    let (after, through) = (claim.after, claim.through);
    let is_new = |by: i64| by > after && by <= through;
    let mut spans = Vec::new();
    for (number, version) in story.versions {
        if version.told_by().is_some_and(is_new) {
            spans.push(root(&claim.study_instance, number, &version));
        }
        spans.extend(version.ended.into_iter().filter(|ended| is_new(ended.by)).map(|ended| ended.span));
    }
    spans
}

/// The whole version.
fn root(study: &Uid, number: u32, version: &Version) -> Span {
    let starts = version.ended.iter().map(|ended| ended.span.start);
    let ends = version.ended.iter().map(|ended| ended.span.end);
    let end = ends.max().or(version.closed_at).unwrap_or(0);
    let outcome = version.outcome.as_ref();
    let word = outcome.map_or("superseded", |outcome| outcome.word.as_str());
    let mut attributes: Vec<Attribute> = vec![
        ("ichor.study_instance_uid", study.as_str().into()),
        ("ichor.version", i64::from(number).into()),
        ("ichor.instances", version.instances.into()),
        ("ichor.outcome", word.into()),
    ];
    let reason = outcome.and_then(|outcome| outcome.reason.clone());
    attributes.extend(reason.clone().map(|reason| ("ichor.reason", reason.into())));
    Span {
        context: version.root,
        parent: None,
        name: "study".to_owned(),
        start: starts.min().unwrap_or(end),
        end,
        is_remote: false,
        attributes,
        moments: Vec::new(),
        links: if number > 1 { vec![names::root(study, number - 1)] } else { Vec::new() },
        error: (word == "failed").then(|| reason.unwrap_or_else(|| word.to_owned())),
    }
}

/// The study, as far as it has been told.
struct Story<'a> {
    study: &'a Uid,
    arrivals: &'a [TraceArrival],
    versions: BTreeMap<u32, Version>,
    /// Of each event that was told, its version and moment.
    known: HashMap<i64, (u32, i64)>,
    last_closed: u32,
    /// Whether instances arrive for the next version.
    is_open: bool,
}

impl<'a> Story<'a> {
    fn new(claim: &'a TraceClaim) -> Self {
        Self {
            study: &claim.study_instance,
            arrivals: &claim.arrivals,
            versions: BTreeMap::new(),
            known: HashMap::new(),
            last_closed: 0,
            is_open: true,
        }
    }

    /// The version that an event belongs to.
    fn version_of(&self, event: &TraceEvent) -> u32 {
        let told = || event.about.and_then(|about| self.known.get(&about)).map(|(version, _)| *version);
        event.version.or_else(told).unwrap_or(if self.is_open { self.last_closed + 1 } else { self.last_closed })
    }

    fn tell(&mut self, event: &TraceEvent) {
        let (number, at) = (self.version_of(event), event.at.as_millis());
        self.known.insert(event.id, (number, at));
        let about = event.about.and_then(|about| self.known.get(&about)).map(|(_, at)| *at);
        let (study, arrivals) = (self.study, self.arrivals);
        let version = self.versions.entry(number).or_insert_with(|| Version::new(study, number));
        match event.kind.as_str() {
            "closed" => {
                closed(version, event, arrivals.iter().filter(|arrival| arrival.version == number));
                if let Some(before) = number.checked_sub(1).and_then(|before| self.versions.get_mut(&before)) {
                    before.replaced_by = Some(event.id);
                }
                (self.last_closed, self.is_open) = (number, false);
            }
            "reopened" => self.is_open = true,
            "alert" => alert(version, event),
            "retried" => version.waits_since = Some(at),
            kind if kind.starts_with("analys") || kind.starts_with("not-analysed") => analysis(version, event),
            "forwarding-done" => {
                let (start, to) = (version.closed_at.unwrap_or(at), text(event, "destination"));
                let attributes = vec![("ichor.destination", to.as_str().into())];
                version.ends(event, ("forward", &format!("forward/{to}/{}", event.id)), start, attributes).is_remote =
                    true;
            }
            kind if kind.starts_with("delivery-") => delivery(version, event),
            "deliveries-requeued" => {
                let to = text(event, "destination");
                for sop in event.detail["sop_instances"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    queued_again(version, (sop.to_owned(), to.clone()), at);
                }
            }
            kind if kind.starts_with("message-") => message(version, event, about),
            _ => object(version, event),
        }
    }
}

fn text(event: &TraceEvent, key: &str) -> String {
    event.detail[key].as_str().unwrap_or_default().to_owned()
}

fn number(event: &TraceEvent, key: &str) -> i64 {
    event.detail[key].as_i64().unwrap_or_default()
}

/// The code of a reason that is written as `text (code)`: the text may be a peer's.
fn code(words: &Value) -> Option<String> {
    let (_, code) = words.as_str()?.strip_suffix(')')?.rsplit_once('(')?;
    let is_code = !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    is_code.then(|| code.to_owned())
}

/// Everything that arrived, and the time in which nothing more did.
fn closed<'a>(version: &mut Version, event: &TraceEvent, arrivals: impl Iterator<Item = &'a TraceArrival>) {
    let at = event.at.as_millis();
    let mut last = None;
    for arrival in arrivals {
        let (start, end) = (arrival.first.as_millis(), arrival.last.as_millis());
        last = last.max(Some(end));
        let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut attributes: Vec<Attribute> =
            vec![("ichor.instances", count(arrival.instances).into()), ("ichor.bytes", count(arrival.bytes).into())];
        attributes.extend(arrival.association.map(|id| ("ichor.association", id.into())));
        attributes.extend(arrival.source_ae.clone().map(|title| ("ichor.source", title.into())));
        let about = format!("receive/{}", arrival.association.unwrap_or_default());
        version.instances += count(arrival.instances);
        version.spans(event.id, ("receive", &about), (start, end), attributes).is_remote = true;
    }
    version.ends(event, ("quiet period", "quiet"), last.unwrap_or(at), Vec::new());
    (version.closed_at, version.waits_since) = (Some(at), Some(at));
}

/// From the first suspicious slice to the alert.
fn alert(version: &mut Version, event: &TraceEvent) {
    let slices = event.detail["slices"].as_array().map_or(0, Vec::len);
    let attributes = vec![("ichor.suspicious_slices", i64::try_from(slices).unwrap_or(i64::MAX).into())];
    let start = event.at.as_millis() - number(event, "latency_ms");
    version.ends(event, ("triage", &format!("triage/{}", event.id)), start, attributes);
}

/// Waiting for an analysis, the analysis, and its stages.
fn analysis(version: &mut Version, event: &TraceEvent) {
    let at = event.at.as_millis();
    if event.kind == "analysis-started" {
        let attempt = number(event, "attempt");
        let start = version.waits_since.take().unwrap_or(at);
        let attributes = vec![("ichor.attempt", attempt.into())];
        version.ends(event, ("wait for analysis", &format!("wait/{}", event.id)), start, attributes);
        version.analysis = Some((event.id, at, attempt));
        return;
    }
    let reason = match event.kind.as_str() {
        "analysis-failed" => event.detail["reason"]["code"].as_str(),
        "analysis-interrupted" => Some("interrupted"),
        _ => event.detail["outcome"]["reason"]["code"].as_str(),
    };
    let reason = reason.map(str::to_owned);
    let word = match event.kind.as_str() {
        "analysed" => event.detail["outcome"]["finding"]["verdict"].as_str().unwrap_or("analysed"),
        "analysis-failed" | "analysis-interrupted" => "failed",
        _ => "not-analysed",
    };
    let is_over = event.kind != "analysis-interrupted"
        && (event.kind != "analysis-failed" || event.detail["given_up"].as_bool() == Some(true));
    if is_over && version.outcome.is_none() {
        version.outcome = Some(Outcome { by: event.id, word: word.to_owned(), reason: reason.clone() });
    }
    version.waits_since = Some(at);
    let Some((begun_by, start, attempt)) = version.analysis.take() else { return };
    let mut attributes: Vec<Attribute> = vec![("ichor.attempt", attempt.into()), ("ichor.outcome", word.into())];
    attributes.extend(event.detail["model"].as_str().map(|model| ("ichor.model", model.into())));
    attributes.extend(event.detail["slices_known"].as_i64().map(|known| ("ichor.slices_known", known.into())));
    attributes.extend(reason.clone().map(|reason| ("ichor.reason", reason.into())));
    let about = format!("analyse/{begun_by}");
    let span = version.ends(event, ("analyse", &about), start, attributes);
    span.error = (word == "failed").then(|| reason.unwrap_or_default());
    let parent = span.context.span;
    stages(version, event, (parent, &about), start);
}

/// The stages one after the other, as long as they took; what lies between them was not measured.
fn stages(version: &mut Version, event: &TraceEvent, (parent, about): ([u8; 8], &str), start: i64) {
    let (mut from, end) = (start, event.at.as_millis());
    for timing in event.detail["timings_ms"].as_array().into_iter().flatten() {
        let (Some(stage), Some(took)) = (timing[0].as_str(), timing[1].as_i64()) else { continue };
        let name = STAGES.iter().find(|(known, _)| *known == stage).map_or(stage, |(_, name)| name);
        let until = from.saturating_add(took.max(0)).min(end);
        version.spans(event.id, (name, &format!("{about}/{stage}")), (from, until), Vec::new()).parent = Some(parent);
        from = until;
    }
}

/// An object is in the outbox.
fn object(version: &mut Version, event: &TraceEvent) {
    let (sop, kind) = (text(event, "sop_instance"), text(event, "kind"));
    for destination in event.detail["destinations"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let delivery = version.deliveries.entry((sop.clone(), destination.to_owned())).or_default();
        delivery.queued_at.get_or_insert(event.at.as_millis());
        delivery.kind = Some(kind.clone());
    }
}

/// A delivery begins anew: its spans are others than those of before.
fn queued_again(version: &mut Version, key: (String, String), at: i64) {
    let delivery = version.deliveries.entry(key).or_default();
    delivery.round += 1;
    (delivery.queued_at, delivery.accepted_at) = (Some(at), None);
    delivery.moments.clear();
}

/// A delivery with its attempts, and the proof of it.
fn delivery(version: &mut Version, event: &TraceEvent) {
    let (sop, destination, at) = (text(event, "sop_instance"), text(event, "destination"), event.at.as_millis());
    let key = (sop.clone(), destination.clone());
    let delivery = version.deliveries.entry(key.clone()).or_default();
    let about = format!("deliver/{sop}/{destination}/{}", delivery.round);
    let mut attributes: Vec<Attribute> =
        vec![("ichor.destination", destination.into()), ("ichor.sop_instance_uid", sop.into())];
    attributes.extend(delivery.kind.clone().map(|kind| ("ichor.object", kind.into())));
    let why = || code(&event.detail["words"]);
    match event.kind.as_str() {
        "delivery-started" => delivery.attempt = Some((event.id, at, number(event, "attempt"))),
        "delivery-held" => {
            delivery.moments.push(Moment { at, name: "held".to_owned(), attributes: Vec::new() });
        }
        "delivery-sent-again" | "delivery-requeued" => queued_again(version, key, at),
        "delivery-committed" | "delivery-visible" | "delivery-lost" => {
            let since = delivery.accepted_at.replace(at).unwrap_or(at);
            proof(version, event, &about, since, attributes);
        }
        "delivery-dead" if delivery.accepted_at.is_some() => {
            let since = delivery.accepted_at.take().unwrap_or(at);
            proof(version, event, &about, since, attributes);
        }
        "delivery-accepted" | "delivery-dead" | "delivery-failed" | "delivery-interrupted" => {
            let is_accepted = event.kind == "delivery-accepted";
            let is_over = is_accepted || event.kind == "delivery-dead";
            let attempt = delivery.attempt.take();
            let queued_at = delivery.queued_at.unwrap_or(attempt.map_or(at, |(_, start, _)| start));
            let moments = if is_over { std::mem::take(&mut delivery.moments) } else { Vec::new() };
            if is_over {
                delivery.accepted_at = is_accepted.then_some(at);
            }
            let error = (!is_accepted).then(|| why().unwrap_or_else(|| event.kind.clone()));
            let parent = names::span(&version.root.trace, &about).span;
            if let Some((begun_by, start, attempt)) = attempt {
                let attributes = vec![("ichor.attempt", attempt.into())];
                let span = version.ends(event, ("attempt", &format!("attempt/{begun_by}")), start, attributes);
                (span.parent, span.is_remote, span.error) = (Some(parent), true, error.clone());
            }
            if is_over {
                let span = version.ends(event, ("deliver", &about), queued_at, attributes);
                (span.moments, span.error) = (moments, error);
            }
        }
        _ => {}
    }
}

/// What the destination says of it afterwards.
fn proof(version: &mut Version, event: &TraceEvent, about: &str, since: i64, mut attributes: Vec<Attribute>) {
    let word = event.kind.trim_start_matches("delivery-").to_owned();
    attributes.push(("ichor.proof", word.as_str().into()));
    let parent = names::span(&version.root.trace, about).span;
    let span = version.ends(event, ("prove", &format!("prove/{}", event.id)), since, attributes);
    (span.parent, span.is_remote) = (Some(parent), true);
    span.error = matches!(word.as_str(), "lost" | "dead").then_some(word);
}

/// A message, from what it tells of to the peer's word.
fn message(version: &mut Version, event: &TraceEvent, about: Option<i64>) {
    let (id, at) = (number(event, "message"), event.at.as_millis());
    let message = version.messages.entry(id).or_default();
    if event.kind == "message-failed" {
        let attributes = vec![
            ("ichor.attempt", number(event, "attempt").into()),
            ("ichor.reason", code(&event.detail["words"]).unwrap_or_default().into()),
        ];
        message.moments.push(Moment { at, name: "attempt failed".to_owned(), attributes });
        return;
    }
    let name = format!("tell/{id}/{}", message.round);
    let start = message.since.or(about).unwrap_or(at);
    let moments = std::mem::take(&mut message.moments);
    message.round += 1;
    message.since = Some(at);
    let attributes = vec![
        ("ichor.channel", text(event, "channel").into()),
        ("ichor.subject", text(event, "subject").into()),
        ("ichor.attempt", number(event, "attempt").into()),
    ];
    let error = (event.kind == "message-dead").then(|| code(&event.detail["words"]).unwrap_or_default());
    let span = version.ends(event, ("tell", &name), start, attributes);
    (span.is_remote, span.moments, span.error) = (true, moments, error);
}

#[cfg(test)]
mod tests;
