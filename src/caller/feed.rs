//! The journal's feed, read so that no event is missed and none comes twice, whatever happens to connections.

use std::time::Duration;

use insightforge_schema::id::TaskId;
use serde_json::Value;

use super::door::{Door, Failure};

/// How long the api may hold an answer back that has nothing to say; it has a limit of its own.
const WAIT: Duration = Duration::from_secs(25);
/// Events of one answer.
const PAGE: &str = "500";

/// A place in the feed, and what is wanted of what follows.
pub(super) struct Feed {
    task: Option<TaskId>,
    event_type: Option<String>,
    cursor: Cursor,
}

/// The last number that was read of each partition, as the api writes it: `1284.1300.1275.1290`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cursor(Vec<u64>);

impl Feed {
    /// Everything from a place on: `0`, `end`, or a cursor.
    pub(super) async fn open(door: &Door, event_type: Option<&str>, after: &str) -> Result<Self, Failure> {
        let cursor = match after {
            // The api knows how many partitions there are.
            "0" | "end" => {
                let end = Cursor::of(&ask(door, &[("after", "end"), ("limit", "1")], Duration::ZERO).await?)?;
                if after == "end" { end } else { Cursor(vec![0; end.0.len()]) }
            }
            after => Cursor::parse(after).ok_or_else(|| strange("the cursor"))?,
        };
        Ok(Self { task: None, event_type: event_type.map(str::to_owned), cursor })
    }

    /// What a task has behind it, and the feed of what follows. The history finds it without reading the whole journal.
    pub(super) async fn of_task(door: &Door, task: TaskId) -> Result<(Vec<Value>, Self), Failure> {
        let mut feed = Self::open(door, None, "end").await?;
        feed.task = Some(task);
        let (mut history, is_complete) = history(door, task).await?;
        if !is_complete {
            // Something may be missing behind the first; the feed has it all.
            history.truncate(1);
        }
        let last = history.last().and_then(position).ok_or_else(|| strange("the history"))?;
        feed.cursor.advance(last)?;
        Ok((history, feed))
    }

    /// What has come, at once or as soon as there is something; each event with the cursor that goes on behind it. Empty
    /// when nothing came for a while. After a failure the same call goes on where it was.
    pub(super) async fn next(&mut self, door: &Door, waits: bool) -> Result<Vec<Value>, Failure> {
        let after = self.cursor.to_string();
        let task = self.task.map(|task| task.to_string());
        let wait = if waits { WAIT } else { Duration::ZERO };
        let seconds = wait.as_secs().to_string();
        let mut query = vec![("after", after.as_str()), ("limit", PAGE), ("wait", &seconds)];
        query.extend(task.as_deref().map(|task| ("task", task)));
        query.extend(self.event_type.as_deref().map(|wanted| ("type", wanted)));
        let mut answer = ask(door, &query, wait).await?;
        let next = Cursor::of(&answer)?;
        let mut events = answer["events"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let mut cursor = self.cursor.clone();
        for event in &mut events {
            cursor.advance(position(event).ok_or_else(|| strange("a position"))?)?;
            event["cursor"] = cursor.to_string().into();
        }
        self.cursor = next;
        Ok(events)
    }
}

async fn ask(door: &Door, query: &[(&str, &str)], wait: Duration) -> Result<Value, Failure> {
    door.get("api/events", query, wait).await
}

/// Every event of a task so far, and whether none is missing between them.
async fn history(door: &Door, task: TaskId) -> Result<(Vec<Value>, bool), Failure> {
    let path = format!("api/tasks/{task}/events");
    let (mut events, mut is_complete, mut after) = (Vec::new(), true, 0);
    loop {
        let mut page = door.get_patiently(&path, &[("after", &after.to_string()), ("limit", "500")]).await?;
        events.extend(page["events"].as_array_mut().map(std::mem::take).unwrap_or_default());
        is_complete &= page["complete"] == true;
        match page["next"].as_u64() {
            Some(next) if next > after => after = next,
            _ => return Ok((events, is_complete)),
        }
    }
}

/// Partition and number of an event.
fn position(event: &Value) -> Option<(usize, u64)> {
    let (partition, n) = event["position"].as_str()?.split_once(':')?;
    Some((partition.parse().ok()?, n.parse().ok()?))
}

impl Cursor {
    fn of(answer: &Value) -> Result<Self, Failure> {
        answer["next"].as_str().and_then(Self::parse).ok_or_else(|| strange("the cursor"))
    }

    fn advance(&mut self, (partition, n): (usize, u64)) -> Result<(), Failure> {
        *self.0.get_mut(partition).ok_or_else(|| strange("a position"))? = n;
        Ok(())
    }

    fn parse(text: &str) -> Option<Self> {
        text.split('.').map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>().map(Self)
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

fn strange(what: &str) -> Failure {
    Failure::Refused { status: reqwest::StatusCode::OK, why: format!("{what} that the api gives is not understood") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cursor_is_read_and_written_as_the_api_does() {
        for text in ["0", "1284.1300.1275.1290"] {
            assert_eq!(Cursor::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "end", "1..2", "-1"] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
        assert_eq!(position(&json!({ "position": "3:1284" })), Some((3, 1_284)));
        assert_eq!(position(&json!({ "position": "x" })), None);
    }
}
