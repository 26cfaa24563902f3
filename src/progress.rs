//! Bars on standard error for what takes long. Where that is no terminal nothing is drawn, and the commands print lines.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// So many bytes of a whole, when its size is known.
pub(crate) fn bytes(whole: Option<u64>) -> ProgressBar {
    bar(
        whole,
        "{msg:12} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        "{msg:12} {spinner} {bytes}, {bytes_per_sec}",
    )
}

/// So many things of a whole, when their number is known.
pub(crate) fn things(whole: Option<u64>) -> ProgressBar {
    bar(whole, "{msg:12} {bar:30} {pos} of {len}, {per_sec}, {eta} left", "{msg:12} {spinner} {pos}, {per_sec}")
}

fn bar(whole: Option<u64>, with_end: &str, without: &str) -> ProgressBar {
    let (bar, template) = match whole {
        Some(whole) => (ProgressBar::new(whole), with_end),
        None => (ProgressBar::new_spinner(), without),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the templates are written above"));
    let bar = bar.with_finish(ProgressFinish::AndClear);
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}
