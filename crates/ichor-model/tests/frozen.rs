//! The network for inference against the one that is trained: the same logits, and maps whose gradients come from two
//! independent backward passes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ichor_model::attribution::{
    Attribution, CamTarget, GradientSite, HgiOptions, RollBack, grad_cam, hgi_sam, swin_sam,
};
use ichor_model::{Frozen, Precision, Swin, SwinConfig, available};
use support::{difference, random_input, random_swin, small};
use tch::{Device, Kind, Tensor};

/// Depths that are odd, one stage and four, windows that are larger than the grid, that leave a rest, and that are
/// odd; heads that do not divide the channels; one channel; one, two and six classes.
fn sizes() -> Vec<SwinConfig> {
    vec![
        small(),
        SwinConfig { img_size: 32, depths: vec![2, 1], num_heads: vec![1, 3], num_classes: 1, ..small() },
        SwinConfig {
            img_size: 32,
            window_size: 16,
            depths: vec![3, 2],
            num_heads: vec![2, 2],
            num_classes: 6,
            ..small()
        },
        SwinConfig { img_size: 48, window_size: 3, depths: vec![2, 2, 3], in_chans: 1, ..small() },
        SwinConfig { img_size: 64, embed_dim: 8, depths: vec![1, 2, 3, 2], num_heads: vec![2, 2, 4, 4], ..small() },
        SwinConfig {
            img_size: 40,
            embed_dim: 10,
            window_size: 4,
            depths: vec![3, 2],
            num_heads: vec![4, 3],
            ..small()
        },
        SwinConfig { img_size: 24, patch_size: 2, window_size: 5, depths: vec![4], num_heads: vec![3], ..small() },
    ]
}

fn check(what: &str, number: usize, got: &Attribution, want: &Attribution, tolerance: f64) {
    for (part, got, want) in
        [("logits", &got.logits, &want.logits), ("stages", &got.stages, &want.stages), ("map", &got.map, &want.map)]
    {
        let off = difference(got, want);
        assert!(off <= tolerance, "sizes {number}, {what}: {part} off by {off}");
    }
}

fn hgi(site: GradientSite, roll_back: RollBack) -> HgiOptions {
    HgiOptions { site, roll_back }
}

fn positive(swin: &Swin) -> i64 {
    swin.plan().config.num_classes - 1
}

#[test]
fn logits_and_maps_are_those_of_the_trained_network() {
    for (number, config) in sizes().iter().enumerate() {
        let (input, brain) = random_input(config, 3, 7);
        let (_store, swin) = random_swin(config, 11);
        let frozen = Frozen::new(&swin, Precision::F32).unwrap();
        let off = difference(&frozen.forward(&input).unwrap(), &swin.forward(&input));
        assert!(off < 1e-4, "sizes {number}: logits off by {off}");
        for roll_back in [RollBack::AsShifted, RollBack::AsReference] {
            for site in [GradientSite::SoftmaxInput, GradientSite::SoftmaxOutput] {
                let options = hgi(site, roll_back);
                let want = hgi_sam(&swin, &input, &brain, positive(&swin), options).unwrap();
                let got = frozen.hgi_sam(&input, &brain, positive(&swin), options).unwrap();
                check("hgi-sam", number, &got, &want, 1e-3);
            }
            let want = swin_sam(&swin, &input, &brain, roll_back).unwrap();
            check("swin-sam", number, &frozen.swin_sam(&input, &brain, roll_back).unwrap(), &want, 1e-3);
        }
        for target in [CamTarget::Predicted, CamTarget::Logit(0)] {
            let want = grad_cam(&swin, &input, &brain, target).unwrap();
            check("grad-cam", number, &frozen.grad_cam(&input, &brain, target).unwrap(), &want, 1e-3);
        }
    }
}

#[test]
fn a_batch_gives_what_its_slices_give_alone() {
    for (number, config) in sizes().iter().enumerate() {
        let (input, brain) = random_input(config, 3, 7);
        let (_store, swin) = random_swin(config, 11);
        let frozen = Frozen::new(&swin, Precision::F32).unwrap();
        let maps = |input: &Tensor, brain: &Tensor| {
            let options = HgiOptions::default();
            [
                frozen.hgi_sam(input, brain, positive(&swin), options).unwrap(),
                frozen.swin_sam(input, brain, RollBack::AsShifted).unwrap(),
                frozen.grad_cam(input, brain, CamTarget::Predicted).unwrap(),
            ]
        };
        let batch = maps(&input, &brain);
        for slice in 0..3 {
            let alone = maps(&input.narrow(0, slice, 1), &brain.narrow(0, slice, 1));
            for (batch, alone) in batch.iter().zip(&alone) {
                let off = difference(&batch.map.narrow(0, slice, 1), &alone.map);
                assert!(off < 1e-4, "sizes {number}, slice {slice}: off by {off}");
            }
        }
    }
}

/// Sizes with a long third stage, where bf16 is at work when maps are made.
#[test]
fn bf16_stays_near() {
    if available(Precision::Bf16, Device::Cpu) != Precision::Bf16 {
        println!("skipped: this processor has no native bf16");
        return;
    }
    let config =
        SwinConfig { img_size: 96, window_size: 6, depths: vec![2, 2, 6, 2], num_heads: vec![1, 2, 4, 8], ..small() };
    let (input, brain) = random_input(&config, 3, 7);
    let (_store, swin) = random_swin(&config, 11);
    let network = |precision| Frozen::new(&swin, precision).unwrap();
    let (exact, near) = (network(Precision::F32), network(Precision::Bf16));
    let maps = |frozen: &Frozen| frozen.hgi_sam(&input, &brain, 1, HgiOptions::default()).unwrap();
    let (exact_maps, near_maps) = (maps(&exact), maps(&near));
    let classified = difference(&near.forward(&input).unwrap(), &exact_maps.logits);
    let with_maps = difference(&near_maps.logits, &exact_maps.logits);
    println!("bf16: logits off by {classified:.1e}, with maps by {with_maps:.1e}");
    assert!(classified > 0.0 && classified < 1e-2, "logits off by {classified}");
    assert!(with_maps > 0.0 && with_maps < 1e-2, "logits off by {with_maps}");
    let swin_sam = |frozen: &Frozen| frozen.swin_sam(&input, &brain, RollBack::AsShifted).unwrap().map;
    for (near, exact) in [(near_maps.map, exact_maps.map), (swin_sam(&near), swin_sam(&exact))] {
        let off = (near - exact).abs();
        let beyond = off.gt(1e-2).to_kind(Kind::Float).mean(None).double_value(&[]);
        println!(
            "bf16: map off by at most {:.1e}, {:.2} % of its pixels by more than 1e-2",
            off.max().double_value(&[]),
            100.0 * beyond
        );
        assert!(off.max().double_value(&[]) < 5e-2 && beyond < 2e-2, "{beyond} beyond 1e-2");
    }
}

#[test]
fn memory_and_gradients_are_left_alone() {
    let config = small();
    let (input, brain) = random_input(&config, 2, 3);
    let (store, swin) = random_swin(&config, 5);
    let frozen = Frozen::new(&swin, Precision::F32).unwrap();
    let maps = frozen.hgi_sam(&input, &brain, 1, HgiOptions::default()).unwrap();
    assert!(!maps.map.requires_grad() && !maps.logits.requires_grad());
    assert!(store.variables().values().all(|v| !v.grad().defined()), "no weight got a gradient");
    let wrong = frozen.hgi_sam(&input.narrow(2, 0, 32), &brain, 1, HgiOptions::default()).unwrap_err();
    assert_eq!(wrong.to_string(), "input is [2, 3, 32, 64], the model wants [-1, 3, 64, 64] (batch first)");
    assert!(frozen.hgi_sam(&input, &brain, 2, HgiOptions::default()).is_err());
}
