//! Shell completions and man pages, from the definitions that the command line is read by.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output;

/// Prints a shell's completions.
pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "twintrack", &mut script);
    output::print(&script)
}

/// Writes a page for each command.
pub fn man(folder: &Path) -> Result<(), Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    // Gives each command its whole name, and the options that all have.
    command.build();
    std::fs::create_dir_all(folder)
        .and_then(|()| pages(&command, folder))
        .map_err(|error| Failure::File { path: folder.to_owned(), error })
}

fn pages(command: &Command, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let man = Man::new(command.clone())
        .title(name)
        .source(concat!("twintrack ", env!("CARGO_PKG_VERSION")))
        .manual("twintrack");
    let mut page = Vec::new();
    man.render(&mut page)?;
    std::fs::write(folder.join(man.get_filename()), page)?;
    command.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|sub| pages(sub, folder))
}
