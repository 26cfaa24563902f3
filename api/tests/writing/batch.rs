//! Many tasks in one file.

use std::collections::BTreeSet;

use insightforge_schema::event::Change;
use insightforge_schema::id::TaskId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::door::{Answer, Door};

const PATH: &str = "/api/data/upload/batch";
const DEFAULTS: &str = "/api/data/upload/batch?task_type=sentiment_analysis&model_version=v1.0";

async fn send(door: &Door, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    Answer::of(door.post(path).header("Content-Type", content_type).body(body)).await
}

async fn lines(door: &Door, body: impl Into<reqwest::Body>) -> Answer {
    send(door, DEFAULTS, "application/x-ndjson", body).await
}

async fn csv(door: &Door, body: impl Into<reqwest::Body>) -> Answer {
    send(door, DEFAULTS, "text/csv", body).await
}

fn form(fields: &[(&str, &str)], file_name: &str, file: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes());
    }
    let head = format!("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{file_name}\"\r\n\r\n");
    body.extend(head.into_bytes());
    body.extend(file);
    body.extend(b"\r\n--b--\r\n");
    body
}

impl Answer {
    fn counts(&self) -> (u64, u64) {
        assert_eq!(self.status, 202, "{self:?}");
        (self.body["accepted"].as_u64().unwrap(), self.body["rejected"].as_u64().unwrap())
    }

    fn tasks(&self) -> Vec<(u64, TaskId)> {
        let tasks = self.body["tasks"].as_array().unwrap().iter();
        tasks.map(|task| (task["line"].as_u64().unwrap(), task["task_id"].as_str().unwrap().parse().unwrap())).collect()
    }
}

/// Counts in the closing events, in order.
async fn closings(door: &Door) -> Vec<(u32, u32)> {
    let events = door.events().await.into_iter();
    let closings = events.filter_map(|event| match event.change {
        Change::BatchReceived(batch) => Some((batch.accepted, batch.rejected)),
        _ => None,
    });
    closings.collect()
}

#[tokio::test]
async fn an_id_that_comes_twice_under_a_key_is_one_task_and_counts_as_one() {
    let door = Door::open().await;
    let line = json!({ "text": "四", "task_id": TaskId::new() }).to_string();
    for time in ["first", "again"] {
        let request =
            door.post(DEFAULTS).header("Content-Type", "application/x-ndjson").header("Idempotency-Key", "twice");
        let answer = Answer::of(request.body([line.clone(), line.clone(), line.clone()].join("\n"))).await;
        assert_eq!((answer.counts(), &answer.body["repeated"]), ((1, 0), &json!(2)), "{time}");
    }
    assert_eq!((door.submitted().await.len(), closings(&door).await), (1, vec![(1, 0)]));
}

#[tokio::test]
async fn good_lines_become_tasks_and_the_others_are_explained() {
    let door = Door::open().await;
    let id = TaskId::new();
    let body = [
        json!({ "data": "{\"text\":\"一\"}" }).to_string(),
        String::new(),
        json!({ "text": "二", "task_type": "named_entity_recognition", "user_id": 5 }).to_string(),
        "{\"text\":\"三\"".to_owned(),
        json!({ "text": "" }).to_string(),
        json!({ "text": "四", "task_id": id }).to_string(),
        json!({ "text": "四", "task_id": id }).to_string(),
        json!({ "text": "other", "task_id": id }).to_string(),
        json!({ "text": "五", "task_type": "unheard_of", "x": 1 }).to_string(),
        json!({ "text": "六", "data": "{}" }).to_string(),
    ];
    let answer = lines(&door, body.join("\r\n")).await;
    assert_eq!(answer.counts(), (3, 5));
    assert_eq!(answer.body["repeated"], 1);
    let batch: uuid::Uuid = answer.body["batch_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(answer.header("location"), Some(&*format!("/api/batches/{batch}")));
    let tasks = answer.tasks();
    assert_eq!(tasks.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 6, 7]);
    assert_eq!((tasks[2].1, tasks[3].1), (id, id));
    let errors = answer.body["errors"].as_array().unwrap();
    let mut errors: Vec<(u64, &Value)> = errors.iter().map(|e| (e["line"].as_u64().unwrap(), &e["errors"])).collect();
    errors.sort_by_key(|(line, _)| *line);
    assert_eq!(errors.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 5, 8, 9, 10]);
    assert!(errors[0].1["line"][0].as_str().unwrap().contains("column"));
    assert_eq!(errors[1].1["data"][0], "/text: must not be empty");
    assert!(errors[2].1["task_id"][0].as_str().unwrap().contains("other fields"));
    assert!(errors[3].1["task_type"].is_array() && errors[3].1["x"].is_array());
    assert!(errors[4].1["data"].as_array().unwrap().contains(&json!("is there twice")));
    let submitted = door.submitted().await;
    assert_eq!(submitted.len(), 3);
    for (task, it, _) in &submitted {
        let place = it.batch.unwrap();
        assert_eq!(place.id, batch);
        assert!(tasks.contains(&(u64::from(place.line), *task)));
    }
    let second = submitted.iter().find(|(_, it, _)| it.batch.unwrap().line == 3).unwrap();
    assert_eq!((second.1.task_type.as_str(), second.1.user_id), ("named_entity_recognition", Some(5)));
    assert_eq!(second.1.data, "{\"text\":\"二\"}");
    assert_eq!(closings(&door).await, [(3, 5)]);
}

#[tokio::test]
async fn a_csv_file_in_a_form_is_taken_with_the_forms_fields() {
    let door = Door::open().await;
    let fields = [("task_type", "sentiment_analysis"), ("model_version", "v2.0")];
    let file = "\u{feff}id,text,model_version\r\n1,\"很好, 真的\",\r\n2,,\r\n3,普通,v1.0\r\n";
    let body = form(&fields, "data.CSV", file.as_bytes());
    let answer = send(&door, PATH, "multipart/form-data; boundary=b", body).await;
    assert_eq!(answer.counts(), (2, 1));
    assert_eq!(answer.body["ignored_columns"], json!(["id"]));
    assert_eq!(answer.body["errors"][0]["line"], 3);
    let mut submitted = door.submitted().await;
    submitted.sort_by_key(|(_, it, _)| it.batch.unwrap().line);
    assert_eq!(submitted[0].1.data, "{\"text\":\"很好, 真的\"}");
    assert_eq!((submitted[0].1.model_version.as_str(), submitted[1].1.model_version.as_str()), ("v2.0", "v1.0"));
}

#[tokio::test]
async fn a_file_of_no_use_is_refused_as_a_whole() {
    let door = Door::open().await;
    let good = "{\"text\":\"a\"}\n";
    lines(&door, "").await.is_problem(422, "body: holds no line");
    lines(&door, "\n \r\n\n").await.is_problem(422, "body: holds no line");
    csv(&door, "").await.is_problem(422, "body: holds no line");
    csv(&door, "text\n").await.is_problem(422, "body: holds no line");
    csv(&door, "name,age\nx,1\n").await.is_problem(422, "no column data and no column text; it has \"name\", \"age\"");
    csv(&door, &b"text\nfine\n\xa6n\xb9L\nfine\n"[..]).await.is_problem(422, "is not UTF-8: line 3, text: is no UTF-8");
    csv(&door, &b"te\xfft\nfine\n"[..]).await.is_problem(422, "the header row is no UTF-8");
    let mut broken = good.repeat(3).into_bytes();
    broken.extend(b"{\"text\":\"\xff\"}\n");
    lines(&door, broken).await.is_problem(422, "is not UTF-8: line 4");
    let none = lines(&door, "{\"text\":1}\nno json\n").await;
    none.is_problem(422, "no line is in order");
    assert_eq!(none.body["errors"]["line 1"], json!(["text: must be a string"]));
    let untyped = send(&door, PATH, "application/x-ndjson", good).await;
    untyped.is_problem(422, "line 1: task_type: is missing");

    let multipart = "multipart/form-data; boundary=b";
    let form = |name: &str, file: &str| form(&[("task_type", "sentiment_analysis")], name, file.as_bytes());
    send(&door, PATH, multipart, form("x.csv", "")).await.is_problem(422, "file: holds no line");
    send(&door, PATH, multipart, form("x.xlsx", "PK")).await.is_problem(422, "file: is neither CSV nor JSON Lines");
    send(&door, PATH, multipart, "--b--\r\n").await.is_problem(422, "file: is missing");
    let mut cut = form("x.csv", "text\nfine\n");
    cut.truncate(cut.len() - 9);
    send(&door, DEFAULTS, multipart, cut).await.is_problem(400, "the form cannot be read");
    send(&door, PATH, "application/json", good).await.is_problem(415, "application/x-ndjson, text/csv");
    send(&door, "/api/data/upload/batch?tsk=x", "text/csv", "text\na\n")
        .await
        .is_problem(422, "tsk: is not known here");
    assert_eq!(door.events().await.len(), 0, "nothing is half accepted");
}

#[tokio::test]
async fn a_large_file_is_stored_while_it_comes_in() {
    let door = Door::open().await;
    let text = "好".repeat(100);
    let count = 20_000_usize;
    let file = (0..count).map(|number| {
        if number % 1_000 == 999 { "broken\n".to_owned() } else { format!("{{\"text\":\"{number} {text}\"}}\n") }
    });
    let pieces = file.collect::<String>().into_bytes().chunks(50_000).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)));
    let answer = lines(&door, body).await;
    assert_eq!(answer.counts(), (19_980, 20));
    let tasks = answer.tasks();
    assert!(tasks.is_sorted_by_key(|(line, _)| *line));
    let ids: BTreeSet<TaskId> = tasks.iter().map(|(_, task)| *task).collect();
    assert_eq!(ids, door.submitted_ids().await);
    assert_eq!(closings(&door).await, [(19_980, 20)]);
}

#[tokio::test]
async fn a_line_far_into_the_file_that_is_no_text_is_rejected_alone() {
    let door = Door::open().await;
    let mut body = format!("{{\"text\":\"{}\"}}\n", "x".repeat(100_000)).repeat(12).into_bytes();
    body.extend(b"{\"text\":\"\xff\"}\n{\"text\":\"last\"}");
    let answer = lines(&door, body).await;
    assert_eq!(answer.counts(), (13, 1));
    assert_eq!(answer.body["errors"][0]["line"], 13);
    assert_eq!(door.submitted_ids().await.len(), 13);
}

#[tokio::test]
async fn the_same_file_under_the_same_key_is_the_same_batch() {
    let door = Door::open().await;
    let keyed = async |file: &str| {
        let request = door.post(DEFAULTS).header("Content-Type", "text/csv").header("Idempotency-Key", "monday");
        Answer::of(request.body(file.to_owned())).await
    };
    let first = keyed("text\na\nb\n\"\"\n").await;
    let again = keyed("text\na\nb\n\"\"\n").await;
    assert_eq!(first.counts(), (2, 1));
    assert_eq!(first.body, again.body);
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), (None, Some("true")));
    for other in ["text\na\nc\n", "text\na\nb\n\"\"\nd\n", "text\na\n"] {
        keyed(other).await.is_problem(422, "Idempotency-Key: came with another body before");
    }
    assert_eq!(door.submitted_ids().await.len(), 2);
    assert_eq!(closings(&door).await, [(2, 1)]);
    let single =
        Answer::of(door.post("/api/data/upload").header("Idempotency-Key", "monday").json(&crate::door::good()));
    assert_eq!(single.await.status, 202, "another route has keys of its own");
}

#[tokio::test]
async fn a_key_that_has_been_forgotten_names_another_batch() {
    let door = Door::open().await;
    let keyed = async |file: &str| {
        let request = door.post(DEFAULTS).header("Content-Type", "text/csv").header("Idempotency-Key", "nightly");
        Answer::of(request.body(file.to_owned())).await
    };
    let monday = keyed("text\na\nb\n").await;
    // As time does after a day.
    let kept: Vec<String> =
        door.link.query(redis::cmd("KEYS").arg(format!("{{{}:*:idem:*", door.keys.prefix()))).await.unwrap();
    assert_eq!(kept.len(), 1);
    door.link.query::<u64>(redis::cmd("DEL").arg(&kept)).await.unwrap();
    let tuesday = keyed("text\na\nc\nd\n").await;
    assert_eq!((monday.counts(), tuesday.counts()), ((2, 0), (3, 0)));
    assert_eq!(tuesday.header("idempotency-replayed"), None);
    assert_ne!(monday.body["batch_id"], tuesday.body["batch_id"]);
    assert_eq!(door.submitted_ids().await.len(), 5, "no task of the one is a task of the other");
    assert_eq!(closings(&door).await.len(), 2);
}

/// Begins a chunked upload of `file` under key `k` and gives the connection, with the upload unfinished.
async fn begin(door: &Door, key: Option<&str>, file: &[u8]) -> TcpStream {
    let mut connection = TcpStream::connect(door.addr).await.unwrap();
    let key = key.map_or_else(String::new, |key| format!("Idempotency-Key: {key}\r\n"));
    let head = format!(
        "POST {DEFAULTS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n{key}Transfer-Encoding: chunked\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    for piece in file.chunks(64 << 10) {
        connection.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
        connection.write_all(piece).await.unwrap();
        connection.write_all(b"\r\n").await.unwrap();
    }
    connection
}

async fn until(door: &Door, what: &str, fulfilled: impl AsyncFn(&Door) -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !fulfilled(door).await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn two_thousand_lines() -> Vec<u8> {
    let text = "x".repeat(1_000);
    (0..2_000).map(|number| format!("{{\"text\":\"{number} {text}\"}}\n")).collect::<String>().into_bytes()
}

#[tokio::test]
async fn a_broken_upload_is_completed_by_sending_it_again() {
    let door = Door::open().await;
    let file = two_thousand_lines();
    let connection = begin(&door, Some("k"), &file[..file.len() * 3 / 4]).await;
    until(&door, "lines are stored while the file comes in", async |door| door.submitted_ids().await.len() > 1_000)
        .await;

    let again = async || {
        let request = door.post(DEFAULTS).header("Content-Type", "application/x-ndjson").header("Idempotency-Key", "k");
        Answer::of(request.body(file.clone())).await
    };
    let meanwhile = again().await;
    meanwhile.is_problem(409, "is being uploaded at this moment");
    assert!(meanwhile.header("retry-after").is_some());

    drop(connection);
    until(&door, "the lease ends with the connection", async |_| again().await.status == 202).await;
    let answer = again().await;
    assert_eq!(answer.counts(), (2_000, 0));
    assert_eq!(answer.tasks().into_iter().map(|(_, task)| task).collect::<BTreeSet<_>>(), door.submitted_ids().await);
    assert_eq!(closings(&door).await, [(2_000, 0)]);
}

#[tokio::test]
async fn a_broken_upload_without_a_key_is_closed_with_what_had_come() {
    let door = Door::open().await;
    let file = two_thousand_lines();
    drop(begin(&door, None, &file[..file.len() * 3 / 4]).await);
    until(&door, "the batch is closed", async |door| !closings(door).await.is_empty()).await;
    let stored = door.submitted_ids().await.len();
    assert!((1_000..2_000).contains(&stored), "{stored}");
    assert_eq!(closings(&door).await, [(stored as u32, 0)]);

    let door = Door::open().await;
    drop(begin(&door, None, &file[..file.len() / 4]).await);
    // Another upload goes its whole way meanwhile.
    lines(&door, "{\"text\":\"a\"}").await.counts();
    assert_eq!(door.submitted_ids().await.len(), 1, "less than its head had come: nothing of it is stored");
}

#[tokio::test]
async fn a_process_that_is_stopped_ends_its_batches_in_order() {
    let door = Door::open().await;
    let file = two_thousand_lines();
    let mut connection = begin(&door, None, &file[..file.len() * 3 / 4]).await;
    until(&door, "lines are stored while the file comes in", async |door| door.submitted_ids().await.len() > 1_000)
        .await;
    door.stop();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"batch\":{"), "{answer:.200}");
    let stored = door.submitted_ids().await.len() as u32;
    assert_eq!(closings(&door).await, [(stored, 0)]);
    assert!(answer.contains(&format!("\"accepted\":{stored},")));
}

#[tokio::test]
async fn a_file_that_is_too_large_is_stopped_and_accounted_for() {
    let door = Door::open_with(|config| config.max_batch_bytes = 1_500_000).await;
    let file = two_thousand_lines();
    lines(&door, file.clone()).await.is_problem(413, "larger than 1500000 bytes");
    assert_eq!(door.events().await.len(), 0, "its length alone was enough to refuse it");
    let pieces: Vec<Vec<u8>> = file.chunks(50_000).map(<[u8]>::to_vec).collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)));
    let answer = lines(&door, body).await;
    answer.is_problem(413, "larger than 1500000 bytes");
    let stored = door.submitted_ids().await;
    assert!(stored.len() > 1_000);
    assert_eq!(answer.body["batch"]["accepted"], stored.len());
    assert_eq!(answer.body["batch"]["tasks"].as_array().unwrap().len(), stored.len());
    assert_eq!(closings(&door).await, [(stored.len() as u32, 0)]);
}

#[tokio::test]
async fn when_the_backlog_is_full_the_rest_of_a_file_is_not_taken_and_can_be_sent_again() {
    let door = Door::open_with(|config| config.max_backlog = 100).await;
    let file: String = (0..150).map(|number| format!("{{\"text\":\"{number}\"}}\n")).collect();
    let keyed = async || {
        let request = door.post(DEFAULTS).header("Content-Type", "application/x-ndjson").header("Idempotency-Key", "k");
        Answer::of(request.body(file.clone())).await
    };
    let answer = keyed().await;
    answer.is_problem(429, "as many tasks wait");
    assert_eq!((&answer.body["batch"]["accepted"], answer.header("retry-after")), (&json!(100), Some("2")));
    assert_eq!(closings(&door).await, [], "it is still open");
    for task in door.submitted_ids().await {
        assert_eq!(Answer::of(door.post(&format!("/api/tasks/{task}/cancel"))).await.status, 200);
    }
    until(&door, "there is room again", async |_| keyed().await.status == 202).await;
    assert_eq!(door.submitted_ids().await.len(), 150);
    assert_eq!(closings(&door).await, [(150, 0)]);
}
