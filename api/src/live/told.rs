//! An event on its way to those who follow: whatever their number, it is encoded once.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use insightforge_schema::event::Event;
use insightforge_schema::id::Cursor;
use serde::Serialize;
use tokio::sync::OnceCell;

use super::kinds::Kind;
use crate::event_view::EventView;

/// An event, where a reader stands after it, and the bytes of both once somebody has asked.
#[derive(Debug)]
pub struct Told {
    event: Event,
    cursor: Cursor,
    text: OnceLock<Utf8Bytes>,
    frame: OnceLock<Bytes>,
    /// What its task is, once somebody has asked.
    pub(crate) kind: OnceCell<Option<Arc<Kind>>>,
}

/// What is sent: the event as everywhere, and the cursor to go on from.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(flatten)]
    event: EventView,
    cursor: &'a str,
}

impl Told {
    #[must_use]
    pub fn new(event: Event, cursor: Cursor) -> Self {
        Self { event, cursor, text: OnceLock::new(), frame: OnceLock::new(), kind: OnceCell::new() }
    }

    /// Everything up to here was told before or with this event.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// As the text of one WebSocket message.
    pub(crate) fn text(&self) -> Utf8Bytes {
        let encode = || {
            let cursor = self.cursor.to_string();
            let message = Message { event: EventView::from(&self.event), cursor: &cursor };
            serde_json::to_string(&message).expect("an event is plain data").into()
        };
        self.text.get_or_init(encode).clone()
    }

    /// As one server-sent event. JSON has no line breaks of its own.
    pub(crate) fn frame(&self) -> Bytes {
        let encode = || format!("id: {}\ndata: {}\n\n", self.cursor, self.text()).into();
        self.frame.get_or_init(encode).clone()
    }
}

impl Deref for Told {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}
