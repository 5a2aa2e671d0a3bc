//! `help`: of the program, of a verb, about the exit codes.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};

use crate::cli::{Cli, Error, out};
use crate::exit_code;

/// What `help` takes.
#[derive(Clone, Debug, Args)]
pub struct HelpArgs {
    /// A verb, or `exit-codes`
    #[arg(value_name = "SUBJECT")]
    pub subject: Option<String>,
}

/// The verbs by what they are for; one that stands nowhere comes last.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Write and check",
        &["init", "validate", "graph", "config", "schema"],
    ),
    (
        "Run",
        &[
            "start", "stop", "restart", "down", "exec", "signal", "wait", "reload",
        ],
    ),
    ("Look", &["status", "ps", "logs", "events", "why"]),
    (
        "Serve and measure",
        &["bridge", "dashboard", "simulate", "bench"],
    ),
];
const LAST_GROUP: &str = "Help";

/// The whole command line, its verbs in groups.
pub fn program() -> Command {
    let program = Cli::command();
    let verbs = grouped(&program);
    let template = format!(
        "{{before-help}}{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{verbs}\n\
         Options:\n{{options}}{{after-help}}"
    );
    program.help_template(template)
}

fn grouped(program: &Command) -> String {
    let shown: Vec<&Command> = program
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
        .collect();
    let width = shown.iter().map(|verb| verb.get_name().len()).max();
    let group_of = |verb: &Command| {
        let is_member = |(_, members): &&(_, &[&str])| members.contains(&verb.get_name());
        GROUPS
            .iter()
            .find(is_member)
            .map_or(LAST_GROUP, |(group, _)| group)
    };
    let mut text = String::new();
    for group in GROUPS.iter().map(|(group, _)| *group).chain([LAST_GROUP]) {
        let members: Vec<&&Command> = shown
            .iter()
            .filter(|verb| group_of(verb) == group)
            .collect();
        if members.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{group}:");
        for verb in members {
            let about = verb
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            let aliases: Vec<&str> = verb.get_visible_aliases().collect();
            let aliases = if aliases.is_empty() {
                String::new()
            } else {
                format!(" [also: {}]", aliases.join(", "))
            };
            let (name, width) = (verb.get_name(), width.unwrap_or(0));
            let _infallible = writeln!(text, "  {name:width$}  {about}{aliases}");
        }
    }
    text
}

/// Prints the help.
pub fn run(args: &HelpArgs) -> Result<ExitCode, Error> {
    let mut program = program();
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
