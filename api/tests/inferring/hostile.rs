//! Requests that nobody means well with: each has an answer, and the next caller is served.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Answer, Rig, good};

#[tokio::test]
async fn bodies_of_any_shape_are_refused_by_what_is_wrong_with_them() {
    let rig = Rig::open().await;
    let deep = format!("{{\"task_type\":\"sentiment_analysis\",\"data\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let nested = format!(
        "{{\"task_type\":\"sentiment_analysis\",\"data\":{{\"text\":\"a\",\"x\":{}1{}}}}}",
        "[".repeat(40),
        "]".repeat(40)
    );
    let many = json!({ "task_type": "sentiment_analysis", "inputs": vec![json!({ "text": "a" }); 1_025] }).to_string();
    let key = json!({ "task_type": "sentiment_analysis", "data": {}, "key": "k".repeat(256) }).to_string();
    let faults = format!("{{{}}}", (0..1_000).map(|at| format!("\"f{at}\":1")).collect::<Vec<_>>().join(","));
    for (body, status, part) in [
        ("", 400, "the body is no JSON object"),
        ("null", 400, "expected a JSON object"),
        ("[]", 400, "expected a JSON object"),
        ("{\"task_type\":\"x\"", 400, "line 1 column"),
        ("{}", 422, "data: is missing; task_type: is missing"),
        ("{\"task_type\":5,\"data\":{}}", 422, "task_type: must be a string"),
        ("{\"task_type\":\"\\ud800\",\"data\":{}}", 422, "task_type: is no text"),
        ("{\"task_type\":\"x\",\"task_type\":\"x\",\"data\":{}}", 422, "task_type: is there twice"),
        ("{\"task_type\":\"x\",\"data\":{},\"inputs\":[]}", 422, "inputs: stands beside data"),
        ("{\"task_type\":\"x\",\"inputs\":[]}", 422, "inputs: must have 1 to 1024 documents, it has 0"),
        ("{\"task_type\":\"x\",\"inputs\":{}}", 422, "inputs: must be a list"),
        (&many, 422, "inputs: must have 1 to 1024 documents, it has 1025"),
        ("{\"task_type\":\"x\",\"data\":{},\"nonsense\":1}", 422, "nonsense: is not a field of this request"),
        (&faults, 422, "f999: is not a field"),
        ("{\"task_type\":\"x\",\"data\":{},\"key\":7}", 422, "key: must be a string"),
        (&key, 422, "key: must have 255 characters at most"),
        (&deep, 422, "nested deeper than 30 levels"),
        (&nested, 422, "nested deeper than 30 levels"),
        (
            "{\"task_type\":\"sentiment_analysis\",\"data\":{\"text\":\"a\",\"text\":\"b\"}}",
            422,
            "/text: is there twice",
        ),
    ] {
        let request = rig.post("/api/infer").header("content-type", "application/json").body(body.to_owned());
        let answer = Answer::of(request).await;
        answer.is_problem(status, part);
    }
    assert_eq!(rig.infer(&good()).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_no_text_of_another_kind_or_too_large_are_refused() {
    let rig = Rig::open().await;
    let json_body = || rig.post("/api/infer").header("content-type", "application/json");
    Answer::of(json_body().body(b"{\"task_type\":\"\xff\"}".to_vec())).await.is_problem(400, "is no UTF-8 from byte");
    Answer::of(json_body().header("content-encoding", "gzip").body("x")).await.is_problem(415, "Content-Encoding");
    Answer::of(rig.post("/api/infer").body("{}")).await.is_problem(415, "Content-Type: is missing");
    let form = rig.post("/api/infer").header("content-type", "application/x-www-form-urlencoded").body("task_type=x");
    Answer::of(form).await.is_problem(415, "application/json");
    let large = vec![b' '; (8 << 20) + 1];
    Answer::of(json_body().body(large)).await.is_problem(413, "larger than 8388608 bytes");
    assert_eq!(rig.infer(&good()).await.status, 200);
}

#[tokio::test]
async fn paths_and_methods_that_are_none_are_told_so() {
    let rig = Rig::open().await;
    for path in
        ["/", "/api", "/api/infer/x", "/v2x", "/v3", "/v2/nothing", "/v2/models/a/b/c", "/v2/models/a/versions/b/c/d"]
    {
        assert_eq!(rig.get(path).await.status, 404, "{path}");
    }
    for (path, allowed) in
        [("/api/infer", "POST"), ("/v2/models/sentiment_analysis/infer", "POST"), ("/v2/repository/index", "POST")]
    {
        let answer = rig.get(path).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{path}");
    }
    let answer = Answer::of(rig.post("/v2/health/live")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")));
}

#[tokio::test]
async fn what_is_no_http_ends_its_own_connection_only() {
    let rig = Rig::open().await;
    let body = good().to_string();
    let head = "POST /api/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    for (bytes, status) in [
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (format!("{head}content-length: -1\r\n\r\n{body}"), "HTTP/1.1 400"),
        (format!("{head}content-length: 5\r\ncontent-length: 6\r\n\r\n{body}"), "HTTP/1.1 400"),
        (format!("{head}content-length: 99999999999\r\nexpect: 100-continue\r\n\r\n"), "HTTP/1.1 413"),
        (format!("{head}transfer-encoding: chunked\r\n\r\nZZ\r\n{body}"), "HTTP/1.1 400"),
        (format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()), "HTTP/1.1 200"),
        (format!("{head}x: {}\r\n\r\n", "a".repeat(70_000)), "HTTP/1.1 431"),
    ] {
        let answer = rig.raw(bytes.as_bytes()).await;
        assert!(answer.starts_with(status), "{answer:?} to {:?}", &bytes[..bytes.len().min(200)]);
    }
    assert_eq!(rig.infer(&good()).await.status, 200);
}

#[tokio::test]
async fn a_body_that_drips_holds_nobody_up() {
    let rig = Rig::open().await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(rig.addr).await.unwrap();
        let head =
            "POST /api/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let answer = tokio::time::timeout(Duration::from_secs(5), rig.infer(&good())).await.unwrap();
    assert_eq!(answer.status, 200);
    // Whoever goes away in the middle leaves nothing behind.
    drop(slow);
    assert_eq!(rig.infer(&good()).await.status, 200);
}

#[tokio::test]
async fn requests_in_one_packet_are_answered_in_order() {
    let rig = Rig::open().await;
    let asked = |text: &str| {
        let body = json!({ "task_type": "sentiment_analysis", "data": { "text": text } }).to_string();
        format!(
            "POST /api/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    stream.write_all(format!("{}{}", asked("a"), asked("a b")).as_bytes()).await.unwrap();
    let mut answer = String::new();
    let mut piece = [0; 4096];
    while answer.matches("\"words\":").count() < 2 {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut piece)).await.unwrap().unwrap();
        answer.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    assert!(answer.find("\"words\":1").unwrap() < answer.find("\"words\":2").unwrap(), "{answer}");
}
