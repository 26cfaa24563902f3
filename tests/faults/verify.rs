//! The program's own audit beside ours: what `insightforge verify` finds is a finding, and so is its own failure.

use std::process::Output;
use std::time::Duration;

use crate::program::{Settings, program};

/// How long it may take over the journal of one run.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of what it says that are shown.
const LINES: usize = 8;

/// What `verify` has against an installation that is at rest.
pub(crate) async fn complaint(settings: &Settings) -> Option<String> {
    let ended = tokio::time::timeout(PATIENCE, program(settings).arg("verify").output()).await;
    objection(ended.ok().map(|output| output.expect("the program can be started")))
}

/// `None` when it ended in time and found every row to be what the journal says.
fn objection(ended: Option<Output>) -> Option<String> {
    let Some(output) = ended else { return Some(format!("`verify` did not end within {PATIENCE:?}")) };
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let first: Vec<&str> = said.lines().take(LINES).collect();
    Some(format!("`verify` ended with {}: {}", output.status, first.join("; ")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(wait_status: i32, out: &str, err: &str) -> Option<Output> {
        Some(Output { status: ExitStatus::from_raw(wait_status), stdout: out.into(), stderr: err.into() })
    }

    #[test]
    fn what_verify_finds_its_failure_its_death_and_its_silence_are_findings() {
        assert_eq!(objection(ended(0, "12 events, 3 tasks, at 0:12: 0 differences", "")), None);
        let differs = objection(ended(1 << 8, "analysis_tasks 0:1: status\n12 events: 1 differences", "")).unwrap();
        assert!(differs.contains("analysis_tasks 0:1: status; 12 events"), "{differs}");
        let broke = objection(ended(1 << 8, "", "Error: events 1 to 4 of partition 0 are missing")).unwrap();
        assert!(broke.contains("events 1 to 4"), "{broke}");
        let died = objection(ended(9, "", "")).unwrap();
        assert!(died.contains("signal"), "{died}");
        assert!(objection(None).unwrap().contains("did not end"));
    }
}
