//! DICOMweb: STOW-RS (PS3.18 10.5), as user agent and, in [`server`], as origin server; as user agent also the question whether
//! an instance is there, retrieval (WADO-RS), and workitems of others (UPS-RS, [`ups`]).
//!
//! For the client an object counts as stored only when the peer names its SOP Instance UID in the Referenced SOP Sequence of its
//! answer. Files are streamed; an answer is read up to a cap and never trusted beyond it.
//!
//! Architecture Invariant: no crypto provider is installed here. The binary installs one, first thing; without it
//! [`StowClient::new`] is an error and not a panic.

mod client;
mod error;
mod find;
mod multipart;
mod native_xml;
mod options;
mod outcome;
mod retrieve;
pub mod server;
mod study;
pub mod ups;

pub use client::{StowClient, StowInstance};
pub use error::StowError;
pub use find::{InstanceKey, Lookup};
pub use options::{Credentials, StowOptions};
pub use outcome::{FailureReason, InstanceOutcome, StowOutcome};
pub use retrieve::{InstancesOf, RetrieveError, RetrieveLimits, Retrieved};
pub use study::WebMatch;
