//! How fast a rebuild folds, beside plain multi-row `INSERT`s of the same rows, in one run:
//!
//! ```text
//! cargo run --release -p insightforge-projector --example rebuild_speed -- 200000
//! ```
//!
//! fills a journal with the lives of so many tasks (three events each, four partitions) under a key prefix of its own in
//! the Redis of `REDIS_URL`, and rebuilds tables from it in a database of its own on the server of `DATABASE_URL` (without
//! a database name); then verifies them. Then every row is read back and inserted into empty tables of the same definition, 1,000 rows a
//! statement, ten statements a transaction, in the order of the keys, through one connection; making the statements' text
//! is not counted. Both are removed afterwards.

use std::time::{Duration, Instant};

use anyhow::Context;
use insightforge_archive::Journal;
use insightforge_projector::checkpoint;
use insightforge_projector::rebuild::{Config, Deps, Progress, rebuild};
use insightforge_projector::verify::{self, verify};
use insightforge_schema::event::{Change, Completed, Meta, Processing, Submitted, encode, now_us};
use insightforge_schema::id::{Partition, PartitionCount, TaskId};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::tables;
use sqlx::{AssertSqlSafe, Column, Executor, MySqlPool, Row, TypeInfo};

const PARTITIONS: u16 = 4;
const TABLES: [&str; 3] = ["analysis_tasks", "analysis_results", "task_logs"];
/// Rows of a statement, and statements of a transaction.
const ROWS: usize = 1_000;
const STATEMENTS: usize = 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let tasks: usize = std::env::args().nth(1).context("the number of tasks is missing")?.parse()?;
    let redis = std::env::var("REDIS_URL").context("REDIS_URL")?;
    let server_url = std::env::var("DATABASE_URL").context("DATABASE_URL")?;
    let name = format!("speed_{}", uuid::Uuid::new_v4().simple());
    let server = tables::pool(&server_url, 1)?;
    server.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
    let pool = tables::pool(&format!("{}/{name}", server_url.trim_end_matches('/')), 8)?;
    let (link, keys) = (Link::new(&redis, Duration::from_secs(10))?, Keys::new(&name));
    let outcome = measure(tasks, &link, &keys, &pool).await;
    pool.close().await;
    server.execute(AssertSqlSafe(format!("DROP DATABASE {name}"))).await?;
    let partitions = PartitionCount::new(PARTITIONS).context("a possible count")?;
    for partition in partitions.iter() {
        link.query::<i64>(redis::cmd("UNLINK").arg(keys.journal(partition))).await?;
    }
    outcome
}

async fn measure(tasks: usize, link: &Link, keys: &Keys, pool: &MySqlPool) -> anyhow::Result<()> {
    let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(pool).await?;
    tables::migrate(pool).await?;
    let partitions = PartitionCount::new(PARTITIONS).context("a possible count")?;
    fill(link, keys, partitions, tasks).await?;
    // The tables are empty, and said to contain everything: what a rebuild finds after damage.
    checkpoint::read(pool, partitions, "speed").await?;
    for partition in partitions.iter() {
        let last = insightforge_schema::journal::last_number(link, keys, partition).await?;
        sqlx::query("UPDATE projection_checkpoint SET last_n = ? WHERE part = ?")
            .bind(last)
            .bind(partition.0)
            .execute(pool)
            .await?;
    }
    let journal = Journal { link: link.clone(), keys: keys.clone(), archive: None };
    let deps = Deps { journal: journal.clone(), pool: pool.clone() };
    println!("{version}: {} events of {tasks} tasks", tasks * 3);
    let mut folded = Vec::new();
    for accept_differences in [true, false] {
        let config =
            Config { partitions, owner: "speed".to_owned(), keep_old: false, accept_differences, to_end: false };
        let seconds = std::sync::Mutex::new((0.0, 0.0));
        let report = rebuild(&config, &deps, |progress| {
            let mut seconds = seconds.lock().expect("nobody panics here");
            match progress {
                Progress::Loaded { seconds: it, .. } => seconds.0 = it,
                Progress::Indexed { seconds: it } => seconds.1 = it,
                _ => {}
            }
        })
        .await?;
        anyhow::ensure!(report.swapped, "not swapped");
        let (load, index) = seconds.into_inner()?;
        let rate = report.events as f64 / (load + index);
        println!(
            "rebuild: folded in {load:.2} s, indexed in {index:.2} s ({rate:.0} events/s); with comparison and swap \
             {:.2} s ({:.0} events/s), projector held {:.0} ms",
            report.seconds,
            report.events as f64 / report.seconds,
            report.fenced.as_secs_f64() * 1e3
        );
        folded.push(rate);
    }
    let began = Instant::now();
    let verified = verify(&verify::Deps { journal, pool: pool.clone(), partitions }).await?;
    anyhow::ensure!(verified.is_equal(), "the tables are not what the journal says: {:?}", verified.examples);
    let seconds = began.elapsed().as_secs_f64();
    println!("verify: {} events in {seconds:.2} s ({:.0} events/s)", verified.events, verified.events as f64 / seconds);
    let (rows, seconds) = insert_again(pool).await?;
    let events = (tasks * 3) as f64;
    println!(
        "multi-row INSERT of the same {rows} rows: {seconds:.2} s, which would be {:.0} events/s; a rebuild has {:.2} of \
         its speed",
        events / seconds,
        folded.last().copied().unwrap_or(0.0) * seconds / events
    );
    Ok(())
}

async fn fill(link: &Link, keys: &Keys, partitions: PartitionCount, tasks: usize) -> anyhow::Result<()> {
    let mut connection = link.blocking(&keys.journal(Partition(0))).await?;
    let mut next = vec![1_u64; usize::from(partitions.get())];
    let mut pipe = redis::pipe();
    for number in 0..tasks {
        let task = TaskId::new();
        let partition = partitions.of_task(task);
        let n = &mut next[usize::from(partition.0)];
        let first = *n;
        for (attempt, change) in life(number).into_iter().enumerate() {
            let first = if attempt == 0 { 0 } else { first };
            let event = encode(&meta(attempt, task), &change);
            let add = pipe.cmd("XADD").arg(keys.journal(partition)).arg("0-*").arg("type").arg(change.event_type());
            add.arg("task").arg(task.to_string()).arg("first").arg(first).arg("e").arg(event).ignore();
            *n += 1;
        }
        if (number + 1) % 1_000 == 0 || number + 1 == tasks {
            // A pipeline's error repeats itself for every command.
            let filled = pipe.query_async::<()>(&mut connection).await;
            filled.map_err(|error| {
                anyhow::anyhow!("filling: {}", error.to_string().chars().take(200).collect::<String>())
            })?;
            pipe.clear();
        }
    }
    Ok(())
}

fn life(number: usize) -> [Change; 3] {
    [
        Change::Submitted(Submitted {
            task_type: "sentiment_analysis".to_owned(),
            model_version: "v1.0".to_owned(),
            data: format!(r#"{{"text":"這是第 {number} 個非常正面的測試語句，我很喜歡！"}}"#),
            user_id: None,
            webhook: None,
            batch: None,
            retry_of: None,
            expires_us: None,
        }),
        Change::Processing(Processing { worker: "analyzer-host-4711".to_owned() }),
        Change::Completed(Completed {
            task_type: "sentiment_analysis".to_owned(),
            model_version: "v1.0".to_owned(),
            result: r#"{"sentiment":"Positive","score":0.87,"model_info":"keywords v1.0","language":"zh"}"#.to_owned(),
            inference_us: 18,
            batch_size: 64,
            route: None,
        }),
    ]
}

fn meta(attempt: usize, task: TaskId) -> Meta {
    Meta {
        at_us: now_us(),
        tenant: "default".to_owned(),
        actor: if attempt == 0 { "api" } else { "analyzer/analyzer-host-4711" }.to_owned(),
        attempt: u32::from(attempt > 0),
        trace: Some(format!("00-{}-00f067aa0ba902b7-01", task.0.simple())),
    }
}

/// Inserts all rows into empty tables; rows and seconds.
async fn insert_again(pool: &MySqlPool) -> anyhow::Result<(usize, f64)> {
    let (mut rows, mut seconds) = (0, 0.0);
    for table in TABLES {
        pool.execute(AssertSqlSafe(format!("CREATE TABLE {table}_again LIKE {table}"))).await?;
        let mut connection = pool.acquire().await?;
        connection.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES'").await?;
        let mut after = 0_u64;
        loop {
            let found = sqlx::query(AssertSqlSafe(format!(
                "SELECT * FROM {table} WHERE id > ? ORDER BY id LIMIT {}",
                ROWS * STATEMENTS
            )))
            .bind(after)
            .fetch_all(&mut *connection)
            .await?;
            let Some(last) = found.last() else { break };
            after = last.try_get("id")?;
            let mut statements = Vec::new();
            for found in found.chunks(ROWS) {
                let values: Vec<String> = found.iter().map(literal).collect::<anyhow::Result<_>>()?;
                statements.push(format!("INSERT INTO {table}_again VALUES {}", values.join(",")));
            }
            let began = Instant::now();
            connection.execute("BEGIN").await?;
            for statement in statements {
                connection.execute(AssertSqlSafe(statement)).await?;
            }
            connection.execute("COMMIT").await?;
            seconds += began.elapsed().as_secs_f64();
            rows += found.len();
        }
    }
    Ok((rows, seconds))
}

fn literal(row: &sqlx::mysql::MySqlRow) -> anyhow::Result<String> {
    let mut values = Vec::with_capacity(row.len());
    for column in row.columns() {
        let at = column.ordinal();
        values.push(match column.type_info().name() {
            name if name.contains("INT") || name == "BOOLEAN" => {
                row.try_get_unchecked::<Option<i64>, _>(at)?.map_or("NULL".to_owned(), |value| value.to_string())
            }
            "DATETIME" => row
                .try_get::<Option<chrono::NaiveDateTime>, _>(at)?
                .map_or("NULL".to_owned(), |value| format!("'{}'", value.format("%Y-%m-%d %H:%M:%S%.6f"))),
            _ => row
                .try_get_unchecked::<Option<String>, _>(at)?
                .map_or("NULL".to_owned(), |value| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))),
        });
    }
    Ok(format!("({})", values.join(",")))
}
