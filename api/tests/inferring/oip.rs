//! The Open Inference Protocol v2 with data in JSON, and what it tells of models.

use insightforge_schema::registry::bucket;
use serde_json::{Value, json};

use crate::rig::{Answer, Rig};

const INFER: &str = "/v2/models/sentiment_analysis/infer";

fn texts(texts: &[&str]) -> Value {
    json!({ "inputs": [{ "name": "text", "datatype": "BYTES", "shape": [texts.len()], "data": texts }] })
}

fn output<'a>(body: &'a Value, name: &str) -> &'a Value {
    body["outputs"].as_array().unwrap().iter().find(|output| output["name"] == name).unwrap()
}

#[tokio::test]
async fn texts_become_results_and_their_members() {
    let rig = Rig::open().await;
    let mut asked = texts(&["好 a", "b"]);
    asked["id"] = json!("42");
    let answer = Answer::of(rig.post(INFER).json(&asked)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = &answer.body;
    assert_eq!(
        (&body["model_name"], &body["model_version"], &body["id"]),
        (&json!("sentiment_analysis"), &json!("v1.0"), &json!("42"))
    );
    assert_eq!(body["parameters"]["reason"], "stable");
    let result = output(body, "result");
    assert_eq!((&result["datatype"], &result["shape"]), (&json!("BYTES"), &json!([2])));
    let first: Value = serde_json::from_str(result["data"][0].as_str().unwrap()).unwrap();
    assert_eq!(first["words"], 2);
    for (name, datatype, data) in [
        ("sentiment", "BYTES", json!(["Positive", "Neutral"])),
        ("words", "INT64", json!([2, 1])),
        ("long", "BOOL", json!([false, false])),
        ("score", "FP32", json!([1.0 / 3.0, 0.5])),
    ] {
        let output = output(body, name);
        assert_eq!((&output["datatype"], &output["shape"]), (&json!(datatype), &json!([2])), "{name}");
        let numbers = |value: &Value| {
            value
                .as_array()
                .unwrap()
                .iter()
                .map(|it| it.as_f64().map_or(it.clone(), |it| json!((it * 1e6).round())))
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers(&output["data"]), numbers(&data), "{name}");
    }
}

#[tokio::test]
async fn other_shapes_and_whole_documents_are_taken_too() {
    let rig = Rig::open().await;
    let one = |name: &str, shape: Value, data: Value| json!({ "inputs": [{ "name": name, "datatype": "BYTES", "shape": shape, "data": data }] });
    for asked in [
        one("text", json!([1]), json!(["a b"])),
        one("text", json!([1, 1]), json!([["a b"]])),
        one("text", json!([1, 1]), json!(["a b"])),
        one("document", json!([1]), json!(["{\"text\":\"a b\",\"tags\":[\"x\"]}"])),
        json!({ "inputs": [
            { "name": "text", "datatype": "BYTES", "shape": [1], "data": ["a b"] },
            { "name": "top", "datatype": "INT32", "shape": [1, 1], "data": [3] },
            { "name": "tags", "datatype": "BYTES", "shape": [1, 1], "data": ["x"] },
        ] }),
    ] {
        let answer = Answer::of(rig.post(INFER).json(&asked)).await;
        assert_eq!(answer.status, 200, "{answer:?} to {asked}");
        assert_eq!(output(&answer.body, "words")["data"], json!([2]));
    }
}

#[tokio::test]
async fn the_version_is_part_of_the_path_and_outputs_are_chosen() {
    let rig = Rig::open().await;
    let mut asked = texts(&["a"]);
    asked["outputs"] = json!([{ "name": "words" }]);
    for (path, version, reason) in [
        ("/v2/models/sentiment_analysis/versions/v2.0/infer", "v2.0", "exact"),
        ("/v2/models/sentiment_analysis/versions/stable/infer", "v1.0", "stable"),
    ] {
        let body = Answer::of(rig.post(path).json(&asked)).await.body;
        assert_eq!((&body["model_version"], &body["parameters"]["reason"]), (&json!(version), &json!(reason)));
        assert_eq!(body["outputs"].as_array().unwrap().len(), 1);
        assert_eq!(output(&body, "words")["data"], json!([1]));
    }
    rig.canary("v2.0", 10_000);
    asked["parameters"] = json!({ "key": "a caller" });
    assert_eq!(Answer::of(rig.post(INFER).json(&asked)).await.body["parameters"]["reason"], "canary");
}

#[tokio::test]
async fn a_caller_is_answered_by_the_version_that_answers_his_uploads() {
    let rig = Rig::open().await;
    rig.canary("v2.0", 5_000);
    let mut seen = std::collections::HashSet::new();
    for user in 0..12 {
        let of_canary = bucket("sentiment_analysis", &format!("user:{user}")) < 5_000;
        let expected = json!(if of_canary { "v2.0" } else { "v1.0" });
        let mut by_key = texts(&["a"]);
        by_key["parameters"] = json!({ "key": user.to_string() });
        let document = json!({ "text": "a", "user_id": user });
        let own = json!({ "inputs": [
            { "name": "document", "datatype": "BYTES", "shape": [1], "data": [document.to_string()] }
        ] });
        for asked in [by_key, own] {
            let answer = Answer::of(rig.post(INFER).json(&asked)).await;
            assert_eq!(answer.body["model_version"], expected, "{asked}: {answer:?}");
        }
        for asked in [
            json!({ "task_type": "sentiment_analysis", "data": { "text": "a" }, "key": user.to_string() }),
            json!({ "task_type": "sentiment_analysis", "data": document }),
            json!({ "task_type": "sentiment_analysis", "data": document.to_string() }),
            json!({ "task_type": "sentiment_analysis", "inputs": [document, { "text": "b" }] }),
        ] {
            let answer = rig.infer(&asked).await;
            assert_eq!(answer.body["model_version"], expected, "{asked}: {answer:?}");
        }
        seen.insert(of_canary);
    }
    assert_eq!(seen.len(), 2, "some are of the canary and some are not");
}

#[tokio::test]
async fn a_large_request_is_answered_like_a_small_one() {
    let rig = Rig::open().await;
    let long = "a ".repeat(9_000);
    let texts: Vec<&str> = std::iter::repeat_n(long.as_str(), 20).collect();
    let answer = Answer::of(rig.post(INFER).json(&self::texts(&texts))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(output(&answer.body, "words")["data"], json!(vec![9_000; 20]));
    let inputs: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
    let many = rig.infer(&json!({ "task_type": "sentiment_analysis", "inputs": inputs })).await;
    assert_eq!((many.status, &many.body["results"][19]["result"]["words"]), (200, &json!(9_000)));
    let broken = format!("{{\"task_type\":\"sentiment_analysis\",\"data\":[{}", "1,".repeat(100_000));
    let request = rig.client.post(format!("http://{}/api/infer", rig.addr)).header("content-type", "application/json");
    Answer::of(request.body(broken)).await.is_problem(400, "no JSON object");
}

#[tokio::test]
async fn what_is_wrong_is_told_in_the_words_of_the_protocol_s_clients_too() {
    let rig = Rig::open().await;
    let one = |input: Value| json!({ "inputs": [input] });
    let text = |part: Value| {
        let mut input = json!({ "name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"] });
        for (name, value) in part.as_object().unwrap() {
            input[name] = value.clone();
        }
        one(input)
    };
    let mut unknown_output = texts(&["a"]);
    unknown_output["outputs"] = json!([{ "name": "words" }, { "name": "logits" }]);
    let mut twice = texts(&["a"]);
    twice["outputs"] = json!([{ "name": "words" }, { "name": "words" }]);
    let first = texts(&["a"])["inputs"][0].clone();
    for (asked, status, part) in [
        (json!([]), 400, "as the protocol describes it"),
        (json!({}), 400, "missing field `inputs`"),
        (json!({ "inputs": [] }), 422, "/inputs: must have 1 to 64 tensors"),
        (json!({ "inputs": vec![first.clone(); 65] }), 422, "/inputs: must have 1 to 64 tensors"),
        (json!({ "inputs": [first.clone(), first] }), 422, "/inputs/1/name: is there twice"),
        (text(json!({ "shape": [-1] })), 400, "invalid value"),
        (text(json!({ "shape": [2] })), 422, "/inputs/0/data: must have 2 elements"),
        (text(json!({ "shape": [1_000_000, 1] })), 422, "/inputs/0/shape: has 1000000 items"),
        (
            text(json!({ "shape": [1, 18_446_744_073_709_551_615_u64] })),
            422,
            "/inputs/0/shape: has 18446744073709551615 elements; a tensor may have 1048576",
        ),
        (text(json!({ "shape": [1], "data": ["a", "b", "c"] })), 422, "as the shape says, and has more"),
        (
            one(
                json!({ "name": "document", "datatype": "BYTES", "shape": [1], "data": ["{\"text\":\"a\",\"text\":\"b\"}"] }),
            ),
            422,
            "item 0: ",
        ),
        (text(json!({ "data": ["a\0b"] })), 422, "item 0: "),
        (text(json!({ "datatype": "STRING" })), 422, "/inputs/0/datatype: must be one of"),
        (text(json!({ "datatype": "FP32" })), 422, "/inputs/0/data: has an element that is no FP32"),
        (text(json!({ "data": null })), 422, "/inputs/0/data: is missing"),
        (text(json!({ "data": [""] })), 422, "item 0: /text: "),
        (text(json!({ "shape": [1, 2], "data": ["a", "b"] })), 422, "item 0: /text: "),
        (text(json!({ "name": "other" })), 422, "item 0: "),
        (one(json!({ "name": "document", "datatype": "BYTES", "shape": [1], "data": ["{"] })), 422, "item 0: "),
        (
            one(json!({ "name": "document", "datatype": "INT8", "shape": [1], "data": [1] })),
            422,
            "/inputs/0/datatype: must be BYTES",
        ),
        (
            unknown_output,
            422,
            "/outputs/1/name: is no output of this model; it has result, long, score, sentiment, words",
        ),
        (twice, 422, "/outputs/1/name: is there twice"),
        (texts(&["a", "panic"]), 500, "panicked"),
        (texts(&["full"]), 429, "wait for this model"),
    ] {
        let answer = Answer::of(rig.post(INFER).json(&asked)).await;
        answer.is_problem(status, part);
        assert_eq!(answer.body["error"], answer.body["detail"], "{asked}");
    }
    for path in ["/v2/models/x/infer", "/v2/models/sentiment_analysis/versions/v9/infer", "/v2/models/x%20y/infer"] {
        let answer = Answer::of(rig.post(path).json(&texts(&["a"]))).await;
        answer.is_problem(404, "known are");
        assert!(answer.body["error"].is_string());
    }
}

#[tokio::test]
async fn what_there_is_and_whether_it_is_ready_is_told() {
    let rig = Rig::open().await;
    assert_eq!(rig.get("/v2").await.body["extensions"], json!(["binary_tensor_data", "model_repository"]));
    assert_eq!(rig.get("/v2/").await.body["name"], "insightforge");
    assert_eq!(rig.get("/v2/health/live").await.body, json!({ "live": true }));
    assert_eq!(rig.get("/v2/health/ready").await.body, json!({ "ready": true }));
    assert_eq!(rig.get("/v2/models").await.body, json!({ "models": ["sentiment_analysis"] }));
    let model = rig.get("/v2/models/sentiment_analysis").await.body;
    assert_eq!(model["versions"], json!(["v1.0", "v2.0", "stable", "latest"]));
    assert_eq!(model["inputs"], json!([{ "name": "text", "datatype": "BYTES", "shape": [-1] }]));
    assert_eq!(model["outputs"][0], json!({ "name": "result", "datatype": "BYTES", "shape": [-1] }));
    for (path, status) in [
        ("/v2/models/sentiment_analysis/ready", 200),
        ("/v2/models/sentiment_analysis/versions/v2.0/ready", 200),
        ("/v2/models/sentiment_analysis/versions/v3.0/ready", 503),
        ("/v2/models/sentiment_analysis/versions/v9/ready", 404),
        ("/v2/models/x", 404),
    ] {
        assert_eq!(rig.get(path).await.status, status, "{path}");
    }
    for (body, versions) in [("", 3), ("{}", 3), ("{\"ready\":true}", 2)] {
        let list = Answer::of(rig.post("/v2/repository/index").body(body)).await.body;
        assert_eq!(list.as_array().unwrap().len(), versions, "{list}");
        assert_eq!(list[0], json!({ "name": "sentiment_analysis", "version": "v1.0", "state": "READY", "reason": "" }));
    }
    Answer::of(rig.post("/v2/repository/index").body("[")).await.is_problem(400, "must be a JSON object");
}
