//! What people order of the projector: to send webhooks again, or a test message. Only the projector writes the tables and only
//! it sends, so that an order is an event in a stream of its own, with who gave it and why; what became of it stands in the
//! table `webhook_orders`, whose key is the order's number: each is done once.
//!
//! An entry has the fields of the registry's: `type`, `w` (the write it came with), and `e`: MessagePack with named fields.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use sqlx::{MySql, QueryBuilder};

use crate::envelope;
use crate::id::{Cursor, Partition, Position, number_of, row_id, stream_id};
use crate::journal::Entries;
use crate::keys::Keys;
use crate::link::{Link, LinkError};
use crate::script;
use crate::tables::datetime;

/// The encoding's version, in every stored order. A reader of version N reads every version up to N.
pub const ENCODING: u8 = 1;
/// The types of order this release writes.
pub const ORDER_TYPES: [&str; 2] = ["resend", "ping"];
/// Others that get in between before an order is given up.
const TRIES: u32 = 20;
/// The most deliveries of one order.
pub const MAX_RESENT: u32 = 10_000;

/// `webhook_outbox.state`: over, with success.
pub const DELIVERED: u8 = 2;
/// `webhook_outbox.state`: over, without.
pub const GIVEN_UP: u8 = 3;

/// One order as it stands in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counted from 1 without gaps.
    pub n: u64,
    pub meta: Meta,
    pub order: Order,
}

/// What every order carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// When it was given, in microseconds since 1970-01-01 UTC.
    pub at_us: i64,
    /// Who gave it.
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Resend(Resend),
    Ping(Ping),
    /// An entry this release cannot read.
    Unknown(String),
}

/// Deliveries that are over are made again, under the same `webhook-id`. All that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resend {
    /// One delivery: the position of its event (its row's key), and its endpoint's name is in `endpoint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// [`DELIVERED`] or [`GIVEN_UP`]; else both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<u8>,
    /// Announced at or after this time, in microseconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_us: Option<i64>,
    /// Announced before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_us: Option<i64>,
    /// Of events behind this cursor: the last number of each partition that is not meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Vec<u64>>,
    /// How many at most.
    pub limit: u32,
}

/// A signed test message goes to a configured endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    pub endpoint: String,
}

impl Order {
    /// The word in the stream's `type` field.
    #[must_use]
    pub fn order_type(&self) -> &str {
        match self {
            Self::Resend(_) => "resend",
            Self::Ping(_) => "ping",
            Self::Unknown(order_type) => order_type,
        }
    }
}

impl Resend {
    /// Adds, behind a `WHERE` that has something already, which rows of `webhook_outbox` are meant by an order of `at_us`: those
    /// that were over before it was given.
    pub fn push_conditions(&self, ask: &mut QueryBuilder<MySql>, at_us: i64) {
        match self.state {
            Some(state) => ask.push(" AND state = ").push_bind(state),
            None => ask.push(" AND state IN (2, 3)"),
        };
        ask.push(" AND finished_at <= ").push_bind(datetime(at_us));
        if let Some(id) = self.id {
            ask.push(" AND id = ").push_bind(id);
        }
        if let Some(endpoint) = &self.endpoint {
            ask.push(" AND endpoint = ").push_bind(endpoint.clone());
        }
        if let Some(from_us) = self.from_us {
            ask.push(" AND created_at >= ").push_bind(datetime(from_us));
        }
        if let Some(to_us) = self.to_us {
            ask.push(" AND created_at < ").push_bind(datetime(to_us));
        }
        if let Some(since) = &self.since {
            push_since(ask, &Cursor(since.clone()));
        }
    }
}

/// Rows whose event comes behind the cursor, in its own partition.
fn push_since(ask: &mut QueryBuilder<MySql>, since: &Cursor) {
    let keys: Vec<u64> = (0_u16..)
        .zip(&since.0)
        .map(|(partition, n)| row_id(Position { partition: Partition(partition), n: *n }))
        .collect();
    ask.push(" AND id > ").push_bind(keys.iter().copied().min().unwrap_or(0)).push(" AND id > CASE id % 1024");
    for (partition, key) in keys.iter().enumerate() {
        // Numbers of our own.
        ask.push(format!(" WHEN {partition} THEN {key}"));
    }
    ask.push(" ELSE 0 END");
}

/// Encodes what goes into field `e`.
///
/// # Panics
/// On [`Order::Unknown`], which is only ever read.
#[must_use]
pub fn encode(meta: &Meta, order: &Order) -> Vec<u8> {
    match order {
        Order::Resend(body) => envelope::pack(ENCODING, meta, body),
        Order::Ping(body) => envelope::pack(ENCODING, meta, body),
        Order::Unknown(order_type) => unreachable!("{order_type} is read, never written"),
    }
}

/// Decodes field `e` of an entry. Total: what cannot be read comes back as [`Order::Unknown`].
#[must_use]
pub fn decode(order_type: &str, bytes: &[u8]) -> (Meta, Order) {
    let read = match order_type {
        "resend" => envelope::unpack(ENCODING, bytes).map(|(meta, body)| (meta, Order::Resend(body))),
        "ping" => envelope::unpack(ENCODING, bytes).map(|(meta, body)| (meta, Order::Ping(body))),
        _ => Err("this release knows no such order".to_owned()),
    };
    read.unwrap_or_else(|_| {
        (Meta { at_us: 0, actor: String::new(), reason: None }, Order::Unknown(order_type.to_owned()))
    })
}

/// Gives an order; says its number.
///
/// # Errors
/// See [`LinkError`]; also when others gave orders all the time.
pub async fn give(link: &Link, keys: &Keys, meta: &Meta, order: &Order) -> Result<u64, LinkError> {
    let event = encode(meta, order);
    let write = uuid::Uuid::new_v4().simple().to_string();
    for _ in 0..TRIES {
        let last = last_number(link, keys).await?;
        let args = [
            Cow::Owned(last.to_string().into_bytes()),
            Cow::Borrowed(write.as_bytes()),
            Cow::Borrowed(order.order_type().as_bytes()),
            Cow::Borrowed(&event[..]),
        ];
        let written: i64 = link.eval(&script::REGISTER, &[keys.orders()], &args).await?;
        if written == 1 {
            return Ok(last + 1);
        }
    }
    Err(LinkError::Unavailable("others gave orders all the time".to_owned()))
}

/// Orders from number `from` on, `limit` at most.
///
/// # Errors
/// See [`LinkError`].
pub async fn read(link: &Link, keys: &Keys, from: u64, limit: usize) -> Result<Vec<Entry>, LinkError> {
    let mut command = redis::cmd("XRANGE");
    command.arg(keys.orders()).arg(stream_id(from)).arg("+").arg("COUNT").arg(limit);
    let entries: Entries = link.query(&command).await?;
    let read = entries.0.into_iter().map(|entry| {
        let (meta, order) = decode(&entry.event_type, &entry.bytes);
        Entry { n: entry.n().unwrap_or(0), meta, order }
    });
    Ok(read.collect())
}

/// The number of the last order; 0 when there is none.
///
/// # Errors
/// See [`LinkError`].
pub async fn last_number(link: &Link, keys: &Keys) -> Result<u64, LinkError> {
    let mut command = redis::cmd("XREVRANGE");
    command.arg(keys.orders()).arg("+").arg("-").arg("COUNT").arg(1);
    let entries: Entries = link.query(&command).await?;
    Ok(entries.0.first().and_then(|entry| number_of(&entry.id)).unwrap_or(0))
}
