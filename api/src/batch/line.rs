//! A file, line by line, as its bytes come in. [`Reader`] takes pieces of any size and gives out whole lines; a line that
//! is too long is skipped without being held.

use crate::batch::csv::CsvReader;
use crate::problem::Fields;
use crate::sent::{Sent, SentFields};

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A JSON object a line (NDJSON, JSON Lines).
    Lines,
    /// With a header row.
    Csv,
}

/// One line that holds something.
pub(crate) struct Line {
    /// From 1; of a CSV record that spans lines, the first.
    pub(crate) number: u32,
    pub(crate) content: Content,
}

/// What a line holds.
pub(crate) enum Content {
    Fields(SentFields),
    /// It is no UTF-8, and likely the whole file is not.
    NotText(Fields),
    Wrong(Fields),
}

/// Why the file as a whole is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadFile(pub(crate) String);

/// Reads one file.
pub(crate) enum Reader {
    Lines(LineReader),
    Csv(CsvReader),
}

impl Reader {
    /// A line may have `max_line` bytes.
    pub(crate) fn new(format: Format, max_line: usize) -> Self {
        match format {
            Format::Lines => Self::Lines(LineReader { max_line, number: 1, held: Vec::new(), too_long: false }),
            Format::Csv => Self::Csv(CsvReader::new(max_line)),
        }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8], lines: &mut Vec<Line>) -> Result<(), BadFile> {
        match self {
            Self::Lines(reader) => {
                reader.push(piece, lines);
                Ok(())
            }
            Self::Csv(reader) => reader.push(piece, lines),
        }
    }

    /// The file is over; its last line may lack its end.
    pub(crate) fn finish(&mut self, lines: &mut Vec<Line>) -> Result<(), BadFile> {
        match self {
            Self::Lines(reader) => {
                reader.end_line(&[], lines);
                Ok(())
            }
            Self::Csv(reader) => reader.finish(lines),
        }
    }

    /// Columns of a CSV file that mean nothing here.
    pub(crate) fn ignored_columns(&self) -> &[String] {
        match self {
            Self::Lines(_) => &[],
            Self::Csv(reader) => reader.ignored_columns(),
        }
    }
}

/// JSON objects, one a line.
pub(crate) struct LineReader {
    max_line: usize,
    number: u32,
    /// The beginning of a line that came in an earlier piece.
    held: Vec<u8>,
    too_long: bool,
}

impl LineReader {
    fn push(&mut self, mut piece: &[u8], lines: &mut Vec<Line>) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            self.end_line(&piece[..end], lines);
            piece = &piece[end + 1..];
        }
        if self.too_long || self.held.len() + piece.len() > self.max_line {
            self.too_long = true;
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(piece);
        }
    }

    fn end_line(&mut self, rest: &[u8], lines: &mut Vec<Line>) {
        let number = self.number;
        self.number = self.number.saturating_add(1);
        let held = std::mem::take(&mut self.held);
        let too_long = std::mem::take(&mut self.too_long) || held.len() + rest.len() > self.max_line;
        let content = if too_long {
            Content::Wrong(too_long_fault(self.max_line))
        } else {
            let joined;
            let bytes = if held.is_empty() {
                rest
            } else {
                joined = [&held, rest].concat();
                &joined
            };
            let bytes = bytes.trim_ascii();
            if bytes.is_empty() {
                return;
            }
            read_object(bytes)
        };
        lines.push(Line { number, content });
    }
}

pub(crate) fn too_long_fault(max_line: usize) -> Fields {
    Fields::one("line", format!("is longer than {max_line} bytes"))
}

fn read_object(bytes: &[u8]) -> Content {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let what = format!("is no UTF-8 from its byte {} on", error.valid_up_to() + 1);
            return Content::NotText(Fields::one("line", what));
        }
    };
    match SentFields::parse_json(text) {
        Ok(fields) => with_text_as_data(fields),
        Err(error) => {
            let error = error.to_string().replace(" at line 1 column ", " at column ");
            Content::Wrong(Fields::one("line", format!("is no JSON object: {error}")))
        }
    }
}

/// In a file, `text` is short for a `data` document with that text.
pub(crate) fn with_text_as_data(mut fields: SentFields) -> Content {
    match fields.take("text") {
        None => {}
        Some(Sent::Text(text)) => {
            let data = serde_json::json!({ "text": text }).to_string();
            if fields.add("data".to_owned(), Sent::Text(data)).is_err() {
                return Content::Wrong(Fields::one("line", "has too many fields"));
            }
        }
        Some(_) => return Content::Wrong(Fields::one("text", "must be a string")),
    }
    Content::Fields(fields)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of `bytes`, sent in pieces of `size` bytes: number, and `data` or what is wrong.
    pub(crate) fn read(format: Format, bytes: &[u8], size: usize) -> Result<Vec<(u32, String)>, String> {
        let mut reader = Reader::new(format, 100);
        let mut lines = Vec::new();
        for piece in bytes.chunks(size) {
            reader.push(piece, &mut lines).map_err(|bad| bad.0)?;
        }
        reader.finish(&mut lines).map_err(|bad| bad.0)?;
        let shown = lines.into_iter().map(|line| {
            let content = match line.content {
                Content::Fields(mut fields) => match fields.take("data") {
                    Some(Sent::Text(data)) => data,
                    _ => "no data".to_owned(),
                },
                Content::NotText(faults) => format!("not text: {}", faults.summary()),
                Content::Wrong(faults) => format!("wrong: {}", faults.summary()),
            };
            (line.number, content)
        });
        Ok(shown.collect())
    }

    #[test]
    fn lines_keep_their_numbers_however_the_bytes_come() {
        let long = "x".repeat(120);
        let file = format!(
            "{{\"data\":\"1\"}}\r\n\n  \n{{\"text\":\"好\"}}\nno json\n{{\"data\":\"{long}\"}}\n[1]\n{{\"text\":1}}\n{{\"data\":\"9\"}}"
        );
        for size in [1, 2, 3, 7, 50, 1_000] {
            let lines = read(Format::Lines, file.as_bytes(), size).unwrap();
            let expected = [
                (1, "1"),
                (4, "{\"text\":\"好\"}"),
                (5, "wrong: line: is no JSON object: expected ident at column 2"),
                (6, "wrong: line: is longer than 100 bytes"),
                (7, "wrong: line: is no JSON object: invalid type: sequence, expected a JSON object at column 0"),
                (8, "wrong: text: must be a string"),
                (9, "9"),
            ];
            let lines: Vec<(u32, &str)> = lines.iter().map(|(number, content)| (*number, content.as_str())).collect();
            assert_eq!(lines, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_that_is_no_text_is_told_apart() {
        let lines = read(Format::Lines, b"{\"data\":\"1\"}\n{\"data\":\"\xa6\"}\n", 5).unwrap();
        assert_eq!(lines[1], (2, "not text: line: is no UTF-8 from its byte 10 on".to_owned()));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_lines(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b','), Just(b'"')], 0..300),
            size in 1_usize..20,
        ) {
            for format in [Format::Lines, Format::Csv] {
                prop_assert_eq!(read(format, &bytes, size), read(format, &bytes, 1_000));
            }
        }
    }
}
