//! Which models may be asked for: the program's own and what analyzers announce.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use insightforge_schema::catalogue::{self, ModelCard};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use tokio_util::sync::CancellationToken;

/// How old the list may be.
const REFRESH: Duration = Duration::from_secs(5);

/// The cards by type and version, refreshed in the background. Reading takes no lock.
#[derive(Clone)]
pub(crate) struct KnownModels(Arc<ArcSwap<Vec<ModelCard>>>);

impl KnownModels {
    /// Reads the announced cards now and every few seconds until `shutdown`.
    pub(crate) async fn load(
        link: &Link,
        keys: &Keys,
        own: Vec<ModelCard>,
        shutdown: CancellationToken,
    ) -> Result<Self, LinkError> {
        let announced = catalogue::models(link, keys).await?;
        let known = Self(Arc::new(ArcSwap::from_pointee(merged(&own, announced))));
        let (link, keys, cell) = (link.clone(), keys.clone(), known.clone());
        tokio::spawn(async move {
            while shutdown.run_until_cancelled(tokio::time::sleep(REFRESH)).await.is_some() {
                // During an outage the last list is as good as any.
                if let Ok(announced) = catalogue::models(&link, &keys).await {
                    cell.0.store(Arc::new(merged(&own, announced)));
                }
            }
        });
        Ok(known)
    }

    /// All cards, by type and version.
    pub(crate) fn cards(&self) -> Arc<Vec<ModelCard>> {
        self.0.load_full()
    }
}

/// Both lists as one; an announced card counts more than the program's own.
fn merged(own: &[ModelCard], announced: Vec<ModelCard>) -> Vec<ModelCard> {
    let mut cards = announced;
    for card in own {
        if !cards.iter().any(|known| known.lane() == card.lane()) {
            cards.push(card.clone());
        }
    }
    cards.sort_by(|a, b| (&a.task_type, &a.version).cmp(&(&b.task_type, &b.version)));
    cards
}
