//! Which servers a Redis URL names, read once: one server, or some nodes of a cluster, which tell the rest.

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::{LinkError, USER_TIMEOUT};

/// What stands in a URL's scheme when it names a cluster.
const CLUSTER: &str = "+cluster://";

/// The servers of a URL.
#[derive(Debug)]
pub(super) enum Address {
    One(Box<ConnectionInfo>),
    /// At least one node of a cluster. All of its nodes take the same user and password.
    Cluster(Vec<ConnectionInfo>),
}

impl Address {
    /// Reads `redis://…`, or `redis+cluster://[user:password@]host:port,host:port…`; with TLS `rediss`.
    ///
    /// # Errors
    /// [`LinkError::Refused`]; the text does not repeat the URL, which can hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, LinkError> {
        let Some((scheme, rest)) = url.split_once(CLUSTER) else { return read(url).map(Box::new).map(Self::One) };
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let nodes = hosts.split(',').map(|host| read(&format!("{scheme}://{user}{host}{tail}")));
        let nodes: Vec<ConnectionInfo> = nodes.collect::<Result<_, _>>()?;
        if nodes.iter().any(|node| node.redis_settings().db() != 0) {
            return Err(refused("the Redis URL names a database, and a cluster has only number 0"));
        }
        Ok(Self::Cluster(nodes))
    }
}

/// `host:port` of a server.
pub(super) fn name_of(addr: &ConnectionAddr) -> String {
    match addr {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
        other => other.to_string(),
    }
}

/// The same way in, to another node of the same cluster: `host:port`. `None` when that is no address.
pub(super) fn beside(info: &ConnectionInfo, name: &str) -> Option<ConnectionInfo> {
    let (new_host, new_port) = name.rsplit_once(':')?;
    let mut addr = info.addr().clone();
    match &mut addr {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            *host = new_host.trim_start_matches('[').trim_end_matches(']').to_owned();
            *port = new_port.parse().ok()?;
        }
        _ => return None,
    }
    Some(info.clone().set_addr(addr))
}

fn read(url: &str) -> Result<ConnectionInfo, LinkError> {
    let settings = TcpSettings::default().set_nodelay(true).set_user_timeout(USER_TIMEOUT);
    let info = url.into_connection_info().map_err(|_| refused("the Redis URL cannot be read"))?;
    Ok(info.set_tcp_settings(settings))
}

fn refused(text: &str) -> LinkError {
    LinkError::Refused(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(url: &str) -> Vec<String> {
        match Address::parse(url).unwrap() {
            Address::One(info) => vec![name_of(info.addr())],
            Address::Cluster(nodes) => nodes.iter().map(|node| name_of(node.addr())).collect(),
        }
    }

    #[test]
    fn a_cluster_is_named_by_its_scheme_and_some_of_its_nodes() {
        assert!(matches!(Address::parse("redis://h:1").unwrap(), Address::One(_)));
        assert!(matches!(Address::parse("redis+cluster://h:1").unwrap(), Address::Cluster(_)));
        assert_eq!(names("redis+cluster://h1:7000,h2:7001,h3"), ["h1:7000", "h2:7001", "h3:6379"]);
        assert_eq!(names("redis+cluster://10.0.0.1:1,[::1]:2/0?protocol=resp3"), ["10.0.0.1:1", "::1:2"]);
    }

    #[test]
    fn every_node_is_entered_with_the_same_user_password_and_encryption() {
        let Address::Cluster(nodes) = Address::parse("rediss+cluster://u:p%40ss@h1:1,h2:2").unwrap() else {
            panic!("a cluster was named")
        };
        let other = beside(&nodes[0], "h9:9").unwrap();
        for node in nodes.iter().chain([&other]) {
            assert_eq!(node.redis_settings().username(), Some("u"));
            assert_eq!(node.redis_settings().password(), Some("p@ss"));
            assert!(matches!(node.addr(), ConnectionAddr::TcpTls { .. }), "{node:?}");
        }
        assert_eq!(name_of(other.addr()), "h9:9");
        assert_eq!(name_of(beside(&nodes[0], "::1:9").unwrap().addr()), "::1:9");
    }

    #[test]
    fn what_cannot_be_a_cluster_is_refused_without_repeating_it() {
        for url in
            ["redis+cluster://", "redis+cluster://u:secret@h1:1,", "http+cluster://secret", "redis+cluster://h:1/7"]
        {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains("the Redis URL") && !error.contains("secret"), "{url}: {error}");
        }
        assert!(beside(&"redis://h:1".into_connection_info().unwrap(), "nowhere").is_none());
    }
}
