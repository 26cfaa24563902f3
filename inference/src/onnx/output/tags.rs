//! Labels of tokens in BIO and BIOES: what they mean, which may follow which, and the likeliest sequence of them.

/// One label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tag {
    Outside,
    Begin(String),
    /// Also a label that is a type without any prefix.
    Inside(String),
    End(String),
    Single(String),
}

impl Tag {
    /// Reads `O`, `B-PER`, `I-PER`, `E-` or `L-`, `S-` or `U-`, `M-`, or a bare type.
    pub(super) fn parse(label: &str) -> Self {
        let kind = label.get(2..).filter(|kind| !kind.is_empty()).map(str::to_owned);
        match (label.as_bytes(), kind) {
            (b"O" | b"", _) => Self::Outside,
            ([b'B', b'-' | b'_', ..], Some(kind)) => Self::Begin(kind),
            ([b'I' | b'M', b'-' | b'_', ..], Some(kind)) => Self::Inside(kind),
            ([b'E' | b'L', b'-' | b'_', ..], Some(kind)) => Self::End(kind),
            ([b'S' | b'U', b'-' | b'_', ..], Some(kind)) => Self::Single(kind),
            _ => Self::Inside(label.to_owned()),
        }
    }

    pub(super) fn kind(&self) -> Option<&str> {
        match self {
            Self::Outside => None,
            Self::Begin(kind) | Self::Inside(kind) | Self::End(kind) | Self::Single(kind) => Some(kind),
        }
    }
}

/// Which labels may follow which, as the set of labels itself implies.
pub(super) struct Grammar {
    tags: Vec<Tag>,
    /// `allowed[next][before]`; the last `before` is the beginning of the text, the last `next` its end.
    allowed: Vec<Vec<bool>>,
}

impl Grammar {
    pub(super) fn new(labels: &[String]) -> Self {
        let tags: Vec<Tag> = labels.iter().map(|label| Tag::parse(label)).collect();
        let places: Vec<Option<&Tag>> = tags.iter().map(Some).chain([None]).collect();
        let allowed =
            places.iter().map(|next| places.iter().map(|before| may_follow(*before, *next, &tags)).collect()).collect();
        Self { tags, allowed }
    }

    pub(super) fn tag(&self, place: usize) -> &Tag {
        &self.tags[place]
    }

    /// The likeliest allowed sequence (Viterbi): for each position its label.
    pub(super) fn likeliest(&self, logs: &[Vec<f64>]) -> Vec<usize> {
        let many = self.tags.len();
        let Some(first) = logs.first() else { return Vec::new() };
        let forbidden = |yes: bool| if yes { 0.0 } else { f64::NEG_INFINITY };
        let mut best: Vec<f64> = (0..many).map(|tag| first[tag] + forbidden(self.allowed[tag][many])).collect();
        let mut back: Vec<Vec<usize>> = Vec::with_capacity(logs.len());
        for position in &logs[1..] {
            let (mut scores, mut from) = (Vec::with_capacity(many), Vec::with_capacity(many));
            for (tag, log) in position.iter().enumerate() {
                let before = (0..many).map(|before| (before, best[before] + forbidden(self.allowed[tag][before])));
                let (before, score) = before.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, f64::NEG_INFINITY));
                scores.push(score + log);
                from.push(before);
            }
            best = scores;
            back.push(from);
        }
        let last = (0..many).map(|tag| (tag, best[tag] + forbidden(self.allowed[many][tag])));
        let mut at = last.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(tag, _)| tag);
        let mut path = vec![at];
        for from in back.iter().rev() {
            at = from[at];
            path.push(at);
        }
        path.reverse();
        path
    }
}

/// `I-X` and `E-X` continue `B-X` where there is a `B-X` at all; where there is an `E-X`, `B-X` and `I-X` must come to it.
fn may_follow(before: Option<&Tag>, next: Option<&Tag>, tags: &[Tag]) -> bool {
    let open = match before {
        Some(Tag::Begin(kind) | Tag::Inside(kind)) => Some(kind),
        _ => None,
    };
    if let Some(Tag::Inside(kind) | Tag::End(kind)) = next
        && tags.contains(&Tag::Begin(kind.clone()))
        && open != Some(kind)
    {
        return false;
    }
    if let Some(kind) = open
        && tags.contains(&Tag::End(kind.clone()))
    {
        return matches!(next, Some(Tag::Inside(next) | Tag::End(next)) if next == kind);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_in_their_usual_spellings() {
        let per = || "PER".to_owned();
        for (label, tag) in [
            ("O", Tag::Outside),
            ("B-PER", Tag::Begin(per())),
            ("I-PER", Tag::Inside(per())),
            ("M_PER", Tag::Inside(per())),
            ("E-PER", Tag::End(per())),
            ("S-PER", Tag::Single(per())),
            ("PER", Tag::Inside(per())),
            ("人", Tag::Inside("人".to_owned())),
            ("B-", Tag::Inside("B-".to_owned())),
        ] {
            assert_eq!(Tag::parse(label), tag, "{label}");
        }
    }

    #[test]
    fn only_sequences_that_mean_something_are_chosen() {
        let labels: Vec<String> = ["O", "B-P", "I-P", "B-L", "I-L"].iter().map(ToString::to_string).collect();
        let grammar = Grammar::new(&labels);
        let row = |best: usize, second: usize| -> Vec<f64> {
            (0..5)
                .map(|tag| {
                    if tag == best {
                        0.6_f64
                    } else if tag == second {
                        0.3
                    } else {
                        0.03
                    }
                    .ln()
                })
                .collect()
        };
        assert_eq!(grammar.likeliest(&[row(1, 0), row(2, 0), row(0, 1)]), [1, 2, 0]);
        assert_eq!(grammar.likeliest(&[row(0, 1), row(2, 0), row(2, 0)]), [1, 2, 2], "I-P needs a B-P before it");
        assert_eq!(grammar.likeliest(&[row(1, 0), row(4, 2), row(0, 1)]), [1, 2, 0], "I-L cannot continue a P");
        assert_eq!(grammar.likeliest(&[]), [0_usize; 0]);

        let labels: Vec<String> = ["O", "B-P", "I-P", "E-P", "S-P"].iter().map(ToString::to_string).collect();
        let grammar = Grammar::new(&labels);
        assert_eq!(grammar.likeliest(&[row(1, 4), row(0, 1)]), [4, 0], "B-P alone comes to no end");
        assert_eq!(grammar.likeliest(&[row(1, 4)]), [4]);
        assert_eq!(grammar.likeliest(&[row(1, 0), row(2, 3), row(3, 0)]), [1, 2, 3]);
    }
}
