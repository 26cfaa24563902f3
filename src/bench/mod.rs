//! `insightforge bench`: load a running system, say how fast whole lives of tasks went, and audit that every accepted
//! task completed exactly once.
//!
//! It speaks only the wire contract and reads only the contract's tables, so it measures any stack that keeps them. It
//! shares its machine with what it measures: everything runs on one thread, connections stay open, and rows and results
//! are watched for a sample of the tasks only. It judges correctness (exit code 1), never speed.

mod audit;
mod disk;
mod doors;
mod ledger;
mod load;
mod processes;
mod receive;
mod report;
mod watch;
mod wire;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use tokio::task::{LocalSet, spawn_local};
use url::Url;

use crate::config::Secret;
use crate::progress;
use ledger::{Ledger, Watches};
use load::Load;
use processes::Watched;
use report::Report;

/// Between two looks at how far it is: seldom, because it runs on the thread that measures.
const SHOW: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The API to load
    #[arg(long, env = "INSIGHTFORGE_TARGET", default_value = "http://127.0.0.1:8080")]
    target: Url,
    /// Tasks to upload
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=99_999_999))]
    tasks: u64,
    /// Open loop: uploads a second, sent on schedule; latency counts from the scheduled time. Without it each connection
    /// sends its next upload when the last was answered
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Keep-alive connections; in the closed loop also the uploads in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Tasks a request, through the batch door; 1 uses the single upload. `--tasks` is rounded up to whole requests
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Text to analyse; a running number is appended
    #[arg(long, default_value = "這是一個非常正面的測試語句，我很喜歡！")]
    text: String,
    #[arg(long, default_value = "sentiment_analysis")]
    task_type: String,
    #[arg(long, default_value = "v1.0")]
    model_version: String,
    /// Receive webhooks here; the system must be configured to send them to this address
    #[arg(long)]
    webhook_listen: Option<SocketAddr>,
    /// Check `X-Webhook-Signature` of every webhook with this secret
    #[arg(long, env = "INSIGHTFORGE_WEBHOOK_SECRET", hide_env_values = true, requires = "webhook_listen")]
    webhook_secret: Option<Secret>,
    /// Audit these tables, and time the rows of sampled tasks
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<Secret>,
    /// Time `GET /api/result/<task_id>` of sampled tasks until it answers completed
    #[arg(long)]
    poll_visible: bool,
    /// Tasks a second whose row and result are watched
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    samples_per_s: u32,
    /// Account for these processes with their children: `name=pid,name=pid`
    #[arg(long, value_delimiter = ',')]
    pids: Vec<Watched>,
    /// Directory of the fsync probe: on the disk that Redis and the database use
    #[arg(long, default_value = ".")]
    fsync_dir: PathBuf,
    /// Give up when nothing completed for this long
    #[arg(long, default_value_t = 30)]
    settle_s: u64,
    /// Compare synchronous doors instead: ask each `--door` the same texts in turns, and say how much faster the first is.
    /// `--pids` names the process behind a door by the door's name
    #[arg(long, requires = "door")]
    inference: bool,
    /// A door to ask: `name=http://host:port`, which takes what `POST /api/infer` takes; repeat it for every peer
    #[arg(long, requires = "inference")]
    door: Vec<doors::Door>,
    /// Length of a turn, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600), requires = "inference")]
    seconds: u64,
    /// Turns of each door
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000), requires = "inference")]
    rounds: u32,
    /// Texts to ask, one a line; a few of both languages unless given
    #[arg(long, requires = "inference")]
    texts: Option<PathBuf>,
    /// Print one JSON document instead of the table
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0).ok_or_else(|| "a number above 0".to_owned())
}

/// Measures, prints, and fails when the audit found something wrong.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    // One thread of its own: the ledger needs no lock, and waking no other thread is what keeps a request cheap.
    let measured = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        if args.inference {
            let report = LocalSet::new().block_on(&runtime, doors::measure(&args))?;
            return Ok((shown(&report, args.json)?, true));
        }
        let json = args.json;
        let report = LocalSet::new().block_on(&runtime, measure(args))?;
        anyhow::Ok((shown(&report, json)?, report.audit.passed()))
    });
    let (text, passed) = measured.await.context("the measuring thread")??;
    print!("{text}");
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn shown<R: Serialize + Display>(report: &R, as_json: bool) -> anyhow::Result<String> {
    Ok(if as_json { serde_json::to_string_pretty(report)? + "\n" } else { report.to_string() })
}

/// One run, in order: probe the disk, receive, load, wait for the last outcome, audit.
async fn measure(args: Args) -> anyhow::Result<Report> {
    let fsync = disk::probe(&args.fsync_dir).with_context(|| format!("probing {}", args.fsync_dir.display()))?;
    let database = args.database_url.as_ref().map(|url| insightforge_schema::tables::pool(url.reveal(), 2));
    let database = database.transpose().context("DATABASE_URL")?;
    if let Some(pool) = &database {
        sqlx::query("SELECT 1 FROM analysis_tasks LIMIT 1").execute(pool).await.context("reading analysis_tasks")?;
    }
    let load = Load::new(&args)?;
    let ledger = Rc::new(Ledger::new(Watches {
        rows: database.is_some(),
        results: args.poll_visible,
        samples_per_s: args.samples_per_s,
    }));

    let mut receiver = None;
    if let Some(addr) = args.webhook_listen {
        let secret = args.webhook_secret.as_ref().map(|secret| secret.reveal().as_bytes().to_vec());
        receiver = Some(receive::listen(addr, secret, Rc::clone(&ledger)).await?);
    }
    let mut watchers = Vec::new();
    if let Some(pool) = &database {
        watchers.push(spawn_local(watch::rows(pool.clone(), Rc::clone(&ledger))));
    }
    if args.poll_visible {
        watchers.push(spawn_local(watch::results(load.target(), Rc::clone(&ledger))));
    }

    let processes_before = processes::snapshot(&args.pids)?;
    ledger.start();
    watchers.push(spawn_local(show(args.tasks, receiver.is_some(), Rc::clone(&ledger))));
    let sent = load.send_all(&ledger).await?;
    let settle = Duration::from_secs(args.settle_s);
    let by = match (&receiver, &database) {
        (Some(_), _) => wait_for_webhooks(&ledger, settle).await,
        (None, Some(pool)) => audit::wait_for_rows(pool, &ledger, settle).await?,
        (None, None) => report::CompletedBy::Nobody,
    };
    watch::wait_for_samples(&ledger, settle).await;
    let processes = processes::difference(&processes_before, &processes::snapshot(&args.pids)?);
    watchers.iter().for_each(tokio::task::JoinHandle::abort);

    let mut audit = audit::Audit::default();
    if receiver.is_some() {
        audit.webhooks(&ledger);
    }
    if let Some(pool) = &database {
        audit.rows(pool, &ledger, settle).await?;
    }
    Ok(Report::new(&args, &ledger, sent, by, processes, fsync, audit))
}

/// A bar on a terminal, until it is aborted: uploads, then what was announced of them.
async fn show(tasks: u64, are_announced: bool, ledger: Rc<Ledger>) {
    let bar = progress::things(Some(tasks));
    if bar.is_hidden() {
        return;
    }
    bar.set_message("uploading");
    loop {
        tokio::time::sleep(SHOW).await;
        let accepted = ledger.accepted();
        if are_announced && accepted >= tasks {
            bar.set_message("completing");
            bar.set_length(accepted);
            bar.set_position(ledger.announced());
        } else {
            bar.set_position(accepted);
        }
    }
}

/// Waits until every accepted task was announced, or nothing was for `settle`.
async fn wait_for_webhooks(ledger: &Ledger, settle: Duration) -> report::CompletedBy {
    while ledger.announced() < ledger.accepted() {
        if tokio::time::timeout(settle, ledger.progress()).await.is_err() {
            break;
        }
    }
    report::CompletedBy::Webhook
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::wire::Connection;
    use clap::Parser;
    use tokio::net::TcpListener;
    use uuid::Uuid;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Webhooks a system sends for its n-th task: whether each says completed.
    type Habit = fn(u64) -> &'static [bool];

    /// Keeps the upload's contract, and announces as `habit` says.
    async fn system(listener: TcpListener, webhooks: SocketAddr, habit: Habit) {
        let mut task = 0;
        let (stream, _) = listener.accept().await.unwrap();
        let mut caller = Connection::new(stream).unwrap();
        let mut receiver = None;
        while let Some(request) = caller.receive().await.unwrap() {
            let upload: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            let data: serde_json::Value = serde_json::from_str(upload["data"].as_str().unwrap()).unwrap();
            assert!(data["text"].as_str().unwrap().ends_with(&format!(" {task:08}")), "{data}");
            let id = Uuid::new_v4();
            let body = format!(r#"{{"message":"任務已接收","task_id":"{id}"}}"#);
            let answer = format!("HTTP/1.1 202 Accepted\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            caller.send(answer.as_bytes()).await.unwrap();
            if receiver.is_none() {
                receiver = Some(Connection::connect(&webhooks.to_string()).await.unwrap());
            }
            for completed in habit(task) {
                let status = if *completed { "completed" } else { "failed" };
                let body = format!(r#"{{"task_id":"{id}","status":"{status}","result":null}}"#);
                let request = wire::post("bench", "/", "application/json", body.as_bytes());
                assert_eq!(receiver.as_mut().unwrap().exchange(&request).await.unwrap().status(), 204);
            }
            task += 1;
        }
    }

    async fn bench(habit: Habit, more: &[&str]) -> Report {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhooks = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (target, to) = (format!("http://{}", listener.local_addr().unwrap()), webhooks.to_string());
        let mut line = vec!["bench", "--target", &target, "--tasks", "20", "--concurrency", "1", "--settle-s", "1"];
        line.extend(["--webhook-listen", &to, "--fsync-dir", "/tmp"]);
        line.extend(more);
        let args = Line::parse_from(line).args;
        let run = LocalSet::new();
        run.spawn_local(system(listener, webhooks, habit));
        run.run_until(measure(args)).await.unwrap()
    }

    #[tokio::test]
    async fn a_system_that_announces_every_task_passes_in_both_loops() {
        for more in [&[][..], &["--rate", "400"]] {
            let report = bench(|task| if task == 7 { &[true, true] } else { &[true] }, more).await;
            assert!(report.audit.passed(), "{report}");
            assert_eq!((report.accepted, report.audit.webhooks_checked, report.audit.repeated_webhooks), (20, 20, 1));
        }
    }

    #[tokio::test]
    async fn a_lost_and_a_failed_task_fail_the_run_and_are_counted() {
        let report = bench(|task| [&[true][..], &[], &[false]][(task % 3) as usize], &[]).await;
        let mut faults: Vec<_> = report.audit.faults().iter().map(|fault| (fault.what, fault.count)).collect();
        faults.sort_unstable();
        assert_eq!(faults, [("no webhook came", 7), ("the webhook did not say completed", 6)]);
        assert!(report.to_string().contains("FAILED"));
    }
}
