"""Fine-tunes MiniLM-L6 to find persons, locations and organisations and writes `model.pt` and `tokenizer.json`.

    python train_ner.py --data ../../../shared/data --out work/ner
"""

import argparse
import pathlib

import torch
from torch.nn.functional import cross_entropy

import cased
import encoder
import ner_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    train, _, _ = ner_data.load(args.data, args.seed)
    pieces = cased.vocabulary(encoder.pretrained_tokenizer(), [s.text for s in train])
    tokenizer = cased.tokenizer(pieces)
    tokenizer.save(str(args.out / "tokenizer.json"))
    print(f"{len(train)} sentences, {len(pieces)} pieces", flush=True)
    tokenizer.enable_truncation(encoder.MAX_TOKENS)
    encodings = tokenizer.encode_batch([s.text for s in train])
    rows = [encoding.ids for encoding in encodings]
    targets = [token_labels(sentence, encoding) for sentence, encoding in zip(train, encodings)]

    torch.manual_seed(args.seed)
    bert = encoder.pretrained_encoder()
    embedding = cased.FormedEmbedding(bert.embeddings.word_embeddings, pieces)
    bert.embeddings.word_embeddings = embedding
    model = encoder.TokenClassifier(bert, len(ner_data.LABELS))

    def loss_of(logits: torch.Tensor, indices: list[int]) -> torch.Tensor:
        wanted = encoder.padded([targets[i] for i in indices], fill=-100)
        return cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)

    trained = [embedding.form]
    encoder.fine_tune(model, rows, loss_of, epochs=1, rate=1e-4, seed=args.seed, frozen=0, also=trained, size=16)
    bert.embeddings.word_embeddings = embedding.written_out()
    torch.save(model.state_dict(), args.out / "model.pt")


def token_labels(sentence: ner_data.Sentence, encoding) -> list[int]:
    """Every piece has its word's label, as I where it does not begin the word; special tokens have none (-100)."""
    places, word = [], 0
    for start, end in encoding.offsets:
        if start == end:
            places.append(-100)
            continue
        while sentence.spans[word][1] <= start:
            word += 1
        label = sentence.labels[word]
        inside = label % 2 == 1 and start > sentence.spans[word][0]
        places.append(label + 1 if inside else label)
    return places


if __name__ == "__main__":
    main()
