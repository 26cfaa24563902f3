//! Which models may be asked for: the program's own, what analyzers announce, and what the registry makes of their
//! versions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use insightforge_schema::catalogue::{self, ModelCard};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::registry::{ALIASES, CANDIDATE, Registry, Routes, STABLE};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::asked::Defaults;
use crate::document::InputSchema;
use crate::sent::{SentFields, short};

/// How old the list may be.
const REFRESH: Duration = Duration::from_secs(5);
/// And how old for a request that names what is not on it.
const AGAIN: Duration = Duration::from_millis(200);
/// For Redis to tell it while a request waits.
const LOOK: Duration = Duration::from_secs(2);

/// The list, refreshed in the background. Reading takes no lock.
#[derive(Clone)]
pub(crate) struct KnownModels(Arc<Shared>);

struct Shared {
    seen: ArcSwap<Seen>,
    reader: Mutex<Reader>,
}

/// What reads it, and when it did last.
struct Reader {
    link: Link,
    keys: Keys,
    own: Vec<ModelCard>,
    registry: Registry,
    looked: Instant,
}

/// The list as it was at one moment.
pub(crate) struct Seen {
    /// By type and version.
    pub(crate) models: Vec<Arc<KnownModel>>,
    pub(crate) routes: Arc<Routes>,
}

/// One version.
pub(crate) struct KnownModel {
    pub(crate) card: ModelCard,
    pub(crate) input: InputSchema,
}

/// What cannot be asked for: the wrong field, and what is wrong with it.
pub(crate) type Unknown = (&'static str, String);

impl KnownModels {
    /// Reads the list now and every few seconds until `shutdown`.
    pub(crate) async fn load(
        link: &Link,
        keys: &Keys,
        own: Vec<ModelCard>,
        shutdown: CancellationToken,
    ) -> Result<Self, LinkError> {
        let registry = Registry::new(link.clone(), keys.clone());
        let reader = Reader { link: link.clone(), keys: keys.clone(), own, registry, looked: Instant::now() };
        let nothing = Seen { models: Vec::new(), routes: Arc::default() };
        let known = Self(Arc::new(Shared { seen: ArcSwap::from_pointee(nothing), reader: Mutex::new(reader) }));
        known.look(&mut *known.0.reader.lock().await).await?;
        let refreshed = known.clone();
        tokio::spawn(async move {
            while shutdown.run_until_cancelled(tokio::time::sleep(REFRESH)).await.is_some() {
                // During an outage the last list is as good as any.
                let _ = refreshed.look(&mut *refreshed.0.reader.lock().await).await;
            }
        });
        Ok(known)
    }

    pub(crate) fn seen(&self) -> Arc<Seen> {
        self.0.seen.load_full()
    }

    /// The list for a request: read anew when it names what is not on it, since a package may have been added just now.
    pub(crate) async fn seen_for(&self, sent: &SentFields, defaults: &Defaults) -> Arc<Seen> {
        let seen = self.seen();
        let task_type = sent.peek("task_type").or(defaults.task_type.as_deref());
        let version = sent.peek("model_version").or(defaults.model_version.as_deref()).unwrap_or(STABLE);
        match task_type {
            Some(task_type) if seen.find(task_type, version).is_err() => self.look_again().await,
            _ => seen,
        }
    }

    /// Reads the list unless that was done a moment ago. During an outage the last one counts.
    pub(crate) async fn look_again(&self) -> Arc<Seen> {
        let mut reader = self.0.reader.lock().await;
        if reader.looked.elapsed() > AGAIN {
            let _ = tokio::time::timeout(LOOK, self.look(&mut reader)).await;
        }
        self.seen()
    }

    /// Reads the list after it was changed.
    pub(crate) async fn look_now(&self) -> Arc<Seen> {
        let mut reader = self.0.reader.lock().await;
        let _ = tokio::time::timeout(LOOK, self.look(&mut reader)).await;
        self.seen()
    }

    async fn look(&self, reader: &mut Reader) -> Result<(), LinkError> {
        reader.looked = Instant::now();
        let announced = catalogue::models(&reader.link, &reader.keys).await?;
        reader.registry.refresh().await?;
        let seen = self.seen();
        let models = merged(&reader.own, announced).into_iter().map(|card| {
            // A schema is read once a card.
            let kept = seen.models.iter().find(|known| known.card == card);
            kept.cloned().unwrap_or_else(|| Arc::new(KnownModel::new(card)))
        });
        self.0.seen.store(Arc::new(Seen { models: models.collect(), routes: reader.registry.routes() }));
        Ok(())
    }
}

impl KnownModel {
    pub(crate) fn new(card: ModelCard) -> Self {
        Self { input: InputSchema::new(&card.input_schema), card }
    }
}

impl Seen {
    /// The model that answers a request for `version`, an exact one or an alias. `None` when that can be asked for and its
    /// card is not known here.
    pub(crate) fn find(&self, task_type: &str, version: &str) -> Result<Option<&KnownModel>, Unknown> {
        let task = self.routes.task(task_type).filter(|task| !task.versions.is_empty());
        if task.is_none() && self.of_type(task_type).next().is_none() {
            let known = list(self.task_types());
            return Err(("task_type", format!("{:?} is not known; known are: {known}", short(task_type))));
        }
        let unknown = |what: String| {
            Err(("model_version", format!("{task_type} {what}; known are: {}", list(self.askable(task_type)))))
        };
        if ALIASES.contains(&version) {
            return match (task, self.routes.targets(task_type, version).first()) {
                // No analyzer has registered a version yet; the first that does will be the stable one.
                (None, _) if version != CANDIDATE => Ok(None),
                (_, Some(target)) => Ok(self.card(task_type, target)),
                (_, None) => unknown(format!("has no {version} version now")),
            };
        }
        if task.is_some_and(|task| task.retired.contains(version)) {
            return unknown(format!("{version} is retired and answers nobody any more"));
        }
        let card = self.card(task_type, version);
        if card.is_none() && task.is_none_or(|task| task.version(version).is_none()) {
            return unknown(format!("has no version {:?}", short(version)));
        }
        Ok(card)
    }

    /// The card of an exact version.
    pub(crate) fn card(&self, task_type: &str, version: &str) -> Option<&KnownModel> {
        self.of_type(task_type).find(|known| known.card.version == version)
    }

    fn of_type(&self, task_type: &str) -> impl Iterator<Item = &KnownModel> {
        self.models.iter().map(AsRef::as_ref).filter(move |known| known.card.task_type == task_type)
    }

    /// Every task type, in order.
    pub(crate) fn task_types(&self) -> Vec<&str> {
        let announced = self.models.iter().map(|known| &*known.card.task_type);
        let mut types: Vec<&str> = announced.chain(self.routes.tasks.keys().map(String::as_str)).collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    /// Every version of a type that was ever announced or registered, in order.
    pub(crate) fn versions(&self, task_type: &str) -> Vec<&str> {
        let announced = self.of_type(task_type).map(|known| &*known.card.version);
        let registered = self.routes.task(task_type).into_iter().flat_map(|task| &task.versions);
        let mut versions: Vec<&str> = announced.chain(registered.map(|known| &*known.version)).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// Versions and aliases of a type that can be asked for.
    fn askable(&self, task_type: &str) -> Vec<&str> {
        let task = self.routes.task(task_type);
        let mut names = self.versions(task_type);
        names.retain(|version| task.is_none_or(|task| !task.retired.contains(*version)));
        let registered = task.is_some_and(|task| !task.versions.is_empty());
        names.extend(ALIASES.into_iter().filter(|alias| {
            if registered { !self.routes.targets(task_type, alias).is_empty() } else { *alias != CANDIDATE }
        }));
        names
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

fn list(names: Vec<&str>) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
