//! `help`: of the program, of a verb, about the exit codes.

use std::process::ExitCode;

use clap::{Args, CommandFactory};

use crate::cli::{Cli, Error, out};
use crate::exit_code;

/// What `help` takes.
#[derive(Clone, Debug, Args)]
pub struct HelpArgs {
    /// A verb, or `exit-codes`
    #[arg(value_name = "SUBJECT")]
    pub subject: Option<String>,
}

/// Prints the help.
pub fn run(args: &HelpArgs) -> Result<ExitCode, Error> {
    let mut program = Cli::command();
    // Lets the usage lines of verbs begin with the name of the program.
    program.build();
    let text = match args.subject.as_deref() {
        None => program.render_long_help().to_string(),
        Some("exit-codes") => exit_code::help_text(),
        Some(verb) => match program.find_subcommand_mut(verb) {
            Some(verb) => verb.render_long_help().to_string(),
            None => {
                return Err(Error::NoSuchHelp {
                    subject: verb.to_owned(),
                });
            }
        },
    };
    out::print(&text).map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}
