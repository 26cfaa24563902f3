"""A linear model over hashed n-grams, as scikit-learn's documentation builds it, behind FastAPI.

Its weights come from the texts of the bench with labels dealt out in turn: what it answers is not asked here, and how long
it takes does not depend on them."""

import os
import pathlib

import numpy as np
from fastapi import FastAPI
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from body import Answer, Question, answer

app = FastAPI()
words = HashingVectorizer(ngram_range=(1, 2), n_features=2**18, alternate_sign=False)
characters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=2**18, alternate_sign=False)
model = make_pipeline(make_union(words, characters), LogisticRegression())
texts = pathlib.Path(os.environ["TEXTS"]).read_text("utf-8").split("\n")
texts = [text for text in texts if text.strip()]
model.fit(texts, np.arange(len(texts)) % 3)


@app.post("/api/infer")
def infer(question: Question) -> Answer:
    return answer(model.predict_proba([question.data.text])[0], "scikit-learn")


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ok"}
