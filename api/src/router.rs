//! Which handler answers which path. Each handler file describes its own paths for the API description (OpenAPI 3.1); they
//! are put together here.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::infer::paths as infer;
use crate::problem::Problem;
use crate::{act, analyze, batch, cancel, dead_letters, live, redrive, upload};
use crate::{batches, docs, export, facets, feed, figures, health, history, insight, list, measure, models, overview};
use crate::{past_rollouts, rebuilds, request_id, result, rollout, show, system, ui, visitors, webhooks, why};

/// The longest silence within a body.
const BODY_SILENCE: Duration = Duration::from_secs(15);

/// What callers reach. What trusts its callers is part of it only where nobody from outside comes: the
/// former model server's door, and changes of which version answers.
pub fn public(app: &Arc<App>) -> Router {
    let mut routes = outside().merge(ui::routes());
    if app.config.internal_addr.is_none() && app.config.http_addr.ip().is_loopback() {
        routes = routes.merge(inside().route_layer(middleware::from_fn(visitors::of_this_machine)));
    }
    finish(routes, app)
}

/// What only the private network reaches: the former model server's door, and changes of which version answers.
pub fn internal(app: &Arc<App>) -> Router {
    finish(inside(), app)
}

/// The public paths.
fn outside() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .merge(upload::routes())
        .merge(batch::routes())
        .merge(cancel::routes())
        .merge(redrive::routes())
        .merge(dead_letters::routes())
        .merge(result::routes())
        .merge(list::routes())
        .merge(facets::routes())
        .merge(export::routes())
        .merge(show::routes())
        .merge(why::routes())
        .merge(history::routes())
        .merge(batches::routes())
        .merge(feed::routes())
        .merge(live::socket::routes())
        .merge(live::stream::routes())
        .merge(models::routes())
        .merge(past_rollouts::routes())
        .merge(figures::routes())
        .merge(infer::routes())
        .merge(webhooks::deliveries::routes())
        .merge(webhooks::endpoints::routes())
        .merge(webhooks::order::routes())
        .merge(health::routes())
        .merge(overview::routes())
        .merge(rebuilds::routes())
        .merge(insight::routes())
}

/// The former model server's paths, what changes which version answers, what concerns many tasks or dead letters or takes one
/// away, what makes receivers of webhooks receive something or shows what they were sent, and what shows how this process is
/// set up: nothing tells callers apart yet.
fn inside() -> OpenApiRouter<Arc<App>> {
    let routes = OpenApiRouter::new()
        .merge(analyze::routes())
        .merge(result::inside_routes())
        .merge(rollout::routes())
        .merge(dead_letters::inside_routes())
        .merge(act::inside_routes())
        .merge(webhooks::exchanges::inside_routes())
        .merge(webhooks::order::inside_routes())
        .merge(system::inside_routes());
    routes.route_layer(middleware::from_fn(visitors::of_this_origin))
}

/// Adds what holds for every path.
fn finish(routes: OpenApiRouter<Arc<App>>, app: &Arc<App>) -> Router {
    let (routes, description) =
        OpenApiRouter::with_openapi(docs::beginning(app.config.version)).merge(routes).split_for_parts();
    routes
        .merge(docs::routes(description))
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            let title = "Method not allowed";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", title, "this path has other methods")
        })
        .layer(middleware::from_fn(visitors::of_this_site))
        .layer(middleware::from_fn(measure::request))
        .layer(CatchPanicLayer::custom(|_| {
            let detail = "this request met a defect; it has been logged";
            axum::response::IntoResponse::into_response(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "defect",
                "Internal error",
                detail,
            ))
        }))
        .layer(RequestBodyTimeoutLayer::new(BODY_SILENCE))
        .layer(SetResponseHeaderLayer::if_not_present(
            HeaderName::from_static("x-content-type-options"),
            HeaderValue::from_static("nosniff"),
        ))
        // Answers are about one moment; nobody but the caller may keep them.
        .layer(SetResponseHeaderLayer::if_not_present(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .layer(middleware::from_fn(request_id::name))
        .with_state(app.clone())
}
