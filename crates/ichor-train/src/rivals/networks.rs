//! The networks, apart from what trains and what measures them.

mod resnet;
mod resnet_lstm;
mod swin_blocks;
mod swin_unetr;
mod unet;
mod units;

use tch::{Kind, Tensor};
use thiserror::Error;

pub use resnet_lstm::{ResNetLstm, ResNetLstmSizes, Scan};
pub use swin_unetr::{SwinUnetr, SwinUnetrSizes};
pub use unet::{UNet, UNetSizes};

/// Sizes that make no network, or an input that does not fit one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// A size is zero, negative or beyond reason.
    #[error("{0} {1} is not between 1 and {2}")]
    Range(&'static str, i64, i64),
    /// A list of sizes has another length than it may have.
    #[error("{0} has {1} entries, {2} are needed")]
    Length(&'static str, usize, &'static str),
    /// Something does not divide.
    #[error("{what} {value} is not a multiple of {by} ({reason})")]
    Multiple {
        /// What should be a multiple.
        what: &'static str,
        /// Its value.
        value: i64,
        /// Of which number.
        by: i64,
        /// Why.
        reason: &'static str,
    },
    /// The input has another shape.
    #[error("input is {got:?}, the network wants {want:?} (-1 = any number)")]
    Shape {
        /// Its shape.
        got: Vec<i64>,
        /// The shape it should have.
        want: Vec<i64>,
    },
}

/// Logits for each pixel.
pub trait Segmenter: Send {
    /// `[batch, 3, S, S]`, values 0..1 as preprocessing makes them → `[batch, 2, S, S]`: background, hemorrhage.
    ///
    /// # Errors
    /// [`NetworkError::Shape`].
    fn logits(&self, input: &Tensor) -> Result<Tensor, NetworkError>;
}

/// Channels of a model input.
const CHANNELS: i64 = 3;

/// Background and hemorrhage.
const CLASSES: i64 = 2;

fn in_range(name: &'static str, value: i64, most: i64) -> Result<(), NetworkError> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(NetworkError::Range(name, value, most)) }
}

fn divides(what: &'static str, value: i64, by: i64, reason: &'static str) -> Result<(), NetworkError> {
    if value > 0 && value % by == 0 { Ok(()) } else { Err(NetworkError::Multiple { what, value, by, reason }) }
}

/// The input with its mean and spread taken out (0.4 and 0.25, as the Swin is trained): networks that start from nothing
/// learn faster on centred values.
fn centred(input: &Tensor, size: i64) -> Result<Tensor, NetworkError> {
    let got = input.size();
    if got.len() != 4 || got[0] < 1 || got[1..] != [CHANNELS, size, size] {
        return Err(NetworkError::Shape { got, want: vec![-1, CHANNELS, size, size] });
    }
    Ok((input.to_kind(Kind::Float) - 0.4) / 0.25)
}

#[cfg(test)]
mod tests;
