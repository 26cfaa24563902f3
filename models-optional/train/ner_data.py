"""English sentences with their names: what the NER model trains on, is tuned on and is tested on.

The folder layout is `ner-en/{btc,wikigold,wnut17,uner-ewt}`; the model card lists sources and licences. Four schemes are
brought to one: persons, locations, organisations; works, products and the like are no names here.
"""

import pathlib
import random
import zlib
from dataclasses import dataclass

LABELS = ("O", "B-PERSON", "I-PERSON", "B-LOCATION", "I-LOCATION", "B-ORGANIZATION", "I-ORGANIZATION")
KINDS = {
    "PER": "PERSON", "person": "PERSON",
    "LOC": "LOCATION", "location": "LOCATION",
    "ORG": "ORGANIZATION", "corporation": "ORGANIZATION", "group": "ORGANIZATION",
}


@dataclass(frozen=True)
class Sentence:
    """`words[i]` stands at `spans[i]` of `text` and has `labels[i]`, an index into LABELS."""

    text: str
    spans: tuple[tuple[int, int], ...]
    labels: tuple[int, ...]


def load(data: pathlib.Path, seed: int) -> tuple[list[Sentence], list[Sentence], dict[str, list[Sentence]]]:
    """Training, development and tests by name. A fifth of EWT's dev part is kept for tuning, with WNUT17's dev part and
    part e of the Broad Twitter Corpus. What stands in a test or in the development set is not trained on."""
    folder = data / "ner-en"
    ewt = uner(folder / "uner-ewt/en_ewt-ud-dev.iob2")
    tuned = [s for s in ewt if zlib.crc32(s.text.encode()) % 5 == 0]
    trained = [s for s in ewt if zlib.crc32(s.text.encode()) % 5 != 0]
    dev = tuned + conll(folder / "wnut17/emerging.dev.conll") + conll(folder / "btc/e.conll")
    tests = {
        "uner-ewt": uner(folder / "uner-ewt/en_ewt-ud-test.iob2"),
        "wnut17": conll(folder / "wnut17/emerging.test.annotated"),
    }
    train = trained * 2
    for part in "abfg":
        train += conll(folder / f"btc/{part}.conll")
    train += conll(folder / "wikigold/wikigold.conll.txt") + conll(folder / "wnut17/wnut17train.conll")
    held_out = {key(s) for group in (dev, *tests.values()) for s in group}
    train = [s for s in train if key(s) not in held_out]
    random.Random(seed).shuffle(train)
    return train, dev, tests


def key(sentence: Sentence) -> str:
    return "".join(c for c in sentence.text.lower() if c.isalnum()) or sentence.text


def conll(path: pathlib.Path) -> list[Sentence]:
    """One word a line, its label last; words are joined by spaces."""
    found, words, tags = [], [], []
    for line in [*path.read_text("utf-8").splitlines(), ""]:
        parts = line.split()
        if len(parts) >= 2:
            words.append(parts[0])
            tags.append(parts[-1])
        elif words:
            text, spans = " ".join(words), []
            for word in words:
                start = spans[-1][1] + 1 if spans else 0
                spans.append((start, start + len(word)))
            found.append(Sentence(text, tuple(spans), labels(tags)))
            words, tags = [], []
    return found


def uner(path: pathlib.Path) -> list[Sentence]:
    """Universal NER: the sentence as it was written, then its words."""
    found = []
    for block in path.read_text("utf-8").split("\n\n"):
        lines = block.splitlines()
        text = next((line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")), None)
        rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
        if not rows:
            continue
        spans, start = [], 0
        for row in rows:
            start = text.index(row[1], start)
            spans.append((start, start + len(row[1])))
            start += len(row[1])
        found.append(Sentence(text, tuple(spans), labels([row[2] for row in rows])))
    return found


def labels(tags: list[str]) -> tuple[int, ...]:
    """IOB1 or IOB2 to indices: a name's first word is B, whatever its source wrote."""
    found, before = [], "O"
    for tag in tags:
        prefix, _, kind = tag.partition("-")
        kind = KINDS.get(kind)
        if kind is None:
            found.append(0)
            before = "O"
            continue
        begins = prefix == "B" or before != kind
        found.append(LABELS.index(("B-" if begins else "I-") + kind))
        before = kind
    return tuple(found)


def names(labels: list[int]) -> set[tuple[int, int, str]]:
    """(first word, last word, kind) of every name; an I that continues nothing begins a name."""
    found, start, kind = set(), 0, None
    for i, label in enumerate([*labels, 0]):
        prefix, _, this = LABELS[label].partition("-")
        if kind is not None and (prefix != "I" or this != kind):
            found.add((start, i - 1, kind))
            kind = None
        if this and kind is None:
            start, kind = i, this
    return found


def f1(sentences: list[Sentence], predicted: list[list[int]]) -> dict[str, tuple[float, float, float]]:
    """Precision, recall and F1 in percent, over exact spans and kinds: of all names and of each kind."""
    found = {}
    for only in (None, "PERSON", "LOCATION", "ORGANIZATION"):
        right = asked = given = 0
        for sentence, guess in zip(sentences, predicted):
            wanted = {n for n in names(sentence.labels) if only in (None, n[2])}
            got = {n for n in names(guess) if only in (None, n[2])}
            right, asked, given = right + len(wanted & got), asked + len(wanted), given + len(got)
        precision, recall = right / max(given, 1), right / max(asked, 1)
        f = 2 * precision * recall / max(precision + recall, 1e-9)
        found[only or "all"] = (100 * precision, 100 * recall, 100 * f)
    return found
