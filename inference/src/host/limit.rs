//! The bound a child puts on itself.

use std::io::Result;

/// For stacks, and what an allocator takes beyond what it is asked for.
const SLACK_BYTES: u64 = 32 << 20;

/// The bytes this process has when it has grown by so many megabytes from here. Only address space can be bounded without
/// help from outside, so that is what counts.
#[cfg(target_os = "linux")]
pub(super) fn beyond_now(megabytes: u64) -> Result<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = pages.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or_default();
    let now = pages * rustix::param::page_size() as u64;
    Ok(now.saturating_add(megabytes.saturating_mul(1 << 20)).saturating_add(SLACK_BYTES))
}

/// Holds this process to so many bytes: what would need more gets no memory.
#[cfg(target_os = "linux")]
pub(super) fn hold_to(most: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let old = getrlimit(Resource::As).maximum;
    let most = old.map_or(most, |old| old.min(most));
    setrlimit(Resource::As, Rlimit { current: Some(most), maximum: Some(most) })?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn beyond_now(_megabytes: u64) -> Result<u64> {
    Ok(u64::MAX)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn hold_to(_most: u64) -> Result<()> {
    tracing::warn!("a child's memory is bounded on Linux only");
    Ok(())
}

/// Bytes in memory now; 0 where that cannot be told.
pub(super) fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * rustix::param::page_size() as u64
}
