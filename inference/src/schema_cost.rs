//! How much work a JSON Schema can ask of whoever checks one value against it. References that fan out
//! (`{"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}`, level after level) double it with every level, in a schema
//! of two kilobytes.

use std::collections::HashMap;

use serde_json::Value;

/// Subschemas that one value may be checked against, references followed.
const MOST: u64 = 20_000;
/// References within references.
const DEEPEST: usize = 200;

/// Whether the schema asks for no more than that.
///
/// # Errors
/// Why not, for people.
pub(crate) fn bounded(schema: &Value) -> Result<(), String> {
    let mut count = Count { root: schema, known: HashMap::new(), depth: 0, elsewhere: false };
    let cost = count.of(schema);
    if count.elsewhere {
        return Err("only references of the form #/… are followed".to_owned());
    }
    if cost > MOST {
        return Err(format!("its references fan out to more than {MOST} checks of one value"));
    }
    Ok(())
}

struct Count<'s> {
    root: &'s Value,
    /// The cost behind a reference; `None` while it is being found out: a circle goes on only with the document.
    known: HashMap<&'s str, Option<u64>>,
    depth: usize,
    /// There is a reference to what is not found by its place here.
    elsewhere: bool,
}

impl<'s> Count<'s> {
    fn of(&mut self, schema: &'s Value) -> u64 {
        match schema {
            Value::Object(members) => {
                let behind = ["$ref", "$dynamicRef"].iter().filter_map(|name| members.get(*name)?.as_str());
                let behind: Vec<&str> = behind.collect();
                let behind =
                    behind.into_iter().fold(0_u64, |sum, reference| sum.saturating_add(self.behind(reference)));
                // Definitions cost where they are referred to.
                let rest = members.iter().filter(|(name, _)| !matches!(name.as_str(), "$defs" | "definitions"));
                rest.fold(behind.saturating_add(1), |sum, (_, value)| sum.saturating_add(self.of(value)))
            }
            Value::Array(values) => values.iter().fold(0, |sum, value| sum.saturating_add(self.of(value))),
            _ => 0,
        }
    }

    fn behind(&mut self, reference: &'s str) -> u64 {
        if let Some(known) = self.known.get(reference) {
            return known.unwrap_or(1);
        }
        let Some(target) = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(&decoded(pointer))) else {
            self.elsewhere = true;
            return 1;
        };
        if self.depth == DEEPEST {
            return MOST + 1;
        }
        self.known.insert(reference, None);
        self.depth += 1;
        let cost = self.of(target);
        self.depth -= 1;
        self.known.insert(reference, Some(cost));
        cost
    }
}

/// A fragment's percent signs, as far as names of definitions need them (RFC 6901 §6).
fn decoded(pointer: &str) -> String {
    pointer.replace("%24", "$").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn doubling(levels: usize) -> Value {
        let mut definitions = serde_json::Map::new();
        for level in 0..levels {
            let next = json!({ "$ref": format!("#/$defs/d{}", level + 1) });
            definitions.insert(format!("d{level}"), json!({ "allOf": [next, next] }));
        }
        definitions.insert(format!("d{levels}"), json!({ "type": "object" }));
        json!({ "$ref": "#/$defs/d0", "$defs": definitions })
    }

    #[test]
    fn references_that_double_the_work_level_by_level_are_refused_and_usual_schemas_are_not() {
        assert!(bounded(&doubling(32)).unwrap_err().contains("fan out"));
        assert!(bounded(&doubling(300)).is_err());
        assert!(
            bounded(&json!({ "$ref": "#here", "$defs": { "a": { "$anchor": "here" } } })).unwrap_err().contains("#/")
        );
        assert_eq!(bounded(&doubling(8)), Ok(()));
        for usual in [
            json!(true),
            json!({ "type": "object", "properties": { "text": { "type": "string", "maxLength": 9 } } }),
            json!({ "$ref": "#" }),
            json!({ "$defs": { "tree": { "type": "object", "properties": { "l": { "$ref": "#/$defs/tree" }, "r": { "$ref": "#/$defs/tree" } } } },
                "$ref": "#/$defs/tree" }),
        ] {
            assert_eq!(bounded(&usual), Ok(()), "{usual}");
        }
    }
}
