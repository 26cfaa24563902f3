//! Texts inside archives.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use super::super::examples::ReadError;
use super::{malformed, text_of, unreadable};

/// The files of a ZIP archive whose names end so, in the order of their names.
pub(super) fn zip(path: &Path, ending: &str) -> Result<Vec<(String, String)>, ReadError> {
    let file = File::open(path).map_err(unreadable(path))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| malformed(path, 0, error.to_string()))?;
    let mut files = Vec::new();
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).map_err(|error| malformed(path, at, error.to_string()))?;
        let name = entry.name().map_err(|error| malformed(path, at, error.to_string()))?.into_owned();
        if name.ends_with(ending) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(unreadable(path))?;
            files.push((name, text_of(&bytes)));
        }
    }
    files.sort();
    Ok(files)
}

/// One file of a gzipped tape archive (ustar: a block of 512 bytes a header, content padded to blocks).
pub(super) fn tar_gz(path: &Path, ending: &str) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable(path))?;
    GzDecoder::new(file).read_to_end(&mut bytes).map_err(unreadable(path))?;
    let mut rest = bytes.as_slice();
    while let Some((header, content)) = rest.split_at_checked(512) {
        let name = String::from_utf8_lossy(&header[..100]);
        let name = name.trim_end_matches('\0');
        if name.is_empty() {
            break;
        }
        let length = String::from_utf8_lossy(&header[124..136]);
        let length = usize::from_str_radix(length.trim_matches(['\0', ' ']), 8)
            .map_err(|_| malformed(path, 0, format!("{name}: no length")))?;
        if name.ends_with(ending) && length <= content.len() {
            return Ok(text_of(&content[..length]));
        }
        rest = content.get(length.next_multiple_of(512)..).unwrap_or_default();
    }
    Err(malformed(path, 0, format!("it has no file {ending}")))
}
