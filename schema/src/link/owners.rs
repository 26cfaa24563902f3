//! The map of a cluster: who owns which slot.

use std::collections::HashMap;

use redis::Value;

/// Who owns what, as far as is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Owners {
    /// Counts answers.
    pub(super) version: u64,
    ranges: Vec<Range>,
    /// Slots that were moved since the answer.
    pub(super) moved: HashMap<u16, String>,
    /// Every node, replicas too.
    pub(super) nodes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    owner: String,
}

impl Owners {
    pub(super) fn of(&self, slot: u16) -> Option<&str> {
        if let Some(name) = self.moved.get(&slot) {
            return Some(name);
        }
        let range = self.ranges.iter().find(|range| (range.first..=range.last).contains(&slot));
        range.map(|range| range.owner.as_str())
    }

    /// Those that own something, in order.
    pub(super) fn masters(&self) -> Vec<&str> {
        let owners = self.ranges.iter().map(|range| &range.owner).chain(self.moved.values());
        let mut names: Vec<&str> = owners.map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Reads the reply of `CLUSTER SLOTS` of the node at `asked`: `[[first, last, [host, port, …], …], …]`, where the first
    /// node of a range owns it. `None` for another shape, or when nobody owns anything.
    pub(super) fn read(reply: Value, asked: &str) -> Option<Self> {
        let asked_host = asked.rsplit_once(':')?.0;
        let mut owners = Self::default();
        for range in array(reply)? {
            let mut parts = array(range)?.into_iter();
            let (first, last) = (number(parts.next()?)?, number(parts.next()?)?);
            let nodes = parts.map(|node| name(node, asked_host)).collect::<Option<Vec<_>>>()?;
            owners.ranges.push(Range { first, last, owner: nodes.first()?.clone() });
            owners.nodes.extend(nodes);
        }
        owners.nodes.sort_unstable();
        owners.nodes.dedup();
        (!owners.ranges.is_empty()).then_some(owners)
    }
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn number(value: Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(number).ok(),
        _ => None,
    }
}

/// `[host, port, …]`. A node that does not know how others call it has no host: it is where it was asked.
fn name(node: Value, asked_host: &str) -> Option<String> {
    let mut parts = array(node)?.into_iter();
    let host = match parts.next()? {
        Value::BulkString(host) => String::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => String::new(),
        _ => return None,
    };
    let host = if host.is_empty() || host == "?" { asked_host } else { &host };
    Some(format!("{host}:{}", number(parts.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec()), Value::Array(Vec::new())])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([Value::Int(first), Value::Int(last)].into_iter().chain(nodes).collect())
    }

    #[test]
    fn the_first_node_of_a_range_owns_it_until_a_slot_is_moved() {
        let host = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let reply = Value::Array(vec![
            range(0, 99, vec![node(host("a"), 1), node(host("b"), 2)]),
            range(100, 200, vec![node(Value::Nil, 3)]),
            range(300, 300, vec![node(host(""), 4)]),
        ]);
        let mut owners = Owners::read(reply, "seed:9").unwrap();
        for (slot, owner) in
            [(0, Some("a:1")), (99, Some("a:1")), (100, Some("seed:3")), (250, None), (300, Some("seed:4"))]
        {
            assert_eq!(owners.of(slot), owner, "{slot}");
        }
        assert_eq!(owners.masters(), ["a:1", "seed:3", "seed:4"]);
        assert_eq!(owners.nodes, ["a:1", "b:2", "seed:3", "seed:4"]);
        owners.moved.insert(99, "b:2".to_owned());
        assert_eq!((owners.of(98), owners.of(99)), (Some("a:1"), Some("b:2")));
    }

    #[test]
    fn an_answer_of_another_shape_is_none() {
        for reply in [
            Value::Nil,
            Value::Array(Vec::new()),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 1, Vec::new())]),
            Value::Array(vec![range(0, 70_000, vec![node(Value::Nil, 1)])]),
            Value::Array(vec![range(0, 1, vec![node(Value::Nil, 70_000)])]),
        ] {
            assert!(Owners::read(reply.clone(), "h:1").is_none(), "{reply:?}");
        }
    }
}
