//! When slices that have arrived are reason enough for an alert.

use ichor_core::{SliceReading, Uid};
use ichor_store::{ArrivedSlice, Timestamp};

/// Settings of the alert.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlertOptions {
    /// Neighbouring slices that must be suspicious.
    pub slices: usize,
    /// A slice is suspicious from this probability on; `None`: the active model's own threshold.
    pub threshold: Option<f32>,
    /// Slices that have arrived are neighbours up to this distance, in mm: what lies between them may be to come.
    pub max_gap_mm: f64,
}

/// Neighbouring slices that are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Suspicious {
    /// In order along the patient.
    pub(super) slices: Vec<Uid>,
    /// The lowest of their probabilities.
    pub(super) probability: f32,
    /// When the first of them to arrive was recorded.
    pub(super) first_received_at: Timestamp,
}

/// Positions closer than this are the same, in mm: a slice that came in two copies is no neighbour of itself.
const SAME_POSITION_MM: f64 = 1e-3;

/// The longest run of neighbouring slices that are suspicious, if it is long enough. `slices` in order along the
/// patient; their probabilities are read together first, as those of a whole study are.
pub(super) fn suspicious(
    mut slices: Vec<ArrivedSlice>,
    reading: &SliceReading,
    options: &AlertOptions,
    threshold: f32,
) -> Option<Suspicious> {
    slices.dedup_by(|later, kept| later.height_mm - kept.height_mm < SAME_POSITION_MM);
    let said: Vec<f32> = slices.iter().map(|slice| slice.probability).collect();
    let heights: Vec<f64> = slices.iter().map(|slice| slice.height_mm).collect();
    let probabilities = reading.read(&said, &heights);
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for index in (0..slices.len()).filter(|index| probabilities[*index] >= threshold) {
        match runs.last_mut() {
            Some(run) if run.end == index && heights[index] - heights[index - 1] <= options.max_gap_mm => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    let longest =
        runs.into_iter().filter(|run| run.len() >= options.slices.max(1)).max_by_key(ExactSizeIterator::len)?;
    Some(Suspicious {
        slices: slices[longest.clone()].iter().map(|slice| slice.sop_instance.clone()).collect(),
        probability: probabilities[longest.clone()].iter().copied().fold(1.0, f32::min),
        first_received_at: slices[longest].iter().map(|slice| slice.received_at).min()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPTIONS: AlertOptions = AlertOptions { slices: 3, threshold: None, max_gap_mm: 10.0 };

    fn arrived(slices: &[(f64, f32)]) -> Vec<ArrivedSlice> {
        let slice = |(number, (height_mm, probability)): (usize, &(f64, f32))| ArrivedSlice {
            sop_instance: Uid::derive(["slice", &number.to_string()]),
            // The last one in the list came first.
            received_at: Timestamp::from_millis(1_000 - i64::try_from(number).unwrap()),
            probability: *probability,
            height_mm: *height_mm,
        };
        slices.iter().enumerate().map(slice).collect()
    }

    #[test]
    fn three_neighbours_are_needed() {
        let run = |slices: &[(f64, f32)]| suspicious(arrived(slices), &SliceReading::default(), &OPTIONS, 0.5);
        assert_eq!(run(&[]), None);
        assert_eq!(run(&[(0.0, 0.9), (5.0, 0.9)]), None);
        assert_eq!(run(&[(0.0, 0.9), (5.0, 0.9), (10.0, 0.4), (15.0, 0.9)]), None);
        let found = run(&[(0.0, 0.1), (5.0, 0.9), (10.0, 0.5), (15.0, 0.7), (20.0, 0.2)]).unwrap();
        assert_eq!((found.slices.len(), found.probability), (3, 0.5));
        assert_eq!(found.first_received_at, Timestamp::from_millis(997), "the first to arrive, not the lowest");
        // What lies between has not come yet.
        assert_eq!(run(&[(0.0, 0.9), (5.0, 0.9), (30.0, 0.9), (35.0, 0.9)]), None);
        assert!(run(&[(0.0, 0.9), (5.0, 0.9), (15.0, 0.9)]).is_some());
        // One slice in three copies.
        assert_eq!(run(&[(0.0, 0.9), (0.0, 0.9), (0.0005, 0.9), (5.0, 0.9)]), None);
    }

    #[test]
    fn a_slice_that_its_neighbours_contradict_is_noise() {
        let slices = arrived(&[(0.0, 0.02), (2.0, 0.6), (4.0, 0.6), (6.0, 0.6), (8.0, 0.02)]);
        assert!(suspicious(slices.clone(), &SliceReading::default(), &OPTIONS, 0.5).is_some());
        assert!(
            suspicious(slices, &SliceReading { reach_mm: 4.0, ..SliceReading::default() }, &OPTIONS, 0.5).is_none()
        );
    }

    proptest! {
        /// The longest run of neighbours is found, and none that is too short.
        #[test]
        fn longest_run_is_found(said in proptest::collection::vec((0.01f64..4.0, 0.0f32..1.0), 0..40), gap in 1.0f64..6.0) {
            let mut height = 0.0;
            let slices: Vec<(f64, f32)> = said
                .iter()
                .map(|(step, probability)| {
                    height += step * 2.0;
                    (height, *probability)
                })
                .collect();
            let (mut longest, mut here) = (0, 0);
            for (index, (height, probability)) in slices.iter().enumerate() {
                let follows = index > 0 && height - slices[index - 1].0 <= gap;
                here = if *probability < 0.5 { 0 } else if follows { here + 1 } else { 1 };
                longest = longest.max(here);
            }
            let options = AlertOptions { max_gap_mm: gap, ..OPTIONS };
            let found = suspicious(arrived(&slices), &SliceReading::default(), &options, 0.5);
            let length = found.as_ref().map_or(0, |found| found.slices.len());
            prop_assert_eq!(length, if longest >= 3 { longest } else { 0 });
            prop_assert!(found.is_none_or(|found| found.probability >= 0.5));
        }
    }
}
