//! Tools that need no store: the demonstration, senders, phantoms, explanations.

use std::path::PathBuf;

use clap::Args;
use ichor_core::AeTitle;

use crate::commands::peer::PeerAddress;

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep everything (database, received files, Segmentation, overlay) in this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,

    /// Weights to use instead of the demonstration weights.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,

    /// Seed of the synthetic study.
    #[arg(long, default_value_t = crate::commands::demo::DEFAULT_SEED)]
    pub(crate) seed: u64,

    /// Device of the model: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
}

#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// The peer.
    #[arg(long, value_name = "AE@HOST:PORT")]
    pub(crate) to: PeerAddress,

    /// Own AE title.
    #[arg(long, value_name = "AE", default_value = "ICHOR_SCU")]
    pub(crate) from: AeTitle,

    /// Files, or folders that are searched for DICOM files.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct EchoArgs {
    /// The peer.
    #[arg(value_name = "AE@HOST:PORT")]
    pub(crate) to: PeerAddress,

    /// Own AE title.
    #[arg(long, value_name = "AE", default_value = "ICHOR_SCU")]
    pub(crate) from: AeTitle,
}

#[derive(Debug, Args)]
pub(crate) struct PhantomArgs {
    /// Folder to write to; made if absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Seed of the first study.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// How many studies, with consecutive seeds, each in a folder of its own.
    #[arg(long, default_value_t = 1)]
    pub(crate) count: u64,

    /// Whether the studies bleed; absent: by the seed.
    #[arg(long, value_name = "BOOL")]
    pub(crate) positive: Option<bool>,

    /// Slices; absent: by the seed.
    #[arg(long)]
    pub(crate) slices: Option<u32>,

    /// Rows and columns; absent: by the seed.
    #[arg(long)]
    pub(crate) matrix: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// DICOM files of CT images, or folders that are searched for them.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) paths: Vec<PathBuf>,

    /// Folder to write to; made if absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,

    /// Only this frame of multi-frame files, counted from 1; absent: all.
    #[arg(long, value_name = "N")]
    pub(crate) frame: Option<u32>,

    /// Weights to use instead of the demonstration weights.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,

    /// Device of the model: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
}
