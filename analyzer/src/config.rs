//! What an analyzer can be told, and which combinations make no sense.

use insightforge_schema::id::PartitionCount;

/// The shortest lease: attempts are renewed every third of it, and a beat a second is the floor.
pub const LEASE_FLOOR_MS: u64 = 3 * BEAT_FLOOR_MS;
/// The shortest interval between two beats, in milliseconds.
pub const BEAT_FLOOR_MS: u64 = 1_000;
/// The longest drain: handing back and signing off must fit behind it into the ten seconds a stopping process has.
pub const DRAIN_CEILING_MS: u64 = 8_500;

/// The longest delay before another attempt, in milliseconds: a day.
pub const BACKOFF_CEILING_MS: u64 = 86_400_000;

/// The most attempts: their number stands in 16 bits in the tables.
pub const ATTEMPTS_CEILING: u32 = 65_535;
/// The most places of one kind: more than any machine has use for, and fewer than a semaphore's own bound.
pub const PLACES_CEILING: usize = 1_000_000;

/// Settings of one analyzer process. Plain data; the binary reads flags and environment.
#[derive(Debug, Clone)]
pub struct Config {
    pub partitions: PartitionCount,
    /// Unique for every start of a process, such as `<host>-<pid>-<random>`: it names the consumer in every group and
    /// stands in every event of this process.
    pub worker_name: String,
    /// Tasks in flight at once, counted for each task type on its own, so that one type's slow model does not take the
    /// room of another.
    pub max_in_flight: usize,
    /// A holder silent for this long loses its tasks to others.
    pub lease_ms: u64,
    /// One call of a model; longer counts as hung.
    pub task_timeout_ms: u64,
    /// Attempts a task has, those ended by a crash included.
    pub max_attempts: u32,
    /// Bound of the random delay before the second attempt; doubles with each further one.
    pub backoff_base_ms: u64,
    /// Bound of the random delay before any attempt.
    pub backoff_cap_ms: u64,
    /// The models it answers for; all that it has when none is named.
    pub serve: Vec<Pattern>,
    /// Where its synchronous door is, as others reach it: `host:port`.
    pub infer_addr: Option<String>,
    /// How long a stopping process goes on with what it has in flight before it hands the rest back.
    pub drain_ms: u64,
}

/// Models by name: `<task type>`, `<task type>:<version>`, each part perhaps `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    task_type: String,
    version: String,
}

impl Pattern {
    /// Reads a pattern; `None` when a part is empty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (task_type, version) = text.trim().split_once(':').unwrap_or((text.trim(), "*"));
        let pattern = Self { task_type: task_type.to_owned(), version: version.to_owned() };
        (!task_type.is_empty() && !version.is_empty()).then_some(pattern)
    }

    #[must_use]
    pub fn matches(&self, task_type: &str, version: &str) -> bool {
        let part = |pattern: &str, word: &str| pattern == "*" || pattern == word;
        part(&self.task_type, task_type) && part(&self.version, version)
    }
}

/// A setting that cannot work, or two that contradict each other. Names the fields of [`Config`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Refuses what cannot work; `lanes` is the greatest number of versions and aliases one task type is served at.
    ///
    /// # Errors
    /// [`ConfigError`] names the settings.
    pub fn check(&self, lanes: usize) -> Result<(), ConfigError> {
        let partitions = usize::from(self.partitions.get());
        let wrong = |text: String| Err(ConfigError(text));
        if self.worker_name.is_empty() || self.worker_name.len() > 128 {
            return wrong("worker_name must have 1 to 128 bytes".to_owned());
        }
        if self.lease_ms < LEASE_FLOOR_MS {
            return wrong(format!(
                "lease_ms is {}, but holders renew it every third of its length and at most once in {BEAT_FLOOR_MS} ms: \
                 below {LEASE_FLOOR_MS} a healthy holder would lose its tasks",
                self.lease_ms
            ));
        }
        if self.max_attempts == 0 {
            return wrong("max_attempts is 0: no task could ever run".to_owned());
        }
        if self.max_attempts > ATTEMPTS_CEILING {
            return wrong(format!("max_attempts is {}: {ATTEMPTS_CEILING} at most", self.max_attempts));
        }
        if self.max_in_flight > PLACES_CEILING {
            return wrong(format!("max_in_flight is {}: {PLACES_CEILING} at most", self.max_in_flight));
        }
        if self.task_timeout_ms == 0 {
            return wrong("task_timeout_ms is 0: every attempt would time out".to_owned());
        }
        if self.backoff_base_ms > self.backoff_cap_ms {
            return wrong(format!(
                "backoff_base_ms ({}) is greater than backoff_cap_ms ({})",
                self.backoff_base_ms, self.backoff_cap_ms
            ));
        }
        if self.backoff_cap_ms > BACKOFF_CEILING_MS {
            return wrong(format!(
                "backoff_cap_ms is {}: a retry waits for a day ({BACKOFF_CEILING_MS}) at most",
                self.backoff_cap_ms
            ));
        }
        if self.max_in_flight < partitions * lanes.max(1) {
            return wrong(format!(
                "max_in_flight is {}, but {partitions} partitions with up to {lanes} versions and aliases of a task type each \
                 need room for one task a lane",
                self.max_in_flight
            ));
        }
        if self.drain_ms > DRAIN_CEILING_MS {
            return wrong(format!(
                "drain_ms is {}: above {DRAIN_CEILING_MS} handing back would not fit into the 10 s a stopping process has",
                self.drain_ms
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Config {
        Config {
            partitions: PartitionCount::new(4).unwrap(),
            worker_name: "w".to_owned(),
            max_in_flight: 256,
            lease_ms: 15_000,
            task_timeout_ms: 120_000,
            max_attempts: 3,
            backoff_base_ms: 1_000,
            backoff_cap_ms: 60_000,
            serve: Vec::new(),
            infer_addr: None,
            drain_ms: 8_000,
        }
    }

    #[test]
    fn a_pattern_names_a_task_type_or_one_of_its_versions() {
        for (pattern, task_type, version, matches) in [
            ("a", "a", "v1", true),
            ("a", "b", "v1", false),
            (" a:v1 ", "a", "v1", true),
            ("a:v1", "a", "v2", false),
            ("a:*", "a", "v2", true),
            ("*:v1", "b", "v1", true),
            ("*", "b", "v2", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(task_type, version), matches, "{pattern}");
        }
        for bad in ["", ":", "a:", ":v1"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn contradicting_settings_are_refused_by_name() {
        assert_eq!(sound().check(1), Ok(()));
        let cases: [(&str, Config); 10] = [
            ("max_attempts", Config { max_attempts: ATTEMPTS_CEILING + 1, ..sound() }),
            ("max_in_flight", Config { max_in_flight: usize::MAX, ..sound() }),
            ("worker_name", Config { worker_name: String::new(), ..sound() }),
            ("lease_ms", Config { lease_ms: 2_999, ..sound() }),
            ("max_attempts", Config { max_attempts: 0, ..sound() }),
            ("task_timeout_ms", Config { task_timeout_ms: 0, ..sound() }),
            ("backoff_cap_ms", Config { backoff_base_ms: 2, backoff_cap_ms: 1, ..sound() }),
            ("backoff_cap_ms", Config { backoff_cap_ms: BACKOFF_CEILING_MS + 1, ..sound() }),
            ("max_in_flight", Config { max_in_flight: 7, ..sound() }),
            ("drain_ms", Config { drain_ms: 9_000, ..sound() }),
        ];
        for (name, config) in cases {
            let error = config.check(2).expect_err(name).to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
