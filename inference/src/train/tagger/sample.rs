//! Sentences with their names marked, as the trainer and the evaluation see them, and readers of the column formats they
//! come in: IOB2 with an optional number in front (Universal NER), IOB1 and IOB2 with one or more columns (CoNLL).

use crate::native::tagger::Kind;

/// A sentence. All places are characters (Unicode scalar values) of `text`, from the first to the one after the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    pub text: String,
    /// The tokens that whoever marked the names saw.
    pub tokens: Vec<(usize, usize)>,
    pub names: Vec<(usize, usize, Kind)>,
}

/// How tokens become a text again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// A space between all.
    Spaces,
    /// None, except between two words of letters.
    Chinese,
    /// None: tokens are characters, each with its place in its word behind it.
    Places,
}

/// How a set names its kinds. `None`: not a person, place or organisation, so it stays unmarked.
pub type Kinds = fn(&str) -> Option<Kind>;

/// The kinds of all sets that are read here: those of Universal NER, CoNLL 2003, WNUT 17, the Broad Twitter Corpus, and the
/// names (not the nominals) of Weibo NER.
pub fn kind_of(name: &str) -> Option<Kind> {
    Some(match name {
        "PER" | "PER.NAM" | "person" => Kind::Person,
        "LOC" | "LOC.NAM" | "GPE.NAM" | "location" => Kind::Location,
        "ORG" | "ORG.NAM" | "corporation" | "group" => Kind::Organization,
        _ => return None,
    })
}

/// Reads columns: a token, …, a tag on a line, an empty line after each sentence. Lines beginning with `# ` and a number in
/// front of the token (a first column of digits where there are five columns) are passed over.
pub fn read_columns(file: &str, join: Join, kinds: Kinds) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut sentence: Vec<(&str, &str)> = Vec::new();
    for line in file.lines().chain([""]) {
        let line = line.trim_end_matches(['\r', '\n']);
        if line.trim().is_empty() {
            if !sentence.is_empty() {
                samples.push(sample(&sentence, join, kinds));
                sentence.clear();
            }
            continue;
        }
        if line.starts_with("# ") || line.starts_with("-DOCSTART-") {
            continue;
        }
        let columns: Vec<&str> =
            if line.contains('\t') { line.split('\t').collect() } else { line.split(' ').collect() };
        match columns[..] {
            [_, token, tag, _, _] => sentence.push((token, tag)),
            [token, .., tag] => sentence.push((token, tag)),
            _ => {}
        }
    }
    samples
}

fn sample(sentence: &[(&str, &str)], join: Join, kinds: Kinds) -> Sample {
    let mut sample = Sample::default();
    let mut length = 0;
    let mut open: Option<&str> = None;
    for &(token, tag) in sentence {
        let token = match join {
            Join::Spaces | Join::Chinese => token.trim(),
            Join::Places => without_place(token).trim(),
        };
        if token.is_empty() {
            continue;
        }
        let apart = match join {
            Join::Spaces => !sample.text.is_empty(),
            Join::Places => false,
            Join::Chinese => sample.text.ends_with(is_letter) && token.starts_with(is_letter),
        };
        if apart {
            sample.text.push(' ');
            length += 1;
        }
        let from = length;
        length += token.chars().count();
        sample.text.push_str(token);
        sample.tokens.push((from, length));
        let (mark, name) = tag.split_once('-').unwrap_or((tag, ""));
        let continues = mark == "I" && open == Some(name);
        match (kinds(name), continues) {
            (Some(_), true) => {
                if let Some(last) = sample.names.last_mut() {
                    last.1 = length;
                }
            }
            (Some(kind), false) => sample.names.push((from, length, kind)),
            (None, _) => {}
        }
        open = if mark == "O" { None } else { Some(name) };
    }
    sample
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

/// Weibo NER writes a character's place in its word behind it: 「科0」, 「技1」.
fn without_place(token: &str) -> &str {
    let mut chars = token.chars();
    match (chars.next(), chars.as_str().as_bytes()) {
        (Some(first), [b'0'..=b'9']) => &token[..first.len_utf8()],
        _ => token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{Location, Organization, Person};

    #[test]
    fn every_column_format_is_read() {
        for (file, join, text, names) in [
            (
                "# newdoc\n# text = 美國總統\n1\t美國\tB-LOC\t-\t-\n2\t總統\tO\t-\t-\n",
                Join::Chinese,
                "美國總統",
                vec![(0, 2, Location)],
            ),
            ("科0\tB-ORG.NAM\n技1\tI-ORG.NAM\n20\tB-PER.NOM\n", Join::Places, "科技2", vec![(0, 2, Organization)]),
            ("Mad I-ORG\nMarkets I-ORG\n. O\n", Join::Spaces, "Mad Markets .", vec![(0, 11, Organization)]),
            ("Ann\tB-person\nBob\tB-person\n#\tO\n", Join::Spaces, "Ann Bob #", vec![(0, 3, Person), (4, 7, Person)]),
            ("U.N. NNP I-NP I-ORG\nofficial NN I-NP O\n", Join::Spaces, "U.N. official", vec![(0, 4, Organization)]),
            ("Star\tB-product\nWars\tI-product\n", Join::Spaces, "Star Wars", vec![]),
            (
                "1\tTim\tB-PER\t-\t-\n2\tCook\tI-PER\t-\t-\n3\t说\tO\t-\t-\n",
                Join::Chinese,
                "Tim Cook说",
                vec![(0, 8, Person)],
            ),
            ("a\tI-PER\nb\tI-ORG\n", Join::Spaces, "a b", vec![(0, 1, Person), (2, 3, Organization)]),
        ] {
            let samples = read_columns(file, join, kind_of);
            assert_eq!((samples.len(), samples[0].text.as_str(), &samples[0].names), (1, text, &names), "{file}");
            for &(from, to) in &samples[0].tokens {
                assert!(from < to && to <= text.chars().count(), "{file}");
            }
        }
    }

    #[test]
    fn sentences_end_at_empty_lines() {
        assert_eq!(read_columns("a\tO\n\n\nb\tO\n \nc\tO", Join::Spaces, kind_of).len(), 3);
        assert!(read_columns("", Join::Spaces, kind_of).is_empty());
    }
}
