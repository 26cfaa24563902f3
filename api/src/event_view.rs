//! An event of the journal, as callers see it.

use chrono::{DateTime, Utc};
use insightforge_schema::event::Event;
use serde::Serialize;
use utoipa::ToSchema;

use crate::shape::time_of;

/// An event of the journal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventView {
    /// `<partition>:<number>`
    pub(crate) position: String,
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    /// The task; for `batch_received` the batch.
    pub(crate) task_id: String,
    pub(crate) at: Option<DateTime<Utc>>,
    /// Who did it.
    pub(crate) actor: String,
    /// The attempt it belongs to; 0 before the first.
    pub(crate) attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
    /// W3C `traceparent` of the request that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<String>,
    /// For people; only of events that have left the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// What the event says, without secrets; of events that have left the journal also without the documents.
    pub(crate) data: serde_json::Value,
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> Self {
        Self {
            position: event.position.to_string(),
            event_type: event.change.event_type().to_owned(),
            task_id: event.task.to_string(),
            at: time_of(event.meta.at_us),
            actor: event.meta.actor.clone(),
            attempt: event.meta.attempt,
            tenant: Some(event.meta.tenant.clone()),
            trace: event.meta.trace.clone(),
            description: None,
            data: event.change.public_data(),
        }
    }
}
