//! `INSIGHTFORGE_MODELS`: the folders and object stores in which an operator keeps model packages.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use insightforge_inference::store::{Mirror, Pulled};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use url::Url;

/// Between two looks into an object store, which are paid for.
const INTERVAL: Duration = Duration::from_secs(30);
/// The largest package.
const MOST_BYTES: u64 = 8 << 30;
/// The variables whose values object stores are opened with, by the names that `object_store` gives them.
const CREDENTIALS: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// The operator's folders, and the object stores with a folder here for each.
pub(crate) struct Mirrors {
    folders: Vec<PathBuf>,
    mirrors: Vec<(String, Mirror)>,
    /// Removed with this.
    _temporary: Option<TempDir>,
}

impl Mirrors {
    /// `places` are folders and URLs; what comes from a URL is kept below `cache`, or in a temporary folder.
    pub(crate) fn open<'a>(places: impl Iterator<Item = &'a str>, cache: Option<&Path>) -> anyhow::Result<Self> {
        let mut opened = Self { folders: Vec::new(), mirrors: Vec::new(), _temporary: None };
        for place in places {
            if !place.contains("://") {
                let folder = PathBuf::from(place);
                ensure!(folder.is_dir(), "INSIGHTFORGE_MODELS: there is no folder {place}");
                opened.folders.push(folder);
                continue;
            }
            let url = Url::parse(place).with_context(|| format!("INSIGHTFORGE_MODELS: {}", nameable(place)))?;
            ensure!(
                url.username().is_empty() && url.password().is_none(),
                "INSIGHTFORGE_MODELS: {}: credentials belong in AWS_…, GOOGLE_… or AZURE_… variables",
                nameable(place)
            );
            let folder = opened.cache(cache)?.join(&hex::encode(Sha256::digest(place))[..16]);
            let mirror = Mirror::open(&url, credentials(), folder, MOST_BYTES)
                .with_context(|| format!("INSIGHTFORGE_MODELS: {}", nameable(place)))?;
            opened.folders.push(mirror.folder().to_owned());
            opened.mirrors.push((nameable(place), mirror));
        }
        Ok(opened)
    }

    /// Where packages are, here.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        self.folders.clone()
    }

    /// Looks into each object store every so often, none waiting for another. Whoever drops what this gives back takes the
    /// folders away: not before the models are done with.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Self {
        let each = self.mirrors.iter_mut().map(|(place, mirror)| keep_pulling(place, mirror));
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = join_all(each) => shutdown.cancelled().await,
        }
        self
    }

    fn cache(&mut self, given: Option<&Path>) -> anyhow::Result<PathBuf> {
        if let Some(given) = given {
            return Ok(given.to_owned());
        }
        if self._temporary.is_none() {
            self._temporary = Some(TempDir::with_prefix("insightforge-models-").context("INSIGHTFORGE_MODELS_CACHE")?);
        }
        Ok(self._temporary.as_ref().map(|folder| folder.path().to_owned()).unwrap_or_default())
    }
}

async fn keep_pulling(place: &str, mirror: &mut Mirror) {
    loop {
        pull(place, mirror).await;
        tokio::time::sleep(INTERVAL).await;
    }
}

/// One look. An object store that cannot be reached leaves what is here as it is.
async fn pull(place: &str, mirror: &mut Mirror) {
    match mirror.pull().await {
        Ok(pulled) => pulled.iter().for_each(|pulled| tell(place, pulled)),
        Err(error) => tracing::warn!(place, %error, "model packages could not be fetched; trying again"),
    }
}

fn credentials() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        CREDENTIALS.iter().any(|prefix| name.starts_with(prefix)).then(|| (name.to_ascii_lowercase(), value))
    })
}

/// A URL without what may be secret in it.
fn nameable(place: &str) -> String {
    match Url::parse(place) {
        Ok(url) => format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path()),
        Err(_) => "a URL that cannot be read".to_owned(),
    }
}

fn tell(place: &str, pulled: &Pulled) {
    match pulled {
        Pulled::Fetched { task_type, version } => {
            tracing::info!(place, task_type, version, "a model package is fetched")
        }
        Pulled::Removed { task_type, version } => {
            tracing::info!(place, task_type, version, "a model package is gone from its object store");
        }
        Pulled::Refused { task_type, version, reason } => {
            tracing::error!(place, task_type, version, reason, "a model package is not fetched");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_must_be_there_and_urls_must_be_of_a_known_kind_without_credentials() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(Mirrors::open([path].into_iter(), None).unwrap().folders(), [folder.path()]);
        for (place, complaint) in [
            ("/is/not/there", "there is no folder /is/not/there"),
            ("ftp://host/models", "INSIGHTFORGE_MODELS: ftp://host/models"),
            ("https://user:word@host/models", "credentials belong"),
        ] {
            let error = format!("{:#}", Mirrors::open([place].into_iter(), None).err().unwrap());
            assert!(error.contains(complaint) && !error.contains("word"), "{error}");
        }
    }

    #[tokio::test]
    async fn packages_of_an_object_store_lie_in_a_folder_of_their_own() {
        let (remote, cache) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let url = Url::from_directory_path(remote.path()).unwrap();
        let mirrors = Mirrors::open([url.as_str()].into_iter(), Some(cache.path())).unwrap();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/models/iris_species/v1");
        let package = remote.path().join("iris_species/v1");
        std::fs::create_dir_all(&package).unwrap();
        for file in std::fs::read_dir(examples).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
            std::fs::copy(file.path(), package.join(file.file_name())).unwrap();
        }
        let [folder] = &mirrors.folders()[..] else { panic!("one place, one folder") };
        let manifest = folder.join("iris_species/v1/model.toml");
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(mirrors.run(shutdown.clone()));
        while !manifest.is_file() {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
        let mirrors = running.await.unwrap();
        assert!(manifest.starts_with(cache.path()) && mirrors.folders().len() == 1);
    }
}
