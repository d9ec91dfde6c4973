//! Studies: lists, stories, the queue, holds.

use clap::{Args, Subcommand};
use ichor_core::{AeTitle, StudyStatus};
use ichor_store::StudyMark;

use super::{ReanalyseArgs, StoreArg};

#[derive(Debug, Subcommand)]
pub(crate) enum StudiesCommand {
    /// Lists studies, newest first.
    List(ListArgs),
    /// Shows one study: series and why they were or were not analysed, slices, lesions, objects, deliveries.
    Show(StudyArgs),
    /// Prints one study's timeline, from the first association to the last delivery.
    Why(StudyArgs),
    /// Takes a study up again: analyses it anew, or queues its dead deliveries again.
    Retry(StudyChangeArgs),
    /// Has a study analysed by a model of your choice: a new version of its result, which is sent as any other.
    Reanalyse(ReanalyseArgs),
    /// Lists what waits for its analysis, in the order in which it is taken, and why.
    Queue(QueueArgs),
    /// Puts a study on hold: no file of it is deleted, whatever [retention] says, until the hold is released.
    Hold(HoldArgs),
    /// Releases the hold of a study.
    ReleaseHold(StudyChangeArgs),
}

/// `studies queue`
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Most studies to print.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
}

/// `studies hold`
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    pub(crate) study: StudyChangeArgs,

    /// Why; stands in the job log. No word about the patient.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
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

    /// Only what bears a mark: on-hold, alerted, or given-up (a delivery or a message of it is dead).
    #[arg(long, value_name = "MARK")]
    pub(crate) mark: Option<StudyMark>,

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

/// A study, and by whose word it is changed.
#[derive(Debug, Args)]
pub(crate) struct StudyChangeArgs {
    #[command(flatten)]
    pub(crate) study: StudyArgs,

    /// By whose word; absent: the user of this shell. It stands in the audit trail.
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}
