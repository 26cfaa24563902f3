//! Versions: what is told of them, and how which of them answers is changed.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use insightforge_schema::catalogue::{self, ModelCard, Worker, announce_models};
use insightforge_schema::event::now_us;
use insightforge_schema::registry::event::{Refused, Registered};
use insightforge_schema::registry::{Command, Registry};
use serde_json::{Value, json};

use crate::stage::{Asked, Stage, ask, card, on_each_server};

fn registered(version: &str) -> Command {
    Command::Register(Registered {
        task_type: "sentiment_analysis".to_owned(),
        version: version.to_owned(),
        digest: version.repeat(20),
        backend: "linear".to_owned(),
        device: "cpu".to_owned(),
        folder: format!("models/{version}"),
        worker: "w".to_owned(),
    })
}

/// An analyzer serves these versions and has found one package it cannot serve.
async fn served(stage: &Stage, versions: &[&str]) {
    let mut registry = Registry::new(stage.journal.link.clone(), stage.journal.keys.clone());
    for version in versions {
        let card = ModelCard { version: (*version).to_owned(), ..card("sentiment_analysis") };
        announce_models(&stage.journal.link, &stage.journal.keys, &[card]).await.unwrap();
        registry.write(&registered(version), "analyzer/w", None).await.unwrap();
    }
    let refused = Command::Refuse(Refused {
        task_type: Some("sentiment_analysis".to_owned()),
        version: Some("v9".to_owned()),
        folder: "models/v9".to_owned(),
        reason: "zh.bin is not the file the manifest names".to_owned(),
        worker: "w".to_owned(),
    });
    registry.write(&refused, "analyzer/w", None).await.unwrap();
}

/// The list as it stands once everything that was written is read.
async fn list(stage: &Stage) -> Value {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let mut registry = Registry::new(stage.journal.link.clone(), stage.journal.keys.clone());
    registry.refresh().await.unwrap();
    loop {
        let list = stage.read("/api/models").await;
        if list["position"] == registry.routes().position {
            return list;
        }
        assert!(tokio::time::Instant::now() < deadline, "{list}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn sentiment(list: &Value) -> &Value {
    list["task_types"].as_array().unwrap().iter().find(|it| it["task_type"] == "sentiment_analysis").unwrap()
}

async fn the_list_tells_who_answers_whom_and_what_was_refused(stage: Stage) {
    served(&stage, &["v1.0", "v2.0", "v3.0"]).await;
    for (command, body) in [
        ("canary", json!({ "version": "v2.0", "share": 0.25 })),
        ("shadow", json!({ "versions": ["v3.0"] })),
        ("candidate", json!({ "version": "v2.0" })),
    ] {
        assert_eq!(stage.post(&format!("/api/models/sentiment_analysis/{command}"), &body).await.status, 200);
    }
    let list = list(&stage).await;
    let view = sentiment(&list);
    assert_eq!(
        (&view["stable"], &view["candidate"], &view["latest"]),
        (&json!("v1.0"), &json!("v2.0"), &json!("v3.0"))
    );
    assert_eq!(view["canary"], json!({ "version": "v2.0", "share": 0.25 }));
    assert_eq!(view["shadows"], json!(["v3.0"]));
    let roles: Vec<_> = list["models"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["task_type"] == "sentiment_analysis")
        .map(|it| format!("{} {} {}", it["version"], it["state"], it["roles"]).replace('"', ""))
        .collect();
    assert_eq!(
        roles,
        ["v1.0 registered [stable]", "v2.0 registered [canary,candidate]", "v3.0 registered [latest,shadow]"]
    );
    assert_eq!(list["refused"][0]["folder"], "models/v9");
    assert!(list["refused"][0]["reason"].as_str().unwrap().contains("zh.bin"));
    let card = stage.read("/api/models/sentiment_analysis/candidate").await;
    assert_eq!((&card["version"], &card["roles"]), (&json!("v2.0"), &json!(["canary", "candidate"])));
    stage.end().await;
}

async fn a_roll_out_is_one_change_however_often_it_is_sent(stage: Stage) {
    served(&stage, &["v1.0", "v2.0"]).await;
    let promote = json!({ "version": "v2.0", "reason": "better on tweets" });
    let first = stage.post("/api/models/sentiment_analysis/promote", &promote).await.json();
    assert_eq!((&first["changed"], &first["routes"]["stable"]), (&json!(true), &json!("v2.0")));
    assert_eq!(
        (&first["events"][0]["event"], &first["events"][0]["reason"]),
        (&json!("promoted"), &json!("better on tweets"))
    );
    let again = stage.post("/api/models/sentiment_analysis/promote", &promote).await.json();
    assert_eq!((&again["changed"], &again["events"]), (&json!(false), &json!([])));
    assert_eq!(again["position"], first["position"]);
    let back = stage.post("/api/models/sentiment_analysis/rollback", &json!({ "reason": "worse" })).await.json();
    assert_eq!(back["routes"]["stable"], "v1.0");
    let history = stage.read("/api/models/sentiment_analysis/history").await;
    let events: Vec<_> = history["events"].as_array().unwrap().iter().map(|it| it["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["rolled_back", "promoted", "refused", "registered", "registered"]);
    assert_eq!(
        (&history["events"][1]["actor"], &history["events"][1]["data"]["version"]),
        (&json!("api"), &json!("v2.0"))
    );
    let page = stage.read("/api/models/sentiment_analysis/history?limit=2").await;
    let next = stage.read(&format!("/api/models/sentiment_analysis/history?limit=9&before={}", page["next"])).await;
    assert_eq!(next["events"].as_array().unwrap().len(), 3);
    assert_eq!(next["next"], Value::Null);
    assert_eq!(stage.get("/api/models/nothing/history").await.status, StatusCode::NOT_FOUND);
    stage.end().await;
}

async fn a_decision_made_on_an_older_list_is_a_conflict(stage: Stage) {
    served(&stage, &["v1.0", "v2.0", "v3.0"]).await;
    let seen = list(&stage).await["position"].clone();
    let promote = |version: &str| json!({ "version": version, "position": seen });
    assert_eq!(stage.post("/api/models/sentiment_analysis/promote", &promote("v2.0")).await.status, 200);
    let late = stage.post("/api/models/sentiment_analysis/promote", &promote("v3.0")).await;
    assert_eq!(
        (late.status, &late.json()["type"]),
        (StatusCode::CONFLICT, &json!("urn:insightforge:problem:registry-moved"))
    );
    // What is so already needs no decision.
    let same = stage.post("/api/models/sentiment_analysis/promote", &promote("v2.0")).await;
    assert_eq!((same.status, &same.json()["changed"]), (StatusCode::OK, &json!(false)));
    stage.end().await;
}

async fn what_cannot_be_is_refused_with_a_word_for_programs(stage: Stage) {
    served(&stage, &["v1.0", "v2.0", "v3.0"]).await;
    for (command, body, status, part) in [
        ("promote", json!({}), 422, "version: is missing"),
        ("promote", json!({ "version": 5 }), 422, "version: must be a string"),
        ("promote", json!({ "version": "v9" }), 422, "has no version"),
        ("promote", json!({ "version": "stable" }), 422, "has no version"),
        (
            "promote",
            json!({ "version": "v2.0", "share": 1, "x": 1 }),
            422,
            "share: is not a field of this request; x: is not",
        ),
        ("promote", json!({ "version": "v2.0", "position": -1 }), 422, "position: must be"),
        ("promote", json!({ "version": "v2.0", "reason": "r".repeat(501) }), 422, "reason: must be a string of 500"),
        ("canary", json!({ "version": "v2.0" }), 422, "share: is missing"),
        ("canary", json!({ "version": "v2.0", "share": 1.5 }), 422, "share: must be a number from"),
        ("canary", json!({ "version": "v2.0", "share": 0.00001 }), 422, "share: must be a number from"),
        ("canary", json!({ "version": "v2.0", "share": -0.1 }), 422, "share: must be a number from"),
        ("canary", json!({ "version": "v2.0", "share": "half" }), 422, "share: must be a number from"),
        ("canary", json!({ "version": "v1.0", "share": 0.5 }), 409, "is the stable version"),
        ("shadow", json!({ "versions": "v2.0" }), 422, "versions: must be a list"),
        ("shadow", json!({ "versions": vec!["v2.0"; 65] }), 422, "versions: must be a list"),
        ("shadow", json!({ "versions": ["a", "b", "c", "d", "e"] }), 422, "versions: 5 shadows"),
        ("retire", json!({ "version": "v1.0" }), 409, "promote another one first"),
        ("rollback", json!({}), 409, "no earlier stable version"),
        ("rollback", json!([]), 400, "the body is no JSON object"),
    ] {
        let answer = stage.post(&format!("/api/models/sentiment_analysis/{command}"), &body).await;
        assert_eq!(answer.status, status, "{command} {body}: {}", answer.text);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(part), "{detail:?} says {part:?}");
    }
    let unknown = stage.post("/api/models/nothing/promote", &json!({ "version": "v1" })).await;
    assert_eq!((unknown.status, &unknown.json()["code"]), (StatusCode::NOT_FOUND, &json!("unknown_task_type")));
    let retire = json!({ "version": "v3.0" });
    assert_eq!(stage.post("/api/models/sentiment_analysis/retire", &retire).await.status, 200);
    let retired = stage.post("/api/models/sentiment_analysis/promote", &retire).await;
    assert_eq!((retired.status, &retired.json()["code"]), (StatusCode::CONFLICT, &json!("model_version_retired")));
    stage.end().await;
}

async fn changes_are_served_only_where_nobody_from_outside_comes(stage: Stage) {
    served(&stage, &["v1.0", "v2.0"]).await;
    let path = "/api/models/sentiment_analysis/promote";
    let promote = async |router: &Router| {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        ask(router, request.body(Body::from("{\"version\":\"v2.0\"}")).unwrap()).await.status
    };
    let (outside, inside) = stage.behind_an_internal_listener().await;
    assert!(matches!(promote(&outside).await, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED));
    assert_eq!(promote(&inside).await, 200);
    stage.end().await;
}

async fn what_a_web_page_of_somebody_else_sends_changes_nothing(stage: Stage) {
    served(&stage, &["v1.0", "v2.0"]).await;
    let (_, inside) = stage.behind_an_internal_listener().await;
    let candidate = "/api/models/sentiment_analysis/candidate";
    let upload = "/api/data/upload";
    let json = ("content-type", "application/json");
    for (router, path, headers, status) in [
        // Neither a form nor a request without a body needs a preflight.
        (&stage.router, candidate, vec![], 415),
        (&stage.router, candidate, vec![("content-type", "text/plain")], 415),
        (&inside, candidate, vec![], 415),
        (&stage.router, candidate, vec![json, ("sec-fetch-site", "cross-site")], 403),
        (&stage.router, candidate, vec![json, ("sec-fetch-site", "same-site")], 403),
        (&inside, candidate, vec![json, ("host", "10.0.0.1:8000"), ("origin", "http://evil.example")], 403),
        (&stage.router, candidate, vec![json, ("origin", "http://evil.example"), ("host", "127.0.0.1:8080")], 403),
        (&stage.router, candidate, vec![json, ("origin", "http://evil.example"), ("host", "evil.example")], 403),
        (&stage.router, candidate, vec![json, ("x-forwarded-for", "192.0.2.1")], 403),
        (&stage.router, upload, vec![json, ("sec-fetch-site", "cross-site")], 403),
        (&stage.router, upload, vec![json, ("origin", "http://evil.example"), ("host", "127.0.0.1:8080")], 403),
        // The page of this server itself, and programs.
        (&stage.router, candidate, vec![json, ("origin", "http://localhost:80"), ("host", "localhost:80")], 200),
        (&stage.router, candidate, vec![json, ("sec-fetch-site", "same-origin")], 200),
        (&inside, candidate, vec![json, ("host", "10.0.0.1:8000")], 200),
        (&stage.router, upload, vec![json, ("sec-fetch-site", "same-site"), ("host", "x")], 400),
        (&stage.router, upload, vec![json, ("x-forwarded-for", "192.0.2.1")], 400),
    ] {
        let mut request = Request::post(path);
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let answer = ask(router, request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{path} with {headers:?}: {}", answer.text);
    }
    let read = [(header::HeaderName::from_static("sec-fetch-site"), "cross-site")];
    assert_eq!(stage.get_with("/api/models", &read).await.status, 200, "a link may lead here");
    stage.end().await;
}

async fn a_change_that_leaves_the_callers_to_no_analyzer_is_made_only_by_force(stage: Stage) {
    served(&stage, &["v1.0", "v2.0"]).await;
    for version in ["v1.0", "v2.0"] {
        let worker = Worker {
            name: version.to_owned(),
            lanes: vec![format!("sentiment_analysis:{version}")],
            in_flight: 0,
            started_ms: 0,
            last_read_ms: 0,
            seen_ms: now_us() / 1_000,
            infer_addr: None,
            limits: None,
        };
        catalogue::report(&stage.journal.link, &stage.journal.keys, &worker).await.unwrap();
    }
    let canary = |force: Option<bool>| json!({ "version": "v2.0", "share": 0.01, "force": force });
    let path = "/api/models/sentiment_analysis/canary";
    let refused = stage.post(path, &canary(None)).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::CONFLICT, &json!("nobody_would_answer")));
    assert!(refused.text.contains("v1.0 and v2.0 at once"), "{}", refused.text);
    assert_eq!(stage.post(path, &json!({ "version": "v2.0", "share": 0.01, "force": "yes" })).await.status, 422);
    assert_eq!(stage.post(path, &canary(Some(true))).await.json()["changed"], true);
    // Rolled back by name, as often as it is sent.
    for changed in [true, false] {
        let back = stage.post("/api/models/sentiment_analysis/rollback", &json!({ "version": "v2.0" })).await.json();
        assert_eq!(back["changed"], changed, "{back}");
    }
    stage.end().await;
}

async fn shadows_are_compared_with_the_answers(stage: Stage) {
    let tasks: Vec<Asked> =
        (0..4).map(|at| Asked::new("sentiment_analysis", &format!("{{\"text\":\"{at}\"}}"))).collect();
    stage.journal.submit_all(&tasks).await;
    for (at, task) in tasks.iter().enumerate() {
        stage.journal.complete(task, "{\"sentiment\":\"Positive\"}").await;
        let result =
            (at < 3).then_some(if at < 2 { "{\"sentiment\":\"Positive\"}" } else { "{\"sentiment\":\"Negative\"}" });
        stage.journal.shadow(task, "v2.0", result, at < 2).await;
    }
    stage.fold().await;
    let compared = stage.read("/api/models/sentiment_analysis/shadow").await;
    let figures = &compared["versions"][0];
    for (member, value) in [
        ("version", json!("v2.0")),
        ("answered_by", json!("v1.0")),
        ("compared", json!(4)),
        ("agreed", json!(2)),
        ("failed", json!(1)),
        ("mean_us", json!(200.0)),
    ] {
        assert_eq!(figures[member], value, "{member}");
    }
    let disagreements = compared["disagreements"].as_array().unwrap();
    assert_eq!(disagreements.len(), 2);
    let other = disagreements.iter().find(|it| it["task_id"] == tasks[2].task.to_string()).unwrap();
    assert_eq!(
        (&other["answer"]["sentiment"], &other["shadow"]["sentiment"]),
        (&json!("Positive"), &json!("Negative"))
    );
    for (query, versions) in [("version=v2.0", 1), ("version=v3.0", 0), ("from=2000-01-01", 1), ("to=2000-01-01", 0)] {
        let compared = stage.read(&format!("/api/models/sentiment_analysis/shadow?{query}")).await;
        assert_eq!(compared["versions"].as_array().unwrap().len(), versions, "{query}");
    }
    assert_eq!(
        stage.get("/api/models/sentiment_analysis/shadow?limit=0&x=1").await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    stage.end().await;
}

on_each_server!(
    the_list_tells_who_answers_whom_and_what_was_refused,
    a_roll_out_is_one_change_however_often_it_is_sent,
    a_decision_made_on_an_older_list_is_a_conflict,
    what_cannot_be_is_refused_with_a_word_for_programs,
    changes_are_served_only_where_nobody_from_outside_comes,
    what_a_web_page_of_somebody_else_sends_changes_nothing,
    a_change_that_leaves_the_callers_to_no_analyzer_is_made_only_by_force,
    shadows_are_compared_with_the_answers,
    each_version_s_figures_are_its_own_and_of_the_time_asked_for,
    a_failure_share_is_of_one_stretch_of_time_and_says_when_others_failures_hide_it,
);

/// Rows of tasks that nobody submitted: `count` of them, one a millisecond, up to `age_s` ago.
async fn fill(stage: &Stage, first: u64, count: u64, (task_type, version, status): (&str, &str, &str), age_s: u64) {
    let fill = format!(
        "INSERT INTO analysis_tasks (id, task_id, tenant, task_type, data_payload, model_version, status, attempt, \
         dead_lettered, last_n, created_at, updated_at) \
         WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {count}) \
         SELECT (1000000 + {first} + n) * 1024, LOWER(CONCAT('00000000-0000-7000-8000-', LPAD(HEX({first} + n), 12, '0'))), \
         'default', '{task_type}', '{{}}', '{version}', '{status}', 1, 0, 1, \
         UTC_TIMESTAMP(6) - INTERVAL {age_s} SECOND - INTERVAL n * 1000 MICROSECOND, UTC_TIMESTAMP(6) FROM numbers"
    );
    let mut one = stage.pool.acquire().await.unwrap();
    // Each server has its own name for how far a question may go on by itself.
    for name in ["cte_max_recursion_depth", "max_recursive_iterations"] {
        let _ = sqlx::query(sqlx::AssertSqlSafe(format!("SET SESSION {name} = 100000"))).execute(&mut *one).await;
    }
    sqlx::query(sqlx::AssertSqlSafe(fill)).execute(&mut *one).await.unwrap();
}

async fn a_failure_share_is_of_one_stretch_of_time_and_says_when_others_failures_hide_it(stage: Stage) {
    served(&stage, &["v1.0"]).await;
    fill(&stage, 0, 1_500, ("sentiment_analysis", "v1.0", "completed"), 60).await;
    fill(&stage, 10_000, 30, ("sentiment_analysis", "stable", "failed"), 1_800).await;
    let log = "INSERT INTO task_logs (id, analysis_task_id, event_type, description, details, created_at) \
        SELECT id, id, 'failed', 'it failed', '{\"model_version\":\"v1.0\"}', created_at FROM analysis_tasks \
        WHERE model_version = 'stable'";
    sqlx::query(log).execute(&stage.pool).await.unwrap();
    let first = async || stage.read("/api/models/sentiment_analysis/figures").await["versions"][0].clone();
    let told = |figures: &Value| ["tasks", "sampled", "failed", "failed_is_exact"].map(|name| figures[name].clone());
    // They failed half an hour ago; the newest thousand tasks are of the last minutes.
    let before = first().await;
    assert_eq!(told(&before), [json!(1_530), json!(1_000), json!(0), json!(true)], "{before}");
    assert_eq!(before["failure_share"], json!(0.0));

    fill(&stage, 20_000, 2_000, ("named_entity_recognition", "v1.0", "failed"), 10).await;
    let hidden = first().await;
    assert_eq!((&hidden["failed_is_exact"], &hidden["tasks_are_exact"]), (&json!(false), &json!(false)), "{hidden}");
    stage.end().await;
}

async fn each_version_s_figures_are_its_own_and_of_the_time_asked_for(stage: Stage) {
    served(&stage, &["v1.0", "v2.0"]).await;
    let asked = |version: &str| Asked::new("sentiment_analysis", r#"{"text":"x"}"#).version(version);
    let hours_ago = |hours: i64| now_us() - hours * 3_600_000_000;
    let (good, bad, failed, open) = (asked("v1.0"), asked("v1.0"), asked("v1.0"), asked("v1.0"));
    let (old, other) = (asked("v1.0").at(hours_ago(3)), asked("v2.0"));
    // Whoever asks for an alias fails at a version all the same, unless it failed before one was chosen.
    let (at_second, nowhere, waiting) = (asked("stable"), asked("stable"), asked("stable"));
    // Nobody reads so much for one word.
    let (long, too_long) = (asked("v2.0"), json!({ "label": "Negative", "more": "x".repeat(5_000) }).to_string());
    let all = [&good, &bad, &failed, &open, &old, &other, &long, &at_second, &nowhere, &waiting].map(Clone::clone);
    stage.journal.submit_all(&all).await;
    for (task, result) in [
        (&good, r#"{"sentiment":"Positive","score":0.9}"#),
        (&bad, r#"{"sentiment":"Negative","score":0.1}"#),
        (&old, r#"{"sentiment":"Neutral"}"#),
        (&other, r#"{"label":"Positive"}"#),
        (&long, &too_long),
    ] {
        stage.journal.complete(task, result).await;
    }
    stage.journal.fail(&failed, "timeout").await;
    stage.journal.fail_at(&at_second, Some("v2.0"), "panic").await;
    stage.journal.fail(&nowhere, "expired").await;
    stage.fold().await;

    let figures = stage.read("/api/models/sentiment_analysis/figures").await;
    let of = |figures: &Value, version: &str| {
        figures["versions"].as_array().unwrap().iter().find(|it| it["version"] == version).unwrap().clone()
    };
    let first = of(&figures, "v1.0");
    assert_eq!((&first["tasks"], &first["tasks_are_exact"], &first["sampled"]), (&json!(4), &json!(true), &json!(4)));
    assert_eq!((&first["completed"], &first["failed"]), (&json!(2), &json!(1)));
    assert!((first["failure_share"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
    assert!(first["inference_ms"]["p95"].is_number() && first["total_ms"]["p95"].is_number());
    let labels: Vec<&Value> = first["labels"].as_array().unwrap().iter().map(|label| &label["label"]).collect();
    assert_eq!(labels, ["Negative", "Positive"]);
    let second = of(&figures, "v2.0");
    assert_eq!(&second["labels"][0]["share"], &json!(1.0));
    assert!((second["failure_share"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
    assert_eq!((&second["tasks"], &second["failed"]), (&json!(3), &json!(1)));
    let day = stage.read("/api/models/sentiment_analysis/figures?within=day").await;
    assert_eq!((&of(&day, "v1.0")["tasks"], &of(&day, "v1.0")["completed"]), (&json!(5), &json!(3)));
    assert_eq!(stage.get("/api/models/nothing/figures").await.status, StatusCode::NOT_FOUND);
    let wrong = stage.get("/api/models/sentiment_analysis/figures?within=year").await;
    assert_eq!((wrong.status.as_u16(), wrong.json()["errors"]["within"].is_array()), (422, true));
    stage.end().await;
}
