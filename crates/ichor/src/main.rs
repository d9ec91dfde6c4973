//! The daemon and its command line.

mod certificates;
mod cli;
mod commands;
mod config;
mod daemon;
mod logging;
mod model;
mod stow;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, CommitmentsCommand, ConfigCommand, ModelCommand, StudiesCommand};
use crate::config::{LogConfig, LogFormat};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS provider for the process, before anything opens a connection.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("ichor: another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ichor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let json = cli.json;
    match cli.command {
        Command::Serve(args) => commands::serve::run(&args),
        Command::Demo(args) => in_runtime(commands::demo::run(args, json)),
        Command::Send(args) => in_runtime(commands::send::run(args, json)),
        Command::Echo(args) => in_runtime(commands::echo::run(args, json)),
        Command::Studies(StudiesCommand::List(args)) => in_runtime(commands::studies::list(args, json)),
        Command::Studies(StudiesCommand::Show(args)) => in_runtime(commands::studies::show(args, json)),
        Command::Studies(StudiesCommand::Why(args)) => in_runtime(commands::studies::why(args, json)),
        Command::Studies(StudiesCommand::Retry(args)) => in_runtime(commands::studies::retry(args, json)),
        Command::Commitments(CommitmentsCommand::List(args)) => in_runtime(commands::commitments::list(args, json)),
        Command::Phantom(args) => commands::phantom::run(&args, json),
        Command::Model(ModelCommand::Info(args)) => commands::model::info(&args, json),
        Command::Model(ModelCommand::Verify(args)) => in_runtime(commands::model::verify(args, json)),
        Command::Model(ModelCommand::Maps(args)) => commands::model::maps(&args),
        Command::Train(args) => commands::train::train(&args, json),
        Command::Evaluate(args) => commands::train::evaluate(&args, json),
        Command::Config(ConfigCommand::Check { file }) => commands::config::check(&file, json),
    }
}

/// Runs one command to its end; warnings go to standard error.
fn in_runtime(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    logging::start(&LogConfig { level: "warn".to_owned(), format: LogFormat::Text })?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}
