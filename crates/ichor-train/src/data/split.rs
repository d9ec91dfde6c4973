//! Who is trained on and who is held out: by patient, stratified by bleeding slices, written down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::catalogue::Scan;
use super::recipe::{Part, SplitRecipe};
use crate::seeds::derive;

/// A split cannot be made or taken up.
#[derive(Debug, Error)]
pub enum PatientSplitError {
    /// The file cannot be read or written.
    #[error("split {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The file is no split.
    #[error("split {}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A patient stands on two sides.
    #[error("split {}: patient {patient} stands in {first:?} and in {second:?}", path.display())]
    Leak {
        /// The file.
        path: PathBuf,
        /// Who.
        patient: String,
        /// One side.
        first: Part,
        /// The other.
        second: Part,
    },
    /// The file was made with other settings.
    #[error("split {} was made with other settings; remove it, or give another output folder", .0.display())]
    OtherSettings(PathBuf),
    /// A patient of the data is not in the file.
    #[error("split {} does not know patient {patient}; remove it to divide anew", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// Who.
        patient: String,
    },
    /// There are fewer patients than sides.
    #[error("{patients} patients cannot be divided into {folds} folds")]
    TooFew {
        /// Patients.
        patients: usize,
        /// Folds asked for.
        folds: usize,
    },
    /// A side lacks a class.
    #[error("the {part:?} part has no {class} slice among those of its {patients} patients")]
    EmptyClass {
        /// The side.
        part: Part,
        /// `bleeding` or `clean`.
        class: &'static str,
        /// Patients of the side.
        patients: usize,
    },
}

/// Every patient's side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// How it was made.
    pub settings: SplitRecipe,
    /// In the order of their names.
    pub patients: Vec<Assigned>,
}

/// One patient's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assigned {
    /// Who; the catalogue's name for the patient.
    pub patient: String,
    /// Fold, from 0.
    pub fold: usize,
    /// The side.
    pub part: Part,
    /// Labelled slices.
    pub slices: usize,
    /// Those that bleed.
    pub bleeding: usize,
}

impl Split {
    /// Divides patients. Those with alike numbers of bleeding slices are dealt out in turn, in an order that the seed decides.
    ///
    /// # Errors
    /// [`PatientSplitError::TooFew`].
    pub fn make(scans: &[Scan], settings: SplitRecipe) -> Result<Self, PatientSplitError> {
        let mut patients: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for scan in scans {
            let (slices, bleeding) = patients.entry(&scan.patient).or_default();
            *slices += scan.slices.len();
            *bleeding += scan.positive();
        }
        if patients.len() < settings.folds.max(3) {
            return Err(PatientSplitError::TooFew { patients: patients.len(), folds: settings.folds.max(3) });
        }
        let count = |name: &&str| patients.get(*name).map_or(0, |(_, bleeding)| *bleeding);
        let folds = dealt(patients.keys().copied().collect(), count, settings.folds, derive(settings.seed, &[1]));
        let rest: Vec<&str> = patients.keys().copied().filter(|name| folds[name] != settings.fold).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share within 0.01..0.5")]
        let turns = (1.0 / settings.validation_share).round() as usize;
        let turns = turns.min(rest.len());
        let second = dealt(rest, count, turns, derive(settings.seed, &[2, settings.fold as u64]));
        let assigned = patients.iter().map(|(&patient, &(slices, bleeding))| Assigned {
            patient: patient.to_owned(),
            fold: folds[patient],
            part: match second.get(patient) {
                None => Part::Test,
                Some(0) => Part::Validation,
                Some(_) => Part::Training,
            },
            slices,
            bleeding,
        });
        Ok(Self { settings, patients: assigned.collect() })
    }

    /// The split that stands in `path`, or a new one that is written there.
    ///
    /// # Errors
    /// [`PatientSplitError`]: what stands there leaks, was made otherwise, or does not know a patient.
    pub fn read_or_make(path: &Path, scans: &[Scan], settings: SplitRecipe) -> Result<Self, PatientSplitError> {
        let io = |source| PatientSplitError::Io { path: path.to_owned(), source };
        let syntax = |source| PatientSplitError::Syntax { path: path.to_owned(), source };
        match fs::read(path) {
            Ok(text) => {
                let split: Self = serde_json::from_slice(&text).map_err(syntax)?;
                split.check(path, scans, settings)?;
                Ok(split)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let split = Self::make(scans, settings)?;
                let text = serde_json::to_string_pretty(&split).map_err(syntax)? + "\n";
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder).map_err(io)?;
                }
                let partial = path.with_extension("json.partial");
                fs::write(&partial, text).and_then(|()| fs::rename(&partial, path)).map_err(io)?;
                Ok(split)
            }
            Err(error) => Err(io(error)),
        }
    }

    fn check(&self, path: &Path, scans: &[Scan], settings: SplitRecipe) -> Result<(), PatientSplitError> {
        let mut seen: BTreeMap<&str, Part> = BTreeMap::new();
        for Assigned { patient, part, .. } in &self.patients {
            if let Some(first) = seen.insert(patient, *part).filter(|first| first != part) {
                let (path, patient, second) = (path.to_owned(), patient.clone(), *part);
                return Err(PatientSplitError::Leak { path, patient, first, second });
            }
        }
        if self.settings != settings {
            return Err(PatientSplitError::OtherSettings(path.to_owned()));
        }
        match scans.iter().find(|scan| !seen.contains_key(scan.patient.as_str())) {
            Some(scan) => Err(PatientSplitError::Unknown { path: path.to_owned(), patient: scan.patient.clone() }),
            None => Ok(()),
        }
    }

    /// Indices of the part's scans.
    ///
    /// # Errors
    /// [`PatientSplitError::EmptyClass`] if none of their slices bleeds, or all do.
    pub fn scans(&self, scans: &[Scan], part: Part) -> Result<Vec<usize>, PatientSplitError> {
        let ours = self.patients.iter().filter(|assigned| part == Part::All || assigned.part == part);
        let ours: BTreeSet<&str> = ours.map(|assigned| assigned.patient.as_str()).collect();
        let chosen: Vec<usize> = (0..scans.len()).filter(|&at| ours.contains(scans[at].patient.as_str())).collect();
        let bleeding: usize = chosen.iter().map(|&at| scans[at].positive()).sum();
        let all: usize = chosen.iter().map(|&at| scans[at].slices.len()).sum();
        for (class, count) in [("bleeding", bleeding), ("clean", all - bleeding)] {
            if count == 0 {
                return Err(PatientSplitError::EmptyClass { part, class, patients: ours.len() });
            }
        }
        Ok(chosen)
    }
}

/// Deals names out to `hands`: those of like count after one another, each round in an order of its own.
fn dealt(mut names: Vec<&str>, count: impl Fn(&&str) -> usize, hands: usize, seed: u64) -> BTreeMap<&str, usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    names.shuffle(&mut rng);
    names.sort_by_key(|name| std::cmp::Reverse(count(name)));
    let mut order: Vec<usize> = (0..hands.max(1)).collect();
    let mut dealt = BTreeMap::new();
    for round in names.chunks(hands.max(1)) {
        order.shuffle(&mut rng);
        dealt.extend(round.iter().copied().zip(order.iter().copied()));
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::catalogue::{Place, ScanSlice};
    use crate::labels::SliceLabel;

    /// Two scans each of `patients` patients, the n-th with n mod 7 bleeding slices of 10 in each.
    fn scans(patients: usize) -> Vec<Scan> {
        let slice = |n: usize, at: usize| ScanSlice {
            label: if at < n % 7 { SliceLabel::UNSPECIFIED } else { SliceLabel::NONE },
            place: Place::Volume(at),
        };
        let scan = |n: usize, which: usize| Scan {
            patient: format!("p{n}"),
            name: format!("{n}-{which}"),
            volume: None,
            slices: (0..10).map(|at| slice(n, at)).collect(),
        };
        (0..patients).flat_map(|n| [scan(n, 0), scan(n, 1)]).collect()
    }

    #[test]
    fn patients_stay_whole_and_bleeding_is_spread_evenly() {
        let scans = scans(70);
        let settings = SplitRecipe { folds: 5, ..SplitRecipe::default() };
        let mut tested = Vec::new();
        for fold in 0..5 {
            let split = Split::make(&scans, SplitRecipe { fold, ..settings }).unwrap();
            let parts = [Part::Training, Part::Validation, Part::Test].map(|part| split.scans(&scans, part).unwrap());
            let mut all = parts.concat();
            all.sort_unstable();
            assert_eq!(all, (0..scans.len()).collect::<Vec<_>>(), "everyone once");
            let patients = |part: &[usize]| part.iter().map(|&at| &scans[at].patient).collect::<BTreeSet<_>>();
            assert!(patients(&parts[0]).is_disjoint(&patients(&parts[2])));
            assert!(patients(&parts[0]).is_disjoint(&patients(&parts[1])));
            let bleeding: usize = parts[2].iter().map(|&at| scans[at].positive()).sum();
            assert!((bleeding as i64 - 84).abs() <= 12, "fold {fold} has {bleeding} of 420 bleeding slices");
            assert!((5..=7).contains(&patients(&parts[1]).len()));
            tested.extend(parts[2].clone());
        }
        tested.sort_unstable();
        assert_eq!(tested, (0..scans.len()).collect::<Vec<_>>(), "the folds' test parts are everyone, once");
        assert_eq!(Split::make(&scans, settings).unwrap(), Split::make(&scans, settings).unwrap());
        let other = Split::make(&scans, SplitRecipe { seed: 2, ..settings }).unwrap();
        assert_ne!(other.patients, Split::make(&scans, settings).unwrap().patients);
    }

    #[test]
    fn what_was_written_is_taken_up_and_a_leak_is_refused() {
        let (folder, scans, settings) = (tempfile::tempdir().unwrap(), scans(30), SplitRecipe::default());
        let path = folder.path().join("run/split.json");
        let made = Split::read_or_make(&path, &scans, settings).unwrap();
        assert_eq!(Split::read_or_make(&path, &scans, settings).unwrap(), made);
        let error = |scans: &[Scan], settings| Split::read_or_make(&path, scans, settings).unwrap_err();
        let others = SplitRecipe { seed: 9, ..settings };
        assert!(matches!(error(&scans, others), PatientSplitError::OtherSettings(_)));
        let mut more = scans.clone();
        more[0].patient = "new".to_owned();
        assert!(matches!(error(&more, settings), PatientSplitError::Unknown { patient, .. } if patient == "new"));
        let mut leaking = made.clone();
        let twice = leaking.patients.iter().find(|a| a.part == Part::Training).unwrap().clone();
        leaking.patients.push(Assigned { part: Part::Test, ..twice });
        fs::write(&path, serde_json::to_vec(&leaking).unwrap()).unwrap();
        assert!(matches!(error(&scans, settings), PatientSplitError::Leak { .. }));
        fs::write(&path, "{}").unwrap();
        assert!(matches!(error(&scans, settings), PatientSplitError::Syntax { .. }));
    }

    #[test]
    fn a_side_without_a_class_is_an_error() {
        let mut scans = scans(20);
        let settings = SplitRecipe::default();
        assert!(matches!(
            Split::make(&scans[..4], settings),
            Err(PatientSplitError::TooFew { patients: 2, folds: 10 })
        ));
        scans.iter_mut().flat_map(|scan| &mut scan.slices).for_each(|slice| slice.label = SliceLabel::NONE);
        let split = Split::make(&scans, settings).unwrap();
        let error = split.scans(&scans, Part::Validation).unwrap_err();
        assert!(matches!(error, PatientSplitError::EmptyClass { class: "bleeding", .. }), "{error}");
    }
}
