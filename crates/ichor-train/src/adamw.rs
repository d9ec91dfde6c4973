//! AdamW (Loshchilov and Hutter 2019, decoupled weight decay) with a state that can be saved.
//!
//! libtorch's optimizer keeps its moments out of reach, so a run could not be resumed exactly. This one keeps them by
//! parameter name.

use std::collections::{BTreeMap, HashMap};

use tch::{Kind, Tensor};
use thiserror::Error;

/// The optimizer cannot step or take up a state.
#[derive(Debug, Error)]
pub enum AdamWError {
    /// libtorch refused an operation.
    #[error("optimizer step: {0}")]
    Torch(#[from] tch::TchError),
    /// A saved state lacks a parameter, or has it in another shape.
    #[error("optimizer state does not fit the network: {0}")]
    State(String),
}

/// The constants of AdamW; the learning rate comes with each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, applied to matrices only: biases, norms and position tables are left alone.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; a larger one is scaled down. `None` leaves it.
    pub max_gradient_norm: Option<f64>,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_gradient_norm: None }
    }
}

struct Parameter {
    name: String,
    tensor: Tensor,
    decays: bool,
    first: Tensor,
    second: Tensor,
}

/// AdamW over the trainable tensors of one network, in the order of their names.
pub struct AdamW {
    options: AdamWOptions,
    parameters: Vec<Parameter>,
    steps: u64,
    /// Steps at which the moments were last zero.
    born: u64,
}

impl AdamW {
    /// Takes the named tensors that require a gradient; moments start at zero.
    ///
    /// # Errors
    /// [`AdamWError::Torch`] if a moment cannot be allocated.
    pub fn new(variables: &HashMap<String, Tensor>, options: AdamWOptions) -> Result<Self, AdamWError> {
        let sorted: BTreeMap<&String, &Tensor> = variables.iter().filter(|(_, t)| t.requires_grad()).collect();
        let mut parameters = Vec::with_capacity(sorted.len());
        for (name, tensor) in sorted {
            parameters.push(Parameter {
                name: name.clone(),
                tensor: tensor.shallow_clone(),
                decays: tensor.dim() >= 2 && !name.contains("relative_position_bias_table"),
                first: tensor.detach().f_zeros_like()?,
                second: tensor.detach().f_zeros_like()?,
            });
        }
        Ok(Self { options, parameters, steps: 0, born: 0 })
    }

    /// Number of steps taken, over the whole life of the run.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Steps at which the moments were last zero: 0, or where [`AdamW::restart`] was called.
    #[must_use]
    pub fn born(&self) -> u64 {
        self.born
    }

    /// Sets the moments to zero, as if the next step were the first; the count of steps goes on. For parameters that were held
    /// still so far: their moments would start from nothing while the correction for that is long over.
    ///
    /// # Errors
    /// [`AdamWError::Torch`] if libtorch refuses.
    pub fn restart(&mut self) -> Result<(), AdamWError> {
        let _frozen = tch::no_grad_guard();
        for parameter in &mut self.parameters {
            let _ = parameter.first.f_zero_()?;
            let _ = parameter.second.f_zero_()?;
            // A gradient of an earlier stage would otherwise stay.
            parameter.tensor.zero_grad();
        }
        self.born = self.steps;
        Ok(())
    }

    /// Forgets the gradients of the last step.
    pub fn zero_grad(&mut self) {
        for parameter in &mut self.parameters {
            parameter.tensor.zero_grad();
        }
    }

    /// Takes one step with the gradients that a backward pass left, and returns the gradient's norm before clipping.
    ///
    /// # Errors
    /// [`AdamWError::Torch`] if libtorch refuses an operation.
    pub fn step(&mut self, learning_rate: f64) -> Result<f64, AdamWError> {
        let _frozen = tch::no_grad_guard();
        self.steps += 1;
        let norm = self.gradient_norm()?;
        let scale = self.options.max_gradient_norm.filter(|&most| norm > most).map(|most| most / (norm + 1e-6));
        let AdamWOptions { beta1, beta2, epsilon, weight_decay, .. } = self.options;
        let exponent = i32::try_from(self.steps - self.born.min(self.steps)).unwrap_or(i32::MAX);
        let correction1 = 1.0 - beta1.powi(exponent);
        let correction2 = 1.0 - beta2.powi(exponent);
        for parameter in &mut self.parameters {
            let gradient = parameter.tensor.grad();
            if !gradient.defined() {
                continue;
            }
            let gradient = match scale {
                Some(scale) => gradient.f_mul_scalar(scale)?,
                None => gradient,
            };
            if parameter.decays && weight_decay > 0.0 {
                let _ = parameter.tensor.f_mul_scalar_(1.0 - learning_rate * weight_decay)?;
            }
            let _ = parameter.first.f_lerp_(&gradient, 1.0 - beta1)?;
            let _ = parameter.second.f_lerp_(&gradient.f_square()?, 1.0 - beta2)?;
            let mut denominator = parameter.second.f_sqrt()?;
            let _ = denominator.f_mul_scalar_(1.0 / correction2.sqrt())?;
            let _ = denominator.f_add_scalar_(epsilon)?;
            let mut update = parameter.first.f_div(&denominator)?;
            let _ = update.f_mul_scalar_(learning_rate / correction1)?;
            let _ = parameter.tensor.f_sub_(&update)?;
        }
        Ok(norm)
    }

    fn gradient_norm(&self) -> Result<f64, AdamWError> {
        let mut norms = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            let gradient = parameter.tensor.grad();
            if gradient.defined() {
                norms.push(gradient.f_norm()?);
            }
        }
        if norms.is_empty() {
            return Ok(0.0);
        }
        Ok(Tensor::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?)
    }

    /// The state as named float32 tensors: `first.<parameter>`, `second.<parameter>`; the step count goes beside them.
    #[must_use]
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let first = self.parameters.iter().map(|p| (format!("first.{}", p.name), p.first.shallow_clone()));
        let second = self.parameters.iter().map(|p| (format!("second.{}", p.name), p.second.shallow_clone()));
        first.chain(second).collect()
    }

    /// Takes up a saved state, with the count of steps and that at which the moments were last zero.
    ///
    /// # Errors
    /// [`AdamWError::State`] if a parameter is missing there or has another shape.
    pub fn restore(&mut self, state: &HashMap<String, Tensor>, steps: u64, born: u64) -> Result<(), AdamWError> {
        let _frozen = tch::no_grad_guard();
        for parameter in &mut self.parameters {
            for (kind, moment) in [("first", &mut parameter.first), ("second", &mut parameter.second)] {
                let name = format!("{kind}.{}", parameter.name);
                let saved = state.get(&name).ok_or_else(|| AdamWError::State(format!("{name} is missing")))?;
                if saved.size() != moment.size() {
                    let (found, wanted) = (saved.size(), moment.size());
                    return Err(AdamWError::State(format!("{name} has shape {found:?} instead of {wanted:?}")));
                }
                moment.f_copy_(&saved.f_to_kind(Kind::Float)?)?;
            }
        }
        (self.steps, self.born) = (steps, born);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::nn::{self, OptimizerConfig};
    use tch::{Device, Kind};

    fn net(store: &nn::VarStore, weight: &Tensor, bias: &Tensor) -> (Tensor, Tensor) {
        let root = store.root();
        (root.var_copy("weight", weight), root.var_copy("bias", bias))
    }

    fn loss(weight: &Tensor, bias: &Tensor, x: &Tensor) -> Tensor {
        // The two parts are apart, so that a difference in one does not leak into the other.
        x.matmul(weight).tanh().square().mean(Kind::Float) + (bias - 1.0).square().mean(Kind::Float)
    }

    #[test]
    fn agrees_with_libtorch() {
        let _drawing = crate::draw_alone();
        tch::manual_seed(11);
        let (w0, b0) =
            (Tensor::randn([6, 4], (Kind::Float, Device::Cpu)), Tensor::randn([4], (Kind::Float, Device::Cpu)));
        let (ours, theirs) = (nn::VarStore::new(Device::Cpu), nn::VarStore::new(Device::Cpu));
        let (ow, ob) = net(&ours, &w0, &b0);
        let (tw, tb) = net(&theirs, &w0, &b0);
        // libtorch decays every tensor alike: the decay is compared on the matrix, the bias without decay.
        for decay in [0.0, 0.1] {
            let options = AdamWOptions { weight_decay: decay, ..AdamWOptions::default() };
            let mut mine = AdamW::new(&ours.variables(), options).unwrap();
            let config = nn::AdamW { wd: decay, ..nn::AdamW::default() };
            let mut reference = config.build(&theirs, 1e-2).unwrap();
            for step in 0..25 {
                let x = Tensor::randn([5, 6], (Kind::Float, Device::Cpu));
                let rate = 1e-2 / f64::from(1 + step);
                mine.zero_grad();
                loss(&ow, &ob, &x).backward();
                mine.step(rate).unwrap();
                reference.set_lr(rate);
                reference.backward_step(&loss(&tw, &tb, &x));
            }
            let difference = (&ow - &tw).abs().max().double_value(&[]);
            assert!(difference < 1e-5, "weight decay {decay}: {difference}");
            if decay == 0.0 {
                assert!((&ob - &tb).abs().max().double_value(&[]) < 1e-5);
            } else {
                // Undecayed here, decayed there: they must differ, or the exemption does nothing.
                assert!((&ob - &tb).abs().max().double_value(&[]) > 1e-5);
            }
        }
    }

    #[test]
    fn clips_the_gradient() {
        let _drawing = crate::draw_alone();
        let store = nn::VarStore::new(Device::Cpu);
        let mut p = store.root().zeros("p", &[2]);
        let options = AdamWOptions { max_gradient_norm: Some(1.0), weight_decay: 0.0, ..AdamWOptions::default() };
        let mut optimizer = AdamW::new(&store.variables(), options).unwrap();
        (&p * Tensor::from_slice(&[30.0f32, 40.0])).sum(Kind::Float).backward();
        assert!((optimizer.step(0.1).unwrap() - 50.0).abs() < 1e-3);
        let first = &optimizer.state()[0].1;
        assert!((first.norm().double_value(&[]) - 0.1).abs() < 1e-4, "a unit gradient enters the moment");
        p.zero_grad();
    }

    #[test]
    fn a_restart_makes_the_next_step_the_first() {
        let _drawing = crate::draw_alone();
        let (fresh, old) = (nn::VarStore::new(Device::Cpu), nn::VarStore::new(Device::Cpu));
        let (mut a, mut b) = (fresh.root().zeros("p", &[2]), old.root().zeros("p", &[2]));
        let mut first = AdamW::new(&fresh.variables(), AdamWOptions::default()).unwrap();
        let mut second = AdamW::new(&old.variables(), AdamWOptions::default()).unwrap();
        for _ in 0..50 {
            second.step(0.1).unwrap();
        }
        second.restart().unwrap();
        assert_eq!((second.steps(), second.born()), (50, 50));
        for (p, optimizer) in [(&mut a, &mut first), (&mut b, &mut second)] {
            (&*p * Tensor::from_slice(&[3.0f32, -4.0])).sum(Kind::Float).backward();
            optimizer.step(0.1).unwrap();
            p.zero_grad();
        }
        assert!(a.equal(&b), "{a:?} {b:?}");
    }

    #[test]
    fn a_foreign_state_is_refused() {
        let _drawing = crate::draw_alone();
        let store = nn::VarStore::new(Device::Cpu);
        let _p = store.root().zeros("p", &[2]);
        let mut optimizer = AdamW::new(&store.variables(), AdamWOptions::default()).unwrap();
        let missing = optimizer.restore(&HashMap::new(), 3, 0).unwrap_err().to_string();
        assert!(missing.contains("first.p is missing"), "{missing}");
        let wrong = HashMap::from([("first.p".to_owned(), Tensor::from_slice(&[1.0f32; 3]))]);
        assert!(optimizer.restore(&wrong, 3, 0).unwrap_err().to_string().contains("instead of [2]"));
    }
}
