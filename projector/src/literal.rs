//! Rows as text of an `INSERT … VALUES`: for many rows at once the servers read that faster than anything else they
//! understand through an ordinary connection.
//!
//! The text is right for a session whose character set is UTF-8 and whose SQL mode lets the backslash escape; see
//! [`insightforge_schema::tables`], which sets it.

use std::fmt::{Display, Write};

use chrono::{Datelike, Timelike};
use insightforge_schema::tables::datetime;
use serde::ser::{Error as _, Impossible, SerializeTuple, SerializeTupleStruct};
use serde::{Serialize, Serializer};

use crate::rows::Table;

/// The most text of one statement, in bytes; a single row may be longer. Well below the smallest usual
/// `max_allowed_packet` (16 MiB).
const MAX_BYTES: usize = 1 << 20;

/// Statements that insert `rows` into the table whose name ends in `suffix`.
pub(crate) fn inserts<R: Serialize>(table: &Table, suffix: &str, rows: impl Iterator<Item = R>) -> Vec<String> {
    let columns = table.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let head = format!("INSERT INTO {}{suffix} ({columns}) VALUES ", table.name);
    let (mut statements, mut text) = (Vec::new(), String::new());
    for row in rows {
        if text.is_empty() {
            text.reserve(MAX_BYTES + MAX_BYTES / 8);
            text.push_str(&head);
        } else {
            text.push(',');
        }
        row.serialize(&mut Literal(&mut text)).expect("a row is a list of numbers, texts, times and bytes");
        if text.len() > MAX_BYTES {
            statements.push(std::mem::take(&mut text));
        }
    }
    if !text.is_empty() {
        statements.push(text);
    }
    statements
}

/// Writes a value of [`crate::rows`] as a literal.
struct Literal<'t>(&'t mut String);

/// What no row contains.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotInRows(String);

impl serde::ser::Error for NotInRows {
    fn custom<T: Display>(what: T) -> Self {
        Self(what.to_string())
    }
}

fn quoted(out: &mut String, text: &str) {
    out.push('\'');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escaped = match byte {
            b'\'' => "\\'",
            b'\\' => "\\\\",
            0 => "\\0",
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(escaped);
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
    out.push('\'');
}

fn time(out: &mut String, at_us: i64) {
    let at = datetime(at_us);
    write!(
        out,
        "'{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}'",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.nanosecond() / 1_000
    )
    .expect("writing to memory cannot fail");
}

/// Values of the types that rows are made of.
impl<'a, 't> Serializer for &'a mut Literal<'t> {
    type Ok = ();
    type Error = NotInRows;
    type SerializeSeq = Impossible<(), NotInRows>;
    type SerializeTuple = List<'a, 't>;
    type SerializeTupleStruct = List<'a, 't>;
    type SerializeTupleVariant = Impossible<(), NotInRows>;
    type SerializeMap = Impossible<(), NotInRows>;
    type SerializeStruct = Impossible<(), NotInRows>;
    type SerializeStructVariant = Impossible<(), NotInRows>;

    fn serialize_u64(self, value: u64) -> Result<(), NotInRows> {
        write!(self.0, "{value}").map_err(NotInRows::custom)
    }

    fn serialize_u8(self, value: u8) -> Result<(), NotInRows> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u16(self, value: u16) -> Result<(), NotInRows> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_u32(self, value: u32) -> Result<(), NotInRows> {
        self.serialize_u64(u64::from(value))
    }

    fn serialize_i64(self, value: i64) -> Result<(), NotInRows> {
        write!(self.0, "{value}").map_err(NotInRows::custom)
    }

    fn serialize_str(self, value: &str) -> Result<(), NotInRows> {
        quoted(self.0, value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), NotInRows> {
        self.0.push_str("NULL");
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotInRows> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<(), NotInRows> {
        let start = self.0.len();
        value.serialize(&mut Literal(self.0))?;
        match name {
            // The number that was just written, as a DATETIME(6).
            "Time" => {
                let at_us = self.0[start..].parse().map_err(NotInRows::custom)?;
                self.0.truncate(start);
                time(self.0, at_us);
            }
            "Hex" => self.0.insert(start, 'X'),
            _ => {}
        }
        Ok(())
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'a, 't>, NotInRows> {
        self.0.push('(');
        Ok(List { literal: self, first: true })
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<List<'a, 't>, NotInRows> {
        self.serialize_tuple(length)
    }

    fn serialize_bool(self, _: bool) -> Result<(), NotInRows> {
        Err(NotInRows::custom("a bool"))
    }

    fn serialize_i8(self, _: i8) -> Result<(), NotInRows> {
        Err(NotInRows::custom("an i8"))
    }

    fn serialize_i16(self, _: i16) -> Result<(), NotInRows> {
        Err(NotInRows::custom("an i16"))
    }

    fn serialize_i32(self, _: i32) -> Result<(), NotInRows> {
        Err(NotInRows::custom("an i32"))
    }

    fn serialize_f32(self, _: f32) -> Result<(), NotInRows> {
        Err(NotInRows::custom("an f32"))
    }

    fn serialize_f64(self, _: f64) -> Result<(), NotInRows> {
        Err(NotInRows::custom("an f64"))
    }

    fn serialize_char(self, _: char) -> Result<(), NotInRows> {
        Err(NotInRows::custom("a char"))
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), NotInRows> {
        Err(NotInRows::custom("bytes that are not hexadecimal"))
    }

    fn serialize_unit(self) -> Result<(), NotInRows> {
        Err(NotInRows::custom("a unit"))
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), NotInRows> {
        Err(NotInRows::custom(name))
    }

    fn serialize_unit_variant(self, name: &'static str, _: u32, _: &'static str) -> Result<(), NotInRows> {
        Err(NotInRows::custom(name))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), NotInRows> {
        Err(NotInRows::custom(name))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, NotInRows> {
        Err(NotInRows::custom("a sequence"))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NotInRows> {
        Err(NotInRows::custom(name))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NotInRows> {
        Err(NotInRows::custom("a map"))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Self::SerializeStruct, NotInRows> {
        Err(NotInRows::custom(name))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NotInRows> {
        Err(NotInRows::custom(name))
    }
}

/// The columns of a row, in parentheses.
struct List<'a, 't> {
    literal: &'a mut Literal<'t>,
    first: bool,
}

impl SerializeTuple for List<'_, '_> {
    type Ok = ();
    type Error = NotInRows;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotInRows> {
        if !std::mem::replace(&mut self.first, false) {
            self.literal.0.push(',');
        }
        value.serialize(&mut *self.literal)
    }

    fn end(self) -> Result<(), NotInRows> {
        self.literal.0.push(')');
        Ok(())
    }
}

impl SerializeTupleStruct for List<'_, '_> {
    type Ok = ();
    type Error = NotInRows;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotInRows> {
        self.serialize_element(value)
    }

    fn end(self) -> Result<(), NotInRows> {
        SerializeTuple::end(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{FAULTS, Time};

    fn literal(row: impl Serialize) -> String {
        let mut text = String::new();
        row.serialize(&mut Literal(&mut text)).unwrap();
        text
    }

    #[test]
    fn values_become_literals_and_nothing_in_a_text_can_end_it() {
        let nobody: Option<u64> = None;
        assert_eq!(literal((7_u64, -3_i64, 1_u8, nobody, Some("x"))), "(7,-3,1,NULL,'x')");
        assert_eq!(literal((Time(1_700_000_000_000_001),)), "('2023-11-14 22:13:20.000001')");
        assert_eq!(literal((Some(Time(0)),)), "('1970-01-01 00:00:00.000000')");
        assert_eq!(literal((uuid::Uuid::nil(),)), "('00000000-0000-0000-0000-000000000000')");
        let cases = [
            ("plain 好 😀 \"\n\u{1a}%_", "plain 好 😀 \"\n\u{1a}%_"),
            ("'; DROP TABLE task_logs; --", "\\'; DROP TABLE task_logs; --"),
            ("\\", "\\\\"),
            ("\\'", "\\\\\\'"),
            ("a\0b", "a\\0b"),
            ("''", "\\'\\'"),
            ("", ""),
        ];
        for (text, escaped) in cases {
            assert_eq!(literal((text,)), format!("('{escaped}')"), "{text:?}");
        }
    }

    #[test]
    fn rows_share_statements_up_to_their_length() {
        let rows = |count: usize, bytes: usize| std::iter::repeat_n(("x".repeat(bytes),), count);
        assert_eq!(inserts(&FAULTS, "_rebuild", rows(0, 1)), Vec::<String>::new());
        let one = inserts(&FAULTS, "_rebuild", rows(2, 1));
        let head = "INSERT INTO projection_faults_rebuild (id, task_id, event_type, reason, created_at) VALUES ";
        assert_eq!(one, [format!("{head}('x'),('x')")]);
        let many = inserts(&FAULTS, "", rows(9, MAX_BYTES / 4));
        assert_eq!(many.len(), 3);
        assert!(many.iter().all(|statement| statement.len() < MAX_BYTES + MAX_BYTES / 2));
    }
}
