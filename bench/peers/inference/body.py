"""What every peer takes and answers: the same documents as InsightForge's `POST /api/infer`."""

from pydantic import BaseModel

LABELS = ("Negative", "Neutral", "Positive")


class Data(BaseModel):
    text: str


class Question(BaseModel):
    task_type: str
    model_version: str = "stable"
    data: Data


class Answer(BaseModel):
    sentiment: str
    score: float
    model_info: str


def answer(probabilities, model_info: str) -> Answer:
    best = int(probabilities.argmax())
    return Answer(sentiment=LABELS[best], score=float(probabilities[best]), model_info=model_info)
