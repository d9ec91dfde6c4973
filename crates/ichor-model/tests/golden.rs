//! Parity with the reference computation, tensor by tensor.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::path::Path;

use ichor_model::attribution::{
    CamTarget, GradientSite, HgiOptions, RollBack, attention_gradients, grad_cam, hgi_sam, swin_sam,
};
use ichor_model::{Swin, SwinConfig, SwinPlan};
use support::{data, difference};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

struct Golden {
    store: VarStore,
    swin: Swin,
    expected: HashMap<String, Tensor>,
}

impl Golden {
    fn open() -> Option<Self> {
        let folder = data("golden")?;
        tch::set_num_threads(1); // as in support: tests run side by side already
        let config: SwinConfig =
            serde_json::from_slice(&std::fs::read(folder.join("mini.config.json")).unwrap()).unwrap();
        let mut store = VarStore::new(Device::Cpu);
        let swin = Swin::new(&store.root(), &SwinPlan::check(&config).unwrap());
        let names = read(&folder.join("mini.weights.safetensors"));
        let variables = store.variables();
        assert_eq!(names.len(), variables.len(), "as many tensors as timm has");
        for (name, tensor) in &names {
            let shape = variables.get(name).map(Tensor::size);
            assert_eq!(shape.as_ref(), Some(&tensor.size()), "{name}");
        }
        store.freeze();
        store.read_safetensors(folder.join("mini.weights.safetensors")).unwrap();
        Some(Self { store, swin, expected: read(&folder.join("mini.expected.safetensors")) })
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.expected[name]
    }

    fn check(&self, name: &str, got: &Tensor, tolerance: f64) {
        let off = difference(got, self.get(name));
        println!("{name}: {off:.2e}");
        assert!(off <= tolerance, "{name} is off by {off}");
    }
}

fn read(path: &Path) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

fn reference() -> HgiOptions {
    HgiOptions { site: GradientSite::SoftmaxInput, roll_back: RollBack::AsReference }
}

#[test]
fn logits() {
    let Some(mut golden) = Golden::open() else { return };
    golden.check("logits", &golden.swin.forward(golden.get("input")), 1e-4);
    golden.swin.settle();
    golden.check("logits", &golden.swin.forward(golden.get("input")), 1e-4);
}

#[test]
fn attention_gradients_and_head_weights() {
    let Some(golden) = Golden::open() else { return };
    let first = golden.get("input").narrow(0, 0, 1);
    let infused = attention_gradients(&golden.swin, &first, 1, GradientSite::SoftmaxInput, 4).unwrap();
    for (s, stage) in infused.blocks.iter().enumerate() {
        for (b, block) in stage.iter().enumerate() {
            golden.check(&format!("attention.{s}_{b}"), &block.attention, 1e-3);
            // Gradients are far below 1 here: the tolerance is relative to the largest.
            for (name, got) in [("attention_grad", &block.gradient), ("head_weight", &block.head_weight())] {
                let name = format!("{name}.{s}_{b}");
                let largest = golden.get(&name).abs().max().double_value(&[]);
                golden.check(&name, got, 1e-3 * largest.min(1.0));
            }
        }
    }
    let blocks: usize = infused.blocks.iter().map(Vec::len).sum();
    assert_eq!(blocks, 12);
}

#[test]
fn hgi_sam_maps_and_mask() {
    let Some(golden) = Golden::open() else { return };
    let (input, brain) = (golden.get("input"), golden.get("brain_mask"));
    let hgi = hgi_sam(&golden.swin, input, brain, 1, reference()).unwrap();
    golden.check("logits", &hgi.logits, 1e-4);
    golden.check("hgi_layer_maps", &hgi.stages, 1e-3);
    golden.check("hgi_map", &hgi.map, 1e-3);
    let (got, want) = (hgi.map.ge(0.05), golden.get("hgi_map").ge(0.05));
    let unequal = got.ne_tensor(&want).sum(Kind::Int64).int64_value(&[]);
    println!("mask at 0.05: {unequal} of {} pixels differ", want.numel());
    assert!((unequal as f64) <= 1e-3 * want.numel() as f64);
    let foreground = want.sum(Kind::Int64).int64_value(&[]);
    assert!(foreground > 100, "a mask of {foreground} pixels proves nothing");
    for slice in 0..4 {
        let one =
            hgi_sam(&golden.swin, &input.narrow(0, slice, 1), &brain.narrow(0, slice, 1), 1, reference()).unwrap();
        let off = difference(&one.map, &hgi.map.narrow(0, slice, 1));
        assert!(off < 1e-4, "slice {slice} alone differs from the batch by {off}");
    }
    assert!(golden.store.variables().values().all(|v| !v.grad().defined()));
}

#[test]
fn swin_sam_maps() {
    let Some(golden) = Golden::open() else { return };
    let (input, brain) = (golden.get("input"), golden.get("brain_mask"));
    let sam = swin_sam(&golden.swin, input, brain, RollBack::AsReference).unwrap();
    golden.check("swin_sam_layer_maps", &sam.stages, 1e-3);
    golden.check("swin_sam_map", &sam.map, 1e-3);
    let exact = swin_sam(&golden.swin, input, brain, RollBack::AsShifted).unwrap();
    let unshifted = |maps: &Tensor| maps.narrow(1, 0, 3);
    assert!(difference(&unshifted(&exact.stages), &unshifted(&sam.stages)) < 1e-6);
    let last = |maps: &Tensor| maps.narrow(1, 3, 1);
    assert!(difference(&last(&exact.stages), &last(&sam.stages)) > 1e-3, "stage 3 was never shifted");
}

#[test]
fn grad_cam_maps() {
    let Some(golden) = Golden::open() else { return };
    let (input, brain) = (golden.get("input"), golden.get("brain_mask"));
    let cam = grad_cam(&golden.swin, input, brain, CamTarget::Predicted).unwrap();
    golden.check("grad_cam_map", &cam.map, 1e-3);
}
