//! A second look at held-out phantoms, once thresholds are fixed: surface distances need masks, which the measures do not
//! keep, and pictures need pixels.

use std::path::Path;

use ichor_ct::refine::Tissue;
use rayon::prelude::*;

use super::attribution::{id, refined_id, served_id};
use super::cases::{CasePicture, CaseRef, CaseSlice, choose_cases, draw_case};
use super::input::StudyFacts;
use crate::calibrate::Thresholds;
use crate::evaluate::{EvaluateError, Subject, stack_brains};
use crate::maps::all_maps;
use crate::measure::Method;
use crate::metrics::hausdorff95_mm;
use crate::outcome::MethodOutcome;
use crate::phantoms::{PhantomError, PhantomMix, generator_fingerprint};
use crate::prepared::{PreparedSlice, PreparedStudy, prepare};
use crate::progress::Progress;
use crate::publish::PublishError;

/// Pictures of each kind of case.
const EACH: usize = 4;

/// Slices whose maps are made at once.
const BATCH: usize = 8;

/// What the second look adds.
#[derive(Debug)]
pub struct Retraced {
    /// The outcomes, with the distances of masks on bleeding slices.
    pub outcomes: Vec<MethodOutcome>,
    /// Best and worst cases of the shipped map.
    pub cases: Vec<CasePicture>,
}

/// Looks again at the studies that bleed or are shown: makes them, their maps and masks at the thresholds, measures the
/// masks' distances, and draws the cases of the shipped map.
///
/// `outcomes` must be those of [`super::outcomes`] for `studies`, whose names are seeds of `mix`; `cache` is the folder of
/// prepared studies.
///
/// # Errors
/// [`PublishError`] if phantoms, maps or pictures cannot be made.
pub fn retrace(
    subject: &Subject<'_>,
    mix: &PhantomMix,
    thresholds: &Thresholds,
    studies: &[StudyFacts],
    mut outcomes: Vec<MethodOutcome>,
    cache: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<Retraced, PublishError> {
    let (fingerprint, size, preset) = (generator_fingerprint(), subject.size(), subject.preset);
    let cache = cache.map(|folder| (folder, fingerprint.as_str()));
    let served = outcomes.iter().position(|outcome| outcome.id == served_id(thresholds));
    let chosen = served.map_or_else(Vec::new, |at| choose_cases(studies, &outcomes[at], EACH));
    let is_shown = |index: usize| chosen.iter().any(|case| case.study == index);
    let again: Vec<usize> = (0..studies.len()).filter(|&i| studies[i].positive || is_shown(i)).collect();
    let mut cases = Vec::with_capacity(chosen.len());
    for (done, group) in again.chunks(rayon::current_num_threads().max(1)).enumerate() {
        let made: Vec<PreparedStudy> = group
            .par_iter()
            .map(|&index| prepare(studies[index].name.parse().unwrap_or_default(), mix, preset, size, cache))
            .collect::<Result<_, PhantomError>>()
            .map_err(EvaluateError::from)?;
        for (&index, study) in group.iter().zip(made) {
            let shown: Vec<&CaseRef> = chosen.iter().filter(|case| case.study == index).collect();
            let slices = looks(subject, &study, &shown, thresholds)?;
            for look in &slices {
                add_distances(&mut outcomes, index, look);
            }
            for case in shown {
                let Some(look) = slices.iter().find(|look| look.at == case.slice) else { continue };
                let picture = draw_case(case, &look.case(&served_id(thresholds)), studies, thresholds.served.title())?;
                cases.push((chosen.iter().position(|other| other == case), picture));
            }
        }
        progress.prepared("second look", (done * group.len() + group.len()).min(again.len()), again.len());
    }
    cases.sort_by_key(|(order, _)| *order);
    Ok(Retraced { outcomes, cases: cases.into_iter().map(|(_, picture)| picture).collect() })
}

/// A slice with its masks.
struct Look<'a> {
    /// Which slice of its study.
    at: usize,
    slice: &'a PreparedSlice,
    /// By the outcome's id.
    masks: Vec<(String, Vec<u8>)>,
}

impl Look<'_> {
    fn case(&self, outcome: &str) -> CaseSlice {
        let mask = self.masks.iter().find(|(id, _)| id == outcome);
        CaseSlice {
            rows: self.slice.ready.grid.rows,
            columns: self.slice.ready.grid.columns,
            hu: self.slice.ready.hu.clone(),
            mask: mask.map(|(_, mask)| mask.clone()).unwrap_or_default(),
            truth: self.slice.mask.clone(),
        }
    }
}

/// The masks of the slices that bleed or are shown.
fn looks<'a>(
    subject: &Subject<'_>,
    study: &'a PreparedStudy,
    shown: &[&CaseRef],
    thresholds: &Thresholds,
) -> Result<Vec<Look<'a>>, EvaluateError> {
    let is_wanted = |at: usize| study.slices[at].label.any() || shown.iter().any(|case| case.slice == at);
    let wanted: Vec<usize> = (0..study.slices.len()).filter(|&at| is_wanted(at)).collect();
    let mut looks = Vec::with_capacity(wanted.len());
    for batch in wanted.chunks(BATCH) {
        let ready = || batch.iter().map(|&at| &study.slices[at].ready);
        let (inputs, brains) = (subject.stack(ready())?, stack_brains(ready(), subject)?);
        let maps = all_maps(subject.network, subject.strategy, &inputs, &brains)?;
        let here: Vec<Look<'_>> = batch
            .par_iter()
            .zip(maps)
            .map(|(&at, maps)| Look {
                at,
                slice: &study.slices[at],
                masks: masks(&study.slices[at], &maps, thresholds),
            })
            .collect();
        looks.extend(here);
    }
    Ok(looks)
}

/// The masks of a slice, plain and refined, and the brightness rule's.
fn masks(slice: &PreparedSlice, maps: &[Vec<f32>], thresholds: &Thresholds) -> Vec<(String, Vec<u8>)> {
    let ready = &slice.ready;
    let input = ready.refine_input();
    let tissue = Tissue::new(&input);
    let mut masks = vec![("brightness".to_owned(), ready.bright_mask.clone())];
    for (method, map) in Method::ALL.into_iter().zip(maps) {
        #[expect(clippy::cast_possible_truncation, reason = "a threshold between 0 and 1")]
        let threshold = thresholds.maps.get(&method).copied().unwrap_or(1.0) as f32;
        let plain = ready.grid.mask_to_source(map, threshold, &ready.brain);
        if let Some(options) = thresholds.refine.get(&method) {
            let source = ready.map_on_source(map);
            let refined = tissue.pointed_at(&source).mask(options).unwrap_or_else(|| plain.clone());
            masks.push((refined_id(method), refined));
        }
        masks.push((id(method), plain));
    }
    masks
}

/// Writes the distances of a slice's masks into the outcomes of the methods that made them.
fn add_distances(outcomes: &mut [MethodOutcome], study: usize, look: &Look<'_>) {
    let ready = &look.slice.ready;
    for (id, mask) in &look.masks {
        let outcome = outcomes.iter_mut().find(|outcome| outcome.id == *id);
        let slice = outcome.and_then(|outcome| outcome.studies.get_mut(study)?.get_mut(look.at)?.mask.as_mut());
        if let Some(slice) = slice {
            let (rows, columns) = (ready.grid.rows, ready.grid.columns);
            slice.hausdorff95_mm = hausdorff95_mm(mask, &look.slice.mask, rows, columns, ready.spacing_mm);
        }
    }
}

#[cfg(test)]
mod tests {
    use ichor_core::StudyRule;
    use ichor_ct::input::InputPreset;
    use ichor_model::{Strategy, Swin, SwinConfig, SwinPlan};
    use tch::{Device, nn};

    use super::*;
    use crate::evaluate::measure;
    use crate::measure::Trial;
    use crate::report::{CaseKind, Named, of_phantoms};
    use crate::seeds::SeedRange;

    fn named(rivals: &[MethodOutcome]) -> Named<'_> {
        Named { model: "m@1+0", notice: "for tests", rivals }
    }

    /// A network that has learned nothing, on three small heads: every bleeding slice has a distance or an empty mask, the
    /// masks are those that were measured, and each kind of case has its picture.
    #[test]
    fn bleeding_slices_get_distances_and_pictures() {
        let _alone = crate::draw_alone();
        tch::manual_seed(1);
        let config = SwinConfig {
            img_size: 32,
            patch_size: 4,
            window_size: 4,
            embed_dim: 8,
            depths: vec![2, 2],
            num_heads: vec![2, 4],
            num_classes: 2,
            in_chans: 3,
        };
        let mut store = nn::VarStore::new(Device::Cpu);
        let network = Swin::new(&store.root(), &SwinPlan::check(&config).unwrap());
        store.freeze();
        let (strategy, preset, device) = (Strategy::Categorical, InputPreset::PhysioNet, Device::Cpu);
        let subject = Subject { network: &network, strategy, preset, device };
        let phantoms = PhantomMix {
            positive_share: 0.7,
            matrices: vec![64],
            min_spacing_mm: 8.0,
            bleeds: ichor_phantom::BleedRanges::easy(),
            real_head: None,
        };
        let seeds = SeedRange { first: 40, studies: 3 };
        let trial = Trial::chosen(&std::collections::BTreeMap::new());
        let measures = measure(&subject, seeds, &phantoms, &trial, None, &mut ()).unwrap();
        let maps = Method::ALL.into_iter().map(|method| (method, 0.04)).collect();
        let thresholds =
            Thresholds::plain(0.0, 0.05, StudyRule::Neighbours { slices: 1, threshold: 0.05 }, maps, Method::SwinSam);
        let evaluation =
            of_phantoms(&subject, (seeds, &phantoms), named(&[]), (&measures, &thresholds), None, &mut ()).unwrap();
        assert!(evaluation.counts.positive_studies > 0 && evaluation.counts.bleeding_slices > 0);
        assert_eq!((evaluation.methods.len(), evaluation.served.as_deref()), (5, Some("swin-sam")));
        for method in &evaluation.methods {
            let masks = method.segmentation.unwrap();
            let measured = masks.hausdorff95_mm.map_or(0, |summary| summary.n);
            assert_eq!(measured + masks.without_distance, evaluation.counts.bleeding_slices, "{}", method.id);
        }
        let served = evaluation.served().unwrap().segmentation.unwrap();
        let distance = served.hausdorff95_mm.unwrap();
        assert!(distance.mean > 0.0 && distance.mean < 250.0, "{distance:?}");
        // The second look finds the masks that the first one counted.
        let studies = crate::report::study_facts(&measures, &thresholds, |_| None);
        let outcomes = crate::report::outcomes(&measures, &thresholds);
        let case = choose_cases(&studies, &outcomes[2], 1)[0].clone();
        let again = prepare(measures[case.study].seed, &phantoms, preset, 32, None).unwrap();
        let look = &looks(&subject, &again, &[&case], &thresholds).unwrap();
        let look = look.iter().find(|look| look.at == case.slice).unwrap();
        let drawn = look.case("swin-sam").mask.iter().filter(|value| **value != 0).count();
        let counted = outcomes[2].studies[case.study][case.slice].mask.unwrap().predicted;
        assert!(drawn.abs_diff(counted) <= counted / 100 + 2, "{drawn} {counted}");
        assert!(evaluation.cases.iter().any(|picture| picture.case.kind == CaseKind::Best));
        assert!(evaluation.cases.iter().all(|picture| picture.png.starts_with(b"\x89PNG")));
    }
}
