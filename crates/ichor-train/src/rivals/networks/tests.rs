use super::*;
use tch::{Device, nn};

const SIZE: i64 = 64;

fn input(slices: i64) -> Tensor {
    Tensor::rand([slices, 3, SIZE, SIZE], (Kind::Float, Device::Cpu))
}

fn parameters(store: &nn::VarStore) -> i64 {
    store.trainable_variables().iter().map(|variable| variable.numel() as i64).sum()
}

/// Every parameter has a gradient that is finite and not zero.
fn assert_gradients_flow(store: &nn::VarStore, loss: &Tensor) {
    loss.backward();
    for (name, variable) in store.variables().iter().filter(|(_, variable)| variable.requires_grad()) {
        let gradient = variable.grad();
        assert!(gradient.defined(), "{name} has no gradient");
        let norm = gradient.norm().double_value(&[]);
        assert!(norm.is_finite() && norm > 0.0, "{name}: gradient of norm {norm}");
    }
}

#[test]
fn a_unet_has_its_shape_parameters_and_gradients() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let store = nn::VarStore::new(Device::Cpu);
    let net = UNet::new(&store.root(), &UNetSizes::default(), SIZE).unwrap();
    // Down: 5,880 + 31,200 + 124,608 + 498,048. Up: 322,848 + 80,784 + 20,232. Head: 434.
    assert_eq!(parameters(&store), 1_084_034);
    let logits = net.logits(&input(2)).unwrap();
    assert_eq!(logits.size(), [2, 2, SIZE, SIZE]);
    assert_gradients_flow(&store, &logits.square().mean(Kind::Float));
}

#[test]
fn a_swin_unetr_has_its_shape_parameters_and_gradients() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let store = nn::VarStore::new(Device::Cpu);
    let net = SwinUnetr::new(&store.root(), &SwinUnetrSizes::default(), SIZE).unwrap();
    assert_eq!(parameters(&store), SWIN_UNETR_PARAMETERS);
    let logits = net.logits(&input(2)).unwrap();
    assert_eq!(logits.size(), [2, 2, SIZE, SIZE]);
    assert_gradients_flow(&store, &logits.square().mean(Kind::Float));
}

#[test]
fn a_resnet_lstm_has_its_shapes_parameters_and_gradients() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let store = nn::VarStore::new(Device::Cpu);
    let net = ResNetLstm::new(&store.root(), &ResNetLstmSizes::default(), SIZE).unwrap();
    // torchvision's resnet18 without its classifier; 2 · 4 · 128 · (512 + 128 + 2); 256 + 1.
    assert_eq!(parameters(&store), 11_176_512 + 657_408 + 257);
    let logits = net.train_logits(&input(5), &[3, 2]).unwrap();
    assert_eq!(logits.size(), [5]);
    assert_gradients_flow(&store, &logits.square().mean(Kind::Float));
    let scan = net.read(&input(5)).unwrap();
    assert_eq!((scan.logits.size(), scan.features.size()), (vec![5], vec![5, 512, 2, 2]));
    let map = net.activation(&scan, 4).unwrap();
    assert_eq!(map.size(), [2, 2]);
    assert!(map.min().double_value(&[]) >= 0.0);
    assert!(net.activation(&scan, 5).is_err());
}

#[test]
fn the_lstm_looks_at_neighbours_of_the_same_scan_only() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let store = nn::VarStore::new(Device::Cpu);
    let sizes = ResNetLstmSizes { width: 4, last_stride: 1, hidden: 8 };
    let net = ResNetLstm::new(&store.root(), &sizes, SIZE).unwrap();
    let slices = input(6);
    let at = |slices: &Tensor| Vec::<f32>::try_from(&net.read(slices).unwrap().logits).unwrap();
    let changed = slices.copy();
    changed.get(5).copy_(&input(1).get(0));
    let (before, after) = (at(&slices), at(&changed));
    assert!((before[0] - after[0]).abs() > 0.0, "the last slice says nothing to the first");
    // Five slices as two scans or as one: only what lies across the border differs, so all do a little; as two scans, the
    // first is read as if it were alone.
    let _frozen = tch::no_grad_guard();
    let five = slices.narrow(0, 0, 5);
    let (apart, together) = (net.train_logits(&five, &[3, 2]).unwrap(), net.train_logits(&five, &[5]).unwrap());
    assert!((&apart - &together).abs().min().double_value(&[]) > 0.0, "the border between scans has no effect");
    let swapped = Tensor::cat(&[five.narrow(0, 3, 2), five.narrow(0, 0, 3)], 0);
    let swapped = net.train_logits(&swapped, &[2, 3]).unwrap();
    let back = Tensor::cat(&[swapped.narrow(0, 2, 3), swapped.narrow(0, 0, 2)], 0);
    assert!((apart - back).abs().max().double_value(&[]) < 1e-4, "the order of scans in a batch changes their logits");
}

#[test]
fn the_activation_is_the_classifiers_weight_where_the_classifier_is_linear() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let store = nn::VarStore::new(Device::Cpu);
    let sizes = ResNetLstmSizes { width: 4, last_stride: 1, hidden: 8 };
    let net = ResNetLstm::new(&store.root(), &sizes, SIZE).unwrap();
    let scan = net.read(&input(3)).unwrap();
    let map = net.activation(&scan, 1).unwrap();
    // By finite differences: what a little more of each feature at one place does to the logit of slice 1.
    let (row, column) = (2, 1);
    let at = |features: &Tensor| net.classify(&pool_of(features)).double_value(&[1]);
    let mut expected = 0.0f64;
    let _frozen = tch::no_grad_guard();
    for channel in 0..32 {
        let step = 0.05;
        let (more, less) = (scan.features.copy(), scan.features.copy());
        let _ = more.get(1).get(channel).g_add_scalar_(step);
        let _ = less.get(1).get(channel).g_add_scalar_(-step);
        let slope = (at(&more) - at(&less)) / (2.0 * step);
        expected += slope * scan.features.double_value(&[1, channel, row, column]);
    }
    let found = map.double_value(&[row, column]);
    assert!((found - expected.max(0.0)).abs() < 1e-3 * expected.abs().max(0.1), "{found} {expected}");
}

fn pool_of(features: &Tensor) -> Tensor {
    features.mean_dim([2i64, 3].as_slice(), false, None)
}

#[test]
fn sizes_that_do_not_fit_are_named() {
    let store = nn::VarStore::new(Device::Cpu);
    let message = |result: Result<(), NetworkError>| result.unwrap_err().to_string();
    assert!(message(UNetSizes::default().check(100)).contains("input size 100 is not a multiple of 8"));
    assert!(message(UNetSizes { widths: vec![] }.check(64)).contains("widths has 0 entries"));
    assert!(message(UNetSizes { widths: vec![8, 0] }.check(64)).contains("width 0"));
    let swin = SwinUnetrSizes::default;
    assert!(message(swin().check(48)).contains("input size 48 is not a multiple of 32"));
    let heads = SwinUnetrSizes { num_heads: vec![5, 4, 8, 16], ..swin() };
    assert!(message(heads.check(64)).contains("channels of a stage 12 is not a multiple of 5"));
    let stages = SwinUnetrSizes { depths: vec![2, 2], ..swin() };
    assert!(message(stages.check(64)).contains("depths has 2 entries, 4 are needed"));
    let stride = ResNetLstmSizes { last_stride: 3, ..Default::default() };
    assert!(message(stride.check(64)).contains("last_stride 3"));
    assert!(UNet::new(&store.root(), &UNetSizes::default(), 100).is_err());
    let net = UNet::new(&store.root(), &UNetSizes { widths: vec![2, 4] }, SIZE).unwrap();
    let other = Tensor::zeros([1, 3, 32, 64], (Kind::Float, Device::Cpu));
    assert!(net.logits(&other).unwrap_err().to_string().contains("[1, 3, 32, 64]"));
    let lstm = ResNetLstm::new(&store.root(), &ResNetLstmSizes { width: 4, last_stride: 2, hidden: 4 }, SIZE).unwrap();
    let short = lstm.train_logits(&input(3), &[2, 2]).unwrap_err().to_string();
    assert!(short.contains("[4, 3, 64, 64]"), "{short}");
}

/// 156 of the patches; 12·d² + 13·d + 169·heads a block and 8·d² + 8·d a merging, d = 12, 24, 48, 96; then convolutions.
const SWIN_UNETR_PARAMETERS: i64 = 1_585_394;

#[test]
fn a_swin_unetr_computes_what_monai_computes() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let store = nn::VarStore::new(Device::Cpu);
    let net = SwinUnetr::new(&store.root(), &SwinUnetrSizes::default(), 128).unwrap();
    let _frozen = tch::no_grad_guard();
    for (name, mut variable) in store.variables() {
        variable.copy_(&filling(&name, &variable.size()));
    }
    let wave = (0..3 * 128 * 128)
        .map(|i| (0.5 + 0.5 * (0.0137 * f64::from(i) + 0.3 * (0.0007 * f64::from(i)).sin()).sin()) as f32);
    let input = Tensor::from_slice(&wave.collect::<Vec<f32>>()).view([1, 3, 128, 128]);
    let logits = net.logits(&input).unwrap();
    // MONAI 1.6.1: SwinUNETR(3, 2, feature_size = 12, num_heads = (2, 4, 8, 16), spatial_dims = 2) with the same parameters,
    // on the centred input: values at places of the flat output, and the mean of its squares.
    let flat = Vec::<f32>::try_from(&logits.flatten(0, -1)).unwrap();
    let expected = [
        (0, -0.14371),
        (77, -0.72382),
        (5000, -0.23343),
        (12345, 0.74438),
        (16383, 0.04845),
        (16384, 1.3107),
        (20000, 2.18152),
        (28080, 0.4784),
        (32767, 0.41291),
    ];
    for (at, value) in expected {
        assert!((flat[at] - value).abs() < 1e-3, "{at}: {} instead of {value}", flat[at]);
    }
    let squares = logits.square().mean(Kind::Float).double_value(&[]);
    assert!((squares - 0.850_880_5).abs() < 1e-4, "{squares}");
}

/// Parameters from a formula, so that another program can have the same: a sine along the elements, its phase from the
/// name.
fn filling(name: &str, shape: &[i64]) -> Tensor {
    let count: i64 = shape.iter().product();
    let phase: f64 = name.bytes().map(f64::from).sum();
    let scaled = |wave: f64| match shape {
        _ if name.contains("norm") && name.ends_with("weight") => 1.0 + 0.1 * wave,
        _ if name.contains("table") => 0.5 * wave,
        [rows, _, ..] => wave * (2.0 * *rows as f64 / count as f64).sqrt(),
        _ => 0.1 * wave,
    };
    let values: Vec<f32> = (0..count).map(|i| scaled((0.37 * i as f64 + phase).sin()) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}
