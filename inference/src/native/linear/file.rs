//! How a linear model is kept: `IFLINEAR`, the length of the header (u32, little-endian), the header (JSON), then one byte a
//! weight, a row a feature. All that training found stands in it, so the file alone answers.

use serde::{Deserialize, Serialize};

use super::features::Features;
use super::table::Table;

const MAGIC: &[u8; 8] = b"IFLINEAR";
/// No model of ours needs more; a hostile length must not ask for memory.
const MAX_ROWS: u32 = 1 << 26;

/// A read file.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearFile {
    pub header: Header,
    pub table: Table,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub format: u32,
    pub features: Features,
    /// Labels of the answers, in the order of the columns (a sentiment's: Negative, Neutral, Positive).
    pub labels: Vec<String>,
    pub head: Head,
    pub scales: Vec<f32>,
    pub biases: Vec<f32>,
}

/// How sums become probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Head {
    /// Two columns: which way an opinion goes, and whether there is none.
    Sentiment(Sentiment),
    /// A column a label.
    Labels(Labels),
}

/// One calibration a script: a sum of Chinese n-grams and one of English words are not alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sentiment {
    pub han: SentimentCurves,
    pub latin: SentimentCurves,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentimentCurves {
    /// Of the positive among opinions.
    pub polarity: Curve,
    /// Of no opinion.
    pub neutrality: Curve,
}

/// From a sum to a probability: `1 / (1 + exp(-(slope · sum + shift)))`, after Platt (1999).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    pub slope: f32,
    pub shift: f32,
}

impl Curve {
    #[must_use]
    pub fn probability(&self, sum: f32) -> f32 {
        1.0 / (1.0 + (-(self.slope * sum + self.shift)).exp())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// Sums are divided by it before they become shares (Guo et al. 2017).
    pub temperature: f32,
    /// The label that stands for none of the others, if the texts had one.
    pub out_of_scope: Option<String>,
    /// A likeliest label below this probability counts as out of scope.
    pub threshold: f32,
}

impl LinearFile {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("no file of a linear model: it does not begin with IFLINEAR")?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or("the file ends in its header")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (header, cells) = rest.split_at_checked(length).ok_or("the file ends in its header")?;
        let header: Header = serde_json::from_slice(header).map_err(|error| format!("header: {error}"))?;
        header.judge()?;
        let expected = header.features.rows as usize * header.biases.len();
        if cells.len() != expected {
            return Err(format!("{} weights, the header says {expected}", cells.len()));
        }
        let cells = cells.iter().map(|byte| byte.cast_signed()).collect();
        let table = Table::from_parts(cells, header.scales.clone(), header.biases.clone())
            .ok_or("scales and biases must be as many numbers as there are columns")?;
        Ok(Self { header, table })
    }

    /// The file's bytes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.header).expect("a header is plain data");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(u32::try_from(header.len()).expect("a header is short").to_le_bytes());
        bytes.extend(header);
        bytes.extend(self.table.cells().iter().map(|cell| cell.cast_unsigned()));
        bytes
    }
}

impl Header {
    fn judge(&self) -> Result<(), String> {
        let Features { rows, words, letters: (fewest, most), han, .. } = self.features;
        if self.format != 1 {
            return Err(format!("format {} is not known; this release reads 1", self.format));
        }
        if rows == 0 || rows > MAX_ROWS {
            return Err(format!("features.rows must be 1 to {MAX_ROWS}"));
        }
        if !(1..=5).contains(&words) || most > 8 || fewest > most || (most > 0 && fewest == 0) || han > 6 {
            return Err("features: words 1 to 5, letters 1 to 8, han 6 at most".to_owned());
        }
        let columns = match &self.head {
            Head::Sentiment(_) => 2,
            Head::Labels(_) => self.labels.len(),
        };
        if columns < 2 || self.biases.len() != columns || self.scales.len() != columns {
            return Err(format!(
                "{} labels, {} biases, {} scales",
                self.labels.len(),
                self.biases.len(),
                self.scales.len()
            ));
        }
        if matches!(&self.head, Head::Sentiment(_)) && self.labels != super::sentiment::LABELS {
            return Err(format!("the labels of a sentiment are {}", super::sentiment::LABELS.join(", ")));
        }
        let numbers: Vec<f32> = match &self.head {
            Head::Sentiment(Sentiment { han, latin }) => {
                [han.polarity, han.neutrality, latin.polarity, latin.neutrality]
                    .iter()
                    .flat_map(|curve| [curve.slope, curve.shift])
                    .collect()
            }
            Head::Labels(labels) => vec![labels.temperature.recip(), labels.threshold],
        };
        if numbers.iter().all(|number| number.is_finite()) { Ok(()) } else { Err("head: a number is none".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> LinearFile {
        let table = Table::compand(&[0.5, -0.5, 1.0, 0.25, 0.0, -2.0], vec![0.1, -0.1]);
        LinearFile {
            header: Header {
                format: 1,
                features: Features { rows: 3, words: 2, letters: (3, 5), han: 3, negation: false },
                labels: vec!["a".to_owned(), "b".to_owned()],
                head: Head::Labels(Labels { temperature: 1.0, out_of_scope: None, threshold: 0.0 }),
                scales: table.scales().to_vec(),
                biases: table.biases().to_vec(),
            },
            table,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(LinearFile::read(&small().write()), Ok(small()));
    }

    #[test]
    fn what_is_broken_is_refused_with_the_reason() {
        let sound = small().write();
        let mut more = sound.clone();
        more.push(0);
        let replace = |from: &str, to: &str| {
            let text: Vec<u8> = sound.clone();
            let at = text.windows(from.len()).position(|window| window == from.as_bytes()).expect(from);
            let mut text = [&text[..at], to.as_bytes(), &text[at + from.len()..]].concat();
            let length =
                u32::from_le_bytes([text[8], text[9], text[10], text[11]]) + to.len() as u32 - from.len() as u32;
            text[8..12].copy_from_slice(&length.to_le_bytes());
            text
        };
        for (bytes, named) in [
            (b"".to_vec(), "IFLINEAR"),
            (b"IFLINEAR\x01".to_vec(), "header"),
            (b"IFLINEAR\xff\xff\xff\xff{}".to_vec(), "header"),
            (sound[..sound.len() - 1].to_vec(), "weights"),
            (more, "weights"),
            (replace("\"rows\":3", "\"rows\":0"), "rows"),
            (replace("\"rows\":3", "\"rows\":4000000000"), "rows"),
            (replace("\"words\":2", "\"words\":0"), "words"),
            (replace("\"temperature\":1.0", "\"temperature\":0.0"), "number"),
            (replace("[\"a\",\"b\"]", "[\"a\"]"), "labels"),
            (replace("\"format\":1", "\"format\":9"), "format"),
        ] {
            let error = LinearFile::read(&bytes).expect_err(named);
            assert!(error.contains(named), "{named}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(noise in proptest::collection::vec(0_u8..=255, 0..64), at in 0_usize..200) {
            let mut bytes = small().write();
            for (offset, byte) in noise.iter().enumerate() {
                if let Some(old) = bytes.get_mut(at + offset) {
                    *old = *byte;
                }
            }
            let _ = LinearFile::read(&bytes);
            let _ = LinearFile::read(&noise);
        }
    }
}
