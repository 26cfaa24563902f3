//! Whether two results say the same: what a shadow is judged by. Pure.

use std::collections::BTreeMap;

use serde_json::Value;

/// Numbers may differ by this much: engines add up in different order.
const TOLERANCE: f64 = 1e-3;
/// Who answered is no part of what was said.
const ABOUT_THE_MODEL: [&str; 1] = ["model_info"];

/// Compares two result documents (JSON text). Of results with entities, all entities count, by text and type; of results
/// that name one of `labels`, the label that stands in the same member; of others, the whole document.
#[must_use]
pub fn agree(labels: &[String], answer: &str, shadow: &str) -> bool {
    let (Ok(answer), Ok(shadow)) = (serde_json::from_str::<Value>(answer), serde_json::from_str::<Value>(shadow))
    else {
        return answer == shadow;
    };
    if let (Some(answer), Some(shadow)) = (entities(&answer), entities(&shadow)) {
        return answer == shadow;
    }
    match top_label(labels, &answer) {
        Some((member, label)) => shadow.get(member).and_then(Value::as_str) == Some(label),
        None => alike(&answer, &shadow),
    }
}

/// How often each entity was found.
fn entities(result: &Value) -> Option<BTreeMap<(&str, &str), usize>> {
    let mut found = BTreeMap::new();
    for entity in result.get("entities")?.as_array()? {
        let word = |member| entity.get(member).and_then(Value::as_str).unwrap_or_default();
        *found.entry((word("text"), word("type"))).or_default() += 1;
    }
    Some(found)
}

/// The member that holds the label, and the label: `label`, else the first that holds one of `labels`.
fn top_label<'a>(labels: &[String], result: &'a Value) -> Option<(&'a str, &'a str)> {
    let members = result.as_object()?;
    let label = |(name, value): (&'a String, &'a Value)| Some((name.as_str(), value.as_str()?));
    members
        .get_key_value("label")
        .and_then(label)
        .or_else(|| members.iter().filter_map(label).find(|(_, value)| labels.iter().any(|label| label == value)))
}

fn alike(answer: &Value, shadow: &Value) -> bool {
    match (answer, shadow) {
        (Value::Number(answer), Value::Number(shadow)) => match (answer.as_f64(), shadow.as_f64()) {
            (Some(answer), Some(shadow)) => (answer - shadow).abs() <= TOLERANCE,
            _ => answer == shadow,
        },
        (Value::Array(answer), Value::Array(shadow)) => {
            answer.len() == shadow.len() && answer.iter().zip(shadow).all(|(answer, shadow)| alike(answer, shadow))
        }
        (Value::Object(answer), Value::Object(shadow)) => {
            let said = |name: &&String| !ABOUT_THE_MODEL.contains(&name.as_str());
            let count = |members: &serde_json::Map<String, Value>| members.keys().filter(said).count();
            count(answer) == count(shadow)
                && answer
                    .iter()
                    .filter(|(name, _)| said(name))
                    .all(|(name, value)| shadow.get(name).is_some_and(|other| alike(value, other)))
        }
        _ => answer == shadow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_agree_when_they_say_the_same_whatever_their_figures_are() {
        let labels = ["Positive", "Negative"].map(str::to_owned);
        let named = |text: &str, kind: &str| format!(r#"{{"text":"{text}","type":"{kind}","score":0.5}}"#);
        let (a, b) = (named("台灣", "LOCATION"), named("張三", "PERSON"));
        for (answer, shadow, same) in [
            (r#"{"sentiment":"Positive","score":0.9}"#, r#"{"sentiment":"Positive","score":0.6}"#, true),
            (r#"{"sentiment":"Positive"}"#, r#"{"sentiment":"Negative"}"#, false),
            (r#"{"sentiment":"Positive"}"#, r#"{"label":"Positive"}"#, false),
            (r#"{"label":"refund","score":1}"#, r#"{"label":"refund","score":0.4}"#, true),
            (&format!(r#"{{"entities":[{a},{b}]}}"#), &format!(r#"{{"entities":[{b},{a}]}}"#), true),
            (&format!(r#"{{"entities":[{a},{a}]}}"#), &format!(r#"{{"entities":[{a}]}}"#), false),
            (r#"{"entities":[]}"#, r#"{"entities":[],"model_info":"x"}"#, true),
            (r#"{"rows":[1,2.0001],"model_info":"x"}"#, r#"{"model_info":"y","rows":[1,2]}"#, true),
            (r#"{"rows":[1,2.1]}"#, r#"{"rows":[1,2]}"#, false),
            (r#"{"rows":[1]}"#, r#"{"rows":[1],"more":1}"#, false),
            ("no json", "no json", true),
            ("no json", "{}", false),
        ] {
            assert_eq!(agree(&labels, answer, shadow), same, "{answer} {shadow}");
            assert_eq!(agree(&labels, shadow, answer), same, "{shadow} {answer}");
        }
    }
}
