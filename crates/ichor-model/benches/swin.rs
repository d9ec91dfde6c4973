//! Slices a second and core at the demonstration's sizes, random weights (the arithmetic does not care). One thread,
//! as the runtime gives each copy of a small model.

use divan::Bencher;
use divan::counter::ItemsCount;
use ichor_model::attribution::{HgiOptions, RollBack, hgi_sam, swin_sam};
use ichor_model::{Manifest, Swin, SwinConfig, SwinPlan};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn main() {
    tch::set_num_threads(1);
    divan::main();
}

/// The shipped weights' sizes.
fn sizes() -> SwinConfig {
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/demo.safetensors");
    Manifest::read(weights.as_ref()).unwrap_or_else(|error| panic!("{error}")).model.sizes
}

fn demo() -> (VarStore, Swin) {
    let config = sizes();
    let mut store = VarStore::new(Device::Cpu);
    let plan = SwinPlan::check(&config).unwrap_or_else(|error| panic!("sizes of the bench: {error}"));
    let mut swin = Swin::new(&store.root(), &plan);
    store.freeze();
    swin.settle();
    (store, swin)
}

fn slices(n: i64) -> (Tensor, Tensor) {
    let on = (Kind::Float, Device::Cpu);
    let side = sizes().img_size;
    (Tensor::rand([n, 3, side, side], on), Tensor::ones([n, side, side], on))
}

const BATCHES: [i64; 2] = [1, 8];

#[divan::bench(args = BATCHES, sample_count = 20, sample_size = 1, max_time = 5)]
fn forward(bencher: Bencher<'_, '_>, batch: i64) {
    let (_store, swin) = demo();
    let (input, _) = slices(batch);
    let _guard = tch::no_grad_guard();
    bencher.counter(ItemsCount::new(batch as usize)).bench_local(|| swin.forward(&input));
}

#[divan::bench(args = BATCHES, sample_count = 20, sample_size = 1, max_time = 5)]
fn hgi_sam_maps(bencher: Bencher<'_, '_>, batch: i64) {
    let (_store, swin) = demo();
    let (input, brain) = slices(batch);
    bencher
        .counter(ItemsCount::new(batch as usize))
        .bench_local(|| hgi_sam(&swin, &input, &brain, 1, HgiOptions::default()).map(|maps| maps.map));
}

#[divan::bench(args = BATCHES, sample_count = 20, sample_size = 1, max_time = 5)]
fn swin_sam_maps(bencher: Bencher<'_, '_>, batch: i64) {
    let (_store, swin) = demo();
    let (input, brain) = slices(batch);
    bencher
        .counter(ItemsCount::new(batch as usize))
        .bench_local(|| swin_sam(&swin, &input, &brain, RollBack::AsShifted).map(|maps| maps.map));
}
