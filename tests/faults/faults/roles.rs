//! What happens to the program's own processes.

use std::time::{Duration, Instant};

use insightforge_schema::fail::Step;
use rustix::process::Signal;
use tokio::time::sleep;

use super::Strike;
use crate::audit::Death;
use crate::collect::recorded;
use crate::fleet::{ANALYZER, API, PROJECTOR, send};
use crate::site::Site;

/// How long a step may take to be reached under load.
const REACHED: Duration = Duration::from_secs(60);

/// `kill -9`, and a supervisor that starts them again.
pub(in crate::faults) async fn kill(site: &mut Site<'_>, names: &[&'static str]) -> Strike {
    let began = Instant::now();
    for name in names {
        site.fleet.kill(name).await;
        note_death(site, name).await;
    }
    sleep(site.dice.millis(50, 1_000)).await;
    site.fleet.start(names).await;
    Strike { began, healed: Instant::now() }
}

/// What a dead projector leaves in doubt may be told again; what it had recorded may not.
async fn note_death(site: &mut Site<'_>, name: &str) {
    if name == PROJECTOR {
        let at = Instant::now();
        let recorded = recorded(site).await;
        site.deaths.push(Death { at, recorded });
    }
}

/// The role a step is in.
pub(crate) fn of_step(step: Step) -> &'static str {
    match step.name().split('-').next() {
        Some("submit") => API,
        Some("start" | "finish" | "retry" | "reap" | "move") => ANALYZER,
        _ => PROJECTOR,
    }
}

/// Puts a process into the fleet that dies at the step; before the load begins.
pub(crate) async fn doom(site: &mut Site<'_>, step: Step) {
    let name = of_step(step);
    let nth = match step {
        // These come seldom.
        Step::ReapUnsent | Step::ReapWritten | Step::OutboxClaimed => 1,
        Step::MoveUnsent | Step::MoveWritten => 1 + site.dice.below(3),
        Step::ArchiveWritten | Step::ArchiveMarked | Step::ArchiveTrimmed => 1 + site.dice.below(3),
        _ => 1 + site.dice.below(12),
    };
    site.fleet.terminate_first(name).await;
    if matches!(step, Step::MoveUnsent | Step::MoveWritten) {
        // Who is there first has the duty in every partition, and keeps it.
        site.fleet.terminate_first(name).await;
        site.fleet.start_doomed(name, &format!("{}:{nth}", step.name())).await;
        site.fleet.start_before_doomed(name).await;
        return;
    }
    site.fleet.start_doomed(name, &format!("{}:{nth}", step.name())).await;
}

/// Waits until the doomed process has died, and starts another.
pub(super) async fn die_at(site: &mut Site<'_>, step: Step) -> Strike {
    let silent = matches!(step, Step::ReapUnsent | Step::ReapWritten);
    if silent {
        // Somebody to take over from.
        site.fleet.signal(ANALYZER, Signal::STOP);
    }
    if site.fleet.died(REACHED).await {
        note_death(site, of_step(step)).await;
    } else {
        site.complaints.push(format!("the step {} was not reached within {REACHED:?}", step.name()));
    }
    let began = Instant::now();
    sleep(site.dice.millis(50, 1_000)).await;
    if silent {
        site.fleet.signal(ANALYZER, Signal::CONT);
    }
    site.fleet.start(&[of_step(step)]).await;
    Strike { began, healed: Instant::now() }
}

/// Stopped beyond its lease with tasks at work; when it goes on, it has lost them.
pub(super) async fn zombie(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.fleet.signal(ANALYZER, Signal::STOP);
    sleep(site.dice.millis(4_500, 7_000)).await;
    site.fleet.signal(ANALYZER, Signal::CONT);
    Strike { began, healed: Instant::now() }
}

/// A second one works beside the first; then the first is stopped for a while, and comes back behind.
pub(super) async fn two_projectors(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.fleet.start(&[PROJECTOR]).await;
    sleep(site.dice.millis(500, 1_500)).await;
    site.fleet.signal(PROJECTOR, Signal::STOP);
    // Beyond the lease of what it has sent and not recorded, it is as good as dead.
    note_death(site, PROJECTOR).await;
    sleep(site.dice.millis(5_500, 8_000)).await;
    site.fleet.signal(PROJECTOR, Signal::CONT);
    let healed = Instant::now();
    sleep(site.dice.millis(500, 1_500)).await;
    site.fleet.terminate_first(PROJECTOR).await;
    Strike { began, healed }
}

pub(super) async fn terminate_all(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.fleet.terminate(|_| true).await;
    site.fleet.start(&[API, ANALYZER, ANALYZER, PROJECTOR]).await;
    Strike { began, healed: Instant::now() }
}

pub(super) async fn rolling_restart(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    for name in [PROJECTOR, ANALYZER, ANALYZER, API] {
        site.fleet.terminate_first(name).await;
        site.fleet.start(&[name]).await;
    }
    Strike { began, healed: Instant::now() }
}

/// The load itself is the fault.
pub(super) async fn wait(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    sleep(site.dice.millis(1_000, 2_000)).await;
    Strike { began, healed: Instant::now() }
}

/// The processes that models run in are killed, or hang, again and again.
pub(super) async fn strike_model_processes(site: &mut Site<'_>, signal: Signal) -> Strike {
    let began = Instant::now();
    let mut struck = 0;
    for _ in 0..6 {
        for child in children(site.fleet.pid(ANALYZER)) {
            send(child, signal);
            struck += 1;
        }
        sleep(site.dice.millis(100, 500)).await;
    }
    if struck == 0 {
        site.complaints.push("no model ran in a process of its own".to_owned());
    }
    Strike { began, healed: Instant::now() }
}

fn children(pid: u32) -> Vec<u32> {
    // Children are listed by the thread that started them.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Every role's clock says an hour less, from now on.
pub(super) async fn clock_back(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.clock.as_ref().expect("it can be set").set(-3_600);
    sleep(site.dice.millis(500, 1_000)).await;
    Strike { began, healed: Instant::now() }
}
