//! `ichor completions` and `ichor man`: made from the command line itself, so that they say what it does.

use std::io;
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;

/// Prints the completions of a shell.
pub(crate) fn completions(shell: Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "ichor", &mut io::stdout());
}

/// Writes a man page for each command into a folder, which is made if absent.
pub(crate) fn man(out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    page(&command, out)
}

fn page(command: &Command, out: &Path) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let path = out.join(format!("{name}.1"));
    let mut text = Vec::new();
    Man::new(command.clone()).render(&mut text)?;
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    command.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|command| page(command, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("ichor.1").contains(".SH SUBCOMMANDS"));
        assert!(read("ichor-studies-why.1").contains("timeline"));
        assert!(read("ichor-backup.1").contains("The copy is of one moment."));
    }
}
