//! Announcements enter the outbox within the fold's transaction. When the sender has room they are written as leased by
//! this process and handed over after the commit, so that nobody has to read them back.
//!
//! The key of a row is the position of its event: an event that is folded again (a swap of the tables can take one
//! transaction back, see [`crate::rebuild`]) finds its announcement there, and nothing is announced twice.

use std::sync::Arc;

use insightforge_schema::event::now_us;
use serde::Serialize;
use sqlx::mysql::MySqlConnection;

use crate::announce::Announcement;
use crate::webhook::{DUE, Delivery, LEASED, WebhookConfig, new_lease_token};
use crate::write::put;

const INSERT: &str = "\
INSERT INTO webhook_outbox (id, endpoint, analysis_task_id, url, secret, body, state, due_at, lease_token, attempts, created_at)
SELECT id, endpoint, task, url, UNHEX(secret), body, state, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL due_us MICROSECOND,
    lease_token, 0, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL now_us MICROSECOND
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    id BIGINT UNSIGNED PATH '$[0]',
    endpoint VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[1]',
    task BIGINT UNSIGNED PATH '$[2]',
    url VARCHAR(2048) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[3]',
    secret VARCHAR(2048) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[4]',
    body LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[5]',
    state TINYINT UNSIGNED PATH '$[6]',
    due_us BIGINT PATH '$[7]',
    lease_token BIGINT UNSIGNED PATH '$[8]',
    now_us BIGINT PATH '$[9]'
)) new";

/// Ends [`INSERT`] where rows may be there already.
const UNLESS_THERE: &str = "ON DUPLICATE KEY UPDATE webhook_outbox.id = webhook_outbox.id";

#[derive(Serialize)]
struct Row<'a>(u64, &'a str, u64, Option<&'a str>, Option<String>, &'a str, u8, i64, Option<u64>, i64);

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
        let secret = it.sealed_secret.as_deref().map(hex::encode);
        let task = it.task.first.row_id();
        Row(it.id, &it.endpoint, task, it.url.as_deref(), secret, body, state, due_us, token, now_us)
    });
    if !leased {
        let statement = format!("{INSERT} {UNLESS_THERE}");
        put(connection, &statement, rows).await?;
        return Ok(Vec::new());
    }
    put(connection, INSERT, rows).await?;
    Ok(announcements
        .into_iter()
        .map(|it| Delivery {
            id: it.id,
            endpoint: Arc::from(it.endpoint),
            url: it.url,
            sealed_secret: it.sealed_secret,
            task: it.task.id,
            body: it.body,
            attempts: 0,
            lease_token,
            lease_ends_us,
        })
        .collect())
}
