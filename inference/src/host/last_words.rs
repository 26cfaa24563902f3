//! What a child says on its standard error: to the log, within bounds.

use std::io::{BufRead, BufReader, Read};
use std::process::ChildStderr;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The longest line that is passed on, in bytes.
const LINE_BYTES: usize = 2_000;
/// Lines in [`SPAN`]; the others are counted.
const LINES: usize = 50;
const SPAN: Duration = Duration::from_secs(10);
/// Phrases by which runtimes say that they got no memory.
const NO_MEMORY: [&str; 4] = ["memory allocation of", "bad_alloc", "out of memory", "Cannot allocate memory"];

/// Passes the lines on until the stream ends; then tells whether one of them was about memory.
pub(super) fn pass_on(stderr: ChildStderr, model: String) -> std::io::Result<Receiver<bool>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("model-stderr".to_owned()).stack_size(1 << 20).spawn(move || {
        // Closed when nobody wants to know.
        let _ = sender.send(listen(stderr, &model));
    })?;
    Ok(receiver)
}

fn listen(stderr: impl Read, model: &str) -> bool {
    let mut stderr = BufReader::new(stderr);
    let (mut no_memory, mut begun, mut lines) = (false, Instant::now(), 0_usize);
    loop {
        let mut line = Vec::new();
        // A line without end comes in pieces.
        match stderr.by_ref().take(LINE_BYTES as u64).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return no_memory,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        no_memory |= NO_MEMORY.iter().any(|phrase| line.contains(phrase));
        if begun.elapsed() > SPAN {
            if lines > LINES {
                tracing::warn!(model, lines = lines - LINES, "lines of a model's process were left out");
            }
            (begun, lines) = (Instant::now(), 0);
        }
        lines += 1;
        if lines <= LINES {
            tracing::info!(model, "{}", line.trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_about_memory_is_heard_among_any_noise() {
        assert!(listen(&b"x\nmemory allocation of 4096 bytes failed\n"[..], "m"));
        assert!(!listen(&b"\xff\xfe\n"[..], "m"));
        assert!(!listen(vec![b'a'; 1 << 20].as_slice(), "m"));
    }
}
