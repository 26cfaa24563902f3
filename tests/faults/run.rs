//! One run: an installation, a load, a fault, its end, and the audit.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::audit::{Findings, judge};
use crate::collect::{collect, drain};
use crate::dice::Dice;
use crate::faults::{Fault, Kind, Strike, roles, strike};
use crate::fleet::{API, PROJECTOR};
use crate::ledger::{Accepted, Ledger};
use crate::load::Plan;
use crate::recovery::{Flow, Rates, Span, last_ended_s};
use crate::servers::MariaDb;
use crate::site::{Impossible, Site, Slot};
use crate::verify;

/// A line of the table.
pub(crate) struct Outcome {
    pub(crate) fault: String,
    pub(crate) seed: u64,
    pub(crate) findings: Findings,
    pub(crate) held_s: f64,
    /// From the end of the fault until as much is accepted and ends as is offered.
    pub(crate) full_rate_s: Option<f64>,
    /// What was offered, accepted and ended from then to the end of the load.
    pub(crate) afterwards: Rates,
    /// Events that were archived, and that left the stream.
    pub(crate) left_redis: (u64, u64),
    /// The last task accepted before the end of the fault had its outcome so long after it, …
    pub(crate) ended_s: f64,
    /// … and was announced so long after it.
    pub(crate) announced_s: f64,
}

/// Makes the run that a fault, a seed and a plan name.
pub(crate) async fn run(slot: &mut Slot, fault: &Fault, seed: u64, plan: Plan) -> Result<Outcome, Impossible> {
    let (folder, mut own, redis) = slot.prepare(fault.kind).await?;
    let mariadb: &mut MariaDb = own.as_mut().unwrap_or_else(|| slot.mariadb());
    let dice = Dice::new(seed).fork(&fault.name);
    let plan = Plan { extra: fault.kind.extra(), ..plan };
    let mut site = Site::open(fault.kind, dice.fork("fault"), folder.clone(), redis, mariadb).await;
    let outcome = perform(&mut site, fault, seed, plan, &dice).await;
    let drop_database = format!("DROP DATABASE {}", site.database);
    site.mariadb.say(&drop_database).await;
    site.redis.end().await;
    drop(site);
    if !outcome.findings.passed() {
        let kept = slot.keep(&folder, &format!("{}-{seed}", fault.name));
        eprintln!("the logs of {} with seed {seed} are kept in {}", fault.name, kept.display());
    }
    let _ = std::fs::remove_dir_all(&folder);
    Ok(outcome)
}

async fn perform(site: &mut Site<'_>, fault: &Fault, seed: u64, plan: Plan, dice: &Dice) -> Outcome {
    site.load.warm_up(plan, &mut dice.fork("warm-up")).await;
    if let Kind::At(step) = fault.kind {
        roles::doom(site, step).await;
    }
    let (healed, watch_healed) = watch::channel(None);
    let load = site.load.clone();
    let load = tokio::spawn(async move { load.run(plan, dice_of_load(seed), watch_healed).await });
    if !matches!(fault.kind, Kind::At(_)) {
        // Who is to die at a step does so in its own time.
        let length_ms = plan.tasks as u64 * 1_000 / u64::from(plan.rate);
        tokio::time::sleep(site.dice.millis(length_ms / 10, length_ms * 4 / 10)).await;
    }
    let strike = strike(fault.kind, site).await;
    let healed_at_us = now_us() - i64::try_from(strike.healed.elapsed().as_micros()).expect("it fits");
    healed.send_replace(Some(strike.healed));
    load.await.unwrap();

    drain(site).await;
    // Shadows are asked when nobody waits: what they said is in the journal now, and is folded yet.
    site.fleet.terminate(|role| role.name != PROJECTOR).await;
    let journal = drain(site).await;
    site.fleet.terminate(|_| true).await;
    let deliveries = site.receiver.deliveries();
    let mut seen = collect(site, journal, &deliveries).await;
    seen.complaints.append(&mut site.complaints);
    seen.complaints.append(&mut site.fleet.complaints);
    let spans = spans(&seen.ledger, &seen, healed_at_us, strike.healed);
    if fault.kind.spares_intake() && !goes_on(&spans, strike) {
        seen.complaints.push("no task was accepted and ended while the database was away".to_owned());
    }
    seen.complaints.extend(verify::complaint(&site.fleet.settings_of(API)).await);
    let findings = judge(&seen);
    let announced = announced(&seen.ledger, &deliveries, strike.healed);
    let by_webhook = fault.kind == Kind::ClockBack;
    let ended = if by_webhook { &announced } else { &spans };
    let flow = flow(&seen.ledger, ended, strike.healed);
    Outcome {
        fault: fault.name.clone(),
        seed,
        findings,
        held_s: (strike.healed - strike.began).as_secs_f64(),
        full_rate_s: flow.full_rate_s(),
        afterwards: flow.afterwards(),
        left_redis: site.left_redis,
        ended_s: last_ended_s(ended),
        announced_s: last_ended_s(&announced),
    }
}

/// What is sent depends on the seed alone, so that faults can be compared.
fn dice_of_load(seed: u64) -> Dice {
    Dice::new(seed).fork("load")
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_micros()).expect("it fits")
}

/// Seconds from `to`; below zero when `at` was before it.
fn seconds(at: Instant, to: Instant) -> f64 {
    if at >= to { (at - to).as_secs_f64() } else { -(to - at).as_secs_f64() }
}

/// From acceptance to the terminal event.
fn spans(ledger: &Ledger, seen: &crate::audit::Seen, healed_us: i64, healed: Instant) -> Vec<Span> {
    let span = |(task, accepted): (&uuid::Uuid, &Accepted)| {
        let ended_us = seen.journal.tasks.get(task).filter(|told| !told.ends().is_empty())?.ended_us;
        let ended_s = (ended_us - healed_us) as f64 / 1e6;
        Some(Span { accepted_s: seconds(accepted.at, healed), ended_s })
    };
    ledger.accepted.iter().filter_map(span).collect()
}

/// From acceptance to the first announcement.
fn announced(
    ledger: &Ledger,
    deliveries: &std::collections::HashMap<String, Vec<crate::receiver::Delivery>>,
    healed: Instant,
) -> Vec<Span> {
    let span = |(task, accepted): (&uuid::Uuid, &Accepted)| {
        let first = deliveries.get(&format!("msg_{}_default", task.simple()))?.first()?;
        Some(Span { accepted_s: seconds(accepted.at, healed), ended_s: seconds(first.at, healed) })
    };
    ledger.accepted.iter().filter_map(span).collect()
}

fn flow(ledger: &Ledger, ended: &[Span], healed: Instant) -> Flow {
    Flow {
        offered: ledger.offered.iter().map(|(at, tasks)| (seconds(*at, healed), *tasks)).collect(),
        accepted: ledger.accepted.values().map(|accepted| seconds(accepted.at, healed)).collect(),
        ended: ended.iter().map(|span| span.ended_s).collect(),
    }
}

/// Whether tasks were accepted and ended while the fault held.
fn goes_on(spans: &[Span], strike: Strike) -> bool {
    let began_s = -(strike.healed - strike.began).as_secs_f64();
    spans.iter().any(|span| span.accepted_s > began_s && span.ended_s > began_s && span.ended_s < 0.0)
}
