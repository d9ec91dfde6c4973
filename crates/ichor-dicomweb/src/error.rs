//! Why a STOW-RS request did not end with the peer's word.

use std::path::PathBuf;
use std::time::Duration;

use ichor_core::Uid;
use thiserror::Error;

use crate::outcome::FailureReason;

/// Why storing failed. [`StowError::is_permanent`] says whether another try can help.
#[derive(Debug, Error)]
pub enum StowError {
    /// The base URL cannot be used.
    #[error("STOW-RS URL {url:?}: {why}")]
    Url {
        /// The URL as configured.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// No rustls crypto provider was installed before the client was made.
    #[error("no TLS crypto provider is installed")]
    NoCryptoProvider,
    /// Certificates, proxy or TLS settings cannot be used.
    #[error("HTTP client cannot be set up: {0}")]
    Client(String),
    /// A file to send cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The peer did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection came about.
    #[error("no connection to the DICOMweb service: {0}")]
    Connect(String),
    /// The connection broke before the answer.
    #[error("connection to the STOW-RS service failed: {0}")]
    Connection(String),
    /// The answer is longer than it may be.
    #[error("answer {status} is longer than {limit} bytes")]
    ResponseTooLarge {
        /// HTTP status.
        status: u16,
        /// The cap.
        limit: usize,
    },
    /// A status other than success.
    #[error("HTTP status {status}: {words}")]
    Status {
        /// HTTP status.
        status: u16,
        /// The peer's words, cut and cleaned.
        words: String,
        /// How long the peer asks to wait.
        retry_after: Option<Duration>,
    },
    /// The peer said success, and nothing of our instance.
    #[error("HTTP status {status}, but instance {instance} is not among the referenced instances: {words}")]
    Unconfirmed {
        /// HTTP status.
        status: u16,
        /// The instance in question.
        instance: Uid,
        /// The peer's words, cut and cleaned.
        words: String,
    },
    /// The peer named our instance among the failed ones.
    #[error("instance {instance} refused with HTTP status {status}: {reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The instance.
        instance: Uid,
        /// The peer's reason.
        reason: FailureReason,
    },
}

impl StowError {
    /// Whether no further try can change the answer: a refusal of the object or of us, or a client set up wrong.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Url { .. } | Self::NoCryptoProvider | Self::Client(_) => true,
            // Gone is gone; everything else (descriptors, memory) may pass.
            Self::File { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Connect(_) | Self::Timeout(_) | Self::Connection(_) | Self::Unconfirmed { .. } => false,
            Self::Status { status, .. } | Self::ResponseTooLarge { status, .. } => is_permanent_status(*status),
            Self::Refused { reason, .. } => reason.is_permanent(),
        }
    }

    /// Whether it speaks of the peer and not of what was sent: nobody is there, the gate is closed, or it is not there where we
    /// look for it. The next object would fare the same.
    #[must_use]
    pub const fn is_of_peer(&self) -> bool {
        match self {
            Self::Connect(_) | Self::NoCryptoProvider | Self::Client(_) | Self::Url { .. } => true,
            Self::Status { status, .. } => matches!(*status, 300..=399 | 401 | 403..=405 | 429 | 502..=504),
            _ => false,
        }
    }

    /// How long the peer asks to wait before the next try (Retry-After in seconds).
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The statuses that speak of what was sent: bad request, conflict, gone, too large, not such a media type,
/// unprocessable. A redirection (a proxy's page for maintenance), a refused or expired credential, and a path that is not
/// there are the configuration's, which people put right.
const fn is_permanent_status(status: u16) -> bool {
    matches!(status, 400 | 409 | 410 | 413 | 415 | 422)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_and_what_will_not() {
        for (status, permanent) in [
            (301, false),
            (400, true),
            (401, false),
            (403, false),
            (404, false),
            (408, false),
            (409, true),
            (413, true),
            (429, false),
            (500, false),
            (503, false),
            (507, false),
        ] {
            let error = StowError::Status { status, words: String::new(), retry_after: None };
            assert_eq!(error.is_permanent(), permanent, "{status}");
        }
        let of_peer = |status| StowError::Status { status, words: String::new(), retry_after: None }.is_of_peer();
        assert!([301, 401, 403, 404, 429, 503].into_iter().all(of_peer));
        assert!(![200, 400, 409, 413, 500, 507].into_iter().any(of_peer));
        let large = |status| StowError::ResponseTooLarge { status, limit: 1 };
        assert!(large(400).is_permanent() && !large(200).is_permanent());
    }
}
