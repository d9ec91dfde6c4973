//! The page's charts.

use serde::Serialize;

use super::detection::DetectionRow;
use super::evaluation::{Evaluation, MethodFigures};
use super::groups::GroupKind;
use super::reliability::CalibrationFigures;
use super::svg::{Chart, Scale};
use super::volume::VolumeFigures;
use crate::metrics::{Interval, ReliabilityBin};
use crate::outcome::Supervision;

/// Series that the page has colours for.
const SERIES: usize = 8;

/// Methods that are shown where a chart has room for a few.
const SHOWN: usize = 3;

/// A chart with its legend and caption.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figure {
    /// The SVG.
    pub(super) svg: String,
    /// Series and what they are.
    pub(super) legend: Vec<(usize, String)>,
    /// What is to be seen.
    pub(super) caption: String,
}

const SQUARE: (f64, f64) = (430.0, 400.0);
const WIDE: (f64, f64) = (560.0, 400.0);
const UNIT: Scale = Scale::Linear(0.0, 1.0);

/// The shipped method, the same before or after refinement, and what needs no training; else the first ones.
pub(super) fn shown(evaluation: &Evaluation) -> Vec<&MethodFigures> {
    let mut shown: Vec<&MethodFigures> = evaluation.served().into_iter().collect();
    let root = |id: &str| id.strip_suffix("-refined").unwrap_or(id).to_owned();
    let is_near = |method: &MethodFigures| {
        method.supervision == Supervision::None
            || evaluation.served.as_deref().is_some_and(|served| root(served) == root(&method.id))
    };
    let with_masks = || evaluation.methods.iter().filter(|method| method.segmentation.is_some());
    for method in with_masks().filter(|method| is_near(method)).chain(with_masks()) {
        if shown.len() < SHOWN && !shown.iter().any(|other| other.id == method.id) {
            shown.push(method);
        }
    }
    // In the order of the tables, so that a method keeps its colour from chart to chart where it can.
    shown.sort_by_key(|method| evaluation.methods.iter().position(|other| other.id == method.id));
    shown
}

/// ROC curves on slices; methods that score alike share one.
pub(super) fn slice_roc(evaluation: &Evaluation) -> Option<Figure> {
    let mut curves: Vec<(&DetectionRow, Vec<&str>)> = Vec::new();
    for method in evaluation.methods.iter().filter(|method| !method.detection.roc.is_empty()) {
        match curves.iter_mut().find(|(row, _)| row.roc == method.detection.roc) {
            Some((_, titles)) => titles.push(&method.title),
            None => curves.push((&method.detection, vec![&method.title])),
        }
    }
    let more = curves.len().saturating_sub(SERIES);
    curves.truncate(SERIES);
    let curves: Vec<(&DetectionRow, String)> =
        curves.into_iter().map(|(row, titles)| (row, titles.join(" · "))).collect();
    let beyond = if more > 0 { format!(" {more} further curves are left out.") } else { String::new() };
    let caption = format!("Slices: ROC curve of each score; the mark is where the method calls.{beyond}");
    roc("Receiver operating characteristic of slices", &curves, caption)
}

/// The ROC curve of whole studies.
pub(super) fn study_roc(evaluation: &Evaluation) -> Option<Figure> {
    let row = evaluation.study_detection.as_ref().filter(|row| !row.roc.is_empty())?;
    let curves = [(row, "Study probability".to_owned())];
    let caption = "Studies: ROC curve of the study's probability; the mark is the verdict rule.".to_owned();
    roc("Receiver operating characteristic of studies", &curves, caption)
}

fn roc(title: &str, curves: &[(&DetectionRow, String)], caption: String) -> Option<Figure> {
    let description = curves.iter().map(|(row, title)| format!("{title}: AUC {}", area(row))).collect::<Vec<_>>();
    let mut chart = Chart::new(SQUARE, UNIT, UNIT, title, &description.join("; "));
    chart.axes("1 − specificity", "sensitivity (recall)");
    chart.segment("chance", (0.0, 0.0), (1.0, 1.0));
    for (series, (row, title)) in curves.iter().enumerate() {
        chart.line(row.roc.iter().map(|point| (point.false_positive_rate, point.true_positive_rate)), series);
        let called = (1.0 - row.specificity.value, row.recall.value);
        let words = format!("{title}: called at sensitivity {:.3}, specificity {:.3}", called.1, 1.0 - called.0);
        chart.mark(called, series, &words);
    }
    let legend =
        curves.iter().enumerate().map(|(series, (row, title))| (series, format!("{title}: AUC {}", area(row))));
    (!curves.is_empty()).then(|| Figure { legend: legend.collect(), caption, svg: chart.finish() })
}

fn area(row: &DetectionRow) -> String {
    row.auc.map_or_else(|| "–".to_owned(), |auc| format!("{:.3}", auc.auc))
}

/// What was said against what was so.
pub(super) fn calibration(figures: &CalibrationFigures) -> Figure {
    let title = format!("Reliability of {}", figures.title);
    let description = format!("Expected calibration error {:.3}", figures.error_equal_width.value);
    let mut chart = Chart::new(SQUARE, UNIT, UNIT, &title, &description);
    chart.axes("probability", "share of positives");
    for bin in &figures.equal_width {
        #[expect(clippy::cast_precision_loss, reason = "counts")]
        let share = bin.n as f64 / figures.n.max(1) as f64;
        chart.column("count", (bin.low, bin.high), share);
    }
    chart.segment("chance", (0.0, 0.0), (1.0, 1.0));
    for (series, bins) in [&figures.equal_width, &figures.equal_mass].into_iter().enumerate() {
        let place = |bin: &ReliabilityBin| (bin.mean_probability, bin.positive_share);
        chart.line(bins.iter().map(place), series);
        for bin in bins {
            let words = format!(
                "{} values from {:.3} to {:.3}: said {:.3}, was {:.3}",
                bin.n, bin.low, bin.high, bin.mean_probability, bin.positive_share
            );
            chart.mark(place(bin), series, &words);
        }
    }
    let legend = vec![(0, "bins of equal width".to_owned()), (1, "bins of equal number".to_owned())];
    let caption = format!(
        "{}: on the dashed line probabilities mean what they say. Bars: share of all {} values in each tenth.",
        figures.title, figures.n
    );
    Figure { svg: chart.finish(), legend, caption }
}

/// Dice of a method's masks in a whole study against the study's volume.
pub(super) fn dice_by_volume(evaluation: &Evaluation, method: &MethodFigures, series: usize) -> Option<Figure> {
    let points: Vec<(f64, f64, String)> = evaluation
        .studies
        .iter()
        .zip(&method.studies)
        .filter(|(study, _)| study.positive && study.truth_ml > 0.0)
        .filter_map(|(study, result)| {
            let words = format!(
                "study {}: {:.1} mL, marked {:.1} mL, Dice {:.2}",
                study.name, study.truth_ml, result.predicted_ml, result.dice?
            );
            Some((study.truth_ml, result.dice?, words))
        })
        .collect();
    let volumes = evaluation.studies.iter().filter(|study| study.positive).map(|study| study.truth_ml);
    let title = format!("Dice against volume: {}", method.title);
    let description = format!("{} studies", points.len());
    let mut chart = Chart::new(SQUARE, Scale::decades(volumes), UNIT, &title, &description);
    chart.axes("true volume, mL (logarithmic)", "Dice of the study");
    points.iter().for_each(|(volume, dice, words)| chart.mark((*volume, *dice), series, words));
    let caption = format!("{}: {} positive studies.", method.title, points.len());
    (!points.is_empty()).then(|| Figure { svg: chart.finish(), legend: Vec::new(), caption })
}

/// Mean Dice with its interval, part by part, of the methods shown.
pub(super) fn dice_by_group(evaluation: &Evaluation, kind: GroupKind, what: &str) -> Option<Figure> {
    const ROW: f64 = 16.0;
    let methods = shown(evaluation);
    let mut names: Vec<&str> = Vec::new();
    for group in methods.iter().flat_map(|method| &method.groups).filter(|group| group.kind == kind) {
        if !names.contains(&group.name.as_str()) {
            names.push(&group.name);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a few rows")]
    let (band, rows) = (ROW * methods.len() as f64 + 14.0, names.len() as f64);
    let height = 58.0 + band * rows;
    let title = format!("Dice by {what}");
    let mut chart = Chart::new((WIDE.0, height), UNIT, UNIT, &title, &names.join(", ")).with_left(190.0);
    chart.x_axis("mean Dice, with 95 % interval");
    let mut top = 12.0;
    for name in &names {
        chart.text(name, (182.0, top + band / 2.0), "row end");
        for (series, method) in methods.iter().enumerate() {
            let Some(group) = method.groups.iter().find(|group| group.kind == kind && group.name == **name) else {
                continue;
            };
            let Some(dice) = group.dice else { continue };
            #[expect(clippy::cast_precision_loss, reason = "a few rows")]
            let y = top + 7.0 + ROW * (series as f64 + 0.5);
            if let Some(Interval { low, high }) = dice.interval {
                chart.rule(&format!("bar s{series}"), (chart.at_x(low), y), (chart.at_x(high), y));
            }
            let words = format!("{name}, {}: Dice {:.3}, n = {}", method.title, dice.mean, dice.n);
            chart.mark_at((chart.at_x(dice.mean), y), series, &words);
        }
        top += band;
    }
    let legend = methods.iter().enumerate().map(|(series, method)| (series, method.title.clone())).collect();
    let caption = format!("Mean Dice on bleeding slices by {what}; intervals are bootstraps over studies.");
    (!names.is_empty() && !methods.is_empty()).then(|| Figure { svg: chart.finish(), legend, caption })
}

/// Bland and Altman's chart of the shipped volumes: the studies' results where there are some, else the masks.
pub(super) fn bland_altman(evaluation: &Evaluation) -> Option<Figure> {
    let served = evaluation.served().or_else(|| shown(evaluation).first().copied())?;
    let volume: &VolumeFigures = evaluation.result_volume.as_ref().or(served.volume.as_ref())?;
    let agreement = volume.bland_altman?;
    let positive = evaluation.studies.iter().zip(&served.studies).filter(|(study, _)| study.positive);
    let points: Vec<(f64, f64, Option<f64>, String)> = positive
        .map(|(study, result)| {
            let measured = study.predicted_ml.unwrap_or(result.predicted_ml);
            let words = format!("study {}: {measured:.1} mL, true {:.1} mL", study.name, study.truth_ml);
            ((measured + study.truth_ml) / 2.0, measured - study.truth_ml, study.predicted_sd_ml, words)
        })
        .collect();
    let means = points.iter().map(|point| point.0);
    let ends = points
        .iter()
        .flat_map(|(_, difference, sd, _)| [difference - sd.unwrap_or_default(), difference + sd.unwrap_or_default()]);
    let y = Scale::around(ends.chain([agreement.lower_limit, agreement.upper_limit]));
    let description = format!(
        "Bias {:+.2} mL, limits of agreement {:+.2} to {:+.2} mL",
        agreement.bias, agreement.lower_limit, agreement.upper_limit
    );
    let mut chart = Chart::new(WIDE, Scale::around(means), y, "Bland–Altman chart of volumes", &description);
    chart.axes("mean of measured and true volume, mL", "measured − true, mL");
    let Scale::Linear(low, high) = chart.x else { return None };
    chart.segment("zero", (low, 0.0), (high, 0.0));
    for (value, class) in [(agreement.bias, "bias"), (agreement.lower_limit, "limit"), (agreement.upper_limit, "limit")]
    {
        chart.segment(class, (low, value), (high, value));
        let words = format!("{value:+.1}").replace('-', "−");
        chart.text(&words, (WIDE.0 - 18.0, chart.at_y(value) - 5.0), "value end");
    }
    for (mean, difference, sd, words) in &points {
        if let Some(sd) = sd {
            chart.segment("bar s0", (*mean, difference - sd), (*mean, difference + sd));
        }
        chart.mark((*mean, *difference), 0, words);
    }
    let bars = if points.iter().any(|point| point.2.is_some()) { " Bars: ± one standard deviation." } else { "" };
    let caption = format!(
        "{}: full line, bias; dashed lines, 95 % limits of agreement; {} positive studies.{bars}",
        served.title, agreement.n
    );
    Some(Figure { svg: chart.finish(), legend: Vec::new(), caption })
}
