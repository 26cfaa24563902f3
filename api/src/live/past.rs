//! A stretch of the past, told in turn with others. Pages stay in memory until they are told, so that only so many
//! readers have some. Who waits, for a turn or for a connection to take what it was given, has none, and loses nothing.

use insightforge_schema::id::{Cursor, Partition, Position};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};

use super::follow::{Gone, Out, wants};
use super::told::Told;
use super::topic::Topic;
use super::{AGAIN, TURN};
use crate::app::App;
use crate::merge::Merged;

/// Events that are read before the connection is made to send what was put on its way.
const AT_ONCE: usize = 64;

/// What is to be told.
pub(crate) struct Past<'a> {
    pub(crate) app: &'a App,
    pub(crate) topics: &'a [Topic],
    /// Everything up to here that is asked for has been told.
    pub(crate) cursor: &'a mut Cursor,
    /// Where it ends; without it, at the journal's end.
    pub(crate) upto: Option<&'a Cursor>,
}

/// How a turn came out.
enum Came {
    /// Others wait: what was read ahead is let go of.
    PartOfTheWay,
    ToTheEnd,
}

impl Past<'_> {
    /// Tells all of it.
    pub(crate) async fn tell(mut self, out: &mut impl Out) -> Result<(), Gone> {
        let shutdown = self.app.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(Gone::Stopping),
            told = self.tell_in_turns(out) => told,
        }
    }

    async fn tell_in_turns(&mut self, out: &mut impl Out) -> Result<(), Gone> {
        while let Came::PartOfTheWay = self.tell_for_a_turn(out).await? {
            out.drain().await?;
        }
        out.flush().await
    }

    async fn tell_for_a_turn(&mut self, out: &mut impl Out) -> Result<Came, Gone> {
        let turn = Turn::begin(&self.app.live.reading, self.cursor, out).await?;
        let mut merged = Merged::new(self.partitions(), self.cursor);
        let mut read = 0;
        while merged.has_next(self.app).await.map_err(Gone::unreadable)? {
            let Some(event) = merged.take() else { break };
            let position = event.position;
            if self.has_passed(position) {
                // Its partition has come as far as is asked for; others may not.
                if self.partitions().next().is_none() {
                    break;
                }
            } else {
                let mut cursor = self.cursor.clone();
                cursor.advance(position);
                let told = Told::new(event, cursor);
                if wants(self.app, self.topics, &told).await && !turn.allows(out.tell(&told)).await? {
                    return Ok(Came::PartOfTheWay);
                }
                self.cursor.advance(position);
            }
            read += 1;
            if read % AT_ONCE == 0 {
                if !turn.allows(out.flush()).await? {
                    return Ok(Came::PartOfTheWay);
                }
                out.look_up(self.cursor)?;
            }
            if turn.is_over() {
                return Ok(Came::PartOfTheWay);
            }
        }
        Ok(Came::ToTheEnd)
    }

    fn has_passed(&self, position: Position) -> bool {
        self.upto.is_some_and(|upto| position.n > upto.at(position.partition))
    }

    /// Partitions that can hold something of it.
    fn partitions(&self) -> impl Iterator<Item = Partition> {
        let partitions = self.app.config.partitions;
        let own: Option<Vec<Partition>> =
            self.topics.iter().map(|topic| topic.task().map(|task| partitions.of_task(task))).collect();
        let mine = move |partition: &Partition| own.as_ref().is_none_or(|own| own.contains(partition));
        let is_behind =
            |partition: &Partition| self.upto.is_none_or(|upto| self.cursor.at(*partition) < upto.at(*partition));
        partitions.iter().filter(mine).filter(is_behind)
    }
}

/// A turn at reading, and at telling what was read.
struct Turn<'a> {
    turns: &'a Semaphore,
    began: Instant,
    _turn: Option<SemaphorePermit<'a>>,
}

impl<'a> Turn<'a> {
    /// Waits for a turn, as long as the other end stays.
    async fn begin(turns: &'a Semaphore, told: &Cursor, out: &mut impl Out) -> Result<Self, Gone> {
        tokio::select! {
            biased;
            // It is never closed.
            turn = turns.acquire() => Ok(Self { turns, began: Instant::now(), _turn: turn.ok() }),
            gone = out.stays(told) => Err(gone),
        }
    }

    /// Whether others should have it.
    fn is_over(&self) -> bool {
        self.began.elapsed() >= TURN && self.turns.available_permits() == 0
    }

    /// Waits for `writing` as long as nobody else should have the turn; whether it was done.
    async fn allows(&self, writing: impl Future<Output = Result<(), Gone>>) -> Result<bool, Gone> {
        let over = async {
            sleep_until(self.began + TURN).await;
            while !self.is_over() {
                sleep(AGAIN).await;
            }
        };
        tokio::select! {
            biased;
            done = writing => done.map(|()| true),
            () = over => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use insightforge_schema::id::PartitionCount;
    use tokio::time::timeout;

    use super::*;
    use crate::live::Live;
    use crate::live::frames;

    fn nowhere() -> Cursor {
        Cursor::start(PartitionCount::new(1).unwrap())
    }

    #[tokio::test]
    async fn who_leaves_while_it_waits_for_a_turn_is_let_go_of() {
        let live = Live::new();
        let (mut out, response) = frames::open(live.place().unwrap());
        let turns = Semaphore::new(0);
        let told = nowhere();
        let waiting = Turn::begin(&turns, &told, &mut out);
        let leaving = async { drop(response) };
        let (turn, ()) = timeout(Duration::from_secs(10), async { tokio::join!(waiting, leaving) }).await.unwrap();
        assert!(matches!(turn, Err(Gone::Left)));
        drop(out);
        assert_eq!(live.followers(), 0);
    }

    #[tokio::test]
    async fn what_a_connection_does_not_take_is_waited_for_until_others_should_have_the_turn() {
        let turns = Semaphore::new(2);
        let (mut out, _response) = frames::open(Live::new().place().unwrap());
        let turn = Turn::begin(&turns, &nowhere(), &mut out).await.unwrap();
        let endless = || std::future::pending();
        assert!(timeout(TURN * 2, turn.allows(endless())).await.is_err(), "nobody waits");
        let _other = turns.acquire().await.unwrap();
        assert!(!timeout(TURN, turn.allows(endless())).await.unwrap().unwrap());
        assert!(turn.allows(async { Ok(()) }).await.unwrap(), "what is done at once is done");
    }
}
