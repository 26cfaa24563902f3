//! One announcement with everything that passed between the sender and its receiver: each attempt's request as it was sent, and
//! how it was answered. Secrets stay where they are; whoever has one can check a signature with what is shown here.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use insightforge_schema::id::{TaskId, webhook_id};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deliveries::{AttemptView, DeliveryView, Owed, Tried};
use super::order::delivery_id;
use crate::app::App;
use crate::ask::ask;
use crate::describe::{Absent, Invalid, Unavailable};
use crate::path::Path;
use crate::problem::Problem;

/// Attempts that are shown: the newest.
const ATTEMPTS_MOST: u32 = 200;

/// A signature that covers no time can be repeated by whoever sees it: only where nobody from outside comes.
pub(crate) fn inside_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(delivery))
}

/// One announcement and its attempts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Exchanges {
    delivery: DeliveryView,
    /// The body, the same at every attempt.
    body: String,
    /// Whether its receiver is given a signature. Tasks' own webhooks are, when they were registered with a secret.
    signed: bool,
    /// The newest 200, oldest first.
    attempts: Vec<Exchange>,
}

/// One attempt: what was sent and how it was answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Exchange {
    #[serde(flatten)]
    attempt: AttemptView,
    /// `null` when nothing left the sender, or an earlier release sent it and kept nothing of it.
    request: Option<SentView>,
    /// What the receiver said beside its status; `null` when it said nothing, or is a caller's: of those nothing is kept.
    answer: Option<AnswerView>,
}

/// A request as it was sent; `body` is the announcement's.
#[derive(Debug, Serialize, ToSchema)]
struct SentView {
    method: &'static str,
    /// Those a receiver reads.
    headers: Vec<Header>,
    /// The signature covers this with the body behind it.
    #[schema(example = "msg_018f4a3e9c1d7b6a8f003c5d2e1f0a9b_default.1764072000.")]
    signed_prefix: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct Header {
    name: &'static str,
    value: String,
}

/// What a receiver said beside its status.
#[derive(Debug, Serialize, ToSchema)]
struct AnswerView {
    content_type: Option<String>,
    /// The beginning of its body, 2 KiB at most.
    body: String,
    /// There was more of it.
    cut: bool,
}

/// One delivery with all of its attempts
///
/// Each with the request as it was sent, its signature, and the answer.
#[utoipa::path(
    get, path = "/api/webhooks/deliveries/{id}", operation_id = "getDelivery", tag = "webhooks",
    params(("id" = String, Path, description = "The delivery's `id`", example = "3:1284~default")),
    responses((status = 200, description = "The delivery", body = Exchanges), Absent, Invalid, Unavailable)
)]
pub(crate) async fn delivery(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Exchanges>, Problem> {
    let (position, endpoint) = delivery_id(&id)?;
    let found: Option<Body> = ask(sqlx::query_as(
        "SELECT o.id, o.endpoint, t.task_id, o.url, o.state, o.due_at, o.attempts, o.created_at, o.finished_at, o.body, \
         o.secret IS NOT NULL OR o.url IS NULL is_signed \
         FROM webhook_outbox o LEFT JOIN analysis_tasks t ON t.id = o.analysis_task_id WHERE o.id = ? AND o.endpoint = ?",
    )
    .bind(position.row_id())
    .bind(&endpoint)
    .fetch_optional(&app.pool))
    .await?;
    let Some(found) = found else { return Err(Problem::not_found(format!("there is no delivery {id}"))) };
    let mut attempts: Vec<Attempt> = ask(sqlx::query_as(
        "SELECT outbox_id, endpoint, attempt, outcome, status_code, error, duration_us, created_at, \
         sent_s, signature, legacy_signature, trace, answer_type, answer, answer_cut FROM webhook_attempts \
         WHERE outbox_id = ? AND endpoint = ? ORDER BY id DESC LIMIT ?",
    )
    .bind(position.row_id())
    .bind(&endpoint)
    .bind(ATTEMPTS_MOST)
    .fetch_all(&app.pool))
    .await?;
    attempts.reverse();
    // Without its task nothing says what the webhook was called.
    let task = found.owed.task_id.as_deref().and_then(|id| id.parse::<TaskId>().ok());
    let called = task.map(|task| webhook_id(task, &endpoint));
    Ok(Json(Exchanges {
        delivery: found.owed.view(Vec::new()),
        body: String::from_utf8_lossy(&found.body).into_owned(),
        signed: found.is_signed,
        attempts: attempts.into_iter().map(|attempt| attempt.view(called.as_deref())).collect(),
    }))
}

#[derive(FromRow)]
struct Body {
    #[sqlx(flatten)]
    owed: Owed,
    body: Vec<u8>,
    is_signed: bool,
}

#[derive(FromRow)]
struct Attempt {
    #[sqlx(flatten)]
    tried: Tried,
    sent_s: Option<i64>,
    signature: Option<String>,
    legacy_signature: Option<String>,
    trace: Option<String>,
    answer_type: Option<String>,
    answer: Option<String>,
    answer_cut: Option<bool>,
}

impl Attempt {
    fn view(self, webhook_id: Option<&str>) -> Exchange {
        let request = self.sent_s.zip(webhook_id).map(|(at_s, webhook_id)| SentView {
            method: "POST",
            headers: [
                ("accept-encoding", Some("identity".to_owned())),
                ("content-type", Some("application/json".to_owned())),
                ("webhook-id", Some(webhook_id.to_owned())),
                ("webhook-timestamp", Some(at_s.to_string())),
                ("webhook-signature", self.signature),
                ("x-webhook-signature", self.legacy_signature),
                ("traceparent", self.trace),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some(Header { name, value: value? }))
            .collect(),
            signed_prefix: format!("{webhook_id}.{at_s}."),
        });
        let answer = self.answer.map(|body| AnswerView {
            content_type: self.answer_type,
            body,
            cut: self.answer_cut.unwrap_or(false),
        });
        Exchange { attempt: self.tried.into(), request, answer }
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDateTime;

    use super::*;

    #[test]
    fn what_was_not_kept_is_not_made_up() {
        let attempt = |sent_s, signature: Option<&str>| Attempt {
            tried: Tried {
                outbox_id: 1,
                endpoint: "shop".to_owned(),
                attempt: 1,
                outcome: "retry".to_owned(),
                status_code: None,
                error: None,
                duration_us: 1,
                created_at: NaiveDateTime::default(),
            },
            sent_s,
            signature: signature.map(str::to_owned),
            legacy_signature: None,
            trace: None,
            answer_type: None,
            answer: None,
            answer_cut: None,
        };
        assert!(attempt(None, None).view(Some("msg_a_shop")).request.is_none());
        assert!(attempt(Some(5), Some("v1,x")).view(None).request.is_none());
        let sent = attempt(Some(5), Some("v1,x")).view(Some("msg_a_shop")).request.unwrap();
        assert_eq!(sent.signed_prefix, "msg_a_shop.5.");
        let names: Vec<&str> = sent.headers.iter().map(|header| header.name).collect();
        assert_eq!(names, ["accept-encoding", "content-type", "webhook-id", "webhook-timestamp", "webhook-signature"]);
    }
}
