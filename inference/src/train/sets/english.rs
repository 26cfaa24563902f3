//! English texts with their sentiment.

use std::path::Path;

use super::super::examples::{Example, ReadError};
use super::{Part, Set, archive, malformed, parted, read};

/// Sentences and reviews of films, pros and cons of products (Pang and Lee 2004, 2005; Liu; NLTK data).
pub(super) fn nltk(folder: &Path) -> Result<Vec<Set>, ReadError> {
    let mut sentences = Vec::new();
    for (_, label, line) in sided(&folder.join("sentence_polarity.zip"), "rt-polarity.pos", "rt-polarity.neg")? {
        sentences.extend(line.lines().map(|line| Example::new(line.trim(), label)));
    }
    let mut reviews = Vec::new();
    for (_, label, text) in sided(&folder.join("movie_reviews.zip"), ".txt", "")? {
        reviews.push(Example::new(text, label));
    }
    let mut points = Vec::new();
    for (_, label, text) in sided(&folder.join("pros_cons.zip"), "IntegratedPros.txt", "IntegratedCons.txt")? {
        let tags = ["<Pros>", "</Pros>", "<Cons>", "</Cons>"];
        for line in text.lines() {
            let line = tags.iter().fold(line.replace("&amp;", "&"), |line, tag| line.replace(tag, ""));
            if !line.trim().is_empty() {
                points.push(Example::new(line.trim(), label).weighing(PROS_AND_CONS));
            }
        }
    }
    let mut sets = Vec::new();
    for (name, examples) in [("film sentences", sentences), ("film reviews", reviews), ("pros and cons", points)] {
        sets.extend(parted(name, examples.into_iter().map(|example| (example.text.clone(), example))));
    }
    sets.push(Set { name: "product reviews (Hu and Liu)", part: Part::Train, examples: rated_features(folder)? });
    Ok(sets)
}

/// There are many of them, and short: they must not drown the rest.
const PROS_AND_CONS: f32 = 0.3;

/// Words that speak well or ill of something (Hu and Liu 2004).
pub(super) fn opinion_words(folder: &Path) -> Result<Vec<(String, bool)>, ReadError> {
    let files = sided(&folder.join("opinion_lexicon.zip"), "positive-words.txt", "negative-words.txt")?;
    let words = files.iter().flat_map(|(_, label, text)| {
        let words = text.lines().map(str::trim).filter(|word| !word.is_empty() && !word.starts_with(';'));
        words.map(move |word| (word.replace('-', " "), *label == "Positive"))
    });
    Ok(words.collect())
}

/// Tweets, product reviews, newspaper and film sentences with the mean judgement of twenty people, from -4 to 4 (Hutto and
/// Gilbert 2014). Film sentences are those of Pang and Lee once more; they are for training only.
pub(super) fn vader(folder: &Path) -> Result<Vec<Set>, ReadError> {
    let path = folder.join("hutto_ICWSM_2014.tar.gz");
    let mut sets = Vec::new();
    for (name, file) in [
        ("tweets", "/tweets_GroundTruth.txt"),
        ("product reviews", "/amazonReviewSnippets_GroundTruth.txt"),
        ("newspaper", "/nytEditorialSnippets_GroundTruth.txt"),
        ("film sentences (judged)", "/movieReviewSnippets_GroundTruth.txt"),
    ] {
        let content = archive::tar_gz(&path, file)?;
        let mut examples = Vec::new();
        for (at, line) in content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let mut fields = line.splitn(3, '\t');
            let (Some(id), Some(mean), Some(text)) = (fields.next(), fields.next(), fields.next()) else {
                return Err(malformed(&path, at + 1, format!("{file}: not three fields")));
            };
            let mean: f32 = mean.trim().parse().map_err(|_| malformed(&path, at + 1, format!("{file}: no number")))?;
            let label = if mean > OPINION {
                "Positive"
            } else if mean < -OPINION {
                "Negative"
            } else {
                "Neutral"
            };
            // Sentences of one review stay together: their ids begin alike.
            let review = id.split('_').next().unwrap_or(id).to_owned();
            let example = Example::new(text.replace("&amp;", "&").trim(), label).weighing(weight(label));
            examples.push((review, example));
        }
        if name == "film sentences (judged)" {
            let examples = examples.into_iter().map(|(_, example)| example).collect();
            sets.push(Set { name, part: Part::Train, examples });
        } else {
            sets.extend(parted(name, examples.into_iter()));
        }
    }
    Ok(sets)
}

/// A mean judgement this far from 0 is an opinion.
const OPINION: f32 = 0.5;

/// Comments with groups of emotions (Demszky et al. 2020; groups by monologg); those with one group, and not the ambiguous.
pub(super) fn go_emotions(folder: &Path) -> Result<Vec<Set>, ReadError> {
    let mut sets = Vec::new();
    for (file, part) in [("train.tsv", Part::Train), ("dev.tsv", Part::Choose), ("test.tsv", Part::Measure)] {
        let content = read(&folder.join(file))?;
        let examples = content.lines().filter_map(|line| {
            let mut fields = line.split('\t');
            let text = fields.next()?;
            let label = match fields.next()? {
                "1" => "Negative",
                "2" => "Neutral",
                "3" => "Positive",
                _ => return None,
            };
            Some(Example::new(text.trim(), label).weighing(weight(label)))
        });
        sets.push(Set { name: "comments", part, examples: examples.collect() });
    }
    Ok(sets)
}

/// What people called neutral in comments and reviews is mostly a faint opinion; it must not teach what none is.
fn weight(label: &str) -> f32 {
    if label == "Neutral" { 0.1 } else { 1.0 }
}

/// Sentences of product reviews in which people marked what is said of which feature, `battery[-2]##the sentence`.
fn rated_features(folder: &Path) -> Result<Vec<Example>, ReadError> {
    let mut examples = Vec::new();
    for (name, text) in archive::zip(&folder.join("product_reviews_1.zip"), ".txt")? {
        if name.ends_with("README.txt") {
            continue;
        }
        for (marks, sentence) in text.lines().filter_map(|line| line.split_once("##")) {
            let marks: Vec<i32> = marks
                .split('[')
                .filter_map(|mark| {
                    let strength = mark.get(1..2)?.parse::<i32>().ok()?;
                    mark.starts_with('+').then_some(strength).or(mark.starts_with('-').then_some(-strength))
                })
                .collect();
            let label = match (marks.len(), marks.iter().sum::<i32>()) {
                (0, _) => "Neutral",
                (_, 1..) => "Positive",
                (_, ..=-1) => "Negative",
                _ => continue,
            };
            examples.push(Example::new(sentence.trim(), label).weighing(weight(label)));
        }
    }
    Ok(examples)
}

/// Files of an archive, positive or negative by their names, or else by their folder.
fn sided(path: &Path, positive: &str, negative: &str) -> Result<Vec<(String, &'static str, String)>, ReadError> {
    let files = archive::zip(path, "")?.into_iter().filter_map(|(name, text)| {
        let by_folder = negative.is_empty() && name.ends_with(positive);
        let label = if (by_folder && name.contains("/pos/")) || (!by_folder && name.ends_with(positive)) {
            "Positive"
        } else if (by_folder && name.contains("/neg/"))
            || (!by_folder && !negative.is_empty() && name.ends_with(negative))
        {
            "Negative"
        } else {
            return None;
        };
        Some((name, label, text))
    });
    Ok(files.collect())
}
