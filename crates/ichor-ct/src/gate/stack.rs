//! Rules that only the slices of a series together can answer.

use ichor_core::Reason;

use super::{GateOptions, GateRule, Judgement};
use crate::volume::Stack;

/// Neighbours on either side by which a distance is judged.
const AROUND: usize = 4;

/// How a stack lies along its normal, all in mm.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Extent {
    /// What the slices stand for together.
    pub coverage_mm: f64,
    /// The distance that slices keep, where it is largest; a single gap does not count.
    pub spacing_mm: f64,
    /// Slices that are missing in the largest gap, by the distances around it.
    pub missing: u32,
    /// The largest gap, from slice to slice; 0 where nothing is missing.
    pub gap_mm: f64,
}

/// Measures a stack.
///
/// Scans change their spacing on the way (2.5 mm at the base, 5 mm above), so a distance is judged by those around it:
/// the upper median of up to four on either side. What is longer than that by a slice or more is a gap.
#[must_use]
pub fn extent(stack: &Stack) -> Extent {
    let distances: Vec<f64> = stack.slices.windows(2).map(|pair| pair[1].offset_mm - pair[0].offset_mm).collect();
    let mut extent = Extent { coverage_mm: stack.slices.iter().map(|slice| slice.slab_mm).sum(), ..Extent::default() };
    for (index, distance) in distances.iter().enumerate() {
        let before = &distances[index.saturating_sub(AROUND)..index];
        let after = &distances[index + 1..(index + 1 + AROUND).min(distances.len())];
        let mut around: Vec<f64> = before.iter().chain(after).copied().collect();
        around.sort_by(f64::total_cmp);
        let usual = around.get(around.len() / 2).copied().unwrap_or(*distance);
        extent.spacing_mm = extent.spacing_mm.max(usual);
        let missing = (distance / usual).round() as u32;
        if missing > 1 && *distance > extent.gap_mm {
            (extent.missing, extent.gap_mm) = (missing - 1, *distance);
        }
    }
    extent
}

/// Asks a rule of a stack; `None`: each instance answers it for itself.
pub(crate) fn judge_stack(rule: GateRule, count: usize, extent: &Extent, options: &GateOptions) -> Option<Judgement> {
    let Extent { coverage_mm, spacing_mm, missing, gap_mm } = *extent;
    let (holds, code, said, limit) = match rule {
        GateRule::Slices => {
            let limit = format!("at least {} are needed", options.min_slices);
            (count >= options.min_slices, "too-few-slices", format!("{count} usable slices"), limit)
        }
        GateRule::Coverage => {
            let limit = format!("at least {} are needed", options.min_coverage_mm);
            let holds = coverage_mm >= options.min_coverage_mm;
            (holds, "coverage-too-small", format!("the slices cover {coverage_mm:.0} mm"), limit)
        }
        GateRule::Spacing => {
            let limit = format!("at most {} are accepted", options.max_spacing_mm);
            // Tables move in steps of a hundredth of a millimetre.
            let holds = spacing_mm <= options.max_spacing_mm + 0.01;
            (holds, "slices-too-far-apart", format!("slices lie up to {spacing_mm:.2} mm apart"), limit)
        }
        GateRule::Gaps if missing == 0 => return Some(Judgement::Passed("no slice is missing".to_owned())),
        GateRule::Gaps => {
            let limit = format!("at most {} may be", options.max_missing_slices);
            let said = format!("{missing} slices are missing in a gap of {gap_mm:.1} mm");
            (missing <= options.max_missing_slices, "slices-missing", said, limit)
        }
        _ => return None,
    };
    Some(match holds {
        true => Judgement::Passed(said),
        false => Judgement::Failed(Reason::new(code, format!("{said}, {limit}"))),
    })
}
