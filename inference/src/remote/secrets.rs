//! Values that packages may send to their servers and that stand in no file.

use std::collections::BTreeMap;

use ureq::http::Uri;

/// Only variables of this name may be named by a package: one brought from outside could ask for the database's password
/// otherwise.
pub const SECRET_PREFIX: &str = "INSIGHTFORGE_MODEL_SECRET_";

/// Behind a secret's name: the variable that says which server may be sent it. A package from outside could name a server
/// of its own otherwise.
const ORIGIN: &str = "_ORIGIN";

/// Secrets by name, and where each may go. Shows no value.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// Keeps those whose names begin with [`SECRET_PREFIX`]; give it the process's variables.
    #[must_use]
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().filter(|(name, _)| name.starts_with(SECRET_PREFIX)).collect())
    }

    /// A secret for the server at `url`.
    ///
    /// # Errors
    /// Why it is not for that server, for people.
    pub(super) fn get(&self, name: &str, url: &Uri) -> Result<&str, String> {
        let value = self.0.get(name).ok_or_else(|| format!("{name} is not set"))?;
        let asked = origin(url).ok_or("the url has no host")?;
        let allowed = self.0.get(&format!("{name}{ORIGIN}")).ok_or_else(|| {
            format!("{name}{ORIGIN} is not set: it must name the server that may be sent the secret, such as {asked}")
        })?;
        let allowed = allowed.parse().ok().and_then(|allowed| origin(&allowed));
        if allowed.as_ref() == Some(&asked) {
            Ok(value)
        } else {
            Err(format!("{name}{ORIGIN} does not name {asked}, to which the package would send the secret"))
        }
    }
}

/// Scheme, host and port.
fn origin(url: &Uri) -> Option<String> {
    let (scheme, host) = (url.scheme_str()?, url.host()?.to_ascii_lowercase());
    let port = url.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some(format!("{scheme}://{host}:{port}"))
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_goes_to_the_server_its_operator_names_and_to_no_other() {
        let variable = |name: &str, value: &str| (format!("{SECRET_PREFIX}{name}"), value.to_owned());
        let secrets = Secrets::of([
            variable("A", "word"),
            variable("A_ORIGIN", "https://Models.internal"),
            variable("B", "word"),
            variable("B_ORIGIN", "no address"),
            variable("C", "word"),
        ]);
        for (name, url, fine) in [
            ("A", "https://models.internal/predict", true),
            ("A", "https://models.internal:443/v2", true),
            ("A", "http://models.internal/predict", false),
            ("A", "https://models.internal:8443/predict", false),
            ("A", "https://models.internal.example.org/predict", false),
            ("B", "https://models.internal/predict", false),
            ("C", "https://models.internal/predict", false),
            ("D", "https://models.internal/predict", false),
        ] {
            let found = secrets.get(&format!("{SECRET_PREFIX}{name}"), &url.parse().unwrap());
            assert_eq!(found.is_ok(), fine, "{name} {url}");
            assert!(found.is_ok() || !found.unwrap_err().contains("word"));
        }
    }
}
