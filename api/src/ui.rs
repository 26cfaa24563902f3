//! The dashboard under `/ui`: files that `api/ui` was built into, which stand in the program. A program that was built
//! without them says how to get them.
//!
//! It works below any path prefix, which only a proxy knows: the page's addresses are relative to its `<base>`, and that is
//! written by how deep the asked path lies.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::OriginalUri;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::RustEmbed;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::problem::Problem;

#[derive(RustEmbed)]
#[folder = "ui/dist/"]
#[allow_missing = true]
struct Built;

const HOME: &str = "/ui/";
const PAGE: &str = "index.html";
/// Names of what lies here hold its hash: another content has another name.
const HASHED: &str = "assets/";
/// As `api/ui/index.html` has it.
const BASE: &str = r#"<base href="./""#;

/// What the page may load and talk to: this server. No script or style stands within the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                      connect-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'";

const NOT_BUILT: &str = "The dashboard is not part of this program.\n\n\
    It was built without it. With Node 20.19 or later:\n\n    \
    npm ci --prefix api/ui && npm run build --prefix api/ui\n    \
    cargo build --release\n\n\
    bin/up and the Dockerfile do both. The API is here all the same: /docs/ describes it.\n";

/// Where the pages are. They are no part of the API, and its description has none of them.
pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        // Relative, so that a prefix stays.
        .route("/ui", get(async || (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "ui/")])))
        // People who were given nothing but the name.
        .route("/", get(async || (StatusCode::FOUND, [(header::LOCATION, "ui/")])))
        .route(HOME, get(serve))
        .route("/ui/{*path}", get(serve))
}

async fn serve(OriginalUri(uri): OriginalUri) -> Response {
    answer(uri.path().strip_prefix(HOME).unwrap_or_default(), |name| Built::get(name).map(|file| file.data))
}

/// The file of that name; else the page, which knows its own paths.
fn answer(path: &str, find: impl Fn(&str) -> Option<Cow<'static, [u8]>>) -> Response {
    if path != PAGE
        && let Some(content) = find(path)
    {
        return file(path, content);
    }
    if path.starts_with(HASHED) {
        return Problem::not_found("there is nothing at this path").into_response();
    }
    match find(PAGE) {
        Some(content) => page(path, &content),
        None => (StatusCode::NOT_FOUND, NOT_BUILT).into_response(),
    }
}

fn file(path: &str, content: Cow<'static, [u8]>) -> Response {
    let kept = if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    ([(header::CONTENT_TYPE, kind_of(path)), (header::CACHE_CONTROL, kept)], content.into_owned()).into_response()
}

fn page(path: &str, content: &[u8]) -> Response {
    let up = "../".repeat(path.matches('/').count());
    let base = if up.is_empty() { BASE.to_owned() } else { format!(r#"<base href="{up}""#) };
    let content = String::from_utf8_lossy(content).replacen(BASE, &base, 1);
    let mut response =
        ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], content)
            .into_response();
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// All kinds of file that the build makes.
fn kind_of(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, end)| end) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(name: &str) -> Option<Cow<'static, [u8]>> {
        let content: &[u8] = match name {
            PAGE => br#"<head><base href="./" /></head>"#,
            "assets/index-a1b2.js" => b"1",
            "favicon.svg" => b"<svg/>",
            _ => return None,
        };
        Some(content.into())
    }

    async fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_page_finds_its_way_home_below_any_prefix() {
        for (path, base) in [("", "./"), ("index.html", "./"), ("tasks", "./"), ("tasks/1", "../"), ("a/b/c", "../../")]
        {
            let response = answer(path, built);
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
            assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
            assert_eq!(text(response).await, format!(r#"<head><base href="{base}" /></head>"#), "{path}");
        }
    }

    #[tokio::test]
    async fn what_has_its_hash_in_its_name_is_kept_for_ever_and_an_old_name_is_no_page() {
        let response = answer("assets/index-a1b2.js", built);
        assert_eq!(response.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
        assert_eq!(answer("favicon.svg", built).headers()[header::CACHE_CONTROL], "no-cache");
        assert_eq!(answer("assets/index-old.js", built).status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_program_without_the_dashboard_says_how_to_get_it() {
        let response = answer("tasks", |_| None);
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(text(response).await.contains("npm run build"));
    }
}
