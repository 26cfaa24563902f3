//! The link, the scripts and the readers on a Redis Cluster: three masters and three replicas of a test's own.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

#[path = "../../../tests/shared/ports.rs"]
mod ports;
#[path = "../../../tests/shared/redis_cluster.rs"]
#[allow(dead_code, reason = "shared with the fault harness, which uses more of it")]
mod redis_cluster;

mod failover;
mod moving;
mod steps;
mod writers;
