//! From CT instances to Hounsfield units in their place, model input, brain masks and millilitres. Pure: no network,
//! no tch, no SQL.
//!
//! Architecture Invariant: everything here works slice by slice; no function holds the pixels of a whole study, so a
//! study of two thousand slices costs the memory of one.

mod attribute;
mod body;
pub mod brain;
mod codestream;
pub mod components;
pub mod distance;
mod error;
pub mod frames;
pub mod gate;
pub mod header;
pub mod input;
mod jpeg12;
mod kernel;
pub mod refine;
pub mod series;
pub mod smooth;
pub mod volume;
mod words;

pub use error::CtError;
