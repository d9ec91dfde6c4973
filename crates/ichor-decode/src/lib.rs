//! Compressed CT slices, decoded where a crash or a bomb costs one slice.
//!
//! Codecs are the code that a peer reaches deepest: image decoders, some of them C++, fed with bytes from the network.
//! They run in child processes that hold nothing but the bytes of one instance. A [`Decoder`] keeps a pool of them;
//! [`worker::run`] is what a child does. Uncompressed slices have no codec and are read in the calling process.
//!
//! Architecture Invariant: the parent believes nothing that a child says. An answer is as large as the header's matrix
//! says or it is none, and a child that does anything else is killed. A child opens no file and no connection: the
//! bytes come to it through its only descriptor, and its limits leave it no other.

mod caps;
mod decoder;
mod end;
mod options;
pub mod protocol;
mod spawner;
mod survey;
pub mod worker;
mod worker_process;

pub use caps::Caps;
pub use decoder::{DecodeError, Decoder, Unavailable};
pub use options::DecoderOptions;
