//! The figures the door gives to Prometheus.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Tells the installed recorder what each figure means.
pub fn describe_metrics() {
    describe_counter!("if_http_requests_total", "Requests answered, by method, route and status");
    describe_histogram!(
        "if_http_request_duration_seconds",
        Unit::Seconds,
        "From a request's header to its answer's header"
    );
    describe_counter!("if_events_appended_total", "Events appended to the journal, by type");
    describe_counter!("if_uploads_refused_total", "Tasks that were in order and not taken, by reason");
    describe_gauge!("if_backlog_tasks", "Tasks waiting or running in the whole installation, counted every second");
    describe_gauge!("if_lane_unserved_tasks", "Tasks on a lane that no analyzer serves");
    describe_histogram!("if_submit_group_size", "Tasks stored by one script call");
    describe_gauge!("if_live_followers", "Connections that follow the journal, by WebSocket or as server-sent events");
    describe_counter!(
        "if_ids_unchecked_total",
        "Times the tables did not say soon enough whether ids that callers bring were used before; for five seconds they are not asked"
    );
    counter!("if_ids_unchecked_total").increment(0);
    describe_counter!("if_live_cut_total", "Followers that were cut off because they took less than there was");
    gauge!("if_live_followers").set(0.0);
    counter!("if_live_cut_total").increment(0);
    // At zero from the start: a counter that appears with its first count has not risen for Prometheus.
    for event_type in ["submitted", "cancelled", "redriven", "batch_received"] {
        counter!("if_events_appended_total", "type" => event_type).increment(0);
    }
    for reason in ["backlog", "queue", "memory", "unavailable"] {
        counter!("if_uploads_refused_total", "reason" => reason).increment(0);
    }
}

/// Counts one request. The route is the pattern, never the path: its values are few.
pub(crate) async fn request(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let method = known_method(request.method().as_str());
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    counter!("if_http_requests_total", "method" => method, "route" => route.clone(), "status" => status).increment(1);
    histogram!("if_http_request_duration_seconds", "method" => method, "route" => route).record(began.elapsed());
    response
}

/// A caller may invent methods; a label's values must be few.
fn known_method(method: &str) -> &'static str {
    ["GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}
