//! Rows as they should be, against rows as they are.

use std::collections::{BTreeMap, HashMap};

use insightforge_schema::id::{MAX_PARTITIONS, position_of_row};
use serde::Serialize;
use serde_json::Value;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row};

use super::Report;
use crate::rows::{CHANGING, Column, Kind, TASKS, Table};

/// Rows asked for by their keys at once.
const KEYS: usize = 5_000;
/// Where `last_n` stands among the columns of a task.
const LAST_N: usize = 9;
/// Columns whose values are not shown: they can hold a caller's secrets.
const SECRET: [&str; 2] = ["webhook_url", "webhook_secret"];

/// A row's columns as text, from the first on; fewer when only those are known.
type Texts = Vec<Option<String>>;

/// A part of the journal: in each partition the events behind the first number, up to the second.
pub(super) struct Within<'a> {
    pub(super) after: &'a [u64],
    pub(super) upto: &'a [u64],
}

impl Within<'_> {
    fn contains(&self, id: u64) -> bool {
        let position = position_of_row(id);
        let part = usize::from(position.partition.0);
        matches!((self.after.get(part), self.upto.get(part)), (Some(after), Some(upto))
            if position.n > *after && position.n <= *upto)
    }

    /// Keys between which all of it lies, and more.
    fn keys(&self) -> (u64, u64) {
        let moved = || self.after.iter().zip(self.upto).filter(|(after, upto)| after < upto);
        let low = moved().map(|(after, _)| *after).min().unwrap_or(0);
        let high = moved().map(|(_, upto)| *upto).max().unwrap_or(0);
        let key = |n: u64| n * u64::from(MAX_PARTITIONS);
        (key(low + 1), key(high + 1))
    }
}

/// The rows of one table that a stretch of the journal makes, by key.
pub(super) struct Expected {
    table: &'static Table,
    rows: BTreeMap<u64, Texts>,
}

impl Expected {
    pub(super) fn new(table: &'static Table) -> Self {
        Self { table, rows: BTreeMap::new() }
    }

    /// Takes in a row; its first column is the key.
    pub(super) fn add(&mut self, row: impl Serialize) {
        let Ok(Value::Array(values)) = serde_json::to_value(row) else { unreachable!("a row is a list of columns") };
        let id = values.first().and_then(Value::as_u64).expect("the key comes first");
        self.rows.insert(id, values.into_iter().map(text).collect());
    }

    pub(super) fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Compares rows that never change. With `within`, all rows that come from there are looked at.
    pub(super) async fn compare(
        &self,
        connection: &mut MySqlConnection,
        within: Option<&Within<'_>>,
        report: &mut Report,
    ) -> Result<(), sqlx::Error> {
        let found = match within {
            Some(within) => read_range(connection, self.table, within).await?,
            None => read_keys(connection, self.table, &self.rows, "").await?,
        };
        for (id, row) in &self.rows {
            match found.get(id) {
                Some(found) => compare_row(self.table, *id, self.table.columns, row, found, report),
                None => report.add(self.table, Some(*id), "the row is missing".to_owned()),
            }
        }
        for id in found.keys().filter(|id| !self.rows.contains_key(*id)) {
            report.add(self.table, Some(*id), "the journal does not make this row".to_owned());
        }
        Ok(())
    }
}

/// Compares rows of tasks. One that contains later events than were folded so far is compared when those are; what never
/// changes is compared at once.
pub(super) async fn tasks(
    connection: &mut MySqlConnection,
    expected: &Expected,
    within: Option<&Within<'_>>,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    // Whose event the last one is, by the history: that event is in the journal, or the history is found wrong there.
    let owner =
        ", CAST((SELECT l.analysis_task_id FROM task_logs l WHERE l.id = t.last_n * 1024 + t.id % 1024) AS CHAR)";
    let found = read_keys(connection, &TASKS, &expected.rows, owner).await?;
    for (id, row) in &expected.rows {
        let Some(found) = found.get(id) else {
            report.add(&TASKS, Some(*id), "the row is missing".to_owned());
            continue;
        };
        let (columns, owner) = found.split_at(TASKS.columns.len());
        let last_n = |row: &[Option<String>]| row[LAST_N].as_deref().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let later = last_n(columns) > last_n(row) && owner[0].as_deref() == Some(&*id.to_string());
        let first = if later { CHANGING } else { 0 };
        if first < row.len() {
            let row = &row[first..];
            compare_row(&TASKS, *id, &TASKS.columns[first..first + row.len()], row, &columns[first..], report);
        }
    }
    if let Some(within) = within {
        let (from, to) = within.keys();
        let there: Vec<u64> = sqlx::query_scalar("SELECT id FROM analysis_tasks WHERE id >= ? AND id < ?")
            .bind(from)
            .bind(to)
            .fetch_all(connection)
            .await?;
        for id in there.into_iter().filter(|id| within.contains(*id) && !expected.rows.contains_key(id)) {
            report.add(&TASKS, Some(id), "the journal does not make this row".to_owned());
        }
    }
    Ok(())
}

fn compare_row(
    table: &Table,
    id: u64,
    columns: &[Column],
    row: &[Option<String>],
    found: &[Option<String>],
    report: &mut Report,
) {
    let wrong: Vec<String> = columns
        .iter()
        .zip(row.iter().zip(found))
        .filter(|((_, kind), (row, found))| !same(*kind, row.as_deref(), found.as_deref()))
        .map(|((name, kind), (row, found))| {
            if *kind == Kind::Document || SECRET.contains(name) {
                format!("{name} is another")
            } else {
                format!("{name} is {}, not {}", show(found.as_deref()), show(row.as_deref()))
            }
        })
        .collect();
    if !wrong.is_empty() {
        report.add(table, Some(id), wrong.join("; "));
    }
}

/// Documents are the same when they say the same: MySQL keeps them in a form of its own.
fn same(kind: Kind, row: Option<&str>, found: Option<&str>) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    row == found
        || (kind == Kind::Document
            && matches!((row.and_then(read), found.and_then(read)), (Some(row), Some(found)) if alike(&row, &found)))
}

/// Numbers that are not both integers may differ in the last places of a double: in `-0`, and where MySQL rounded.
fn alike(row: &Value, found: &Value) -> bool {
    match (row, found) {
        (Value::Number(row), Value::Number(found)) if row.is_f64() || found.is_f64() => {
            let (row, found) = (row.as_f64().unwrap_or(f64::NAN), found.as_f64().unwrap_or(f64::NAN));
            (row - found).abs() <= 4.0 * f64::EPSILON * row.abs().max(found.abs())
        }
        (Value::Array(row), Value::Array(found)) => {
            row.len() == found.len() && row.iter().zip(found).all(|(row, found)| alike(row, found))
        }
        (Value::Object(row), Value::Object(found)) => {
            row.len() == found.len()
                && row.iter().all(|(key, row)| found.get(key).is_some_and(|found| alike(row, found)))
        }
        _ => row == found,
    }
}

/// At most 60 characters, without control characters: the text is a stranger's.
fn show(text: Option<&str>) -> String {
    match text {
        Some(text) => {
            let short: String = text.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
            format!("`{short}`")
        }
        None => "NULL".to_owned(),
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

async fn read_range(
    connection: &mut MySqlConnection,
    table: &Table,
    within: &Within<'_>,
) -> Result<HashMap<u64, Texts>, sqlx::Error> {
    let (from, to) = within.keys();
    let statement =
        format!("SELECT t.id, {} FROM {} t WHERE t.id >= ? AND t.id < ?", columns_as_text(table), table.name);
    let rows = sqlx::query(AssertSqlSafe(statement)).bind(from).bind(to).fetch_all(connection).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let (id, texts) = read(&row)?;
        if within.contains(id) {
            found.insert(id, texts);
        }
    }
    Ok(found)
}

async fn read_keys(
    connection: &mut MySqlConnection,
    table: &Table,
    wanted: &BTreeMap<u64, Texts>,
    more: &str,
) -> Result<HashMap<u64, Texts>, sqlx::Error> {
    let statement = format!(
        "SELECT t.id, {}{more} FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) wanted
        STRAIGHT_JOIN {} t ON t.id = wanted.id",
        columns_as_text(table),
        table.name
    );
    let keys: Vec<u64> = wanted.keys().copied().collect();
    let mut found = HashMap::with_capacity(keys.len());
    for keys in keys.chunks(KEYS) {
        let keys = serde_json::json!(keys).to_string();
        for row in sqlx::query(AssertSqlSafe(&*statement)).bind(keys).fetch_all(&mut *connection).await? {
            let (id, texts) = read(&row)?;
            found.insert(id, texts);
        }
    }
    Ok(found)
}

/// The columns in the form in which rows are serialized.
fn columns_as_text(table: &Table) -> String {
    let as_text = |(name, kind): &Column| match kind {
        Kind::Number(_) | Kind::Document => format!("CAST(t.{name} AS CHAR)"),
        Kind::Text(_) | Kind::Id => format!("t.{name}"),
        Kind::Time => format!("CAST(TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', t.{name}) AS CHAR)"),
        Kind::Bytes => format!("LOWER(HEX(t.{name}))"),
    };
    table.columns.iter().map(as_text).collect::<Vec<_>>().join(", ")
}

fn read(row: &MySqlRow) -> Result<(u64, Texts), sqlx::Error> {
    let texts = (1..row.len()).map(|column| row.try_get(column)).collect::<Result<_, _>>()?;
    Ok((row.try_get(0)?, texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_the_same_whatever_form_a_server_gives_their_numbers() {
        let cases = [
            (r#"{"n": -0}"#, r#"{"n":0}"#, true),
            ("[1E+2, 0.1]", "[100.0, 0.10000000000000002]", true),
            ("[1.5]", "[1.6]", false),
            ("[9007199254740993]", "[9007199254740992]", false),
            (r#"{"a":[1,{"b":-0}]}"#, r#"{"a":[1,{"b":0}]}"#, true),
            (r#"{"a":1}"#, r#"{"a":1,"b":2}"#, false),
            (r#"{"a":1}"#, r#"{"b":1}"#, false),
            ("[1,2]", "[1]", false),
            ("no document", r#""no document""#, false),
        ];
        for (row, found, is_same) in cases {
            assert_eq!(same(Kind::Document, Some(row), Some(found)), is_same, "{row} {found}");
        }
        assert!(!same(Kind::Text("TEXT"), Some("-0"), Some("0")));
        assert!(!same(Kind::Document, Some("1"), None));
    }
}
