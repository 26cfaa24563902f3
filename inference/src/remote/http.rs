//! One POST of JSON, within bounds of time and length.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use ureq::http::{HeaderName, HeaderValue, Uri};
use ureq::{Agent, Error};

use super::secrets::{SECRET_PREFIX, Secrets};
use crate::manifest::{Manifest, ManifestError};
use crate::model::InferError;
use crate::open::{OpenError, OpenOptions};

/// Where a server is and how it is spoken to: part of `[oip]` and `[json_http]`.
///
/// ```toml
/// url = "http://models.internal:8000/predict"
/// headers = { "X-Client" = "insightforge" }
/// secret_headers = { Authorization = "INSIGHTFORGE_MODEL_SECRET_TOKEN" }   # the whole value stands in that variable; it
///                                          # is sent to the server that INSIGHTFORGE_MODEL_SECRET_TOKEN_ORIGIN names
/// connect_timeout_ms = 1000
/// max_response_bytes = 4194304
/// ```
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Server {
    pub(super) url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    secret_headers: BTreeMap<String, String>,
    #[serde(default = "one_second")]
    connect_timeout_ms: u64,
    #[serde(default = "four_mebibytes")]
    max_response_bytes: u64,
}

/// A server that can be asked. Shows no header.
pub(super) struct Http {
    agent: Agent,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    max_response_bytes: u64,
}

struct Reply {
    status: u16,
    /// As it asked for, in seconds; a date is not heeded.
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// Why a POST gave no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server was reached and will not answer this: one input of several may be to blame.
    Refused(InferError),
    /// The server could not be asked, whatever the input.
    Away(InferError),
}

impl Http {
    pub(super) fn new(
        server: &Server,
        url: &str,
        manifest: &Manifest,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        let uri: Uri = url.parse().map_err(|error| wrong(format!("url: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("url must begin with http:// or https://".to_owned()));
        }
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(wrong("url must name a host, and no password: use secret_headers".to_owned()));
        }
        let timeout = Duration::from_millis(manifest.runtime.timeout_ms);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(timeout))
            .timeout_connect(Some(Duration::from_millis(server.connect_timeout_ms.max(1)).min(timeout)))
            .max_idle_connections_per_host(manifest.runtime.instances)
            .max_idle_connections(manifest.runtime.instances);
        Ok(Self {
            agent: config.build().new_agent(),
            url: url.to_owned(),
            headers: headers(server, &uri, &options.secrets)?,
            timeout,
            max_response_bytes: server.max_response_bytes,
        })
    }

    /// The body of the answer.
    pub(super) fn post(&self, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let begun = Instant::now();
        let mut reply = self.again_if_closed(body)?;
        // Its thread has nothing better to do than to wait for the server, as long as the call may take.
        if let Some(pause) =
            reply.retry_after.filter(|pause| reply.status == 429 && begun.elapsed() + *pause < self.timeout)
        {
            std::thread::sleep(pause);
            reply = self.again_if_closed(body)?;
        }
        judge(reply.status, reply.body)
    }

    fn again_if_closed(&self, body: &[u8]) -> Result<Reply, Failure> {
        match self.once(body) {
            // A connection that was kept open may have been closed meanwhile. A server must not mind being asked twice: a
            // task that has no answer is asked again anyway.
            Err(Error::Io(_) | Error::Protocol(_)) => self.once(body),
            answer => answer,
        }
        .map_err(|error| self.away(&error))
    }

    fn once(&self, body: &[u8]) -> Result<Reply, Error> {
        let mut request = self.agent.post(&self.url).header("Content-Type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut response = request.send(body)?;
        let status = response.status().as_u16();
        let seconds = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body = response.body_mut().with_config().limit(self.max_response_bytes).read_to_vec()?;
        Ok(Reply { status, retry_after: seconds.map(Duration::from_secs), body })
    }

    fn away(&self, error: &Error) -> Failure {
        match error {
            Error::Timeout(_) => Failure::Away(InferError::unavailable(
                "timeout",
                format!("the model server gave no answer within {} ms", self.timeout.as_millis()),
            )),
            Error::BodyExceedsLimit(most) => Failure::Refused(InferError::bad_output(format!(
                "the model server's answer is longer than {most} bytes"
            ))),
            error => Failure::Away(unavailable(format!("the model server cannot be asked: {error}"))),
        }
    }
}

/// What a status says. The body of a refusal is not passed on: it may repeat the input.
fn judge(status: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let said = |what: &str| format!("the model server {what}: HTTP {status}");
    match status {
        200..=299 => Ok(body),
        // About the caller or the address, not about the input.
        401 | 403 | 404 | 405 | 407 => Err(Failure::Away(unavailable(said("does not serve us")))),
        408 | 425 | 502..=504 => Err(Failure::Away(unavailable(said("is not available")))),
        // Not `overloaded`, which means this process: whoever waits for that would wait for a server that never lets us in.
        429 => Err(Failure::Away(InferError::unavailable("server_overloaded", said("has too much to do")))),
        400..=499 => Err(Failure::Refused(InferError::bad_input(said("refused the input")))),
        500..=599 => Err(Failure::Refused(unavailable(said("failed")))),
        _ => Err(Failure::Away(unavailable(said("answered what is no answer")))),
    }
}

fn headers(server: &Server, url: &Uri, secrets: &Secrets) -> Result<Vec<(HeaderName, HeaderValue)>, OpenError> {
    let mut headers = Vec::new();
    for (name, value) in &server.headers {
        headers.push((header_name(name)?, header_value(name, value)?));
    }
    for (name, variable) in &server.secret_headers {
        if !variable.starts_with(SECRET_PREFIX) {
            return Err(wrong(format!("secret_headers.{name}: the variable's name must begin with {SECRET_PREFIX}")));
        }
        let value = secrets.get(variable, url);
        let value = value.map_err(|reason| OpenError::Unavailable(format!("secret_headers.{name}: {reason}")))?;
        let mut value = header_value(name, value)?;
        value.set_sensitive(true);
        headers.push((header_name(name)?, value));
    }
    Ok(headers)
}

fn header_name(name: &str) -> Result<HeaderName, OpenError> {
    name.parse().map_err(|_| wrong(format!("headers: {name:?} is no header's name")))
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, OpenError> {
    HeaderValue::from_str(value).map_err(|_| wrong(format!("headers.{name}: its value cannot be sent")))
}

/// A misspelt field would go unnoticed.
pub(super) fn refuse_unknown(unknown: &toml::Table) -> Result<(), OpenError> {
    match unknown.keys().next() {
        None => Ok(()),
        Some(name) => Err(wrong(format!("there is no field {name} in the backend's section"))),
    }
}

fn wrong(what: String) -> OpenError {
    OpenError::Manifest(ManifestError(what))
}

fn unavailable(message: String) -> InferError {
    InferError::unavailable("model_unavailable", message)
}

impl Failure {
    pub(super) fn into_error(self) -> InferError {
        match self {
            Self::Refused(error) | Self::Away(error) => error,
        }
    }
}

fn one_second() -> u64 {
    1_000
}

fn four_mebibytes() -> u64 {
    4 << 20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_bad_input_from_a_server_that_is_away() {
        for (status, code, permanent, refused) in [
            (400, "bad_input", true, true),
            (413, "bad_input", true, true),
            (422, "bad_input", true, true),
            (401, "model_unavailable", false, false),
            (404, "model_unavailable", false, false),
            (429, "server_overloaded", false, false),
            (500, "model_unavailable", false, true),
            (503, "model_unavailable", false, false),
            (302, "model_unavailable", false, false),
        ] {
            let failure = judge(status, b"secret".to_vec()).unwrap_err();
            assert_eq!(matches!(failure, Failure::Refused(_)), refused, "{status}");
            let error = failure.into_error();
            assert_eq!((error.code.as_ref(), error.permanent), (code, permanent), "{status}");
            assert!(error.message.contains(&status.to_string()) && !error.message.contains("secret"));
        }
        assert_eq!(judge(200, b"1".to_vec()), Ok(b"1".to_vec()));
    }
}
