//! The reasons in sentences, for people. Pure.

use chrono::{DateTime, SecondsFormat, Utc};

use super::rows::{Announcement, Rows};
use super::{End, Holder, NextAttempt, Queue, Stand, Why};
use crate::shape::TaskStatus;

/// The longest error that is repeated, in characters.
const ERROR_CHARS: usize = 300;
/// Analyzers named in a sentence.
const NAMED: usize = 3;

/// Says why a task is not done, or how it ended. `now` only decides whether a time is past.
pub(super) fn sentences(why: &Why, now: DateTime<Utc>) -> Vec<String> {
    let mut said = Vec::new();
    match why.stand {
        Stand::Queued => said.extend(why.queue.as_ref().map(waits)),
        Stand::Taken => said.push(taken(why.holder.as_ref(), now)),
        Stand::Running => said.push(runs(why, now)),
        Stand::Delayed => said.extend(why.next_attempt.as_ref().map(|next| delayed(why, next))),
        Stand::Ended => said.extend(why.end.as_ref().map(|end| ended(why, end))),
        Stand::Unknown => said.push(format!(
            "The journal does not answer now. By its row the task is {}, and more may have happened since.",
            why.status.as_str()
        )),
    }
    if let Some(deadline) =
        why.expires_at.filter(|_| matches!(why.stand, Stand::Queued | Stand::Taken | Stand::Delayed))
    {
        said.push(format!("It fails as expired when no attempt has begun by {}.", time(deadline)));
    }
    if let Some(error) = why.last_error.as_ref().filter(|_| why.status != TaskStatus::Cancelled) {
        let whose = if why.stand == Stand::Ended { "The error" } else { "The last error" };
        said.push(format!("{whose} was {}: {}", error.code, cut(&error.message)));
    }
    match (&why.remedy, why.stand) {
        (Some(remedy), Stand::Queued | Stand::Delayed) => {
            said.push(format!("No analyzer alive can take it: {remedy}."));
        }
        (None, Stand::Queued) => said.push(able(why)),
        _ => {}
    }
    if let Some(end) = &why.end {
        said.extend(afterwards(why, end));
    }
    said.extend(tables(&why.rows));
    said.extend(announcements(why));
    said
}

fn waits(queue: &Queue) -> String {
    let at_least = if queue.ahead_is_exact { "" } else { "at least " };
    let before = match queue.ahead {
        0 => "it is the next one".to_owned(),
        1 => format!("{at_least}one task is before it"),
        count => format!("{at_least}{count} tasks are before it"),
    };
    let mut text = format!("It waits on the lane {} in partition {}: {before}", queue.lane, queue.partition);
    text.push_str(&format!(", and {} are being worked on.", queue.in_flight));
    match (queue.per_second, queue.eta_s) {
        (Some(pace), Some(eta)) => {
            let about = if queue.ahead_is_exact { "about" } else { "no less than" };
            text.push_str(&format!(
                " {pace:.1} of them end in a second, so its turn is over in {about} {}.",
                span(eta)
            ));
        }
        (Some(pace), None) => text.push_str(&format!(" {pace:.1} of them ended in a second lately.")),
        (None, _) => text.push_str(" None of them has ended within the last minute."),
    }
    text
}

fn able(why: &Why) -> String {
    let names: Vec<&str> = why.analyzers.iter().take(NAMED).map(|server| server.name.as_str()).collect();
    let more = match why.analyzers.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match why.analyzers.len() {
        1 => format!("One analyzer can take it: {}.", names.join(", ")),
        count => format!("{count} analyzers can take it: {}{more}.", names.join(", ")),
    }
}

fn taken(holder: Option<&Holder>, now: DateTime<Utc>) -> String {
    match holder {
        Some(holder) => format!("{} has taken it and not begun yet{}.", holder.worker, lease(holder, now)),
        None => "An analyzer is about to begin it.".to_owned(),
    }
}

fn runs(why: &Why, now: DateTime<Utc>) -> String {
    let attempt = attempt(why.attempt, why.attempts_limit);
    let Some(holder) = &why.holder else { return format!("{attempt} runs.") };
    let since = holder.since.map_or_else(String::new, |since| format!(" since {}", time(since)));
    format!("{} works on {attempt}{since}{}.", holder.worker, lease(holder, now))
}

fn lease(holder: &Holder, now: DateTime<Utc>) -> String {
    let silent = holder.idle_ms.map(|idle| format!(", silent about it for {}", span(idle as f64 / 1e3)));
    let mut text = silent.unwrap_or_default();
    match holder.lease_ends_at {
        Some(ends) if ends > now => {
            text.push_str(&format!("; it loses the task at {} unless it shows itself", time(ends)))
        }
        Some(ends) => text.push_str(&format!("; its lease ended at {}, and another analyzer takes over", time(ends))),
        None => {}
    }
    if !holder.alive {
        text.push_str("; it has not been seen for 30 s, so it is probably gone");
    }
    text
}

fn delayed(why: &Why, next: &NextAttempt) -> String {
    let which = attempt(next.attempt, why.attempts_limit);
    let due = next.due_at.map_or_else(String::new, |due| format!(" at {}", time(due)));
    if next.overdue {
        return format!(
            "It waits for {which}, which was due{due}: no analyzer runs that would bring it back to its lane."
        );
    }
    format!("It waits for {which}, due{due}.")
}

fn ended(why: &Why, end: &End) -> String {
    let at = end.at.map_or_else(String::new, |at| format!(" at {}", time(at)));
    let after = match why.attempt {
        0 => " before any attempt".to_owned(),
        1 => " in its first attempt".to_owned(),
        attempt => format!(" in attempt {attempt}"),
    };
    match why.status {
        TaskStatus::Completed => format!("It is done: {} answered{at}{after}.", why.model_version),
        TaskStatus::Cancelled => {
            let reason = why.last_error.as_ref().map_or("", |error| error.message.as_str());
            format!("It was cancelled{at}: {}", cut(reason))
        }
        _ => format!("It failed for good{at}{after}."),
    }
}

fn afterwards(why: &Why, end: &End) -> Option<String> {
    if let Some(task) = &end.redriven_as {
        return Some(format!("It is repeated as task {task}."));
    }
    let task = why.task_id;
    end.dead_letter.then(|| format!("It is a dead letter; `POST /api/dead-letters/{task}/redrive` repeats it."))
}

fn tables(rows: &Rows) -> Option<String> {
    if !rows.answer {
        return Some("The tables do not answer now; nothing is lost, they catch up.".to_owned());
    }
    let behind = rows.behind_events.filter(|behind| *behind > 0)?;
    let shown = match &rows.status {
        None => "the task is not in them yet".to_owned(),
        Some(status) => format!("its row says {status}"),
    };
    Some(format!("The tables are {behind} events of its partition behind the journal; {shown}."))
}

fn announcements(why: &Why) -> Vec<String> {
    if why.end.is_none() {
        return Vec::new();
    }
    match &why.webhooks {
        Some(webhooks) if webhooks.is_empty() && why.rows.status.as_deref() == Some(why.status.as_str()) => {
            vec!["No webhook was to be told.".to_owned()]
        }
        Some(webhooks) => webhooks.iter().map(announcement).collect(),
        None => Vec::new(),
    }
}

fn announcement(of: &Announcement) -> String {
    let answer = match (of.last_status_code, &of.last_error) {
        (Some(code), _) => format!(", last answer {code}"),
        (None, Some(error)) => format!(", last error: {}", cut(error)),
        (None, None) => String::new(),
    };
    let at = |at: Option<DateTime<Utc>>| at.map_or_else(String::new, |at| format!(" at {}", time(at)));
    let tries = if of.attempts == 1 { "1 attempt".to_owned() } else { format!("{} attempts", of.attempts) };
    match of.state {
        "delivered" => format!("Webhook {} was delivered{} after {tries}.", of.endpoint, at(of.finished_at)),
        "sending" => format!("Webhook {} is being sent{answer}.", of.endpoint),
        "given_up" => format!("Webhook {} was given up{} after {tries}{answer}.", of.endpoint, at(of.finished_at)),
        _ => format!("Webhook {} is next tried{} after {tries}{answer}.", of.endpoint, at(of.due_at)),
    }
}

fn attempt(number: u32, limit: Option<u32>) -> String {
    limit.map_or_else(|| format!("attempt {number}"), |limit| format!("attempt {number} of {limit}"))
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn span(seconds: f64) -> String {
    match seconds {
        short if short < 120.0 => format!("{short:.1} s"),
        minutes if minutes < 7_200.0 => format!("{:.0} min", minutes / 60.0),
        hours => format!("{:.1} h", hours / 3_600.0),
    }
}

/// On one line, not at any length, without control characters: the text is a stranger's.
fn cut(text: &str) -> String {
    let mut short: String =
        text.chars().take(ERROR_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(ERROR_CHARS).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::why::{LastError, Server};

    fn at(text: &str) -> Option<DateTime<Utc>> {
        Some(DateTime::parse_from_rfc3339(text).unwrap().to_utc())
    }

    fn now() -> DateTime<Utc> {
        at("2026-11-25T12:00:00Z").unwrap()
    }

    fn why(stand: Stand, status: TaskStatus) -> Why {
        Why {
            task_id: "018f4a3e-9c1d-7b6a-8f00-3c5d2e1f0a9b".parse().unwrap(),
            status,
            stand,
            sentences: Vec::new(),
            task_type: "acting".to_owned(),
            model_version: "v1".to_owned(),
            position: "0:1".to_owned(),
            submitted_at: None,
            expires_at: None,
            attempt: 1,
            attempts_limit: Some(3),
            last_error: None,
            queue: None,
            holder: None,
            next_attempt: None,
            end: None,
            analyzers: Vec::new(),
            remedy: None,
            rows: Rows { answer: true, status: None, behind_events: Some(0), folded_at: None },
            webhooks: None,
        }
    }

    fn queue(ahead: u64, exact: bool, pace: Option<f64>, eta: Option<f64>) -> Option<Queue> {
        Some(Queue {
            lane: "acting:v1".to_owned(),
            partition: 3,
            ahead,
            ahead_is_exact: exact,
            waiting: ahead + 1,
            in_flight: 2,
            per_second: pace,
            eta_s: eta,
            eta_at: None,
        })
    }

    fn holder(ends: &str, alive: bool) -> Option<Holder> {
        Some(Holder {
            worker: "a".to_owned(),
            alive,
            since: at("2026-11-25T11:59:50Z"),
            idle_ms: Some(1_100),
            lease_ms: Some(15_000),
            lease_ends_at: at(ends),
        })
    }

    fn said(why: &Why) -> String {
        sentences(why, now()).join(" ")
    }

    #[test]
    fn a_waiting_task_is_told_its_place_its_turn_and_who_can_take_it() {
        let server = Server { name: "a".to_owned(), in_flight: 0, last_read_at: None, seen_at: None };
        let mut waiting = why(Stand::Queued, TaskStatus::Pending);
        waiting.queue = queue(41, true, Some(12.5), Some(3.5));
        waiting.analyzers = vec![server];
        assert_eq!(
            said(&waiting),
            "It waits on the lane acting:v1 in partition 3: 41 tasks are before it, and 2 are being worked on. \
             12.5 of them end in a second, so its turn is over in about 3.5 s. One analyzer can take it: a."
        );
        waiting.queue = queue(10_000, false, Some(1.0), Some(10_003.0));
        assert!(
            said(&waiting).contains("at least 10000 tasks are before it")
                && said(&waiting).contains("no less than 2.8 h")
        );
        (waiting.queue, waiting.analyzers) = (queue(0, true, None, None), Vec::new());
        waiting.remedy = Some("start one".to_owned());
        assert!(
            said(&waiting)
                .ends_with("None of them has ended within the last minute. No analyzer alive can take it: start one.")
        );
    }

    #[test]
    fn a_running_task_is_told_its_holder_and_when_that_one_loses_it() {
        let mut running = why(Stand::Running, TaskStatus::Processing);
        running.holder = holder("2026-11-25T12:00:13.9Z", true);
        assert_eq!(
            said(&running),
            "a works on attempt 1 of 3 since 2026-11-25T11:59:50.000Z, silent about it for 1.1 s; \
             it loses the task at 2026-11-25T12:00:13.900Z unless it shows itself."
        );
        running.holder = holder("2026-11-25T11:59:59Z", false);
        let gone = said(&running);
        assert!(gone.contains("its lease ended at") && gone.contains("probably gone"), "{gone}");
        running.stand = Stand::Taken;
        assert!(said(&running).starts_with("a has taken it and not begun yet"));
    }

    #[test]
    fn a_delayed_task_is_told_its_next_attempt_and_the_last_error() {
        let mut delayed = why(Stand::Delayed, TaskStatus::Pending);
        delayed.next_attempt = Some(NextAttempt { attempt: 2, due_at: at("2026-11-25T12:00:03Z"), overdue: false });
        delayed.last_error = Some(LastError { code: "timeout".to_owned(), message: "late\u{1b}[2J".to_owned() });
        assert_eq!(
            said(&delayed),
            "It waits for attempt 2 of 3, due at 2026-11-25T12:00:03.000Z. The last error was timeout: late\u{fffd}[2J"
        );
        delayed.next_attempt.as_mut().unwrap().overdue = true;
        assert!(said(&delayed).contains("no analyzer runs that would bring it back"));
    }

    #[test]
    fn an_ended_task_is_told_how_it_ended_and_who_was_told_of_it() {
        let mut failed = why(Stand::Ended, TaskStatus::Failed);
        failed.end = Some(End { at: at("2026-11-25T11:00:00Z"), dead_letter: true, redriven_as: None });
        failed.attempt = 3;
        failed.last_error = Some(LastError { code: "timeout".to_owned(), message: "late".to_owned() });
        failed.rows = Rows { answer: true, status: None, behind_events: Some(7), folded_at: None };
        failed.webhooks = Some(vec![Announcement {
            endpoint: "default".to_owned(),
            state: "due",
            attempts: 1,
            due_at: at("2026-11-25T12:05:00Z"),
            finished_at: None,
            last_status_code: Some(503),
            last_error: None,
            last_attempt_at: None,
        }]);
        assert_eq!(
            said(&failed),
            "It failed for good at 2026-11-25T11:00:00.000Z in attempt 3. The error was timeout: late \
             It is a dead letter; `POST /api/dead-letters/018f4a3e-9c1d-7b6a-8f00-3c5d2e1f0a9b/redrive` repeats it. \
             The tables are 7 events of its partition behind the journal; the task is not in them yet. \
             Webhook default is next tried at 2026-11-25T12:05:00.000Z after 1 attempt, last answer 503."
        );
        let mut done = why(Stand::Ended, TaskStatus::Completed);
        done.end = Some(End { at: None, dead_letter: false, redriven_as: None });
        done.rows = Rows::default();
        assert_eq!(
            said(&done),
            "It is done: v1 answered in its first attempt. The tables do not answer now; nothing is lost, they catch up."
        );
        done.rows =
            Rows { answer: true, status: Some("completed".to_owned()), behind_events: Some(0), folded_at: None };
        done.webhooks = Some(Vec::new());
        assert!(said(&done).ends_with("No webhook was to be told."));
        let mut cancelled = why(Stand::Ended, TaskStatus::Cancelled);
        cancelled.end = Some(End { at: None, dead_letter: false, redriven_as: Some("x".to_owned()) });
        cancelled.last_error = Some(LastError { code: "cancelled".to_owned(), message: "not needed".to_owned() });
        assert_eq!(said(&cancelled), "It was cancelled: not needed It is repeated as task x.");
    }
}
