//! How a model's failures are answered.

use axum::http::StatusCode;
use insightforge_inference::InferError;
use serde_json::Value;

use crate::problem::{Fields, Problem};

/// The answer to one input that has no result; `field` is where its document stands in the request.
pub(super) fn problem(error: &InferError, field: &str) -> Problem {
    if error.code == "bad_input" {
        return Problem::invalid(Fields::one(field, error.message.clone())).with("code", code(error));
    }
    let (status, title, retry_after_s) = match &*error.code {
        "overloaded" => (StatusCode::TOO_MANY_REQUESTS, "Too many inputs wait", Some(1)),
        "timeout" => (StatusCode::GATEWAY_TIMEOUT, "The model took too long", None),
        "model_crashed" | "out_of_memory" => (StatusCode::BAD_GATEWAY, "The model crashed", None),
        _ if error.permanent => (StatusCode::INTERNAL_SERVER_ERROR, "The model failed", None),
        "panic" | "wrong_answer_count" => (StatusCode::INTERNAL_SERVER_ERROR, "The model failed", None),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "The model is not available", Some(2)),
    };
    let word = error.code.replace('_', "-");
    let problem = Problem::new(status, &word, title, error.message.clone()).with("code", code(error));
    match retry_after_s {
        Some(seconds) => problem.retry_after(seconds),
        None => problem,
    }
}

fn code(error: &InferError) -> Value {
    Value::String(error.code.clone().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_a_status_that_says_whether_to_try_again() {
        for (error, status, retry) in [
            (InferError::bad_input("/text: is missing"), 422, None),
            (InferError::bad_output("NaN"), 500, None),
            (InferError::unavailable("overloaded", "full"), 429, Some(1)),
            (InferError::unavailable("timeout", "late"), 504, None),
            (InferError::unavailable("model_crashed", "gone"), 502, None),
            (InferError::unavailable("out_of_memory", "gone"), 502, None),
            (InferError::unavailable("panic", "it panicked"), 500, None),
            (InferError::unavailable("wrong_answer_count", "2 of 3"), 500, None),
            (InferError::unavailable("model_unavailable", "away"), 503, Some(2)),
        ] {
            let problem = problem(&error, "data");
            assert_eq!((problem.status, problem.retry_after_s), (status, retry), "{error}");
            assert_eq!(problem.more.unwrap()["code"], *error.code);
            assert_eq!(problem.errors.contains_key("data"), status == 422);
        }
    }
}
