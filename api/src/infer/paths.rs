//! The synchronous door's paths where callers reach them, described; all are passed on to an analyzer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::forward::pass_on;
use crate::app::App;
use crate::describe::{Absent, Invalid, Malformed, TooLarge, TooSlow, Unavailable, Unsupported};
use crate::problem::Problem;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(infer))
        .routes(routes!(server))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(models))
        .routes(routes!(model))
        .routes(routes!(model_ready))
        .routes(routes!(model_infer))
        .routes(routes!(version))
        .routes(routes!(version_ready))
        .routes(routes!(version_infer))
        .routes(routes!(index))
}

/// A question that is answered now. One of `data` and `inputs`.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body, which the analyzer reads")]
pub(crate) struct InferBody {
    #[schema(example = "sentiment_analysis")]
    task_type: String,
    /// A version, or `stable`, `candidate`, `latest`.
    #[schema(example = "stable", default = "stable")]
    model_version: Option<String>,
    /// The input document, or a string that holds it.
    #[schema(value_type = Option<Object>, example = json!({ "text": "好消息!" }))]
    data: Option<serde_json::Value>,
    /// 1 to 1024 input documents.
    #[schema(value_type = Option<Vec<Object>>)]
    inputs: Option<Vec<serde_json::Value>>,
    /// The user who asks: the same one is answered by the same version as long as a canary's share does not shrink, and an
    /// upload with this `user_id` too. Unless given, the document's own `user_id` counts.
    key: Option<String>,
}

/// An answer.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "it describes the answer, which the analyzer writes")]
pub(crate) struct Inferred {
    /// As the model's output schema says. Absent when `inputs` were asked.
    #[schema(value_type = Option<Object>)]
    result: Option<serde_json::Value>,
    /// One for each of `inputs`, in order.
    results: Option<Vec<InferredItem>>,
    task_type: String,
    /// The version that answered.
    model_version: String,
    /// SHA-256 of its package's manifest.
    model_digest: String,
    #[schema(example = "linear")]
    backend: String,
    /// Why this version: `exact`, `stable`, `canary`, `candidate` or `latest`.
    #[schema(example = "stable")]
    reason: String,
    /// Microseconds, waiting included.
    inference_us: u64,
}

/// One of `results`: a result or an error.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "it describes the answer, which the analyzer writes")]
pub(crate) struct InferredItem {
    #[schema(value_type = Option<Object>)]
    result: Option<serde_json::Value>,
    error: Option<ItemError>,
}

/// Why an input has no result.
#[derive(Serialize, ToSchema)]
#[allow(dead_code, reason = "it describes the answer, which the analyzer writes")]
pub(crate) struct ItemError {
    #[schema(example = "bad_input")]
    code: String,
    message: String,
}

/// Answer a document now
///
/// No task is made and nothing is kept: who needs the result later, a webhook or a retry uploads instead.
#[utoipa::path(
    post, path = "/api/infer", operation_id = "infer", tag = "inference", request_body = InferBody,
    responses(
        (status = 200, description = "The answer", body = Inferred),
        (status = 429, description = "Too many inputs wait for this model; `Retry-After` says when to try again",
            body = Problem, content_type = "application/problem+json"),
        (status = 500, description = "The model failed; `code` says how", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "The model crashed", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The model took too long", body = Problem, content_type = "application/problem+json"),
        Malformed, TooSlow, TooLarge, Unsupported, Invalid, Unavailable,
    )
)]
pub(crate) async fn infer(app: State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    pass_on(app, request).await
}

/// A path of the Open Inference Protocol.
macro_rules! protocol {
    ($(#[doc = $summary:literal] $name:ident = $method:ident $path:literal $id:literal ($($parameter:literal $what:literal),*) $answer:literal;)*) => {
        $(
            #[doc = $summary]
            ///
            /// As the Open Inference Protocol v2 describes it; also spoken by the clients of Triton, KServe and MLServer. A
            /// model is a task type.
            #[utoipa::path(
                $method, path = $path, operation_id = $id, tag = "inference",
                params($(($parameter = String, Path, description = $what)),*),
                responses((status = 200, description = $answer, body = Object), Absent, Unavailable)
            )]
            pub(crate) async fn $name(app: State<Arc<App>>, request: Request) -> Result<Response, Problem> {
                pass_on(app, request).await
            }
        )*
    };
}

/// A path that takes tensors.
macro_rules! tensors {
    ($(#[doc = $summary:literal] $name:ident = $path:literal $id:literal ($($parameter:literal $what:literal),*);)*) => {
        $(
            #[doc = $summary]
            ///
            /// Each input tensor is a member of the input document, by its name; its first dimension counts the documents. A
            /// tensor `document` holds whole documents as JSON texts. The output `result` holds whole results as JSON texts,
            /// further outputs their members. JSON, or the binary tensor data extension.
            #[utoipa::path(
                post, path = $path, operation_id = $id, tag = "inference",
                params(
                    $(($parameter = String, Path, description = $what),)*
                    ("Inference-Header-Content-Length" = Option<u32>, Header, description = "Bytes of JSON; binary data follow")
                ),
                request_body(content = Object, example = json!({ "inputs": [
                    { "name": "text", "datatype": "BYTES", "shape": [1], "data": ["好消息!"] }
                ] })),
                responses(
                    (status = 200, description = "The output tensors", body = Object),
                    Malformed, Absent, TooSlow, TooLarge, Invalid, Unavailable,
                )
            )]
            pub(crate) async fn $name(app: State<Arc<App>>, request: Request) -> Result<Response, Problem> {
                pass_on(app, request).await
            }
        )*
    };
}

protocol! {
    /// The inference server
    server = get "/v2" "oipServer" () "Its name, version and extensions";
    /// Whether the inference server lives
    live = get "/v2/health/live" "oipLive" () "It lives";
    /// Whether the inference server is ready
    ready = get "/v2/health/ready" "oipReady" () "There is a model to ask";
    /// The models of the inference server
    models = get "/v2/models" "oipModels" () "Their names";
    /// A model's tensors
    model = get "/v2/models/{model}" "oipModel" ("model" "The task type") "Its versions, inputs and outputs";
    /// Whether a model is ready
    model_ready = get "/v2/models/{model}/ready" "oipModelReady" ("model" "The task type") "It is ready";
    /// A model version's tensors
    version = get "/v2/models/{model}/versions/{version}" "oipVersion"
        ("model" "The task type", "version" "A version or an alias") "Its versions, inputs and outputs";
    /// Whether a model version is ready
    version_ready = get "/v2/models/{model}/versions/{version}/ready" "oipVersionReady"
        ("model" "The task type", "version" "A version or an alias") "It is ready";
    /// The models of the inference server, with their states
    index = post "/v2/repository/index" "oipIndex" () "Name, version, state and reason of each";
}

tensors! {
    /// Ask a model's stable version tensors
    model_infer = "/v2/models/{model}/infer" "oipInfer" ("model" "The task type");
    /// Ask a model version tensors
    version_infer = "/v2/models/{model}/versions/{version}/infer" "oipVersionInfer"
        ("model" "The task type", "version" "A version or an alias");
}
