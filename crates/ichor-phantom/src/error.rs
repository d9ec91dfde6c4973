//! What can go wrong when a phantom is made or written.

use std::path::PathBuf;

use thiserror::Error;

/// A phantom cannot be made or written.
#[derive(Debug, Error)]
pub enum PhantomError {
    /// An option makes no head.
    #[error("phantom option {name}: {why}")]
    Option {
        /// The option.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// An object could not be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: Box<dicom_object::WriteError>,
    },
    /// The file meta information could not be put together.
    #[error("file meta information of {path}: {why}")]
    Meta {
        /// The file.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// The truth could not be put into JSON.
    #[error("truth of the study: {0}")]
    Truth(#[from] serde_json::Error),
}
