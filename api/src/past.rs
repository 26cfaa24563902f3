//! What an ended task had asked for, long after its end.

use insightforge_archive::ReadError;
use insightforge_schema::event::{Change, Submitted, Webhook};
use insightforge_schema::id::Position;
use sqlx::Row;

use crate::app::App;
use crate::ask::ask;
use crate::problem::Problem;

/// What was asked for, from the journal or, where it does not have it, from the row.
pub(crate) async fn submitted(app: &App, first: Position) -> Result<Submitted, Problem> {
    let events = match app.journal.range(first.partition, first.n, Some(first.n), 1).await {
        Err(ReadError::Missing { .. } | ReadError::Archive(_)) => Vec::new(),
        events => events?,
    };
    match events.into_iter().next().map(|event| event.change) {
        Some(Change::Submitted(submitted)) => Ok(submitted),
        _ => from_row(app, first).await,
    }
}

async fn from_row(app: &App, first: Position) -> Result<Submitted, Problem> {
    let row = sqlx::query(
        "SELECT task_type, model_version, CAST(data_payload AS CHAR) AS data, user_id, webhook_url, webhook_secret
        FROM analysis_tasks WHERE id = ?",
    )
    .bind(first.row_id())
    .fetch_one(&app.pool);
    let row = ask(row).await?;
    let webhook_url: Option<String> = row.try_get("webhook_url")?;
    let sealed_secret: Option<Vec<u8>> = row.try_get("webhook_secret")?;
    Ok(Submitted {
        task_type: row.try_get("task_type")?,
        model_version: row.try_get("model_version")?,
        data: row.try_get("data")?,
        user_id: row.try_get("user_id")?,
        webhook: webhook_url.map(|url| Webhook { url, sealed_secret }),
        batch: None,
        retry_of: None,
        expires_us: None,
    })
}
