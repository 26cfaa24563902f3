//! The MySQL side: migrations, and what the process must know before it writes.
//!
//! The SQL runs unchanged on MySQL 8 and 9 and on MariaDB 10.6 and later. Row keys come from the journal (see
//! [`crate::id::row_id`]).

use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlPool, MySqlPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions};

/// Forward-only migrations; each file explains its columns.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// The servers' error number of a table that is not there.
const NO_SUCH_TABLE: u16 = 1_146;

/// The first migration that is one statement, as all after it are.
const FIRST_SINGLE: i64 = 50;

/// How long a change of a table waits for those who use it.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// The longest a statement of [`reading_pool`] may take.
pub const READING_LIMIT: Duration = Duration::from_secs(5);

/// A pool whose sessions are set the way the projection needs them: READ COMMITTED (REPEATABLE READ lets an insert wait
/// behind a claiming reader's gap locks), UTC, strict mode.
///
/// # Errors
/// When the URL cannot be read; the text does not repeat it. Connections are opened on first use.
pub fn pool(url: &str, max_connections: u32) -> Result<MySqlPool, sqlx::Error> {
    let options = read_url(url)?;
    Ok(MySqlPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(Duration::from_secs(5))
        .after_connect(|connection, _| Box::pin(set_session(connection)))
        .connect_lazy_with(options))
}

/// A pool for those who only read and have somebody waiting: a connection is had soon or not at all, and the server
/// itself ends a statement that takes longer than [`READING_LIMIT`], so that slow questions do not pile up there.
///
/// # Errors
/// When the URL cannot be read; the text does not repeat it. Connections are opened on first use.
pub fn reading_pool(url: &str, max_connections: u32) -> Result<MySqlPool, sqlx::Error> {
    let options = read_url(url)?;
    Ok(MySqlPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(Duration::from_secs(2))
        .after_connect(|connection, _| {
            Box::pin(async move {
                set_session(connection).await?;
                let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut *connection).await?;
                // Each server has its own variable, in its own unit.
                let limit = if version.contains("MariaDB") {
                    format!("SET SESSION max_statement_time = {}", READING_LIMIT.as_secs())
                } else {
                    format!("SET SESSION max_execution_time = {}", READING_LIMIT.as_millis())
                };
                sqlx::Executor::execute(&mut *connection, AssertSqlSafe(limit)).await?;
                Ok(())
            })
        })
        .connect_lazy_with(options))
}

fn read_url(url: &str) -> Result<MySqlConnectOptions, sqlx::Error> {
    let options: MySqlConnectOptions =
        url.parse().map_err(|_: sqlx::Error| sqlx::Error::Configuration("the database URL cannot be read".into()))?;
    // Whatever the URL asks for: text is written as literals, and in some character sets (GBK) the byte of a backslash
    // can be half of a character. And no statement goes to a log, slow or not: callers' documents are in them.
    Ok(options.charset("utf8mb4").disable_statement_logging())
}

async fn set_session(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    // Two statements: the isolation level cannot share a SET with variables. The SQL mode is set whole: text that is written
    // as a literal relies on the backslash, which a server's own mode can switch off (NO_BACKSLASH_ESCAPES).
    for statement in [
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE'",
    ] {
        sqlx::Executor::execute(&mut *connection, statement).await?;
    }
    Ok(())
}

/// Brings the tables to this release's shape. Safe to call at once from several processes, and again after one that was cut
/// off.
///
/// # Errors
/// When a migration fails or the database is newer than this release.
pub async fn migrate(pool: &MySqlPool) -> Result<(), MigrateError> {
    let mut connection = pool.acquire().await?;
    // A change of a table waits for whoever uses it, and everybody who comes after waits behind the change.
    let patience = AssertSqlSafe(format!("SET SESSION lock_wait_timeout = {}", LOCK_PATIENCE.as_secs()));
    sqlx::Executor::execute(&mut *connection, patience).await?;
    let migrated = migrate_on(&mut connection).await;
    // It goes back to nobody with this patience.
    connection.close().await?;
    migrated
}

/// The server does not take a change of a table back when its client dies, and the migrator notes a change before it begins
/// and its success after it: what was begun and not noted may be done or not. From [`FIRST_SINGLE`] on each migration is one
/// statement, which the servers do whole or not at all (atomic DDL: MySQL 8.0, MariaDB 10.6), so that it can be tried again, and
/// one that finds its work done is done.
async fn migrate_on(connection: &mut MySqlConnection) -> Result<(), MigrateError> {
    let mut again: Option<i64> = None;
    loop {
        let outcome = MIGRATIONS.run(&mut *connection).await;
        let note = match &outcome {
            Err(MigrateError::Dirty(version)) if *version >= FIRST_SINGLE && again != Some(*version) => {
                again = Some(*version);
                "DELETE FROM _sqlx_migrations WHERE version = ? AND NOT success"
            }
            Err(MigrateError::ExecuteMigration(error, version)) if again == Some(*version) && is_done(error) => {
                "UPDATE _sqlx_migrations SET success = TRUE WHERE version = ?"
            }
            _ => return outcome,
        };
        sqlx::query(note).bind(again).execute(&mut *connection).await?;
    }
}

/// The table, the column or the index is there already.
fn is_done(error: &sqlx::Error) -> bool {
    has_number(error, &[1_050, 1_060, 1_061])
}

fn has_number(error: &sqlx::Error, numbers: &[u16]) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| numbers.contains(&error.number()))
}

/// How many partitions the tables were folded from; `None` while nothing was.
///
/// # Errors
/// What the server says.
pub async fn partitions(pool: &MySqlPool) -> Result<Option<u16>, sqlx::Error> {
    let counted: Result<i64, sqlx::Error> =
        sqlx::query_scalar("SELECT COUNT(*) FROM projection_checkpoint WHERE projection = 'live'")
            .fetch_one(pool)
            .await;
    match counted {
        Ok(count) => Ok(u16::try_from(count).ok().filter(|count| *count > 0)),
        Err(error) if has_number(&error, &[NO_SUCH_TABLE]) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `DATETIME(6)` from microseconds since 1970-01-01 UTC.
#[must_use]
pub fn datetime(at_us: i64) -> chrono::NaiveDateTime {
    chrono::DateTime::from_timestamp_micros(at_us).unwrap_or_default().naive_utc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_server_ends_a_readers_statement_that_takes_too_long() {
        for variable in ["INSIGHTFORGE_TEST_MARIADB_URL", "INSIGHTFORGE_TEST_MYSQL_URL"] {
            let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a server"));
            let pool = reading_pool(&url, 1).unwrap();
            let names = "'max_statement_time', 'max_execution_time'";
            let shown = AssertSqlSafe(format!("SHOW SESSION VARIABLES WHERE Variable_name IN ({names})"));
            let (_, limit): (String, String) = sqlx::query_as(shown).fetch_one(&pool).await.unwrap();
            let seconds: f64 = limit.parse().unwrap();
            assert!([5.0, 5_000.0].contains(&seconds), "{variable}: {limit}");
        }
    }

    #[test]
    fn from_fifty_on_a_migration_is_one_statement() {
        let later = MIGRATIONS.iter().filter(|migration| migration.version >= FIRST_SINGLE);
        for migration in later {
            let lines = migration.sql.as_str().lines().map(|line| line.split("--").next().unwrap_or_default());
            let sql = lines.collect::<Vec<_>>().join("\n");
            assert_eq!(sql.matches(';').count(), 1, "{}", migration.description);
        }
    }

    const SENT_UNDONE: &str = "ALTER TABLE webhook_attempts DROP COLUMN sent_s, DROP COLUMN signature,
        DROP COLUMN legacy_signature, DROP COLUMN trace, DROP COLUMN answer_type, DROP COLUMN answer, DROP COLUMN answer_cut";

    #[tokio::test]
    async fn a_migration_that_was_cut_off_is_made_again_whether_it_was_done_or_not() {
        for variable in ["INSIGHTFORGE_TEST_MARIADB_URL", "INSIGHTFORGE_TEST_MYSQL_URL"] {
            let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a server"));
            let server = pool(&url, 1).unwrap();
            let database = format!("t_{}", uuid::Uuid::new_v4().simple());
            sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&server).await.unwrap();
            let mine = pool(&format!("{}/{database}", url.trim_end_matches('/')), 2).unwrap();
            migrate(&mine).await.unwrap();
            let cut_off = "UPDATE _sqlx_migrations SET success = FALSE WHERE version = ?";
            for (version, undo) in [
                (70, None),
                (70, Some("DROP TABLE rebuilds")),
                (60, None),
                (60, Some(SENT_UNDONE)),
                (50, None),
                (50, Some("DROP INDEX analysis_tasks_model ON analysis_tasks")),
            ] {
                sqlx::query(cut_off).bind(version).execute(&mine).await.unwrap();
                if let Some(undo) = undo {
                    sqlx::query(undo).execute(&mine).await.unwrap();
                }
                migrate(&mine).await.unwrap_or_else(|error| panic!("{variable} {version}: {error}"));
                let clean = "SELECT COUNT(*) FROM _sqlx_migrations WHERE success";
                let clean: i64 = sqlx::query_scalar(clean).fetch_one(&mine).await.unwrap();
                assert_eq!(clean, MIGRATIONS.iter().count() as i64, "{variable} {version}");
            }
            mine.close().await;
            sqlx::query(AssertSqlSafe(format!("DROP DATABASE {database}"))).execute(&server).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_session_speaks_utf_8_whatever_the_url_asks_for() {
        let url = std::env::var("INSIGHTFORGE_TEST_MARIADB_URL").expect("INSIGHTFORGE_TEST_MARIADB_URL names a server");
        let pool = pool(&format!("{}/?charset=gbk", url.trim_end_matches('/')), 1).unwrap();
        let spoken: String = sqlx::query_scalar("SELECT @@character_set_client").fetch_one(&pool).await.unwrap();
        assert_eq!(spoken, "utf8mb4");
    }

    #[tokio::test]
    async fn a_slow_statement_is_not_logged_with_what_it_holds() {
        let url = std::env::var("INSIGHTFORGE_TEST_MARIADB_URL").expect("INSIGHTFORGE_TEST_MARIADB_URL names a server");
        let logged = Logged::default();
        let writer = logged.clone();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(subscriber.finish());
        tracing::warn!("logs arrive");
        for pool in [pool(&url, 1).unwrap(), reading_pool(&url, 1).unwrap()] {
            sqlx::query("SELECT SLEEP(1.1), 'a caller''s secret'").fetch_one(&pool).await.unwrap();
        }
        let text = logged.text();
        assert!(text.contains("logs arrive") && !text.contains("secret"), "{text}");
    }

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Logged(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl Logged {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl std::io::Write for Logged {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_session_reads_committed_rows_and_refuses_what_does_not_fit() {
        let url = std::env::var("INSIGHTFORGE_TEST_MARIADB_URL").expect("INSIGHTFORGE_TEST_MARIADB_URL names a server");
        let pool = pool(&url, 1).unwrap();
        // The variable has another name on each server; both show it this way.
        let (_, isolation): (String, String) =
            sqlx::query_as("SHOW SESSION VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')")
                .fetch_one(&pool)
                .await
                .unwrap();
        let mode: String = sqlx::query_scalar("SELECT @@SESSION.sql_mode").fetch_one(&pool).await.unwrap();
        assert_eq!(isolation, "READ-COMMITTED");
        assert!(mode.contains("STRICT_ALL_TABLES"), "{mode}");
    }
}
