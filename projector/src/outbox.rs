//! Announcements enter the outbox within the fold's transaction. When the sender has room they are written as leased by
//! this process and handed over after the commit, so that nobody has to read them back.
//!
//! The key of a row is the position of its event: an event that is folded again (a swap of the tables can take one
//! transaction back, see [`crate::rebuild`]) finds its announcement there, and nothing is announced twice.

use std::sync::Arc;

use insightforge_schema::event::now_us;
use serde::Serialize;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor};

use crate::announce::Announcement;
use crate::literal::inserts;
use crate::rows::{Hex, Kind, Table, Time};
use crate::webhook::{DUE, Delivery, LEASED, WebhookConfig, new_lease_token};

/// Ends an `INSERT` where rows may be there already.
const UNLESS_THERE: &str = " ON DUPLICATE KEY UPDATE webhook_outbox.id = webhook_outbox.id";

const OUTBOX: Table = Table {
    name: "webhook_outbox",
    columns: &[
        ("id", Kind::Number("BIGINT UNSIGNED")),
        ("endpoint", Kind::Text("VARCHAR(64)")),
        ("analysis_task_id", Kind::Number("BIGINT UNSIGNED")),
        ("url", Kind::Text("VARCHAR(2048)")),
        ("secret", Kind::Bytes),
        ("body", Kind::Document),
        ("state", Kind::Number("TINYINT UNSIGNED")),
        ("due_at", Kind::Time),
        ("lease_token", Kind::Number("BIGINT UNSIGNED")),
        ("attempts", Kind::Number("SMALLINT UNSIGNED")),
        ("created_at", Kind::Time),
        ("trace", Kind::Text("VARCHAR(55)")),
    ],
};

#[derive(Serialize)]
struct Row<'a>(
    u64,
    &'a str,
    u64,
    Option<&'a str>,
    Option<Hex<'a>>,
    &'a str,
    u8,
    Time,
    Option<u64>,
    u16,
    Time,
    Option<&'a str>,
);

/// Writes the rows; the deliveries are to be handed over once the transaction is committed. `leased` says that the sender
/// keeps room for them, and none may be there already; else those that are there stay as they are.
///
/// # Errors
/// What the server says.
pub(crate) async fn write(
    connection: &mut MySqlConnection,
    config: &WebhookConfig,
    announcements: Vec<Announcement>,
    leased: bool,
) -> Result<Vec<Delivery>, sqlx::Error> {
    let now_us = now_us();
    let lease_token = new_lease_token();
    let lease_ends_us = config.lease_ends_us(now_us);
    let (state, due_us, token) = if leased { (LEASED, lease_ends_us, Some(lease_token)) } else { (DUE, now_us, None) };
    let rows = announcements.iter().map(|it| {
        let body = std::str::from_utf8(&it.body).expect("a body is JSON, and JSON is UTF-8");
        let secret = it.sealed_secret.as_deref().map(Hex);
        let task = it.task.first.row_id();
        let (url, trace, now) = (it.url.as_deref(), it.trace.as_deref(), Time(now_us));
        Row(it.id, &it.endpoint, task, url, secret, body, state, Time(due_us), token, 0, now, trace)
    });
    for mut statement in inserts(&OUTBOX, "", rows) {
        if !leased {
            statement.push_str(UNLESS_THERE);
        }
        connection.execute(AssertSqlSafe(statement)).await?;
    }
    if !leased {
        return Ok(Vec::new());
    }
    Ok(announcements
        .into_iter()
        .map(|it| Delivery {
            id: it.id,
            endpoint: Arc::from(it.endpoint),
            url: it.url,
            sealed_secret: it.sealed_secret,
            task: it.task.id,
            body: it.body,
            trace: it.trace,
            attempts: 0,
            created_us: now_us,
            lease_token,
            lease_ends_us,
        })
        .collect())
}
