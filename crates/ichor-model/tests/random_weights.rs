//! Properties that hold for any weights and sizes; these run without any data.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use ichor_model::attribution::{
    AttributionError, CamTarget, GradientSite, HgiOptions, RollBack, grad_cam, hgi_sam, swin_sam,
};
use ichor_model::{PlanError, Swin, SwinConfig, SwinPlan};
use support::{difference, random_input, random_swin, small};
use tch::Tensor;

fn sizes() -> Vec<SwinConfig> {
    vec![
        small(),
        SwinConfig { img_size: 32, depths: vec![2, 1], num_heads: vec![1, 3], num_classes: 1, ..small() },
        // Window larger than every grid: no shift anywhere.
        SwinConfig {
            img_size: 32,
            window_size: 16,
            depths: vec![2, 2],
            num_heads: vec![2, 2],
            num_classes: 6,
            ..small()
        },
        // Odd window.
        SwinConfig { img_size: 48, window_size: 3, depths: vec![2, 2, 3], in_chans: 1, ..small() },
        SwinConfig { img_size: 128, embed_dim: 8, depths: vec![2, 2, 2, 2], num_heads: vec![2, 2, 4, 4], ..small() },
    ]
}

fn all_maps(swin: &Swin, input: &Tensor, brain: &Tensor) -> Vec<Tensor> {
    let hgi = |site| {
        let options = HgiOptions { site, ..HgiOptions::default() };
        hgi_sam(swin, input, brain, swin.plan().config.num_classes - 1, options).unwrap().map
    };
    vec![
        swin.forward(input),
        hgi(GradientSite::SoftmaxInput),
        hgi(GradientSite::SoftmaxOutput),
        swin_sam(swin, input, brain, RollBack::AsShifted).unwrap().map,
        grad_cam(swin, input, brain, CamTarget::Logit(0)).unwrap().map,
    ]
}

#[test]
fn a_batch_gives_what_its_slices_give_alone() {
    for (number, config) in sizes().iter().enumerate() {
        let (input, brain) = random_input(config, 3, 7);
        let (_store, swin) = random_swin(config, 11);
        let batch = all_maps(&swin, &input, &brain);
        for slice in 0..3 {
            let alone = all_maps(&swin, &input.narrow(0, slice, 1), &brain.narrow(0, slice, 1));
            for (kind, (batch, alone)) in batch.iter().zip(&alone).enumerate() {
                let off = difference(&batch.narrow(0, slice, 1), alone);
                assert!(off < 1e-4, "sizes {number}, slice {slice}, output {kind}: off by {off}");
            }
        }
    }
}

#[test]
fn maps_span_zero_to_one_inside_the_brain_only() {
    let (input, brain) = random_input(&small(), 2, 3);
    let (_store, swin) = random_swin(&small(), 5);
    for map in all_maps(&swin, &input, &brain).iter().skip(1).take(3) {
        assert_eq!(map.size(), [2, 64, 64]);
        assert_eq!(map.amin([1i64, 2].as_slice(), false), Tensor::from_slice(&[0.0f32, 0.0]));
        assert_eq!(map.amax([1i64, 2].as_slice(), false), Tensor::from_slice(&[1.0f32, 1.0]));
        let outside: Tensor = map * (1.0 - &brain);
        assert_eq!(outside.abs().max().double_value(&[]), 0.0);
    }
    let nothing = brain.zeros_like();
    for map in all_maps(&swin, &input, &nothing).iter().skip(1) {
        assert_eq!(map.abs().max().double_value(&[]), 0.0, "an empty brain mask gives an empty map, not NaN");
    }
}

#[test]
fn the_gradient_site_matters() {
    let (input, brain) = random_input(&small(), 1, 3);
    let (_store, swin) = random_swin(&small(), 5);
    let maps = all_maps(&swin, &input, &brain);
    assert!(difference(&maps[1], &maps[2]) > 1e-3);
}

#[test]
fn maps_need_no_weight_gradients_and_leave_none() {
    let config = small();
    let (input, brain) = random_input(&config, 2, 3);
    let (mut store, swin) = random_swin(&config, 5);
    let trainable = hgi_sam(&swin, &input, &brain, 1, HgiOptions::default()).unwrap();
    assert!(store.variables().values().all(|v| !v.grad().defined()), "weights that could be trained got no gradient");
    store.freeze();
    let guard = tch::no_grad_guard();
    let frozen = hgi_sam(&swin, &input, &brain, 1, HgiOptions::default()).unwrap();
    let cam = grad_cam(&swin, &input, &brain, CamTarget::Predicted).unwrap();
    drop(guard);
    assert!(difference(&trainable.map, &frozen.map) < 1e-6);
    assert!(!frozen.map.requires_grad() && !cam.map.requires_grad() && !frozen.logits.requires_grad());
}

#[test]
fn training_reaches_every_weight() {
    let config = small();
    let (store, swin) = random_swin(&config, 5);
    let (input, _) = random_input(&config, 2, 3);
    swin.forward(&input).select(1, 1).sum(None).backward();
    for (name, variable) in store.variables() {
        assert!(variable.grad().defined(), "{name} got no gradient");
    }
}

#[test]
fn settling_changes_nothing() {
    let config = small();
    let (_store, mut swin) = random_swin(&config, 5);
    let (input, _) = random_input(&config, 2, 3);
    let before = swin.forward(&input);
    swin.settle();
    assert!(difference(&before, &swin.forward(&input)) < 1e-6);
}

#[test]
fn wrong_shapes_are_named() {
    let (_store, swin) = random_swin(&small(), 5);
    let (input, brain) = random_input(&small(), 2, 3);
    let error = swin_sam(&swin, &input.narrow(2, 0, 32), &brain, RollBack::AsShifted).unwrap_err();
    assert_eq!(error.to_string(), "input is [2, 3, 32, 64], the model wants [-1, 3, 64, 64] (batch first)");
    assert!(swin_sam(&swin, &input, &brain.narrow(0, 0, 1), RollBack::AsShifted).is_err());
    let error = hgi_sam(&swin, &input, &brain, 2, HgiOptions::default()).unwrap_err();
    assert!(matches!(error, AttributionError::NoSuchLogit(2, 2)), "{error}");
}

#[test]
fn impossible_sizes_are_refused() {
    let refused = |config: SwinConfig| SwinPlan::check(&config).unwrap_err().to_string();
    assert_eq!(refused(SwinConfig { img_size: 0, ..small() }), "img_size is 0, which is not between 1 and 2048");
    assert!(refused(SwinConfig { img_size: 66, ..small() }).contains("patch_size"));
    assert!(refused(SwinConfig { num_heads: vec![2, 2], ..small() }).contains("3 depths and 2"));
    let heads = refused(SwinConfig { num_heads: vec![2, 25, 4], ..small() });
    assert_eq!(heads, "stage 1: num_heads is 25, more than its 24 channels");
    let odd = SwinConfig { img_size: 20, window_size: 5, depths: vec![1, 1], num_heads: vec![1, 1], ..small() };
    assert!(matches!(SwinPlan::check(&odd), Err(PlanError::Multiple { stage: 1, .. })));
}
