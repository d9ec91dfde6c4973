//! One side of `scripts/bench_model.py`: computes what it is told on standard input and says how long it took.
//!
//! `model_speed CONFIG WEIGHTS INPUT PRECISION THREADS DEVICE`: sizes (JSON), weights (safetensors or `.pth`), tensors
//! `input` `[n, channels, S, S]` and `brain_mask` `[n, S, S]` (safetensors), `f32` or `bf16`, threads of libtorch, `cpu` or
//! `cuda:N`. Then a line a task:
//!
//! - `forward START COUNT`: logits of these slices at once; `maps START COUNT`: HGI-SAM maps of these slices at once.
//!   Both answer with milliseconds.
//! - `gemm SIDE`: a square matrix product, best of five; answers with GFLOP/s.
//! - `memory`: most resident memory so far, MiB. `save FILE`: logits and maps of all slices, as `ichor model maps` has
//!   them.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use ichor_model::attribution::{GradientSite, HgiOptions, RollBack};
use ichor_model::{Frozen, Precision, SwinConfig, SwinPlan, available, load_frozen};
use tch::{Cuda, Device, Kind, Tensor};

type Failure = Box<dyn std::error::Error>;

struct Bench {
    frozen: Frozen,
    input: Tensor,
    brain: Tensor,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, weights, input, precision, threads, device] = arguments.as_slice() else {
        return Err("usage: model_speed CONFIG WEIGHTS INPUT PRECISION THREADS DEVICE".into());
    };
    let device = ichor_model::resolve(device.parse()?)?;
    tch::set_num_threads(threads.parse()?);
    let sizes: SwinConfig = serde_json::from_slice(&std::fs::read(config)?)?;
    let precision = available(precision.parse::<Precision>()?, device);
    let frozen = load_frozen(Path::new(weights), &SwinPlan::check(&sizes)?, device, precision)?;
    let tensors: HashMap<String, Tensor> = Tensor::read_safetensors(input)?.into_iter().collect();
    let get = |name: &str| tensors.get(name).map(|tensor| tensor.to_device(device)).ok_or(format!("no {name}"));
    let bench = Bench { frozen, input: get("input")?, brain: get("brain_mask")? };
    println!("ready {precision}");
    for line in std::io::stdin().lock().lines() {
        println!("{}", bench.answer(&line?)?);
    }
    Ok(())
}

impl Bench {
    fn answer(&self, line: &str) -> Result<String, Failure> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["forward", start, count] => {
                let (input, _) = self.slices(start.parse()?, count.parse()?)?;
                timed(self.frozen.device(), || {
                    drop(self.frozen.forward(&input)?.to_device(Device::Cpu));
                    Ok(())
                })?
            }
            ["maps", start, count] => {
                let (input, brain) = self.slices(start.parse()?, count.parse()?)?;
                let maps = || {
                    drop(self.maps(&input, &brain)?.1.to_device(Device::Cpu));
                    Ok(())
                };
                timed(self.frozen.device(), maps)?
            }
            ["gemm", side] => format!("{:.1}", self.gemm(side.parse()?)?),
            ["memory"] => most_resident_mib()?.to_string(),
            ["save", file] => {
                let slices: Result<Vec<_>, Failure> = (0..self.input.size()[0])
                    .map(|slice| self.slices(slice, 1).and_then(|(input, brain)| self.maps(&input, &brain)))
                    .collect();
                let (logits, maps): (Vec<Tensor>, Vec<Tensor>) = slices?.into_iter().unzip();
                let saved = [("logits", Tensor::f_cat(&logits, 0)?), ("hgi_map", Tensor::f_cat(&maps, 0)?)];
                Tensor::write_safetensors(&saved, file)?;
                "saved".to_owned()
            }
            _ => return Err(format!("{line:?} is no task").into()),
        })
    }

    fn slices(&self, start: i64, count: i64) -> Result<(Tensor, Tensor), Failure> {
        Ok((self.input.f_narrow(0, start, count)?, self.brain.f_narrow(0, start, count)?))
    }

    fn maps(&self, input: &Tensor, brain: &Tensor) -> Result<(Tensor, Tensor), Failure> {
        let options = HgiOptions { site: GradientSite::SoftmaxInput, roll_back: RollBack::AsReference };
        let positive = self.frozen.plan().config.num_classes - 1;
        let maps = self.frozen.hgi_sam(input, brain, positive, options)?;
        Ok((maps.logits.to_device(Device::Cpu), maps.map.to_device(Device::Cpu)))
    }

    /// Rate of a large square product in the model's precision, GFLOP/s.
    fn gemm(&self, side: i64) -> Result<f64, Failure> {
        let kind = match self.frozen.precision() {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        let made = || Tensor::f_rand([side, side], (Kind::Float, self.frozen.device()))?.f_to_kind(kind);
        let (a, b) = (made()?, made()?);
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let begun = Instant::now();
            let _product = a.f_mm(&b)?;
            wait(self.frozen.device());
            best = best.min(begun.elapsed().as_secs_f64());
        }
        Ok(2.0 * (side as f64).powi(3) / best / 1e9)
    }
}

fn timed(device: Device, f: impl FnOnce() -> Result<(), Failure>) -> Result<String, Failure> {
    wait(device);
    let begun = Instant::now();
    f()?;
    wait(device);
    Ok(format!("{:.3}", begun.elapsed().as_secs_f64() * 1e3))
}

/// Work on a GPU goes on after its call.
fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(i64::try_from(index).unwrap_or_default());
    }
}

fn most_resident_mib() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no VmHWM")?.parse()?;
    Ok(kib / 1024)
}
