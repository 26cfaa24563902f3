"""The figures of the model cards."""

import numpy as np

import ner_data
import sentiment_data
from sentiment_data import NEGATIVE, NEUTRAL, POSITIVE


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def binary_accuracy(logits: np.ndarray, positive: np.ndarray) -> float:
    """Positive against Negative, whatever Neutral has."""
    return float(((logits[:, POSITIVE] > logits[:, NEGATIVE]) == positive).mean())


def macro_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    found = []
    for label in (NEGATIVE, NEUTRAL, POSITIVE):
        right = ((predicted == label) & (labels == label)).sum()
        found.append(2 * right / max((predicted == label).sum() + (labels == label).sum(), 1))
    return float(np.mean(found))


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |accuracy - confidence| over bins of equal width, weighted by their size (Guo et al. 2017)."""
    probabilities = softmax(logits)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    parts = [np.abs(right[places == i].mean() - confidence[places == i].mean()) * (places == i).mean() for i in range(bins) if (places == i).any()]
    return float(sum(parts))


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """What logits are divided by so that the likelihood of the labels is greatest (Guo et al. 2017)."""
    def loss(t: float) -> float:
        return -np.log(softmax(logits / t)[np.arange(len(labels)), labels] + 1e-12).mean()

    return float(min(np.arange(0.5, 4.0, 0.01), key=loss))


def sentiment(answer, tests: dict) -> dict[str, tuple[str, float]]:
    """{set: (metric, value)} for any of the tests; `answer(texts)` gives logits."""
    found, all_logits, all_labels = {}, [], []
    for name, rows in tests.items():
        if isinstance(rows[0], sentiment_data.Sentence):
            logits, labels = answer([s.text for s in rows]), np.array([s.label for s in rows])
            if name == "sst2":
                found["SST-2 test"] = ("accuracy, Positive against Negative", binary_accuracy(logits, labels == POSITIVE))
                continue
            predicted = logits.argmax(1)
            found["GoEmotions test, three classes"] = ("accuracy", float((predicted == labels).mean()))
            found["GoEmotions test, three classes, each class alike"] = ("macro F1", macro_f1(predicted, labels))
        else:
            rows = [(text, mean) for text, mean in rows if mean != 0]
            logits, means = answer([text for text, _ in rows]), np.array([mean for _, mean in rows])
            title = {"tweets": "tweets", "amazon": "product reviews", "nyt": "editorials"}[name]
            found[f"VADER {title}, held-out fifth"] = ("accuracy, Positive against Negative, every mean other than 0", binary_accuracy(logits, means > 0))
            # For three classes: those with a clear feeling or clearly none.
            clear = (np.abs(means) >= 0.5) | (np.abs(means) <= 0.2)
            logits, means = logits[clear], means[clear]
            labels = np.where(np.abs(means) <= 0.2, NEUTRAL, np.where(means > 0, POSITIVE, NEGATIVE))
        all_logits.append(logits)
        all_labels.append(labels)
    if not all_logits:
        return found
    logits, labels = np.concatenate(all_logits), np.concatenate(all_labels)
    found["all three-class tests together"] = ("expected calibration error", calibration_error(logits, labels))
    return found


def likeliest(logits: np.ndarray) -> list[int]:
    """The likeliest labels of a row of words in which I only follows its own kind (Viterbi)."""
    scores = np.log(softmax(logits.astype(np.float64)) + 1e-12)
    labels = ner_data.LABELS
    allowed = np.array([[0.0 if not b.startswith("I-") or a[2:] == b[2:] else -np.inf for b in labels] for a in labels])
    best = np.where([label.startswith("I-") for label in labels], -np.inf, scores[0])
    before = []
    for row in scores[1:]:
        ways = best[:, None] + allowed
        before.append(ways.argmax(0))
        best = ways.max(0) + row
    path = [int(best.argmax())]
    for step in reversed(before):
        path.append(int(step[path[-1]]))
    return path[::-1]


def word_labels(sentence: ner_data.Sentence, encoding, logits: np.ndarray) -> list[int]:
    """The labels of the sentence's own words, as the product reads a token classifier: the first piece speaks for its word,
    and a word of the corpus has the label of the tokenizer's word that stands where it begins."""
    firsts, places = [], []
    for place, word in enumerate(encoding.word_ids):
        if word is not None and (place == 0 or encoding.word_ids[place - 1] != word):
            firsts.append(place)
            places.append(encoding.offsets[place])
    if not firsts:
        return [0] * len(sentence.spans)
    path = likeliest(logits[firsts])
    found, at, shown = [], 0, -1
    for start, _ in sentence.spans:
        while at + 1 < len(places) and places[at + 1][0] <= start:
            at += 1
        label = path[at]
        # Two corpus words within one of the tokenizer's: the second goes on where the first began.
        found.append(label + 1 if at == shown and label % 2 == 1 else label)
        shown = at
    return found
