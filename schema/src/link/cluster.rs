//! Who owns which slot of a cluster, and a connection to each of them.
//!
//! What is known is used until it proves wrong: a node that says where a slot went (`MOVED`) is believed for that slot,
//! and a node that does not answer makes the others be asked for the whole map. Nothing is asked for in between.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, RedisError};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::CONNECT_TIMEOUT;
use super::address::{beside, name_of};
use super::node::Node;
use super::owners::Owners;

/// Nodes asked for the map at the same time, so that one that hangs does not hold up the answer of another.
const ASKED_AT_ONCE: usize = 3;
/// Between two looks at the map: an outage makes every caller want one.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// One link's connections into a cluster, and the map that it shares with its siblings.
pub(super) struct Cluster {
    map: Arc<Map>,
    nodes: std::sync::Mutex<HashMap<String, Arc<Node>>>,
    /// Commands without a key go to one master after the other.
    turn: AtomicUsize,
}

struct Map {
    /// The nodes of the URL.
    seeds: Vec<ConnectionInfo>,
    owners: RwLock<Arc<Owners>>,
    /// Held while a look is under way.
    look: Mutex<Look>,
    /// The node that is asked first next time.
    first: AtomicUsize,
}

/// The last look at the map.
#[derive(Default)]
struct Look {
    began: Option<Instant>,
    /// When it failed, and how.
    failed: Option<(Instant, RedisError)>,
}

impl Cluster {
    pub(super) fn new(seeds: Vec<ConnectionInfo>) -> Self {
        let map = Map { seeds, owners: RwLock::default(), look: Mutex::default(), first: AtomicUsize::new(0) };
        Self::with(Arc::new(map))
    }

    /// The same cluster, with connections of its own.
    pub(super) fn sibling(&self) -> Self {
        Self::with(self.map.clone())
    }

    fn with(map: Arc<Map>) -> Self {
        Self { map, nodes: std::sync::Mutex::default(), turn: AtomicUsize::new(0) }
    }

    /// The master that owns a slot; any master for a command without a key.
    pub(super) async fn owner(&self, slot: Option<u16>) -> Result<Arc<Node>, RedisError> {
        let mut owners = self.map.owners();
        if owners.version == 0 {
            self.look(0).await?;
            owners = self.map.owners();
        }
        let name = match slot {
            Some(slot) => owners.of(slot),
            None => {
                let masters = owners.masters();
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                (!masters.is_empty()).then(|| masters[turn % masters.len()])
            }
        };
        match name {
            Some(name) => self.node(name),
            None => {
                self.look(owners.version).await?;
                Err(nobody("no server of the cluster owns the slot"))
            }
        }
    }

    /// Every master, by name.
    pub(super) async fn masters(&self) -> Result<Vec<Arc<Node>>, RedisError> {
        self.look(self.map.owners().version).await?;
        self.map.owners().masters().into_iter().map(|name| self.node(name)).collect()
    }

    /// A node by its name.
    pub(super) fn node(&self, name: &str) -> Result<Arc<Node>, RedisError> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = nodes.get(name) {
            return Ok(node.clone());
        }
        let info =
            beside(&self.map.seeds[0], name).ok_or_else(|| nobody("the cluster names a node without address"))?;
        let node = Node::new(info).map_err(|_| nobody("the cluster names a node that cannot be reached"))?;
        let node = Arc::new(node);
        // Those that are gone for good must not pile up.
        let owners = self.map.owners();
        nodes.retain(|known, _| owners.nodes.contains(known));
        nodes.insert(name.to_owned(), node.clone());
        Ok(node)
    }

    /// A node said that a slot is another's now.
    pub(super) fn moved(&self, slot: u16, name: &str) {
        let mut owners = self.map.owners.write().unwrap_or_else(PoisonError::into_inner);
        let owners = Arc::make_mut(&mut owners);
        owners.moved.insert(slot, name.to_owned());
        if !owners.nodes.iter().any(|known| known == name) {
            owners.nodes.push(name.to_owned());
        }
    }

    /// Which answer what is known comes from.
    pub(super) fn version(&self) -> u64 {
        self.map.owners().version
    }

    /// Asks for the map anew, unless somebody has since version `seen`. Who waited for another's look that failed shares
    /// its failure.
    pub(super) async fn look(&self, seen: u64) -> Result<(), RedisError> {
        let wanted = Instant::now();
        let mut look = self.map.look.lock().await;
        if self.map.owners().version > seen {
            return Ok(());
        }
        if let Some((at, error)) = &look.failed
            && *at > wanted
        {
            return Err(error.clone());
        }
        if let Some(before) = look.began {
            tokio::time::sleep_until((before + BETWEEN_LOOKS).into()).await;
        }
        look.began = Some(Instant::now());
        let outcome = self.map.ask().await;
        look.failed = outcome.as_ref().err().map(|error| (Instant::now(), error.clone()));
        outcome
    }
}

impl Map {
    fn owners(&self) -> Arc<Owners> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first answer counts: an old one is put right by the node it sends to.
    async fn ask(&self) -> Result<(), RedisError> {
        let mut candidates = self.candidates();
        let mut asked = JoinSet::new();
        let mut problem = nobody("no node of the cluster answers");
        loop {
            while asked.len() < ASKED_AT_ONCE
                && let Some(info) = candidates.pop()
            {
                asked.spawn(ask(info));
            }
            match asked.join_next().await {
                Some(Ok(Ok(mut owners))) => {
                    let mut known = self.owners.write().unwrap_or_else(PoisonError::into_inner);
                    owners.version = known.version + 1;
                    *known = Arc::new(owners);
                    return Ok(());
                }
                Some(Ok(Err(error))) => problem = error,
                Some(Err(_)) => {}
                None => return Err(problem),
            }
        }
    }

    /// Nodes to ask, the last first; each time another one.
    fn candidates(&self) -> Vec<ConnectionInfo> {
        let owners = self.owners();
        let mut candidates: Vec<ConnectionInfo> = self.seeds.clone();
        let known = owners.nodes.iter().filter(|name| !self.seeds.iter().any(|seed| name_of(seed.addr()) == **name));
        candidates.extend(known.filter_map(|name| beside(&self.seeds[0], name)));
        let turn = self.first.fetch_add(1, Ordering::Relaxed) % candidates.len();
        candidates.rotate_left(turn);
        candidates
    }
}

async fn ask(info: ConnectionInfo) -> Result<Owners, RedisError> {
    let name = name_of(info.addr());
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(CONNECT_TIMEOUT));
    let mut connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
    let reply = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
    Owners::read(reply, &name).ok_or_else(|| nobody("a node of the cluster does not say who owns the slots"))
}

/// Passes when the cluster has sorted itself out.
fn nobody(text: &'static str) -> RedisError {
    RedisError::from((ErrorKind::ClusterConnectionNotFound, text))
}
