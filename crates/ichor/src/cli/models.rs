//! `ichor model`, and what names a model elsewhere.

use clap::{Args, Subcommand};

use super::StoreArg;
use crate::engine::ModelCommand;

/// `model`
#[derive(Debug, Subcommand)]
pub(crate) enum ModelTree {
    #[command(flatten)]
    Engine(ModelCommand),

    #[command(flatten)]
    Store(StoreModelCommand),
}

/// Commands that need the job log and no engine.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreModelCommand {
    /// Lists the models that the daemon is configured with, and which one was active from when to when, by whom and why.
    List(ModelListArgs),

    /// Makes a model the active one, without a restart.
    ///
    /// The daemon loads it and repeats its self-test first; if that fails, the active one stays and this exits with 1. A study
    /// whose analysis is under way ends with the model that it began with. The choice holds over restarts. If no daemon runs, the
    /// next one takes it up.
    Activate(ActivateArgs),

    /// Makes the model that was active before the active one again.
    Rollback(RollbackArgs),

    /// Compares a model in the shadow with the active one: verdicts, kappa, probabilities, volumes, masks.
    Agreement(AgreementArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ModelListArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Most lines of the history.
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct ActivateArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// The model, as `model list` names it; the hash may be left out where it is not needed.
    #[arg(value_name = "NAME@VERSION[+HASH]")]
    pub(crate) model: String,

    #[command(flatten)]
    pub(crate) word: WordArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    #[command(flatten)]
    pub(crate) word: WordArgs,
}

/// By whose word, and why: both stand in the history and in the audit trail.
#[derive(Debug, Args)]
pub(crate) struct WordArgs {
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,

    /// By whose word; absent: the user of this shell.
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,

    /// How long to wait for the daemon, in seconds.
    #[arg(long, value_name = "S", default_value_t = 120)]
    pub(crate) wait: u64,
}

#[derive(Debug, Args)]
pub(crate) struct AgreementArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// The model in the shadow; absent: each of them.
    #[arg(value_name = "NAME@VERSION[+HASH]")]
    pub(crate) model: Option<String>,

    /// Only what was scored since this day (YYYYMMDD or YYYY-MM-DD) in the site's time zone; absent: everything.
    #[arg(long, value_name = "DATE")]
    pub(crate) since: Option<String>,
}

/// `studies reanalyse`
#[derive(Debug, Args)]
pub(crate) struct ReanalyseArgs {
    #[command(flatten)]
    pub(crate) store: StoreArg,

    /// Study Instance UID (or its beginning), or Accession Number.
    pub(crate) study: String,

    /// The model, as `model list` names it.
    #[arg(long, value_name = "NAME@VERSION[+HASH]")]
    pub(crate) model: String,

    /// Why; it stands in the study's timeline and in the audit trail.
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: String,

    /// By whose word; absent: the user of this shell.
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
}
