//! One follower's way through the journal: what lies behind its cursor is read, what is new is heard, and between the two
//! nothing is lost, because the listening begins before the reading.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use insightforge_schema::id::{Cursor, Position};
use insightforge_schema::link::LinkError;
use tokio::time::Instant;

use super::past::Past;
use super::told::Told;
use super::topic::Topic;
use crate::app::App;
use crate::merge::{check_not_beyond_end, ends};
use crate::problem::Problem;
use crate::tail::{Heard, Listener, Watch};

/// Who misses events this often within [`WINDOW`] does not keep up.
const MISSES_MOST: u32 = 3;
const WINDOW: Duration = Duration::from_secs(60);

/// Where events go.
pub(crate) trait Out {
    /// Puts one event on its way; whole or, when this is given up, not at all.
    async fn tell(&mut self, told: &Told) -> Result<(), Gone>;

    /// Sees to it that what was put on its way leaves.
    async fn flush(&mut self) -> Result<(), Gone>;

    /// Waits until the connection has taken what was put on its way.
    async fn drain(&mut self) -> Result<(), Gone>;

    /// Shows life as long as the other end is there, to which everything up to `told` was told.
    async fn stays(&mut self, told: &Cursor) -> Gone;

    /// The same between two pieces of work, without waiting.
    fn look_up(&mut self, told: &Cursor) -> Result<(), Gone> {
        self.stays(told).now_or_never().map_or(Ok(()), Err)
    }
}

/// Why a follower follows no longer.
#[derive(Debug)]
pub(crate) enum Gone {
    /// It takes nothing, or less than there is.
    Slow,
    /// It went away by itself.
    Left,
    /// It has all it wanted.
    Done,
    /// The process stops.
    Stopping,
    /// The journal has moved back: cursors of before mean nothing.
    MovedBack,
    /// The journal cannot be read.
    Unreadable(Box<Problem>),
}

/// Whoever follows.
pub(crate) struct Follower {
    app: Arc<App>,
    topics: Vec<Topic>,
    /// Everything up to here that was asked for has been told.
    cursor: Cursor,
    ear: Ear,
    /// Events were heard since the past was read last: who misses some now is slow.
    live: bool,
    misses: u32,
    first_miss: Instant,
}

/// How a follower hears what is new.
enum Ear {
    None,
    /// All events, to pick from.
    All(Box<Listener>),
    /// Those of single tasks.
    Tasks(Box<Watch>),
}

impl Follower {
    /// One who follows nothing yet.
    pub(crate) fn new(app: &Arc<App>) -> Self {
        Self {
            app: app.clone(),
            topics: Vec::new(),
            cursor: Cursor::start(app.config.partitions),
            ear: Ear::None,
            live: false,
            misses: 0,
            first_miss: Instant::now(),
        }
    }

    pub(crate) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Begins with a first topic at what is to come, and tells nothing yet: for who has its past to tell first.
    pub(crate) async fn begin(&mut self, topic: Topic) -> Result<(), Gone> {
        self.listen(&topic).await?;
        // After it listens, so that nothing falls between.
        self.cursor = ends(&self.app).await?;
        self.topics.push(topic);
        Ok(())
    }

    /// Follows `topic` too: tells what there is of it after `after`, then goes on with what is new. Without `after` it
    /// begins with what happens after this returned.
    pub(crate) async fn add(&mut self, topic: Topic, after: Option<Cursor>, out: &mut impl Out) -> Result<(), Gone> {
        if let Some(after) = &after {
            check_not_beyond_end(&self.app, after).await.map_err(Gone::unreadable)?;
        }
        if self.topics.is_empty() {
            self.listen(&topic).await?;
            self.cursor = match after {
                Some(after) => after,
                None => ends(&self.app).await?,
            };
            self.topics.push(topic);
            return self.catch_up(out).await;
        }
        self.settle();
        if let Some(after) = after {
            self.tell_past(&topic, after, out).await?;
        }
        self.listen(&topic).await?;
        let known = self.topics.contains(&topic);
        if !known {
            self.topics.push(topic);
        }
        self.catch_up(out).await
    }

    /// Follows `topic` no longer; `false` when it did not.
    pub(crate) fn remove(&mut self, topic: &Topic) -> bool {
        let before = self.topics.len();
        self.topics.retain(|followed| followed != topic);
        if self.topics.is_empty() {
            self.ear = Ear::None;
        } else if let (Ear::Tasks(watch), Some(task)) = (&mut self.ear, topic.task()) {
            watch.remove(task);
        }
        self.topics.len() < before
    }

    /// Waits for something new. Nothing is lost when the waiting is given up.
    pub(crate) async fn next(&mut self) -> Heard {
        match &mut self.ear {
            Ear::None => std::future::pending().await,
            Ear::All(listener) => listener.next().await,
            Ear::Tasks(watch) => watch.next().await,
        }
    }

    /// Tells what was heard.
    pub(crate) async fn pass_on(&mut self, heard: Heard, out: &mut impl Out) -> Result<(), Gone> {
        match heard {
            Heard::Batch(batch) => {
                self.live = true;
                for told in batch.iter() {
                    self.pass_on_one(told, out).await?;
                }
                if let (Ear::All(_), Some(last)) = (&self.ear, batch.last()) {
                    self.move_to(last.cursor());
                }
                out.flush().await
            }
            Heard::Missed => {
                self.count_miss()?;
                self.catch_up(out).await
            }
            Heard::Over if self.app.shutdown.is_cancelled() => Err(Gone::Stopping),
            Heard::Over => Err(Gone::MovedBack),
        }
    }

    /// The cursor to go on from, as far on as is known.
    pub(crate) fn cursor(&mut self) -> &Cursor {
        self.settle();
        &self.cursor
    }

    /// Everything up to here was told, whatever waits to be heard.
    pub(crate) fn told(&self) -> &Cursor {
        &self.cursor
    }

    /// Goes back to number `n` of one partition, and reads from there to the journal's end.
    pub(crate) async fn reread(&mut self, first: Position, n: u64, out: &mut impl Out) -> Result<(), Gone> {
        if let Some(last) = self.cursor.0.get_mut(usize::from(first.partition.0)) {
            *last = n.max(first.n - 1);
        }
        self.catch_up(out).await
    }

    /// Reads from the cursor to the journal's end, in turn with others.
    pub(crate) async fn catch_up(&mut self, out: &mut impl Out) -> Result<(), Gone> {
        let past = Past { app: &self.app, topics: &self.topics, cursor: &mut self.cursor, upto: None };
        past.tell(out).await?;
        self.live = false;
        Ok(())
    }

    /// Tells of `topic` alone what lies between `after` and the cursor, in turn with others.
    async fn tell_past(&self, topic: &Topic, mut after: Cursor, out: &mut impl Out) -> Result<(), Gone> {
        let topics = std::slice::from_ref(topic);
        Past { app: &self.app, topics, cursor: &mut after, upto: Some(&self.cursor) }.tell(out).await
    }

    async fn pass_on_one(&mut self, told: &Told, out: &mut impl Out) -> Result<(), Gone> {
        let Position { partition, n } = told.position;
        if n <= self.cursor.at(partition) {
            return Ok(());
        }
        if wants(&self.app, &self.topics, told).await {
            out.tell(told).await?;
        }
        self.cursor.advance(told.position);
        Ok(())
    }

    /// Sees to it that what is new of `topic` is heard.
    async fn listen(&mut self, topic: &Topic) -> Result<(), Gone> {
        match (&mut self.ear, topic.task()) {
            (Ear::All(_), _) => {}
            (Ear::Tasks(watch), Some(task)) => watch.add(task).await?,
            (Ear::None, Some(task)) => self.ear = Ear::Tasks(Box::new(self.app.tail.watch(task).await?)),
            (Ear::None | Ear::Tasks(_), None) => self.ear = Ear::All(Box::new(self.app.tail.subscribe().await?)),
        }
        Ok(())
    }

    /// Who hears only of some tasks has come as far as the reader when nothing is left to hear.
    fn settle(&mut self) {
        if let Ear::Tasks(watch) = &self.ear
            && let Some(cursor) = watch.heard_up_to()
        {
            self.move_to(&cursor);
        }
    }

    fn move_to(&mut self, cursor: &Cursor) {
        for partition in self.app.config.partitions.iter() {
            self.cursor.advance(Position { partition, n: cursor.at(partition) });
        }
    }

    fn count_miss(&mut self) -> Result<(), Gone> {
        if !std::mem::take(&mut self.live) {
            return Ok(());
        }
        if self.first_miss.elapsed() > WINDOW {
            self.misses = 0;
        }
        if self.misses == 0 {
            self.first_miss = Instant::now();
        }
        self.misses += 1;
        if self.misses > MISSES_MOST { Err(Gone::Slow) } else { Ok(()) }
    }
}

/// Whether the event is one of these.
pub(crate) async fn wants(app: &App, topics: &[Topic], told: &Told) -> bool {
    for topic in topics {
        if topic.has(app, told).await {
            return true;
        }
    }
    false
}

impl Gone {
    pub(crate) fn unreadable(problem: Problem) -> Self {
        Self::Unreadable(Box::new(problem))
    }
}

impl From<LinkError> for Gone {
    fn from(error: LinkError) -> Self {
        Self::unreadable(error.into())
    }
}
