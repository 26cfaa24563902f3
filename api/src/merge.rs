//! Events of several partitions as one sequence, in the order of their times, from a cursor to the journal's end.

use std::collections::VecDeque;

use futures_util::future::try_join_all;
use insightforge_archive::ReadError;
use insightforge_schema::event::Event;
use insightforge_schema::id::{Cursor, Partition};
use insightforge_schema::journal::last_number;
use insightforge_schema::link::LinkError;

use crate::app::App;
use crate::problem::{Fields, Problem};

/// Events of one partition in one read, and the bytes after which it takes no more: each brings its document.
const READ_EVENTS: usize = 64;
const READ_BYTES: usize = 1 << 20;

/// A reader of several partitions.
pub(crate) struct Merged {
    runs: Vec<Run>,
}

/// What was read ahead of one partition.
struct Run {
    partition: Partition,
    ahead: VecDeque<Event>,
    /// The last number that was read.
    read_to: u64,
    /// The partition's end was reached.
    dry: bool,
}

impl Merged {
    /// From behind `cursor` on.
    pub(crate) fn new(partitions: impl Iterator<Item = Partition>, cursor: &Cursor) -> Self {
        Self { runs: partitions.map(|partition| Run::new(partition, cursor)).collect() }
    }

    /// Whether there is an event that nobody has taken; reads when nothing is ahead.
    pub(crate) async fn has_next(&mut self, app: &App) -> Result<bool, Problem> {
        if self.runs.iter().any(|run| run.is_empty()) {
            try_join_all(self.runs.iter_mut().map(|run| run.refill(app))).await?;
        }
        Ok(self.runs.iter().any(|run| !run.ahead.is_empty()))
    }

    /// The earliest event ahead; [`Self::has_next`] says whether there is one.
    pub(crate) fn take(&mut self) -> Option<Event> {
        let ahead = |run: &Run| run.ahead.front().map(|event| event.meta.at_us);
        let earliest = self.runs.iter_mut().filter(|run| !run.ahead.is_empty()).min_by_key(|run| ahead(run));
        earliest?.ahead.pop_front()
    }
}

impl Run {
    fn new(partition: Partition, cursor: &Cursor) -> Self {
        Self { partition, ahead: VecDeque::new(), read_to: cursor.at(partition), dry: false }
    }

    /// Whether it has to be read on.
    fn is_empty(&self) -> bool {
        self.ahead.is_empty() && !self.dry
    }

    async fn refill(&mut self, app: &App) -> Result<(), Problem> {
        if !self.is_empty() {
            return Ok(());
        }
        let run = match self.read(app).await {
            // Who starts at 0 wants what there is.
            Err(ReadError::Missing { .. }) if self.read_to == 0 => {
                self.read_to = app.journal.begins(self.partition).await? - 1;
                self.read(app).await
            }
            run => run,
        };
        let run = run?;
        self.dry = run.end;
        self.read_to = run.events.last().map_or(self.read_to, |last| last.position.n);
        self.ahead = run.events.into();
        Ok(())
    }

    async fn read(&self, app: &App) -> Result<insightforge_archive::Run, ReadError> {
        app.journal.run(self.partition, self.read_to + 1, READ_EVENTS, READ_BYTES).await
    }
}

/// The last number of every partition.
pub(crate) async fn ends(app: &App) -> Result<Cursor, LinkError> {
    let asked = app.config.partitions.iter().map(|partition| last_number(&app.link, &app.keys, partition));
    Ok(Cursor(try_join_all(asked).await?))
}

/// A cursor of another installation, or from before a loss of data, would wait for ever. The journal's end was read after
/// whatever the cursor was read from: only one from the caller can be wrong.
///
/// # Errors
/// 422 that names `after`, 503.
pub(crate) async fn check_not_beyond_end(app: &App, cursor: &Cursor) -> Result<(), Problem> {
    let ends = ends(app).await?;
    match app.config.partitions.iter().find(|partition| cursor.at(*partition) > ends.at(*partition)) {
        Some(partition) => {
            let what = format!("is beyond the journal's end in partition {} ({})", partition.0, ends.at(partition));
            Err(Problem::invalid(Fields::one("after", what)))
        }
        None => Ok(()),
    }
}
