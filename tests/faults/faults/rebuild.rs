//! What happens while the tables are made again.

use std::process::Output;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::{Strike, roles};
use crate::fleet::{PROJECTOR, send};
use crate::program::program;
use crate::site::Site;

/// How long a rebuild may take that waits for tables others hold.
const PATIENCE: Duration = Duration::from_secs(150);

/// A rebuild is killed on its way; the next clears up and goes on to its end although a projector dies meanwhile.
pub(super) async fn under_kill(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    let first = start(site);
    sleep(site.dice.millis(50, 600)).await;
    send(first.id().unwrap_or(0), rustix::process::Signal::KILL);
    let _ = first.wait_with_output().await;

    let second = tokio::spawn(tokio::time::timeout(PATIENCE, start(site).wait_with_output()));
    sleep(site.dice.millis(50, 600)).await;
    roles::kill(site, &[PROJECTOR]).await;
    let ended = second.await.expect("it does not panic");
    site.complaints.extend(objection(ended.ok().map(|output| output.expect("it can be waited for"))));
    Strike { began, healed: Instant::now() }
}

fn start(site: &Site<'_>) -> Child {
    let mut command: Command = program(&site.fleet.settings_of(PROJECTOR));
    command.arg("rebuild").stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command.spawn().expect("the program can be started")
}

/// `None` when its tables are in service.
fn objection(ended: Option<Output>) -> Option<String> {
    let Some(output) = ended else { return Some(format!("`rebuild` did not end within {PATIENCE:?}")) };
    if output.status.success() {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    Some(format!("`rebuild` ended with {}: {}", output.status, said.lines().collect::<Vec<_>>().join("; ")))
}
