//! `POST /api/data/upload/batch`: many tasks come in as one file, a line each.
//!
//! 1. [`source`] – where the bytes come from: the body, or the file in a form.
//! 2. [`line`] and [`csv`] – the bytes become lines, the lines fields.
//! 3. [`ingest`] – the lines are checked and stored while more of them come in.
//! 4. [`account`] – what became of them.
//!
//! What an uploader sees when the connection breaks: nothing of the file was stored if less than its first mebibyte had
//! arrived; else the lines that had arrived may be. With an `Idempotency-Key` the same file is simply sent again, and every
//! line is one task. Without one, the batch is closed with what had arrived.

mod account;
mod csv;
mod in_flight;
mod ingest;
mod line;
mod source;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::account::Account;
use self::ingest::{Ingest, Outcome};
use self::line::Format;
use self::source::Source;
use crate::app::App;
use crate::asked::Defaults;
use crate::deadline::Expiry;
use crate::describe::{Backlogged, Conflict, Invalid, Malformed, TooLarge, TooSlow, Unavailable, Unsupported};
use crate::idempotency::Key;
use crate::problem::{Fields, Problem};
use crate::sent::short;
use crate::trace;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(upload_batch))
}

/// Accept many tasks
///
/// One line is one task: a JSON object with the fields of a single upload (NDJSON), or a CSV record under a header row. In
/// both, `text` is short for a `data` document with that text. Lines that are in order are accepted, the others are
/// explained. The file is stored while it comes in; its first mebibyte is looked through before.
#[utoipa::path(
    post,
    path = "/api/data/upload/batch",
    tag = "upload",
    params(
        ("task_type" = Option<String>, Query, description = "For lines that name none; also a form field before the file"),
        ("model_version" = Option<String>, Query, description = "For lines that name none; also a form field before the \
            file"),
        ("expires_at" = Option<String>, Query, description = "Deadline (RFC 3339) of lines that name none; also a form field \
            before the file"),
        ("expires_in_s" = Option<u32>, Query, description = "The same in seconds from each line's arrival"),
        ("format" = Option<String>, Query, description = "`csv` or `jsonl`, where the type does not tell"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same file within 24 hours is \
            the same batch: a broken upload is completed by sending it again."),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context; every event of the tasks carries it."),
    ),
    request_body(content(
        (String = "application/x-ndjson", example = json!("{\"text\":\"好消息!\"}\n{\"text\":\"壞消息。\"}\n")),
        (String = "text/csv", example = json!("text\n好消息!\n壞消息。\n")),
        (BatchForm = "multipart/form-data"),
    )),
    responses(
        (status = 202, description = "The good lines are stored", body = Account, headers(
            ("Location" = String, description = "Where the batch's progress can be read"),
            ("Idempotency-Replayed" = bool, description = "`true` when every task was accepted before"),
        )),
        Malformed, TooSlow, Conflict, TooLarge, Unsupported, Invalid, Backlogged, Unavailable,
    ),
)]
pub(crate) async fn upload_batch(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let mut faults = Fields::default();
    let key = Key::read(headers, "batch", &mut faults);
    let mut asked = Parameters::default();
    asked.read_query(parts.uri.query().unwrap_or(""), &mut faults);
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    let mut source = Source::open(headers, body, app.config.max_batch_bytes, asked.format).await?;
    for (name, value) in std::mem::take(&mut source.texts) {
        asked.set(&name, value, &mut faults);
    }
    if !faults.is_empty() {
        return Err(Problem::invalid(faults));
    }
    if let Some(format) = asked.format {
        source.format = format;
    }
    let ingest = Ingest::new(app, source, asked.defaults, key, trace::read(headers));
    // A task of its own: when the uploader goes away in the middle, the batch is still brought to an orderly end.
    let outcome = tokio::spawn(ingest.run()).await.map_err(|_| Problem::unavailable("the upload"))?;
    Ok(match outcome {
        Outcome::Whole(account) => account.answer(),
        Outcome::Refused(problem) => problem.into_response(),
        Outcome::Stopped(problem, account) => account.answer_stopped(problem),
    })
}

/// The form: text fields before the file.
#[derive(utoipa::ToSchema)]
#[allow(dead_code, reason = "it describes the body, which is read as a stream")]
pub(crate) struct BatchForm {
    task_type: Option<String>,
    model_version: Option<String>,
    /// Deadline of lines that name none: a time (RFC 3339), or seconds from each line's arrival. Not both.
    expires_at: Option<chrono::DateTime<chrono::Utc>>,
    expires_in_s: Option<u32>,
    /// `csv` or `jsonl`, where the file's name and type do not tell.
    format: Option<String>,
    /// CSV with a header row, or JSON Lines.
    #[schema(format = Binary)]
    file: String,
}

/// What holds for all lines.
#[derive(Default)]
struct Parameters {
    defaults: Defaults,
    format: Option<Format>,
}

impl Parameters {
    fn read_query(&mut self, query: &str, faults: &mut Fields) {
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            self.set(&name, value.into_owned(), faults);
        }
    }

    fn set(&mut self, name: &str, value: String, faults: &mut Fields) {
        match name {
            "task_type" => self.defaults.task_type = Some(value),
            "model_version" => self.defaults.model_version = Some(value),
            "expires_at" | "expires_in_s" => match Expiry::parse(name, &value) {
                Ok(_) if self.defaults.expiry.is_some() => faults.add(name, "only one deadline can hold"),
                Ok(expiry) => self.defaults.expiry = Some(expiry),
                Err(what) => faults.add(name, what),
            },
            "format" => match value.as_str() {
                "csv" => self.format = Some(Format::Csv),
                "jsonl" | "ndjson" => self.format = Some(Format::Lines),
                _ => faults.add("format", "must be csv or jsonl"),
            },
            "_token" | "_method" => {}
            other => faults.add(
                short(other),
                "is not known here; known are task_type, model_version, expires_at, expires_in_s, format, file",
            ),
        }
    }
}
