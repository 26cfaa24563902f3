//! What one fsync costs on this disk: the part of every latency that no software can take away.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

const APPENDS: usize = 201;

#[derive(Serialize)]
pub(super) struct Fsync {
    directory: PathBuf,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// Appends 4 KiB and flushes it, again and again, to a file it removes.
pub(super) fn probe(directory: &Path) -> io::Result<Fsync> {
    let path = directory.join(format!(".fsync-probe-{}", std::process::id()));
    let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
    // The name goes now, so that nothing stays behind however this ends.
    fs::remove_file(&path)?;
    let mut took = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        let started = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let ms = |at: usize| took[at].as_secs_f64() * 1e3;
    Ok(Fsync { directory: directory.to_owned(), p50_ms: ms(APPENDS / 2), p99_ms: ms(APPENDS * 99 / 100) })
}
