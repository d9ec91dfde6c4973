//! `[commitment]`: storage commitment for those who send.

use serde::{Deserialize, Serialize};

use super::{Durations, Fault, at_least_one};

/// `[commitment]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CommitmentConfig {
    /// How long instances that are not there yet may still come before a failure is reported, in seconds.
    pub(crate) wait_s: f64,
    /// Longest data set of a request, in KiB.
    pub(crate) max_request_kib: usize,
    /// Most instances of a request.
    pub(crate) max_references: usize,
    /// Attempts to report before it is given up; 0: never.
    pub(crate) attempts: u32,
    /// Wait before the second attempt, in seconds; doubles after each.
    pub(crate) first_backoff_s: f64,
    /// Longest wait between attempts, in seconds.
    pub(crate) max_backoff_s: f64,
    /// Time to connect, and for each answer, in seconds.
    pub(crate) timeout_s: f64,
}

impl Default for CommitmentConfig {
    fn default() -> Self {
        Self {
            wait_s: 10.0,
            max_request_kib: 8192,
            max_references: 20_000,
            attempts: 20,
            first_backoff_s: 2.0,
            max_backoff_s: 600.0,
            timeout_s: 30.0,
        }
    }
}

impl CommitmentConfig {
    pub(super) fn check(&self) -> Result<(), Fault> {
        at_least_one("commitment.max_request_kib", self.max_request_kib)?;
        at_least_one("commitment.max_references", self.max_references)
    }

    pub(super) fn durations(&self) -> Durations {
        vec![
            ("commitment.wait_s".to_owned(), self.wait_s),
            ("commitment.first_backoff_s".to_owned(), self.first_backoff_s),
            ("commitment.max_backoff_s".to_owned(), self.max_backoff_s),
            ("commitment.timeout_s".to_owned(), self.timeout_s),
        ]
    }
}
