//! Server-sent events on their way to a connection: a queue that holds few of them, and few bytes.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::{FutureExt, Stream};
use insightforge_schema::id::Cursor;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::follow::{Gone, Out};
use super::pulse::{Pulse, reached};
use super::told::Told;
use super::{PATIENCE, Place};

/// Frames that may wait for a connection.
const WAITING: usize = 256;
/// Their bytes. One that is larger waits alone: an event carries its document.
const WAITING_BYTES: u32 = 256 * 1024;
/// For a proxy that would gather an answer before it passes it on.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A response that begins at once, and the end that frames go in at. The place is taken until both are gone: what one
/// who was cut off has not taken stays in memory with its connection.
pub(crate) fn open(place: Place) -> (Frames, Response) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let (last, place) = (Arc::new(Mutex::new(None)), Arc::new(place));
    let taken = Taken { receiver, last: last.clone(), _place: place.clone() };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (NO_BUFFERING, HeaderValue::from_static("no")),
    ];
    let room = Arc::new(Semaphore::new(WAITING_BYTES as usize));
    let frames = Frames { sender, room, last, pulse: Pulse::new(Instant::now()), _place: place };
    (frames, (headers, Body::from_stream(taken)).into_response())
}

/// One event with a name of its own.
pub(crate) fn named(name: &str, data: &serde_json::Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// The end that frames go in at.
pub(crate) struct Frames {
    sender: mpsc::Sender<Frame>,
    /// For bytes.
    room: Arc<Semaphore>,
    last: Arc<Mutex<Option<Bytes>>>,
    pulse: Pulse,
    _place: Arc<Place>,
}

/// The end that the connection takes them from; what is said last needs no room.
struct Taken {
    receiver: mpsc::Receiver<Frame>,
    last: Arc<Mutex<Option<Bytes>>>,
    _place: Arc<Place>,
}

/// One that waits.
struct Frame {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Frames {
    /// Puts a frame on its way; whole or, when this is given up, not at all.
    pub(crate) async fn send(&mut self, bytes: Bytes) -> Result<(), Gone> {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(WAITING_BYTES);
        patiently(async {
            let room = self.room.clone().acquire_many_owned(size).await.map_err(|_| Gone::Left)?;
            self.sender.send(Frame { bytes, _room: room }).await.map_err(|_| Gone::Left)
        })
        .await
    }

    pub(crate) async fn show_life(&mut self) -> Result<(), Gone> {
        self.pulse.show(Instant::now());
        self.send(Bytes::from_static(b": alive\n\n")).await
    }

    /// Waits until the connection is gone.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + use<> {
        let sender = self.sender.clone();
        async move { sender.closed().await }
    }

    /// Says why the stream ends, behind whatever waits.
    pub(crate) fn end(&self, gone: &Gone, cursor: &str) {
        let reason = match gone {
            Gone::Left | Gone::Done | Gone::Stopping => return,
            Gone::Slow => "too slow".to_owned(),
            Gone::MovedBack => "the journal has moved back: load anew".to_owned(),
            Gone::Unreadable(problem) => problem.detail.clone(),
        };
        self.say_last(named("cut", &json!({ "reason": reason, "cursor": cursor })));
    }

    pub(crate) fn say_last(&self, frame: Bytes) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(frame);
    }
}

impl Out for Frames {
    async fn tell(&mut self, told: &Told) -> Result<(), Gone> {
        self.send(told.frame()).await
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), Gone> {
        patiently(async {
            let _all = self.room.acquire_many(WAITING_BYTES).await.map_err(|_| Gone::Left)?;
            Ok(())
        })
        .await
    }

    async fn stays(&mut self, _told: &Cursor) -> Gone {
        loop {
            let due = self.pulse.due();
            tokio::select! {
                biased;
                () = self.sender.closed() => return Gone::Left,
                () = reached(due) => if let Err(gone) = self.show_life().await {
                    return gone;
                },
            }
        }
    }
}

/// What is done at once, as nearly always, needs no timer.
async fn patiently(step: impl Future<Output = Result<(), Gone>>) -> Result<(), Gone> {
    let mut step = pin!(step);
    match step.as_mut().now_or_never() {
        Some(done) => done,
        None => timeout(PATIENCE, step).await.unwrap_or(Err(Gone::Slow)),
    }
}

impl Stream for Taken {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = ready!(self.receiver.poll_recv(context)).map(|frame| frame.bytes);
        let frame = frame.or_else(|| self.last.lock().unwrap_or_else(PoisonError::into_inner).take());
        Poll::Ready(frame.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use insightforge_schema::id::PartitionCount;

    use super::*;
    use crate::live::{ALIVE, Live};

    fn bytes(count: u32) -> Bytes {
        vec![b'x'; count as usize].into()
    }

    #[tokio::test]
    async fn few_bytes_wait_for_a_connection_and_one_large_frame_alone() {
        let (mut frames, response) = open(Live::new().place().unwrap());
        let mut taken = response.into_body().into_data_stream();
        let mut sent_at_once = async |frame| frames.send(frame).now_or_never().is_some_and(|sent| sent.is_ok());
        let half = WAITING_BYTES / 2;
        assert!(sent_at_once(bytes(half)).await && sent_at_once(bytes(half)).await);
        assert!(!sent_at_once(bytes(1)).await, "no more bytes may wait");
        assert_eq!(taken.next().await.unwrap().unwrap().len(), half as usize);
        assert!(sent_at_once(bytes(1)).await, "what was taken waits no longer");
        assert!(!sent_at_once(bytes(WAITING_BYTES * 4)).await, "a large one waits for all the others");
        for size in [half, 1] {
            assert_eq!(taken.next().await.unwrap().unwrap().len(), size as usize);
        }
        assert!(sent_at_once(bytes(WAITING_BYTES * 4)).await);
        assert!(!sent_at_once(bytes(1)).await, "and others for it");
    }

    #[tokio::test]
    async fn a_place_is_taken_until_the_connection_has_let_go_of_what_it_was_given() {
        let live = Live::new();
        let (frames, response) = open(live.place().unwrap());
        drop(frames);
        assert_eq!(live.followers(), 1);
        drop(response);
        assert_eq!(live.followers(), 0);
    }

    #[tokio::test]
    async fn who_waits_hears_that_we_are_alive() {
        let (mut frames, response) = open(Live::new().place().unwrap());
        let mut taken = response.into_body().into_data_stream();
        frames.pulse = Pulse::new(Instant::now() - ALIVE);
        let told = Cursor::start(PartitionCount::new(1).unwrap());
        assert!(frames.stays(&told).now_or_never().is_none(), "it is there");
        assert_eq!(taken.next().await.unwrap().unwrap(), ": alive\n\n");
        assert!(frames.pulse.due() > Instant::now());
    }
}
