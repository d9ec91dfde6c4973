//! Checkpoints as training scripts write them: safetensors and PyTorch archives, in every form of names; and what is no
//! checkpoint.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use ichor_model::{FilesError, SwinConfig, maps_from_files};
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use support::{random_input, random_swin, small};
use tch::Tensor;

/// Tensors by name: sizes and little-endian bytes.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// A folder with a configuration, an input and what the network says of it.
struct Bench {
    folder: tempfile::TempDir,
    tensors: Tensors,
}

fn bytes(tensor: &Tensor) -> (Vec<usize>, Vec<u8>) {
    let values: Vec<f32> = tensor.detach().flatten(0, -1).try_into().unwrap();
    let size = tensor.size().into_iter().map(|side| side as usize).collect();
    (size, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn safetensors_of(tensors: &Tensors) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, (size, data))| (name.as_str(), TensorView::new(Dtype::F32, size.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

impl Bench {
    fn new() -> Self {
        let config = SwinConfig { img_size: 32, depths: vec![2, 2], num_heads: vec![2, 2], ..small() };
        let folder = tempfile::tempdir().unwrap();
        let (store, _swin) = random_swin(&config, 5);
        let tensors: Tensors = store.variables().iter().map(|(name, tensor)| (name.clone(), bytes(tensor))).collect();
        let (input, brain) = random_input(&config, 1, 3);
        let input: Tensors = [("input".to_owned(), bytes(&input)), ("brain_mask".to_owned(), bytes(&brain))].into();
        let bench = Self { folder, tensors };
        std::fs::write(bench.path("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        std::fs::write(bench.path("input.safetensors"), safetensors_of(&input)).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The logits with weights of these bytes, under this file name.
    fn logits(&self, name: &str, weights: &[u8]) -> Result<Vec<f32>, FilesError> {
        std::fs::write(self.path(name), weights).unwrap();
        let (input, output) = (self.path("input.safetensors"), self.path("output.safetensors"));
        maps_from_files(&self.path("config.json"), &self.path(name), &input, &output)?;
        let tensors = Tensor::read_safetensors(output).unwrap();
        let (_, logits) = tensors.into_iter().find(|(name, _)| name == "logits").unwrap();
        Ok(logits.flatten(0, -1).try_into().unwrap())
    }

    fn expected(&self) -> Vec<f32> {
        self.logits("weights.safetensors", &safetensors_of(&self.tensors)).unwrap()
    }

    fn error(&self, weights: &[u8]) -> String {
        self.logits("weights.pth", weights).unwrap_err().to_string()
    }
}

/// What `torch.save` writes, protocol 2, opcode by opcode (torch/serialization.py, torch/_tensor.py).
#[derive(Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn op(&mut self, opcode: u8) -> &mut Self {
        self.0.push(opcode);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.op(b'X').0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    fn number(&mut self, number: usize) -> &mut Self {
        self.op(b'J').0.extend((number as i32).to_le_bytes());
        self
    }

    fn global(&mut self, module: &str, name: &str) -> &mut Self {
        self.op(b'c').0.extend(format!("{module}\n{name}\n").as_bytes());
        self
    }

    /// `OrderedDict()`
    fn ordered_dict(&mut self) -> &mut Self {
        self.global("collections", "OrderedDict").op(b')').op(b'R')
    }

    fn numbers(&mut self, numbers: &[usize]) -> &mut Self {
        self.op(b'(');
        for number in numbers {
            self.number(*number);
        }
        self.op(b't')
    }

    fn tensor(&mut self, storage: &str, key: &str, size: &[usize], strides: &[usize], offset: usize) -> &mut Self {
        self.sized_tensor(storage, key, size, strides, offset, size.iter().product())
    }

    /// A tensor on a storage of so many elements.
    fn sized_tensor(
        &mut self,
        storage: &str,
        key: &str,
        size: &[usize],
        strides: &[usize],
        offset: usize,
        elements: usize,
    ) -> &mut Self {
        self.global("torch._utils", "_rebuild_tensor_v2").op(b'(').op(b'(').text("storage");
        self.global("torch", storage).text(key).text("cpu").number(elements).op(b't').op(b'Q');
        self.number(offset).numbers(size).numbers(strides).op(0x89).ordered_dict().op(b't').op(b'R')
    }
}

fn row_major(size: &[usize]) -> Vec<usize> {
    (0..size.len()).map(|axis| size[axis + 1..].iter().product()).collect()
}

/// A PyTorch archive: the pickle and, by their numbers, the storages.
fn archive(pickle: &[u8], storages: &[Vec<u8>]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut file = |name: String, content: &[u8]| {
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    };
    file("archive/data.pkl".to_owned(), pickle);
    for (number, storage) in storages.iter().enumerate() {
        file(format!("archive/data/{number}"), storage);
    }
    file("archive/version".to_owned(), b"3\n");
    zip.finish().unwrap().into_inner()
}

/// A state dict, under a key or at the top.
fn state_dict(tensors: &Tensors, key: Option<&str>, storage: &str, convert: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut pickle = Pickle(vec![0x80, 2]);
    if let Some(key) = key {
        // { "epoch": 3, key: ...
        pickle.op(b'}').op(b'(').text("epoch").number(3).text(key);
    }
    pickle.ordered_dict().op(b'(');
    let mut storages = Vec::new();
    for (name, (size, data)) in tensors {
        pickle.text(name).tensor(storage, &storages.len().to_string(), size, &row_major(size), 0);
        storages.push(convert(data));
    }
    pickle.op(b'u');
    if key.is_some() {
        pickle.op(b'u');
    }
    pickle.op(b'.');
    archive(&pickle.0, &storages)
}

fn as_they_are(data: &[u8]) -> Vec<u8> {
    data.to_vec()
}

fn floats(data: &[u8]) -> impl Iterator<Item = f32> + '_ {
    data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
}

/// Under other names.
fn renamed(tensors: &Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    tensors.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
}

fn timm(name: &str) -> String {
    name.replacen("head.", "head.fc.", 1).replacen("swin.", "", 1)
}

#[test]
fn a_state_dict_gives_what_safetensors_give() {
    let bench = Bench::new();
    let expected = bench.expected();
    let with =
        |tensors: &Tensors, key| bench.logits("weights.pth", &state_dict(tensors, key, "FloatStorage", as_they_are));
    assert_eq!(with(&bench.tensors, None).unwrap(), expected);
    for key in ["state_dict", "model", "model_state_dict"] {
        assert_eq!(with(&bench.tensors, Some(key)).unwrap(), expected, "{key}");
    }
    let plain = renamed(&bench.tensors, timm);
    assert_eq!(with(&plain, None).unwrap(), expected, "a plain timm network");
    let parallel = renamed(&plain, |name| format!("module.{name}"));
    assert_eq!(with(&parallel, Some("state_dict")).unwrap(), expected, "wrapped by DataParallel");
    assert_eq!(bench.logits("plain.safetensors", &safetensors_of(&plain)).unwrap(), expected);
    // What timm keeps beside the weights.
    let mut buffers = plain.clone();
    buffers.insert("layers.0.blocks.1.attn_mask".to_owned(), (vec![2], vec![0; 8]));
    buffers.insert("layers.0.blocks.0.attn.relative_position_index".to_owned(), (vec![2], vec![0; 8]));
    assert_eq!(with(&buffers, None).unwrap(), expected);
}

#[test]
fn other_kinds_of_numbers_are_converted() {
    let bench = Bench::new();
    let expected = bench.expected();
    let double = |data: &[u8]| floats(data).flat_map(|value| f64::from(value).to_le_bytes()).collect::<Vec<u8>>();
    let file = state_dict(&bench.tensors, None, "DoubleStorage", double);
    assert_eq!(bench.logits("weights.pth", &file).unwrap(), expected);
    // bfloat16 is the upper half of a float.
    let brain = |data: &[u8]| {
        floats(data).flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes()).collect::<Vec<u8>>()
    };
    let rounded = bench.logits("weights.pth", &state_dict(&bench.tensors, None, "BFloat16Storage", brain)).unwrap();
    let furthest = rounded.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(furthest > 0.0 && furthest < 0.2, "{furthest}");
    let error = bench.error(&state_dict(&bench.tensors, None, "LongStorage", |data| {
        floats(data).flat_map(|_| 1i64.to_le_bytes()).collect()
    }));
    assert!(error.contains("head.bias") && error.contains("I64"), "{error}");
}

#[test]
fn a_transposed_tensor_is_read_as_what_it_is() {
    let bench = Bench::new();
    let mut pickle = Pickle(vec![0x80, 2]);
    pickle.ordered_dict().op(b'(');
    let mut storages = Vec::new();
    for (name, (size, data)) in &bench.tensors {
        let (mut strides, mut data) = (row_major(size), data.clone());
        if let [rows, columns] = size[..] {
            // Saved as `weight.t()` of what was laid out the other way.
            let values: Vec<f32> = floats(&data).collect();
            data = (0..columns)
                .flat_map(|c| (0..rows).map(move |r| (r, c)))
                .flat_map(|(r, c)| values[r * columns + c].to_le_bytes())
                .collect();
            strides = vec![1, rows];
        }
        pickle.text(name).tensor("FloatStorage", &storages.len().to_string(), size, &strides, 0);
        storages.push(data);
    }
    pickle.op(b'u').op(b'.');
    assert_eq!(bench.logits("weights.pth", &archive(&pickle.0, &storages)).unwrap(), bench.expected());
}

#[test]
fn every_tensor_that_does_not_fit_is_named_with_its_shapes() {
    let bench = Bench::new();
    let mut tensors = bench.tensors.clone();
    tensors.remove("swin.norm.bias");
    tensors.insert("swin.another".to_owned(), (vec![2, 3], vec![0; 24]));
    tensors.insert("head.weight".to_owned(), (vec![5, 24], vec![0; 480]));
    for file in [safetensors_of(&tensors), state_dict(&tensors, None, "FloatStorage", as_they_are)] {
        let error = bench.error(&file);
        for words in [
            "swin.norm.bias [24] is missing",
            "swin.another [2, 3] has no place",
            "head.weight is [5, 24], the model wants [2, 24]",
        ] {
            assert!(error.contains(words), "{words:?} is not in {error}");
        }
    }
    let strangers = renamed(&bench.tensors, |name| format!("unet.{name}"));
    let error = bench.error(&safetensors_of(&strangers));
    assert!(error.contains(" more") && error.len() < 4_000, "{error}");
}

#[test]
fn what_is_no_state_dict_is_said_and_nothing_is_executed() {
    let bench = Bench::new();
    let marker = bench.path("executed");
    // os.system("touch …"), as a pickle that is loaded would do.
    let mut program = Pickle(vec![0x80, 2]);
    program.global("posix", "system").op(b'(').text(&format!("touch {}", marker.display())).op(b't').op(b'R').op(b'.');
    let error = bench.error(&archive(&program.0, &[]));
    assert!(error.contains("state dict") && error.contains("weights.pth"), "{error}");
    let mut hidden = Pickle(vec![0x80, 2]);
    hidden.op(b'}').op(b'(').text("state_dict");
    hidden
        .global("posix", "system")
        .op(b'(')
        .text(&format!("touch {}", marker.display()))
        .op(b't')
        .op(b'R')
        .op(b'u')
        .op(b'.');
    assert!(bench.error(&archive(&hidden.0, &[])).contains("state dict"));
    assert!(!marker.exists(), "it was executed");
    // A part of a larger storage.
    let mut part = Pickle(vec![0x80, 2]);
    part.ordered_dict().op(b'(').text("head.bias").tensor("FloatStorage", "0", &[2], &[1], 3).op(b'u').op(b'.');
    let error = bench.error(&archive(&part.0, &[vec![0; 20]]));
    assert!(error.contains("head.bias") && error.contains("larger storage"), "{error}");
    // A size that the file only claims.
    let mut huge = Pickle(vec![0x80, 2]);
    huge.ordered_dict().op(b'(').text("head.bias");
    huge.sized_tensor("FloatStorage", "0", &[1 << 30; 3], &[1, 1, 1], 0, 1).op(b'u').op(b'.');
    let error = bench.error(&archive(&huge.0, &[vec![0; 4]]));
    assert!(error.contains("head.bias") && error.contains("larger than the whole file"), "{error}");
    // A storage that is shorter than its tensor, and one that is not there.
    let mut short = Pickle(vec![0x80, 2]);
    short.ordered_dict().op(b'(').text("head.bias").tensor("FloatStorage", "0", &[2], &[1], 0).op(b'u').op(b'.');
    assert!(bench.error(&archive(&short.0, &[vec![0; 3]])).contains("weights.pth"));
    assert!(bench.error(&archive(&short.0, &[])).contains("weights.pth"));
    for (bytes, word) in [
        (b"PK\x03\x04 and no archive".to_vec(), "PyTorch"),
        (vec![0x80, 2, 0x8A, 0x0A, 0x6C, 0xFC], "again"),
        (b"<html>".to_vec(), "safetensors"),
        (Vec::new(), "safetensors"),
    ] {
        let error = bench.error(&bytes);
        assert!(error.contains(word), "{word}: {error}");
    }
    let mut nan = bench.tensors.clone();
    nan.get_mut("head.bias").unwrap().1[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = bench.error(&state_dict(&nan, None, "FloatStorage", as_they_are));
    assert!(error.contains("head.bias") && error.contains("not finite"), "{error}");
}

fn a_file() -> &'static (Bench, Vec<u8>) {
    static FILE: std::sync::OnceLock<(Bench, Vec<u8>)> = std::sync::OnceLock::new();
    FILE.get_or_init(|| {
        let bench = Bench::new();
        let file = state_dict(&bench.tensors, None, "FloatStorage", as_they_are);
        (bench, file)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A file cut anywhere, or with a byte changed anywhere in its pickle, is refused or read, and nothing panics.
    #[test]
    fn damaged_files_are_survived(cut in 0usize..200_000, at in 0usize..4_000, byte: u8) {
        let (bench, file) = a_file();
        let path = bench.path(&format!("damaged-{cut}-{at}.pth"));
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let (input, output) = (bench.path("input.safetensors"), bench.path("damaged.safetensors"));
            let outcome = maps_from_files(&bench.path("config.json"), Path::new(&path), &input, &output);
            std::fs::remove_file(&path).unwrap();
            outcome.is_err()
        };
        prop_assert!(refused(&file[..cut.min(file.len() - 1)]), "cut at {}", cut);
        let mut changed = file.clone();
        changed[at] = byte;
        let _ = refused(&changed);
    }
}
