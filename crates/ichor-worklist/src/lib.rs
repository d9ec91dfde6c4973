//! Tells those who read: what happens to a study, as an HL7 v2.5.1 message over MLLP, as FHIR resources or as a webhook.
//!
//! One [`Announcement`] says what is told, whatever the way. A [`hl7::Hl7Client`], a [`fhir::FhirClient`] and a
//! [`webhook::WebhookClient`] send one and wait for the peer's own word; when, how often and in which order is the caller's concern. An announcement has
//! the same [`Announcement::id`] at every attempt, by which a peer knows a repetition.
//!
//! Architecture Invariant: no SQL, no pixels, no state.

mod announcement;
pub mod fhir;
pub mod hl7;
mod http;
pub mod webhook;

use std::time::Duration;

use thiserror::Error;

pub use announcement::{Announcement, Patient, Series, Study, SuspiciousSlices};

/// Why nobody was told. [`TellError::is_permanent`] says whether another try can help.
#[derive(Debug, Error)]
pub enum TellError {
    /// No connection, or it broke before the answer.
    #[error("connection to {peer} failed: {why}")]
    Connection {
        /// Address or host.
        peer: String,
        /// What happened.
        why: String,
    },
    /// The peer did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer is none to this message.
    #[error("unusable answer: {0}")]
    Answer(String),
    /// The peer refused the message. Its own words are not part of this, for they may speak of the patient.
    #[error("refused: {0}")]
    Refused(String),
    /// The peer will refuse it at every attempt.
    #[error("refused for good: {0}")]
    RefusedForGood(String),
    /// The message cannot be made.
    #[error("message cannot be made: {0}")]
    Message(String),
    /// The message is about an order, and the study has no accession number that would say about which.
    #[error("it changes an order, and the accession number that names the order is not known")]
    NoOrder,
}

impl TellError {
    /// Whether no other try will change it.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::RefusedForGood(_) | Self::Message(_) | Self::NoOrder)
    }
}

/// A channel cannot be set up.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The template of the message has a fault.
    #[error("template {name}: {why}")]
    Template {
        /// Its file, or the name of a shipped one.
        name: String,
        /// The engine's words, with the line.
        why: String,
    },
    /// A URL, a secret or a certificate cannot be used.
    #[error("{0}")]
    Value(String),
}
