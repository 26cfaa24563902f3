//! A trained tagger as a package: the files, and a `model.toml` that names them. One that is there keeps what people wrote
//! in it; the hashes are made new, and what was said of other weights goes.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::train::renew::{put, without_claims};

/// The names of the files, as the manifest's `[tagger]` has them.
pub const CHINESE: &str = "zh.bin";
pub const ENGLISH: &str = "en.bin";

/// Writes files and manifest into a folder.
///
/// # Errors
/// The system's, with the name of what could not be read or written.
pub fn write(folder: &Path, files: &[(&str, &[u8])]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (name, bytes) in files {
        put(&folder.join(name), bytes)?;
    }
    let manifest = folder.join("model.toml");
    let text = match std::fs::read_to_string(&manifest) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => template(files),
        Err(error) => return Err(error),
    };
    let sealed = seal(&text, files);
    let same = sealed.lines().eq(text.lines());
    put(&manifest, if same { sealed } else { without_claims(&sealed, None) }.as_bytes())
}

/// The manifest with the hashes of these files on the lines of `[files]` that name them.
fn seal(manifest: &str, files: &[(&str, &[u8])]) -> String {
    let mut sealed = String::with_capacity(manifest.len());
    for line in manifest.lines() {
        let named = files.iter().find(|(name, _)| line.trim_start().starts_with(&format!("\"{name}\" =")));
        match named {
            Some((name, bytes)) => sealed.push_str(&format!("\"{name}\" = \"{}\"", hex::encode(Sha256::digest(bytes)))),
            None => sealed.push_str(line),
        }
        sealed.push('\n');
    }
    sealed
}

fn template(files: &[(&str, &[u8])]) -> String {
    let mut text = include_str!("template.toml").to_owned();
    text.push_str("\n[files]\n");
    for (name, _) in files {
        text.push_str(&format!("\"{name}\" = \"\"\n"));
    }
    text.push_str("\n[tagger]\n");
    for (name, _) in files {
        let language = if *name == CHINESE { "chinese" } else { "english" };
        text.push_str(&format!("{language} = \"{name}\"\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    #[test]
    fn a_new_manifest_is_valid_and_an_old_one_keeps_its_words() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[(CHINESE, b"one"), (ENGLISH, b"two")]).unwrap();
        let first = std::fs::read_to_string(folder.path().join("model.toml")).unwrap();
        assert_eq!(Manifest::parse(&first).unwrap().files.len(), 2);

        std::fs::write(folder.path().join("model.toml"), first.replace("Names of persons", "Our own names")).unwrap();
        write(folder.path(), &[(CHINESE, b"three"), (ENGLISH, b"two")]).unwrap();
        let second = std::fs::read_to_string(folder.path().join("model.toml")).unwrap();
        let (before, after) = (Manifest::parse(&first).unwrap(), Manifest::parse(&second).unwrap());
        assert!(after.description.contains("Our own names"));
        assert_ne!(before.files[CHINESE], after.files[CHINESE]);
        assert_eq!(before.files[ENGLISH], after.files[ENGLISH]);
    }
}
