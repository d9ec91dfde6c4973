//! The page of one study: its slices, what was found, why, and what became of it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use ichor_core::{StudyStatus, Uid};
use ichor_store::ShadowResult;
use serde_json::json;

use super::destinations::{Forwarded, forwarded};
use super::{Frame, Moment, rendered};
use crate::App;
use crate::access::{PageViewer, audit};
use crate::api::studies::StudyView;
use crate::api::uid;
use crate::models::{ModelView, Role, views};
use crate::picture::PRESETS;
use crate::problem::Problem;
use crate::words;

/// Width of the probability strip, and the height of a slice in it; a long stack has lower ones.
const STRIP_WIDTH: f64 = 72.0;
const STRIP_HEIGHT: f64 = 512.0;

/// A slice in the strip.
struct Bar {
    index: usize,
    uid: String,
    frame: String,
    probability: String,
    masked_pixels: u32,
    y: String,
    height: String,
    width: String,
    is_masked: bool,
    is_positive: bool,
    has_map: bool,
}

struct Series {
    title: String,
    uid: String,
    modality: String,
    instances: u32,
    outcome: &'static str,
    reasons: Vec<String>,
    failed: usize,
    rules: Vec<Rule>,
}

struct Rule {
    name: String,
    verdict: &'static str,
    text: String,
    attributes: String,
}

struct Lesion {
    number: usize,
    volume: String,
    share: String,
    bar: String,
}

struct Line {
    at: Moment,
    offset: String,
    kind: String,
    text: String,
    is_bad: bool,
}

struct Object {
    kind: String,
    href: String,
    is_gone: bool,
    size: String,
    version: u32,
    deliveries: Vec<Delivery>,
}

struct Delivery {
    id: i64,
    destination: String,
    status: String,
    attempts: u32,
    words: String,
    is_dead: bool,
    waits: bool,
}

struct Message {
    id: i64,
    channel: String,
    subject: String,
    status: String,
    words: String,
    is_dead: bool,
}

/// A model beside the one of the result.
struct Other {
    model: String,
    said: String,
    body: String,
    may_reanalyse: bool,
}

struct Window {
    name: &'static str,
    label: &'static str,
    key: usize,
    title: String,
}

#[derive(Template)]
#[template(path = "study.html")]
struct Page {
    frame: Frame,
    uid: String,
    name: String,
    patient_id: String,
    accession: String,
    /// Who told it, if it was not received.
    accession_source: String,
    /// How many instances are here, if somebody says how many there should be.
    instances: String,
    date: String,
    description: String,
    source: String,
    status: String,
    verdict: &'static str,
    tag: &'static str,
    probability: String,
    volume: String,
    slices_positive: String,
    model: String,
    turnaround: String,
    reason: String,
    version: u32,
    windows: Vec<Window>,
    bars: Vec<Bar>,
    first: usize,
    first_src: String,
    first_probability: String,
    /// Whether any slice has an attribution map.
    has_maps: bool,
    threshold_x: String,
    lesions: Vec<Lesion>,
    series: Vec<Series>,
    timeline: Vec<Line>,
    objects: Vec<Object>,
    forwarded: Vec<Forwarded>,
    messages: Vec<Message>,
    timings: Vec<(String, String)>,
    can_retry: bool,
    /// Since when the slices cannot be shown.
    pixels_gone: String,
    /// What is on hold, and what is no longer kept.
    kept: Vec<String>,
    others: Vec<Other>,
}

/// The page.
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    PageViewer(caller): PageViewer,
    Path(study): Path<String>,
) -> Result<Response, Problem> {
    let study = uid(&study)?;
    let view = StudyView::read(&app, study.clone()).await?;
    audit(&app, &caller, "study-viewed", Some(&study), json!({ "by": "page" })).await?;
    let threshold = app.facts.active.get().map(|model| model.slice_threshold);
    let mut page = made(view, Frame::of(&app, &caller, "study"), threshold);
    page.others = others(&app, &study, page.can_retry).await?;
    Ok(rendered(StatusCode::OK, &page))
}

/// What models in the shadow said of the study, and those of them that it may be analysed with.
async fn others(app: &App, study: &Uid, may_reanalyse: bool) -> Result<Vec<Other>, Problem> {
    let said = app.facts.store.shadow_results(study).await?;
    let newest = said.first().map(|result| result.version);
    let usable = |view: &ModelView| matches!(view.role, Role::Shadow | Role::Waiting | Role::Active);
    let offered: Vec<String> = views(app).await?.into_iter().filter(usable).filter_map(|view| view.id).collect();
    let result = |model: &String| said.iter().find(|one| one.model.as_str() == model && Some(one.version) == newest);
    let words = |one: &ShadowResult| match (&one.finding, &one.reason) {
        (Some(finding), _) => {
            let verdict = if finding.is_positive() { "positive" } else { "negative" };
            let dice = one.dice.map_or_else(String::new, |dice| format!(", Dice {dice:.2}"));
            format!("{verdict} {:.2}, {:.1} mL{dice}", finding.probability, finding.volume_ml)
        }
        (None, Some(reason)) => reason.text.clone(),
        (None, None) => one.status.to_string(),
    };
    let other = |model: String| Other {
        said: result(&model).map_or_else(String::new, words),
        body: json!({ "model": model }).to_string(),
        model,
        may_reanalyse,
    };
    Ok(offered.into_iter().map(other).filter(|other| may_reanalyse || !other.said.is_empty()).collect())
}

fn made(view: StudyView, frame: Frame, threshold: Option<f32>) -> Page {
    let summary = &view.summary;
    let (verdict, tag) = match (summary.positive, summary.alerted_at, summary.status) {
        (Some(true), _, _) => ("Positive", "t4"),
        (None, Some(_), _) => ("Alert", "t4 alert"),
        (_, _, StudyStatus::Failed) => ("Failed", "t3"),
        (_, _, StudyStatus::NotAnalysed) => ("Not analysed", "t1"),
        (Some(false), _, _) => ("Negative", "t0"),
        (None, None, _) => ("Under way", "t2"),
    };
    let turnaround = summary.analysed_at.map(|at| at.as_millis() - summary.last_instance_at.as_millis());
    let spread = summary.volume_sd_ml.map_or_else(String::new, |sd| format!(" ± {sd:.1}"));
    let uid = summary.study_instance.to_string();
    let bars = bars(&view, threshold);
    let most = |a: &&Bar, b: &&Bar| a.probability.cmp(&b.probability).then(b.index.cmp(&a.index));
    let first = bars.iter().max_by(most).map_or(0, |bar| bar.index);
    let first_src = bars.get(first).map_or_else(String::new, |bar| {
        let frame = if bar.frame.is_empty() { String::new() } else { format!("&frame={}", bar.frame) };
        format!("/api/studies/{uid}/slices/{}/picture?window=brain&overlay=mask{frame}", bar.uid)
    });
    let finding = view.finding.as_ref();
    Page {
        name: summary.patient_name.as_deref().map(words::name).unwrap_or_default(),
        patient_id: summary.patient_id.clone().unwrap_or_default(),
        accession: summary.accession_number.clone().unwrap_or_default(),
        accession_source: summary.accession_source.clone().unwrap_or_default(),
        instances: summary.expected_instances.map_or_else(String::new, |expected| {
            format!("{} of {} expected", summary.instances, expected.max(summary.instances))
        }),
        date: summary.study_date.as_deref().map(words::day).unwrap_or_default(),
        description: summary.description.clone().unwrap_or_default(),
        source: summary.source_ae.clone().unwrap_or_default(),
        status: summary.status.to_string(),
        verdict,
        tag,
        probability: summary.probability.map_or_else(String::new, |p| format!("{:.1} %", p * 100.0)),
        volume: summary.volume_ml.map_or_else(String::new, |ml| format!("{ml:.1}{spread} mL")),
        slices_positive: finding.map_or_else(String::new, |f| format!("{} of {}", f.positive_slices, f.slices)),
        model: summary.model.as_ref().map_or_else(String::new, ToString::to_string),
        turnaround: turnaround.filter(|ms| *ms >= 0).map(words::span).unwrap_or_default(),
        reason: summary.reason.as_ref().map_or_else(String::new, ToString::to_string),
        version: summary.version,
        windows: windows(),
        first_probability: bars.get(first).map_or_else(String::new, |bar| bar.probability.clone()),
        threshold_x: threshold.map_or_else(String::new, |p| format!("{:.1}", f64::from(p) * STRIP_WIDTH)),
        first,
        first_src,
        has_maps: bars.iter().any(|bar| bar.has_map),
        lesions: finding.map(|finding| lesions(&finding.lesions_ml)).unwrap_or_default(),
        series: view.series.iter().map(series).collect(),
        timeline: timeline(&view),
        objects: view.objects.iter().map(|object| with_deliveries(object, &view)).collect(),
        forwarded: forwarded(&summary.study_instance, &view.forwarded),
        messages: view.messages.iter().map(message).collect(),
        timings: view
            .timings
            .iter()
            .map(|timing| (timing.stage.clone(), words::span(i64::try_from(timing.ms).unwrap_or(i64::MAX))))
            .collect(),
        pixels_gone: summary.pixels_removed_at.map_or_else(String::new, |at| Moment::of(at).text),
        kept: kept(summary),
        others: Vec::new(),
        can_retry: frame.is_operator
            && summary.pixels_removed_at.is_none()
            && matches!(summary.status, StudyStatus::Analysed | StudyStatus::NotAnalysed | StudyStatus::Failed),
        bars,
        uid,
        frame,
    }
}

fn kept(study: &ichor_store::StudySummary) -> Vec<String> {
    let since = |at| Moment::of(at).text;
    let hold = study.held_at.map(|at| {
        let reason = study.hold_reason.as_deref().unwrap_or_default();
        format!("On hold since {} UTC: {reason}", since(at))
    });
    let gone = |what: &str, at: Option<ichor_store::Timestamp>| {
        at.map(|at| format!("{what} are no longer kept, since {} UTC", since(at)))
    };
    let lines =
        [hold, gone("Received files", study.pixels_removed_at), gone("Result objects", study.results_removed_at)];
    lines.into_iter().flatten().collect()
}

fn windows() -> Vec<Window> {
    let window = |(number, preset): (usize, &crate::picture::Preset)| Window {
        name: preset.name,
        label: preset.label,
        key: number + 1,
        title: format!("centre {}, width {} HU", preset.center, preset.width),
    };
    PRESETS.iter().enumerate().map(window).collect()
}

fn bars(view: &StudyView, threshold: Option<f32>) -> Vec<Bar> {
    let height = STRIP_HEIGHT / view.slices.len().max(1) as f64;
    let bar = |(index, slice): (usize, &ichor_store::SliceScore)| Bar {
        index,
        uid: slice.sop_instance.to_string(),
        frame: slice.frame.map_or_else(String::new, |frame| frame.to_string()),
        probability: format!("{:.3}", slice.probability),
        masked_pixels: slice.masked_pixels,
        y: format!("{:.2}", index as f64 * height),
        height: format!("{:.2}", (height - if height > 4.0 { 1.0 } else { 0.0 }).max(1.0)),
        width: format!("{:.1}", (f64::from(slice.probability) * STRIP_WIDTH).max(1.0)),
        is_masked: slice.masked_pixels > 0,
        is_positive: threshold.is_some_and(|threshold| slice.probability >= threshold),
        has_map: slice.map.is_some(),
    };
    view.slices.iter().enumerate().map(bar).collect()
}

fn lesions(volumes: &[f64]) -> Vec<Lesion> {
    let whole: f64 = volumes.iter().sum();
    let lesion = |(number, ml): (usize, &f64)| Lesion {
        number: number + 1,
        volume: format!("{ml:.2} mL"),
        share: format!("{:.0} %", if whole > 0.0 { ml / whole * 100.0 } else { 0.0 }),
        bar: format!("{:.1}", if whole > 0.0 { ml / whole * 48.0 } else { 0.0 }),
    };
    volumes.iter().enumerate().map(lesion).collect()
}

fn series(series: &ichor_store::SeriesDetail) -> Series {
    let rules: Vec<Rule> = (series.rules.iter())
        .map(|rule| Rule {
            name: rule.rule.clone(),
            verdict: rule.verdict.as_str(),
            text: rule.text.clone(),
            attributes: rule.attributes.join(", "),
        })
        .collect();
    Series {
        title: series.description.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| "Series".to_owned()),
        uid: series.series_instance.to_string(),
        modality: series.modality.clone().unwrap_or_default(),
        instances: series.instances,
        outcome: match series.chosen {
            Some(true) => "analysed",
            Some(false) => "set aside",
            None => "not looked at yet",
        },
        reasons: series.reasons.iter().map(ToString::to_string).collect(),
        failed: rules.iter().filter(|rule| rule.verdict == "failed").count(),
        rules,
    }
}

fn timeline(view: &StudyView) -> Vec<Line> {
    let first = view.timeline.first().map(|event| event.at.as_millis());
    let line = |event: &ichor_store::Event| Line {
        at: Moment::of(event.at),
        offset: format!("+{}", words::span(event.at.as_millis() - first.unwrap_or_default())),
        kind: event.kind.clone(),
        text: event.text.clone(),
        is_bad: ["failed", "dead", "refused", "conflict"].iter().any(|word| event.kind.contains(word)),
    };
    view.timeline.iter().map(line).collect()
}

fn with_deliveries(object: &crate::api::studies::ObjectView, view: &StudyView) -> Object {
    let deliveries = view.deliveries.iter().filter(|delivery| delivery.sop_instance == object.sop_instance);
    let delivery = |delivery: &ichor_store::DeliverySummary| Delivery {
        id: delivery.id,
        destination: delivery.destination.clone(),
        status: delivery.status.to_string(),
        attempts: delivery.attempts,
        words: delivery.last_words.clone().unwrap_or_default(),
        is_dead: delivery.status == ichor_core::DeliveryStatus::Dead,
        waits: delivery.status == ichor_core::DeliveryStatus::Queued && delivery.attempts > 0,
    };
    Object {
        kind: object.kind.clone(),
        href: object.href.clone(),
        is_gone: object.removed_at.is_some(),
        size: words::bytes(object.size),
        version: object.version,
        deliveries: deliveries.map(delivery).collect(),
    }
}

fn message(message: &ichor_store::MessageSummary) -> Message {
    Message {
        id: message.id,
        channel: message.channel.clone(),
        subject: message.subject.to_string(),
        status: message.status.to_string(),
        words: message.last_words.clone().unwrap_or_default(),
        is_dead: message.status == ichor_core::MessageStatus::Dead,
    }
}
