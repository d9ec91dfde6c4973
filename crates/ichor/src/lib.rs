//! The daemon and its command line, in two programs: `ichor` has everything but libtorch, `ichor-torch` has that too. The
//! first becomes the second for what needs a model.

mod admin;
mod audit;
mod certificates;
mod channels;
mod cli;
mod commands;
mod config;
mod daemon;
mod destinations;
mod doctor;
pub mod engine;
mod http;
mod logging;
mod lookups;
mod models;
mod performers;
mod pictures;
mod reload;
mod retention;
mod secrets;
mod stages;
mod supervisor;
mod telemetry;
mod tls_files;
mod web;
mod worklist;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{
    Cli, Command, CommitmentsCommand, ConfigCommand, DeliveriesCommand, MessagesCommand, ModelTree, RetentionCommand,
    RouteCommand, StudiesCommand, TasksCommand,
};
pub use crate::config::{AlsoConfig, ModelConfig};
use crate::config::{LogConfig, LogFormat};
use crate::engine::{Engine, EngineCommand, NoEngine, become_engine};

/// The program `ichor`.
#[must_use]
pub fn main_without_engine() -> ExitCode {
    let cli = Cli::parse();
    if cli.command.needs_engine() {
        return said(Err(become_engine()));
    }
    said(run::<NoEngine>(cli))
}

/// The program `ichor-torch`.
#[must_use]
pub fn main_with<E: Engine>() -> ExitCode {
    said(run::<E>(Cli::parse()))
}

fn said(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ichor: {}", ichor_core::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run<E: Engine>(cli: Cli) -> anyhow::Result<()> {
    // One TLS provider for the process, before anything opens a connection.
    let installed = rustls::crypto::ring::default_provider().install_default();
    installed.map_err(|_| anyhow::anyhow!("another TLS provider is installed already"))?;
    let json = cli.json;
    // What prints into a pipe that nobody reads any more (`| head`) ends, as other programs do; what works goes on.
    if !matches!(cli.command, Command::Serve(_) | Command::Demo(_) | Command::Engine(_) | Command::ShadowProcess) {
        sigpipe::reset();
    }
    match cli.command {
        Command::Serve(args) => commands::serve::run::<E>(&args),
        Command::Demo(args) => in_runtime(commands::demo::run::<E>(args, json)),
        Command::Send(args) => in_runtime(commands::send::run(args, json)),
        Command::Echo(args) => in_runtime(commands::echo::run(args, json)),
        Command::Studies(StudiesCommand::List(args)) => in_runtime(commands::studies::list(args, json)),
        Command::Studies(StudiesCommand::Show(args)) => in_runtime(commands::studies::show(args, json)),
        Command::Studies(StudiesCommand::Why(args)) => in_runtime(commands::studies::why(args, json)),
        Command::Studies(StudiesCommand::Retry(args)) => in_runtime(commands::studies::retry(args, json)),
        Command::Studies(StudiesCommand::Queue(args)) => in_runtime(commands::studies::queue(args, json)),
        Command::Studies(StudiesCommand::Hold(args)) => in_runtime(commands::studies::hold(args, json)),
        Command::Studies(StudiesCommand::ReleaseHold(args)) => in_runtime(commands::studies::release_hold(args, json)),
        Command::Retention(RetentionCommand::Plan(args)) => in_runtime(commands::retention::plan_now(args, json)),
        Command::Studies(StudiesCommand::Reanalyse(args)) => in_runtime(commands::models::reanalyse(args, json)),
        Command::Messages(MessagesCommand::List(args)) => in_runtime(commands::messages::list(args, json)),
        Command::Messages(MessagesCommand::Retry(args)) => in_runtime(commands::messages::retry(args, json)),
        Command::Tasks(TasksCommand::List(args)) => in_runtime(commands::tasks::list(args, json)),
        Command::Tasks(TasksCommand::Retry(args)) => in_runtime(commands::tasks::retry(args, json)),
        Command::Tasks(TasksCommand::GiveUp(args)) => in_runtime(commands::tasks::give_up(args, json)),
        Command::Commitments(CommitmentsCommand::List(args)) => in_runtime(commands::commitments::list(args, json)),
        Command::Doctor(args) => in_runtime(commands::care::doctor(args, json)),
        Command::Backup(args) => in_runtime(commands::care::backup(args, json)),
        Command::Restore(args) => in_runtime(commands::care::restore(args, json)),
        Command::Verify(args) => in_runtime(commands::care::verify(args, json)),
        Command::Invite(args) => in_runtime(commands::care::invite(args, json)),
        Command::Completions { shell } => {
            commands::manual::completions(shell);
            Ok(())
        }
        Command::Man { out } => commands::manual::man(&out),
        Command::Deliveries(DeliveriesCommand::List(args)) => in_runtime(commands::deliveries::list(args, json)),
        Command::Deliveries(DeliveriesCommand::Destinations(args)) => {
            in_runtime(commands::deliveries::destinations(args, json))
        }
        Command::Deliveries(DeliveriesCommand::Retry(args)) => in_runtime(commands::deliveries::retry(args, json)),
        Command::Route(RouteCommand::Test(args)) => in_runtime(commands::route::test(args, json)),
        Command::Phantom(args) => commands::phantom::run(&args, json),
        Command::Explain(args) => in_runtime(commands::explain::run::<E>(args, json)),
        Command::Engine(command) => E::run(command, json),
        Command::Model(ModelTree::Engine(command)) => E::run(EngineCommand::Model(command), json),
        Command::Model(ModelTree::Store(command)) => in_runtime(commands::models::run(command, json)),
        Command::ShadowProcess => without_log(models::work::<E>()),
        Command::Config(ConfigCommand::Check { file }) => commands::config::check(&file, json),
        Command::Config(ConfigCommand::Diff { old, new }) => commands::config::diff(&old, &new, json),
    }
}

/// Runs one command to its end; warnings go to standard error.
///
/// # Errors
/// What the command fails of.
pub fn in_runtime(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    logging::start(&LogConfig { level: "warn".to_owned(), format: LogFormat::Text })?;
    without_log(command)
}

/// Runs one command to its end, which starts its own log.
fn without_log(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}
