//! What the process runs on is shown only where nobody from outside comes.

use axum::body::Body;
use axum::http::Request;

use crate::stage::{Stage, ask};

#[tokio::test]
async fn settings_and_checks_are_for_the_private_network() {
    let stage = Stage::new("INSIGHTFORGE_TEST_MARIADB_URL").await;
    let (public, internal) = stage.behind_an_internal_listener().await;
    let system = || Request::get("/api/system").body(Body::empty()).unwrap();
    assert_eq!(ask(&public, system()).await.status, 404);
    let answer = ask(&internal, system()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.json()["checks"].is_array() && answer.json()["settings"].is_array());
    let foreign = Request::get("/api/system").header("origin", "https://evil.example").body(Body::empty()).unwrap();
    assert_eq!(ask(&internal, foreign).await.status, 403);
    stage.end().await;
}
