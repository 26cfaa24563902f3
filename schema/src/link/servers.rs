//! The servers of a link: one, or the masters of a cluster.

use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::LinkError;
use super::address::Address;
use super::call::Way;
use super::cluster::Cluster;
use super::judge::doubts_the_owner;
use super::node::Node;

pub(super) enum Servers {
    One(Arc<Node>),
    Cluster(Cluster),
}

/// What to do after an error.
pub(super) enum Next {
    /// As the error says.
    Judge,
    /// Again at once: the owner is known now, or is this node as long as the slot moves.
    Elsewhere(Option<Arc<Node>>),
    Never(LinkError),
}

impl Servers {
    pub(super) fn new(url: &str) -> Result<Self, LinkError> {
        Ok(match Address::parse(url)? {
            Address::One(info) => Self::One(Arc::new(Node::new(*info)?)),
            Address::Cluster(seeds) => Self::Cluster(Cluster::new(seeds)),
        })
    }

    /// The same servers, with connections of their own.
    pub(super) fn sibling(&self) -> Self {
        match self {
            Self::One(node) => Self::One(Arc::new(node.sibling())),
            Self::Cluster(cluster) => Self::Cluster(cluster.sibling()),
        }
    }

    /// Which answer of the cluster what is known comes from.
    pub(super) fn version(&self) -> u64 {
        match self {
            Self::One(_) => 0,
            Self::Cluster(cluster) => cluster.version(),
        }
    }

    pub(super) async fn owner(&self, slot: Option<u16>) -> Result<Arc<Node>, RedisError> {
        match self {
            Self::One(node) => Ok(node.clone()),
            Self::Cluster(cluster) => cluster.owner(slot).await,
        }
    }

    /// Every server that takes writes.
    pub(super) async fn masters(&self) -> Result<Vec<Arc<Node>>, RedisError> {
        match self {
            Self::One(node) => Ok(vec![node.clone()]),
            Self::Cluster(cluster) => cluster.masters().await,
        }
    }

    /// A connection to the owner of a slot, or to the node that has to be asked while the slot moves.
    pub(super) async fn way(&self, slot: Option<u16>, asked: Option<Arc<Node>>) -> Result<Way, RedisError> {
        let asking = asked.is_some();
        let node = match asked {
            Some(node) => node,
            None => self.owner(slot).await?,
        };
        let (generation, connection) = node.connection().await?;
        Ok(Way { node, generation, connection, asking })
    }

    /// Takes from an error what it says of who owns what; `seen` is the version that the call went by.
    pub(super) async fn learn(&self, error: &RedisError, seen: u64) -> Next {
        let redirected = error.redirect_node();
        let Self::Cluster(cluster) = self else {
            return if redirected.is_some() { Next::Never(refuse_single()) } else { Next::Judge };
        };
        match (error.kind(), redirected) {
            (ErrorKind::Server(ServerErrorKind::Ask), Some((name, _))) => match cluster.node(name) {
                Ok(node) => Next::Elsewhere(Some(node)),
                Err(_) => Next::Judge,
            },
            (_, Some((name, slot))) => {
                cluster.moved(slot, name);
                Next::Elsewhere(None)
            }
            _ if is_no_cluster(error) => Next::Never(refuse_cluster()),
            _ => {
                if doubts_the_owner(error)
                    && let Err(error) = cluster.look(seen).await
                    && is_no_cluster(&error)
                {
                    return Next::Never(refuse_cluster());
                }
                Next::Judge
            }
        }
    }
}

/// Errors of this kind tell that the URL names no cluster at all.
fn is_no_cluster(error: &RedisError) -> bool {
    error.to_string().contains("cluster support disabled")
}

fn refuse_cluster() -> LinkError {
    LinkError::Refused("the server is no node of a Redis Cluster: write its URL as redis://…".to_owned())
}

/// For a single server that turns out to be a node of a cluster.
fn refuse_single() -> LinkError {
    LinkError::Refused("the server is a node of a Redis Cluster: write its URL as redis+cluster://…".to_owned())
}
