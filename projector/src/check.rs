//! Do the tables still say what the journal says? Every few minutes a sample is folded again and compared, and a stretch of
//! the journal is looked for in the tables. What was found stays in the tables' database, for whoever asks later.

use std::time::Duration;

use insightforge_schema::event::now_us;
use insightforge_schema::tables::datetime;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::measure;
use crate::verify::{Deps, Difference, VerifyError, verify_sample, verify_stretch};

/// How often it is looked whether it is time.
const LOOK: Duration = Duration::from_secs(5);
/// After a failure it is tried again so much later.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// How often, and how much. Plain data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckPlan {
    /// Between two checks, whoever makes them; `None`: there are none.
    pub every: Option<Duration>,
    /// Tasks of one check, and events of each partition.
    pub tasks: u64,
}

impl Default for CheckPlan {
    fn default() -> Self {
        Self { every: Some(Duration::from_secs(300)), tasks: 200 }
    }
}

/// Checks, step by step.
pub struct Checker {
    deps: Deps,
    plan: CheckPlan,
    owner: String,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Checked {
        tasks: u64,
        events: u64,
        differences: u64,
        examples: Vec<Difference>,
    },
    /// The last check is not long enough ago.
    Early,
}

impl Checker {
    #[must_use]
    pub fn new(deps: Deps, plan: CheckPlan, owner: String) -> Self {
        Self { deps, plan, owner }
    }

    /// Checks, when it is time at `now_us`.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub async fn step(&mut self, now_us: i64) -> Result<Step, VerifyError> {
        let Some(every) = self.plan.every else { return Ok(Step::Early) };
        if let Some(last) = last(&self.deps.pool).await?
            // A moment that is still to come was noted by a clock that goes wrong, and says nothing.
            && last <= now_us
            && now_us.saturating_sub(last) < i64::try_from(every.as_micros()).unwrap_or(i64::MAX)
        {
            return Ok(Step::Early);
        }
        let sample = verify_sample(&self.deps, self.plan.tasks).await?;
        let stretch = verify_stretch(&self.deps, self.plan.tasks).await?;
        let events = sample.events + stretch.events;
        let differences = sample.differences + stretch.differences;
        let examples = [sample.examples, stretch.examples].concat();
        let found = examples.first().map(say);
        self.note(now_us, sample.tasks, events, differences, found).await?;
        Ok(Step::Checked { tasks: sample.tasks, events, differences, examples })
    }

    async fn note(
        &self,
        now_us: i64,
        tasks: u64,
        events: u64,
        differences: u64,
        found: Option<String>,
    ) -> Result<(), sqlx::Error> {
        let differed_at = (differences > 0).then(|| datetime(now_us));
        sqlx::query(
            "INSERT INTO projection_checks
                (part, checked_at, owner, tasks, events, differences, differed_at, difference)
            VALUES (0, ?, ?, ?, ?, ?, ?, ?)
            ON DUPLICATE KEY UPDATE checked_at = VALUES(checked_at), owner = VALUES(owner), tasks = VALUES(tasks),
                events = VALUES(events), differences = VALUES(differences),
                difference = IF(VALUES(differed_at) IS NULL, difference, VALUES(difference)),
                differed_at = IFNULL(VALUES(differed_at), differed_at)",
        )
        .bind(datetime(now_us))
        .bind(&self.owner)
        .bind(tasks)
        .bind(events)
        .bind(differences)
        .bind(differed_at)
        .bind(found)
        .execute(&self.deps.pool)
        .await?;
        Ok(())
    }

    /// Steps until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            // A check that is cut off has written nothing.
            let Some(outcome) = shutdown.run_until_cancelled(self.step(now_us())).await else { return };
            let pause = match outcome {
                Ok(Step::Early) => LOOK,
                Ok(Step::Checked { tasks, events, differences, examples }) => {
                    measure::checked(tasks, differences);
                    for example in &examples {
                        tracing::error!("the tables differ from the journal: {}", say(example));
                    }
                    tracing::debug!(tasks, events, differences, "the tables were compared with the journal");
                    LOOK
                }
                Err(error) => {
                    tracing::warn!(%error, "the tables could not be compared with the journal; trying again");
                    AFTER_FAILURE
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}

/// When the last check was.
async fn last(pool: &MySqlPool) -> Result<Option<i64>, sqlx::Error> {
    let at: Option<chrono::NaiveDateTime> =
        sqlx::query_scalar("SELECT checked_at FROM projection_checks WHERE part = 0").fetch_optional(pool).await?;
    Ok(at.map(|at| at.and_utc().timestamp_micros()))
}

fn say(difference: &Difference) -> String {
    let Difference { table, origin, what } = difference;
    match origin {
        Some(origin) => format!("{table} {origin}: {what}"),
        None => format!("{table}: {what}"),
    }
}
