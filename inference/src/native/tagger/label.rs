//! What a token can be: outside of every name, or at one of four places (begin, inside, end, single: BIOES) in a name of
//! one of three kinds. Which label may follow which is said once, here.

/// What a name is the name of. The order is the order of weights in every file: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Person,
    Location,
    Organization,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Person, Self::Location, Self::Organization];

    /// As it stands in a result.
    pub fn name(self) -> &'static str {
        match self {
            Self::Person => "PERSON",
            Self::Location => "LOCATION",
            Self::Organization => "ORGANIZATION",
        }
    }
}

/// How many labels there are: outside, and four places in each kind.
pub(crate) const LABELS: usize = 1 + 4 * Kind::ALL.len();

/// A label's number: 0 is outside, then begin, inside, end, single of each kind in turn.
pub(crate) type Label = u8;

pub(crate) const OUTSIDE: Label = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Begin,
    Inside,
    End,
    Single,
}

pub(crate) fn label(kind: Kind, place: Place) -> Label {
    1 + 4 * kind as Label + place as Label
}

/// Where a label stands: nowhere (outside), or a place in a kind.
pub(crate) fn part(label: Label) -> Option<(Kind, Place)> {
    let at = label.checked_sub(1)?;
    let kind = *Kind::ALL.get(usize::from(at / 4))?;
    let place = match at % 4 {
        0 => Place::Begin,
        1 => Place::Inside,
        2 => Place::End,
        _ => Place::Single,
    };
    Some((kind, place))
}

/// May a text begin with this label? The same labels may follow a finished name.
pub(crate) fn may_begin(label: Label) -> bool {
    !matches!(part(label), Some((_, Place::Inside | Place::End)))
}

/// May a text end with this label? That is: no name is left open.
pub(crate) fn may_end(label: Label) -> bool {
    !matches!(part(label), Some((_, Place::Begin | Place::Inside)))
}

pub(crate) fn may_follow(before: Label, after: Label) -> bool {
    match part(before) {
        Some((kind, Place::Begin | Place::Inside)) => {
            matches!(part(after), Some((same, Place::Inside | Place::End)) if same == kind)
        }
        _ => may_begin(after),
    }
}

/// A name among tokens: from the first to the one after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    pub from: usize,
    pub to: usize,
    pub kind: Kind,
}

/// The labels of a sentence of `length` tokens with these names, which do not overlap.
pub(crate) fn labels_of(length: usize, spans: &[Span]) -> Vec<Label> {
    let mut labels = vec![OUTSIDE; length];
    for span in spans {
        if span.to - span.from == 1 {
            labels[span.from] = label(span.kind, Place::Single);
            continue;
        }
        labels[span.from..span.to].fill(label(span.kind, Place::Inside));
        labels[span.from] = label(span.kind, Place::Begin);
        labels[span.to - 1] = label(span.kind, Place::End);
    }
    labels
}

/// The names in a valid sequence of labels.
pub(crate) fn spans_of(labels: &[Label]) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut open = 0;
    for (at, &label) in labels.iter().enumerate() {
        match part(label) {
            Some((_, Place::Begin)) => open = at,
            Some((kind, Place::End)) => spans.push(Span { from: open, to: at + 1, kind }),
            Some((kind, Place::Single)) => spans.push(Span { from: at, to: at + 1, kind }),
            _ => {}
        }
    }
    spans
}
