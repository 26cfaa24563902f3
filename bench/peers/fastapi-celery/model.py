"""A model that costs next to nothing: it looks for words."""

POSITIVE = ("喜歡", "好", "正面", "開心", "滿意", "優秀", "good", "great", "love", "happy", "excellent")
NEGATIVE = ("討厭", "壞", "負面", "難過", "失望", "糟糕", "bad", "terrible", "hate", "sad", "awful")
ENTITIES = (("蘋果公司", "ORGANIZATION"), ("台灣", "LOCATION"), ("台北", "LOCATION"), ("張三", "PERSON"))


def analyse(task_type: str, text: str) -> dict:
    return sentiment(text) if task_type == "sentiment_analysis" else entities(text)


def sentiment(text: str) -> dict:
    lower = text.lower()
    good = sum(word in lower for word in POSITIVE)
    bad = sum(word in lower for word in NEGATIVE)
    label = "Positive" if good > bad else "Negative" if good < bad else "Neutral"
    score = 0.5 if good == bad else max(good, bad) / (good + bad + 1)
    return {"sentiment": label, "score": score, "model_info": "keywords v1.0"}


def entities(text: str) -> dict:
    found = [{"text": word, "type": kind} for word, kind in ENTITIES if word in text]
    return {"entities": found, "model_info": "keywords v1.0"}
