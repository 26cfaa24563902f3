"""The int8 model of the optional package in ONNX Runtime behind FastAPI, one text a call."""

import os
import pathlib

import numpy as np
import onnxruntime
from fastapi import FastAPI
from tokenizers import Tokenizer

from body import Answer, Question, answer

folder = pathlib.Path(os.environ["MODEL"])
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(128)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(folder / "model.onnx", options)
app = FastAPI()


@app.post("/api/infer")
def infer(question: Question) -> Answer:
    encoding = tokenizer.encode(question.data.text)
    ids = np.array([encoding.ids], np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    [[logits]] = session.run(None, inputs)
    exponentials = np.exp(logits - logits.max())
    return answer(exponentials / exponentials.sum(), "onnxruntime")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
