//! Where a negation reaches.

/// Stands for a double negation: the two take each other away, and what follows is meant as it stands.
const DOUBLE: char = '\u{3400}';

/// Words that a negation in English reaches, at most.
const REACH: usize = 4;
/// Characters that a negation in Chinese reaches, at most.
const HAN_REACH: usize = 4;

/// The scope of the last negation in a run of English words.
#[derive(Debug, Default)]
pub(super) struct Scope {
    left: usize,
}

impl Scope {
    /// Whether a word stands in the scope of a negation; the word may begin or end one.
    pub(super) fn word(&mut self, word: &[char]) -> bool {
        let mut buffer = [0_u8; 12];
        let Some(word) = ascii(word, &mut buffer) else {
            let within = self.left > 0;
            self.left = self.left.saturating_sub(1);
            return within;
        };
        if ends_scope(word) || (self.left > 0 && is_comparative(word)) {
            // "Never been happier", "couldn't be better": what is denied is that there is more of it.
            self.left = 0;
        }
        let within = self.left > 0;
        self.left = self.left.saturating_sub(1);
        if negates(word) {
            self.left = if within { 0 } else { REACH };
        }
        within
    }

    pub(super) fn end(&mut self) {
        self.left = 0;
    }
}

/// The word as text, when it is short enough for the lists below.
fn ascii<'a>(word: &[char], buffer: &'a mut [u8; 12]) -> Option<&'a str> {
    if word.len() > buffer.len() {
        return None;
    }
    for (to, c) in buffer.iter_mut().zip(word) {
        *to = u8::try_from(*c).ok().filter(u8::is_ascii)?;
    }
    std::str::from_utf8(&buffer[..word.len()]).ok()
}

fn negates(word: &str) -> bool {
    word.ends_with("n't")
        || matches!(
            word,
            "not"
                | "no"
                | "never"
                | "without"
                | "cannot"
                | "hardly"
                | "barely"
                | "nothing"
                | "none"
                | "nobody"
                | "neither"
                | "nor"
                | "dont"
                | "cant"
                | "didnt"
                | "doesnt"
                | "isnt"
                | "wasnt"
                | "wont"
                | "wouldnt"
                | "couldnt"
                | "shouldnt"
                | "arent"
                | "havent"
                | "aint"
                | "lack"
                | "lacks"
                | "lacking"
        )
}

fn ends_scope(word: &str) -> bool {
    matches!(word, "but" | "however" | "although" | "though" | "because" | "except" | "yet" | "and" | "only")
}

fn is_comparative(word: &str) -> bool {
    (word.len() > 4 && word.ends_with("ier")) || matches!(word, "more" | "better" | "so" | "such")
}

/// What each negation in a stretch of Chinese characters reaches.
pub(super) fn han_scopes(part: &[char]) -> impl Iterator<Item = &[char]> {
    part.iter().enumerate().filter(|(_, c)| matches!(c, '不' | '没')).map(|(at, _)| {
        let start = at + 1;
        &part[start..part.len().min(start + HAN_REACH)]
    })
}

/// Puts one character in the place of each double negation (不是不好, 没有不喜欢), which is what the language means by it:
/// the good that follows is good. Fixed words that look alike (不得不, 是不是不) are left.
pub(super) fn double(chars: &mut Vec<char>) {
    if !chars.contains(&'不') {
        return;
    }
    let mut to = 0;
    let mut from = 0;
    while from < chars.len() {
        let length = double_at(chars, from, to);
        chars[to] = if length > 0 { DOUBLE } else { chars[from] };
        from += length.max(1);
        to += 1;
    }
    chars.truncate(to);
}

/// The length of the double negation at a place, 0 if there is none. What stands before `written` has been moved.
fn double_at(chars: &[char], at: usize, written: usize) -> usize {
    const FORMS: [&[char]; 8] = [
        &['不', '是', '不'],
        &['没', '有', '不'],
        &['并', '非', '不'],
        &['不', '会', '不'],
        &['不', '能', '不'],
        &['没', '有', '人', '不'],
        &['没', '什', '么', '不'],
        &['无', '不'],
    ];
    if !matches!(chars[at], '不' | '没' | '并' | '无') || (written > 0 && chars[written - 1] == '是') {
        return 0;
    }
    let rest = &chars[at..];
    let form = FORMS.iter().find(|form| rest.starts_with(form));
    // 没有不足, 没有不同: there the second 不 is part of a word.
    form.map_or(0, |form| {
        let is_word = rest.get(form.len()).is_some_and(|c| matches!(c, '足' | '同' | '少' | '仅' | '到' | '但'));
        if is_word { 0 } else { form.len() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_of_a_negation_is_known() {
        for (text, within) in [
            ("not good", vec!["good"]),
            ("i don't like it at all today", vec!["like", "it", "at", "all"]),
            ("not bad but good", vec!["bad"]),
            ("never been happier", vec!["been"]),
            ("good", vec![]),
            ("no one is not happy", vec!["one", "is", "not"]),
        ] {
            let mut scope = Scope::default();
            let marked: Vec<&str> =
                text.split(' ').filter(|word| scope.word(&word.chars().collect::<Vec<_>>())).collect();
            assert_eq!(marked, within, "{text}");
        }
    }

    #[test]
    fn double_negations_become_one_character() {
        for (text, expected) in [
            ("不是不好", "㐀好"),
            ("没有不喜欢", "㐀喜欢"),
            ("我不是不喜欢它", "我㐀喜欢它"),
            ("是不是不好", "是不是不好"),
            ("没有不足", "没有不足"),
            ("不好", "不好"),
            ("好", "好"),
        ] {
            let mut chars: Vec<char> = text.chars().collect();
            double(&mut chars);
            assert_eq!(chars.iter().collect::<String>(), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn uniting_double_negations_never_makes_a_text_longer(text in "[不是没有好无人会]{0,20}") {
            let mut chars: Vec<char> = text.chars().collect();
            double(&mut chars);
            proptest::prop_assert!(chars.len() <= text.chars().count());
        }
    }
}
