//! The operator's choice of a precision.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Precision of a model's matrix products: `f32` or `bf16`. Everything else (residuals, norms, softmax, maps) is float32 in
/// both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// float32.
    #[default]
    F32,
    /// bfloat16 factors, where the processor has instructions for them.
    Bf16,
}

/// A text that names no precision.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown precision {0:?}; known are f32, bf16")]
pub struct UnknownPrecision(String);

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for text in ["f32", "bf16"] {
            assert_eq!(text.parse::<Precision>().unwrap().to_string(), text);
        }
        for text in ["", "fp16", "F32", "float32"] {
            let error = text.parse::<Precision>().unwrap_err().to_string();
            assert!(error.contains("known are f32, bf16"), "{error}");
        }
    }
}
