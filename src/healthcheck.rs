//! `insightforge healthcheck`: a container image without shell or curl still needs something to ask.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The health URL to ask
    #[arg(long, default_value = "http://127.0.0.1:8080/readyz")]
    url: String,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(3));
    if !args.url.starts_with("https:") {
        // Loading the system's certificates takes longer than asking, and an image may have none.
        client = client.tls_certs_only([]);
    }
    let answer = client.build()?.get(&args.url).send().await.with_context(|| format!("asking {}", args.url))?;
    if answer.status().is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} answered {}", args.url, answer.status());
    Ok(ExitCode::FAILURE)
}
