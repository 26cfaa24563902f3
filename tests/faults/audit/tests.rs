//! Every way to break a promise is tried on a sound run, and the audit must call it by its name.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::journal;
use crate::ledger::{Accepted, Asked, Letter};
use crate::request::Expect;

/// Completed.
const TASK: Uuid = Uuid::from_u128(7);
/// Failed, and repeated as the next.
const LETTER: Uuid = Uuid::from_u128(8);
const AGAIN: Uuid = Uuid::from_u128(9);
/// Their requests.
const MARK: Mark = Uuid::from_u128(70);
const BAD: Mark = Uuid::from_u128(80);

fn row(n: u64) -> u64 {
    n * 1_024
}

/// A run where all is well.
fn sound() -> Seen {
    let mut seen = Seen { clocks_are_right: true, ..Seen::default() };
    let said = json!({ "sentiment": "Positive", "score": 0.9 });
    seen.ledger.said.insert(("sentiment_analysis".to_owned(), "I love it".to_owned()), said.clone());
    accept(&mut seen, MARK, &[TASK], Expect::Completed, false);
    accept(&mut seen, BAD, &[LETTER], Expect::Failed, true);
    seen.ledger.accepted.insert(AGAIN, Accepted { at: Instant::now(), mark: BAD });
    seen.ledger.letters.insert(LETTER, Letter::RedrivenAs(AGAIN));
    let told = tell(&mut seen, TASK, MARK, &[(1, "submitted"), (2, "processing"), (3, "completed"), (4, "shadowed")]);
    told.asked.data = json!({ "text": "I love it", "mark": MARK }).to_string();
    told.result = Some(said.clone());
    told.shadows.push("v2".to_owned());
    let failed = [(5, "submitted"), (6, "processing"), (7, "failed"), (8, "dead_lettered"), (9, "redriven")];
    let told = tell(&mut seen, LETTER, BAD, &failed);
    told.redriven_as.push(AGAIN);
    told.asked.own_webhook = true;
    let told =
        tell(&mut seen, AGAIN, BAD, &[(10, "submitted"), (11, "processing"), (12, "failed"), (13, "dead_lettered")]);
    told.asked.own_webhook = true;
    told.asked.retry_of = Some(LETTER);
    for task in [LETTER, AGAIN] {
        let told = seen.journal.tasks.get_mut(&task).unwrap();
        told.error = Some(("bad_input".to_owned(), "no JSON".to_owned()));
        told.asked.data = format!("no JSON at all {BAD}");
    }
    seen.dead.insert(AGAIN);
    seen.results.insert(row(1), vec![said.clone()]);
    seen.shadows.insert(row(4));
    announce(&mut seen, TASK, "default", json!({ "status": "completed", "position": "0:3", "result": said }));
    for (task, position) in [(LETTER, "0:7"), (AGAIN, "0:12")] {
        let body = json!({
            "status": "failed", "position": position, "result": null, "error_code": "bad_input", "error_message": "no JSON",
        });
        announce(&mut seen, task, "default", body.clone());
        announce(&mut seen, task, "task", body);
    }
    seen
}

fn accept(seen: &mut Seen, mark: Mark, told: &[Uuid], expect: Expect, own_webhook: bool) {
    let asked = Asked { lines: told.len(), expect, own_webhook, told: told.to_vec(), in_doubt: false };
    seen.ledger.asked.insert(mark, asked);
    for task in told {
        seen.ledger.accepted.insert(*task, Accepted { at: Instant::now(), mark });
    }
}

/// Events in the journal, the history and the table.
fn tell<'s>(seen: &'s mut Seen, task: Uuid, mark: Mark, events: &[(u64, &str)]) -> &'s mut Told {
    let events: Vec<_> = events.iter().map(|(n, event_type)| (row(*n), (*event_type).to_owned())).collect();
    let task_row = events[0].0;
    for (event, event_type) in &events {
        seen.logs.insert(*event, Logged { task_row, event_type: event_type.clone() });
    }
    let asked = journal::Asked {
        mark: Some((mark, 0)),
        task_type: "sentiment_analysis".to_owned(),
        ..journal::Asked::default()
    };
    let told = Told { events, asked, ended_us: 1, attempts: 1, ..Told::default() };
    let status = told.ends().first().map_or("processing", |end| end).to_owned();
    seen.tasks.insert(task_row, Row { task, status, mark: Some((mark, 0)) });
    seen.journal.tasks.entry(task).insert_entry(told).into_mut()
}

fn announce(seen: &mut Seen, task: Uuid, endpoint: &str, mut body: Value) {
    body["task_id"] = task.to_string().into();
    body["task_type"] = "sentiment_analysis".into();
    let delivery = Announced { body: body.to_string().into(), at: Instant::now(), flaw: None };
    seen.webhooks.insert(format!("msg_{}_{endpoint}", task.simple()), vec![delivery]);
}

fn told(seen: &mut Seen, task: Uuid) -> &mut Told {
    seen.journal.tasks.get_mut(&task).unwrap()
}

fn asked(seen: &mut Seen, mark: Mark) -> &mut Asked {
    seen.ledger.asked.get_mut(&mark).unwrap()
}

fn row_of(seen: &mut Seen) -> &mut Row {
    seen.tasks.get_mut(&row(1)).unwrap()
}

fn log(seen: &mut Seen, n: u64) -> &mut Logged {
    seen.logs.get_mut(&row(n)).unwrap()
}

fn deliveries(seen: &mut Seen) -> &mut Vec<Announced> {
    seen.webhooks.get_mut(&format!("msg_{}_default", TASK.simple())).unwrap()
}

fn again(seen: &mut Seen) {
    let all = deliveries(seen);
    all.push(all[0].clone());
}

/// Says something else in the announcement.
fn say(seen: &mut Seen, name: &str, value: Value) {
    let delivery = &mut deliveries(seen)[0];
    let mut body: Value = serde_json::from_slice(&delivery.body).unwrap();
    body[name] = value;
    delivery.body = body.to_string().into();
}

/// A task more that nobody asked for, all of whose rows are there.
fn another(seen: &mut Seen, mark: Mark) {
    let extra = Uuid::from_u128(99);
    let said = seen.journal.tasks[&TASK].result.clone();
    let data = seen.journal.tasks[&TASK].asked.data.clone();
    let told = tell(seen, extra, mark, &[(20, "submitted"), (21, "processing"), (22, "completed")]);
    (told.result, told.asked.data) = (said.clone(), data);
    seen.results.insert(row(20), vec![said.clone().unwrap()]);
    announce(seen, extra, "default", json!({ "status": "completed", "position": "0:22", "result": said }));
}

#[test]
fn a_sound_run_passes() {
    assert!(judge(&sound()).passed(), "{:?}", judge(&sound()));
}

type Break = fn(&mut Seen);
type List = fn(&Findings) -> &Vec<String>;

fn each_is_found(list: List, breaks: &[Break]) {
    for (number, break_it) in breaks.iter().enumerate() {
        let mut seen = sound();
        break_it(&mut seen);
        let findings = judge(&seen);
        assert!(!list(&findings).is_empty() && !findings.passed(), "case {number}: {findings:?}");
    }
}

#[test]
fn what_is_lost_is_found() {
    each_is_found(
        |it| &it.lost,
        &[
            |it| it.journal.tasks.clear(),
            |it| it.tasks.clear(),
            |it| it.results.clear(),
            |it| it.webhooks.clear(),
            |it| _ = told(it, TASK).events.remove(0),
            // The second line of a batch.
            |it| asked(it, MARK).lines = 2,
            |it| told(it, LETTER).redriven_as.clear(),
            |it| _ = it.journal.tasks.remove(&AGAIN),
            |it| _ = it.ledger.letters.insert(AGAIN, Letter::Purged),
        ],
    );
}

#[test]
fn what_is_doubled_is_found() {
    each_is_found(
        |it| &it.doubled,
        &[
            |it| told(it, TASK).events.push((row(30), "completed".to_owned())),
            |it| told(it, TASK).events.push((row(30), "submitted".to_owned())),
            |it| it.ledger.asked.clear(),
            |it| it.results.get_mut(&row(1)).unwrap().push(Value::Null),
            |it| _ = it.results.insert(row(30), vec![Value::Null]),
            |it| _ = it.tasks.insert(row(30), it.tasks[&row(1)].clone()),
            |it| _ = it.logs.insert(row(30), it.logs[&row(1)].clone()),
            |it| _ = it.shadows.insert(row(30)),
            again,
            // A second task of one request, whatever was answered to it.
            |it| another(it, MARK),
            |it| {
                another(it, MARK);
                asked(it, MARK).told.clear();
                asked(it, MARK).in_doubt = true;
            },
            // A task of a request that was refused.
            |it| asked(it, MARK).told.clear(),
            // A task of a line that a request has not.
            |it| told(it, TASK).asked.mark = Some((MARK, 3)),
            |it| told(it, LETTER).events.push((row(30), "redriven".to_owned())),
            |it| told(it, LETTER).events.extend([(row(30), "purged".to_owned()), (row(31), "purged".to_owned())]),
            |it| told(it, TASK).asked.retry_of = Some(LETTER),
        ],
    );
}

#[test]
fn what_is_stuck_is_found() {
    each_is_found(
        |it| &it.stuck,
        &[|it| told(it, TASK).events.truncate(2), |it| it.left.push("one entry is pending".to_owned())],
    );
}

#[test]
fn what_is_wrong_in_the_tables_is_found() {
    each_is_found(
        |it| &it.wrong,
        &[
            |it| log(it, 2).event_type = "failed".to_owned(),
            |it| log(it, 2).task_row = row(5),
            |it| row_of(it).status = "failed".to_owned(),
            |it| row_of(it).task = LETTER,
            |it| row_of(it).mark = Some((BAD, 0)),
            |it| it.results.get_mut(&row(1)).unwrap()[0]["score"] = json!(0.8),
            |it| it.shadows.clear(),
            |it| it.complaints.push("anything".to_owned()),
            |it| it.ledger.complaints.push("anything".to_owned()),
            |it| it.journal.gaps.push("anything".to_owned()),
        ],
    );
}

#[test]
fn what_is_wrong_with_the_work_itself_is_found() {
    each_is_found(
        |it| &it.wrong,
        &[
            // The result of another text, everywhere the same.
            |it| {
                let other = json!({ "sentiment": "Negative", "score": 0.7 });
                told(it, TASK).result = Some(other.clone());
                it.results.insert(row(1), vec![other.clone()]);
                say(it, "result", other);
            },
            |it| it.ledger.said.clear(),
            |it| told(it, TASK).attempts = 4,
            |it| {
                let told = told(it, TASK);
                (told.asked.expires_us, told.began_us) = (Some(1_000), 1_001);
            },
            |it| told(it, LETTER).error = Some(("expired".to_owned(), "no JSON".to_owned())),
            |it| asked(it, MARK).expect = Expect::Failed,
            |it| asked(it, BAD).expect = Expect::InTime,
            |it| told(it, TASK).shadows.push("v2".to_owned()),
            |it| told(it, LETTER).shadows.push("v2".to_owned()),
            |it| it.ledger.accepted.get_mut(&TASK).unwrap().mark = BAD,
            // A caller was told of another task than there is.
            |it| asked(it, MARK).told = vec![LETTER],
            |it| _ = it.ledger.cancels.insert(TASK, Some(200)),
            |it| _ = it.ledger.cancels.insert(TASK, Some(500)),
            |it| cancelled(it, None),
            |it| cancelled(it, Some(409)),
        ],
    );
    let mut seen = sound();
    cancelled(&mut seen, Some(200));
    assert!(judge(&seen).passed(), "{:?}", judge(&seen));
}

/// The task was cancelled instead, and so it stands everywhere.
fn cancelled(seen: &mut Seen, answer: Option<u16>) {
    let told = told(seen, TASK);
    told.events.truncate(3);
    told.events[2].1 = "cancelled".to_owned();
    (told.result, told.shadows) = (None, Vec::new());
    asked(seen, MARK).expect = Expect::Any;
    log(seen, 3).event_type = "cancelled".to_owned();
    seen.logs.remove(&row(4));
    seen.shadows.clear();
    seen.results.clear();
    row_of(seen).status = "cancelled".to_owned();
    say(seen, "status", json!("failed"));
    say(seen, "error_code", json!("cancelled"));
    say(seen, "result", Value::Null);
    if let Some(answer) = answer {
        seen.ledger.cancels.insert(TASK, Some(answer));
    }
}

#[test]
fn what_is_wrong_with_dead_letters_is_found() {
    each_is_found(
        |it| &it.wrong,
        &[
            |it| _ = it.dead.insert(TASK),
            |it| _ = it.dead.insert(LETTER),
            |it| it.dead.clear(),
            |it| _ = told(it, AGAIN).events.pop(),
            |it| told(it, AGAIN).events.push((row(30), "purged".to_owned())),
            |it| told(it, AGAIN).asked.retry_of = None,
            |it| told(it, AGAIN).asked.data.push('!'),
        ],
    );
}

#[test]
fn what_is_wrong_with_announcements_is_found() {
    each_is_found(
        |it| &it.wrong,
        &[
            |it| say(it, "status", json!("failed")),
            |it| say(it, "task_id", json!(LETTER)),
            |it| say(it, "result", json!({ "sentiment": "Positive", "score": 0.8 })),
            |it| say(it, "position", json!("0:2")),
            |it| say(it, "task_type", json!("mood")),
            |it| told(it, LETTER).error = Some(("bad_input".to_owned(), "another".to_owned())),
            |it| told(it, LETTER).error = Some(("timeout".to_owned(), "no JSON".to_owned())),
            |it| deliveries(it)[0].flaw = Some("it is not signed".to_owned()),
            |it| told(it, LETTER).asked.own_webhook = false,
            |it| {
                again(it);
                deliveries(it)[1].body = "{}".into();
            },
        ],
    );
}

#[test]
fn an_announcement_may_come_again_when_its_attempt_was_in_doubt_as_a_projector_died_and_once_a_death() {
    let ms = Duration::from_millis;
    let id = format!("msg_{}_default", TASK.simple());
    // The first was taken at 10 s.
    type Case = (&'static [u64], bool, &'static [u64], usize, usize);
    let cases: [Case; 9] = [
        // No death.
        (&[], false, &[11_000], 0, 1),
        // Just before a death, and just after.
        (&[10_100], false, &[11_000], 1, 0),
        (&[9_500], false, &[11_000], 1, 0),
        // Recorded when the projector died.
        (&[10_100], true, &[11_000], 0, 1),
        // Long before, and long after.
        (&[19_000], false, &[20_000], 0, 1),
        (&[2_000], false, &[11_000], 0, 1),
        // Again before the death.
        (&[12_000], false, &[11_000], 0, 1),
        // One death, two repetitions.
        (&[10_100], false, &[11_000, 11_500], 1, 1),
        // Two deaths, two repetitions.
        (&[10_100, 11_600], false, &[11_000, 12_500], 2, 0),
    ];
    for (number, (deaths, recorded, repeats, repeated, doubled)) in cases.into_iter().enumerate() {
        let mut seen = sound();
        let begin = Instant::now();
        let all = deliveries(&mut seen);
        all[0].at = begin + ms(10_000);
        for at in repeats {
            let again = Announced { at: begin + ms(*at), ..all[0].clone() };
            all.push(again);
        }
        let recorded: HashSet<String> = recorded.then(|| id.clone()).into_iter().collect();
        seen.deaths = deaths.iter().map(|at| Death { at: begin + ms(*at), recorded: recorded.clone() }).collect();
        let findings = judge(&seen);
        assert_eq!((findings.repeated, findings.doubled.len()), (repeated, doubled), "case {number}: {findings:?}");
        assert!(findings.wrong.is_empty() && findings.lost.is_empty(), "case {number}: {findings:?}");
    }
}
