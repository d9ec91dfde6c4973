//! The care of the machine: doctor, backups, retention, configuration.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ConfigArg, StoreArg};

/// `doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
}

/// `backup`
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Folder of the backup; made if absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
}

/// `verify`
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// A backup's folder, which is read instead of the store.
    #[arg(long, value_name = "DIR")]
    pub(crate) backup: Option<PathBuf>,

    /// Most MiB to read a second; 0: as fast as it goes.
    #[arg(long, value_name = "MIB", default_value_t = 20)]
    pub(crate) rate: u32,
}

/// `invite`
#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Name of the user.
    pub(crate) name: String,
}

/// `restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Folder of the backup.
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,

    /// Revokes all API tokens: those that were revoked since the backup was made would be valid again.
    #[arg(long)]
    pub(crate) revoke_tokens: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// Says what would go at this moment and by which rule, and what stays and why. Nothing is changed.
    Plan(RetentionPlanArgs),
}

/// `retention plan`
#[derive(Debug, Args)]
pub(crate) struct RetentionPlanArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Most studies to print of those that go, and of those that stay.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Reads and checks a configuration file; an unknown key is named with its line.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Says what differs between two configuration files, key by key, and what comes in force on SIGHUP or needs a restart.
    Diff {
        /// The file as it was.
        old: PathBuf,
        /// The file as it is to be.
        new: PathBuf,
    },
}
