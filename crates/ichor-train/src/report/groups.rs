//! The same figures for parts of the data: by subtype, by difficulty, by the bleed's size.

use ichor_core::HemorrhageSubtype;
use serde::{Deserialize, Serialize};

use super::Auc;
use super::detection::area;
use super::input::{SliceFacts, StudyFacts};
use super::overlap::{dice_of, mask_of, summary_over_studies};
use crate::metrics::Summary;
use crate::outcome::MethodOutcome;

/// By what the data are parted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupKind {
    /// Slices that show a subtype; a slice may show several.
    Subtype,
    /// Studies of a difficulty.
    Difficulty,
    /// Slices by the area of the bleed in them.
    Size,
}

/// A method's figures on a part of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupFigures {
    /// By what.
    pub kind: GroupKind,
    /// Which part.
    pub name: String,
    /// Bleeding slices in it.
    pub bleeding_slices: usize,
    /// Share of these that are called positive; absent where there are none.
    pub recall: Option<f64>,
    /// Slice AUC of the part's bleeding slices against the clean slices of all studies.
    pub auc: Option<Auc>,
    /// Dice on the part's bleeding slices, whether or not they are called.
    pub dice: Option<Summary>,
}

/// By the volume of the slice's blood: pixels would depend on the field of view.
const SIZES_ML: [(&str, f64, f64); 3] =
    [("under 0.5 mL in the slice", 0.0, 0.5), ("0.5 to 3 mL", 0.5, 3.0), ("over 3 mL", 3.0, f64::INFINITY)];

/// The parts that there are, in order.
pub(super) fn parts(studies: &[StudyFacts]) -> Vec<(GroupKind, String)> {
    let subtypes = HemorrhageSubtype::ALL.map(|subtype| (GroupKind::Subtype, subtype.label().to_owned()));
    let mut difficulties: Vec<String> = studies.iter().filter_map(|study| study.difficulty.clone()).collect();
    // In the order of how hard they are, where their names say so.
    let rank = |name: &str| ["easy", "medium", "moderate", "hard"].iter().position(|known| *known == name);
    difficulties.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    difficulties.dedup();
    let difficulties = difficulties.into_iter().map(|name| (GroupKind::Difficulty, name));
    let sizes = SIZES_ML.map(|(name, ..)| (GroupKind::Size, name.to_owned()));
    subtypes.into_iter().chain(difficulties).chain(sizes).collect()
}

/// A method's figures on each part that holds a bleeding slice.
pub(super) fn groups(studies: &[StudyFacts], outcome: &MethodOutcome) -> Vec<GroupFigures> {
    let parts = parts(studies).into_iter().map(|(kind, name)| group(studies, outcome, kind, name));
    parts.filter(|group| group.bleeding_slices > 0).collect()
}

fn group(studies: &[StudyFacts], outcome: &MethodOutcome, kind: GroupKind, name: String) -> GroupFigures {
    let is_in = |study: &StudyFacts, slice: &SliceFacts| match kind {
        GroupKind::Difficulty => study.difficulty.as_ref() == Some(&name),
        GroupKind::Subtype => HemorrhageSubtype::ALL.into_iter().any(|s| s.label() == name && slice.label.shows(s)),
        GroupKind::Size => {
            SIZES_ML.iter().any(|(size, from, to)| *size == name && (*from..*to).contains(&blood(slice)))
        }
    };
    let (mut dices, mut pairs) = (Vec::new(), Vec::new());
    let (mut bleeding_slices, mut called) = (0, 0);
    for (study, slices) in studies.iter().zip(&outcome.studies) {
        let (mut study_dices, mut study_pairs) = (Vec::new(), Vec::new());
        for (facts, slice) in study.slices.iter().zip(slices) {
            if !facts.label.any() {
                study_pairs.push((slice.score, false));
            } else if is_in(study, facts) {
                study_pairs.push((slice.score, true));
                study_dices.push(dice_of(mask_of(slice, facts.truth_pixels)));
                bleeding_slices += 1;
                called += usize::from(slice.called);
            }
        }
        dices.push(study_dices);
        pairs.push(study_pairs);
    }
    #[expect(clippy::cast_precision_loss, reason = "slice counts")]
    let recall = (bleeding_slices > 0).then(|| called as f64 / bleeding_slices as f64);
    GroupFigures { kind, name, bleeding_slices, recall, auc: area(&pairs), dice: summary_over_studies(&dices) }
}

#[expect(clippy::cast_precision_loss, reason = "pixel counts")]
fn blood(slice: &SliceFacts) -> f64 {
    slice.truth_pixels as f64 * slice.pixel_ml
}
