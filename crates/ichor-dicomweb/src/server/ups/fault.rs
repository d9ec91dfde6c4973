//! Why a request is not done, as HTTP says it (PS3.18 11.4.3 to 11.12.3).

use thiserror::Error;

pub(super) const TRANSACTION_MISSING: &str = "The Transaction UID is missing.";
pub(super) const TRANSACTION_INCORRECT: &str = "The Transaction UID is incorrect.";
pub(super) const INCONSISTENT: &str = "The submitted request is inconsistent with the state of the UPS Instance.";

/// A refusal: its status and what the field Warning says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{status}: {words}")]
pub struct Fault {
    /// HTTP status.
    pub status: u16,
    /// What is wrong, without a word about the patient.
    pub words: String,
}

impl Fault {
    pub(super) fn new(status: u16, words: impl Into<String>) -> Self {
        Self { status, words: words.into() }
    }

    pub(super) fn bad_request(words: impl Into<String>) -> Self {
        Self::new(400, words)
    }

    pub(super) fn conflict(words: impl Into<String>) -> Self {
        Self::new(409, words)
    }

    pub(super) fn unknown() -> Self {
        Self::new(404, "there is no such workitem")
    }
}
