//! `insightforge`: one binary, a role a subcommand.
//!
//! A task's life, in reading order: `api` (submitted) → `analyzer` (processing → completed or failed) → `projector`
//! (folded into MySQL, announced by webhook). `submit`, `result`, `watch` and `top` speak HTTP to the api, from any machine.
//! The other commands look at the journal or work on what was derived from it.

mod bench;
mod boot;
mod caller;
mod completions;
mod config;
mod dead_letters;
mod doctor;
mod evaluate;
mod healthcheck;
mod log;
mod migrate;
mod mirrors;
mod model_host;
mod models;
#[cfg(feature = "otel")]
mod otel;
mod progress;
mod rebuild;
mod replay;
mod roles;
mod settings;
mod train;
mod verify;
mod why;

use std::num::NonZeroUsize;

use clap::{CommandFactory, Parser, Subcommand};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Durable intake, exactly one outcome a task, signed webhooks, replay.
#[derive(Parser)]
#[command(name = "insightforge", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create or update the tables and record the partition count; safe to repeat
    Migrate(migrate::Args),
    /// Serve HTTP: accept uploads, answer queries
    Api(roles::ApiArgs),
    /// Run models on waiting tasks
    Analyzer(roles::AnalyzerArgs),
    /// Fold the journal into MySQL and send webhooks
    Projector(roles::ProjectorArgs),
    /// Submit a text, a document, or a file of many
    Submit(caller::submit::Args),
    /// Show what became of a task
    Result(caller::result::Args),
    /// Print events as they happen, of one task to its end or of all
    Watch(caller::watch::Args),
    /// Show lanes, analyzers, failures and lag, again each second
    Top(caller::top::Args),
    /// Show and decide which model version answers
    Models(models::Args),
    /// Print the journal for people
    Replay(replay::Args),
    /// Say why a task is not done, or how it ended
    Why(why::Args),
    /// List, search, repeat and purge tasks that failed for good
    DeadLetters(dead_letters::Args),
    /// Fold the whole journal into fresh tables and swap them in; sends nothing
    Rebuild(rebuild::Args),
    /// Fold the whole journal again and compare with the tables
    Verify(verify::Args),
    /// Check servers and settings; name what is weak and its remedy
    Doctor(doctor::Args),
    /// Measure a running system and audit that nothing was lost
    Bench(bench::Args),
    /// Make a model package from labelled data
    Train(train::Args),
    /// Measure a model package on data with known answers
    Evaluate(evaluate::Args),
    /// Exit 0 when a health URL answers 2xx (for container health checks)
    Healthcheck(healthcheck::Args),
    /// Write a script that completes commands and flags in a shell
    Completions(completions::Args),
    #[command(hide = true)]
    ModelHost(model_host::Args),
}

impl Command {
    fn worker_threads(&self) -> NonZeroUsize {
        match self {
            Self::Api(args) => args.role.worker_threads(),
            Self::Analyzer(args) => args.role.worker_threads(),
            Self::Projector(args) => args.role.worker_threads(),
            Self::ModelHost(_) | Self::Submit(_) | Self::Result(_) | Self::Watch(_) | Self::Top(_) => NonZeroUsize::MIN,
            _ => boot::cores(),
        }
    }
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    boot::run(cli.command.worker_threads(), async move {
        match cli.command {
            Command::Migrate(args) => migrate::run(args).await,
            Command::Api(args) => roles::api(args).await,
            Command::Analyzer(args) => roles::analyzer(args).await,
            Command::Projector(args) => roles::projector(args).await,
            Command::Submit(args) => caller::submit::run(args).await,
            Command::Result(args) => caller::result::run(args).await,
            Command::Watch(args) => caller::watch::run(args).await,
            Command::Top(args) => caller::top::run(args).await,
            Command::Models(args) => models::run(args).await,
            Command::Replay(args) => replay::run(args).await,
            Command::Why(args) => why::run(args).await,
            Command::DeadLetters(args) => dead_letters::run(args).await,
            Command::Rebuild(args) => rebuild::run(args).await,
            Command::Verify(args) => verify::run(args).await,
            Command::Doctor(args) => doctor::run(args).await,
            Command::Bench(args) => bench::run(args).await,
            Command::Train(args) => train::run(args).await,
            Command::Evaluate(args) => evaluate::run(args).await,
            Command::Healthcheck(args) => healthcheck::run(args).await,
            Command::Completions(args) => completions::run(&args, Cli::command()),
            Command::ModelHost(args) => model_host::run(args),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every environment variable that any command reads.
    fn variables() -> BTreeSet<String> {
        let cli = Cli::command();
        let arguments = cli.get_subcommands().flat_map(clap::Command::get_arguments);
        arguments.filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned())).collect()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_stands_in_the_tables_of_both_readmes() {
        for readme in [include_str!("../README.md"), include_str!("../README.zh-TW.md")] {
            let missing: Vec<_> =
                variables().into_iter().filter(|name| !readme.contains(&format!("| `{name}` |"))).collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
    }

    #[test]
    fn no_setting_that_holds_a_secret_shows_its_value_in_help() {
        let cli = Cli::command();
        for argument in cli.get_subcommands().flat_map(clap::Command::get_arguments) {
            let name = argument.get_env().and_then(|name| name.to_str()).unwrap_or_default();
            if ["SECRET", "KEY", "URL"].iter().any(|word| name.ends_with(word)) && !name.ends_with("KEY_PREFIX") {
                assert!(argument.is_hide_env_values_set(), "{name}");
            }
        }
    }
}
