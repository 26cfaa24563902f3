//! The fresh tables: defined as the live ones are, down to the last name once they are swapped in.
//!
//! The definition is what the server itself says of the live table (`SHOW CREATE TABLE`), so that columns and indexes an
//! operator added come along. Secondary indexes and foreign keys are left for after the load: sorting once is cheaper than
//! keeping order. Names of constraints follow the table when it is renamed, on both servers, as long as they are built as
//! the servers build them (`<table>_ibfk_1`, `<table>_chk_1`).

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor, MySqlPool};

use super::RebuildError;

/// The tables that the fold writes. Parents before their children.
pub(super) const TABLES: [&str; 6] = [
    "analysis_tasks",
    "analysis_results",
    "analysis_shadow_results",
    "task_logs",
    "analysis_batches",
    "projection_faults",
];
/// Swapped with them: it says what they contain.
pub(super) const CHECKPOINT: &str = "projection_checkpoint";
/// Ends the names of tables that are being loaded.
pub(super) const FRESH: &str = "_rebuild";
/// Ends the names of tables that were in service before the last swap.
pub(super) const OLD: &str = "_old";

/// The tables a swap exchanges.
pub(super) fn swapped() -> impl DoubleEndedIterator<Item = &'static str> {
    TABLES.into_iter().chain([CHECKPOINT])
}

/// How a fresh table is made: at once, and after the load.
#[derive(Debug, PartialEq, Eq)]
struct Definition {
    create: String,
    /// What to `ADD` later.
    later: Vec<String>,
}

/// Creates the fresh tables, empty, with the checkpoint of each partition at 0.
///
/// # Errors
/// What the server says, or a definition that cannot be read.
pub(super) async fn create(pool: &MySqlPool) -> Result<Vec<String>, RebuildError> {
    let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(pool).await?;
    let checks_follow = !version.contains("MariaDB");
    let mut later = Vec::new();
    for table in swapped() {
        let (_, live): (String, String) =
            sqlx::query_as(AssertSqlSafe(format!("SHOW CREATE TABLE {table}"))).fetch_one(pool).await?;
        let definition = define(table, &live, checks_follow).ok_or(RebuildError::Definition { table })?;
        pool.execute(AssertSqlSafe(definition.create)).await?;
        if !definition.later.is_empty() {
            later.push(format!("ALTER TABLE {table}{FRESH} {}", definition.later.join(", ")));
        }
    }
    Ok(later)
}

/// Adds what [`create`] left for later. Nothing is checked against the parents: the rows come from one fold.
///
/// # Errors
/// What the server says.
pub(super) async fn complete(connection: &mut MySqlConnection, later: &[String]) -> Result<(), sqlx::Error> {
    connection.execute("SET SESSION foreign_key_checks = 0").await?;
    for statement in later {
        connection.execute(AssertSqlSafe(statement.as_str())).await?;
    }
    connection.execute("SET SESSION foreign_key_checks = 1").await?;
    Ok(())
}

/// Drops the tables whose names end in `suffix`, children first.
///
/// # Errors
/// What the server says.
pub(super) async fn drop_all(pool: &MySqlPool, suffix: &str) -> Result<(), sqlx::Error> {
    for table in swapped().rev() {
        pool.execute(AssertSqlSafe(format!("DROP TABLE IF EXISTS {table}{suffix}"))).await?;
    }
    Ok(())
}

/// Reads the server's definition of a live table; `None` when it has not the expected shape. `checks_follow` says that
/// names of checks are unique in the schema and follow a renamed table (MySQL); elsewhere they belong to the table.
fn define(table: &str, live: &str, checks_follow: bool) -> Option<Definition> {
    let (head, rest) = live.split_once('\n')?;
    let (body, options) = rest.rsplit_once("\n)")?;
    if head != format!("CREATE TABLE `{table}` (") {
        return None;
    }
    let collation = options.split("COLLATE=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let (mut kept, mut later) = (Vec::new(), Vec::new());
    for line in body.lines() {
        let line = line.trim().trim_end_matches(',');
        if line.starts_with("CONSTRAINT ") && line.contains(" FOREIGN KEY ") {
            later.push(format!("ADD {}", refer_to_fresh(&rename(table, line))));
        } else if line.starts_with("CONSTRAINT ") && checks_follow {
            kept.push(rename(table, line));
        } else if line.starts_with("KEY ") || line.starts_with("FULLTEXT KEY ") || line.starts_with("SPATIAL KEY ") {
            later.push(format!("ADD {line}"));
        } else {
            kept.push(inherit_collation(line, collation));
        }
    }
    let create = format!("CREATE TABLE `{table}{FRESH}` (\n{}\n){options}", kept.join(",\n"));
    Some(Definition { create, later })
}

/// Gives a constraint the name it needs to follow the fresh table.
fn rename(table: &str, constraint: &str) -> String {
    constraint.replacen(&format!("CONSTRAINT `{table}_"), &format!("CONSTRAINT `{table}{FRESH}_"), 1)
}

/// Takes a collation off a column that is the table's own: MySQL shows it with each column that inherits it, and would
/// take it for the column's own if it were repeated.
fn inherit_collation(line: &str, collation: Option<&str>) -> String {
    let Some(collation) = collation else { return line.to_owned() };
    let mut words = line.splitn(4, ' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(name), Some(sql_type), Some("COLLATE"), Some(rest)) if name.starts_with('`') => {
            let (shown, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            if shown == collation { format!("{name} {sql_type} {rest}") } else { line.to_owned() }
        }
        _ => line.to_owned(),
    }
}

fn refer_to_fresh(constraint: &str) -> String {
    for table in TABLES {
        let parent = format!(" REFERENCES `{table}` ");
        if constraint.contains(&parent) {
            return constraint.replacen(&parent, &format!(" REFERENCES `{table}{FRESH}` "), 1);
        }
    }
    constraint.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &str = "CREATE TABLE `task_logs` (
  `id` bigint unsigned NOT NULL,
  `details` json NOT NULL COMMENT 'a, b',
  `event_type` varchar(32) COLLATE utf8mb4_bin NOT NULL,
  `other` text COLLATE utf8mb4_general_ci,
  PRIMARY KEY (`id`),
  UNIQUE KEY `u` (`details`),
  KEY `task_logs_task` (`analysis_task_id`),
  CONSTRAINT `task_logs_ibfk_1` FOREIGN KEY (`analysis_task_id`) REFERENCES `analysis_tasks` (`id`),
  CONSTRAINT `task_logs_chk_1` CHECK ((`id` > 0))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin";

    #[test]
    fn a_fresh_table_has_the_live_ones_columns_and_gets_its_other_keys_later() {
        for (checks_follow, check) in [(true, "task_logs_rebuild_chk_1"), (false, "task_logs_chk_1")] {
            let definition = define("task_logs", LIVE, checks_follow).expect("the shape is the expected one");
            assert_eq!(
                definition.create,
                format!(
                    "CREATE TABLE `task_logs_rebuild` (\n`id` bigint unsigned NOT NULL,\n\
                     `details` json NOT NULL COMMENT 'a, b',\n`event_type` varchar(32) NOT NULL,\n\
                     `other` text COLLATE utf8mb4_general_ci,\nPRIMARY KEY (`id`),\nUNIQUE KEY `u` (`details`),\n\
                     CONSTRAINT `{check}` CHECK ((`id` > 0))\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin"
                )
            );
            assert_eq!(
                definition.later,
                [
                    "ADD KEY `task_logs_task` (`analysis_task_id`)",
                    "ADD CONSTRAINT `task_logs_rebuild_ibfk_1` FOREIGN KEY (`analysis_task_id`) \
                     REFERENCES `analysis_tasks_rebuild` (`id`)",
                ]
            );
        }
    }

    #[test]
    fn a_view_or_another_table_is_not_taken_for_the_live_one() {
        assert_eq!(define("task_logs", "CREATE ALGORITHM=UNDEFINED VIEW `task_logs` AS select 1", true), None);
        assert_eq!(define("analysis_tasks", LIVE, true), None);
    }
}
