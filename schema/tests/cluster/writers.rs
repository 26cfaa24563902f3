//! Callers that submit without pause, and a reader of all they submit.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use insightforge_schema::follow::Follower;
use insightforge_schema::id::{PartitionCount, TaskId};
use insightforge_schema::journal;
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::Link;
use insightforge_schema::script::{self, Context, Submission, Submit};
use tokio::task::JoinHandle;

/// Callers at once.
const CALLERS: usize = 8;
/// Between two uploads of a caller.
const PAUSE: Duration = Duration::from_millis(5);

/// Tasks that were acknowledged, and how many calls were not.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) accepted: HashSet<TaskId>,
    pub(crate) unanswered: usize,
}

pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
    told: Arc<Mutex<Told>>,
}

impl Writers {
    /// Begin to submit over `link`, to all partitions.
    pub(crate) fn begin(link: &Link, keys: &Keys, partitions: PartitionCount) -> Self {
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Told::default())));
        let caller = |_| {
            let (link, keys, stop, told) = (link.clone(), keys.clone(), stop.clone(), told.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    submit_one(&link, &keys, partitions, &told).await;
                    tokio::time::sleep(PAUSE).await;
                }
            })
        };
        Self { callers: (0..CALLERS).map(caller).collect(), stop, told }
    }

    pub(crate) fn accepted(&self) -> usize {
        self.told.lock().unwrap().accepted.len()
    }

    /// Lets every call come to its end.
    pub(crate) async fn end(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

async fn submit_one(link: &Link, keys: &Keys, partitions: PartitionCount, told: &Mutex<Told>) {
    let task = TaskId::new();
    let submit = Submit {
        task,
        lane: Lane::new("acting", "v1"),
        event: b"submitted".to_vec(),
        fingerprint: None,
        idempotency_key: None,
        context: Context::default(),
        expires_ms: None,
    };
    let outcome = script::submit(link, keys, partitions.of_task(task), std::slice::from_ref(&submit), 0).await;
    let mut told = told.lock().unwrap();
    match outcome {
        Ok(outcomes) => {
            assert!(matches!(outcomes[..], [Submission::Accepted { .. } | Submission::Known { .. }]), "{outcomes:?}");
            told.accepted.insert(task);
        }
        Err(_) => told.unanswered += 1,
    }
}

/// A reader of everything, from the beginning.
pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    reading: JoinHandle<Read>,
}

/// What was read.
#[derive(Default)]
pub(crate) struct Read {
    /// How often the submission of a task was read.
    pub(crate) tasks: HashMap<String, usize>,
    /// The last number of each partition.
    pub(crate) last: Vec<u64>,
    pub(crate) gaps: Vec<String>,
    pub(crate) moved_back: usize,
}

impl Readers {
    pub(crate) fn begin(link: &Link, keys: &Keys, partitions: PartitionCount) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (link, keys, stopped) = (link.clone(), keys.clone(), stop.clone());
        let reading = tokio::spawn(async move {
            let mut follower = Follower::new(&link, &keys, partitions).only_confirmed();
            let mut read = Read { last: vec![0; usize::from(partitions.get())], ..Read::default() };
            loop {
                let last_time = stopped.load(Ordering::Relaxed);
                if let Ok(followed) = follower.read(&read.last, 500, Duration::from_millis(500)).await {
                    read.moved_back += followed.moved_back.len();
                    for (partition, entries) in followed.entries {
                        let last = &mut read.last[usize::from(partition.0)];
                        for entry in entries.0 {
                            let n = entry.n().unwrap();
                            if n != *last + 1 {
                                read.gaps.push(format!("{partition}: {n} follows {last}"));
                            }
                            *last = n;
                            *read.tasks.entry(entry.task).or_default() += 1;
                        }
                    }
                }
                if last_time && read.last == ends(&link, &keys, partitions).await {
                    return read;
                }
            }
        });
        Self { stop, reading }
    }

    /// Returns when all there is was read.
    pub(crate) async fn end(self) -> Read {
        self.stop.store(true, Ordering::Relaxed);
        tokio::time::timeout(Duration::from_secs(60), self.reading).await.expect("it comes to the end").unwrap()
    }
}

async fn ends(link: &Link, keys: &Keys, partitions: PartitionCount) -> Vec<u64> {
    let ends = partitions.iter().map(|partition| journal::last_number(link, keys, partition));
    futures_util::future::try_join_all(ends).await.unwrap()
}

/// Those of `accepted` whose submission is not in the journal.
pub(crate) async fn missing(link: &Link, keys: &Keys, partitions: PartitionCount, accepted: &HashSet<TaskId>) -> usize {
    let mut stored = HashSet::new();
    for partition in partitions.iter() {
        for entry in journal::entries(link, keys, partition, 1, None, 1_000_000).await.unwrap() {
            stored.insert(entry.task);
        }
    }
    accepted.iter().filter(|task| !stored.contains(&task.to_string())).count()
}
