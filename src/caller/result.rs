//! `insightforge result <task>`: status and result, or error, of a task.

use std::process::ExitCode;

use insightforge_schema::id::TaskId;
use serde_json::Value;

use super::door::{Door, DoorArgs, Failure};
use super::{exit_code, look, plain};

/// Exit codes, for scripts.
pub(super) const EXIT_CODES: &str =
    "Exit code 0: the task completed. 1: it failed or was cancelled, or there is no answer. 3: it has not ended yet.";

#[derive(clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    door: DoorArgs,
    /// The task's id
    task: TaskId,
    /// Wait so many seconds for its end
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// Everything as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let door = Door::open(&args.door)?;
    let result = wait_for(&door, args.task, args.wait).await?;
    Ok(print(&result, args.json))
}

/// The result once it is there, or what there is after so many seconds.
pub(super) async fn wait_for(door: &Door, task: TaskId, seconds: u64) -> Result<Value, Failure> {
    let path = format!("api/result/{task}");
    look(seconds, async || {
        let result = door.get_patiently(&path, &[]).await?;
        let is_over = !matches!(result["status"].as_str(), Some("pending" | "processing"));
        Ok((result, is_over))
    })
    .await
}

/// Prints it, and says how it ended.
pub(super) fn print(result: &Value, json: bool) -> ExitCode {
    if json {
        println!("{}", plain::json(result));
    } else {
        println!("{}", for_people(result));
    }
    exit_code(result["status"].as_str().unwrap_or_default())
}

fn for_people(result: &Value) -> String {
    let text = |field: &str| plain::line(result[field].as_str().unwrap_or("?"), 200);
    let head = format!("{} {} {}", text("status"), text("task_type"), text("model_version"));
    if !result["result"].is_null() {
        format!("{head}\n{}", plain::pretty_json(&result["result"]))
    } else if result["error_code"].is_string() {
        let message = plain::line(result["error_message"].as_str().unwrap_or_default(), 2_000);
        format!("{head}, attempt {}\n{}: {message}", result["attempt"], text("error_code"))
    } else {
        format!("{head}, attempt {}", result["attempt"])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_is_told_in_a_few_lines_that_no_terminal_obeys() {
        let head =
            json!({ "status": "completed", "task_type": "sentiment_analysis", "model_version": "v1.0", "attempt": 1 });
        let with = |more: Value| {
            let mut result = head.clone();
            result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            for_people(&result)
        };
        assert_eq!(
            with(json!({ "result": { "sentiment": "\u{9b}31m" } })),
            "completed sentiment_analysis v1.0\n{\n  \"sentiment\": \"\\u009b31m\"\n}"
        );
        assert_eq!(
            with(json!({ "status": "failed", "attempt": 3, "error_code": "timeout", "error_message": "no\nanswer" })),
            "failed sentiment_analysis v1.0, attempt 3\ntimeout: no�answer"
        );
        assert_eq!(with(json!({ "status": "pending", "attempt": 0 })), "pending sentiment_analysis v1.0, attempt 0");
    }
}
