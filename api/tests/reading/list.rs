//! Lists of tasks: what is filtered, that no page loses or repeats a task, and that the tables' indexes are used.

use axum::http::StatusCode;
use insightforge_schema::event::now_us;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row};

use crate::stage::{Asked, Stage, on_each_server};

fn ids(page: &Value) -> Vec<String> {
    page["tasks"].as_array().unwrap().iter().map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
}

/// The listed tasks, as places in `tasks`, in the order of the list.
async fn listed(stage: &Stage, tasks: &[Asked], query: &str) -> Vec<usize> {
    let page = stage.read(&format!("/api/tasks?{query}")).await;
    let place = |id: &String| tasks.iter().position(|task| task.task.to_string() == *id).unwrap();
    ids(&page).iter().map(place).collect()
}

async fn every_filter_lists_what_it_says_newest_first(stage: Stage) {
    let (hour, batch) = (3_600_000_000, uuid::Uuid::new_v4());
    let start = 1_764_072_000_000_000; // 2025-11-25T12:00:00Z
    let tasks = [
        Asked::new("sentiment_analysis", "{}").at(start),
        Asked::new("sentiment_analysis", "{}").at(start + hour).version("v2.0"),
        Asked::new("named_entity_recognition", "{}").at(start + 2 * hour).line(batch, 1),
        Asked::new("named_entity_recognition", "{}").at(start + 3 * hour).line(batch, 2),
        Asked::new("sentiment_analysis", "{}").at(start + 4 * hour),
    ];
    stage.journal.submit_all(&tasks).await;
    stage.journal.complete(&tasks[0], "{}").await;
    stage.journal.fail(&tasks[1], "timeout").await;
    stage.journal.fail(&tasks[2], "bad_input").await;
    stage.journal.cancel(&tasks[3]).await;
    assert_eq!(ids(&stage.read("/api/tasks").await), Vec::<String>::new(), "lists are of what is folded");
    stage.fold().await;
    let batch_filter = format!("batch_id={batch}");
    let cases: [(&str, &[usize]); 14] = [
        ("", &[4, 3, 2, 1, 0]),
        ("status=failed", &[2, 1]),
        ("status=cancelled", &[3]),
        ("task_type=named_entity_recognition", &[3, 2]),
        ("model_version=v2.0", &[1]),
        ("task_type=sentiment_analysis&model_version=v1.0", &[4, 0]),
        ("from=2025-11-25T13:00:00Z&to=2025-11-25T15:00:00Z", &[2, 1]),
        ("to=2025-11-25", &[]),
        (&batch_filter, &[3, 2]),
        ("error_code=timeout", &[1]),
        ("error_code=timeout&status=completed", &[]),
        ("dead_lettered=true", &[2, 1]),
        ("dead_lettered=false&status=", &[4, 3, 0]),
        ("task_type=nobody's'; DROP TABLE analysis_tasks; --", &[]),
    ];
    for (query, expected) in cases {
        let query = query.replace(' ', "%20");
        assert_eq!(listed(&stage, &tasks, &query).await, expected, "{query}");
    }
    let one = &stage.read("/api/tasks?error_code=timeout").await["tasks"][0];
    assert_eq!((&one["status"], &one["attempt"], &one["dead_lettered"]), (&json!("failed"), &json!(1), &json!(true)));
    assert!(one.get("data_payload").is_none(), "lists carry no documents");
    stage.end().await;
}

async fn pages_lose_and_repeat_nothing_also_when_times_are_equal_and_tasks_arrive(stage: Stage) {
    let at = now_us();
    // Three of each time.
    let tasks: Vec<Asked> = (0..60).map(|n| Asked::new("sentiment_analysis", "{}").at(at + n / 3)).collect();
    stage.journal.submit_all(&tasks).await;
    stage.fold().await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = stage.read(&format!("/api/tasks?limit=7&cursor={cursor}")).await;
        seen.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        cursor = next.to_owned();
        stage.journal.submit(&Asked::new("sentiment_analysis", "{}").at(at + 1_000)).await;
        stage.fold().await;
    }
    let mut expected: Vec<&Asked> = tasks.iter().collect();
    expected.sort_by_key(|task| std::cmp::Reverse(task.at_us));
    let mut sorted = seen.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((seen.len(), sorted.len()), (60, 60));
    let times: Vec<i64> =
        seen.iter().map(|id| tasks.iter().find(|task| task.task.to_string() == *id).unwrap().at_us).collect();
    assert_eq!(times, expected.iter().map(|task| task.at_us).collect::<Vec<_>>());
    stage.end().await;
}

async fn every_wrong_parameter_is_named(stage: Stage) {
    let answer = stage
        .get("/api/tasks?status=done&from=x&to=y&batch_id=1&dead_lettered=maybe&limit=201&cursor=%3F&stauts=failed&task_type=%00")
        .await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let named: Vec<String> = answer.json()["errors"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(named, ["batch_id", "cursor", "dead_lettered", "from", "limit", "status", "stauts", "task_type", "to"]);
    stage.end().await;
}

/// Rows as the projector writes them, made by the server itself: 60,000 of them, of which a few are rare.
async fn fill(stage: &Stage) {
    let numbers = "SELECT a.n + 16 * b.n + 256 * c.n + 4096 * d.n n FROM (SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION \
        SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9 UNION SELECT 10 \
        UNION SELECT 11 UNION SELECT 12 UNION SELECT 13 UNION SELECT 14 UNION SELECT 15) a";
    let digits = numbers.split_once("FROM ").unwrap().1.trim_end_matches(" a");
    let numbers = format!("{numbers} JOIN {digits} b JOIN {digits} c JOIN {digits} d");
    let insert = format!(
        "INSERT INTO analysis_tasks (id, task_id, tenant, task_type, data_payload, model_version, status, attempt, error_code,
            batch_id, batch_line, dead_lettered, last_n, created_at, updated_at)
        SELECT (n + 1) * 1024, UUID(), 'default', IF(n % 5000 = 0, 'rare_type', 'sentiment_analysis'),
            CONCAT('{{\"text\":\"', REPEAT('x', 300), '\"}}'), 'v1.0', IF(n % 1000 = 7, 'failed', 'completed'), 1,
            IF(n % 1000 = 7, IF(n % 10000 = 7, 'rare', 'timeout'), NULL),
            IF(n BETWEEN 30000 AND 30999, '11111111-1111-4111-8111-111111111111', NULL), IF(n BETWEEN 30000 AND 30999, n - 29999, NULL),
            n % 1000 = 7, n + 3, TIMESTAMP'2026-01-01 00:00:00' + INTERVAL n SECOND, UTC_TIMESTAMP(6)
        FROM ({numbers}) numbers WHERE n < 60000"
    );
    sqlx::query(AssertSqlSafe(insert)).execute(&stage.pool).await.unwrap();
    sqlx::query("ANALYZE TABLE analysis_tasks").execute(&stage.pool).await.unwrap();
}

/// How many rows the server touches for a page, as far as it is more than `few`.
async fn touched(stage: &Stage, path: &str, few: u64) -> u64 {
    let reads = async || {
        let rows = sqlx::query("SHOW GLOBAL STATUS LIKE 'Handler_read%'").fetch_all(&stage.pool).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>(1).parse::<u64>().unwrap()).sum::<u64>()
    };
    // Others use the server, too: the least of several tries is nearest to this request alone.
    let mut least = u64::MAX;
    for _ in 0..10 {
        let before = reads().await;
        stage.read(path).await;
        least = least.min(reads().await - before);
        if least < few {
            break;
        }
    }
    least
}

async fn a_page_costs_a_page_however_many_tasks_there_are(stage: Stage) {
    fill(&stage).await;
    let first = stage.read("/api/tasks?limit=50").await;
    let mut deep = stage.read("/api/tasks?to=2026-01-01T01:00:00Z&limit=50").await["next"].clone();
    assert_eq!(first["tasks"].as_array().unwrap().len(), 50);
    let deep = deep.take();
    for query in [
        "",
        &format!("cursor={}", deep.as_str().unwrap()),
        "status=failed",
        "status=failed&from=2026-01-01T02:00:00Z&to=2026-01-01T08:00:00Z",
        "dead_lettered=true",
        "error_code=rare",
        "error_code=rare&status=failed",
        "task_type=rare_type",
        "task_type=rare_type&model_version=v1.0",
        "task_type=sentiment_analysis",
        "task_type=nothing",
        "batch_id=11111111-1111-4111-8111-111111111111",
        "from=2026-01-01T02:00:00Z&to=2026-01-01T03:00:00Z",
    ] {
        let rows = touched(&stage, &format!("/api/tasks?limit=50&{query}"), 5_000).await;
        assert!(rows < 5_000, "{query}: {rows} rows of 60,000 were touched");
    }
    stage.end().await;
}

on_each_server! {
    every_filter_lists_what_it_says_newest_first,
    pages_lose_and_repeat_nothing_also_when_times_are_equal_and_tasks_arrive,
    every_wrong_parameter_is_named,
    a_page_costs_a_page_however_many_tasks_there_are,
}
