//! The binary tensor data extension of the Open Inference Protocol: tensors as bytes behind the JSON.

use serde_json::{Value, json};

use crate::rig::{Answer, Rig};

const LENGTH: &str = "Inference-Header-Content-Length";

/// Texts as the protocol's clients send them.
fn bytes(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()).collect()
}

async fn send(rig: &Rig, json: &Value, binary: &[u8], length: Option<&str>) -> Answer {
    let text = json.to_string();
    let length = length.map_or(text.len().to_string(), str::to_owned);
    let request = rig.post("/v2/models/sentiment_analysis/infer").header(LENGTH, length);
    Answer::of(request.body([text.as_bytes(), binary].concat())).await
}

fn asked(size: usize, items: usize) -> Value {
    json!({ "parameters": { "binary_data_output": true }, "inputs": [
        { "name": "text", "datatype": "BYTES", "shape": [items], "parameters": { "binary_data_size": size } }
    ] })
}

#[tokio::test]
async fn texts_as_bytes_are_answered_as_bytes() {
    let rig = Rig::open().await;
    let binary = bytes(&["好 a b c", "x"]);
    let answer = send(&rig, &asked(binary.len(), 2), &binary, None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    let length: usize = answer.header(LENGTH).unwrap().parse().unwrap();
    let (head, mut rest) = answer.bytes.split_at(length);
    let head: Value = serde_json::from_slice(head).unwrap();
    let mut data = std::collections::BTreeMap::new();
    for output in head["outputs"].as_array().unwrap() {
        let size = output["parameters"]["binary_data_size"].as_u64().unwrap() as usize;
        let (mine, others) = rest.split_at(size);
        data.insert(output["name"].as_str().unwrap(), mine);
        rest = others;
        assert!(output.get("data").is_none());
    }
    assert!(rest.is_empty());
    assert_eq!(data["sentiment"], bytes(&["Positive", "Neutral"]));
    assert_eq!(data["words"], [4_i64.to_le_bytes(), 1_i64.to_le_bytes()].concat());
    assert_eq!(data["long"], [1, 0]);
    assert_eq!(data["score"], [0.2_f32.to_le_bytes(), 0.5_f32.to_le_bytes()].concat());
}

#[tokio::test]
async fn each_output_may_come_in_its_own_way() {
    let rig = Rig::open().await;
    let binary = bytes(&["a"]);
    let mut mixed = asked(binary.len(), 1);
    mixed["outputs"] = json!([{ "name": "words", "parameters": { "binary_data": false } }, { "name": "sentiment" }]);
    let answer = send(&rig, &mixed, &binary, None).await;
    let length: usize = answer.header(LENGTH).unwrap().parse().unwrap();
    let head: Value = serde_json::from_slice(&answer.bytes[..length]).unwrap();
    assert_eq!(head["outputs"][0]["data"], json!([1]));
    assert_eq!(answer.bytes[length..], bytes(&["Neutral"]));
    mixed["parameters"] = json!({});
    let answer = send(&rig, &mixed, &binary, None).await;
    assert_eq!(answer.header(LENGTH), None);
    assert_eq!(answer.body["outputs"][1]["data"], json!(["Neutral"]));
}

#[tokio::test]
async fn lengths_that_do_not_fit_are_refused() {
    let rig = Rig::open().await;
    let good = bytes(&["a"]);
    let cut = [&[200, 0, 0, 0][..], b"a"].concat();
    let beside = json!({ "inputs": [{ "name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"], "parameters": { "binary_data_size": 5 } }] });
    for (json, binary, length, status, part) in [
        (asked(5, 1), &good[..], Some("-1"), 400, "Inference-Header-Content-Length: must be a number"),
        (asked(5, 1), &good, Some("99999999999999999999"), 400, "Inference-Header-Content-Length: must be a number"),
        (asked(5, 1), &good, Some("100000"), 400, "within the body's"),
        (asked(5, 1), &good, Some("0"), 400, "as the protocol describes it"),
        (asked(5, 1), &good, Some("7"), 400, "as the protocol describes it"),
        (
            asked(usize::MAX, 1),
            &good,
            None,
            422,
            "/inputs/0/parameters/binary_data_size: is 18446744073709551615; 5 bytes are left",
        ),
        (asked(6, 1), &good, None, 422, "is 6; 5 bytes are left"),
        (asked(4, 1), &good, None, 422, "the data end within element 0"),
        (asked(5, 2), &good, None, 422, "the data end before element 1"),
        (asked(5, 1), &cut, None, 422, "the data end within element 0"),
        (asked(5, 1), &[1, 0, 0, 0, 0xff], None, 422, "element 0 is no UTF-8"),
        (asked(5, 1), &[&good[..], b"more"].concat(), None, 400, "4 bytes follow the data of the last tensor"),
        (beside, &good, None, 422, "/inputs/0/data: stands beside parameters/binary_data_size"),
    ] {
        let answer = send(&rig, &json, binary, length).await;
        answer.is_problem(status, part);
        assert!(answer.body["error"].is_string());
    }
    assert_eq!(send(&rig, &asked(good.len(), 1), &good, None).await.status, 200);
}
