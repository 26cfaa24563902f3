//! The way into the journal: tasks that arrive together are stored together.
//!
//! Each partition has a queue and a few carriers. A free carrier takes whatever waits, up to a bound, and stores it with
//! one script call: the round trip, the script and the disk flush are shared, and nobody waits for company. Under load
//! the groups grow by themselves, because more arrives while the carriers are away.
//!
//! A call that fails ambiguously is repeated by the link; every task knows its id from the start, so a repeat changes
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use insightforge_schema::fail::{self, Step};
use insightforge_schema::id::{Partition, PartitionCount};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::script::{self, Submission, Submit};
use metrics::{counter, histogram};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::backlog::{Backlog, Place};
use crate::body::Share;

/// Most tasks of one script call; a longer one would hold up everybody else's for too long.
const GROUP_TASKS: usize = 256;
/// Most bytes of events in one script call, unless a single event is larger.
const GROUP_BYTES: usize = 1 << 20;
/// Script calls of one partition on their way at once: one in Redis while the next is being put together.
const CARRIERS: usize = 2;
/// Tasks that wait for a carrier, a partition.
const QUEUE: usize = 4_096;

/// Takes tasks to Redis. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Submitter {
    queues: Arc<[mpsc::Sender<Waiting>]>,
    partitions: PartitionCount,
    backlog: Backlog,
    /// How long one caller is kept waiting: through one call that is given up and one more, not through all that are ahead
    /// of it in the queue.
    patience: Duration,
}

/// The answer to one task, once it is there.
pub(crate) type Answer = oneshot::Receiver<Result<Submission, LinkError>>;

/// Why a task was not taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// As many tasks wait as may.
    Backlog,
    /// More arrives than Redis takes.
    Queue,
    Link(LinkError),
}

/// A task in the queue.
struct Waiting {
    submit: Submit,
    answer: oneshot::Sender<Result<Submission, LinkError>>,
    /// Memory it takes; given back when it is answered.
    share: Share,
    place: Place,
}

impl Submitter {
    /// Starts the carriers; they end when the last clone is gone and everything taken has been answered.
    pub(crate) fn start(link: &Link, keys: &Keys, partitions: PartitionCount, backlog: Backlog) -> Self {
        let start = |partition| {
            let (queue, waiting) = mpsc::channel(QUEUE);
            let waiting = Arc::new(Mutex::new(waiting));
            for _ in 0..CARRIERS {
                let carrier = Carrier {
                    // Of its own, so that one flush of Redis's log serves all carriers: measured, eleven calls a flush
                    // instead of one.
                    link: link.sibling(),
                    keys: keys.clone(),
                    partition,
                    lane_capacity: backlog.max(),
                    waiting: waiting.clone(),
                };
                tokio::spawn(carrier.run());
            }
            queue
        };
        Self { queues: partitions.iter().map(start).collect(), partitions, backlog, patience: link.deadline() * 2 }
    }

    /// Stores one task and says what became of it; refuses at once when there is no room.
    pub(crate) async fn submit(&self, submit: Submit, share: Share) -> Result<Submission, Refused> {
        let place = self.backlog.place().ok_or(Refused::Backlog)?;
        let (answer, answered) = oneshot::channel();
        let queue = self.queue(&submit);
        queue.try_send(Waiting { submit, answer, share, place }).map_err(|_| Refused::Queue)?;
        match tokio::time::timeout(self.patience, answered).await {
            Ok(answer) => judge(answer),
            // It may still be stored; the answer says that this is not known.
            Err(_) => Err(Refused::Link(LinkError::Unavailable("no answer in time".to_owned()))),
        }
    }

    /// Hands over one task of many, waiting for room in the queue.
    pub(crate) async fn hand_over(&self, submit: Submit, share: Share, place: Place) -> Result<Answer, Refused> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue(&submit);
        queue.send(Waiting { submit, answer, share, place }).await.map_err(|_| Refused::Queue)?;
        Ok(answered)
    }

    /// Room for one more task.
    pub(crate) fn place(&self) -> Option<Place> {
        self.backlog.place()
    }

    fn queue(&self, submit: &Submit) -> &mpsc::Sender<Waiting> {
        &self.queues[usize::from(self.partitions.of_task(submit.task).0)]
    }
}

/// What an answer means. A carrier that went away without one has met a defect.
pub(crate) fn judge(
    answer: Result<Result<Submission, LinkError>, oneshot::error::RecvError>,
) -> Result<Submission, Refused> {
    match answer {
        Ok(Ok(Submission::Full)) => Err(Refused::Backlog),
        Ok(Ok(submission)) => Ok(submission),
        Ok(Err(error)) => Err(Refused::Link(error)),
        Err(_) => Err(Refused::Link(LinkError::Unavailable("the carrier is gone".to_owned()))),
    }
}

impl Refused {
    /// Its name in `if_uploads_refused_total`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Backlog => "backlog",
            Self::Queue => "queue",
            Self::Link(LinkError::OutOfMemory) => "memory",
            Self::Link(_) => "unavailable",
        }
    }
}

/// One of the tasks that store what waits in one partition.
struct Carrier {
    link: Link,
    keys: Keys,
    partition: Partition,
    lane_capacity: u64,
    waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>,
}

impl Carrier {
    async fn run(self) {
        let mut taken = Vec::with_capacity(GROUP_TASKS);
        while self.take(&mut taken).await {
            while !taken.is_empty() {
                let rest = taken.split_off(group(&taken));
                self.store(std::mem::replace(&mut taken, rest)).await;
            }
        }
    }

    /// Takes what waits, at least one; `false` when nothing will come any more. Whoever waits for the first holds the
    /// receiver, so that groups are not torn apart.
    async fn take(&self, taken: &mut Vec<Waiting>) -> bool {
        self.waiting.lock().await.recv_many(taken, GROUP_TASKS).await > 0
    }

    async fn store(&self, group: Vec<Waiting>) {
        histogram!("if_submit_group_size").record(group.len() as f64);
        let mut submits = Vec::with_capacity(group.len());
        let mut answers = Vec::with_capacity(group.len());
        for Waiting { submit, answer, share, place } in group {
            submits.push(submit);
            answers.push((answer, share, place));
        }
        fail::reached(Step::SubmitUnsent);
        let stored = script::submit(&self.link, &self.keys, self.partition, &submits, self.lane_capacity).await;
        fail::reached(Step::SubmitStored);
        match stored {
            Ok(stored) => {
                let accepted = stored.iter().filter(|one| matches!(one, Submission::Accepted { .. })).count();
                counter!("if_events_appended_total", "type" => "submitted").increment(accepted as u64);
                for ((answer, _share, place), submission) in answers.into_iter().zip(stored) {
                    if matches!(submission, Submission::Accepted { .. }) {
                        place.keep();
                    }
                    // Who does not listen any more has gone away; the task stays.
                    let _ = answer.send(Ok(submission));
                }
            }
            Err(error) => {
                tracing::warn!(partition = %self.partition, tasks = submits.len(), %error, "tasks could not be stored");
                for (answer, _share, place) in answers {
                    // It may be there after all; the next count will tell.
                    place.keep();
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

/// How many of `waiting` go into the next call: at least one.
fn group(waiting: &[Waiting]) -> usize {
    let mut bytes = 0;
    let fitting = waiting.iter().take_while(|one| {
        bytes += one.submit.event.len();
        bytes <= GROUP_BYTES
    });
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use insightforge_schema::id::TaskId;
    use insightforge_schema::keys::Lane;
    use insightforge_schema::script::Context;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_all_who_are_ahead_while_redis_is_silent() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", silent.local_addr().unwrap());
        let link = Link::new(&url, Duration::from_millis(500)).unwrap();
        let (keys, one) = (Keys::new("silent"), PartitionCount::new(1).unwrap());
        let backlog = Backlog::start(&link, &keys, one, 10_000, &CancellationToken::new());
        let submitter = Submitter::start(&link, &keys, one, backlog);
        let began = Instant::now();
        let waiting = (0..4_000).map(|_| {
            let submit = Submit {
                task: TaskId::new(),
                lane: Lane::new("acting", "v1"),
                event: vec![0],
                fingerprint: None,
                idempotency_key: None,
                context: Context::default(),
                expires_ms: None,
            };
            submitter.submit(submit, Share::default())
        });
        let answers = futures_util::future::join_all(waiting).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(Refused::Link(LinkError::Unavailable(_))))));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}
