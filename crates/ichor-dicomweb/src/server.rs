//! DICOMweb as origin server: STOW-RS (PS3.18 10.5), `POST {prefix}/studies` and `POST {prefix}/studies/{study}`; and, where
//! there is an [`Archive`], QIDO-RS (10.6) and WADO-RS (10.4) of what is kept.
//!
//! The bytes of each part go to a [`PartSink`] as they arrive; the answer names an instance as stored after its sink
//! has committed, and not before. Neither a body nor a part is ever held in memory. What is retrieved is made while it is
//! sent, no faster than the peer takes it.
//!
//! Architecture Invariant: this module knows HTTP, media types and the DICOM JSON Model. What a part means, where it is kept
//! and how it is decoded, is the [`StowHandler`]'s and the [`Archive`]'s.

mod answer;
mod archive;
mod body;
mod handler;
mod listener;
pub(crate) mod media;
pub mod multipart;
mod options;
mod reading;
mod request;
mod retrieve;
mod route;
mod search;
mod stream;
mod tls;
pub mod ups;

pub use archive::{
    Access, Archive, ArchiveFault, Candidates, FrameBytes, Held, HeldStudy, JsonDataSet, PictureForm, Rendering,
    VoiFunction,
};
pub use handler::{PartFailure, PartOutcome, PartResult, PartSink, Refusal, RequestEnd, Sender, StowHandler};
pub use listener::StowServer;
pub use options::{ClientRule, ReadingOptions, Right, ServerOptions, Token};
pub use retrieve::accept::{Wanted, ranges};
pub use retrieve::parameters::rendering;
pub use route::{Level, Resource, RouteError, Target, resource};
pub use search::query::{Condition, Search, pairs, parse};
pub use tls::{TlsError, tls_config};
