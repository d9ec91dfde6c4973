//! What goes out and comes in: deliveries, messages, commitments, routing.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use ichor_core::{AeTitle, DeliveryStatus, MessageStatus, TaskStatus, Uid};

use super::StoreArg;
use crate::config::OutcomeName;

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

    /// By whose word; absent: the user of this shell. It stands in the audit trail.
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Shows which rule fires for a study, and why each before it does not; nothing is sent.
    ///
    /// The tags are those of the first instance that arrived, or of the file; the hour is this one, or that of `--at`. What a file
    /// does not say is told by options.
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

    /// Address that sends it, for `sends_from` of destinations.
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,

    /// The moment at which rules are asked: HH:MM of today in `time_zone`, or a whole one such as 2026-03-01T22:15:00+01:00; absent: now.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,

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

    /// By whose word; absent: the user of this shell. It stands in the audit trail.
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
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

#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// Lists workitems of task lists that are or were performed here, newest first, and whether the lists answer.
    List(TasksArgs),

    /// Has tasks tried again that their lists had refused: their claim, or what is told in the end.
    Retry(TasksRetryArgs),

    /// Gives up a task that is not over, for good; its list is told no more.
    ///
    /// It stands there as IN PROGRESS still. The Transaction UID is printed with which whoever cares for the list can end it. The
    /// study goes its way. Give up what a running ichor is performing only if its list is not to be heard from again.
    GiveUp(TasksGiveUpArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TasksRetryArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Number of the task, as `tasks list` prints it; absent: all that are refused.
    pub(crate) number: Option<i64>,

    /// By whose word; absent: the user of this shell. It stands in the audit trail.
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TasksGiveUpArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Number of the task, as `tasks list` prints it.
    pub(crate) number: i64,

    /// Why; it stands with the task and in the audit trail.
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,

    /// By whose word; absent: the user of this shell. It stands in the audit trail.
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TasksArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Only those in this state: left, claiming, claimed, waiting, ending, completed, canceled, lost, refused or given-up.
    #[arg(long)]
    pub(crate) status: Option<TaskStatus>,

    /// Most tasks to print.
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
}
