//! Which phantoms the shipped weights call positive, and which negative.
//!
//! The scenarios are about what happens to a verdict, not about the verdict, and weights are retrained: so the suite
//! asks the weights themselves, once, by sending them candidates.

use std::sync::OnceLock;

use super::daemon::{Daemon, Settings};
use super::part10;
use super::raw::RawAssociation;
use super::seconds;
use super::study::{Phantom, Study};

/// Candidates that are tried at once, and how often.
const BATCH: u64 = 4;
const BATCHES: u64 = 5;

/// Two bleeding phantoms that the weights call positive, evenly spaced.
pub(crate) fn called_positive() -> [Phantom; 2] {
    static FOUND: OnceLock<[Phantom; 2]> = OnceLock::new();
    *FOUND.get_or_init(|| first_called(true, 2).try_into().unwrap())
}

/// A phantom without bleed that the weights call negative.
pub(crate) fn called_negative() -> Phantom {
    static FOUND: OnceLock<Phantom> = OnceLock::new();
    *FOUND.get_or_init(|| first_called(false, 1)[0])
}

fn first_called(positive: bool, wanted: usize) -> Vec<Phantom> {
    let daemon = Daemon::start(&Settings { quiet_period_s: 0.2, ..Settings::default() });
    let mut found = Vec::new();
    for batch in 0..BATCHES {
        let candidates: Vec<(Phantom, Study)> = (0..BATCH)
            .map(|index| {
                let seed = Phantom::BLEEDING.seed + batch * BATCH + index;
                let phantom = Phantom { positive, seed, ..Phantom::BLEEDING };
                (phantom, phantom.write(&daemon.folder(&format!("candidate-{seed}"))))
            })
            .filter(|(_, study)| is_even(study))
            .collect();
        for (_, study) in &candidates {
            let mut association = RawAssociation::open(daemon.port).unwrap();
            for instance in &study.instances {
                assert_eq!(association.store(instance).unwrap().code, 0);
            }
            association.release().unwrap();
        }
        for (phantom, study) in candidates {
            let entry = daemon.wait_for_status(&study.study_uid, "analysed", seconds(60));
            if entry["positive"] == positive {
                found.push(phantom);
            }
        }
        if found.len() >= wanted {
            found.truncate(wanted);
            return found;
        }
    }
    panic!("of {} phantoms the weights called {} positive = {positive}", BATCH * BATCHES, found.len());
}

/// Whether the slices are all at one distance.
fn is_even(study: &Study) -> bool {
    let z: Vec<f64> = study.instances.iter().map(|instance| part10::position(&instance.path)[2]).collect();
    let steps: Vec<f64> = z.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.iter().all(|step| (step - steps[0]).abs() < 0.01)
}
