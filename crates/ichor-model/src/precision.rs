//! In what precision the model's matrix products are computed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind};
use thiserror::Error;
use tracing::warn;

/// Precision of matrix products. Everything else (residuals, norms, softmax, maps) is float32 in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// bfloat16 factors, where the processor has instructions for them. Probabilities and maps stay within 0.01 of
    /// float32 (`docs/performance.md` has the measurement).
    Bf16,
}

/// A word that names no precision.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("precision {0:?} is neither f32 nor bf16")]
pub struct UnknownPrecision(String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(UnknownPrecision(text.to_owned())),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl Precision {
    /// The kind of a factor.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }

    /// What `device` computes natively: bfloat16 on a processor without it would be slower and coarser, so it stays
    /// float32 there, and the log says so.
    #[must_use]
    pub fn available_on(self, device: Device) -> Self {
        if self == Self::Bf16 && device == Device::Cpu && !cpu_has_bf16() {
            warn!("the processor has no native bf16 (AVX512_BF16): the model stays at f32");
            return Self::F32;
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_bf16() -> bool {
    std::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_has_bf16() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for precision in [Precision::F32, Precision::Bf16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        let error = "fp16".parse::<Precision>().unwrap_err();
        assert_eq!(error.to_string(), "precision \"fp16\" is neither f32 nor bf16");
    }

    #[test]
    fn f32_is_had_everywhere_and_bf16_where_the_processor_has_it() {
        assert_eq!(Precision::F32.available_on(Device::Cpu), Precision::F32);
        let bf16 = Precision::Bf16.available_on(Device::Cpu);
        assert_eq!(bf16 == Precision::Bf16, cpu_has_bf16());
        assert_eq!(Precision::Bf16.available_on(Device::Cuda(0)), Precision::Bf16);
    }
}
