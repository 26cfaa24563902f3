//! `insightforge completions <shell>`: what the shell needs to complete commands and flags.

use std::process::ExitCode;

use clap_complete::Shell;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The shell to write for; for example: insightforge completions bash > ~/.local/share/bash-completion/completions/insightforge
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut command: clap::Command) -> anyhow::Result<ExitCode> {
    // Made whole before it is written: who reads it may go away at any byte.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "insightforge", &mut script);
    print!("{}", String::from_utf8(script)?);
    Ok(ExitCode::SUCCESS)
}
