//! Does what people order: makes deliveries due again, and sends test messages. Each order is done by one projector, which is
//! the one that writes its row.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use insightforge_schema::address::shown_url;
use insightforge_schema::event::now_us;
use insightforge_schema::id::TaskId;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::orders::{self, Entry, MAX_RESENT, Meta, Order, Ping, Resend};
use insightforge_schema::seal::Sealer;
use insightforge_schema::tables::datetime;
use serde_json::json;
use sqlx::{MySqlPool, QueryBuilder};
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempted, Courier};
use super::send::{Lookup, Sender};
use super::{DUE, Delivery, WebhookConfig};

/// Between two looks at the orders.
const EVERY: Duration = Duration::from_secs(1);
/// Orders read at once.
const PAGE: usize = 16;

/// What came of a look at the orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many were done.
    Done(usize),
    /// There are none.
    Idle,
}

/// Why orders could not be looked at, or done.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Who does them.
pub struct Clerk {
    link: Link,
    keys: Keys,
    pool: MySqlPool,
    config: Arc<WebhookConfig>,
    courier: Courier,
    /// The last order that was done, once that is known.
    done: Option<u64>,
}

impl Clerk {
    /// `config` has been checked.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(
        config: &WebhookConfig,
        (link, keys): (Link, Keys),
        pool: MySqlPool,
        sealer: Sealer,
        lookup: Lookup,
    ) -> Result<Self, reqwest::Error> {
        let config = Arc::new(config.clone());
        let courier = Courier::new(config.clone(), Sender::new(&config, lookup)?, sealer);
        Ok(Self { link, keys, pool, config, courier, done: None })
    }

    /// Does orders until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let work = async {
            let mut shown = false;
            loop {
                let step = async {
                    if !shown {
                        self.show_endpoints().await?;
                    }
                    shown = true;
                    self.step().await
                };
                if let Err(error) = step.await {
                    tracing::warn!(%error, "orders wait");
                }
                tokio::time::sleep(EVERY).await;
            }
        };
        // What is cut off here has no row and is done by the next, or has one and is a ping nobody heard of.
        shutdown.run_until_cancelled(work).await;
    }

    /// Tells those who ask which endpoints are configured.
    ///
    /// # Errors
    /// What the server says.
    pub async fn show_endpoints(&self) -> Result<(), OrderError> {
        for endpoint in &self.config.endpoints {
            sqlx::query(
                "INSERT INTO webhook_endpoints (name, url, seen_at) VALUES (?, ?, ?) \
                 ON DUPLICATE KEY UPDATE url = VALUES(url), seen_at = VALUES(seen_at)",
            )
            .bind(&endpoint.name)
            .bind(shown_url(&endpoint.url))
            .bind(datetime(now_us()))
            .execute(&self.pool)
            .await?;
        }
        Ok(())
    }

    /// Does the orders that are there.
    ///
    /// # Errors
    /// [`OrderError`]; what was not done is there again at the next step.
    pub async fn step(&mut self) -> Result<Step, OrderError> {
        let done = match self.done {
            Some(done) => done,
            None => self.find_out().await?,
        };
        let orders = orders::read(&self.link, &self.keys, done + 1, PAGE).await?;
        for entry in &orders {
            self.carry_out(entry).await?;
            self.done = Some(entry.n);
        }
        Ok(if orders.is_empty() { Step::Idle } else { Step::Done(orders.len()) })
    }

    async fn find_out(&mut self) -> Result<u64, OrderError> {
        let done: Option<u64> = sqlx::query_scalar("SELECT MAX(n) FROM webhook_orders").fetch_one(&self.pool).await?;
        let (done, given) = (done.unwrap_or(0), orders::last_number(&self.link, &self.keys).await?);
        if done > given {
            tracing::error!(done, given, "orders were done that Redis does not know: it has lost some, or is another");
        }
        self.done = Some(done);
        Ok(done)
    }

    async fn carry_out(&self, entry: &Entry) -> Result<(), OrderError> {
        let mut transaction = self.pool.begin().await?;
        let resent = match &entry.order {
            Order::Resend(resend) => Some(resend),
            Order::Ping(_) | Order::Unknown(_) => None,
        };
        let ours = sqlx::query(
            "INSERT IGNORE INTO webhook_orders (n, kind, actor, reason, ordered_at) VALUES (?, LEFT(?, 16), LEFT(?, 255), ?, ?)",
        )
        .bind(entry.n)
        .bind(entry.order.order_type())
        .bind(&entry.meta.actor)
        .bind(&entry.meta.reason)
        .bind(datetime(entry.meta.at_us))
        .execute(&mut *transaction)
        .await?;
        if ours.rows_affected() == 0 {
            // Another projector does it.
            return Ok(transaction.rollback().await?);
        }
        if let Some(resend) = resent {
            let resent = make_due(&mut transaction, resend, &entry.meta).await?;
            sqlx::query("UPDATE webhook_orders SET resent = ?, done_at = ? WHERE n = ?")
                .bind(resent)
                .bind(datetime(now_us()))
                .bind(entry.n)
                .execute(&mut *transaction)
                .await?;
            tracing::info!(order = entry.n, resent, actor = entry.meta.actor, "webhooks are sent again");
        }
        transaction.commit().await?;
        match &entry.order {
            Order::Ping(ping) => self.ping(entry, ping).await,
            Order::Resend(_) => Ok(()),
            Order::Unknown(kind) => {
                tracing::error!(order = entry.n, kind, "this release knows no such order");
                self.finish(entry.n, None, Some("this release knows no such order"), Duration::ZERO).await
            }
        }
    }

    /// Sends a test message, once, without a row in the outbox.
    async fn ping(&self, entry: &Entry, ping: &Ping) -> Result<(), OrderError> {
        let task = TaskId::new();
        let body = json!({
            "type": "ping", "endpoint": ping.endpoint, "order": entry.n, "sent_at": chrono::Utc::now(),
        });
        let delivery = Delivery {
            id: 0,
            endpoint: Arc::from(ping.endpoint.as_str()),
            url: None,
            sealed_secret: None,
            task,
            body: Bytes::from(body.to_string()),
            trace: None,
            attempts: 0,
            lease_token: 0,
            created_us: now_us(),
            lease_ends_us: 0,
        };
        let attempted = match self.courier.route(delivery) {
            Err(attempted) => attempted,
            Ok(job) => match self.courier.attempt(job, &CancellationToken::new()).await {
                Ok(attempted) => attempted,
                Err(_) => return Ok(()),
            },
        };
        let Attempted { status_code, error, took, .. } = *attempted;
        self.finish(entry.n, status_code, error.as_deref(), took).await
    }

    async fn finish(&self, n: u64, status: Option<u16>, error: Option<&str>, took: Duration) -> Result<(), OrderError> {
        let statement =
            "UPDATE webhook_orders SET done_at = ?, status_code = ?, error = LEFT(?, 255), duration_us = ? WHERE n = ?";
        sqlx::query(statement)
            .bind(datetime(now_us()))
            .bind(status)
            .bind(error)
            .bind(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
            .bind(n)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Deliveries that are over become due now, as if they had never been tried; they keep their `webhook-id`, so that a receiver
/// that has one knows it.
async fn make_due(
    transaction: &mut sqlx::Transaction<'_, sqlx::MySql>,
    resend: &Resend,
    meta: &Meta,
) -> Result<u64, sqlx::Error> {
    let mut update = QueryBuilder::new("UPDATE webhook_outbox SET state = ");
    update.push_bind(DUE).push(", due_at = ").push_bind(datetime(now_us()));
    update.push(", attempts = 0, finished_at = NULL, lease_token = NULL WHERE TRUE");
    resend.push_conditions(&mut update, meta.at_us);
    // In key order, as every writer locks them.
    update.push(" ORDER BY id, endpoint LIMIT ").push_bind(resend.limit.min(MAX_RESENT));
    Ok(update.build().execute(&mut **transaction).await?.rows_affected())
}
