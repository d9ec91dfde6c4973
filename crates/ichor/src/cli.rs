//! The command line, as one tree. Every command prints for people by default and for machines with `--json`.

mod care;
pub(crate) mod models;
mod queues;
mod studies;
mod tools;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::care::*;
pub(crate) use self::models::{ModelTree, ReanalyseArgs};
pub(crate) use self::queues::*;
pub(crate) use self::studies::*;
pub(crate) use self::tools::*;
use crate::engine::EngineCommand;

/// Receives head CT by DICOM, finds intracranial hemorrhage, and sends the segmentation back.
///
/// ichor is a Storage SCP with a model behind it: studies arrive by C-STORE, a Swin transformer classifies every
/// slice, head-wise gradient-infused self-attention (HGI-SAM, arXiv 2304.04902) turns positive slices into masks,
/// and DICOM Segmentations go back to the PACS. Everything is logged in SQLite.
///
/// The weights shipped with ichor were trained on synthetic data for demonstration. Nothing here is for clinical use.
#[derive(Debug, Parser)]
#[command(name = "ichor", version, propagate_version = true)]
pub(crate) struct Cli {
    /// Machine-readable output on standard output: JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the daemon: receive, assemble, analyse, deliver.
    ///
    /// Runs in the foreground and logs to standard error. SIGTERM or SIGINT: open associations finish the slice they
    /// are in, running work is put back, and the process ends. Killing it at any moment loses nothing that was
    /// acknowledged.
    Serve(ServeArgs),

    /// Shows the whole way once, on this machine, with a synthetic study.
    ///
    /// Starts a daemon with SQLite in a temporary folder and a small PACS on loopback, sends a synthetic head CT with
    /// a known bleed by C-STORE, waits until the Segmentation is in the PACS, compares it with the truth, and writes
    /// an overlay picture. Exits with 1 if any of it fails.
    Demo(DemoArgs),

    /// Sends DICOM files or folders by C-STORE.
    ///
    /// Each file goes in the transfer syntax that it has. Exits with 1 unless every instance was accepted.
    Send(SendArgs),

    /// Asks a peer whether it is there, by C-ECHO.
    Echo(EchoArgs),

    /// Answers questions about processed studies from the job log.
    #[command(subcommand)]
    Studies(StudiesCommand),

    /// Answers questions about storage commitment (DICOM PS3.4 Annex J).
    #[command(subcommand)]
    Commitments(CommitmentsCommand),

    /// Answers questions about the outbox: what goes where, and what holds it up.
    #[command(subcommand)]
    Deliveries(DeliveriesCommand),

    /// Answers questions about routing rules.
    #[command(subcommand)]
    Route(RouteCommand),

    /// Answers questions about what is no longer kept.
    #[command(subcommand)]
    Retention(RetentionCommand),

    /// Answers questions about what channels were told (HL7, webhooks).
    #[command(subcommand)]
    Messages(MessagesCommand),

    /// Answers questions about workitems of others that are performed here (UPS-RS).
    #[command(subcommand)]
    Tasks(TasksCommand),

    /// Looks at everything that a new site gets wrong, and says how to mend it.
    ///
    /// Database and folders, space, limits, clock, ports, certificates, secrets, decoder, model and its self-test, and every
    /// destination and channel. Changes nothing, and may run beside the daemon. Exits with 1 if anything failed.
    Doctor(DoctorArgs),

    /// Copies database and files into a folder while the daemon runs.
    ///
    /// The copy is of one moment. A second backup into the same folder copies only what has come since, and the folder holds
    /// a whole backup at any time. It has patients in it, as the store has. Each file is held against its digest on the way:
    /// what is damaged is named and not copied, everything else is, and the exit status is 1.
    Backup(BackupArgs),

    /// Brings a backup to the places that a configuration names; refuses if there is a database already.
    ///
    /// Each file is held against its digest on the way, as in a backup.
    Restore(RestoreArgs),

    /// Reads every file that is kept, slowly, and names what is damaged, with its study.
    ///
    /// Nothing else tells that a medium has forgotten something: a damaged file has its length still. May run beside the daemon,
    /// once a week for instance. Changes nothing. Exits with 1 if a file is damaged or missing.
    Verify(VerifyArgs),

    /// Prints a one-time link with which a user of the pages and the API chooses a new password.
    ///
    /// The way back in when the only admin has forgotten theirs. Sessions and tokens of before end when the link is used.
    Invite(InviteArgs),

    /// Prints completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },

    /// Writes man pages, one a command.
    Man {
        /// Folder to write to; made if absent.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },

    /// Makes synthetic head CT studies as DICOM files, with their truth.
    ///
    /// The same seed and options give the same bytes.
    Phantom(PhantomArgs),

    /// Shows what the model says of single slices, and where it looks.
    ///
    /// For each slice: the slice in the brain window, the attribution map in colours, the mask, and the slice with the
    /// mask's contour, as PNG files and side by side in one; `explain.json` says the rest. Slices are read as the daemon
    /// reads them. A file that cannot be read is named with the reason, the others go on; the exit status is then 1.
    Explain(ExplainArgs),

    /// Shows, checks, compares and changes models.
    #[command(subcommand)]
    Model(ModelTree),

    #[command(flatten)]
    Engine(EngineCommand),

    /// The process of the models in the shadow; the daemon starts it.
    #[command(hide = true)]
    ShadowProcess,

    /// Checks a configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
}

impl Command {
    /// Whether it cannot be done without libtorch.
    pub(crate) fn needs_engine(&self) -> bool {
        match self {
            Self::Serve(args) => !args.receive_only,
            Self::Demo(_)
            | Self::Explain(_)
            | Self::Engine(_)
            | Self::Model(ModelTree::Engine(_))
            | Self::ShadowProcess => true,
            Self::Send(_)
            | Self::Echo(_)
            | Self::Studies(_)
            | Self::Commitments(_)
            | Self::Deliveries(_)
            | Self::Route(_)
            | Self::Messages(_)
            | Self::Tasks(_)
            | Self::Retention(_)
            | Self::Model(ModelTree::Store(_))
            | Self::Doctor(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Verify(_)
            | Self::Invite(_)
            | Self::Completions { .. }
            | Self::Man { .. }
            | Self::Phantom(_)
            | Self::Config(_) => false,
        }
    }
}

/// `serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Load no model: studies are received and queued, and wait for a start without this flag.
    ///
    /// For the hours in which the weights or the GPU cannot be used and the scanners go on sending.
    #[arg(long)]
    pub(crate) receive_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArg {
    /// Configuration file (TOML); `deploy/ichor.toml` documents every key.
    #[arg(long, value_name = "FILE", env = "ICHOR_CONFIG")]
    pub(crate) config: PathBuf,
}

/// Where the job log is.
#[derive(Debug, Args)]
pub(crate) struct StoreArg {
    /// Configuration file that names the database.
    #[arg(long, value_name = "FILE", env = "ICHOR_CONFIG")]
    pub(crate) config: PathBuf,
}
