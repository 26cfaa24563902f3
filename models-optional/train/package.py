"""Makes a package from what `train_sentiment.py` or `train_ner.py` left in a working folder: exports, quantises, asks the
tests, and writes the folder with its `model.toml`.

    python package.py sentiment --data ../../../shared/data --sst2 SST2 --work work/sentiment
    python package.py ner --data ../../../shared/data --work work/ner
"""

import argparse
import hashlib
import json
import pathlib
import random

import numpy as np
import torch
from tokenizers import Tokenizer

import card
import encoder
import export
import judge
import ner_data
import sentiment_data
import smaller

HERE = pathlib.Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("kind", choices=("sentiment", "ner"))
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--sst2", type=pathlib.Path, help="for sentiment: SST-2 dev.tsv and test.tsv, which only judge")
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=HERE.parent, help="models-optional")
    parser.add_argument("--fixtures", type=pathlib.Path, default=HERE.parents[1] / "inference/tests/fixtures")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    (sentiment if args.kind == "sentiment" else ner)(args)


def sentiment(args: argparse.Namespace) -> None:
    train, dev, tests = sentiment_data.load(args.data, args.sst2, args.seed)
    model = encoder.SentenceClassifier(encoder.pretrained_encoder(), len(sentiment_data.LABELS))
    model.load_state_dict(torch.load(args.work / "model.pt"))
    tokenizer = smaller.without_unused(model.encoder, encoder.pretrained_tokenizer(), [s.text for s in train])
    dev = random.Random(args.seed).sample(dev, 1200)
    rows = [encoding.ids for encoding in tokenizer.encode_batch([s.text for s in dev])]
    answers, labels = torch.stack(encoder.predict(model, rows)).numpy(), np.array([s.label for s in dev])
    t = judge.temperature(answers, labels)
    print(f"temperature {t:.2f}")
    with torch.no_grad():
        model.head.weight /= t
        model.head.bias /= t
    folder = args.out / "sentiment_analysis/minilm-en-v1"
    write_model(model, tokenizer, folder, args.work)
    quality = {}
    for name, path in (("f32", args.work / "model.onnx"), ("int8", folder / "model.onnx")):
        session = export.session(path)
        asked = tests if name == "int8" else {"sst2": tests["sst2"]}
        quality[name] = judge.sentiment(lambda texts: np.array(export.logits(session, tokenizer.encode_batch(texts))), asked)
        for title, (metric, value) in quality[name].items():
            print(f"{name}: {title}: {metric} {value:.4f}", flush=True)
    for text in card.NEGATIONS:
        [logits] = export.logits(session, [tokenizer.encode(text)])
        print(f"{text}: {judge.softmax(logits).round(2)}")
    card.write_sentiment(folder, quality, len(train))
    write_expected(args.fixtures / "minilm-sentiment", folder, tokenizer, card.SENTIMENT_TEXTS)


def ner(args: argparse.Namespace) -> None:
    train, _, tests = ner_data.load(args.data, args.seed)
    tokenizer = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    tokenizer.enable_truncation(encoder.MAX_TOKENS)
    bert = encoder.pretrained_encoder()
    bert.embeddings.word_embeddings = torch.nn.Embedding(tokenizer.get_vocab_size(), bert.config.hidden_size)
    model = encoder.TokenClassifier(bert, len(ner_data.LABELS))
    model.load_state_dict(torch.load(args.work / "model.pt"))
    folder = args.out / "named_entity_recognition/minilm-en-v1"
    write_model(model, tokenizer, folder, args.work)
    quality = {}
    for name, path in (("f32", args.work / "model.onnx"), ("int8", folder / "model.onnx")):
        session, quality[name] = export.session(path), {}
        for test, sentences in tests.items():
            encodings = tokenizer.encode_batch([s.text for s in sentences])
            answers = export.logits(session, encodings)
            predicted = [judge.word_labels(*parts) for parts in zip(sentences, encodings, answers)]
            quality[name][test] = ner_data.f1(sentences, predicted)
            for kind, (precision, recall, f1) in quality[name][test].items():
                print(f"{name}: {test}: {kind}: precision {precision:.1f}, recall {recall:.1f}, F1 {f1:.1f}", flush=True)
    card.write_ner(folder, quality, len(train))
    write_expected(args.fixtures / "minilm-ner", folder, tokenizer, card.NER_TEXTS)


def write_model(model: torch.nn.Module, tokenizer: Tokenizer, folder: pathlib.Path, work: pathlib.Path) -> None:
    """f32 into the working folder, int8 and the tokenizer into the package."""
    folder.mkdir(parents=True, exist_ok=True)
    export.to_onnx(model, work / "model.onnx")
    export.to_int8(work / "model.onnx", folder / "model.onnx")
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    tokenizer.enable_truncation(encoder.MAX_TOKENS)
    for path in (work / "model.onnx", folder / "model.onnx", folder / "tokenizer.json"):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


def write_expected(target: pathlib.Path, folder: pathlib.Path, tokenizer: Tokenizer, texts: list[str]) -> None:
    """What ONNX Runtime answers for some texts, each alone: other engines are held against it."""
    target.mkdir(parents=True, exist_ok=True)
    session = export.session(folder / "model.onnx")
    cases = []
    for text in texts:
        encoding = tokenizer.encode(text)
        [answer] = export.logits(session, [encoding])
        offsets = [[len(text[:start].encode()), len(text[:end].encode())] for start, end in encoding.offsets]
        cases.append({"text": text, "ids": encoding.ids, "offsets": offsets, "logits": np.float64(answer).round(6).tolist()})
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    document = {"model_sha256": digest, "max_tokens": encoder.MAX_TOKENS, "output": "logits", "cases": cases}
    text = json.dumps(document, ensure_ascii=False).replace('{"text"', '\n{"text"')
    (target / "expected.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
