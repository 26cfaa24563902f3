"""Gives the uncased MiniLM capitals, and leaves out what English names do without.

Names are capitalised, and the pretrained vocabulary cannot see it. Each piece of the new vocabulary is a pretrained piece
in one of three forms (`paris`, `Paris`, `PARIS`): its vector is the pretrained piece's plus the vector of its form, which
alone is learned. Written out, the result is an ordinary BERT with an ordinary cased WordPiece tokenizer, and costs nothing
when it runs. Pieces of other scripts go; so do rare ones that no training text holds, in forms that none holds.
"""

import collections
import re

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LOWER, TITLE, UPPER = range(3)
LATIN = re.compile(r"(##)?[\x21-\x7e\u00a1-\u024f\u2010-\u2049\u20ac\u2122]+")


def vocabulary(pretrained: Tokenizer, texts: list[str]) -> list[tuple[str, int, int]]:
    """(piece, pretrained id, form) of every piece; a piece's new id is its place."""
    ids = pretrained.get_vocab()
    pretrained.no_truncation()
    used = collections.Counter(i for encoding in pretrained.encode_batch(texts) for i in encoding.ids)
    forms = collections.Counter(re.findall(r"[A-Za-z]+", " ".join(texts)))
    found = [(token, ids[token], LOWER) for token in SPECIAL]
    for token, number in sorted(ids.items(), key=lambda item: item[1]):
        if token.startswith("[") and len(token) > 1 or not LATIN.fullmatch(token):
            continue
        mark, piece = ("##", token[2:]) if token.startswith("##") and len(token) > 2 else ("", token)
        if used[number] >= 2 or number < 12_000 or len(piece) == 1:
            found.append((token, number, LOWER))
        if not piece.isascii() or not piece.isalpha():
            continue
        title, upper = piece.capitalize(), piece.upper()
        if not mark and (number < 16_000 or forms[title]):
            found.append((title, number, TITLE))
        if upper != title or mark:
            if forms[upper] and not mark or mark and (len(piece) == 1 or len(piece) <= 3 and used[number] >= 20):
                found.append((mark + upper, number, UPPER))
    return list({token: (token, number, form) for token, number, form in found}.values())


def tokenizer(pieces: list[tuple[str, int, int]]) -> Tokenizer:
    vocab = {token: number for number, (token, _, _) in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    made.add_special_tokens(list(SPECIAL))
    return made


class FormedEmbedding(nn.Module):
    """A pretrained vector and that of the form; `written_out` is the table they amount to."""

    def __init__(self, pretrained: nn.Embedding, pieces: list[tuple[str, int, int]]):
        super().__init__()
        self.base = nn.Embedding.from_pretrained(pretrained.weight[[number for _, number, _ in pieces]].clone(), freeze=True)
        self.form = nn.Embedding(3, pretrained.embedding_dim)
        nn.init.zeros_(self.form.weight)
        self.register_buffer("forms", torch.tensor([form for _, _, form in pieces]), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.base(ids) + self.form(self.forms[ids])

    def written_out(self) -> nn.Embedding:
        return nn.Embedding.from_pretrained(self.base.weight + self.form.weight[self.forms], freeze=True)
