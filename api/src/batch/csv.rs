//! CSV (RFC 4180) as its bytes come in: a header row, then a task a record. Strict where leniency would guess: text behind
//! a closing quotation mark, a quotation mark that is never closed, and a row of another width are faults of their line.

use crate::batch::line::{BadFile, Content, Line, too_long_fault, with_text_as_data};
use crate::problem::Fields;
use crate::sent::{Sent, SentFields, short};

/// Columns that mean something.
const COLUMNS: [&str; 10] = [
    "data",
    "text",
    "task_type",
    "model_version",
    "task_id",
    "user_id",
    "webhook_url",
    "webhook_secret",
    "expires_at",
    "expires_in_s",
];
/// Most columns of a file.
const MAX_COLUMNS: usize = 1_000;

/// Reads records.
pub(crate) struct CsvReader {
    max_record: usize,
    header: Option<Header>,
    state: State,
    /// The line that is being read, and the one where the record began.
    line: u32,
    began: u32,
    /// The record so far: its cells' bytes, one after the other, and where each ended.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a record; `after_cr` when a line feed would still belong to the last one's end.
    Record {
        after_cr: bool,
    },
    /// Before a cell.
    Cell,
    Plain,
    Quoted,
    /// Behind a quotation mark in a quoted cell: its end, or the first of two.
    Mark,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    TooLong,
    TextBehindMark,
}

/// What each column means, `None` for nothing.
struct Header {
    columns: Vec<Option<&'static str>>,
    ignored: Vec<String>,
}

impl CsvReader {
    pub(crate) fn new(max_record: usize) -> Self {
        Self {
            max_record,
            header: None,
            state: State::Record { after_cr: false },
            line: 1,
            began: 1,
            bytes: Vec::new(),
            ends: Vec::new(),
            fault: None,
        }
    }

    pub(crate) fn ignored_columns(&self) -> &[String] {
        self.header.as_ref().map_or(&[], |header| &header.ignored)
    }

    pub(crate) fn push(&mut self, piece: &[u8], lines: &mut Vec<Line>) -> Result<(), BadFile> {
        for byte in piece {
            self.take(*byte, lines)?;
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self, lines: &mut Vec<Line>) -> Result<(), BadFile> {
        match self.state {
            State::Record { .. } => Ok(()),
            State::Quoted => {
                let what = "a quotation mark opens a cell here and is never closed";
                if self.header.is_none() {
                    return Err(BadFile(what.to_owned()));
                }
                lines.push(Line { number: self.began, content: Content::Wrong(Fields::one("line", what)) });
                Ok(())
            }
            State::Cell | State::Plain | State::Mark => self.end_record(lines),
        }
    }

    fn take(&mut self, byte: u8, lines: &mut Vec<Line>) -> Result<(), BadFile> {
        if let State::Record { after_cr } = self.state {
            match byte {
                // An empty line is no record.
                b'\n' => {
                    if !after_cr {
                        self.line = self.line.saturating_add(1);
                    }
                    self.state = State::Record { after_cr: false };
                    return Ok(());
                }
                b'\r' => {
                    self.line = self.line.saturating_add(1);
                    self.state = State::Record { after_cr: true };
                    return Ok(());
                }
                _ => {
                    self.began = self.line;
                    self.state = State::Cell;
                }
            }
        }
        match (self.state, byte) {
            (State::Quoted, b'"') => self.state = State::Mark,
            (State::Quoted, _) => {
                if byte == b'\n' {
                    self.line = self.line.saturating_add(1);
                }
                self.keep(byte);
            }
            (State::Cell, b'"') => self.state = State::Quoted,
            (State::Mark, b'"') => {
                self.keep(byte);
                self.state = State::Quoted;
            }
            (_, b',') => {
                self.end_cell();
                self.state = State::Cell;
            }
            (_, b'\n' | b'\r') => {
                self.line = self.line.saturating_add(1);
                self.end_record(lines)?;
                self.state = State::Record { after_cr: byte == b'\r' };
            }
            (State::Mark, _) => {
                self.fault.get_or_insert(Fault::TextBehindMark);
                self.state = State::Plain;
            }
            _ => {
                self.keep(byte);
                self.state = State::Plain;
            }
        }
        Ok(())
    }

    fn keep(&mut self, byte: u8) {
        if self.bytes.len() < self.max_record {
            self.bytes.push(byte);
        } else {
            self.fault = Some(Fault::TooLong);
        }
    }

    fn end_cell(&mut self) {
        if self.ends.len() < MAX_COLUMNS {
            self.ends.push(self.bytes.len());
        } else {
            self.fault = Some(Fault::TooLong);
        }
    }

    fn end_record(&mut self, lines: &mut Vec<Line>) -> Result<(), BadFile> {
        self.end_cell();
        let (bytes, ends, fault) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.ends), self.fault.take());
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let cells: Vec<&[u8]> = starts.zip(&ends).map(|(start, end)| &bytes[start..*end]).collect();
        self.state = State::Record { after_cr: false };
        let Some(header) = &self.header else {
            self.header = Some(Header::read(&cells, fault)?);
            return Ok(());
        };
        let content = match fault {
            Some(Fault::TooLong) => Content::Wrong(too_long_fault(self.max_record)),
            Some(Fault::TextBehindMark) => {
                Content::Wrong(Fields::one("line", "has text behind the closing quotation mark of a cell"))
            }
            None => header.content(&cells),
        };
        lines.push(Line { number: self.began, content });
        Ok(())
    }
}

impl Header {
    fn read(cells: &[&[u8]], fault: Option<Fault>) -> Result<Self, BadFile> {
        if fault.is_some() || cells.len() >= MAX_COLUMNS {
            return Err(BadFile(
                "the header row cannot be read: it is too long, or its quotation marks are wrong".to_owned(),
            ));
        }
        let mut header = Self { columns: Vec::new(), ignored: Vec::new() };
        for cell in cells {
            let name = std::str::from_utf8(cell).map_err(|_| BadFile("the header row is no UTF-8".to_owned()))?.trim();
            let known = COLUMNS.into_iter().find(|known| name.eq_ignore_ascii_case(known));
            if let Some(known) = known
                && header.columns.contains(&Some(known))
            {
                return Err(BadFile(format!("the header row has two columns {known}")));
            }
            if known.is_none() {
                header.ignored.push(short(name));
            }
            header.columns.push(known);
        }
        let has = |name| header.columns.contains(&Some(name));
        match (has("data"), has("text")) {
            (false, false) => {
                let found =
                    header.ignored.iter().take(20).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
                Err(BadFile(format!("the header row has no column data and no column text; it has {found}")))
            }
            (true, true) => Err(BadFile("the header row has both a column data and a column text".to_owned())),
            _ => Ok(header),
        }
    }

    fn content(&self, cells: &[&[u8]]) -> Content {
        if cells.len() != self.columns.len() {
            let what = format!("has {} cells, and the header row has {}", cells.len(), self.columns.len());
            return Content::Wrong(Fields::one("line", what));
        }
        let mut fields = SentFields::default();
        for (name, cell) in self.columns.iter().zip(cells).filter_map(|(name, cell)| Some(((*name)?, cell))) {
            let Ok(text) = std::str::from_utf8(cell) else {
                return Content::NotText(Fields::one(name, "is no UTF-8"));
            };
            // An empty cell says nothing, except where something must be said.
            if (!text.is_empty() || matches!(name, "data" | "text"))
                && fields.add(name.to_owned(), Sent::Text(text.to_owned())).is_err()
            {
                return Content::Wrong(Fields::one("line", "has too many cells"));
            }
        }
        with_text_as_data(fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::line::Format;
    use super::super::line::tests::read;

    fn csv(file: &str) -> Result<Vec<(u32, String)>, String> {
        read(Format::Csv, file.as_bytes(), 3)
    }

    #[test]
    fn records_become_tasks_with_the_number_of_their_first_line() {
        let file = "id,Text\r\n1,plain\r\n\r\n2,\"with, comma and \"\"marks\"\"\"\r\n3,\"two\nlines\"\n4,\n5,5\" disk";
        let expected = [
            (2, r#"{"text":"plain"}"#),
            (4, r#"{"text":"with, comma and \"marks\""}"#),
            (5, r#"{"text":"two\nlines"}"#),
            (7, r#"{"text":""}"#),
            (8, r#"{"text":"5\" disk"}"#),
        ];
        assert_eq!(csv(file).unwrap(), expected.map(|(line, data)| (line, data.to_owned())));
    }

    #[test]
    fn a_wrong_record_is_wrong_alone() {
        let long = "x".repeat(200);
        let file = format!("data,user_id\n1,2,3\n\"a\"b,1\n{long},1\nok,1\n\"never closed,1\n{long}\n");
        let lines = csv(&file).unwrap();
        let expected = [
            (2, "wrong: line: has 3 cells, and the header row has 2"),
            (3, "wrong: line: has text behind the closing quotation mark of a cell"),
            (4, "wrong: line: is longer than 100 bytes"),
            (5, "ok"),
            (6, "wrong: line: a quotation mark opens a cell here and is never closed"),
        ];
        assert_eq!(lines, expected.map(|(line, data)| (line, data.to_owned())));
        let lines = read(Format::Csv, b"text,x\n\xa6n,1\nok,\xa6\n", 4).unwrap();
        assert_eq!(lines[0], (2, "not text: text: is no UTF-8".to_owned()));
        assert_eq!(lines[1].1, "{\"text\":\"ok\"}", "a column that means nothing is not looked at");
    }

    #[test]
    fn a_header_row_that_is_of_no_use_is_said_so() {
        for (file, part) in [
            ("a,b\n1,2\n", "no column data and no column text; it has \"a\", \"b\""),
            ("text,data\n", "both a column data and a column text"),
            ("text,TEXT \n", "two columns text"),
            ("\"text\n", "never closed"),
            ("\"a\"b,text\n", "cannot be read"),
        ] {
            let error = csv(file).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(csv(""), Ok(vec![]));
        assert_eq!(csv("\n\ntext\n"), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn what_a_writer_writes_is_read_back(texts in proptest::collection::vec("[a-z好,\"\n\r ]{0,20}", 1..20)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["n", "text"]).unwrap();
            for text in &texts {
                writer.write_record(["1", text]).unwrap();
            }
            let file = writer.into_inner().unwrap();
            let read: Vec<String> = read(Format::Csv, &file, 7).unwrap().into_iter().map(|(_, data)| data).collect();
            let expected: Vec<String> =
                texts.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
