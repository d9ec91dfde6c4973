//! The page's tables.

use serde::Serialize;

use crate::metrics::{Interval, Summary};
use crate::outcome::Supervision;
use crate::report::detection::{DetectionRow, Estimate};
use crate::report::evaluation::{Evaluation, MethodFigures};
use crate::report::groups::GroupKind;
use crate::report::volume::VolumeFigures;

/// A table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Table {
    pub(super) caption: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// One row: what it is of, and the cells.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// In small letters under the name.
    pub(super) note: String,
    /// Whether it is of the shipped method.
    pub(super) served: bool,
    pub(super) cells: Vec<Cell>,
}

/// One cell.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Cell {
    pub(super) text: String,
    /// In small letters under the text.
    pub(super) note: String,
    /// Whether it is the best of its column.
    pub(super) best: bool,
    /// What it is compared by; more is better.
    #[serde(skip)]
    rank: Option<f64>,
}

impl Cell {
    fn text(text: String) -> Self {
        Self { text, note: String::new(), best: false, rank: None }
    }

    fn none() -> Self {
        Self::text("–".to_owned())
    }

    fn estimate(estimate: Estimate) -> Self {
        let Estimate { value, interval: range } = estimate;
        Self { text: format!("{value:.3}"), note: interval(range), best: false, rank: Some(value) }
    }

    /// Mean ± SD (SEM), as the paper's table has it.
    fn summary(summary: Option<Summary>, decimals: usize, sign: f64) -> Self {
        let Some(Summary { mean, sd, sem, interval, .. }) = summary else { return Self::none() };
        let text = format!("{mean:.decimals$} ± {sd:.decimals$} ({sem:.decimals$})");
        let note = interval
            .map_or_else(String::new, |Interval { low, high }| format!("{low:.decimals$} to {high:.decimals$}"));
        Self { text, note, best: false, rank: Some(mean * sign) }
    }
}

/// An interval in words, empty if there is none.
pub(super) fn interval(interval: Option<Interval>) -> String {
    interval.map_or_else(String::new, |Interval { low, high }| format!("{low:.3} to {high:.3}"))
}

/// Marks the best cell of each column that compares at least two.
fn with_best(mut table: Table) -> Table {
    let columns = table.rows.iter().map(|row| row.cells.len()).max().unwrap_or_default();
    for column in 0..columns {
        let ranks: Vec<f64> =
            table.rows.iter().filter_map(|row| row.cells.get(column)?.rank).filter(|rank| rank.is_finite()).collect();
        let best = ranks.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if ranks.len() > 1 && ranks.iter().any(|rank| *rank < best) {
            for cell in table.rows.iter_mut().filter_map(|row| row.cells.get_mut(column)) {
                cell.best = cell.rank == Some(best);
            }
        }
    }
    table
}

fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn told(supervision: Supervision) -> &'static str {
    match supervision {
        Supervision::None => "no training",
        Supervision::Slices => "slice labels",
        Supervision::Masks => "drawn masks",
    }
}

fn row(evaluation: &Evaluation, method: &MethodFigures, note: String, cells: Vec<Cell>) -> Row {
    let served = evaluation.served.as_ref() == Some(&method.id);
    Row { name: method.title.clone(), note, served, cells }
}

const DETECTION: [&str; 7] = ["Method", "Accuracy", "Precision", "Recall", "F1", "Specificity", "AUC"];

fn detection_cells(detection: &DetectionRow) -> Vec<Cell> {
    let auc = detection.auc.map(|auc| Estimate { value: auc.auc, interval: auc.interval });
    [detection.accuracy, detection.precision, detection.recall, detection.f1, detection.specificity]
        .into_iter()
        .map(Cell::estimate)
        .chain([auc.map_or_else(Cell::none, Cell::estimate)])
        .collect()
}

/// The paper's first table.
pub(super) fn detection(evaluation: &Evaluation) -> Table {
    let rows = evaluation
        .methods
        .iter()
        .map(|method| row(evaluation, method, told(method.supervision).to_owned(), detection_cells(&method.detection)));
    let counts = &evaluation.counts;
    let caption = format!(
        "Detection on {} slices, {} of them bleeding, of {} studies. Under each figure its 95 % interval.",
        counts.slices, counts.bleeding_slices, counts.studies
    );
    with_best(Table { caption, head: head(&DETECTION), rows: rows.collect() })
}

/// The same of whole studies.
pub(super) fn study_detection(evaluation: &Evaluation) -> Option<Table> {
    let detection = evaluation.study_detection.as_ref()?;
    let counts = &detection.confusion;
    let note = format!(
        "{} true and {} false positive, {} true and {} false negative",
        counts.true_positive, counts.false_positive, counts.true_negative, counts.false_negative
    );
    let name = "Study verdict".to_owned();
    let rows = vec![Row { name, note, served: false, cells: detection_cells(detection) }];
    let caption = format!("Detection on {} studies, {} of them positive.", detection.n, detection.positive);
    Some(Table { caption, head: head(&DETECTION), rows })
}

/// The paper's second table, with distances.
pub(super) fn segmentation(evaluation: &Evaluation) -> Option<Table> {
    let of = |method: &MethodFigures| {
        let masks = method.segmentation?;
        let mut distance = Cell::summary(masks.hausdorff95_mm, 1, -1.0);
        if masks.hausdorff95_mm.is_some() && masks.without_distance > 0 {
            distance.note = format!("{} slices without", masks.without_distance);
            // Means over different slices cannot be compared.
            distance.rank = None;
        }
        let cells = vec![
            Cell::summary(masks.dice, 3, 1.0),
            Cell::summary(masks.iou, 3, 1.0),
            Cell::summary(masks.dice_as_called, 3, 1.0),
            distance,
        ];
        let note = format!("{}; {}", told(method.supervision), method.binarisation);
        Some(row(evaluation, method, note, cells))
    };
    let rows: Vec<Row> = evaluation.methods.iter().filter_map(of).collect();
    let caption = format!(
        "Masks on {} bleeding slices: mean ± SD (SEM), and under it the mean's 95 % interval.",
        evaluation.counts.bleeding_slices
    );
    let head = head(&["Method", "Dice", "IoU", "Dice as called", "95 % Hausdorff, mm"]);
    (!rows.is_empty()).then(|| with_best(Table { caption, head, rows }))
}

/// Volumes.
pub(super) fn volumes(evaluation: &Evaluation) -> Option<Table> {
    let signed = |value: f64| format!("{value:+.2}").replace('-', "−");
    let cells = |volume: &VolumeFigures| {
        let agreement = volume.bland_altman.map_or_else(
            || vec![Cell::none(), Cell::none()],
            |a| {
                let bias = Cell {
                    note: format!("{} to {}", signed(a.bias_low), signed(a.bias_high)),
                    rank: Some(-a.bias.abs()),
                    ..Cell::text(signed(a.bias))
                };
                vec![bias, Cell::text(format!("{} to {}", signed(a.lower_limit), signed(a.upper_limit)))]
            },
        );
        let errors = [Cell::summary(volume.absolute_error_ml, 2, -1.0), Cell::summary(volume.false_ml, 2, -1.0)];
        agreement.into_iter().chain(errors).collect::<Vec<_>>()
    };
    let of = |method: &MethodFigures| {
        let volume = method.volume.as_ref()?;
        Some(row(evaluation, method, told(method.supervision).to_owned(), cells(volume)))
    };
    let mut rows: Vec<Row> = evaluation.methods.iter().filter_map(of).collect();
    if let Some(volume) = &evaluation.result_volume {
        let (name, note) = ("Study result".to_owned(), "what is reported".to_owned());
        rows.push(Row { name, note, served: true, cells: cells(volume) });
    }
    let caption = "Volume, mL: masks on slices that are called positive against the truth.".to_owned();
    let head = head(&[
        "Method",
        "Bias (measured − true)",
        "95 % limits of agreement",
        "Absolute error, positive studies",
        "Marked in negative studies",
    ]);
    (!rows.is_empty()).then(|| with_best(Table { caption, head, rows }))
}

/// Calibration.
pub(super) fn calibration(evaluation: &Evaluation) -> Option<Table> {
    let of = |figures: &crate::report::CalibrationFigures| Row {
        name: figures.title.clone(),
        note: format!("{} values", figures.n),
        served: false,
        cells: vec![
            Cell::estimate(figures.error_equal_width),
            Cell::estimate(figures.error_equal_mass),
            Cell::text(format!("{:.4}", figures.brier)),
        ],
    };
    let rows: Vec<Row> = evaluation.calibrations.iter().map(of).collect();
    let caption = "Calibration: expected calibration error over ten bins, and Brier score.".to_owned();
    let head = head(&["Probabilities", "Error, equal width", "Error, equal number", "Brier score"]);
    (!rows.is_empty()).then_some(Table { caption, head, rows })
}

/// Figures of every method by one kind of parts: recall, AUC and Dice of each part.
pub(super) fn groups(evaluation: &Evaluation, kind: GroupKind) -> Option<Table> {
    let mut names: Vec<(&str, usize)> = Vec::new();
    for group in evaluation.methods.iter().flat_map(|method| &method.groups).filter(|group| group.kind == kind) {
        if !names.iter().any(|(name, _)| *name == group.name) {
            names.push((&group.name, group.bleeding_slices));
        }
    }
    let cell = |method: &MethodFigures, name: &str| {
        let group = method.groups.iter().find(|group| group.kind == kind && group.name == name);
        let Some(group) = group else { return Cell::none() };
        let share = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"));
        Cell {
            text: share(group.dice.map(|dice| dice.mean)),
            note: format!("recall {}, AUC {}", share(group.recall), share(group.auc.map(|auc| auc.auc))),
            best: false,
            rank: group.dice.map(|dice| dice.mean),
        }
    };
    let rows = evaluation.methods.iter().map(|method| {
        let cells = names.iter().map(|(name, _)| cell(method, name)).collect();
        row(evaluation, method, told(method.supervision).to_owned(), cells)
    });
    let parts = names.iter().map(|(name, slices)| format!("{name} (n = {slices})"));
    let head = ["Method".to_owned()].into_iter().chain(parts).collect();
    let caption =
        "Mean Dice on bleeding slices; under it recall of these slices and their AUC against all clean slices.";
    let table = Table { caption: caption.to_owned(), head, rows: rows.collect() };
    (!names.is_empty()).then(|| with_best(table))
}
