//! A file of many goes in as one batch, streamed, with a bar; broken off, it is sent again under the same key and nothing
//! is doubled.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::TryStreamExt;
use indicatif::ProgressBar;
use reqwest::{Body, Method, StatusCode, header};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use super::door::{Door, Failure};
use super::submit::{Args, Format};
use super::{NOT_YET, look, plain};
use crate::progress;

/// Bytes of one read.
const PIECE: usize = 64 << 10;
/// The api answers when it has stored all; how long that may take.
const UPLOAD: Duration = Duration::from_secs(3_600);
/// Refused lines that are told.
const TOLD: usize = 20;

/// Sends it; exit code 0 when every line became a task, and with `--wait` every task completed.
pub(super) async fn send(door: &Door, args: &Args, key: &str) -> anyhow::Result<ExitCode> {
    let path = args.file.as_deref().context("--file")?;
    let format = args.format.or_else(|| by_name(path));
    let Some(format) = format else {
        bail!("--format csv or jsonl: the name {} does not tell", path.display());
    };
    let mut account = upload(door, args, path, format, key).await?;
    let mut code = if account["rejected"] == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if !args.json {
        tell(door, &account);
    }
    if let Some(seconds) = args.wait {
        let batch = account["batch_id"].as_str().and_then(|id| id.parse().ok()).context("the answer names no batch")?;
        let accepted = account["accepted"].as_u64();
        let (progress, ended) = follow(door, batch, accepted, seconds).await?;
        if !args.json {
            eprintln!("{}", counts(&progress));
        }
        code = if ended == ExitCode::SUCCESS { code } else { ended };
        account["progress"] = progress;
    }
    if args.json {
        println!("{}", plain::json(&account));
    }
    Ok(code)
}

async fn upload(door: &Door, args: &Args, path: &Path, format: Format, key: &str) -> anyhow::Result<Value> {
    let mut query = vec![("task_type", args.task_type.as_str())];
    query.extend(args.model.as_deref().map(|model| ("model_version", model)));
    let expires = args.expires_in.map(|seconds| seconds.to_string());
    query.extend(expires.as_deref().map(|seconds| ("expires_in_s", seconds)));
    let media = match format {
        Format::Csv => "text/csv",
        Format::Jsonl => "application/x-ndjson",
    };
    let from_stdin = path == Path::new("-");
    let bar = progress::bytes(std::fs::metadata(path).ok().filter(|about| about.is_file()).map(|about| about.len()));
    bar.set_message("uploading");
    let mut tried = false;
    let answer = door
        .insist(async || {
            if from_stdin && std::mem::replace(&mut tried, true) {
                let why = "the upload broke off, and standard input cannot be read again".to_owned();
                return Err(Failure::Refused { status: StatusCode::BAD_REQUEST, why });
            }
            bar.set_position(0);
            let request = door.request(Method::POST, "api/data/upload/batch", &query, UPLOAD);
            let request = request.header("Idempotency-Key", key).header(header::CONTENT_TYPE, media);
            let (body, bytes) = body(path, from_stdin, &bar).await?;
            Ok(match bytes {
                Some(bytes) => request.header(header::CONTENT_LENGTH, bytes).body(body),
                None => request.body(body),
            })
        })
        .await;
    bar.finish_and_clear();
    Ok(answer?.1)
}

/// The file from its beginning, and its length when it is an ordinary one.
async fn body(path: &Path, from_stdin: bool, bar: &ProgressBar) -> Result<(Body, Option<u64>), Failure> {
    let unreadable = |error: std::io::Error| {
        let why = format!("{}: {error}", path.display());
        Failure::Refused { status: StatusCode::BAD_REQUEST, why }
    };
    if from_stdin {
        let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?;
        return Ok((streamed(tokio::fs::File::from_std(input.into()), bar), None));
    }
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let about = file.metadata().await.map_err(unreadable)?;
    let bytes = about.is_file().then_some(about.len());
    // What is appended meanwhile is left for another time.
    Ok((streamed(file.take(bytes.unwrap_or(u64::MAX)), bar), bytes))
}

fn streamed(reader: impl AsyncRead + Send + 'static, bar: &ProgressBar) -> Body {
    let bar = bar.clone();
    let pieces = ReaderStream::with_capacity(reader, PIECE);
    Body::wrap_stream(pieces.inspect_ok(move |piece| bar.inc(piece.len() as u64)))
}

fn by_name(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(Format::Csv),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        _ => None,
    }
}

/// The batch's id for scripts; what became of the lines for people.
fn tell(door: &Door, account: &Value) {
    let batch = account["batch_id"].as_str().unwrap_or_default();
    println!("{batch}");
    if std::io::stdout().is_terminal() {
        eprintln!("this is the batch's id: {}/api/batches/{batch} says how far it is", door.address());
    }
    eprintln!("{} accepted, {} repeated, {} rejected", account["accepted"], account["repeated"], account["rejected"]);
    let errors = account["errors"].as_array().map_or(&[][..], Vec::as_slice);
    for error in errors.iter().take(TOLD) {
        eprintln!("  line {}: {}", error["line"], plain::line(&reasons(&error["errors"]), 300));
    }
    if errors.len() > TOLD {
        eprintln!("  …");
    }
    for ignored in account["ignored_columns"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("  the column {} means nothing here", plain::line(ignored, 64));
    }
}

/// `field: what is wrong; field: …`.
fn reasons(errors: &Value) -> String {
    let fields = errors.as_object().into_iter().flatten();
    let said = fields.map(|(field, whats)| {
        let whats: Vec<&str> = whats.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        format!("{field}: {}", whats.join(", "))
    });
    said.collect::<Vec<_>>().join("; ")
}

/// Watches the batch until all its tasks have ended.
async fn follow(door: &Door, batch: Uuid, accepted: Option<u64>, seconds: u64) -> Result<(Value, ExitCode), Failure> {
    let path = format!("api/batches/{batch}");
    let bar = progress::things(accepted);
    bar.set_message("analysing");
    let progress = look(seconds, async || {
        let progress = door.get_patiently(&path, &[]).await?;
        bar.set_position(ended(&progress));
        let is_done = progress["done"] == true;
        Ok((progress, is_done))
    })
    .await?;
    bar.finish_and_clear();
    let code =
        match (progress["done"] == true, progress["tasks"]["completed"].as_u64() == progress["accepted"].as_u64()) {
            (true, true) => ExitCode::SUCCESS,
            (true, false) => ExitCode::FAILURE,
            (false, _) => ExitCode::from(NOT_YET),
        };
    Ok((progress, code))
}

fn ended(progress: &Value) -> u64 {
    ["completed", "failed", "cancelled"].iter().filter_map(|status| progress["tasks"][status].as_u64()).sum()
}

fn counts(progress: &Value) -> String {
    let count = |status: &str| progress["tasks"][status].as_u64().unwrap_or(0);
    let open = progress["accepted"].as_u64().unwrap_or(0).saturating_sub(ended(progress));
    format!(
        "{} completed, {} failed, {} cancelled, {open} not ended",
        count("completed"),
        count("failed"),
        count("cancelled")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_name_tells_what_a_file_is() {
        for (name, format) in [
            ("a.csv", Some(Format::Csv)),
            ("a.CSV", Some(Format::Csv)),
            ("a.jsonl", Some(Format::Jsonl)),
            ("a.ndjson", Some(Format::Jsonl)),
            ("a.txt", None),
            ("csv", None),
        ] {
            assert_eq!(by_name(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn a_batch_is_counted_from_what_was_accepted() {
        let progress =
            json!({ "accepted": 10, "tasks": { "completed": 5, "failed": 2, "cancelled": 0, "pending": 1 } });
        assert_eq!(counts(&progress), "5 completed, 2 failed, 0 cancelled, 3 not ended");
        assert_eq!(ended(&json!({ "accepted": null, "tasks": null })), 0);
        assert_eq!(reasons(&json!({ "data": ["is missing"], "x": ["a", "b"] })), "data: is missing; x: a, b");
    }
}
