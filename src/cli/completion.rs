//! `completion`: what a shell offers when somebody presses Tab.
//!
//! The scripts are made from the command line itself. In bash, zsh and fish they ask for the names of the manifest at
//! hand too, by a hidden verb, so that they need no change when the manifest changes.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Command, ValueEnum};
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
    let manifest = context.manifest_with(&[])?;
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
    clap_complete::generate(generator, &mut offered(), PROGRAM, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        CompletionShell::Bash => bash(&script),
        CompletionShell::Zsh => zsh(&script),
        CompletionShell::Fish => fish(script),
        CompletionShell::Elvish | CompletionShell::PowerShell => script,
    }
}

/// The command line without its hidden verbs, which would be offered too.
fn offered() -> Command {
    let program = help::program();
    let verbs = program.get_subcommands().filter(|verb| !verb.is_hide_set());
    Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(program.get_arguments().cloned())
        .subcommands(verbs.cloned())
}

/// The verbs that take names, by all their names.
fn verbs_with_names() -> Vec<String> {
    let takes_names = |verb: &&Command| {
        verb.get_positionals()
            .any(|argument| argument.get_id() == "names")
    };
    let program = offered();
    let verbs = program.get_subcommands().filter(takes_names);
    verbs
        .flat_map(Command::get_name_and_visible_aliases)
        .map(str::to_owned)
        .collect()
}

/// The words to choose from stand in a line of their own after the name of the verb.
fn bash(script: &str) -> String {
    // The generator takes the hyphen of our name for the sign between verbs, but in one of two places only.
    let script = script.replace("kimi__subcmd__shell", "kimi__shell");
    let labels: Vec<String> = verbs_with_names()
        .iter()
        .map(|verb| format!("kimi__shell__subcmd__{verb})"))
        .collect();
    let mut takes_names = false;
    let mut shown = String::with_capacity(script.len());
    for line in script.lines() {
        let words = line.trim().strip_prefix("opts=").filter(|_| takes_names);
        match words.and_then(|_| line.strip_suffix('"')) {
            // Writing to a string cannot fail.
            Some(line) => drop(writeln!(shown, "{line} $({ASK})\"")),
            None => drop(writeln!(shown, "{line}")),
        }
        takes_names = labels.iter().any(|label| line.trim() == label);
    }
    shown
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

fn fish(mut script: String) -> String {
    let verbs = verbs_with_names().join(" ");
    // Writing to a string cannot fail.
    let _infallible = writeln!(
        script,
        "complete -c kimi-shell -n \"__fish_seen_subcommand_from {verbs}\" -f -a \"({ASK})\""
    );
    script
}
