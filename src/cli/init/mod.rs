//! `init`: a first manifest, or one made from a Procfile.

mod new_file;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use self::new_file::Existing;
use crate::cli::{Error, out};
use crate::document::problem::Problems;
use crate::document::read::{self, ReadError};
use crate::document::{Format, Source};
use crate::exit_code;
use crate::manifest::DiscoverError;
use crate::manifest::discover::{NAMES, discover};
use crate::procfile::{self, Procfile, Surroundings};

const EXAMPLE_YAML: &str = include_str!("example.yaml");
const EXAMPLE_TOML: &str = include_str!("example.toml");
/// Beside the manifest, for editors.
const SCHEMA: &str = "kimi-shell.schema.json";
const PROCFILE: &str = "Procfile";
const ENV_FILE: &str = ".env";

/// What `init` takes.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Make the manifest from this Procfile
    #[arg(long, value_name = "PROCFILE")]
    pub from: Option<PathBuf>,

    /// The format [default: by the name of the file, otherwise yaml]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: Option<InitFormat>,

    /// The file to write, `-` for standard output [default: kimi-shell.yaml or .toml]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Write over files that exist
    #[arg(long)]
    pub force: bool,
}

/// In which format a manifest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InitFormat {
    /// YAML
    Yaml,
    /// TOML
    Toml,
}

/// Why no manifest was written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one.
    #[error("{} exists and was left as it is: write over it with `--force`, or name another with `--output`", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is one of another name, and nobody could tell which of the two counts.
    #[error(
        "{} stands there already, and two manifests in one directory cannot be told apart: remove it first, or name \
         another directory with `--output`",
        path.display()
    )]
    Rival {
        /// The other file.
        path: PathBuf,
    },
    /// The name says one format, and the flag another.
    #[error("the name of {} says another format than `--format`: change one of them", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// Something else than a Procfile.
    #[error("cannot make a manifest from {}: only Procfiles can be converted; write one by hand from `kimi-shell init`", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The Procfile, or the environment file beside it, cannot be read.
    #[error(
        "cannot read what the manifest is to be made from; name another Procfile with `--from`"
    )]
    Unreadable(#[from] ReadError),
    /// The Procfile has mistakes; nothing was written.
    #[error("nothing was written; correct this first:\n{0}")]
    Invalid(Problems),
    /// The operating system refused.
    #[error("cannot write {}; name another file with `--output`", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl InitError {
    /// The code that the program ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Format { .. } => exit_code::USAGE,
            Self::Invalid(_) | Self::Unreadable(_) | Self::Foreign { .. } => {
                exit_code::INVALID_CONFIGURATION
            }
            Self::Exists { .. } | Self::Rival { .. } | Self::Unwritable { .. } => exit_code::FAILED,
        }
    }
}

/// Writes the manifest, and the schema beside it.
pub fn run(args: &InitArgs) -> Result<ExitCode, Error> {
    let (format, target) = format_and_target(args)?;
    let text = match &args.from {
        None => example(format).to_owned(),
        Some(path) => converted(path, format)?,
    };
    let Some(target) = target else {
        out::print(&text).map_err(Error::Output)?;
        return Ok(ExitCode::SUCCESS);
    };
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    refuse_rival(&target, directory)?;
    let existing = if args.force {
        Existing::Replaced
    } else {
        Existing::Kept
    };
    new_file::write(&target, &text, existing).map_err(|source| {
        let path = target.clone();
        if source.kind() == io::ErrorKind::AlreadyExists {
            InitError::Exists { path }
        } else {
            InitError::Unwritable { path, source }
        }
    })?;
    out::talk(&format!("wrote {}\n", target.display()));
    write_schema(&target.with_file_name(SCHEMA), existing)?;
    out::talk(&next_step(args, &target, directory));
    Ok(ExitCode::SUCCESS)
}

fn example(format: Format) -> &'static str {
    match format {
        Format::Yaml => EXAMPLE_YAML,
        Format::Toml => EXAMPLE_TOML,
    }
}

/// The name of the file and the flag must not contradict each other. No target is standard output.
fn format_and_target(args: &InitArgs) -> Result<(Format, Option<PathBuf>), InitError> {
    let asked = args.format.map(|format| match format {
        InitFormat::Yaml => Format::Yaml,
        InitFormat::Toml => Format::Toml,
    });
    let Some(path) = &args.output else {
        let format = asked.unwrap_or(Format::Yaml);
        let name = match format {
            Format::Yaml => NAMES[0],
            Format::Toml => NAMES[2],
        };
        return Ok((format, Some(PathBuf::from(name))));
    };
    if path.as_os_str() == "-" {
        return Ok((asked.unwrap_or(Format::Yaml), None));
    }
    let by_name = Format::of(path);
    if asked.is_some_and(|asked| asked != by_name) {
        return Err(InitError::Format { path: path.clone() });
    }
    Ok((by_name, Some(path.clone())))
}

/// Only among the names by which a manifest is found.
fn refuse_rival(target: &Path, directory: &Path) -> Result<(), InitError> {
    let is_found = |name: &str| target.file_name().is_some_and(|target| target == name);
    if !NAMES.iter().any(|name| is_found(name)) {
        return Ok(());
    }
    let rival = NAMES
        .iter()
        .filter(|name| !is_found(name))
        .map(|name| directory.join(name))
        .find(|path| path.symlink_metadata().is_ok());
    match rival {
        Some(path) => Err(InitError::Rival { path }),
        None => Ok(()),
    }
}

/// The schema is the same for every manifest: one that is there and says the same is as good as a new one.
fn write_schema(path: &Path, existing: Existing) -> Result<(), Error> {
    let text = crate::manifest::schema::text();
    match new_file::write(path, &text, existing) {
        Ok(()) => out::talk(&format!("wrote {}\n", path.display())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if read::file(path).ok().as_ref() != Some(&text) {
                out::talk(&format!(
                    "{} exists and was left as it is; `kimi-shell schema` prints that of this version\n",
                    path.display()
                ));
            }
        }
        Err(source) => {
            let path = path.to_owned();
            return Err(InitError::Unwritable { path, source }.into());
        }
    }
    Ok(())
}

/// The manifest made from a Procfile; what it cannot say is told.
fn converted(path: &Path, format: Format) -> Result<String, InitError> {
    let foreign = ["yaml", "yml", "json", "toml", "conf"];
    let extension = path.extension().and_then(|extension| extension.to_str());
    if extension.is_some_and(|extension| foreign.contains(&extension)) {
        return Err(InitError::Foreign {
            path: path.to_owned(),
        });
    }
    let source = Arc::new(Source {
        name: path.display().to_string(),
        text: read::file(path)?,
    });
    let procfile =
        procfile::parse(&source).map_err(|problems| InitError::Invalid(Problems(problems)))?;
    let env_file = path.with_file_name(ENV_FILE);
    let env_file = match env_file.symlink_metadata() {
        Ok(_) => Some(read::file(&env_file)?),
        Err(_) => None,
    };
    tell(&procfile, &source.name);
    let name = path.file_name().map_or_else(
        || PROCFILE.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    let around = Surroundings {
        name: &name,
        env_file: env_file.as_deref(),
    };
    Ok(procfile.manifest(format, around))
}

fn tell(procfile: &Procfile, file: &str) {
    for process in procfile
        .processes
        .iter()
        .filter(|process| process.is_renamed())
    {
        let (original, name) = (&process.original, &process.name);
        out::talk(&format!("{file}: `{original}` is called `{name}` here\n"));
    }
    for line in &procfile.untranslated {
        out::talk(&format!(
            "{file}:{}: left as a comment, since {}; give it a name\n",
            line.line, line.why
        ));
    }
}

fn next_step(args: &InitArgs, target: &Path, directory: &Path) -> String {
    let mut text = String::new();
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let above = directory.parent().map(discover);
    let above = match above {
        Some(Ok(Some(found))) => Some(found.manifest),
        Some(Err(DiscoverError::Ambiguous { first, .. })) => Some(first),
        Some(Ok(None)) | None => None,
    };
    if let Some(above) = above {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "from here, it counts instead of {}", above.display());
    }
    if args.from.is_none() && directory.join(PROCFILE).is_file() {
        text.push_str(
            "there is a Procfile: `kimi-shell init --from Procfile --force` makes the manifest from it\n",
        );
    }
    let is_found = NAMES.iter().any(|name| target == Path::new(name));
    let file = if is_found {
        String::new()
    } else {
        format!(" -f {}", target.display())
    };
    let _infallible = writeln!(
        text,
        "next: `kimi-shell validate{file}` checks it, `kimi-shell graph{file}` shows the order, \
         `kimi-shell start --all{file}` starts it"
    );
    text
}
