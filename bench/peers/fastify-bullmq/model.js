// A model that costs next to nothing: it looks for words.

const POSITIVE = ["喜歡", "好", "正面", "開心", "滿意", "優秀", "good", "great", "love", "happy", "excellent"];
const NEGATIVE = ["討厭", "壞", "負面", "難過", "失望", "糟糕", "bad", "terrible", "hate", "sad", "awful"];
const ENTITIES = [
  ["蘋果公司", "ORGANIZATION"],
  ["台灣", "LOCATION"],
  ["台北", "LOCATION"],
  ["張三", "PERSON"],
];

export function analyse(type, text) {
  return type === "sentiment_analysis" ? sentiment(text) : entities(text);
}

function sentiment(text) {
  const lower = text.toLowerCase();
  const count = (words) => words.reduce((sum, word) => sum + (lower.includes(word) ? 1 : 0), 0);
  const [good, bad] = [count(POSITIVE), count(NEGATIVE)];
  const label = good > bad ? "Positive" : good < bad ? "Negative" : "Neutral";
  const score = good === bad ? 0.5 : Math.max(good, bad) / (good + bad + 1);
  return { sentiment: label, score, model_info: "keywords v1.0" };
}

function entities(text) {
  const found = ENTITIES.filter(([word]) => text.includes(word)).map(([word, type]) => ({ text: word, type }));
  return { entities: found, model_info: "keywords v1.0" };
}
