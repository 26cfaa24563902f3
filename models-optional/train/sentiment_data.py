"""English sentences with a feeling: what the sentiment model trains on, is tuned on and is tested on.

Every source is a folder of public files under the licence its publisher states; the model card lists them. The folder
layout is `sentiment-en/{nltk,vader,goemotions}`, `ner-en/wikigold` and `intent/clinc150`. SST-2 is read for evaluation
only (`text<TAB>label`, 1 = positive): it has no licence, so nothing is trained on it.
"""

import csv
import io
import json
import pathlib
import random
import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass

LABELS = ("Negative", "Neutral", "Positive")
NEGATIVE, NEUTRAL, POSITIVE = range(3)
SHINGLE = 25


@dataclass(frozen=True)
class Sentence:
    text: str
    label: int


def load(data: pathlib.Path, sst2: pathlib.Path | None, seed: int) -> tuple[list[Sentence], list[Sentence], dict]:
    """Training sentences, development sentences, and the tests by name. A training sentence that shares 25 characters in a
    row with any test or development sentence is dropped: review corpora share texts, and figures would lie."""
    rng = random.Random(seed)
    tests = {name: vader(data, name, part="test") for name in ("tweets", "amazon", "nyt")}
    tests["goemotions"] = goemotions(data, "test")
    dev = [s for name in ("tweets", "amazon", "nyt") for s in graded(vader(data, name, part="dev"))]
    dev += rng.sample(goemotions(data, "dev"), 1500)
    held_back = []
    if sst2:
        tests["sst2"] = binary_tsv(sst2 / "test.tsv")
        held_back = rng.sample(binary_tsv(sst2 / "dev.tsv"), 800)
    pool = []
    for name, limit in (("tweets", None), ("amazon", None), ("nyt", None), ("movie", None)):
        pool += capped(rng, graded(vader(data, name, part="train")), limit)
    pool += sentence_polarity(data)
    pool += capped(rng, pros_cons(data), 4000)
    pool += product_reviews(data)
    emotions = goemotions(data, "train")
    for label, limit in ((NEGATIVE, 4000), (NEUTRAL, 5000), (POSITIVE, 4000)):
        pool += capped(rng, [s for s in emotions if s.label == label], limit)
    pool += capped(rng, statements(data), 1200) + capped(rng, requests(data), 1500)
    held_out = [row.text if isinstance(row, Sentence) else row[0] for rows in tests.values() for row in rows]
    held_out += [s.text for s in dev + held_back]
    train = without_overlap(pool, held_out)
    rng.shuffle(train)
    return train, dev, tests


def capped(rng: random.Random, sentences: list[Sentence], limit: int | None) -> list[Sentence]:
    return sentences if limit is None or len(sentences) <= limit else rng.sample(sentences, limit)


def without_overlap(pool: list[Sentence], held_out: list[str]) -> list[Sentence]:
    seen = {shingle for text in held_out for shingle in shingles(text)}
    kept, known = [], set()
    for sentence in pool:
        key = squeezed(sentence.text)
        if key and key not in known and not any(s in seen for s in shingles(sentence.text)):
            known.add(key)
            kept.append(sentence)
    return kept


def squeezed(text: str) -> str:
    """Letters and digits only: the same sentence is tokenised differently in different corpora."""
    return re.sub(r"[^a-z0-9]+", "", text.lower())


def shingles(text: str) -> set[str]:
    text = squeezed(text)
    if len(text) <= SHINGLE:
        return {text}
    return {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)}


VADER_FILES = {"tweets": "tweets", "amazon": "amazonReviewSnippets", "nyt": "nytEditorialSnippets", "movie": "movieReviewSnippets"}


def vader(data: pathlib.Path, name: str, part: str) -> list[tuple[str, float]]:
    """Sentences with the mean valence (-4 to 4) of 20 readers. Documents are split by a hash of their number, so that the
    sentences of one review or editorial stay together: a fifth is for tests, a tenth for tuning."""
    archive = tarfile.open(data / "sentiment-en/vader/hutto_ICWSM_2014.tar.gz")
    member = archive.extractfile(f"hutto_ICWSM_2014/{VADER_FILES[name]}_GroundTruth.txt")
    found = []
    for line in member.read().decode("utf-8", "replace").splitlines():
        number, mean, text = line.split("\t", 2)
        bucket = zlib.crc32(f"{name} {number.split('_')[0]}".encode()) % 10
        if part == ("test" if bucket < 2 else "dev" if bucket == 2 else "train"):
            found.append((text.strip(), float(mean)))
    return found


def graded(rows: list[tuple[str, float]]) -> list[Sentence]:
    """Clear feelings and clear absence of any; what lies between says little about either."""
    clear = [Sentence(text, POSITIVE if mean > 0 else NEGATIVE) for text, mean in rows if abs(mean) >= 0.5]
    return clear + [Sentence(text, NEUTRAL) for text, mean in rows if abs(mean) <= 0.2]


def binary_tsv(path: pathlib.Path) -> list[Sentence]:
    rows = [line.rsplit("\t", 1) for line in path.read_text("utf-8").splitlines() if "\t" in line]
    return [Sentence(text.strip(), POSITIVE if label == "1" else NEGATIVE) for text, label in rows]


def sentence_polarity(data: pathlib.Path) -> list[Sentence]:
    archive = zipfile.ZipFile(data / "sentiment-en/nltk/sentence_polarity.zip")
    found = []
    for name, label in (("neg", NEGATIVE), ("pos", POSITIVE)):
        text = archive.read(f"sentence_polarity/rt-polarity.{name}").decode("latin-1")
        found += [Sentence(line.strip(), label) for line in text.splitlines() if line.strip()]
    return found


def about_films(data: pathlib.Path) -> set[str]:
    """The sentences about films, squeezed."""
    rows = [s.text for s in sentence_polarity(data)] + [text for text, _ in vader(data, "movie", part="train")]
    return {squeezed(text) for text in rows}


def pros_cons(data: pathlib.Path) -> list[Sentence]:
    archive = zipfile.ZipFile(data / "sentiment-en/nltk/pros_cons.zip")
    found = []
    for name, label in (("Cons", NEGATIVE), ("Pros", POSITIVE)):
        text = archive.read(f"pros_cons/Integrated{name}.txt").decode("latin-1")
        rows = re.findall(rf"<{name}>(.*?)</{name}>", text)
        found += [Sentence(row.strip(), label) for row in rows if len(row.split()) >= 2]
    return found


def product_reviews(data: pathlib.Path) -> list[Sentence]:
    archive = zipfile.ZipFile(data / "sentiment-en/nltk/product_reviews_1.zip")
    found = []
    for name in sorted(archive.namelist()):
        if not name.endswith(".txt") or "README" in name:
            continue
        for line in archive.read(name).decode("latin-1").splitlines():
            tags, mark, text = line.partition("##")
            grades = [int(grade) for grade in re.findall(r"\[([+-]\d)\]", tags)]
            if mark and grades and (all(g > 0 for g in grades) or all(g < 0 for g in grades)):
                found.append(Sentence(text.strip(), POSITIVE if grades[0] > 0 else NEGATIVE))
    return found


def goemotions(data: pathlib.Path, part: str) -> list[Sentence]:
    """Comments with exactly one of the groups positive, negative, neutral."""
    groups = (data / "sentiment-en/goemotions/labels.txt").read_text().split()
    labels = {"negative": NEGATIVE, "neutral": NEUTRAL, "positive": POSITIVE}
    text = (data / f"sentiment-en/goemotions/{part}.tsv").read_text("utf-8")
    found = []
    for row in csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE):
        group = groups[int(row[1])] if row[1].isdigit() else None
        if group in labels:
            found.append(Sentence(row[0].strip(), labels[group]))
    return found


def statements(data: pathlib.Path) -> list[Sentence]:
    """Encyclopaedia sentences: they state facts."""
    text = (data / "ner-en/wikigold/wikigold.conll.txt").read_text("utf-8")
    blocks = [[line.split()[0] for line in block.splitlines() if line.strip()] for block in text.split("\n\n")]
    return [Sentence(" ".join(words), NEUTRAL) for words in blocks if 5 <= len(words) <= 40]


def requests(data: pathlib.Path) -> list[Sentence]:
    """What people ask an assistant: questions and orders, without praise or blame."""
    rows = json.loads((data / "intent/clinc150/data_full.json").read_text("utf-8"))["train"]
    emotional = {"greeting", "goodbye", "thank_you", "tell_joke", "fun_fact", "are_you_a_bot", "who_made_you", "cancel"}
    return [Sentence(text, NEUTRAL) for text, intent in rows if intent not in emotional]
