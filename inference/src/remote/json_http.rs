//! A service that takes the document as JSON and answers the result as JSON.
//!
//! ```toml
//! [json_http]
//! url = "http://models.internal:8000/predict"    # and the other fields of `http::Server`
//! batch = false      # true: the body is a list of documents, the answer a list of results in the same order
//! ```

use serde::Deserialize;
use serde_json::Value;

use super::answer::Answers;
use super::http::{Failure, Http, Server, refuse_unknown};
use crate::model::{InferError, Model, Payload, Prepared, RunsOn};
use crate::open::{OpenError, OpenOptions};
use crate::package::Package;

#[derive(Debug, Deserialize)]
struct Section {
    #[serde(flatten)]
    server: Server,
    #[serde(default)]
    batch: bool,
    #[serde(flatten)]
    unknown: toml::Table,
}

pub(super) struct JsonHttp {
    http: Http,
    batch: bool,
    answers: Answers,
}

impl JsonHttp {
    pub(super) fn open(package: &Package, options: &OpenOptions) -> Result<Self, OpenError> {
        let Section { server, batch, unknown } = package.manifest.section()?;
        refuse_unknown(&unknown)?;
        let http = Http::new(&server, &server.url, &package.manifest, options)?;
        Ok(Self { http, batch, answers: Answers::of(package)? })
    }

    fn one(&self, input: &Prepared) -> Result<String, InferError> {
        let body = self.http.post(document(input).to_string().as_bytes()).map_err(Failure::into_error)?;
        self.answers.judge(&read(&body)?)
    }

    fn many(&self, inputs: &[Prepared]) -> Result<Vec<Result<String, InferError>>, Failure> {
        let documents: Vec<&Value> = inputs.iter().map(document).collect();
        let text = serde_json::to_vec(&documents).map_err(|error| Failure::Refused(no_json(&error)))?;
        let body = self.http.post(&text)?;
        let Value::Array(results) = read(&body).map_err(Failure::Refused)? else {
            return Err(Failure::Refused(InferError::bad_output("the model server's answer is no list")));
        };
        if results.len() != inputs.len() {
            let (got, expected) = (results.len(), inputs.len());
            let message = format!("the model server gave {got} answers to {expected} inputs");
            return Err(Failure::Refused(InferError::unavailable("wrong_answer_count", message)));
        }
        Ok(results.iter().map(|result| self.answers.judge(result)).collect())
    }
}

impl Model for JsonHttp {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "json-http".to_owned(), device: "remote".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn prepare(&self, document: &Value) -> Result<Prepared, InferError> {
        Ok(Prepared { cost: 1, payload: Payload::Document(document.clone()) })
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, InferError>> {
        if !self.batch {
            return batch.iter().map(|input| self.one(input)).collect();
        }
        match self.many(batch) {
            Ok(answers) => answers,
            // One of them may be to blame: each in a list of its own.
            Err(Failure::Refused(_)) if batch.len() > 1 => batch
                .iter()
                .map(|input| self.many(std::slice::from_ref(input)).map_err(Failure::into_error)?.remove(0))
                .collect(),
            Err(failure) => vec![Err(failure.into_error()); batch.len()],
        }
    }
}

fn document(input: &Prepared) -> &Value {
    match &input.payload {
        Payload::Document(document) => document,
        Payload::Text(_) | Payload::Tokens { .. } | Payload::Tensors(_) => &Value::Null,
    }
}

fn read(body: &[u8]) -> Result<Value, InferError> {
    serde_json::from_slice(body).map_err(|error| no_json(&error))
}

fn no_json(error: &serde_json::Error) -> InferError {
    InferError::bad_output(format!("the model server's answer is no JSON (line {})", error.line()))
}
