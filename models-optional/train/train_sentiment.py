"""Fine-tunes MiniLM-L6 for Positive / Neutral / Negative and writes `model.pt` into a working folder.

    python train_sentiment.py --data ../../../shared/data --sst2 SST2 --out work/sentiment
"""

import argparse
import collections
import pathlib
import random

import torch
from torch.nn.functional import cross_entropy

import encoder
import sentiment_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--sst2", type=pathlib.Path, required=True, help="SST-2 dev.tsv and test.tsv: what resembles them is not trained on")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    train, _, _ = sentiment_data.load(args.data, args.sst2, args.seed)
    counts = collections.Counter(sentiment_data.LABELS[s.label] for s in train)
    print(f"{len(train)} sentences: {dict(counts)}", flush=True)
    rows = [encoding.ids for encoding in encoder.pretrained_tokenizer().encode_batch([s.text for s in train])]
    labels = torch.tensor([s.label for s in train])
    torch.manual_seed(args.seed)
    model = encoder.SentenceClassifier(encoder.pretrained_encoder(), len(sentiment_data.LABELS))
    first = args.out / "first.pt"
    if first.exists():
        model.load_state_dict(torch.load(first))
    else:
        encoder.fine_tune(model, rows, lambda logits, i: cross_entropy(logits, labels[i]), epochs=1, rate=1.2e-4, seed=args.seed, frozen=2)
        torch.save(model.state_dict(), first)
    # A second, shorter pass: all sentences about films, which say what they think in the most ways, and a few of the others.
    films = sentiment_data.about_films(args.data)
    again = [i for i, s in enumerate(train) if sentiment_data.squeezed(s.text) in films]
    again += random.Random(args.seed).sample(sorted(set(range(len(train))) - set(again)), len(again) // 2)
    print(f"second pass: {len(again)} sentences", flush=True)
    some, wanted = [rows[i] for i in again], labels[again]
    encoder.fine_tune(model, some, lambda logits, i: cross_entropy(logits, wanted[i]), epochs=1, rate=8e-5, seed=args.seed + 1, frozen=2)
    torch.save(model.state_dict(), args.out / "model.pt")


if __name__ == "__main__":
    main()
