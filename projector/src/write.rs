//! Writes folded rows, many in one statement.
//!
//! The rows of a statement travel as one JSON parameter that the server unfolds (`JSON_TABLE`: MySQL 8, MariaDB 10.6): a
//! statement is prepared once, whatever the number of rows. Every function here takes the suffix of the tables' names, so
//! that a rebuild loads its fresh tables through the same code.

use insightforge_schema::event::{Change, Event};
use insightforge_schema::task::{IllegalEvent, Task};
use serde::Serialize;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Row};

use crate::document::document;
use crate::fold::Rows;

/// The most JSON text of one statement, in bytes; well below the smallest usual `max_allowed_packet` (16 MiB). A single
/// row may be larger.
const MAX_JSON_BYTES: usize = 4 << 20;

/// Microseconds since 1970-01-01 UTC as a `DATETIME(6)`.
fn at(column: &str) -> String {
    format!("TIMESTAMP'1970-01-01 00:00:00' + INTERVAL {column} MICROSECOND")
}

/// The tables of one projection.
#[derive(Debug, Clone)]
pub struct Tables {
    insert_tasks: String,
    update_tasks: String,
    insert_results: String,
    insert_logs: String,
    insert_batches: String,
    insert_faults: String,
}

const ID: &str = "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin";
const TEXT: &str = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// The columns of a task that later events change, with their types: shared by insert and update.
fn changing() -> String {
    format!(
        "id BIGINT UNSIGNED PATH '$[0]', model_version VARCHAR(64) {TEXT} PATH '$[1]',
        status VARCHAR(16) {TEXT} PATH '$[2]', attempt SMALLINT UNSIGNED PATH '$[3]',
        worker VARCHAR(255) {TEXT} PATH '$[4]', error_code VARCHAR(64) {TEXT} PATH '$[5]',
        error_message TEXT {TEXT} PATH '$[6]', redriven_as {ID} PATH '$[7]', dead_lettered TINYINT PATH '$[8]',
        last_n BIGINT UNSIGNED PATH '$[9]', started_us BIGINT PATH '$[10]', finished_us BIGINT PATH '$[11]',
        updated_us BIGINT PATH '$[12]'"
    )
}

impl Tables {
    /// The tables whose names end in `suffix`: empty for those that are read.
    #[must_use]
    pub fn new(suffix: &str) -> Self {
        Self {
            insert_tasks: insert_tasks(suffix),
            update_tasks: update_tasks(suffix),
            insert_results: format!(
                "INSERT INTO analysis_results{suffix} (id, analysis_task_id, result_data, inference_us, created_at, updated_at)
                SELECT id, task, result, inference_us, {created}, {created} FROM JSON_TABLE(?, '$[*]' COLUMNS (
                id BIGINT UNSIGNED PATH '$[0]', task BIGINT UNSIGNED PATH '$[1]', result LONGTEXT {TEXT} PATH '$[2]',
                inference_us BIGINT UNSIGNED PATH '$[3]', at_us BIGINT PATH '$[4]')) new",
                created = at("at_us"),
            ),
            insert_logs: format!(
                "INSERT INTO task_logs{suffix} (id, analysis_task_id, event_type, description, details, created_at)
                SELECT id, task, event_type, description, details, {created} FROM JSON_TABLE(?, '$[*]' COLUMNS (
                id BIGINT UNSIGNED PATH '$[0]', task BIGINT UNSIGNED PATH '$[1]', event_type VARCHAR(32) {TEXT} PATH '$[2]',
                description VARCHAR(255) {TEXT} PATH '$[3]', details LONGTEXT {TEXT} PATH '$[4]', at_us BIGINT PATH '$[5]')) new",
                created = at("at_us"),
            ),
            insert_batches: format!(
                "INSERT INTO analysis_batches{suffix} (id, batch_id, tenant, accepted, rejected, created_at)
                SELECT id, batch_id, tenant, accepted, rejected, {created} FROM JSON_TABLE(?, '$[*]' COLUMNS (
                id BIGINT UNSIGNED PATH '$[0]', batch_id {ID} PATH '$[1]', tenant VARCHAR(64) {TEXT} PATH '$[2]',
                accepted INT UNSIGNED PATH '$[3]', rejected INT UNSIGNED PATH '$[4]', at_us BIGINT PATH '$[5]')) new",
                created = at("at_us"),
            ),
            insert_faults: format!(
                "INSERT INTO projection_faults{suffix} (id, task_id, event_type, reason, created_at)
                SELECT id, task_id, event_type, reason, {created} FROM JSON_TABLE(?, '$[*]' COLUMNS (
                id BIGINT UNSIGNED PATH '$[0]', task_id {ID} PATH '$[1]', event_type VARCHAR(64) {TEXT} PATH '$[2]',
                reason TEXT {TEXT} PATH '$[3]', at_us BIGINT PATH '$[4]')) new",
                created = at("at_us"),
            ),
        }
    }

    /// Writes everything but the checkpoint and the outbox.
    ///
    /// # Errors
    /// What the server says; the caller rolls back.
    pub async fn write(&self, connection: &mut MySqlConnection, rows: &Rows<'_>) -> Result<(), sqlx::Error> {
        put(connection, &self.insert_tasks, rows.new_tasks.iter().map(|(task, submitted)| new_task(task, submitted)))
            .await?;
        put(connection, &self.update_tasks, rows.changed_tasks.iter().map(changed)).await?;
        let results = rows.results.iter().map(|(event, completed)| {
            let (id, task) = (event.position.row_id(), event.first.row_id());
            (id, task, document(&completed.result), completed.inference_us, event.meta.at_us)
        });
        put(connection, &self.insert_results, results).await?;
        put(connection, &self.insert_logs, rows.logs.iter().map(|event| log(event))).await?;
        let batches = rows.batches.iter().filter_map(|event| match &event.change {
            Change::BatchReceived(batch) => Some((
                event.position.row_id(),
                event.task.to_string(),
                &event.meta.tenant,
                batch.accepted,
                batch.rejected,
                event.meta.at_us,
            )),
            _ => None,
        });
        put(connection, &self.insert_batches, batches).await?;
        put(connection, &self.insert_faults, rows.faults.iter().map(|(event, illegal)| fault(event, illegal))).await
    }
}

fn insert_tasks(suffix: &str) -> String {
    format!(
        "INSERT INTO analysis_tasks{suffix} (id, model_version, status, attempt, worker, error_code, error_message,
        redriven_as, dead_lettered, last_n, started_at, completed_at, updated_at, task_id, tenant, user_id, task_type,
        data_payload, batch_id, batch_line, retry_of, webhook_url, webhook_secret, created_at)
        SELECT id, model_version, status, attempt, worker, error_code, error_message, redriven_as, dead_lettered, last_n,
        {started}, {finished}, {updated}, task_id, tenant, user_id, task_type, data_payload, batch_id, batch_line, retry_of,
        webhook_url, UNHEX(webhook_secret), {created}
        FROM JSON_TABLE(?, '$[*]' COLUMNS ({changing}, task_id {ID} PATH '$[13]', tenant VARCHAR(64) {TEXT} PATH '$[14]',
        user_id BIGINT UNSIGNED PATH '$[15]', task_type VARCHAR(64) {TEXT} PATH '$[16]',
        data_payload LONGTEXT {TEXT} PATH '$[17]', batch_id {ID} PATH '$[18]', batch_line INT UNSIGNED PATH '$[19]',
        retry_of {ID} PATH '$[20]', webhook_url VARCHAR(2048) {TEXT} PATH '$[21]',
        webhook_secret VARCHAR(2048) {TEXT} PATH '$[22]', created_us BIGINT PATH '$[23]')) new",
        started = at("started_us"),
        finished = at("finished_us"),
        updated = at("updated_us"),
        created = at("created_us"),
        changing = changing(),
    )
}

fn update_tasks(suffix: &str) -> String {
    format!(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS ({changing})) new STRAIGHT_JOIN analysis_tasks{suffix} t ON t.id = new.id
        SET t.model_version = new.model_version, t.status = new.status, t.attempt = new.attempt, t.worker = new.worker,
        t.error_code = new.error_code, t.error_message = new.error_message, t.redriven_as = new.redriven_as,
        t.dead_lettered = new.dead_lettered, t.last_n = new.last_n, t.started_at = {started},
        t.completed_at = {finished}, t.updated_at = {updated}",
        started = at("new.started_us"),
        finished = at("new.finished_us"),
        updated = at("new.updated_us"),
        changing = changing(),
    )
}

/// The columns of [`changing`], in its order.
#[derive(Serialize)]
struct Changed<'t>(
    u64,
    &'t str,
    &'t str,
    u32,
    Option<&'t str>,
    Option<&'t str>,
    Option<&'t str>,
    Option<String>,
    u8,
    u64,
    Option<i64>,
    Option<i64>,
    i64,
);

fn changed(task: &Task) -> Changed<'_> {
    Changed(
        task.first.row_id(),
        &task.model_version,
        task.status.as_str(),
        task.attempt,
        task.worker.as_deref(),
        task.error.as_ref().map(|error| error.code.as_str()),
        task.error.as_ref().map(|error| error.message.as_str()),
        task.redriven_as.map(|id| id.to_string()),
        u8::from(task.dead_lettered),
        task.last_n,
        task.started_us,
        task.finished_us,
        task.updated_us,
    )
}

/// A whole row: [`Changed`] and what stays.
fn new_task(task: &Task, submitted: &insightforge_schema::event::Submitted) -> serde_json::Value {
    let webhook = submitted.webhook.as_ref();
    let mut row = serde_json::to_value(changed(task)).expect("plain columns can always be written");
    let stays = serde_json::json!([
        task.id.to_string(),
        task.tenant,
        submitted.user_id,
        task.task_type,
        document(&submitted.data),
        submitted.batch.map(|batch| batch.id.to_string()),
        submitted.batch.map(|batch| batch.line),
        submitted.retry_of.map(|id| id.to_string()),
        webhook.map(|webhook| &webhook.url),
        webhook.and_then(|webhook| webhook.sealed_secret.as_deref()).map(hex::encode),
        task.submitted_us,
    ]);
    if let (Some(row), serde_json::Value::Array(stays)) = (row.as_array_mut(), stays) {
        row.extend(stays);
    }
    row
}

/// What a log row says beside its columns. The documents have rows of their own.
#[derive(Serialize)]
struct Details<'e> {
    attempt: u32,
    actor: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'e str>,
    #[serde(flatten)]
    more: serde_json::Map<String, serde_json::Value>,
}

fn log(event: &Event) -> (u64, u64, &str, String, String, i64) {
    let (description, more) = say(event);
    let details =
        Details { attempt: event.meta.attempt, actor: &event.meta.actor, trace: event.meta.trace.as_deref(), more };
    let details = serde_json::to_string(&details).expect("writing to memory cannot fail, and every key is text");
    let (id, task) = (event.position.row_id(), event.first.row_id());
    (id, task, event.change.event_type(), description, details, event.meta.at_us)
}

/// An event for people, and its small facts.
fn say(event: &Event) -> (String, serde_json::Map<String, serde_json::Value>) {
    let attempt = event.meta.attempt;
    let (description, more) = match &event.change {
        Change::Submitted(it) => {
            (format!("submitted: {} {}", it.task_type, it.model_version), serde_json::json!({ "bytes": it.data.len() }))
        }
        Change::Processing(it) => (format!("attempt {attempt} began"), serde_json::json!({ "worker": it.worker })),
        Change::Completed(it) => (
            format!("completed by {} {}", it.task_type, it.model_version),
            serde_json::json!({ "inference_us": it.inference_us, "batch_size": it.batch_size }),
        ),
        Change::Failed(it) => (
            format!("failed: {}", it.code),
            serde_json::json!({ "code": it.code, "message": it.message, "permanent": it.permanent }),
        ),
        Change::RetryScheduled(it) => (
            format!("attempt {attempt} failed ({}); attempt {} follows", it.code, it.next_attempt),
            serde_json::json!(it),
        ),
        Change::Cancelled(it) => ("cancelled".to_owned(), serde_json::json!(it)),
        Change::DeadLettered(it) => ("put on the dead-letter list".to_owned(), serde_json::json!(it)),
        Change::Redriven(it) => (format!("repeated as {}", it.as_task), serde_json::json!(it)),
        Change::BatchReceived(_) | Change::Unknown(_) => (String::new(), serde_json::Value::Null),
    };
    let serde_json::Value::Object(more) = more else { return (cut(&description, 255), serde_json::Map::new()) };
    (cut(&description, 255), more)
}

fn fault(event: &Event, illegal: &IllegalEvent) -> (u64, String, String, String, i64) {
    let event_type = cut(event.change.event_type(), 64);
    (event.position.row_id(), event.task.to_string(), event_type, cut(&illegal.to_string(), 4_096), event.meta.at_us)
}

/// The first `most` characters.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// Runs `statement` over `rows`, as often as their size asks for.
pub(crate) async fn put<R: Serialize>(
    connection: &mut MySqlConnection,
    statement: &str,
    rows: impl Iterator<Item = R>,
) -> Result<(), sqlx::Error> {
    let mut json = Vec::new();
    for row in rows {
        json.push(if json.is_empty() { b'[' } else { b',' });
        serde_json::to_writer(&mut json, &row).map_err(|error| sqlx::Error::Encode(error.into()))?;
        if json.len() > MAX_JSON_BYTES {
            flush(connection, statement, &mut json).await?;
        }
    }
    if json.is_empty() { Ok(()) } else { flush(connection, statement, &mut json).await }
}

async fn flush(connection: &mut MySqlConnection, statement: &str, json: &mut Vec<u8>) -> Result<(), sqlx::Error> {
    json.push(b']');
    let text = String::from_utf8(std::mem::take(json)).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(AssertSqlSafe(statement)).bind(text).execute(connection).await?;
    Ok(())
}

/// Loads tasks by their row ids; those that have no row are absent.
///
/// # Errors
/// What the server says.
pub async fn load(connection: &mut MySqlConnection, suffix: &str, ids: &[u64]) -> Result<Vec<Task>, sqlx::Error> {
    let mut tasks = Vec::with_capacity(ids.len());
    let statement = format!(
        "SELECT t.* FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) wanted
        STRAIGHT_JOIN analysis_tasks{suffix} t ON t.id = wanted.id"
    );
    for chunk in ids.chunks(1_000) {
        let wanted = serde_json::to_string(chunk).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let rows = sqlx::query(AssertSqlSafe(&*statement)).bind(wanted).fetch_all(&mut *connection).await?;
        for row in rows {
            tasks.push(read_task(&row)?);
        }
    }
    Ok(tasks)
}

fn read_task(row: &sqlx::mysql::MySqlRow) -> Result<Task, sqlx::Error> {
    use insightforge_schema::event::Webhook;
    use insightforge_schema::id::position_of_row;
    use insightforge_schema::task::{Status, TaskError};
    let us = |column: &str| -> Result<Option<i64>, sqlx::Error> {
        Ok(row.try_get::<Option<chrono::NaiveDateTime>, _>(column)?.map(|at| at.and_utc().timestamp_micros()))
    };
    let parsed = |column: &str| -> Result<Option<_>, sqlx::Error> {
        let text: Option<String> = row.try_get(column)?;
        text.map(|text| text.parse()).transpose().map_err(|_| sqlx::Error::Decode(format!("{column} is no id").into()))
    };
    let status: String = row.try_get("status")?;
    let code: Option<String> = row.try_get("error_code")?;
    let message: Option<String> = row.try_get("error_message")?;
    let url: Option<String> = row.try_get("webhook_url")?;
    let sealed_secret: Option<Vec<u8>> = row.try_get("webhook_secret")?;
    let missing = |column: &str| sqlx::Error::Decode(format!("{column} is empty or unknown").into());
    Ok(Task {
        id: parsed("task_id")?.ok_or_else(|| missing("task_id"))?,
        first: position_of_row(row.try_get("id")?),
        last_n: row.try_get("last_n")?,
        tenant: row.try_get("tenant")?,
        task_type: row.try_get("task_type")?,
        model_version: row.try_get("model_version")?,
        webhook: url.map(|url| Webhook { url, sealed_secret }),
        status: Status::parse(&status).ok_or_else(|| missing("status"))?,
        attempt: u32::from(row.try_get::<u16, _>("attempt")?),
        worker: row.try_get("worker")?,
        error: code.map(|code| TaskError { code, message: message.unwrap_or_default() }),
        submitted_us: us("created_at")?.ok_or_else(|| missing("created_at"))?,
        started_us: us("started_at")?,
        finished_us: us("completed_at")?,
        updated_us: us("updated_at")?.ok_or_else(|| missing("updated_at"))?,
        dead_lettered: row.try_get("dead_lettered")?,
        redriven_as: parsed("redriven_as")?,
    })
}
