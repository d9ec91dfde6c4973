//! The page: one HTML file with everything in it, no script, no other resource.

mod tables;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::ReportError;
use super::cases::{CaseKind, CasePicture};
use super::evaluation::Evaluation;
use super::groups::GroupKind;
use super::plots::{self, Figure};
use tables::Table;

/// The template; the file's name says that values are escaped for HTML.
const TEMPLATE: &str = include_str!("../../templates/evaluation.html");

/// Everything that the template prints, as text, but for the charts.
#[derive(Debug, Serialize)]
struct Page<'a> {
    evaluation: &'a Evaluation,
    key_figures: Vec<KeyFigure>,
    detection: Table,
    studies: Option<Table>,
    segmentation: Option<Table>,
    volumes: Option<Table>,
    calibration: Option<Table>,
    parts: Vec<Part>,
    roc: Vec<Chart>,
    reliability: Vec<Chart>,
    dice_by_volume: Vec<Chart>,
    bland_altman: Option<Chart>,
    cases: Vec<Cases>,
}

/// A figure to be read first.
#[derive(Debug, Serialize)]
struct KeyFigure {
    name: &'static str,
    value: String,
    note: String,
}

/// Figures by subtype, difficulty or size.
#[derive(Debug, Serialize)]
struct Part {
    title: &'static str,
    chart: Option<Chart>,
    table: Table,
}

/// A chart whose SVG is not to be escaped: it was made here, every word in it escaped.
#[derive(Debug, Serialize)]
struct Chart {
    svg: Value,
    legend: Vec<(usize, String)>,
    caption: String,
}

impl From<Figure> for Chart {
    fn from(figure: Figure) -> Self {
        let Figure { svg, legend, caption } = figure;
        Self { svg: Value::from_safe_string(svg), legend, caption }
    }
}

/// Pictures of one kind.
#[derive(Debug, Serialize)]
struct Cases {
    title: &'static str,
    pictures: Vec<Picture>,
}

#[derive(Debug, Serialize)]
struct Picture {
    /// `data:image/png;base64,…`
    data: String,
    width: u32,
    height: u32,
    words: String,
}

/// The page of an evaluation.
///
/// # Errors
/// [`ReportError::Page`] if the template fails.
pub fn html(evaluation: &Evaluation) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    let template = environment.template_from_named_str("evaluation.html", TEMPLATE)?;
    Ok(template.render(page(evaluation))?)
}

fn page(evaluation: &Evaluation) -> Page<'_> {
    let charts = |figures: Vec<Option<Figure>>| figures.into_iter().flatten().map(Chart::from).collect();
    let parts = [
        (GroupKind::Subtype, "By subtype", "subtype"),
        (GroupKind::Difficulty, "By difficulty", "difficulty"),
        (GroupKind::Size, "By size of the bleed in the slice", "size"),
    ];
    let part = |(kind, title, what)| {
        let table = tables::groups(evaluation, kind)?;
        Some(Part { title, chart: plots::dice_by_group(evaluation, kind, what).map(Chart::from), table })
    };
    let by_volume = plots::shown(evaluation).into_iter().enumerate();
    let by_volume = by_volume.map(|(series, method)| plots::dice_by_volume(evaluation, method, series)).collect();
    Page {
        key_figures: key_figures(evaluation),
        detection: tables::detection(evaluation),
        studies: tables::study_detection(evaluation),
        segmentation: tables::segmentation(evaluation),
        volumes: tables::volumes(evaluation),
        calibration: tables::calibration(evaluation),
        parts: parts.into_iter().filter_map(part).collect(),
        roc: charts(vec![plots::slice_roc(evaluation), plots::study_roc(evaluation)]),
        reliability: evaluation.calibrations.iter().map(|figures| plots::calibration(figures).into()).collect(),
        dice_by_volume: charts(by_volume),
        bland_altman: plots::bland_altman(evaluation).map(Chart::from),
        cases: cases(evaluation),
        evaluation,
    }
}

/// What most readers look for first, of the shipped method.
fn key_figures(evaluation: &Evaluation) -> Vec<KeyFigure> {
    let mut figures = Vec::new();
    let mut add = |name, value: Option<(f64, String)>| {
        if let Some((value, note)) = value {
            figures.push(KeyFigure { name, value: format!("{value:.3}"), note });
        }
    };
    let auc = |auc: Option<super::Auc>| auc.map(|auc| (auc.auc, tables::interval(auc.interval)));
    let mean = |summary: Option<crate::metrics::Summary>| summary.map(|s| (s.mean, tables::interval(s.interval)));
    let served = evaluation.served().or_else(|| evaluation.methods.first());
    add("Slice AUC", served.and_then(|method| auc(method.detection.auc)));
    add("Study AUC", evaluation.study_detection.as_ref().and_then(|row| auc(row.auc)));
    let segmentation = served.and_then(|method| method.segmentation);
    add("Dice, bleeding slices", segmentation.and_then(|row| mean(row.dice)));
    let error = evaluation.calibrations.first();
    add(
        "Calibration error",
        error.map(|c| (c.error_equal_width.value, tables::interval(c.error_equal_width.interval))),
    );
    if let Some(row) = segmentation.and_then(|row| row.hausdorff95_mm) {
        let (value, note) = (format!("{:.1} mm", row.mean), format!("± {:.1} mm", row.sd));
        figures.push(KeyFigure { name: "Hausdorff, 95 %", value, note });
    }
    let volume = evaluation.result_volume.or_else(|| served.and_then(|method| method.volume));
    if let Some(agreement) = volume.and_then(|volume| volume.bland_altman) {
        let value = format!("{:+.1} mL", agreement.bias).replace('-', "−");
        let note = format!("limits {:+.1} to {:+.1} mL", agreement.lower_limit, agreement.upper_limit);
        figures.push(KeyFigure { name: "Volume bias", value, note: note.replace('-', "−") });
    }
    figures
}

fn cases(evaluation: &Evaluation) -> Vec<Cases> {
    let kinds = [
        (CaseKind::Best, "Best masks"),
        (CaseKind::Worst, "Worst masks on bleeding slices"),
        (CaseKind::FalseAlarm, "Slices without blood that are called positive"),
    ];
    let of = |(kind, title)| {
        let pictures: Vec<Picture> = evaluation
            .cases
            .iter()
            .filter(|picture| picture.case.kind == kind && !picture.png.is_empty())
            .map(|picture| Picture {
                data: format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&picture.png)),
                width: picture.width,
                height: picture.height,
                words: words(picture),
            })
            .collect();
        (!pictures.is_empty()).then_some(Cases { title, pictures })
    };
    kinds.into_iter().filter_map(of).collect()
}

fn words(picture: &CasePicture) -> String {
    let CasePicture { case, study_name, .. } = picture;
    let dice = case.dice.map_or_else(String::new, |dice| format!(", Dice {dice:.2}"));
    let called = if case.called { "called positive" } else { "not called" };
    format!("Study {study_name}, slice {}{dice}, score {:.2}, {called}", case.slice + 1, case.score)
}
