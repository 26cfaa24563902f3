//! Writes folded rows, many in one statement.
//!
//! New rows travel as literals (see [`crate::literal`]), which costs the servers least. Rows that change travel as one JSON
//! parameter that the server unfolds (`JSON_TABLE`: MySQL 8, MariaDB 10.6): an update then names many rows with values of
//! their own. Everything here takes the suffix of the tables' names, so that a rebuild uses the same code.

use insightforge_schema::task::Task;
use serde::Serialize;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::fold::Rows;
use crate::literal::inserts;
use crate::rows::{self, BATCHES, CHANGING, Column, FAULTS, Kind, LOGS, RESULTS, SHADOWS, TASKS, Table};

/// The most JSON text of one statement, in bytes; well below the smallest usual `max_allowed_packet` (16 MiB). A single
/// row may be larger.
const MAX_JSON_BYTES: usize = 4 << 20;

/// The tables of one projection.
#[derive(Debug, Clone)]
pub struct Tables {
    suffix: String,
    update_tasks: String,
}

impl Tables {
    /// The tables whose names end in `suffix`: empty for those that are read.
    #[must_use]
    pub fn new(suffix: &str) -> Self {
        Self { suffix: suffix.to_owned(), update_tasks: update(&TASKS, CHANGING, suffix) }
    }

    /// Writes everything but the checkpoint and the outbox.
    ///
    /// # Errors
    /// What the server says; the caller rolls back.
    pub async fn write(&self, connection: &mut MySqlConnection, rows: &Rows<'_>) -> Result<(), sqlx::Error> {
        let new_tasks = rows.new_tasks.iter().map(|(task, submitted)| rows::new(task, submitted));
        self.insert(connection, &TASKS, new_tasks).await?;
        put(connection, &self.update_tasks, rows.changed_tasks.iter().map(rows::changed)).await?;
        let results = rows.results.iter().map(|(event, completed)| rows::result(event, completed));
        self.insert(connection, &RESULTS, results).await?;
        let shadows = rows.shadows.iter().map(|(event, shadowed)| rows::shadow(event, shadowed));
        self.insert(connection, &SHADOWS, shadows).await?;
        self.insert(connection, &LOGS, rows.logs.iter().map(|event| rows::log(event))).await?;
        self.insert(connection, &BATCHES, rows.batches.iter().filter_map(|event| rows::batch(event))).await?;
        let faults = rows.faults.iter().map(|(event, illegal)| rows::fault(event, illegal));
        self.insert(connection, &FAULTS, faults).await
    }

    async fn insert<R: Serialize>(
        &self,
        connection: &mut MySqlConnection,
        table: &Table,
        rows: impl Iterator<Item = R>,
    ) -> Result<(), sqlx::Error> {
        for statement in inserts(table, &self.suffix, rows) {
            connection.execute(AssertSqlSafe(statement)).await?;
        }
        Ok(())
    }

    /// The statements, each with its parameter, that change tasks which had a row before.
    pub(crate) fn updates(&self, rows: &Rows<'_>) -> Vec<(String, String)> {
        let changed = texts(rows.changed_tasks.iter().map(rows::changed));
        changed.map(|json| (self.update_tasks.clone(), json)).collect()
    }
}

/// Updates the first columns, `id` aside.
fn update(table: &Table, first: usize, suffix: &str) -> String {
    let columns = &table.columns[..first];
    format!(
        "UPDATE {new} STRAIGHT_JOIN {name}{suffix} t ON t.id = new.id SET {set}",
        new = unfolded(columns),
        name = table.name,
        set = list(&columns[1..], |column| format!("t.{} = {}", column.0, value(column))),
    )
}

/// The parameter as a table.
fn unfolded(columns: &[Column]) -> String {
    let mut index = 0;
    let columns = list(columns, |(name, kind)| {
        let column = format!("{name} {} PATH '$[{index}]'", sql_type(*kind));
        index += 1;
        column
    });
    format!("JSON_TABLE(?, '$[*]' COLUMNS ({columns})) new")
}

/// The type of a column while it is on its way.
fn sql_type(kind: Kind) -> String {
    const TEXT: &str = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
    match kind {
        Kind::Number(sql_type) => sql_type.to_owned(),
        Kind::Text(sql_type) => format!("{sql_type} {TEXT}"),
        Kind::Id => "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin".to_owned(),
        Kind::Document => format!("LONGTEXT {TEXT}"),
        Kind::Time => "BIGINT".to_owned(),
        Kind::Bytes => format!("VARCHAR(2048) {TEXT}"),
    }
}

fn value((name, kind): &Column) -> String {
    match kind {
        Kind::Time => format!("TIMESTAMP'1970-01-01 00:00:00' + INTERVAL new.{name} MICROSECOND"),
        Kind::Bytes => format!("UNHEX(new.{name})"),
        _ => format!("new.{name}"),
    }
}

fn list(columns: &[Column], part: impl FnMut(&Column) -> String) -> String {
    columns.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// Runs `statement` over `rows`, as often as their size asks for.
pub(crate) async fn put<R: Serialize>(
    connection: &mut MySqlConnection,
    statement: &str,
    rows: impl Iterator<Item = R>,
) -> Result<(), sqlx::Error> {
    for json in texts(rows) {
        sqlx::query(AssertSqlSafe(statement)).bind(json).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The rows as JSON arrays, many in one.
fn texts<R: Serialize>(mut rows: impl Iterator<Item = R>) -> impl Iterator<Item = String> {
    std::iter::from_fn(move || {
        let mut json = Vec::new();
        while json.len() <= MAX_JSON_BYTES {
            let Some(row) = rows.next() else { break };
            json.push(if json.is_empty() { b'[' } else { b',' });
            serde_json::to_writer(&mut json, &row).expect("writing to memory cannot fail, and every key is text");
        }
        if json.is_empty() {
            return None;
        }
        json.push(b']');
        Some(String::from_utf8(json).expect("JSON is UTF-8"))
    })
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
