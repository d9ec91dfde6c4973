//! STOW-RS as origin server (PS3.18 10.5): `POST {prefix}/studies` and `POST {prefix}/studies/{study}`.
//!
//! The bytes of each part go to a [`PartSink`] as they arrive; the answer names an instance as stored after its sink
//! has committed, and not before. Neither a body nor a part is ever held in memory.
//!
//! Architecture Invariant: this module knows HTTP and media types. What a part means, and where it is kept, is the
//! [`StowHandler`]'s.

mod answer;
mod body;
mod handler;
mod listener;
mod media;
pub mod multipart;
mod options;
mod request;
mod tls;
pub mod ups;

pub use handler::{PartFailure, PartOutcome, PartResult, PartSink, Refusal, RequestEnd, Sender, StowHandler};
pub use listener::StowServer;
pub use options::{ClientRule, ServerOptions, Token};
pub use tls::{TlsError, tls_config};
