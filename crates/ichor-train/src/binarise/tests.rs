use super::*;
use proptest::prelude::*;

// What scikit-image 0.26 (`threshold_otsu`) and OpenCV 5.0 (`threshold`, `GaussianBlur`) make of the map of
// `otsu_agrees_with_scikit_image_and_opencv`, on the map and its blur as 8 bits.
const OTSU_PLAIN: u32 = 112;
const OTSU_BLURRED: u32 = 107;
const OTSU_PIXELS: usize = 312;
const BLURRED: [(usize, f32); 5] =
    [(0, 0.403_234), (5, 0.398_640), (100, 0.401_198), (300, 0.425_979), (575, 0.410_924)];

const ALL: [Binarisation; 3] =
    [Binarisation::Fixed { threshold: 0.3 }, Binarisation::GridSearch { folds: 5 }, Binarisation::Otsu { kernel: 5 }];

/// Otsu by its other definition: the split with the least variance within the classes, tried at every level.
fn otsu_within(values: &[f32]) -> Option<f32> {
    let levels: Vec<f64> = values.iter().map(|v| f64::from((v.clamp(0.0, 1.0) * 255.0).round())).collect();
    let spread = |part: &[f64]| {
        let mean = part.iter().sum::<f64>() / part.len() as f64;
        part.iter().map(|v| (v - mean).powi(2)).sum::<f64>()
    };
    let mut best: Option<(f64, f64)> = None;
    for level in 0..255 {
        let (dark, bright): (Vec<f64>, Vec<f64>) = levels.iter().partition(|v| **v <= f64::from(level));
        if dark.is_empty() || bright.is_empty() {
            continue;
        }
        let within = spread(&dark) + spread(&bright);
        if best.is_none_or(|(_, least)| within < least - 1e-9 * least.max(1.0)) {
            best = Some((f64::from(level), within));
        }
    }
    best.map(|(level, _)| ((level + 0.5) / 255.0) as f32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_higher_fixed_threshold_gives_a_smaller_mask(
        map in prop::collection::vec(0.0f32..=1.0, 36),
        low in 0.01f32..0.5,
        more in 0.0f32..0.5,
    ) {
        let mask = |threshold| Binarisation::Fixed { threshold }.cut(&map, 6, None).unwrap().mask();
        for (above, below) in mask(low + more).iter().zip(mask(low)) {
            prop_assert!(*above <= below);
        }
    }

    #[test]
    fn masks_are_zero_or_one_and_of_the_maps_size(map in prop::collection::vec(0.0f32..=1.0, 49)) {
        for rule in ALL {
            let mask = rule.cut(&map, 7, Some(0.21)).unwrap().mask();
            prop_assert_eq!(mask.len(), 49);
            prop_assert!(mask.iter().all(|m| *m <= 1));
        }
    }

    #[test]
    fn otsu_is_the_split_with_the_least_variance_within(map in prop::collection::vec(0.0f32..=1.0, 2..60)) {
        let (ours, theirs) = (otsu_threshold(&map), otsu_within(&map));
        // Levels without a pixel between the classes are equal by definition: the masks are compared.
        let mask = |threshold: Option<f32>| -> Vec<bool> {
            map.iter().map(|v| threshold.is_some_and(|t| (v * 255.0).round() / 255.0 >= t)).collect()
        };
        prop_assert_eq!(mask(ours), mask(theirs));
    }

    #[test]
    fn blurring_keeps_the_range(map in prop::collection::vec(0.0f32..=1.0, 64), half in 0usize..20) {
        let blurred = gaussian_blur(&map, 8, 2 * half + 1);
        let least = map.iter().copied().fold(f32::INFINITY, f32::min);
        let most = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        prop_assert_eq!(blurred.len(), 64);
        prop_assert!(blurred.iter().all(|v| (least - 1e-5..=most + 1e-5).contains(v)));
    }

    #[test]
    fn the_curve_gives_the_dice_of_the_mask(
        map in prop::collection::vec(0.0f32..=1.0, 30),
        truth in prop::collection::vec(0u8..2, 30),
    ) {
        let curve = GridCurve::new(&map, &truth);
        for at in 0..50 {
            let mask: Vec<bool> = map.iter().map(|v| *v >= grid_threshold(at)).collect();
            let both = mask.iter().zip(&truth).filter(|(m, t)| **m && **t == 1).count();
            let predicted = mask.iter().filter(|m| **m).count();
            let lesion = truth.iter().filter(|t| **t == 1).count();
            let expected = crate::metrics::dice(both, predicted, lesion) as f32;
            prop_assert_eq!(curve.dice(at), expected);
        }
    }

    #[test]
    fn folds_are_even_and_stratified(bleeding in prop::collection::vec(0usize..12, 10..60), folds in 2usize..6) {
        let fold = stratified_folds(&bleeding, folds).unwrap();
        let sizes: Vec<usize> = (0..folds).map(|f| fold.iter().filter(|x| **x == f).count()).collect();
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        let sums: Vec<usize> =
            (0..folds).map(|f| bleeding.iter().zip(&fold).filter(|(_, x)| **x == f).map(|(n, _)| n).sum()).collect();
        // Dealt back and forth from the largest on, no fold can lead by more than the largest.
        prop_assert!(sums.iter().max().unwrap() - sums.iter().min().unwrap() <= *bleeding.iter().max().unwrap());
        prop_assert_eq!(stratified_folds(&bleeding, folds).unwrap(), fold);
    }

    #[test]
    fn a_folds_own_curves_never_change_its_threshold(
        values in prop::collection::vec(0.0f32..=1.0, 6 * 9),
        other in prop::collection::vec(0.0f32..=1.0, 9),
        at in 0usize..6,
    ) {
        let truth = [0, 1, 0, 1, 1, 0, 0, 1, 0];
        let curves: Vec<Vec<GridCurve>> = values.chunks(9).map(|map| vec![GridCurve::new(map, &truth)]).collect();
        let fold = [0, 1, 2, 0, 1, 2];
        let mut changed = curves.clone();
        changed[at] = vec![GridCurve::new(&other, &truth)];
        let (before, after) =
            (grid_search_on_other_folds(&curves, &fold).unwrap(), grid_search_on_other_folds(&changed, &fold).unwrap());
        prop_assert_eq!(before[fold[at]], after[fold[at]]);
    }
}

#[test]
fn a_fold_gets_the_threshold_of_the_others() {
    // Three studies, a fold each: two are best cut at 0.41 and above, the third at 0.05 and above.
    let truth = [1, 1, 0, 0];
    let high = GridCurve::new(&[0.9, 0.8, 0.4, 0.4], &truth);
    let low = GridCurve::new(&[0.2, 0.1, 0.04, 0.0], &truth);
    let curves = [vec![high.clone(), high.clone()], vec![high], vec![low; 2]];
    let chosen = grid_search_on_other_folds(&curves, &[0, 1, 2]).unwrap();
    // Fold 2 is cut where the others are best, though it would be empty there.
    assert_eq!(chosen[2], 0.41);
    // Fold 1 sees two of each kind: 0.05 gives the low ones Dice 1 and the high ones 2·2/(4 + 2).
    assert_eq!(chosen[1], 0.05);
    let seen_by_all = grid_search_on_other_folds(&curves, &[0, 0, 1]).unwrap();
    assert_eq!(seen_by_all, [0.05, 0.41]);
}

#[test]
fn the_grid_is_the_papers() {
    assert_eq!((grid_threshold(0), grid_threshold(2), grid_threshold(49)), (0.01, 0.05, 0.99));
}

#[test]
fn otsu_agrees_with_scikit_image_and_opencv() {
    // The map is (7·row² + 13·column + 5·row·column) mod 101 / 100 on 24 × 24, squared where the row is odd.
    let map: Vec<f32> = (0..24u32 * 24)
        .map(|at| {
            let (row, column) = (at / 24, at % 24);
            let value = ((7 * row * row + 13 * column + 5 * row * column) % 101) as f32 / 100.0;
            if row % 2 == 1 { value * value } else { value }
        })
        .collect();
    let level = |values: &[f32]| (otsu_threshold(values).unwrap() * 255.0 - 0.5).round() as u32;
    assert_eq!(level(&map), OTSU_PLAIN);
    let blurred = gaussian_blur(&map, 24, 33);
    for (at, expected) in BLURRED {
        assert!((blurred[at] - expected).abs() < 2e-5, "{at}: {} {expected}", blurred[at]);
    }
    assert_eq!(level(&blurred), OTSU_BLURRED);
    let cut = Binarisation::Otsu { kernel: 33 }.cut(&map, 24, None).unwrap();
    assert_eq!(cut.mask().iter().filter(|m| **m == 1).count(), OTSU_PIXELS);
}

#[test]
fn a_map_in_which_nothing_stands_out_gives_no_mask() {
    for value in [0.0, 0.4, 1.0] {
        let cut = Binarisation::Otsu { kernel: 33 }.cut(&[value; 64], 8, None).unwrap().mask();
        assert!(cut.iter().all(|m| *m == 0), "{value}");
    }
    assert_eq!(otsu_threshold(&[]), None);
}

#[test]
fn mistakes_are_named() {
    let message = |rule: Binarisation| rule.check().unwrap_err().to_string();
    for threshold in [0.0, -1.0, 1.5, f32::NAN] {
        assert!(message(Binarisation::Fixed { threshold }).contains("threshold"));
    }
    assert!(message(Binarisation::GridSearch { folds: 1 }).contains("folds 1"));
    assert!(message(Binarisation::Otsu { kernel: 32 }).contains("kernel 32 is not an odd number"));
    let fixed = Binarisation::Fixed { threshold: 0.5 };
    assert_eq!(fixed.cut(&[0.0; 5], 2, None), Err(BinariseError::MapSize { found: 5, size: 2 }));
    let search = Binarisation::GridSearch { folds: 3 };
    assert!(search.cut(&[0.0; 4], 2, None).unwrap_err().to_string().contains("no threshold was chosen"));
    assert_eq!(stratified_folds(&[1, 2], 3), Err(BinariseError::TooFewStudies { studies: 2, folds: 3 }));
    let curve = GridCurve::new(&[0.5], &[1]);
    // All that bleeds lies in fold 0: nothing is left to choose its threshold on.
    let lonely = grid_search_on_other_folds(&[vec![curve], vec![]], &[0, 1]);
    assert_eq!(lonely, Err(BinariseError::NothingToChooseOn(0)));
}

#[test]
fn rules_are_values_of_a_recipe() {
    #[derive(serde::Deserialize, Debug)]
    struct Holder {
        binarisation: Binarisation,
    }
    let read = |text: &str| toml::from_str::<Holder>(text).map(|holder| holder.binarisation);
    assert_eq!(read("binarisation = { rule = \"otsu\" }").unwrap(), Binarisation::Otsu { kernel: 33 });
    assert_eq!(read("binarisation = { rule = \"grid-search\" }").unwrap(), Binarisation::GridSearch { folds: 5 });
    let fixed = read("binarisation = { rule = \"fixed\", threshold = 0.05 }").unwrap();
    assert_eq!(fixed, Binarisation::Fixed { threshold: 0.05 });
    assert!(read("binarisation = { rule = \"guess\" }").unwrap_err().to_string().contains("guess"));
    assert!(read("binarisation = { rule = \"otsu\", treshold = 1 }").unwrap_err().to_string().contains("treshold"));
}
