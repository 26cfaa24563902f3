//! Which version answers, changed: the commands of `insightforge models` over HTTP. They are served only where nobody from
//! outside comes.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use insightforge_schema::catalogue;
use insightforge_schema::registry::{
    Command, Conditions, Entry, Refusal, Registry, Undoes, WHOLE, WriteError, Written,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::body;
use crate::describe::{Absent, Conflict, Invalid, Malformed, TooLarge, Unavailable, Unsupported};
use crate::members::Members;
use crate::models::TaskTypeView;
use crate::path::Path;
use crate::problem::{Fields, Problem};
use crate::sent::Media;

const MAX_NAME_CHARS: usize = 64;
/// Most versions of one request; the registry's own limit is lower and says why.
const MAX_VERSIONS: usize = 64;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(promote))
        .routes(routes!(candidate))
        .routes(routes!(canary))
        .routes(routes!(shadow))
        .routes(routes!(rollback))
        .routes(routes!(retire))
}

/// What a change says. Each takes some of it.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body; the body is read field by field, to name all that is wrong")]
pub(crate) struct Change {
    /// For promote, canary, retire; for candidate, which without it points at none; for rollback.
    #[schema(example = "v2.0")]
    version: Option<String>,
    /// For shadow: the versions that are asked as well; an empty list ends it.
    versions: Option<Vec<String>>,
    /// For canary: the part of the stable version's callers, from 0 (nobody, which ends it) to 1; down to 0.0001.
    #[schema(example = 0.1)]
    share: Option<f64>,
    /// Why; it stays in the history. 500 characters at most.
    reason: Option<String>,
    /// `position` of the list that the decision rests on: answered 409 when something changed since.
    position: Option<u64>,
    /// Do it although no running analyzer could answer for an alias afterwards, which is refused with 409 otherwise.
    force: Option<bool>,
}

/// What came of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Changed {
    /// `false` when things were so already: the same request twice is one change.
    changed: bool,
    /// The registry's number now.
    position: u64,
    /// What was written to the history.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Entry>,
    routes: TaskTypeView,
}

macro_rules! changes {
    ($($(#[doc = $doc:literal])+ $name:ident = $path:literal $id:literal;)*) => {
        $(
            $(#[doc = $doc])+
            #[utoipa::path(
                post, path = $path, operation_id = $id, tag = "models",
                params(("task_type" = String, Path, example = "sentiment_analysis")),
                request_body = Change,
                responses(
                    (status = 200, description = "So it is now", body = Changed),
                    Malformed, Absent, Conflict, TooLarge, Unsupported, Invalid, Unavailable,
                )
            )]
            pub(crate) async fn $name(
                State(app): State<Arc<App>>,
                Path(task_type): Path<String>,
                request: Request,
            ) -> Result<Json<Changed>, Problem> {
                change(&app, Kind::$name, task_type, request).await
            }
        )*
    };
}

changes! {
    /// Make a version the stable one
    ///
    /// It answers within a second. A canary of the same version is over; `candidate` stays where it points.
    promote = "/api/models/{task_type}/promote" "promoteModel";
    /// Point `candidate` at a version
    candidate = "/api/models/{task_type}/candidate" "setCandidateModel";
    /// Give a version a share of the stable one's callers
    ///
    /// Sticky: a growing share takes callers in and lets none out.
    canary = "/api/models/{task_type}/canary" "setCanaryModel";
    /// Ask versions as well, beside the answer
    shadow = "/api/models/{task_type}/shadow" "setShadowModels";
    /// Take back a step of a roll-out
    ///
    /// With `version`, what that version has: its canary, or its place as the stable version, which the one before it gets
    /// back. The same request twice takes back one step. Without it, the canary under way ends; when there is none, the
    /// stable version before is the stable one again, and the same request once more goes back one step more.
    rollback = "/api/models/{task_type}/rollback" "rollBackModel";
    /// Let a version answer nobody any more
    ///
    /// For good, within a second; tasks that wait for it by its name fail and say so.
    retire = "/api/models/{task_type}/retire" "retireModel";
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "named as the handlers")]
enum Kind {
    promote,
    candidate,
    canary,
    shadow,
    rollback,
    retire,
}

async fn change(app: &App, kind: Kind, task_type: String, request: Request) -> Result<Json<Changed>, Problem> {
    let (parts, body) = request.into_parts();
    let held = body::read(&app.budget, &parts.headers, body, app.config.max_body_bytes).await?;
    // An empty body too: what a page of another site may send unasked has no such type.
    let media = Media::of(&parts.headers);
    if media != Media::Json {
        return Err(media.refuse("application/json"));
    }
    let mut fields = Members::read(&held.bytes)?;
    let reason = fields.reason();
    let at = fields.position();
    let force = fields.force();
    let command = fields.command(kind, &task_type);
    let command = fields.finish(command)?;
    let mut registry = Registry::new(app.link.clone(), app.keys.clone());
    let workers = if force { None } else { Some(catalogue::workers(&app.link, &app.keys).await?) };
    let conditions = Conditions { at, staffed_by: workers.as_deref() };
    let written = registry.write_if(conditions, &command, "api", reason.as_deref()).await?;
    let events = match written {
        Written::Events(events) => events,
        Written::Unchanged => Vec::new(),
    };
    let seen = app.models.look_now().await;
    let routes = registry.routes();
    Ok(Json(Changed {
        changed: !events.is_empty(),
        position: routes.position,
        events,
        routes: TaskTypeView::of(&task_type, &routes, &seen),
    }))
}

impl Members {
    fn position(&mut self) -> Option<u64> {
        let value = self.take("position")?;
        let position = value.as_u64();
        if position.is_none() {
            self.faults.add("position", "must be the `position` of GET /api/models, a whole number");
        }
        position
    }

    fn force(&mut self) -> bool {
        match self.take("force") {
            None => false,
            Some(Value::Bool(force)) => force,
            Some(_) => {
                self.faults.add("force", "must be true or false");
                false
            }
        }
    }

    fn version(&mut self) -> Option<String> {
        let value = self.take("version")?;
        let version = value.as_str().filter(|version| is_name(version)).map(str::to_owned);
        if version.is_none() {
            self.faults.add("version", format!("must be a string of 1 to {MAX_NAME_CHARS} characters"));
        }
        version
    }

    fn required_version(&mut self) -> String {
        let version = self.version();
        if version.is_none() && !self.faults.names("version") {
            self.faults.add("version", "is missing");
        }
        version.unwrap_or_default()
    }

    fn versions(&mut self) -> Vec<String> {
        let value = self.take("versions");
        let list = value.as_ref().and_then(Value::as_array).filter(|list| list.len() <= MAX_VERSIONS);
        let names = list.and_then(|list| {
            list.iter().map(|name| name.as_str().filter(|name| is_name(name)).map(str::to_owned)).collect()
        });
        names.unwrap_or_else(|| {
            let what = if value.is_none() { "is missing" } else { "must be a list of versions" };
            self.faults.add("versions", what);
            Vec::new()
        })
    }

    /// In 1/10000.
    fn share(&mut self) -> u16 {
        let value = self.take("share");
        let share = value.as_ref().and_then(Value::as_f64).map(|share| share * f64::from(WHOLE));
        match share {
            // So small a share would count as none, which ends the canary.
            Some(share) if share == 0.0 || (1.0..=f64::from(WHOLE)).contains(&share.round()) => share.round() as u16,
            _ => {
                let what =
                    if value.is_none() { "is missing" } else { "must be a number from 0.0001 to 1, or 0 to end it" };
                self.faults.add("share", what);
                0
            }
        }
    }

    fn command(&mut self, kind: Kind, task_type: &str) -> Command {
        let task_type = task_type.to_owned();
        match kind {
            Kind::promote => Command::Promote { task_type, version: self.required_version() },
            Kind::candidate => Command::Candidate { task_type, version: self.version() },
            Kind::canary => Command::Canary { task_type, version: self.required_version(), share: self.share() },
            Kind::shadow => Command::Shadow { task_type, versions: self.versions() },
            Kind::rollback => {
                let undoes = self.version().map_or(Undoes::Newest, Undoes::Version);
                Command::Rollback { task_type, undoes }
            }
            Kind::retire => Command::Retire { task_type, version: self.required_version() },
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control)
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        let moved = |detail: String| Self::new(StatusCode::CONFLICT, "registry-moved", "The registry moved", detail);
        match error {
            WriteError::Refused(refusal) => refused(&refusal),
            WriteError::Link(error) => error.into(),
            WriteError::Moved { .. } => moved(format!("{error}; look at GET /api/models and decide anew")),
            WriteError::Contended => moved(error.to_string()),
        }
    }
}

fn refused(refusal: &Refusal) -> Problem {
    let what = refusal.to_string();
    let problem = match refusal {
        Refusal::UnknownTaskType { .. } => Problem::not_found(what),
        Refusal::UnknownVersion { .. } => Problem::invalid(Fields::one("version", what)),
        Refusal::Share { .. } => Problem::invalid(Fields::one("share", what)),
        Refusal::TooManyShadows { .. } => Problem::invalid(Fields::one("versions", what)),
        _ => {
            let word = refusal.code().replace('_', "-");
            Problem::new(StatusCode::CONFLICT, &word, "Not as things stand", what)
        }
    };
    problem.with("code", refusal.code().into())
}
