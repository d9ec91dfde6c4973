//! The page of the models: what each does, how far they agree, and the history.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use ichor_core::{Agreement, ModelId};
use ichor_store::{Activation, AgreementReport};

use super::{Frame, Moment, rendered};
use crate::App;
use crate::access::PageViewer;
use crate::api::models::AgreementQuery;
use crate::models::{ModelView, Role, views};
use crate::problem::Problem;

/// Lines of the history.
const HISTORY: u32 = 50;
/// Disagreements that are listed.
const LISTED: usize = 50;

/// An agreement as rows of words.
struct Figures {
    name: String,
    studies: u64,
    table: [u64; 4],
    lines: Vec<(&'static str, String)>,
}

struct Disagreeing {
    uid: String,
    version: u32,
    source: String,
    active: String,
    other: String,
}

struct Report {
    not_analysed: u64,
    failed: u64,
    is_cut: bool,
    all: Figures,
    sources: Vec<Figures>,
    disagreements: Vec<Disagreeing>,
    more: usize,
}

struct Model {
    view: ModelView,
    name: String,
    role: &'static str,
    tag: &'static str,
    is_bad: bool,
    can_activate: bool,
    report: Option<Report>,
}

struct Line {
    from: Moment,
    until: Option<Moment>,
    model: String,
    status: String,
    actor: String,
    why: String,
    words: String,
}

#[derive(Template)]
#[template(path = "models.html")]
struct ModelsPage {
    frame: Frame,
    since: String,
    models: Vec<Model>,
    history: Vec<Line>,
    can_roll_back: bool,
}

fn figures(name: String, agreement: &Agreement) -> Figures {
    let share = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
    let kappa = agreement.kappa.map_or_else(
        || "–".to_owned(),
        |kappa| format!("{:.3} (95 % interval {:.3} to {:.3})", kappa.value, kappa.low, kappa.high),
    );
    let mut lines = vec![
        ("Cohen's kappa", kappa),
        ("Positive agreement", share(agreement.positive_agreement)),
        ("Negative agreement", share(agreement.negative_agreement)),
        ("Mean difference of probabilities", share(agreement.probability_difference)),
    ];
    if let Some(volume) = agreement.volume {
        let text = format!(
            "{:+.1} mL, limits of agreement {:+.1} to {:+.1} mL ({} studies)",
            volume.mean_ml, volume.low_ml, volume.high_ml, volume.studies
        );
        lines.push(("Difference of volumes", text));
    }
    if let Some(dice) = agreement.dice {
        let text = format!(
            "mean {:.3}, median {:.3}, lowest {:.3} ({} studies)",
            dice.mean, dice.median, dice.lowest, dice.studies
        );
        lines.push(("Dice of masks", text));
    }
    let table = [agreement.both_positive, agreement.only_active, agreement.only_other, agreement.both_negative];
    Figures { name, studies: agreement.studies, table, lines }
}

fn report(report: AgreementReport) -> Report {
    let said = |finding: &ichor_core::Finding| {
        let verdict = if finding.is_positive() { "positive" } else { "negative" };
        format!("{verdict} {:.2}, {:.1} mL", finding.probability, finding.volume_ml)
    };
    let more = report.disagreements.len().saturating_sub(LISTED);
    let disagreeing = |one: ichor_store::Disagreement| Disagreeing {
        uid: one.study_instance.to_string(),
        version: one.version,
        source: one.source_ae.unwrap_or_default(),
        active: said(&one.active),
        other: said(&one.other),
    };
    let name = |source: Option<String>| source.unwrap_or_else(|| "(unnamed)".to_owned());
    Report {
        not_analysed: report.not_analysed,
        failed: report.failed,
        is_cut: report.is_cut,
        all: figures("All".to_owned(), &report.agreement),
        sources: report.sources.into_iter().map(|source| figures(name(source.source_ae), &source.agreement)).collect(),
        disagreements: report.disagreements.into_iter().take(LISTED).map(disagreeing).collect(),
        more,
    }
}

fn line(entry: Activation) -> Line {
    Line {
        from: Moment::of(entry.from_at.unwrap_or(entry.requested_at)),
        until: entry.until_at.map(Moment::of),
        model: entry.model.to_string(),
        status: entry.status.to_string(),
        actor: entry.actor,
        why: entry.why,
        words: entry.words.unwrap_or_default(),
    }
}

pub(crate) async fn page(
    State(app): State<Arc<App>>,
    PageViewer(caller): PageViewer,
    query: Result<Query<AgreementQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let (since, store) = (query.since(&app.facts.site().zone)?, &app.facts.store);
    let frame = Frame::of(&app, &caller, "models");
    let mut models = Vec::new();
    for view in views(&app).await? {
        let id = view.id.as_deref().and_then(|id| ModelId::parse(id).ok());
        let compared = match (&id, view.is_active) {
            (Some(id), false) => Some(report(store.agreement(id, since).await?)),
            _ => None,
        };
        let (tag, is_bad) = match view.role {
            Role::Active => ("t0", false),
            Role::Shadow | Role::Waiting => ("t1", false),
            Role::Failed | Role::Missing => ("t4", true),
        };
        models.push(Model {
            name: view.id.clone().or_else(|| view.weights.clone()).unwrap_or_default(),
            role: view.role.word(),
            tag,
            is_bad,
            can_activate: frame.is_admin && !view.is_active && view.weights.is_some() && view.id.is_some(),
            report: compared,
            view,
        });
    }
    let history: Vec<Line> = store.activations(HISTORY).await?.into_iter().map(line).collect();
    let page = ModelsPage {
        can_roll_back: frame.is_admin && history.iter().any(|line| line.status == "former"),
        frame,
        since: query.since.unwrap_or_default(),
        models,
        history,
    };
    Ok(rendered(StatusCode::OK, &page))
}
