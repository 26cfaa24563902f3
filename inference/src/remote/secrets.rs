//! Values that packages may send to their servers and that stand in no file.

use std::collections::BTreeMap;

/// Only variables of this name may be named by a package: one brought from outside could ask for the database's password
/// otherwise.
pub const SECRET_PREFIX: &str = "INSIGHTFORGE_MODEL_SECRET_";

/// Secrets by name. Shows no value.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// Keeps those whose names begin with [`SECRET_PREFIX`]; give it the process's variables.
    #[must_use]
    pub fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(variables.into_iter().filter(|(name, _)| name.starts_with(SECRET_PREFIX)).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
