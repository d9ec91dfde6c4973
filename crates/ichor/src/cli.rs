//! The command line, as one tree. Every command prints for people by default and for machines with `--json`.

pub(crate) mod models;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ichor_core::{AeTitle, DeliveryStatus, MessageStatus, StudyStatus, Uid};

pub(crate) use crate::cli::models::{ModelTree, ReanalyseArgs};
use crate::commands::peer::PeerAddress;
use crate::config::OutcomeName;
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

    /// Answers questions about what channels were told (HL7, webhooks).
    #[command(subcommand)]
    Messages(MessagesCommand),

    /// Looks at everything that a new site gets wrong, and says how to mend it.
    ///
    /// Database and folders, space, limits, clock, ports, certificates, secrets, decoder, model and its self-test, and every
    /// destination and channel. Changes nothing, and may run beside the daemon. Exits with 1 if anything failed.
    Doctor(DoctorArgs),

    /// Copies database and files into a folder while the daemon runs.
    ///
    /// The copy is of one moment. A second backup into the same folder copies only what has come since, and the folder holds
    /// a whole backup at any time. It has patients in it, as the store has.
    Backup(BackupArgs),

    /// Brings a backup to the places that a configuration names; refuses if there is a database already.
    Restore(RestoreArgs),

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
            | Self::Model(ModelTree::Store(_))
            | Self::Doctor(_)
            | Self::Backup(_)
            | Self::Restore(_)
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
}

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

/// Where the job log is.
#[derive(Debug, Args)]
pub(crate) struct StoreArg {
    /// Configuration file that names the database.
    #[arg(long, value_name = "FILE", env = "ICHOR_CONFIG")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StudiesCommand {
    /// Lists studies, newest first.
    List(ListArgs),
    /// Shows one study: series and why they were or were not analysed, slices, lesions, objects, deliveries.
    Show(StudyArgs),
    /// Prints one study's timeline, from the first association to the last delivery.
    Why(StudyArgs),
    /// Takes a study up again: analyses it anew, or queues its dead deliveries again.
    Retry(StudyArgs),
    /// Has a study analysed by a model of your choice: a new version of its result, which is sent as any other.
    Reanalyse(ReanalyseArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum MessagesCommand {
    /// Lists messages, newest first, and whether their channels have acknowledged them.
    List(MessagesListArgs),

    /// Queues dead messages again, with all attempts before them.
    Retry(MessagesRetryArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MessagesListArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Only those in this state: queued, sending, acknowledged or dead.
    #[arg(long)]
    pub(crate) status: Option<MessageStatus>,

    /// Only those about this study, by its Study Instance UID.
    #[arg(long, value_name = "UID")]
    pub(crate) study: Option<Uid>,

    /// Most messages to print.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct MessagesRetryArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Number of the message, as `messages list` prints it; absent: all that are dead.
    pub(crate) number: Option<i64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Shows which rule fires for a study, and why each before it does not; nothing is sent.
    ///
    /// The tags are those of the first instance that arrived, or of the file; the hour is this one. What a file does not say
    /// is told by options.
    Test(RouteTestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RouteTestArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// DICOM file, or a study of the job log by its Study Instance UID (or its beginning) or Accession Number.
    #[arg(value_name = "FILE|STUDY")]
    pub(crate) target: String,

    /// AE title that sends it.
    #[arg(long, value_name = "AE")]
    pub(crate) source: Option<AeTitle>,

    /// What it comes to.
    #[arg(long, value_enum)]
    pub(crate) verdict: Option<OutcomeName>,

    /// Code of the reason, if it is not analysed.
    #[arg(long, value_name = "CODE")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeliveriesCommand {
    /// Lists deliveries, newest first.
    List(DeliveriesListArgs),

    /// Shows each destination: whether somebody is there, what waits for it, and what it does not accept.
    Destinations(DestinationsArgs),

    /// Queues dead deliveries again, with all attempts before them.
    Retry(DeliveriesRetryArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DeliveriesListArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Only those in this state: queued, sending, accepted, committed, visible or dead.
    #[arg(long)]
    pub(crate) status: Option<DeliveryStatus>,

    /// Only those to this destination.
    #[arg(long, value_name = "NAME")]
    pub(crate) destination: Option<String>,

    /// Only those of this study, by its Study Instance UID.
    #[arg(long, value_name = "UID")]
    pub(crate) study: Option<Uid>,

    /// Most deliveries to print.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct DestinationsArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,
}

#[derive(Debug, Args)]
pub(crate) struct DeliveriesRetryArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Number of the delivery, as `deliveries list` prints it; absent: all that are dead.
    pub(crate) number: Option<i64>,

    /// Only those to this destination; what it did not accept is proposed again at once.
    #[arg(long, value_name = "NAME")]
    pub(crate) destination: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CommitmentsCommand {
    /// Lists what senders asked to be committed, newest first, and whether they have heard.
    List(CommitmentsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CommitmentsArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Only requests that nobody has heard of yet.
    #[arg(long)]
    pub(crate) open: bool,

    /// Most requests to print.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Study Date from (YYYYMMDD or YYYY-MM-DD).
    #[arg(long, value_name = "DATE")]
    pub(crate) from: Option<String>,

    /// Study Date to, inclusive.
    #[arg(long, value_name = "DATE")]
    pub(crate) to: Option<String>,

    /// Patient ID.
    #[arg(long, value_name = "ID")]
    pub(crate) patient: Option<String>,

    /// Beginnings of words of the Patient's Name.
    #[arg(long, value_name = "WORDS")]
    pub(crate) name: Option<String>,

    /// Study Instance UID, or its beginning.
    #[arg(long, value_name = "UID")]
    pub(crate) study: Option<String>,

    /// Code of the reason why it was not analysed, or failed.
    #[arg(long, value_name = "CODE")]
    pub(crate) reason: Option<String>,

    /// The most urgent first: positives and alerts, failed, under way, not analysed, negatives.
    #[arg(long)]
    pub(crate) by_priority: bool,

    /// Accession Number.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) accession: Option<String>,

    /// Status: receiving, queued, analysing, analysed, not-analysed or failed.
    #[arg(long)]
    pub(crate) status: Option<StudyStatus>,

    /// Only positive (or, with `--positive=false`, only negative) studies.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) positive: Option<bool>,

    /// AE title that sent the study.
    #[arg(long, value_name = "AE")]
    pub(crate) source: Option<AeTitle>,

    /// Most studies to print.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Study Instance UID (or its beginning), or Accession Number.
    pub(crate) study: String,
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

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Reads and checks a configuration file; an unknown key is named with its line.
    Check {
        /// The file.
        file: PathBuf,
    },
}
