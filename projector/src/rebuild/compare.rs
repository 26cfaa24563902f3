//! Counts and checksums of two sets of tables: added up by the server in ranges of keys, row by row only where a range
//! differs.

use std::collections::BTreeMap;

use insightforge_schema::id::{MAX_PARTITIONS, Position, position_of_row};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, MySqlPool};

use super::fresh::TABLES;

/// Keys of one range: at most so many rows of a partition.
const RANGE: u64 = 16_384 * MAX_PARTITIONS as u64;
/// Rows asked for by their keys at once.
const KEYS: usize = 5_000;
/// Differing rows named for each table.
const EXAMPLES: usize = 5;

/// What was found in one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    pub table: &'static str,
    pub live: Sum,
    pub fresh: Sum,
    /// Rows that only one side has, and rows that both have with other content.
    pub only_live: u64,
    pub only_fresh: u64,
    pub different: u64,
    /// Origins of some of them in the journal.
    pub examples: Vec<Position>,
}

/// A number of rows, and the sum of 64 bits of each row's SHA-256, modulo 2^64. What is done to two rows in the same way
/// shows: a CRC's exclusive or would cancel it, for a CRC changes alike in both. (SHA-256, since MySQL 9.7 has neither MD5 nor
/// SHA-1 any more.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub rows: u64,
    pub checksum: u64,
}

impl Compared {
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.live == self.fresh && self.only_live + self.only_fresh + self.different == 0
    }

    /// Takes in what another look at the same table found wrong.
    pub(super) fn add_differences(&mut self, other: &Self) {
        self.only_live += other.only_live;
        self.only_fresh += other.only_fresh;
        self.different += other.different;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room));
    }

    fn add_row(&mut self, id: u64, live: Option<u64>, fresh: Option<u64>) {
        match (live, fresh) {
            (Some(live), Some(fresh)) if live == fresh => return,
            (Some(_), Some(_)) => self.different += 1,
            (Some(_), None) => self.only_live += 1,
            (None, _) => self.only_fresh += 1,
        }
        if self.examples.len() < EXAMPLES {
            self.examples.push(position_of_row(id));
        }
    }
}

/// Which rows.
pub(super) enum Scope<'a> {
    All,
    /// The rows with these keys: of tasks, and of everything else.
    Keys {
        tasks: &'a [u64],
        events: &'a [u64],
    },
}

/// One set of tables, seen through one connection.
pub(super) struct Side<'a> {
    pub(super) connection: &'a mut MySqlConnection,
    pub(super) suffix: &'static str,
}

/// Compares the sides. Each must stand still, or be seen through a transaction's snapshot.
///
/// # Errors
/// What the server says.
pub(super) async fn compare(
    checksums: &Checksums,
    live: &mut Side<'_>,
    fresh: &mut Side<'_>,
    scope: &Scope<'_>,
) -> Result<Vec<Compared>, sqlx::Error> {
    let mut all = Vec::new();
    for (table, checksum) in &checksums.0 {
        let mut compared = Compared { table, ..Compared::default() };
        for rows in rows(table, scope, live, fresh).await? {
            let (left, right) = tokio::join!(sum(live, table, checksum, &rows), sum(fresh, table, checksum, &rows));
            let (left, right) = (left?, right?);
            if left != right {
                let (left, right) =
                    tokio::join!(each(live, table, checksum, &rows), each(fresh, table, checksum, &rows));
                differ(&mut compared, &left?, &right?);
            }
            add(&mut compared.live, left);
            add(&mut compared.fresh, right);
        }
        all.push(compared);
    }
    Ok(all)
}

/// Each table's expression for the checksum of a row, over all of its columns.
pub(super) struct Checksums(Vec<(&'static str, String)>);

impl Checksums {
    /// Reads the columns of the live tables.
    ///
    /// # Errors
    /// What the server says.
    pub(super) async fn of_live_tables(pool: &MySqlPool) -> Result<Self, sqlx::Error> {
        let mut all = Vec::new();
        for table in TABLES {
            let columns: Vec<(String, String)> = sqlx::query_as(
                "SELECT column_name, is_nullable FROM information_schema.columns
                WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position",
            )
            .bind(table)
            .fetch_all(pool)
            .await?;
            // CHAR(31) is a binary string: the columns are joined byte by byte, whatever their character sets.
            let columns: Vec<String> = columns
                .into_iter()
                .map(|(name, nullable)| {
                    let name = format!("t.`{}`", name.replace('`', "``"));
                    if nullable == "YES" { format!("IFNULL({name}, CHAR(0))") } else { name }
                })
                .collect();
            let row = format!("CONCAT_WS(CHAR(31), {})", columns.join(", "));
            all.push((table, format!("CAST(CONV(LEFT(SHA2({row}, 256), 16), 16, 10) AS UNSIGNED)")));
        }
        Ok(Self(all))
    }
}

/// A part of a table that one statement looks at.
enum Rows {
    /// Keys from the first to before the second.
    Range(u64, u64),
    /// JSON array of keys.
    Keys(String),
}

async fn rows(
    table: &str,
    scope: &Scope<'_>,
    live: &mut Side<'_>,
    fresh: &mut Side<'_>,
) -> Result<Vec<Rows>, sqlx::Error> {
    let keys = match scope {
        Scope::All => {
            let last = last_key(live, table).await?.max(last_key(fresh, table).await?);
            return Ok((0..=last / RANGE).map(|range| Rows::Range(range * RANGE, (range + 1) * RANGE)).collect());
        }
        Scope::Keys { tasks, .. } if table == TABLES[0] => tasks,
        Scope::Keys { events, .. } => events,
    };
    Ok(keys.chunks(KEYS).map(|keys| Rows::Keys(serde_json::json!(keys).to_string())).collect())
}

async fn last_key(side: &mut Side<'_>, table: &str) -> Result<u64, sqlx::Error> {
    let statement = format!("SELECT MAX(id) FROM {table}{}", side.suffix);
    let last: Option<u64> = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut *side.connection).await?;
    Ok(last.unwrap_or(0))
}

async fn sum(side: &mut Side<'_>, table: &str, checksum: &str, rows: &Rows) -> Result<Sum, sqlx::Error> {
    let statement = format!(
        "SELECT COUNT(*), CAST(IFNULL(SUM({checksum}), 0) MOD 18446744073709551616 AS UNSIGNED) {}",
        from(table, side.suffix, rows)
    );
    let query = sqlx::query_as(AssertSqlSafe(statement));
    let query = match rows {
        Rows::Range(from, to) => query.bind(from).bind(to),
        Rows::Keys(keys) => query.bind(keys),
    };
    let (rows, checksum): (i64, u64) = query.fetch_one(&mut *side.connection).await?;
    Ok(Sum { rows: rows.unsigned_abs(), checksum })
}

/// The checksum of each row, by key.
async fn each(
    side: &mut Side<'_>,
    table: &str,
    checksum: &str,
    rows: &Rows,
) -> Result<BTreeMap<u64, u64>, sqlx::Error> {
    let statement = format!("SELECT t.id, {checksum} {}", from(table, side.suffix, rows));
    let query = sqlx::query_as(AssertSqlSafe(statement));
    let query = match rows {
        Rows::Range(from, to) => query.bind(from).bind(to),
        Rows::Keys(keys) => query.bind(keys),
    };
    let rows: Vec<(u64, u64)> = query.fetch_all(&mut *side.connection).await?;
    Ok(rows.into_iter().collect())
}

fn from(table: &str, suffix: &str, rows: &Rows) -> String {
    match rows {
        Rows::Range(..) => format!("FROM {table}{suffix} t WHERE t.id >= ? AND t.id < ?"),
        Rows::Keys(_) => format!(
            "FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) wanted
            STRAIGHT_JOIN {table}{suffix} t ON t.id = wanted.id"
        ),
    }
}

fn differ(compared: &mut Compared, live: &BTreeMap<u64, u64>, fresh: &BTreeMap<u64, u64>) {
    for (id, checksum) in live {
        compared.add_row(*id, Some(*checksum), fresh.get(id).copied());
    }
    for (id, checksum) in fresh.iter().filter(|(id, _)| !live.contains_key(id)) {
        compared.add_row(*id, None, Some(*checksum));
    }
}

fn add(total: &mut Sum, part: Sum) {
    total.rows += part.rows;
    total.checksum = total.checksum.wrapping_add(part.checksum);
}
