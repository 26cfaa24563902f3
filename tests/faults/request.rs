//! What callers ask for, drawn by chance. The data of each request carries a mark of its own, by which its tasks are known
//! wherever they turn up, whatever was answered.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::dice::Dice;
use crate::model_server::MANNERS;

/// What a request is known by.
pub(crate) type Mark = Uuid;

/// Lines of a batch.
pub(crate) const LINES: usize = 20;

pub(crate) const TEXTS: [&str; 6] = [
    "這是一個非常正面的測試語句，我很喜歡！",
    "蘋果公司在台灣設有研發中心，張三是其員工。",
    "It broke after a day and nobody answers.",
    "Angela Merkel met Tim Cook in Berlin.",
    "普通",
    "I love it",
];

/// Models beside those of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    None,
    /// A model server that answers badly.
    Rude,
    /// A model in a process of its own.
    Hosted,
}

/// What a caller may expect of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Completed,
    Failed,
    /// It has a deadline: completed, or failed for having waited beyond it.
    InTime,
    Any,
}

/// One request.
pub(crate) struct Request {
    pub(crate) mark: Mark,
    pub(crate) path: &'static str,
    pub(crate) key: Option<String>,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
    /// Tasks it is.
    pub(crate) lines: usize,
    /// Sent again, it is the same.
    pub(crate) repeatable: bool,
    pub(crate) expect: Expect,
    pub(crate) own_webhook: bool,
    pub(crate) then: Then,
}

/// What the caller does once it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    SendAgain,
    Cancel(Duration),
    /// Once it has failed, it is repeated, or given up.
    Redrive,
    Purge,
}

/// The next request.
pub(crate) fn draw(extra: Extra, webhook: &str, dice: &mut Dice) -> Request {
    let text = *dice.pick(&TEXTS);
    let roll = dice.below(1000);
    if extra != Extra::None && roll >= 700 {
        return extra_task(extra, text, dice);
    }
    match roll {
        0..40 => batch(dice),
        40..90 => anonymous(text, dice),
        90..240 => {
            let then = if dice.below(5) == 0 { Then::SendAgain } else { Then::Nothing };
            let key = Some(dice.uuid().to_string());
            Request { key, then, repeatable: true, ..anonymous(text, dice) }
        }
        240..290 => analyze("sentiment_analysis", false, webhook, dice),
        290..340 => analyze("nobody_serves_this", true, webhook, dice),
        340..370 => {
            let then = Then::Cancel(dice.millis(0, 30));
            Request { then, expect: Expect::Any, ..single("sentiment_analysis", text, dice) }
        }
        370..400 => {
            let deadline = ("expires_in_s", Value::from(1 + dice.below(2)));
            Request { expect: Expect::InTime, ..upload("sentiment_analysis", text, Some(deadline), dice) }
        }
        // Its answers are compared with a shadow's.
        400..440 => single("mood", text, dice),
        _ => single("sentiment_analysis", text, dice),
    }
}

/// The contract's upload, without id or key: it is not sent again.
pub(crate) fn anonymous(text: &str, dice: &mut Dice) -> Request {
    let mark = dice.uuid();
    let task_type = "named_entity_recognition";
    let body = json!({ "data": data(text, mark).to_string(), "task_type": task_type, "model_version": "v1.0" });
    Request {
        mark,
        path: "/api/data/upload",
        key: None,
        content_type: "application/json",
        body: body.to_string(),
        lines: 1,
        repeatable: false,
        expect: Expect::Completed,
        own_webhook: false,
        then: Then::Nothing,
    }
}

fn data(text: &str, mark: Mark) -> Value {
    json!({ "text": text, "mark": mark })
}

/// An upload under an id of the caller's own.
pub(crate) fn single(task_type: &str, text: &str, dice: &mut Dice) -> Request {
    upload(task_type, text, None, dice)
}

fn upload(task_type: &str, text: &str, more: Option<(&str, Value)>, dice: &mut Dice) -> Request {
    let request = anonymous("", dice);
    let version = if matches!(task_type, "rude" | "hosted" | "mood") { "v1" } else { "v1.0" };
    let mut body = json!({
        "data": data(text, request.mark).to_string(), "task_type": task_type, "model_version": version,
        "task_id": dice.uuid(),
    });
    if let Some((name, value)) = more {
        body[name] = value;
    }
    Request { body: body.to_string(), repeatable: true, ..request }
}

/// As the former back end sends it: whatever is wrong with the input becomes the failure of the task.
fn analyze(task_type: &str, document: bool, webhook: &str, dice: &mut Dice) -> Request {
    let request = anonymous("", dice);
    let data = match document {
        true => data("x", request.mark).to_string(),
        false => format!("no JSON at all {}", request.mark),
    };
    let body = json!({
        "task_id": dice.uuid(), "data": data, "task_type": task_type, "webhook_url": webhook,
        "webhook_secret": crate::receiver::OWN_SECRET,
    });
    let then = *dice.pick(&[Then::Redrive, Then::Purge, Then::Nothing, Then::Nothing, Then::Nothing]);
    Request {
        path: "/analyze",
        body: body.to_string(),
        repeatable: true,
        expect: Expect::Failed,
        own_webhook: true,
        then,
        ..request
    }
}

fn extra_task(extra: Extra, text: &str, dice: &mut Dice) -> Request {
    if extra == Extra::Hosted {
        // One whose process is killed three times is failed, and rightly so.
        return Request { expect: Expect::Any, ..single("hosted", text, dice) };
    }
    // A server that hangs holds up the others: few do.
    let manner = if dice.below(20) == 0 { "hang" } else { *dice.pick(&MANNERS[..5]) };
    let expect = match manner {
        // It may be asked beside one that hangs.
        "well" => Expect::Any,
        _ => Expect::Failed,
    };
    Request { expect, ..single("rude", manner, dice) }
}

/// Many lines at once, under a key.
pub(crate) fn batch(dice: &mut Dice) -> Request {
    let request = anonymous("", dice);
    let line = |number: usize, text: &str| {
        let data = json!({ "text": text, "mark": request.mark, "line": number });
        json!({ "data": data.to_string() }).to_string()
    };
    let lines: Vec<String> = (1..=LINES).map(|number| line(number, dice.pick::<&str>(&TEXTS))).collect();
    Request {
        path: "/api/data/upload/batch?task_type=sentiment_analysis&model_version=v1.0",
        key: Some(dice.uuid().to_string()),
        content_type: "application/x-ndjson",
        body: lines.join("\n"),
        lines: LINES,
        repeatable: true,
        ..request
    }
}

/// The mark and the line in a task's data; the line is 0 unless it came in a batch.
pub(crate) fn mark_in(data: &str) -> Option<(Mark, usize)> {
    let document: Value = match serde_json::from_str(data) {
        Ok(document @ Value::Object(_)) => document,
        _ => return Some((data.trim_matches('"').split(' ').next_back()?.parse().ok()?, 0)),
    };
    let line = document["line"].as_u64().and_then(|line| usize::try_from(line).ok()).unwrap_or(0);
    Some((document["mark"].as_str()?.parse().ok()?, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_carries_its_mark_in_the_data_of_each_task() {
        let mut dice = Dice::new(5);
        for extra in [Extra::None, Extra::Rude, Extra::Hosted] {
            for _ in 0..300 {
                let request = draw(extra, "http://receiver/", &mut dice);
                assert_eq!(request.body.lines().count(), request.lines);
                for (at, body) in request.body.lines().enumerate() {
                    let body: Value = serde_json::from_str(body).unwrap();
                    let line = if request.lines == 1 { 0 } else { at + 1 };
                    assert_eq!(mark_in(body["data"].as_str().unwrap()), Some((request.mark, line)), "{body}");
                }
            }
        }
        // As a table keeps what is no document.
        let mark = Uuid::from_u128(9);
        assert_eq!(mark_in(&format!("\"no JSON at all {mark}\"")), Some((mark, 0)));
        assert_eq!(mark_in("{\"text\":\"x\"}"), None);
    }
}
