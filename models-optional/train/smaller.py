"""Leaves out of a vocabulary what English text does not need: half of a small model is its table of pieces."""

import collections
import json

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import BertModel

from cased import LATIN

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
# The pretrained vocabulary is sorted by how common a piece is.
COMMON = 16_000


def without_unused(bert: BertModel, tokenizer: Tokenizer, texts: list[str], common: int = COMMON) -> Tokenizer:
    """Drops pieces of other scripts, and rare ones that no training text holds; a word that loses its piece is read as
    smaller ones. Changes `bert`'s table and returns the tokenizer that fits it."""
    tokenizer.no_truncation()
    used = collections.Counter(i for encoding in tokenizer.encode_batch(texts) for i in encoding.ids)
    kept = []
    for piece, number in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        letters = piece.removeprefix("##") if len(piece) > 2 else piece
        wanted = LATIN.fullmatch(piece) and not piece.startswith("[unused") and (number < common or used[number] or len(letters) == 1)
        if piece in SPECIAL or wanted and piece != "[MASK]":
            kept.append((piece, number))
    kept.sort(key=lambda item: (item[0] not in SPECIAL, item[1]))
    described = json.loads(tokenizer.to_str())
    described["model"]["vocab"] = {piece: place for place, (piece, _) in enumerate(kept)}
    described["added_tokens"] = [
        {**token, "id": place} for place, (piece, _) in enumerate(kept) for token in described["added_tokens"] if token["content"] == piece
    ]
    for token in described["post_processor"].get("special_tokens", {}).values():
        token["ids"] = [described["model"]["vocab"][text] for text in token["tokens"]]
    for key in ("sep", "cls"):
        if key in described["post_processor"]:
            described["post_processor"][key][1] = described["model"]["vocab"][described["post_processor"][key][0]]
    weights = bert.embeddings.word_embeddings.weight.detach()
    bert.embeddings.word_embeddings = nn.Embedding.from_pretrained(weights[[number for _, number in kept]].clone(), freeze=True)
    print(f"{len(kept)} of {tokenizer.get_vocab_size()} pieces kept", flush=True)
    made = Tokenizer.from_str(json.dumps(described))
    made.enable_truncation(128)
    return made
