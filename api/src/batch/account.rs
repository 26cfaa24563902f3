//! What became of a batch, for its uploader.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use insightforge_schema::id::TaskId;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::idempotency::REPLAYED;
use crate::problem::{Fields, Problem};

/// Tasks that the answer lists; the others can be listed by `GET /api/tasks?batch_id=…`.
const LISTED_TASKS: usize = 100_000;
/// Rejected lines that the answer explains.
const LISTED_ERRORS: usize = 100;

/// What became of the lines.
#[derive(Serialize, ToSchema)]
pub(crate) struct Account {
    pub(crate) batch_id: Uuid,
    /// Lines that are tasks of this batch.
    pub(crate) accepted: u32,
    /// Lines whose `task_id` belongs to a task with the same fields that was there before.
    pub(crate) repeated: u32,
    /// Lines that are not in order; the first hundred are in `errors`.
    pub(crate) rejected: u32,
    /// The tasks, in order of their lines; the first 100,000. `GET /api/tasks?batch_id=…` lists them all.
    tasks: Vec<TaskOfLine>,
    errors: Vec<LineErrors>,
    /// The CSV file's columns that mean nothing here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ignored_columns: Vec<String>,
    /// The form's fields that came behind the file and were not used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ignored_fields: Vec<String>,
    /// Every task was there before: the same batch came with the same key.
    #[serde(skip)]
    pub(crate) fresh: u32,
}

/// One accepted line.
#[derive(Serialize, ToSchema)]
struct TaskOfLine {
    /// From 1; of a CSV record that spans lines, the first. The header row counts.
    line: u32,
    #[schema(value_type = Uuid)]
    task_id: TaskId,
}

/// One rejected line.
#[derive(Serialize, ToSchema)]
pub(crate) struct LineErrors {
    line: u32,
    /// Every wrong field with what is wrong with it; `line` stands for the line as a whole.
    errors: Fields,
}

impl Account {
    pub(crate) fn new(batch_id: Uuid) -> Self {
        Self {
            batch_id,
            accepted: 0,
            repeated: 0,
            rejected: 0,
            tasks: Vec::new(),
            errors: Vec::new(),
            ignored_columns: Vec::new(),
            ignored_fields: Vec::new(),
            fresh: 0,
        }
    }

    pub(crate) fn list(&mut self, line: u32, task_id: TaskId) {
        if self.tasks.len() < LISTED_TASKS {
            self.tasks.push(TaskOfLine { line, task_id });
        }
    }

    pub(crate) fn reject(&mut self, line: u32, errors: Fields) {
        self.rejected += 1;
        if self.errors.len() < LISTED_ERRORS {
            self.errors.push(LineErrors { line, errors });
        }
    }

    /// 422: no line is in order.
    pub(crate) fn nothing_good(&self) -> Problem {
        let mut faults = Fields::default();
        for LineErrors { line, errors } in &self.errors {
            faults.add(format!("line {line}"), errors.summary());
        }
        let mut problem = Problem::invalid(faults);
        problem.detail = format!("no line is in order; {}", problem.detail);
        problem.message = problem.detail.as_str().into();
        problem
    }

    /// The answer to a batch that was read to its end.
    pub(crate) fn answer(&self) -> Response {
        let mut response = (StatusCode::ACCEPTED, axum::Json(self)).into_response();
        let location = HeaderValue::try_from(format!("/api/batches/{}", self.batch_id)).expect("an id is ASCII");
        response.headers_mut().insert(header::LOCATION, location);
        if self.fresh == 0 {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }

    /// The answer to a batch that was stopped: the problem, and what had been accepted before as its member `batch`.
    pub(crate) fn answer_stopped(&self, problem: Problem) -> Response {
        let batch = serde_json::to_value(self).expect("numbers and texts are JSON");
        problem.with("batch", batch).into_response()
    }
}
