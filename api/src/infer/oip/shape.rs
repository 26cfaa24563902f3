//! What a model's documents look like as tensors; it follows from the package's schemas.

use serde_json::{Value, json};

use super::request::DOCUMENT;
use super::tensor::Datatype;

/// The output that holds whole results.
pub(super) const RESULT: &str = "result";

/// The tensors of a model.
#[derive(Debug, PartialEq)]
pub(crate) struct Shape {
    inputs: Vec<Member>,
    outputs: Vec<Member>,
    /// Every document consists of tensors: none of its required members is of another kind.
    whole: bool,
}

/// A member of the input or of the result, as a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    /// `None` for what is no tensor.
    pub(super) datatype: Option<Datatype>,
    /// Sizes within an item; `-1` for any.
    inner: Vec<i64>,
    required: bool,
    is_list: bool,
}

impl Shape {
    pub(crate) fn of(input: &Value, output: &Value) -> Self {
        let inputs = members(input);
        let required = |member: &&Member| member.required;
        let whole = inputs.iter().any(|member| member.required)
            && inputs.iter().filter(required).all(|member| member.datatype.is_some())
            && names(input, "required").all(|name| inputs.iter().any(|member| member.name == name));
        let is_output = |member: &Member| {
            member.required && member.datatype.is_some() && member.name != RESULT && !member.inner.contains(&-1)
        };
        let outputs = members(output).into_iter().filter(is_output).collect();
        Self { inputs, outputs, whole }
    }

    pub(super) fn has_member(&self, name: &str) -> bool {
        self.inputs.iter().any(|member| member.name == name)
    }

    /// Whether the member is a list even when it has one element.
    pub(super) fn is_list(&self, name: &str) -> bool {
        self.inputs.iter().any(|member| member.name == name && member.is_list)
    }

    /// What can be asked for beside [`RESULT`].
    pub(super) fn outputs(&self) -> &[Member] {
        &self.outputs
    }

    /// The metadata's `inputs`.
    pub(super) fn describe_inputs(&self) -> Value {
        if self.whole {
            self.inputs.iter().filter(|member| member.required).map(Member::describe).collect()
        } else {
            json!([{ "name": DOCUMENT, "datatype": "BYTES", "shape": [-1] }])
        }
    }

    /// The metadata's `outputs`.
    pub(super) fn describe_outputs(&self) -> Value {
        let whole = json!({ "name": RESULT, "datatype": "BYTES", "shape": [-1] });
        std::iter::once(whole).chain(self.outputs.iter().map(Member::describe)).collect()
    }
}

impl Member {
    fn describe(&self) -> Value {
        let shape: Vec<i64> = std::iter::once(-1).chain(self.inner.iter().copied()).collect();
        json!({ "name": self.name, "datatype": self.datatype.map(Datatype::name), "shape": shape })
    }

    /// Sizes within an item of an output.
    pub(super) fn sizes(&self) -> impl Iterator<Item = usize> {
        self.inner.iter().filter_map(|size| usize::try_from(*size).ok())
    }
}

fn members(schema: &Value) -> Vec<Member> {
    let required: Vec<&str> = names(schema, "required").collect();
    let properties = schema["properties"].as_object();
    let members = properties.into_iter().flatten().map(|(name, schema)| {
        let (datatype, inner) = tensor(schema);
        let is_list = types(schema).any(|kind| kind == "array");
        Member { name: name.clone(), datatype, inner, required: required.contains(&name.as_str()), is_list }
    });
    members.collect()
}

/// Datatype and inner sizes of a member.
fn tensor(schema: &Value) -> (Option<Datatype>, Vec<i64>) {
    match schema["type"].as_str() {
        Some("string") => (Some(Datatype::Bytes), Vec::new()),
        Some("number") => (Some(Datatype::Fp32), Vec::new()),
        Some("integer") => (Some(Datatype::Int64), Vec::new()),
        Some("boolean") => (Some(Datatype::Bool), Vec::new()),
        Some("array") => {
            let (datatype, mut inner) = tensor(&schema["items"]);
            let (least, most) = (schema["minItems"].as_i64(), schema["maxItems"].as_i64());
            inner.insert(0, if least == most { least.unwrap_or(-1) } else { -1 });
            (datatype, inner)
        }
        // One of several texts: a label.
        None if is_label(schema) => (Some(Datatype::Bytes), Vec::new()),
        _ => (None, Vec::new()),
    }
}

fn is_label(schema: &Value) -> bool {
    schema["enum"].as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_string))
}

fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let one = schema["type"].as_str();
    one.into_iter().chain(names(schema, "type"))
}

fn names<'a>(schema: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    schema[list].as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_follow_from_the_schemas() {
        let input = json!({ "required": ["text"], "properties": { "text": { "type": "string" }, "top": { "type": "integer" } } });
        let output = json!({ "required": ["sentiment", "score", "vector", "entities", "result"], "properties": {
            "sentiment": { "enum": ["Negative", "Positive"] }, "score": { "type": "number" }, "model_info": { "type": "string" },
            "vector": { "type": "array", "items": { "type": "number" }, "minItems": 3, "maxItems": 3 },
            "entities": { "type": "array", "items": { "type": "object" } }, "result": { "type": "number" } } });
        let shape = Shape::of(&input, &output);
        assert_eq!(shape.describe_inputs(), json!([{ "name": "text", "datatype": "BYTES", "shape": [-1] }]));
        let outputs = shape.describe_outputs();
        let described: Vec<String> = outputs
            .as_array()
            .unwrap()
            .iter()
            .map(|it| format!("{} {} {}", it["name"], it["datatype"], it["shape"]))
            .collect();
        assert_eq!(
            described,
            [
                "\"result\" \"BYTES\" [-1]",
                "\"score\" \"FP32\" [-1]",
                "\"sentiment\" \"BYTES\" [-1]",
                "\"vector\" \"FP32\" [-1,3]"
            ]
        );
    }

    #[test]
    fn what_is_no_tensor_is_asked_as_whole_documents() {
        let document = json!([{ "name": "document", "datatype": "BYTES", "shape": [-1] }]);
        for input in [
            json!({}),
            json!({ "type": "object" }),
            json!({ "required": ["rows"], "properties": { "rows": { "type": "array", "items": { "type": "object" } } } }),
            json!({ "required": ["text", "other"], "properties": { "text": { "type": "string" } } }),
            json!({ "properties": { "text": { "type": "string" } } }),
            json!({ "required": 5, "properties": [1] }),
        ] {
            assert_eq!(Shape::of(&input, &json!({})).describe_inputs(), document, "{input}");
        }
        let rows = json!({ "required": ["rows"], "properties": { "rows": { "type": "array", "items": {
            "type": "array", "items": { "type": "number" }, "minItems": 4, "maxItems": 4 } } } });
        let shape = Shape::of(&rows, &json!({}));
        assert_eq!(shape.describe_inputs(), json!([{ "name": "rows", "datatype": "FP32", "shape": [-1, -1, 4] }]));
        assert!(shape.is_list("rows"));
    }
}
