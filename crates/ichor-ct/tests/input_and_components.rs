//! Model input and its way back; lesions in millilitres.

use ichor_ct::components::MaskStack;
use ichor_ct::input::{HuImage, InputGrid, InputPreset, model_input};
use proptest::prelude::*;

fn image(hu: &[i16], rows: usize, columns: usize) -> HuImage<'_> {
    HuImage { rows, columns, spacing: [0.5, 0.5], hu, window: None }
}

#[test]
fn windows_are_scaled_by_the_clipped_extremes() {
    // Brain (40, 120) clips to −20 … 100. The slice reaches from −1000 to 40, so the clipped one from −20 to 40.
    let mut hu = vec![-1000i16; 64 * 64];
    hu[32 * 64..].fill(40);
    let input = model_input(image(&hu, 64, 64), InputPreset::PhysioNet, 32);
    let (top, bottom) = (input.channels[0], input.channels[31 * 32]);
    assert!(top.abs() < 1e-6 && (bottom - 1.0).abs() < 1e-6, "{top} {bottom}");
    // A constant slice stays as it is.
    let constant = model_input(image(&vec![10; 64 * 64], 64, 64), InputPreset::PhysioNet, 32);
    assert_eq!(constant.channels[5], 10.0);
}

#[test]
fn resize_is_bilinear_with_half_pixel_centres() {
    // 44 → ⌊1.1·20⌋ = 22: a step of 2, centre crop of 20 from 1: input pixel 0 lies between source 2 and 3.
    let hu: Vec<i16> = (0..44 * 44).map(|at| (at % 44) as i16).collect();
    let grid = InputGrid::new(44, 44, [1.0, 1.0], 20);
    assert_eq!((grid.step, grid.origin), ([2.0, 2.0], [2.5, 2.5]));
    let input = model_input(image(&hu, 44, 44), InputPreset::PhysioNet, 20);
    for column in 0..20 {
        let expected = (2.5 + 2.0 * column as f32) / 43.0;
        assert!((input.channels[column] - expected).abs() < 1e-5);
    }
}

#[test]
fn the_way_back_lands_where_it_came_from() {
    for (rows, columns, spacing) in [(512, 512, [0.45, 0.45]), (512, 400, [0.5, 0.5]), (256, 512, [1.0, 0.5])] {
        let grid = InputGrid::new(rows, columns, spacing, 128);
        let mut mask = vec![0u8; rows * columns];
        for row in rows * 4 / 10..rows * 6 / 10 {
            mask[row * columns + columns * 4 / 10..row * columns + columns * 6 / 10].fill(1);
        }
        let map: Vec<f32> = grid.mask_to_input(&mask).iter().map(|m| f32::from(*m)).collect();
        let back = grid.mask_to_source(&map, 0.5, &vec![1; rows * columns]);
        let both = mask.iter().zip(&back).filter(|(a, b)| **a != 0 && **b != 0).count() as f64;
        let total = mask.iter().chain(&back).filter(|m| **m != 0).count() as f64;
        assert!(2.0 * both / total > 0.96, "{rows}x{columns}: Dice {}", 2.0 * both / total);
    }
}

#[test]
fn a_digital_sphere_has_its_volume_with_uneven_spacing() {
    // Radius 30 mm, pixels of 0.5 mm, slices 1 and 3 mm apart in turn; each stands for half of either distance.
    let (side, mm, radius) = (160usize, 0.5, 30.0f64);
    let heights: Vec<f64> = (0..40)
        .scan(-39.0, |z, n| {
            let at = *z;
            *z += if n % 2 == 0 { 1.0 } else { 3.0 };
            Some(at)
        })
        .collect();
    let slabs: Vec<f64> = (0..heights.len())
        .map(|n| {
            let below = if n > 0 { heights[n] - heights[n - 1] } else { 2.0 };
            let above = if n + 1 < heights.len() { heights[n + 1] - heights[n] } else { 2.0 };
            (below + above) / 2.0
        })
        .collect();
    let mut stack = MaskStack::new(side as u32, side as u32);
    for z in &heights {
        let inside = |at: usize| {
            let (y, x) = ((at / side) as f64 - 79.5, (at % side) as f64 - 79.5);
            u8::from((y * mm).powi(2) + (x * mm).powi(2) + z * z <= radius * radius)
        };
        stack.push(&(0..side * side).map(inside).collect::<Vec<u8>>());
    }
    let lesions = stack.lesions(mm * mm, &slabs);
    let truth = 4.0 / 3.0 * std::f64::consts::PI * radius.powi(3) / 1000.0;
    assert_eq!(lesions.len(), 1);
    assert!((lesions[0].volume_ml / truth - 1.0).abs() < 0.02, "{} against {truth}", lesions[0].volume_ml);
}

#[test]
fn diagonal_neighbours_connect_and_specks_go() {
    let mut stack = MaskStack::new(4, 4);
    stack.push(&[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    stack.push(&[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let lesions = stack.lesions(1000.0, &[1.0, 1.0]);
    let voxels: Vec<u64> = lesions.iter().map(|lesion| lesion.voxels).collect();
    assert_eq!(voxels, [3, 1]);
    stack.drop_specks(1000.0, &[1.0, 1.0], 2.0);
    assert_eq!((stack.pixels(0), stack.pixels(1)), (2, 1));
    stack.drop_specks(1000.0, &[1.0, 1.0], 100.0);
    assert_eq!(stack.pixels(0), 2, "the largest lesion stays");
}

proptest! {
    #[test]
    fn masks_come_back_from_runs(mask in proptest::collection::vec(0u8..2, 12 * 9)) {
        let mut stack = MaskStack::new(12, 9);
        stack.push(&mask);
        prop_assert_eq!(stack.mask(0).unwrap_or_else(|| vec![0; 12 * 9]), mask.clone());
        let voxels: u64 = stack.lesions(1.0, &[1.0]).iter().map(|lesion| lesion.voxels).sum();
        prop_assert_eq!(voxels, mask.iter().map(|m| u64::from(*m)).sum::<u64>());
    }

    /// A slice that lies above or below a window whole is constant in it and stays as it is (the method's rule); every
    /// other one is spread from 0 to 1.
    #[test]
    fn input_stays_between_0_and_1(rows in 8usize..70, columns in 8usize..70, seed in prop_oneof![any::<u64>(), Just(5_526_021_983_717_962_407)]) {
        let hu: Vec<i16> = (0..rows * columns)
            .map(|at| (seed.wrapping_mul(at as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u16 as i16)
            .collect();
        let input = model_input(image(&hu, rows, columns), InputPreset::PhysioNet, 16);
        prop_assert_eq!(input.channels.len(), 3 * 16 * 16);
        let windows = [(40.0_f32, 60.0_f32), (80.0, 170.0), (700.0, 1600.0)];
        for ((centre, half), channel) in windows.into_iter().zip(input.channels.chunks(16 * 16)) {
            let (bottom, top) = (centre - half, centre + half);
            let above = hu.iter().all(|hu| f32::from(*hu) >= top);
            let below = hu.iter().all(|hu| f32::from(*hu) <= bottom);
            if above || below {
                let stays = if above { top } else { bottom };
                prop_assert!(channel.iter().all(|value| *value == stays), "{} HU in the window to {}", stays, top);
            } else {
                prop_assert!(channel.iter().all(|value| (-1e-5..=1.00001).contains(value)));
            }
        }
    }
}
