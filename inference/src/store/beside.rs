//! Work that may never end.

use tokio::sync::oneshot;

/// Runs it on a thread of its own: it cannot be ended, and on one of the runtime's it would keep the process from ending.
/// `None` when it panicked, or the system has no thread to give.
pub(super) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, outcome) = oneshot::channel();
    let thread = std::thread::Builder::new().name("model-load".to_owned());
    thread.spawn(move || drop(done.send(work()))).ok()?;
    outcome.await.ok()
}
