//! A model that can be asked: documents are judged by the package's schema, panics end here, and what is no answer does
//! not get out.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::Value;

use crate::model::{InferError, Model, Prepared, RunsOn};
use crate::open::OpenError;
use crate::package::{Package, PackageError};

/// The longest result document, in bytes: it goes into one event and one row.
pub const MAX_RESULT_BYTES: usize = 1 << 20;
/// Numbers of a check may differ by this much: engines add up in different order.
const TOLERANCE: f64 = 1e-3;

/// A package with its model.
pub struct Loaded {
    pub package: Arc<Package>,
    /// It runs in a process of its own, and keeps to its time by itself.
    pub(crate) apart: bool,
    model: Box<dyn Model>,
    input: jsonschema::Validator,
}

impl Loaded {
    /// Puts a model behind its package's schema.
    ///
    /// # Errors
    /// [`OpenError`] when a schema is none.
    pub fn new(package: Arc<Package>, model: Box<dyn Model>) -> Result<Self, OpenError> {
        let input = validator("input.schema", &package.input_schema()?)?;
        validator("output.schema", &package.output_schema()?)?;
        Ok(Self { package, apart: false, model, input })
    }

    #[must_use]
    pub fn runs_on(&self) -> RunsOn {
        self.model.runs_on()
    }

    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.model.resident_bytes()
    }

    /// Reads an input document: JSON text.
    ///
    /// # Errors
    /// [`InferError`] `bad_input`, which names the place by JSON pointer.
    pub fn read(&self, document: &str) -> Result<Prepared, InferError> {
        let document =
            serde_json::from_str(document).map_err(|error| InferError::bad_input(format!("no JSON: {error}")))?;
        self.prepare(&document)
    }

    /// Judges a document by the schema and prepares it.
    ///
    /// # Errors
    /// As [`Loaded::read`].
    pub fn prepare(&self, document: &Value) -> Result<Prepared, InferError> {
        if let Some(error) = self.input.iter_errors(document).next() {
            return Err(InferError::bad_input(explain(&error)));
        }
        let manifest = &self.package.manifest;
        if let Some(pointer) = manifest.text()
            && let Some(text) = document.pointer(pointer).and_then(Value::as_str)
        {
            judge_text(text, manifest.input.max_chars)
                .map_err(|what| InferError::bad_input(format!("{pointer}: {what}")))?;
        }
        catch_unwind(AssertUnwindSafe(|| self.model.prepare(document)))
            .unwrap_or_else(|_| Err(panicked("the model panicked while it read this input")))
    }

    /// Answers each prepared input, in order. A batch that panics or has the wrong number of answers is asked again one
    /// by one, so that a poisonous input fails alone.
    #[must_use]
    pub fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, InferError>> {
        match self.call(batch) {
            Ok(answers) => answers,
            Err(_) if batch.len() > 1 => {
                batch.iter().map(|one| self.call(std::slice::from_ref(one)).and_then(|mut it| it.remove(0))).collect()
            }
            Err(error) => vec![Err(error)],
        }
    }

    /// Asks the package's own checks.
    ///
    /// # Errors
    /// [`OpenError::Check`] with the first that is answered otherwise.
    pub fn check(&self) -> Result<(), OpenError> {
        for check in &self.package.manifest.checks {
            let wrong = |reason: String| OpenError::Check { input: check.input.clone(), reason };
            let prepared = self.read(&check.input).map_err(|error| wrong(error.to_string()))?;
            let answer = self.infer(std::slice::from_ref(&prepared)).remove(0).map_err(|e| wrong(e.to_string()))?;
            let answer: Value = serde_json::from_str(&answer).map_err(|error| wrong(error.to_string()))?;
            if !contains(&answer, &check.expect) {
                return Err(wrong(format!("expected {}, got {answer}", check.expect)));
            }
        }
        Ok(())
    }

    fn call(&self, batch: &[Prepared]) -> Result<Vec<Result<String, InferError>>, InferError> {
        let answers = catch_unwind(AssertUnwindSafe(|| self.model.infer(batch)))
            .map_err(|_| panicked("the model panicked on this input"))?;
        if answers.len() != batch.len() {
            let (got, expected) = (answers.len(), batch.len());
            return Err(InferError::unavailable(
                "wrong_answer_count",
                format!("the model gave {got} answers to {expected} inputs"),
            ));
        }
        Ok(answers.into_iter().map(|answer| answer.and_then(sound)).collect())
    }
}

/// What no text model is asked about, whatever its schema lets through.
fn judge_text(text: &str, max_chars: usize) -> Result<(), String> {
    if text.trim_matches(is_blank).is_empty() {
        return Err("must not be empty or blank".to_owned());
    }
    // A character has at least one byte: most texts need no count.
    if text.len() > max_chars && text.chars().count() > max_chars {
        return Err(format!("must have at most {max_chars} characters"));
    }
    Ok(())
}

/// Nothing that can be seen.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// A result that is no JSON, or too long, would stop everybody behind us; it ends here.
fn sound(result: String) -> Result<String, InferError> {
    if result.len() > MAX_RESULT_BYTES {
        let length = result.len();
        return Err(InferError::bad_output(format!("the result has {length} bytes; {MAX_RESULT_BYTES} at most")));
    }
    match serde_json::from_str::<&serde_json::value::RawValue>(&result) {
        Ok(_) => Ok(result),
        Err(_) => Err(InferError::bad_output("the model's result is not JSON")),
    }
}

fn panicked(message: &str) -> InferError {
    InferError { code: Cow::Borrowed("panic"), message: message.to_owned(), permanent: false }
}

fn validator(name: &str, schema: &Value) -> Result<jsonschema::Validator, OpenError> {
    if let Err(reason) = crate::schema_cost::bounded(schema) {
        return Err(OpenError::Package(PackageError::BadSchema { name: name.to_owned(), reason }));
    }
    jsonschema::validator_for(schema).map_err(|error| {
        OpenError::Package(PackageError::BadSchema { name: name.to_owned(), reason: error.to_string() })
    })
}

/// What is wrong and where; never the value itself, which may be anybody's text.
fn explain(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { "the document".to_owned() } else { place };
    format!("{place}: {}", error.masked())
}

/// Whether `whole` has everything that `part` has.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| contains(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        (Value::Number(whole), Value::Number(part)) => match (whole.as_f64(), part.as_f64()) {
            (Some(whole), Some(part)) => (whole - part).abs() <= TOLERANCE,
            _ => whole == part,
        },
        _ => whole == part,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_breaks_the_schema_is_named_by_json_pointer_and_never_quoted() {
        let schema = json!({"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1},
            "rows": {"type": "array", "items": {"type": "number"}}}});
        let validator = validator("input.schema", &schema).unwrap();
        for (document, place) in [
            (json!({}), "text"),
            (json!({"text": 20_061_989}), "/text"),
            (json!({"text": ""}), "/text"),
            (json!({"text": "a", "rows": [1, "secret word"]}), "/rows/1"),
            (json!("secret word"), "the document"),
        ] {
            let error = validator.iter_errors(&document).next().map(|error| explain(&error)).unwrap();
            assert!(error.contains(place), "{error}");
            assert!(!error.contains("secret") && !error.contains("20061989"), "{error}");
        }
    }

    #[test]
    fn a_result_must_be_json_of_bounded_length() {
        assert!(sound("{\"a\":1}".to_owned()).is_ok());
        assert_eq!(sound("NaN".to_owned()).unwrap_err().code, "bad_output");
        assert_eq!(sound(format!("\"{}\"", "a".repeat(MAX_RESULT_BYTES))).unwrap_err().code, "bad_output");
    }

    #[test]
    fn an_expectation_is_met_by_what_contains_it() {
        let whole = json!({"label": "a", "score": 0.912_34, "list": [1, {"x": 2, "y": 3}]});
        for (part, met) in [
            (json!({"label": "a"}), true),
            (json!({"label": "b"}), false),
            (json!({"score": 0.912}), true),
            (json!({"score": 0.92}), false),
            (json!({"list": [1, {"x": 2}]}), true),
            (json!({"list": [1]}), false),
            (json!({"none": null}), false),
        ] {
            assert_eq!(contains(&whole, &part), met, "{part}");
        }
    }
}
