//! Nothing is lost, under every fault: the real program as processes on servers of their own, callers that send without
//! pause, a fault at a time that a seed draws, and an audit of everything that can be seen from outside.
//!
//! A run, in reading order:
//!
//! 1. [`site`] – an installation: [`servers`], a [`proxy`] before each of them, the roles as a [`fleet`], a [`receiver`].
//! 2. [`load`] – callers, in an open loop; [`dice`] draw what they send ([`request`]), and a [`ledger`] keeps what they know.
//! 3. [`faults`] – what strikes, and how it heals.
//! 4. [`collect`] – all comes to rest, and is written down: what callers were told, the [`journal`], tables, webhooks.
//! 5. [`audit`] – they must tell the same, and so says the program's own [`verify`]; [`recovery`] – how soon it was as before.
//! 6. [`table`] – a line a run.
//!
//! A few faults are tried by every test run; `bin/faults` tries all of them, again and again, with other seeds.
//! [`poison`] is a task that kills whoever works on it.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod audit;
mod clock;
mod collect;
mod dice;
mod disk;
mod doctor;
mod faults;
mod fleet;
mod journal;
mod ledger;
mod load;
mod long;
mod model_server;
#[path = "../shared/package.rs"]
#[allow(dead_code, reason = "shared with the tests of whole lives, which use more of it")]
mod package;
mod poison;
#[path = "../shared/ports.rs"]
mod ports;
#[path = "../shared/program.rs"]
#[allow(dead_code, reason = "shared with the tests of whole lives, which use more of it")]
mod program;
mod proxy;
mod receiver;
mod recovery;
#[path = "../shared/redis_cluster.rs"]
#[allow(dead_code, reason = "shared with the tests of the link, which use more of it")]
mod redis_cluster;
mod request;
mod run;
mod servers;
mod site;
mod table;
mod verify;

use load::Plan;
use request::Extra;
use run::run;
use site::Slot;

/// Small enough for every test run.
const SHORT: Plan = Plan { tasks: 400, rate: 150, extra: Extra::None };

async fn nothing_is_lost_when(names: &[&str], seed: u64) {
    let mut slot = Slot::new().await;
    println!("{}", table::HEAD);
    let (mut failed, mut tried) = (Vec::new(), 0);
    for fault in faults::named(names).unwrap_or_else(|unknown| panic!("there is no fault {unknown}")) {
        match run(&mut slot, &fault, seed, SHORT).await {
            Ok(outcome) => {
                println!("{outcome}\n{}", table::explain(&outcome));
                tried += 1;
                if !outcome.findings.passed() {
                    failed.push(fault.name);
                }
            }
            Err(impossible) => println!("NOT TRIED: {}: {}", fault.name, impossible.0),
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(tried, names.len(), "every one of {names:?} is tried, or nothing is known of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_roles_die_or_are_told_to_stop() {
    nothing_is_lost_when(&["kill-analyzer", "at-submit-stored", "at-finish-written"], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_servers_and_networks_fail() {
    nothing_is_lost_when(&["redis-kill", "redis-groups-destroyed", "database-kill"], 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_master_of_a_cluster_dies() {
    nothing_is_lost_when(&["cluster-failover-lagging"], 3).await;
}

/// Without a supply of time there would be nothing to run: `bin/faults` gives it.
#[test]
#[ignore = "runs for as long as bin/faults is told to"]
fn long_run() {
    long::run_all();
}
