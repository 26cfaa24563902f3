//! Small taggers, made in a moment.

use proptest::prelude::*;

use super::sample::{Join, Sample, kind_of, read_columns};
use super::{Plan, Trained, chinese, english, train_chinese, train_english};
use crate::native::tagger::{Kind, Tagger, Taggers};

type Marked<'a> = (&'a str, &'a [(usize, usize, Kind)]);

const CHINESE: [Marked<'_>; 4] = [
    ("李明在北京工作。", &[(0, 2, Kind::Person), (3, 5, Kind::Location)]),
    ("王芳在上海工作。", &[(0, 2, Kind::Person), (3, 5, Kind::Location)]),
    ("李明去上海大學。", &[(0, 2, Kind::Person), (3, 7, Kind::Organization)]),
    ("我們今天在家。", &[]),
];

fn samples(marked: &[Marked<'_>]) -> Vec<(Sample, f32)> {
    let tokens = |text: &str| (0..text.chars().count()).map(|at| (at, at + 1)).collect();
    let sample =
        |&(text, names): &Marked<'_>| Sample { text: text.to_owned(), tokens: tokens(text), names: names.to_vec() };
    // Twice, since features that are seen once are left out.
    marked.iter().chain(marked).map(|it| (sample(it), 1.0)).collect()
}

fn small(seed: u64) -> Trained {
    let sources = chinese::Sources {
        dictionary: "北京 100 ns\n上海 100 ns\n大学 50 n\n工作 80 v\n".to_owned(),
        ..Default::default()
    };
    train_chinese(&sources, &samples(&CHINESE), &Plan::chinese(seed))
}

#[test]
fn the_same_data_and_seed_give_the_same_bytes() {
    let (one, same, other) = (small(1).file, small(1).file, small(2).file);
    assert_eq!(one, same);
    assert_ne!(one, other);
}

#[test]
fn what_was_learnt_is_found_in_either_script() {
    let taggers = Taggers { chinese: Some(Tagger::read(&small(1).file).unwrap()), english: None };
    for text in ["李明在上海工作。", "王芳在北京工作。"] {
        let names: Vec<_> = taggers.names(text).iter().map(|name| (name.from, name.to, name.kind)).collect();
        assert_eq!(names, [(0, 2, Kind::Person), (3, 5, Kind::Location)], "{text}");
    }
    assert_eq!(taggers.names("李明去上海大學。"), taggers.names("李明去上海大学。"));
    assert!(taggers.names("我们今天在家。").is_empty());
}

#[test]
fn an_english_tagger_learns_too() {
    let file = "John\tB-PER\nlives\tO\nin\tO\nParis\tB-LOC\n.\tO\n\nMary\tB-PER\nlives\tO\nin\tO\nRome\tB-LOC\n.\tO\n\nthey\tO\nlive\tO\n.\tO\n\n";
    let samples: Vec<_> =
        read_columns(&file.repeat(3), Join::Spaces, kind_of).into_iter().map(|sample| (sample, 1.0)).collect();
    let trained = train_english(&english::Sources::default(), &samples, &Plan::english(1));
    let taggers = Taggers { chinese: None, english: Some(Tagger::read(&trained.file).unwrap()) };
    let names: Vec<_> =
        taggers.names("Mary lives in Paris.").iter().map(|name| (name.from, name.to, name.kind)).collect();
    assert_eq!(names, [(0, 4, Kind::Person), (14, 19, Kind::Location)]);
}

#[test]
fn a_file_has_no_more_bytes_than_it_may() {
    let plan = Plan { largest: 4_000, ..Plan::chinese(1) };
    let trained = train_chinese(&chinese::Sources::default(), &samples(&CHINESE), &plan);
    assert!(trained.file.len() <= 4_000 && trained.kept < trained.features && trained.kept > 0);
    assert!(Tagger::read(&trained.file).is_ok());
}

proptest! {
    #[test]
    fn a_damaged_file_is_refused_or_read_but_never_panics(at in 0_usize..100_000, byte: u8, cut in 0_usize..100_000) {
        let mut file = small(1).file;
        let (at, cut) = (at % file.len(), cut % file.len());
        prop_assert!(Tagger::read(&file[..cut]).is_err());
        file[at] = byte;
        if let Ok(tagger) = Tagger::read(&file) {
            Taggers { chinese: Some(tagger), english: None }.names("李明在北京工作。");
        }
    }
}
