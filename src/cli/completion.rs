//! `completion`: what a shell offers when somebody presses Tab.
//!
//! The scripts are made from the command line itself. In bash, zsh and fish they ask for the names of the manifest at
//! hand too, by a hidden verb, so that they need no change when the manifest changes.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use clap_complete::Shell;
use kimi_actors::policy::spec::ChildName;

use crate::cli::{Context, Error, FileArgs, help, out};
use crate::manifest::reach::Reach;

/// The hidden verb.
pub(super) const NAMES: &str = "__complete-names";
/// How a shell asks for names. Where there is no manifest, or a wrong one, there are none.
const ASK: &str = "kimi-shell __complete-names 2>/dev/null";
const PROGRAM: &str = "kimi-shell";

const INSTALL: &str = "\
To install them for yourself:
  bash        kimi-shell completion bash > ~/.local/share/bash-completion/completions/kimi-shell
  zsh         kimi-shell completion zsh > ~/.zfunc/_kimi-shell
              with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  fish        kimi-shell completion fish > ~/.config/fish/completions/kimi-shell.fish
  elvish      kimi-shell completion elvish >> ~/.config/elvish/rc.elv
  powershell  kimi-shell completion powershell >> $PROFILE
Begin a new shell afterwards.";

/// What `completion` takes.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = INSTALL)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: CompletionShell,
}

/// A shell that completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    /// Bash
    Bash,
    /// Zsh
    Zsh,
    /// fish
    Fish,
    /// Elvish
    Elvish,
    /// `PowerShell`
    #[value(name = "powershell")]
    PowerShell,
}

/// What the hidden verb takes.
#[derive(Clone, Debug, Args)]
pub struct NamesArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,
}

/// Prints the script of a shell.
pub fn run(args: CompletionArgs) -> Result<ExitCode, Error> {
    out::print(&script(args.shell)).map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the names of services, tasks and supervisors, a line each.
pub fn names(context: &Context) -> Result<ExitCode, Error> {
    let manifest = context.manifest()?;
    let reach = Reach::of(&manifest.rules);
    let mut names: Vec<&str> = reach.names().map(ChildName::as_str).collect();
    names.retain(|name| *name != manifest.rules.root.name.as_str());
    names.sort_unstable();
    let lines: String = names.iter().flat_map(|name| [name, "\n"]).collect();
    out::print(&lines).map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: CompletionShell) -> String {
    let generator = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
        CompletionShell::Elvish => Shell::Elvish,
        CompletionShell::PowerShell => Shell::PowerShell,
    };
    let mut script = Vec::new();
    clap_complete::generate(generator, &mut help::program(), PROGRAM, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        CompletionShell::Bash => bash(&script),
        CompletionShell::Zsh => zsh(&script),
        CompletionShell::Fish => fish(script),
        CompletionShell::Elvish | CompletionShell::PowerShell => script,
    }
}

/// Where a name is expected, the words to choose from hold a placeholder.
fn bash(script: &str) -> String {
    script.replace("[NAME]...", &format!("$({ASK})"))
}

/// Where a name is expected, files are offered.
fn zsh(script: &str) -> String {
    let function = format!(
        "_kimi-shell_names() {{\n    local -a names\n    names=(${{(f)\"$({ASK})\"}})\n    \
         compadd -a names\n}}\n\n"
    );
    let mut lines: Vec<String> = script.lines().map(str::to_owned).collect();
    for line in &mut lines {
        if line.starts_with("'*::names -- ") {
            *line = line.replace(":_default'", ":_kimi-shell_names'");
        }
    }
    let mut script = lines.join("\n");
    script.push('\n');
    // The first line says for which program this is, and must stay the first.
    match script.split_once('\n') {
        Some((first, rest)) => format!("{first}\n\n{function}{rest}"),
        None => script,
    }
}

/// The verbs that take names.
fn fish(mut script: String) -> String {
    let program = help::program();
    let takes_names = |verb: &&clap::Command| {
        verb.get_positionals()
            .any(|argument| argument.get_id() == "names")
    };
    let verbs: Vec<&str> = program
        .get_subcommands()
        .filter(takes_names)
        .flat_map(clap::Command::get_name_and_visible_aliases)
        .collect();
    // Writing to a string cannot fail.
    let _infallible = writeln!(
        script,
        "complete -c kimi-shell -n \"__fish_seen_subcommand_from {}\" -f -a \"({ASK})\"",
        verbs.join(" ")
    );
    script
}
