//! One grammar for lists, counts, exports and insights, on real servers.

use axum::Router;
use insightforge_schema::event::now_us;
use insightforge_schema::id::Partition;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::stage::{Asked, Stage, on_each_server, post};

on_each_server!(
    every_word_finds_what_it_says,
    a_text_is_looked_for_in_a_bounded_number_of_tasks_and_the_search_goes_on,
    counts_exports_and_insights_are_of_the_same_tasks,
    one_task_is_found_at_once_among_a_hundred_thousand,
    of_more_than_are_counted_the_newest_are_counted_where_a_time_is_asked_for,
    all_that_a_query_means_are_counted_and_then_cancelled_or_repeated,
    what_a_search_cannot_be_is_no_act_on_everything,
    an_act_on_many_passes_by_what_it_cannot_be_done_to_and_ends,
    an_act_on_a_text_reaches_what_lies_behind_the_tasks_that_one_request_looks_into,
    what_was_done_before_no_more_may_wait_is_told_and_the_rest_goes_on_there,
);

/// The ids of a query's tasks, over all pages.
async fn found(stage: &Stage, q: &str) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = stage.read(&format!("/api/tasks?limit=3&cursor={cursor}&q={}", escaped(q))).await;
        ids.extend(page["tasks"].as_array().unwrap().iter().map(|task| task["task_id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return ids,
        }
    }
}

fn escaped(q: &str) -> String {
    url::form_urlencoded::byte_serialize(q.as_bytes()).collect()
}

async fn every_word_finds_what_it_says(stage: Stage) {
    let hour_us = 3_600_000_000;
    let batch = uuid::Uuid::new_v4();
    let old = Asked::new("acting", r#"{"text":"Old Things"}"#).at(now_us() - 3 * hour_us);
    let failed = Asked::new("acting", r#"{"text":"好消息"}"#).at(now_us() - hour_us);
    let done = Asked::new("other", r#"{"text":"100% _new_"}"#).version("v2").line(batch, 1);
    stage.journal.submit_all(&[old.clone(), failed.clone(), done.clone()]).await;
    stage.journal.fail(&failed, "timeout").await;
    stage.journal.complete(&done, r#"{"sentiment":"Positive","score":0.9}"#).await;
    stage.fold().await;
    let id = failed.task.to_string();
    for (q, expected) in [
        ("", vec![&done, &failed, &old]),
        ("status:failed", vec![&failed]),
        ("status:open", vec![&old]),
        ("status:dead", vec![&failed]),
        ("-status:failed", vec![&done, &old]),
        ("status:failed,completed", vec![&done, &failed]),
        ("type:acting", vec![&failed, &old]),
        ("type:acting -status:failed", vec![&old]),
        ("model:v2", vec![&done]),
        ("error:timeout", vec![&failed]),
        ("-error:timeout", vec![&done, &old]),
        (&format!("batch:{batch}"), vec![&done]),
        (&format!("-batch:{batch}"), vec![&failed, &old]),
        (&format!("id:{id}"), vec![&failed]),
        (&id[..30], vec![&failed]),
        (&id.to_uppercase().replace('-', ""), vec![&failed]),
        ("age:>2h", vec![&old]),
        ("age:<2h", vec![&done, &failed]),
        ("age:>30m age:<2h", vec![&failed]),
        ("text:\"old things\"", vec![&old]),
        ("text:TIMEOUT", vec![&failed]),
        ("好消息", vec![&failed]),
        ("text:\"100% _new_\"", vec![&done]),
        ("text:\"1000\"", vec![]),
        ("-text:old", vec![&done, &failed]),
        ("-text:timeout status:open", vec![&old]),
        ("text:\"' OR 1=1 -- \"", vec![]),
        ("type:\"' OR 1=1 -- \"", vec![]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(|asked| asked.task.to_string()).collect();
        assert_eq!(found(&stage, q).await, expected, "{q}");
    }
    let wrong = stage.get(&format!("/api/tasks?q={}", escaped("type:a statsu:failed"))).await;
    assert_eq!(wrong.status, 422);
    let told = wrong.json()["errors"]["q"][0].as_str().unwrap().to_owned();
    assert!(told.starts_with("at character 8, `statsu:failed`: `statsu` is not a word"), "{told}");
    stage.end().await;
}

async fn a_text_is_looked_for_in_a_bounded_number_of_tasks_and_the_search_goes_on(stage: Stage) {
    fill(&stage, 45_000).await;
    let needle = "INSERT INTO analysis_tasks (id, task_id, tenant, task_type, data_payload, model_version, status, attempt, \
        dead_lettered, last_n, created_at, updated_at) VALUES (7, UUID(), 'default', 'acting', '{\"text\":\"needle\"}', 'v1', \
        'pending', 0, 0, 1, '2026-01-01', '2026-01-01')";
    sqlx::query(needle).execute(&stage.pool).await.unwrap();
    let (mut cursor, mut pages) = (String::new(), Vec::new());
    loop {
        let page = stage.read(&format!("/api/tasks?q=text:NEEDLE&cursor={cursor}")).await;
        pages.push((page["tasks"].as_array().unwrap().len(), page["searched"].clone()));
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    let more = json!({ "tasks": 20_000, "all": false });
    assert_eq!(pages, [(0, more.clone()), (0, more), (1, json!({ "tasks": 20_000, "all": true }))]);
    let exported = stage.get("/api/tasks/export?q=text:needle&format=jsonl").await;
    assert_eq!(exported.text.lines().count(), 1, "an export goes through all of them");
    stage.end().await;
}

async fn counts_exports_and_insights_are_of_the_same_tasks(stage: Stage) {
    let said = [
        r#"{"sentiment":"Positive","score":0.9}"#,
        r#"{"sentiment":"Negative","score":0.1}"#,
        r#"{"entities":[{"text":"台灣","type":"LOCATION","start":0}],"model_info":"m"}"#,
    ];
    let documents = ["{\"text\":\"=1+1\"}", "{\"text\":\"a, \\\"b\\\"\"}", "{}"];
    let tasks: Vec<Asked> = (0..250).map(|n| Asked::new("acting", documents[n % 3])).collect();
    stage.journal.submit_all(&tasks).await;
    for (n, task) in tasks.iter().enumerate().take(30) {
        stage.journal.complete(task, said[n % 3]).await;
    }
    for task in &tasks[30..35] {
        stage.journal.fail(task, "timeout").await;
    }
    stage.fold().await;

    let facets = stage.read("/api/tasks/facets").await;
    assert_eq!((&facets["matched"], &facets["matched_is_exact"]), (&json!(250), &json!(true)));
    let pending = json!({ "value": "pending", "count": 215 });
    assert_eq!(
        facets["status"],
        json!([pending, { "value": "completed", "count": 30 }, { "value": "failed", "count": 5 }])
    );
    assert_eq!(facets["error_code"], json!([{ "value": "timeout", "count": 5 }]));
    assert_eq!(stage.read("/api/tasks/facets?q=status:failed").await["matched"], 5);
    assert_eq!(stage.read("/api/tasks/facets?q=text:%22%3D1%2B1%22").await["matched"], 84);

    let lines = stage.get("/api/tasks/export?format=jsonl").await;
    assert_eq!(lines.headers["content-type"], "application/x-ndjson");
    let lines: Vec<Value> = lines.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 250);
    let completed = lines.iter().find(|line| line["status"] == "completed").unwrap();
    assert!(completed["result"].is_object() && completed["data"].is_object());
    let table = stage.get("/api/tasks/export?q=status:completed,failed").await;
    assert_eq!(table.headers["content-disposition"], "attachment; filename=\"tasks.csv\"");
    let mut reader = csv::Reader::from_reader(table.text.as_bytes());
    assert_eq!(reader.headers().unwrap().get(0), Some("task_id"));
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 35);
    let first = rows.iter().find(|row| row[0] == *tasks[1].task.to_string()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&first[12]).unwrap(), json!({ "text": "a, \"b\"" }));

    let insight = stage.read("/api/insight?q=type:acting").await;
    assert_eq!((&insight["matched"], &insight["sampled"]), (&json!(30), &json!(30)));
    assert_eq!(insight["labels"][0], json!({ "label": "Negative", "count": 10, "share": 0.5 }));
    assert!((insight["mean_score"].as_f64().unwrap() - 0.5).abs() < 1e-9);
    assert_eq!(insight["entities"], json!([{ "text": "台灣", "type": "LOCATION", "count": 10 }]));
    assert_eq!(insight["scores"][9]["count"], 10);
    assert_eq!(insight["models"], json!([{ "task_type": "acting", "model_version": "v1.0", "count": 30 }]));
    stage.end().await;
}

async fn one_task_is_found_at_once_among_a_hundred_thousand(stage: Stage) {
    fill(&stage, 100_000).await;
    let (wanted,): (String,) =
        sqlx::query_as("SELECT task_id FROM analysis_tasks WHERE id = 51200").fetch_one(&stage.pool).await.unwrap();
    sqlx::query("UPDATE analysis_tasks SET model_version = 'rare' WHERE id = 51200")
        .execute(&stage.pool)
        .await
        .unwrap();
    for q in [
        "model:rare".to_owned(),
        "model:rare status:completed".to_owned(),
        wanted.clone(),
        wanted[..13].to_owned(),
        format!("id:{wanted} type:acting"),
        format!("-status:failed {wanted}"),
    ] {
        // Its key is looked up; the rest of the time is the machine's, which has other things to do.
        let mut fastest = std::time::Duration::MAX;
        for _ in 0..5 {
            let began = std::time::Instant::now();
            assert_eq!(found(&stage, &q).await, std::slice::from_ref(&wanted), "{q}");
            fastest = fastest.min(began.elapsed());
        }
        assert!(fastest.as_millis() < 1_000, "{q}: {fastest:?}");
    }
    stage.end().await;
}

async fn of_more_than_are_counted_the_newest_are_counted_where_a_time_is_asked_for(stage: Stage) {
    fill(&stage, 60_000).await;
    // The last key, and the oldest time.
    let age = "UPDATE analysis_tasks SET model_version = 'old', created_at = '2026-01-15' WHERE id = 60000 * 1024";
    sqlx::query(age).execute(&stage.pool).await.unwrap();
    for (q, old) in [
        ("", json!([{ "value": "v1", "count": 49_999 }, { "value": "old", "count": 1 }])),
        ("?q=from:2026-01-01", json!([{ "value": "v1", "count": 50_000 }])),
    ] {
        assert_eq!(stage.read(&format!("/api/tasks/facets{q}")).await["model_version"], old, "{q}");
    }
    stage.end().await;
}

/// Rows of tasks that nobody submitted, one a second.
async fn fill(stage: &Stage, count: u64) {
    let digits = "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 \
        UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let fill = format!(
        "INSERT INTO analysis_tasks (id, task_id, tenant, task_type, data_payload, model_version, status, attempt, \
         dead_lettered, last_n, created_at, updated_at) \
         SELECT n * 1024, LOWER(CONCAT(LPAD(HEX(n * 2654435761 % 4294967296), 8, '0'), '-0000-7000-8000-', LPAD(HEX(n), 12, '0'))), 'default', \
         'acting', '{{\"text\":\"hay\"}}', 'v1', 'completed', 1, 0, n, '2026-02-01' + INTERVAL n SECOND, '2026-02-01' \
         FROM (SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d n \
         FROM {digits} a, {digits} b, {digits} c, {digits} e, {digits} f) numbers WHERE n <= {count}"
    );
    sqlx::query(AssertSqlSafe(fill)).execute(&stage.pool).await.unwrap();
    sqlx::query("ANALYZE TABLE analysis_tasks").execute(&stage.pool).await.unwrap();
}

async fn all_that_a_query_means_are_counted_and_then_cancelled_or_repeated(stage: Stage) {
    let waiting: Vec<Asked> = (0..5).map(|_| Asked::new("acting", r#"{"text":"stale"}"#)).collect();
    let fresh = Asked::new("acting", r#"{"text":"wanted"}"#);
    let failed = Asked::new("acting", r#"{"text":"stale"}"#);
    let done = Asked::new("acting", r#"{"text":"stale"}"#);
    let all: Vec<Asked> = waiting.iter().chain([&fresh, &failed, &done]).cloned().collect();
    stage.journal.submit_all(&all).await;
    stage.journal.fail(&failed, "timeout").await;
    stage.journal.complete(&done, "{}").await;
    stage.fold().await;

    // Unless it is told to, it only counts.
    let counted = stage.post("/api/tasks/cancel", &json!({ "q": "text:stale" })).await.json();
    assert_eq!((&counted["dry_run"], &counted["matched"], &counted["done"]), (&json!(true), &json!(5), &json!(0)));
    assert_eq!(found(&stage, "status:cancelled").await.len(), 0);
    let some = json!({ "q": "text:stale", "limit": 3, "dry_run": false, "reason": "too old to matter" });
    let some = stage.post("/api/tasks/cancel", &some).await.json();
    assert_eq!((&some["matched"], &some["more"], &some["done"]), (&json!(3), &json!(true), &json!(3)));
    stage.fold().await;
    let rest = json!({ "q": "text:stale", "dry_run": false });
    let rest = stage.post("/api/tasks/cancel", &rest).await.json();
    assert_eq!((&rest["matched"], &rest["more"], &rest["done"]), (&json!(2), &json!(false), &json!(2)));
    stage.fold().await;
    assert_eq!(found(&stage, "status:cancelled").await.len(), 5);
    assert_eq!(found(&stage, "status:open").await, [fresh.task.to_string()]);
    let mut reasons = Vec::new();
    for task in &waiting {
        let events = stage.read(&format!("/api/tasks/{}/events", task.task)).await;
        reasons.push(events["events"][1]["data"]["reason"].as_str().unwrap().to_owned());
    }
    assert_eq!(reasons.iter().filter(|reason| *reason == "too old to matter").count(), 3);

    let again = json!({ "q": "type:acting", "dry_run": false, "reason": "the model is back" });
    let again = stage.post("/api/tasks/retry", &again).await.json();
    assert_eq!((&again["matched"], &again["done"]), (&json!(6), &json!(6)), "{again}");
    stage.fold().await;
    let twice = stage.post("/api/tasks/retry", &json!({ "q": "type:acting" })).await.json();
    assert_eq!(twice["matched"], 0, "what was repeated is not repeated again");
    stage.end().await;
}

async fn what_a_search_cannot_be_is_no_act_on_everything(stage: Stage) {
    stage.journal.submit_all(&[Asked::new("acting", "{}")]).await;
    stage.fold().await;
    for (body, field) in [
        (json!({ "q": "statsu:failed", "dry_run": false }), "q"),
        (json!({ "q": 5, "dry_run": false }), "q"),
        (json!({ "query": "type:acting", "dry_run": false }), "query"),
        (json!({ "limit": 1001, "dry_run": false }), "limit"),
        (json!({ "dry_run": "no" }), "dry_run"),
    ] {
        let refused = stage.post("/api/tasks/cancel", &body).await;
        assert_eq!(refused.status.as_u16(), 422, "{body}");
        assert!(refused.json()["errors"][field].is_array(), "{body}: {}", refused.text);
    }
    stage.fold().await;
    assert_eq!(found(&stage, "status:open").await.len(), 1);
    let (outside, _) = stage.behind_an_internal_listener().await;
    let request = axum::http::Request::post("/api/tasks/cancel").body(axum::body::Body::empty()).unwrap();
    // The path of one task with another method.
    assert!(matches!(crate::stage::ask(&outside, request).await.status.as_u16(), 404 | 405));
    stage.end().await;
}

/// The sums of a bulk act over all its pages, from a cursor on: pages, done, already, left.
async fn over_all_pages(router: &Router, path: &str, body: &Value, cursor: &Value) -> [u64; 4] {
    let (mut sums, mut cursor) = ([0; 4], cursor.clone());
    loop {
        let mut body = body.clone();
        body["cursor"] = cursor;
        let answer = post(router, path, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let acted = answer.json();
        let of = |name: &str| acted[name].as_u64().unwrap();
        assert_eq!(of("matched"), of("done") + of("already") + of("left"), "{acted}");
        let page = [1, of("done"), of("already"), of("left")];
        sums = std::array::from_fn(|at| sums[at] + page[at]);
        assert_eq!(acted["more"], acted["next"].is_string(), "{acted}");
        assert!(sums[0] < 20, "it does not end: {acted}");
        cursor = acted["next"].clone();
        if cursor.is_null() {
            return sums;
        }
    }
}

async fn failed(stage: &Stage, asked: &[Asked]) {
    stage.journal.submit_all(asked).await;
    for task in asked {
        stage.journal.fail(task, "timeout").await;
    }
    stage.fold().await;
}

async fn an_act_on_many_passes_by_what_it_cannot_be_done_to_and_ends(stage: Stage) {
    let asked = |age_s: i64| Asked::new("acting", "{}").at(now_us() - age_s * 1_000_000);
    // A secret that this installation's key does not open cannot be sealed anew.
    let lost: Vec<Asked> = (0..5).map(|at| asked(at).webhook("https://192.0.2.1/")).collect();
    let good: Vec<Asked> = (10..13).map(asked).collect();
    failed(&stage, &[lost, good].concat()).await;

    let body = json!({ "q": "type:acting", "limit": 2, "dry_run": false });
    let path = "/api/tasks/retry";
    assert_eq!(over_all_pages(&stage.router, path, &body, &Value::Null).await, [4, 3, 0, 5]);
    // Nothing of it is folded yet.
    assert_eq!(over_all_pages(&stage.router, path, &body, &Value::Null).await, [4, 0, 3, 5]);
    stage.fold().await;
    assert_eq!(over_all_pages(&stage.router, path, &body, &Value::Null).await, [3, 0, 0, 5]);
    let counted = stage.post(path, &json!({ "q": "type:acting" })).await.json();
    assert_eq!((&counted["matched"], &counted["next"]), (&json!(5), &Value::Null), "{counted}");

    let cancel = json!({ "q": "type:acting", "limit": 2, "dry_run": false });
    assert_eq!(over_all_pages(&stage.router, "/api/tasks/cancel", &cancel, &Value::Null).await, [2, 3, 0, 0]);
    assert_eq!(over_all_pages(&stage.router, "/api/tasks/cancel", &cancel, &Value::Null).await, [2, 0, 3, 0]);
    let wrong = stage.post(path, &json!({ "cursor": "x" })).await;
    assert_eq!((wrong.status.as_u16(), wrong.json()["errors"]["cursor"].is_array()), (422, true));
    stage.end().await;
}

async fn an_act_on_a_text_reaches_what_lies_behind_the_tasks_that_one_request_looks_into(stage: Stage) {
    let long_ago = now_us() - 300 * 86_400_000_000;
    let old: Vec<Asked> = (1..4)
        .map(|at| Asked::new("acting", r#"{"text":"needle"}"#).at(long_ago + i64::from(at)))
        .map(|asked| asked.placed(Partition(1), stage.journal.partitions))
        .collect();
    stage.journal.submit_all(&old).await;
    stage.fold().await;
    fill(&stage, 25_000).await;
    let open = "UPDATE analysis_tasks SET created_at = created_at + INTERVAL 10 YEAR, \
        status = IF(id % 2048 = 0, 'pending', 'processing') WHERE status = 'completed'";
    sqlx::query(open).execute(&stage.pool).await.unwrap();

    let counted = stage.post("/api/tasks/cancel", &json!({ "q": "text:needle" })).await.json();
    assert_eq!((&counted["matched"], &counted["more"]), (&json!(0), &json!(true)), "{counted}");
    let rest = json!({ "q": "text:needle", "cursor": counted["next"] });
    let rest = stage.post("/api/tasks/cancel", &rest).await.json();
    assert_eq!((&rest["matched"], &rest["more"]), (&json!(3), &json!(false)), "{rest}");
    let body = json!({ "q": "text:needle", "limit": 2, "dry_run": false });
    assert_eq!(over_all_pages(&stage.router, "/api/tasks/cancel", &body, &Value::Null).await, [3, 3, 0, 0]);
    stage.fold().await;
    assert_eq!(found(&stage, "status:cancelled").await.len(), 3);
    stage.end().await;
}

async fn what_was_done_before_no_more_may_wait_is_told_and_the_rest_goes_on_there(stage: Stage) {
    let tasks: Vec<Asked> = (0..20).map(|_| Asked::new("acting", "{}")).collect();
    failed(&stage, &tasks).await;
    let narrow = stage.with_room_for(10).await;
    let body = json!({ "dry_run": false });
    let full = post(&narrow, "/api/tasks/retry", &body).await;
    assert_eq!((full.status.as_u16(), full.headers.contains_key("retry-after")), (429, true), "{}", full.text);
    let acted = &full.json()["acted"];
    let done = acted["done"].as_u64().unwrap();
    assert!((8..=10).contains(&done) && acted["next"].is_string(), "{acted}");
    let [_, rest, already, left] = over_all_pages(&stage.router, "/api/tasks/retry", &body, &acted["next"]).await;
    assert_eq!((done + rest, left), (20, 0));
    // Beside the first that found no room some did.
    assert!(already < 8, "{already}");
    stage.fold().await;
    assert_eq!(found(&stage, "status:open").await.len(), 20);
    stage.end().await;
}
