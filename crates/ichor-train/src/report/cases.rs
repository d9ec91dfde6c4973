//! Best and worst cases as pictures.

use serde::{Deserialize, Serialize};

use super::ReportError;
use super::input::StudyFacts;
use super::overlap::{dice_of, mask_of};
use crate::outcome::MethodOutcome;
use ichor_picture::{Color, Contour, Image, Window};

/// Why a slice is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseKind {
    /// Mask and truth agree best.
    Best,
    /// A bleeding slice whose mask agrees least.
    Worst,
    /// A clean slice that is called positive.
    FalseAlarm,
}

/// A slice to be shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseRef {
    /// Why.
    pub kind: CaseKind,
    /// Which study, from 0 in the order of the studies.
    pub study: usize,
    /// Which slice of it, from 0.
    pub slice: usize,
    /// Dice of the mask; absent for a false alarm.
    pub dice: Option<f64>,
    /// The method's score of the slice.
    pub score: f32,
    /// Whether it is called positive.
    pub called: bool,
}

/// A slice with what is drawn on it.
#[derive(Debug, Clone)]
pub struct CaseSlice {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Values in HU, row by row.
    pub hu: Vec<i16>,
    /// The mask, non-zero inside.
    pub mask: Vec<u8>,
    /// The truth, non-zero inside.
    pub truth: Vec<u8>,
}

/// A case with its picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CasePicture {
    /// The slice.
    #[serde(flatten)]
    pub case: CaseRef,
    /// How the study is called.
    pub study_name: String,
    /// Which method's mask is shown, in words.
    pub method: String,
    /// The picture: PNG, the head in the brain window, the truth's contour and the mask's. Not in the JSON.
    #[serde(skip)]
    pub png: Vec<u8>,
    /// Its width, pixels.
    pub width: u32,
    /// Its height, pixels.
    pub height: u32,
}

/// Colour of the truth's contour: light blue.
pub(super) const TRUTH: Color = [86, 204, 255];
/// Colour of the mask's contour: red, lighter than the blue is dark for those who see no red.
pub(super) const MASK: Color = [255, 92, 80];

/// The `each` best and worst bleeding slices and false alarms of a method, one a study so that a single head does not fill
/// the page. Of slices that agree as badly, those with the largest bleeds come first; of false alarms, those with the highest
/// score.
#[must_use]
pub fn choose_cases(studies: &[StudyFacts], outcome: &MethodOutcome, each: usize) -> Vec<CaseRef> {
    let mut bleeding = Vec::new();
    let mut alarms = Vec::new();
    for (study, (facts, slices)) in studies.iter().zip(&outcome.studies).enumerate() {
        for (index, (known, slice)) in facts.slices.iter().zip(slices).enumerate() {
            let case =
                |kind, dice| CaseRef { kind, study, slice: index, dice, score: slice.score, called: slice.called };
            if known.label.any() {
                let dice = dice_of(mask_of(slice, known.truth_pixels));
                bleeding.push((dice, known.truth_pixels, case(CaseKind::Best, Some(dice))));
            } else if slice.called {
                alarms.push(case(CaseKind::FalseAlarm, None));
            }
        }
    }
    bleeding.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    let best = one_a_study(bleeding.iter().map(|(.., case)| case.clone()), each, &[]);
    bleeding.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    // Where there are few slices, none is both.
    let worst = bleeding.iter().map(|(.., case)| CaseRef { kind: CaseKind::Worst, ..case.clone() });
    let worst = one_a_study(worst, each, &best);
    alarms.sort_by(|a, b| b.score.total_cmp(&a.score));
    let alarms = one_a_study(alarms.into_iter(), each, &[]);
    best.into_iter().chain(worst).chain(alarms).collect()
}

fn one_a_study(cases: impl Iterator<Item = CaseRef>, most: usize, taken: &[CaseRef]) -> Vec<CaseRef> {
    let mut chosen: Vec<CaseRef> = Vec::new();
    for case in cases {
        let is_taken = taken.iter().any(|other| (other.study, other.slice) == (case.study, case.slice));
        if chosen.len() < most && !is_taken && !chosen.iter().any(|other| other.study == case.study) {
            chosen.push(case);
        }
    }
    chosen
}

/// Draws a case: the box around the head in the brain window, two picture pixels a pixel of the slice where that is small,
/// the truth's contour in blue and the mask's in red.
///
/// # Errors
/// [`ReportError::Picture`] if arrays are not of the slice's size.
pub fn draw_case(
    case: &CaseRef,
    slice: &CaseSlice,
    studies: &[StudyFacts],
    method: &str,
) -> Result<CasePicture, ReportError> {
    let study_name = studies.get(case.study).map_or_else(|| case.study.to_string(), |study| study.name.clone());
    let failed = |why: String| ReportError::Picture { study: study_name.clone(), slice: case.slice, why };
    let CaseSlice { rows, columns, hu, mask, truth } = slice;
    let scale = if (*rows).max(*columns) > 320 { 1 } else { 2 };
    let mut image = Image::slice(hu, *rows, *columns, Window::BRAIN, scale).map_err(|e| failed(e.to_string()))?;
    for (area, color) in [(truth, TRUTH), (mask, MASK)] {
        image.contour(&Contour { mask: area, color, thickness: scale }).map_err(|e| failed(e.to_string()))?;
    }
    let image = image.cropped(head_box(hu, *rows, *columns).map(|at| at * scale));
    let (width, height) = (image.width() as u32, image.height() as u32);
    let png = image.png(&[]).map_err(|e| failed(e.to_string()))?;
    Ok(CasePicture { case: case.clone(), study_name, method: method.to_owned(), png, width, height })
}

/// First and last row, first and last column (exclusive) of what is not air, with a margin.
fn head_box(hu: &[i16], rows: usize, columns: usize) -> [usize; 4] {
    const AIR: i16 = -300;
    const MARGIN: usize = 6;
    let (mut top, mut bottom, mut left, mut right) = (rows, 0, columns, 0);
    for (row, line) in hu.chunks_exact(columns.max(1)).enumerate() {
        // A lone speck, or the edge of a head rest, makes no head.
        if line.iter().filter(|value| **value > AIR).count() * 20 > columns {
            (top, bottom) = (top.min(row), row + 1);
            for (column, _) in line.iter().enumerate().filter(|(_, value)| **value > AIR) {
                (left, right) = (left.min(column), right.max(column + 1));
            }
        }
    }
    if top >= bottom || left >= right {
        return [0, rows, 0, columns];
    }
    [
        top.saturating_sub(MARGIN),
        (bottom + MARGIN).min(rows),
        left.saturating_sub(MARGIN),
        (right + MARGIN).min(columns),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::SliceLabel;
    use crate::outcome::{MaskOutcome, SliceOutcome, Supervision};
    use crate::report::SliceFacts;
    use ichor_core::HemorrhageSubtype;

    fn study(name: &str, slices: &[(usize, usize, bool)]) -> (StudyFacts, Vec<SliceOutcome>) {
        let facts = slices.iter().map(|(truth, ..)| SliceFacts {
            label: if *truth > 0 { SliceLabel::of([HemorrhageSubtype::Subdural]) } else { SliceLabel::NONE },
            truth_pixels: *truth,
            pixel_ml: 0.01,
        });
        let facts = StudyFacts {
            name: name.to_owned(),
            positive: slices.iter().any(|slice| slice.0 > 0),
            difficulty: None,
            truth_ml: 0.0,
            predicted_ml: None,
            predicted_sd_ml: None,
            probability: None,
            called: None,
            slices: facts.collect(),
        };
        let outcome = |&(truth, both, called): &(usize, usize, bool)| {
            let mask = (truth > 0).then_some(MaskOutcome {
                intersection: both,
                predicted: truth,
                truth,
                hausdorff95_mm: None,
            });
            SliceOutcome { score: 0.5, called, mask }
        };
        (facts, slices.iter().map(outcome).collect())
    }

    #[test]
    fn best_worst_and_alarms_one_a_study() {
        let (studies, slices): (Vec<_>, Vec<_>) = [
            study("a", &[(10, 9, true), (10, 10, true), (0, 0, false)]),
            study("b", &[(10, 5, true), (0, 0, true), (0, 0, true)]),
            study("c", &[(4, 0, false), (90, 0, false)]),
        ]
        .into_iter()
        .unzip();
        let outcome = MethodOutcome {
            id: "m".to_owned(),
            title: "M".to_owned(),
            supervision: Supervision::Slices,
            binarisation: String::new(),
            studies: slices,
        };
        let cases = choose_cases(&studies, &outcome, 2);
        let got: Vec<(CaseKind, usize, usize)> = cases.iter().map(|c| (c.kind, c.study, c.slice)).collect();
        let wanted = [
            (CaseKind::Best, 0, 1),
            (CaseKind::Best, 1, 0),
            (CaseKind::Worst, 2, 1),
            (CaseKind::Worst, 0, 0),
            (CaseKind::FalseAlarm, 1, 1),
        ];
        assert_eq!(got, wanted);
    }

    #[test]
    fn the_picture_is_the_head_with_both_contours() {
        let (rows, columns) = (60, 80);
        let mut hu = vec![-1000i16; rows * columns];
        let (mut mask, mut truth) = (vec![0u8; rows * columns], vec![0u8; rows * columns]);
        for row in 20..50 {
            hu[row * columns + 30..row * columns + 60].fill(35);
        }
        for row in 25..30 {
            truth[row * columns + 35..row * columns + 40].fill(1);
            mask[row * columns + 45..row * columns + 50].fill(1);
        }
        let case = CaseRef { kind: CaseKind::Best, study: 0, slice: 3, dice: Some(0.0), score: 0.9, called: true };
        let slice = CaseSlice { rows, columns, hu, mask, truth };
        let picture = draw_case(&case, &slice, &[], "method").unwrap();
        assert_eq!((picture.width, picture.height), (2 * 42, 2 * 42), "30 pixels and two margins of 6, doubled");
        let mut reader = png::Decoder::new(std::io::Cursor::new(&picture.png)).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgb).unwrap();
        let found = |color: Color| rgb.chunks_exact(3).any(|pixel| pixel == color);
        assert!(found(TRUTH) && found(MASK));
        let wrong = CaseSlice { truth: vec![0; 3], ..slice };
        let error = draw_case(&case, &wrong, &[], "method").unwrap_err().to_string();
        assert!(error.contains("slice 3"), "{error}");
    }
}
