//! The API description: whole, valid, and what is committed; the page that shows it loads nothing from elsewhere. The dashboard's pages are no part of it.

use std::collections::BTreeSet;

use axum::http::{StatusCode, header};
use insightforge_schema::catalogue::{ModelCard, announce_models};
use serde_json::Value;

use crate::stage::{Stage, card};

/// Paths that lead to a described one under another name.
const ALIASES: [&str; 8] = [
    "/api/upload",
    "/api/openapi.json",
    "/fastapi/docs",
    "/fastapi/redoc",
    "/fastapi/openapi.json",
    "/ui",
    "/ui/",
    "/ui/{*path}",
];

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");

async fn stage() -> Stage {
    Stage::new("INSIGHTFORGE_TEST_MARIADB_URL").await
}

async fn described(stage: &Stage) -> Value {
    stage.read("/api/openapi.json").await
}

#[tokio::test]
async fn the_committed_description_is_the_generated_one() {
    let stage = stage().await;
    let mut generated = described(&stage).await;
    // The release's number changes with every release, the description only when the API does.
    generated["info"]["version"] = "0".into();
    // Which models there are is not the description's.
    generated.as_object_mut().unwrap().remove("x-models");
    let schemas = generated["components"]["schemas"].as_object_mut().unwrap();
    schemas.retain(|name, _| !name.starts_with("input.") && !name.starts_with("result."));
    let text = serde_json::to_string_pretty(&generated).unwrap() + "\n";
    if std::env::var_os("INSIGHTFORGE_WRITE_OPENAPI").is_some() {
        std::fs::write(COMMITTED, &text).unwrap();
    }
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(
        committed == text,
        "api/openapi.json is not what the code says; INSIGHTFORGE_WRITE_OPENAPI=1 cargo test -p insightforge-api writes it"
    );
    stage.end().await;
}

#[tokio::test]
async fn what_each_model_takes_and_answers_is_described_too() {
    let stage = stage().await;
    let input = serde_json::json!({ "type": "object", "properties": { "rows": { "$ref": "#/$defs/rows" } }, "$defs": { "rows": { "type": "array" } } });
    let card = ModelCard { input_schema: input, ..card("counting") };
    announce_models(&stage.journal.link, &stage.journal.keys, &[card]).await.unwrap();
    let announced = async || stage.get("/api/models/counting/v1.0").await.status == StatusCode::OK;
    while !announced().await {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let description = described(&stage).await;
    let listed = description["x-models"].as_array().unwrap();
    let model = listed.iter().find(|it| it["task_type"] == "counting").unwrap();
    for (what, member) in [("input", "properties"), ("result", "type")] {
        let pointer = model[what]["$ref"].as_str().unwrap().trim_start_matches('#');
        assert!(!description.pointer(pointer).unwrap()[member].is_null(), "{pointer}");
    }
    assert_eq!(
        description["components"]["schemas"]["input.counting.v1.0"]["$id"],
        "urn:insightforge:input:counting:v1.0"
    );
    stage.end().await;
}

#[tokio::test]
async fn every_route_is_described_and_every_described_path_is_a_route() {
    let stage = stage().await;
    let description = described(&stage).await;
    let described: BTreeSet<String> = description["paths"].as_object().unwrap().keys().cloned().collect();
    let routes = routes(&stage);
    let undescribed: Vec<&String> = routes
        .difference(&described)
        .filter(|path| !ALIASES.contains(&path.as_str()) && !path.starts_with("/docs") && !path.starts_with("/ui"))
        .collect();
    assert!(undescribed.is_empty(), "{undescribed:?}");
    assert_eq!(described.difference(&routes).count(), 0);
    assert!(routes.len() > 15, "{routes:?}");
    stage.end().await;
}

/// The router's own list of its paths, which it shows only for debugging.
fn routes(stage: &Stage) -> BTreeSet<String> {
    let shown = format!("{:?}", insightforge_api::router::public(&stage.app));
    let quoted =
        shown.split('"').filter(|text| text.starts_with('/') && *text != "/" && !text.contains("axum_fallback"));
    quoted.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_operation_says_what_it_does_and_how_it_fails() {
    let stage = stage().await;
    let description = described(&stage).await;
    let tags: BTreeSet<&str> =
        description["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{name} has a summary");
            assert!(tags.contains(operation["tags"][0].as_str().unwrap()), "{name} has a known tag");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{name} has an id of its own");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2') || status == "101"), "{name} can succeed");
            for (status, response) in responses.iter().filter(|(status, _)| *status >= &"400".to_owned()) {
                assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{name} {status}");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["schema"].is_object(), "{name}: {parameter}");
            }
        }
    }
    let references = serde_json::to_string(&description).unwrap();
    for reference in references.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(description.pointer(pointer).is_some(), "{pointer} is defined");
    }
    stage.end().await;
}

#[tokio::test]
async fn the_page_is_served_from_here_and_may_load_nothing_from_elsewhere() {
    let stage = stage().await;
    let page = stage.get("/docs/").await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
    assert!(!page.text.contains("http://") && !page.text.contains("https://"), "{}", page.text);
    let loaded: Vec<&str> = page.text.split('"').filter(|text| text.starts_with("./")).collect();
    assert!(loaded.len() > 3, "{}", page.text);
    for file in loaded {
        assert_eq!(stage.get(&format!("/docs/{}", &file[2..])).await.status, StatusCode::OK, "{file}");
    }
    assert!(stage.get("/docs/swagger-initializer.js").await.text.contains("/api/openapi.json"));
    for (path, leads_to) in [("/docs", "/docs/"), ("/fastapi/docs", "/docs/"), ("/fastapi/redoc", "/docs/")] {
        let answer = stage.get(path).await;
        assert!(answer.status.is_redirection(), "{path}");
        assert_eq!(answer.headers[header::LOCATION], leads_to);
    }
    stage.end().await;
}
