//! What an operator writes to say where the archive is: a folder, or a URL that names bucket and prefix.

use object_store::local::LocalFileSystem;
use object_store::path::Path;
use url::Url;

use crate::store::Archive;

/// Text that names no place for an archive.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("the folder {folder} cannot be made or used: {error}")]
    Folder { folder: String, error: String },
    #[error("{shown} is no URL that an object store is reached by (s3://, gs://, az://, file://): {error}")]
    Url { shown: String, error: String },
    #[error("{shown}: credentials belong in AWS_…, GOOGLE_… or AZURE_… variables")]
    Credentials { shown: String },
}

impl Archive {
    /// The archive at `place`, of the installation with this key prefix. `options` are `object_store`'s (credentials,
    /// region, endpoint). A folder is created.
    ///
    /// # Errors
    /// [`PlaceError`]. Whether an object store answers is found out at the first use.
    pub fn open(
        place: &str,
        options: impl IntoIterator<Item = (String, String)>,
        key_prefix: &str,
    ) -> Result<Self, PlaceError> {
        if !place.contains("://") {
            return folder(place, key_prefix);
        }
        let shown = shown(place);
        let unfit = |error: String| PlaceError::Url { shown: shown.clone(), error };
        let url = Url::parse(place).map_err(|error| unfit(error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(PlaceError::Credentials { shown });
        }
        if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| unfit("it names no folder here".to_owned()))?;
            return folder(&path.to_string_lossy(), key_prefix);
        }
        let (objects, root) = object_store::parse_url_opts(&url, options).map_err(|error| unfit(error.to_string()))?;
        Ok(Self::new(objects, &root, key_prefix, shown))
    }
}

/// A folder: what is written there is on the disk before it counts as written.
fn folder(folder: &str, key_prefix: &str) -> Result<Archive, PlaceError> {
    let failed = |error: String| PlaceError::Folder { folder: folder.to_owned(), error };
    std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    let objects = LocalFileSystem::new_with_prefix(folder).map_err(|error| failed(error.to_string()))?;
    Ok(Archive::new(Box::new(objects.with_fsync(true)), &Path::default(), key_prefix, folder.to_owned()))
}

/// A URL without what may be secret in it.
fn shown(place: &str) -> String {
    match Url::parse(place) {
        Ok(url) => format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path()),
        Err(_) => "a URL that cannot be read".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_folder_or_the_url_of_an_object_store_and_no_complaint_tells_a_secret() {
        rustls::crypto::ring::default_provider().install_default().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/archive");
        let path = path.to_str().unwrap();
        for place in [path.to_owned(), format!("file://{path}"), "gs://bucket/journal".to_owned()] {
            assert!(Archive::open(&place, [], "if").is_ok(), "{place}");
        }
        let region = ("aws_region".to_owned(), "eu-west-1".to_owned());
        assert_eq!(Archive::open("s3://bucket/journal", [region], "if").unwrap().name(), "s3://bucket/journal");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (place, complaint) in [
            (file.to_str().unwrap(), "cannot be made or used"),
            ("ftp://host/journal", "ftp://host/journal is no URL"),
            ("s3://key:word@bucket/journal", "credentials belong"),
            ("s3://", "is no URL"),
        ] {
            let error = Archive::open(place, [], "if").unwrap_err().to_string();
            assert!(error.contains(complaint) && !error.contains("word"), "{error}");
        }
    }
}
