//! What the folder of data sets holds, by path. All sets are openly licensed; `used` says what for and from where. Sets
//! that are not there are left out, and the report says so: the model is worse then, not wrong.

use std::path::{Path, PathBuf};

use super::sample::{Join, Sample, kind_of, read_columns};
use super::{Weighted, chinese, clusters, english};

/// A set of marked sentences.
#[derive(Debug, Clone, Copy)]
pub struct Set {
    pub name: &'static str,
    pub path: &'static str,
    pub join: Join,
    /// How much each of its sentences counts in training; `None`: it is not trained on.
    pub weight: Option<f32>,
}

const fn set(name: &'static str, path: &'static str, join: Join, weight: Option<f32>) -> Set {
    Set { name, path, join, weight }
}

/// Chinese sets: Universal NER (CC BY-SA 4.0; PUD CC BY-SA 3.0), Weibo NER (CC BY-SA 3.0). Traditional and Simplified GSD
/// are the same sentences, so one is enough to train on.
pub const CHINESE: [Set; 9] = [
    set("uner-gsdsimp-train", "ner-zh/uner-gsdsimp/zh_gsdsimp-ud-train.iob2", Join::Chinese, Some(1.0)),
    set("weibo-train", "ner-zh/weibo/weiboNER_2nd_conll.train", Join::Places, Some(1.0)),
    set("uner-pud-zh", "ner-zh/uner-pud/zh_pud-ud-test.iob2", Join::Chinese, Some(1.0)),
    set("uner-gsdsimp-dev", "ner-zh/uner-gsdsimp/zh_gsdsimp-ud-dev.iob2", Join::Chinese, None),
    set("uner-gsd-dev", "ner-zh/uner-gsd/zh_gsd-ud-dev.iob2", Join::Chinese, None),
    set("weibo-dev", "ner-zh/weibo/weiboNER_2nd_conll.dev", Join::Places, None),
    set("uner-gsdsimp-test", "ner-zh/uner-gsdsimp/zh_gsdsimp-ud-test.iob2", Join::Chinese, None),
    set("uner-gsd-test", "ner-zh/uner-gsd/zh_gsd-ud-test.iob2", Join::Chinese, None),
    set("weibo-test", "ner-zh/weibo/weiboNER_2nd_conll.test", Join::Places, None),
];

/// English sets: the Broad Twitter Corpus, WikiGold, WNUT 17 (CC BY 4.0), Universal NER (CC BY-SA 4.0; PUD CC BY-SA 3.0).
pub const ENGLISH: [Set; 12] = [
    set("btc-a", "ner-en/btc/a.conll", Join::Spaces, Some(1.0)),
    set("btc-b", "ner-en/btc/b.conll", Join::Spaces, Some(1.0)),
    set("btc-e", "ner-en/btc/e.conll", Join::Spaces, Some(1.0)),
    set("btc-f", "ner-en/btc/f.conll", Join::Spaces, Some(1.0)),
    set("btc-g", "ner-en/btc/g.conll", Join::Spaces, Some(1.0)),
    set("wikigold", "ner-en/wikigold/wikigold.conll.txt", Join::Spaces, Some(1.0)),
    set("wnut17-train", "ner-en/wnut17/wnut17train.conll", Join::Spaces, Some(1.0)),
    set("uner-pud-en", "ner-en/uner-pud/en_pud-ud-test.iob2", Join::Spaces, Some(1.0)),
    set("uner-ewt-dev", "ner-en/uner-ewt/en_ewt-ud-dev.iob2", Join::Spaces, Some(1.0)),
    set("wnut17-dev", "ner-en/wnut17/emerging.dev.conll", Join::Spaces, None),
    set("uner-ewt-test", "ner-en/uner-ewt/en_ewt-ud-test.iob2", Join::Spaces, None),
    set("wnut17-test", "ner-en/wnut17/emerging.test.annotated", Join::Spaces, None),
];

/// A folder of data sets, and what was looked for in it in vain.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    pub missing: Vec<String>,
}

impl Folder {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), missing: Vec::new() }
    }

    /// The sentences of a set; none when it is not there.
    pub fn samples(&mut self, set: &Set) -> Vec<Sample> {
        read_columns(&self.text(set.path), set.join, kind_of)
    }

    /// All sentences to train on.
    pub fn training(&mut self, sets: &[Set]) -> Vec<Weighted> {
        let mut samples = Vec::new();
        for set in sets {
            if let Some(weight) = set.weight {
                samples.extend(self.samples(set).into_iter().map(|sample| (sample, weight)));
            }
        }
        samples
    }

    /// jieba's dictionary and THUOCL (MIT), GeoNames' cities of 15,000 people and more (CC BY 4.0).
    pub fn chinese(&mut self) -> chinese::Sources {
        let is_chinese = |name: &str| name.chars().all(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        let mut world = String::new();
        for city in self.cities() {
            for name in city.other_names.split(',').filter(|name| is_chinese(name)) {
                world.push_str(name);
                world.push('\n');
            }
        }
        chinese::Sources {
            dictionary: self.text("ner-zh/jieba/dict.txt"),
            places: self.text("ner-zh/thuocl/THUOCL_diming.txt"),
            persons: self.text("ner-zh/thuocl/THUOCL_lishimingren.txt"),
            world,
        }
    }

    /// The Names Corpus and the gazetteers of NLTK's data (without its list of US cities, which has another licence), the
    /// surnames of the United States census of 1990 (public domain), GeoNames' cities, the comments of GoEmotions
    /// (Apache-2.0) for how words are written, and all-MiniLM-L6-v2's word vectors (Apache-2.0) for clusters.
    pub fn english(&mut self) -> english::Sources {
        let cities = self.cities().iter().map(|city| format!("{}\t{}\n", city.name, city.people)).collect();
        let mut join = |paths: &[&str]| paths.iter().map(|path| self.text(path) + "\n").collect::<String>();
        let given = join(&["ner-en/nltk/names/male.txt", "ner-en/nltk/names/female.txt"]);
        let lands = ["countries", "isocountries", "usstates", "usstateabbrev", "caprovinces", "mexstates"];
        let lands = lands.map(|name| format!("ner-en/nltk/gazetteers/{name}.txt"));
        let lands = join(&lands.each_ref().map(String::as_str));
        english::Sources {
            given,
            surnames: self.text("ner-en/census/dist.all.last"),
            cities,
            lands,
            nations: self.text("ner-en/nltk/gazetteers/nationalities.txt"),
            clusters: self.clusters(),
            text: self.text("sentiment-en/goemotions/train.tsv").replace('\t', " "),
        }
    }

    fn clusters(&mut self) -> String {
        let vocabulary = self.text("ner-en/minilm/vocab.txt");
        let vectors = self.bytes("ner-en/minilm/model.safetensors");
        match clusters::clusters(&vocabulary, &vectors) {
            Ok(words) => words.iter().map(|(word, number)| format!("{word} {number}\n")).collect(),
            Err(error) => {
                self.missing.push(error.to_string());
                String::new()
            }
        }
    }

    /// GeoNames' file of cities: columns apart by tabs.
    fn cities(&mut self) -> Vec<City> {
        let text = self.text("geonames/cities15000.txt");
        let city = |line: &str| {
            let columns: Vec<&str> = line.split('\t').collect();
            Some(City {
                name: (*columns.get(1)?).to_owned(),
                other_names: (*columns.get(3)?).to_owned(),
                people: columns.get(14)?.parse().unwrap_or(0),
            })
        };
        text.lines().filter_map(city).collect()
    }

    fn text(&mut self, path: &str) -> String {
        String::from_utf8_lossy(&self.bytes(path)).into_owned()
    }

    fn bytes(&mut self, path: &str) -> Vec<u8> {
        std::fs::read(self.root.join(path)).unwrap_or_else(|error| {
            self.missing.push(format!("{path}: {error}"));
            Vec::new()
        })
    }
}

struct City {
    name: String,
    other_names: String,
    people: u64,
}
