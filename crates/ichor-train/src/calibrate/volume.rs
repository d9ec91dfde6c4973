//! How far the volume of a study's masks is off, from the validation studies.

use ichor_core::VolumeUncertainty;

use super::Thresholds;
use crate::measure::{Method, StudyMeasure, Trial};
use crate::metrics::OverlapCurve;

/// Fewest studies from which an uncertainty can be told.
const FEWEST: usize = 8;

/// The uncertainty under which the errors of positive studies are the likeliest (normal errors). `studies` are calibrated
/// and consistent; `None` if too few of them bleed and are found.
pub(super) fn fit(studies: &[StudyMeasure], thresholds: &Thresholds, trial: &Trial) -> Option<VolumeUncertainty> {
    let index = Method::ALL.iter().position(|method| *method == thresholds.served)?;
    let bin = OverlapCurve::bin_of(thresholds.maps.get(&thresholds.served).copied()?);
    let refine = thresholds.refine.get(&thresholds.served);
    let option = refine.and_then(|chosen| trial.0[index].iter().position(|options| options == chosen));
    // Beyond the trial there is no refined mask, and the plain one counts.
    let option = option.unwrap_or(usize::MAX);
    let volume = |study: &StudyMeasure| -> f64 {
        let called = study.slices.iter().filter(|slice| slice.probability >= thresholds.slice_probability);
        called
            .filter_map(|slice| slice.final_counts(index, option, bin).map(|(_, n, _)| n as f64 * slice.pixel_ml))
            .sum()
    };
    let pairs: Vec<(f64, f64)> = studies
        .iter()
        .filter(|study| study.positive())
        .map(|study| (volume(study), study.truth_ml))
        .filter(|(volume, _)| *volume > 0.0)
        .collect();
    (pairs.len() >= FEWEST).then(|| likeliest(&pairs))
}

fn likeliest(pairs: &[(f64, f64)]) -> VolumeUncertainty {
    let mut best = (f64::NEG_INFINITY, VolumeUncertainty { floor_ml: 1.0, share: 0.5 });
    for floor in 0..40 {
        for share in 0..40 {
            let tried = VolumeUncertainty { floor_ml: 0.1 * 1.12f64.powi(floor), share: 0.02 * 1.12f64.powi(share) };
            let log_likelihood: f64 = pairs
                .iter()
                .map(|(volume, truth)| {
                    let sd = tried.sd_ml(*volume);
                    -sd.ln() - 0.5 * ((truth - volume) / sd).powi(2)
                })
                .sum();
            if log_likelihood > best.0 {
                best = (log_likelihood, tried);
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn finds_the_spread_of_errors() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(9);
        let normal = |rng: &mut rand_chacha::ChaCha8Rng| (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let pairs: Vec<(f64, f64)> = (0..3000)
            .map(|_| {
                let volume: f64 = rng.random_range(0.5..60.0);
                let sd = (1.5f64.powi(2) + (0.3 * volume).powi(2)).sqrt();
                (volume, volume + sd * normal(&mut rng))
            })
            .collect();
        let found = likeliest(&pairs);
        assert!((found.floor_ml / 1.5 - 1.0).abs() < 0.3 && (found.share / 0.3 - 1.0).abs() < 0.1, "{found:?}");
    }
}
