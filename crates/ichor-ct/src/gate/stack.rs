//! Rules that only the slices of a series together can answer.

use std::ops::Range;

use ichor_core::Reason;

use super::{GateOptions, GateRule, Judgement};
use crate::volume::Stack;

/// Neighbours on either side by which a distance is judged.
const AROUND: usize = 4;
/// As many slices may lie apart and be left out, …
const MOST_STRAYS: usize = 2;
/// … or one in so many.
const STRAYS_OF: usize = 20;

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
    let coverage_mm = stack.slices.iter().map(|slice| slice.slab_mm).sum();
    let mut extent = Extent { coverage_mm, ..Extent::default() };
    for Step { distance, usual, missing } in steps(stack) {
        extent.spacing_mm = extent.spacing_mm.max(usual);
        if missing > 0 && distance > extent.gap_mm {
            (extent.missing, extent.gap_mm) = (missing, distance);
        }
    }
    extent
}

/// From one slice to the next, in mm.
struct Step {
    distance: f64,
    /// The distance that is usual around it.
    usual: f64,
    /// Slices that are missing between the two.
    missing: u32,
}

fn steps(stack: &Stack) -> Vec<Step> {
    let distances: Vec<f64> = stack.slices.windows(2).map(|pair| pair[1].offset_mm - pair[0].offset_mm).collect();
    let step = |(index, distance): (usize, &f64)| {
        let before = &distances[index.saturating_sub(AROUND)..index];
        let after = &distances[index + 1..(index + 1 + AROUND).min(distances.len())];
        let mut around: Vec<f64> = before.iter().chain(after).copied().collect();
        around.sort_by(f64::total_cmp);
        let usual = around.get(around.len() / 2).copied().unwrap_or(*distance);
        Step { distance: *distance, usual, missing: ((distance / usual).round() as u32).saturating_sub(1) }
    };
    distances.iter().enumerate().map(step).collect()
}

/// Leaves out slices that lie alone, beyond a gap that the gate does not accept, by name: one wrong position must not cost
/// the series. Where more than a few lie apart, the stack stays as it is, and the gap decides.
pub(crate) fn without_strays(stack: Stack, options: &GateOptions) -> Stack {
    let mut runs: Vec<Range<usize>> = Vec::new();
    runs.push(0..1);
    for (index, step) in steps(&stack).iter().enumerate() {
        match runs.last_mut() {
            Some(run) if step.missing <= options.max_missing_slices => run.end = index + 2,
            _ => runs.push(index + 1..index + 2),
        }
    }
    let Some(largest) = runs.iter().max_by_key(|run| run.len()).cloned() else { return stack };
    let apart = stack.slices.len().saturating_sub(largest.len());
    if apart == 0 || apart > MOST_STRAYS.max(stack.slices.len() / STRAYS_OF) {
        return stack;
    }
    let (mut kept, mut left_out) = (Vec::with_capacity(largest.len()), stack.left_out);
    for (index, slice) in stack.slices.into_iter().enumerate() {
        if largest.contains(&index) {
            kept.push(slice.header);
        } else {
            let frame = slice.header.frame.map_or_else(String::new, |frame| format!("frame {frame} "));
            let text = format!("{frame}lies apart from the rest of the series, across a gap");
            left_out.push((slice.header.sop_instance, Reason::new("stray-position", text)));
        }
    }
    let mut stack = Stack::new(kept);
    stack.left_out.extend(left_out);
    stack
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
