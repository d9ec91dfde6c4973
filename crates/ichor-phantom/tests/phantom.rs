//! What a phantom promises: the same bytes for the same seed, masks and labels that agree, geometry that holds.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use ichor_core::HemorrhageSubtype;
use ichor_phantom::{BleedPlan, BleedRanges, BleedSpec, Difficulty, Phantom, PhantomOptions, Scene};

fn small(seed: u64, positive: bool) -> PhantomOptions {
    PhantomOptions::random(seed, Some(positive)).with_matrix(96).with_slices(14)
}

fn generate(seed: u64, options: &PhantomOptions) -> Phantom {
    Phantom::generate(seed, options).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_study() {
    for seed in [1, 2, 77] {
        let options = small(seed, seed != 2);
        let (first, second) = (generate(seed, &options), generate(seed, &options));
        assert_eq!(first.slices, second.slices);
        assert_eq!(first.bleeds, second.bleeds);
        let other = generate(seed + 1, &options);
        assert_ne!(first.slices[7].hu, other.slices[7].hu);
    }
}

#[test]
fn one_slice_alone_is_the_slice_of_the_study() {
    let options = small(5, true);
    let phantom = generate(5, &options);
    let scene = Scene::new(5, &options).unwrap();
    assert_eq!(scene.slice_count(), phantom.slices.len());
    for index in [0, 6, 13] {
        assert_eq!(scene.slice(index).unwrap(), phantom.slices[index]);
    }
    assert!(scene.slice(14).is_err());
}

#[test]
fn volume_is_voxels_times_voxel_volume_and_labels_follow_the_mask() {
    for seed in 10..22 {
        let phantom = generate(seed, &small(seed, true));
        let (mut truth_ml, mut by_subtype) = (0.0, [false; 5]);
        for slice in &phantom.slices {
            let voxels = slice.bleed.iter().filter(|b| **b != 0).count() as u64;
            truth_ml += voxels as f64 * slice.plane.spacing[0] * slice.plane.spacing[1] * slice.slab_mm / 1000.0;
            assert_eq!(slice.bleed_pixels(), voxels);
            assert_eq!(slice.is_positive(), voxels > 0);
            for (index, label) in slice.labels().into_iter().enumerate() {
                assert_eq!(label, slice.bleed.contains(&(index as u8 + 1)));
                by_subtype[index] |= label;
            }
            assert!(slice.bleed.iter().zip(&slice.brain).all(|(bleed, brain)| *bleed == 0 || *brain == 1));
        }
        assert!((truth_ml - phantom.truth_ml).abs() < 1e-9, "{truth_ml} against {}", phantom.truth_ml);
        let listed: f64 = phantom.bleeds.iter().map(|b| b.volume_ml).sum();
        assert!((listed - truth_ml).abs() < 1e-9);
        for (index, subtype) in HemorrhageSubtype::ALL.into_iter().enumerate() {
            assert_eq!(
                by_subtype[index],
                phantom.bleeds.iter().any(|b| b.subtype == subtype),
                "seed {seed} {subtype:?}"
            );
        }
    }
}

#[test]
fn positives_bleed_and_negatives_do_not() {
    let mut shown = 0;
    for seed in 100..124 {
        let negative = generate(seed, &small(seed, false));
        assert!(!negative.is_positive() && negative.bleeds.is_empty() && negative.truth_ml == 0.0, "seed {seed}");
        let positive = generate(seed, &small(seed, true));
        shown += usize::from(positive.is_positive());
        assert_eq!(positive.is_positive(), positive.truth_ml > 0.0);
    }
    assert!(shown >= 23, "{shown} of 24 positives show a bleed at 11 mm spacing");
}

#[test]
fn a_head_with_and_without_a_bleed_is_the_same_head() {
    let bleeding = small(33, true);
    let well = bleeding.clone().with_bleeds(BleedPlan::None);
    let (bleeding, well) = (generate(33, &bleeding), generate(33, &well));
    let differing: usize = bleeding
        .slices
        .iter()
        .zip(&well.slices)
        .map(|(a, b)| a.hu.iter().zip(&b.hu).filter(|(a, b)| (**a - **b).abs() > 30).count())
        .sum();
    let voxels = bleeding.slices.len() * 96 * 96;
    assert!(differing > 0 && differing < voxels / 20, "{differing} of {voxels} voxels differ");
    assert!(bleeding.slices.iter().zip(&well.slices).all(|(a, b)| a.brain == b.brain));
}

#[test]
fn each_subtype_reaches_the_volume_asked_for() {
    for (subtype, share) in [
        (HemorrhageSubtype::Epidural, 0.35),
        (HemorrhageSubtype::Subdural, 0.45),
        (HemorrhageSubtype::Intraparenchymal, 0.35),
        (HemorrhageSubtype::Intraventricular, 0.6),
        (HemorrhageSubtype::Subarachnoid, 0.7),
    ] {
        let mut ratios: Vec<f64> = (0..5)
            .map(|seed| {
                let spec = BleedSpec { subtype, volume_ml: 12.0, hu: 68.0 };
                let options = small(seed, true).with_slices(28).with_bleeds(BleedPlan::Listed(vec![spec]));
                generate(seed, &options).truth_ml / 12.0
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        println!("{subtype:?}: {ratios:.2?}");
        assert!((median - 1.0).abs() < share, "{subtype:?}: median {median}, {ratios:.2?}");
    }
}

#[test]
fn blood_has_the_attenuation_asked_for() {
    let spec = BleedSpec { subtype: HemorrhageSubtype::Intraparenchymal, volume_ml: 40.0, hu: 70.0 };
    let phantom = generate(8, &small(8, true).with_bleeds(BleedPlan::Listed(vec![spec])));
    let (mut sum, mut count) = (0.0, 0.0);
    for slice in &phantom.slices {
        for at in 97..slice.hu.len() - 97 {
            let core = [0, 1, 95, 96, 97].iter().all(|by| slice.bleed[at + by] != 0 && slice.bleed[at - by] != 0);
            if core {
                sum += f64::from(slice.hu[at]);
                count += 1.0;
            }
        }
    }
    assert!(count > 50.0, "{count}");
    assert!((sum / count - 70.0).abs() < 6.0, "{}", sum / count);
}

#[test]
fn a_curriculum_goes_from_large_to_small() {
    let easy = |seed: u64| small(seed, true).with_bleeds(BleedPlan::Random(BleedRanges::easy()));
    for seed in 40..48 {
        let phantom = generate(seed, &easy(seed));
        assert!(phantom.bleeds.iter().all(|b| b.difficulty != Difficulty::Hard), "{:?}", phantom.bleeds);
        for slice in phantom.slices.iter().filter(|s| s.is_positive()) {
            assert!(slice.bleed_area_mm2() >= 300.0);
        }
    }
    assert_eq!(Difficulty::of(2.0, 70.0, 12.0), Difficulty::Hard);
    assert_eq!(Difficulty::of(20.0, 45.0, 12.0), Difficulty::Hard);
    assert_eq!(Difficulty::of(20.0, 70.0, 12.0), Difficulty::Easy);
    assert_eq!(Difficulty::of(20.0, 55.0, 12.0), Difficulty::Medium);
}

#[test]
fn planes_step_along_the_table_whatever_the_tilt() {
    for (tilt, uneven) in [(0.0, false), (18.5, false), (-12.0, true)] {
        let options = PhantomOptions {
            tilt_degrees: tilt,
            uneven,
            rows: 48,
            columns: 64,
            slices: 13,
            slice_spacing_mm: 6.0,
            slice_thickness_mm: 6.0,
            ..PhantomOptions::default()
        };
        let phantom = generate(3, &options);
        let cos = f64::to_radians(tilt).cos();
        for (index, pair) in phantom.slices.windows(2).enumerate() {
            let [below, above] = [pair[0].plane, pair[1].plane];
            let step = if uneven && index < 4 { 3.0 } else { 6.0 };
            assert!((above.position[2] - below.position[2] - step).abs() < 1e-9);
            assert_eq!(above.position[..2], below.position[..2]);
            assert!((above.distance_from(&below) - step * cos).abs() < 1e-9);
            assert_eq!((above.row, above.column), (below.row, below.column));
        }
        let plane = phantom.slices[0].plane.checked().unwrap();
        assert_eq!(plane.spacing, [3.75; 2]);
        let extent: f64 = phantom.slices.iter().map(|s| s.slab_mm).sum();
        let travel = if uneven { 4.0 * 3.0 + 8.0 * 6.0 } else { 72.0 };
        assert!((extent - (travel * cos + 6.0)).abs() < 1e-9, "{extent}");
    }
}

/// The tilt is in the pixels, not only in the header: a point of the head lies where the plane says.
#[test]
fn a_tilted_scan_shows_the_same_head() {
    let straight = PhantomOptions {
        rows: 96,
        columns: 96,
        slices: 100,
        slice_spacing_mm: 1.5,
        slice_thickness_mm: 1.5,
        noise_hu: 0.0,
        artefacts: 0.0,
        ..PhantomOptions::default()
    };
    let tilted = PhantomOptions { tilt_degrees: 20.0, ..straight.clone() };
    let (straight, tilted) = (generate(6, &straight), generate(6, &tilted));
    let (mut same, mut asked) = (0u32, 0u32);
    for slice in tilted.slices.iter().skip(20).step_by(9) {
        for at in (0..96 * 96).step_by(7) {
            let point = slice.plane.point((at / 96) as f64, (at % 96) as f64);
            let nearest = straight
                .slices
                .iter()
                .min_by(|a, b| (a.plane.project(point).2).abs().total_cmp(&(b.plane.project(point).2).abs()))
                .unwrap();
            let (row, column, off) = nearest.plane.project(point);
            if off.abs() > 0.75 || !(0.0..95.0).contains(&row) || !(0.0..95.0).contains(&column) {
                continue;
            }
            asked += 1;
            same += u32::from(nearest.brain[row.round() as usize * 96 + column.round() as usize] == slice.brain[at]);
        }
    }
    assert!(asked > 5000 && f64::from(same) > 0.985 * f64::from(asked), "{same} of {asked}");
}

/// A thick slice is the mean of thin ones, blood and bone included.
#[test]
fn thick_slices_average_what_lies_within_them() {
    let spec = BleedSpec { subtype: HemorrhageSubtype::Subdural, volume_ml: 40.0, hu: 75.0 };
    let thin = PhantomOptions {
        rows: 128,
        columns: 128,
        slices: 58,
        slice_spacing_mm: 2.0,
        slice_thickness_mm: 1.0,
        noise_hu: 0.0,
        blur_mm: 0.0,
        artefacts: 0.0,
        bleeds: BleedPlan::Listed(vec![spec]),
        ..PhantomOptions::default()
    };
    let thick = PhantomOptions { slices: 20, slice_spacing_mm: 6.0, slice_thickness_mm: 6.0, ..thin.clone() };
    let (thin, thick) = (generate(14, &thin), generate(14, &thick));
    let (mut differing, mut voxels) = (0, 0);
    for (index, slice) in thick.slices.iter().enumerate().skip(1).take(18) {
        let parts = &thin.slices[3 * index - 1..=3 * index + 1];
        assert!((parts[1].plane.position[2] - slice.plane.position[2]).abs() < 1e-9);
        for at in 0..slice.hu.len() {
            let mean = parts.iter().map(|p| f32::from(p.hu[at])).sum::<f32>() / 3.0;
            let all = parts.iter().all(|p| p.bleed[at] != 0);
            let none = parts.iter().all(|p| p.bleed[at] == 0);
            assert!(!all || slice.bleed[at] != 0, "blood in all parts and not in the whole");
            assert!(!none || slice.bleed[at] == 0, "blood in no part and in the whole");
            voxels += 1;
            differing += u32::from((mean - f32::from(slice.hu[at])).abs() > 6.0);
        }
    }
    assert!(differing * 200 < voxels, "{differing} of {voxels} voxels differ");
}

#[test]
fn a_head_looks_like_one() {
    let options = small(12, false).with_matrix(128).with_slices(30);
    let phantom = generate(12, &options);
    let mut brain_ml = 0.0;
    let (mut tissue, mut air, mut bone) = (0u32, 0u32, 0u32);
    for slice in &phantom.slices {
        brain_ml += slice.brain.iter().filter(|b| **b != 0).count() as f64 * slice.voxel_ml();
        for (hu, brain) in slice.hu.iter().zip(&slice.brain) {
            tissue += u32::from(*brain != 0 && (10..60).contains(hu));
            air += u32::from(*brain == 0 && *hu < -900);
            bone += u32::from(*brain == 0 && *hu > 300);
        }
    }
    assert!((900.0..1900.0).contains(&brain_ml), "{brain_ml} mL within the skull");
    assert!(tissue > 20_000 && air > 100_000 && bone > 10_000, "{tissue} {air} {bone}");
}

#[test]
fn impossible_options_are_refused_by_name() {
    let cases: Vec<(&str, PhantomOptions)> = vec![
        ("rows and columns", PhantomOptions { rows: 0, ..PhantomOptions::default() }),
        ("slices", PhantomOptions { slices: 0, ..PhantomOptions::default() }),
        ("fov_mm", PhantomOptions { fov_mm: f64::NAN, ..PhantomOptions::default() }),
        ("tilt_degrees", PhantomOptions { tilt_degrees: 60.0, ..PhantomOptions::default() }),
        ("bleeds", PhantomOptions { bleeds: BleedPlan::Listed(Vec::new()), ..PhantomOptions::default() }),
        (
            "bleeds",
            PhantomOptions {
                bleeds: BleedPlan::Random(BleedRanges { volume_ml: [5.0, 1.0], ..BleedRanges::default() }),
                ..PhantomOptions::default()
            },
        ),
    ];
    for (name, options) in cases {
        let error = Phantom::generate(1, &options).unwrap_err().to_string();
        assert!(error.contains(name), "{error} does not name {name}");
    }
}

/// Prints what a slice costs; the bound only catches a generator that became useless for training.
#[test]
fn a_slice_takes_milliseconds() {
    let options = PhantomOptions::random(9, Some(true)).with_matrix(192).with_spacing(10.0);
    let scene = Scene::new(9, &options).unwrap();
    let start = std::time::Instant::now();
    let count = scene.slice_count();
    (0..count).for_each(|index| drop(scene.slice(index).unwrap()));
    let each = start.elapsed().as_secs_f64() * 1000.0 / count as f64;
    println!("{each:.1} ms a slice of 192 x 192, one thread");
    assert!(each < 400.0, "{each} ms");
}
