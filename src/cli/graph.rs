//! `graph`: who waits for whom, and what starts and stops when.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use kimi_actors::policy::order;
use kimi_actors::policy::spec::ChildName;

use crate::cli::out::Color;
use crate::cli::{Context, Error, FileArgs, check_names, name, out, start};
use crate::graph::{Graph, Paint, restricted};
use crate::manifest::reach::Reach;

/// What `graph` takes.
#[derive(Clone, Debug, Args)]
pub struct GraphArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,

    /// Show these only, with what they depend on
    #[arg(value_name = "NAME", value_parser = name)]
    pub names: Vec<ChildName>,

    /// The format
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: GraphOutput,
}

/// In which format a graph is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphOutput {
    /// The tree and the waves, for people
    #[default]
    Ascii,
    /// A flowchart for Mermaid
    Mermaid,
    /// A digraph for Graphviz
    Dot,
    /// JSON
    Json,
}

/// Prints the graph.
pub fn run(args: &GraphArgs, context: &Context) -> Result<ExitCode, Error> {
    let manifest = context.manifest_or_demonstration(&args.names)?;
    check_names(&manifest, &args.names)?;
    // The deadline is that of the whole tree, also where a part of it is shown.
    let chain = order::arrange(&manifest.rules)
        .map_err(Error::Order)?
        .explicit_stop_chain();
    let limit = start::shutdown_timeout(&manifest.settings, &manifest.origins).resolve(chain);
    let rules = if args.names.is_empty() {
        manifest.rules
    } else {
        let shown = Reach::of(&manifest.rules).closure(&args.names);
        restricted(&manifest.rules, |child| shown.contains(child))
    };
    let graph = Graph::of(&rules, limit).map_err(Error::Order)?;
    let text = match args.output {
        GraphOutput::Ascii => graph.ascii(match context.color_of(&std::io::stdout()) {
            Color::On => Paint::Coloured,
            Color::Off => Paint::Plain,
        }),
        GraphOutput::Mermaid => graph.mermaid(),
        GraphOutput::Dot => graph.dot(),
        GraphOutput::Json => graph.json()?,
    };
    out::print(&text).map_err(Error::Output)?;
    Ok(ExitCode::SUCCESS)
}
