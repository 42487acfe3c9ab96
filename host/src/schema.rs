//! A filter's configuration against the JSON Schema its file carries.
//!
//! The host looks before the filter does: what it finds has a field and a bound, and needs no instance. Only what every
//! JSON Schema means alike is checked (types, fields, choices, bounds); the rest is left to the filter.

use serde_json::Value;

/// Schemas nested deeper than this are taken on trust.
const DEPTH: usize = 64;

/// What is wrong with a value: the path of the field (`rules[0].rate`, empty for the whole), and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// The path of the field.
    pub field: String,
    /// What is wrong, with the value and what would be right.
    pub message: String,
}

/// Checks a value; the first mismatch is the answer.
pub fn check(schema: &Value, value: &Value) -> Result<(), Mismatch> {
    Checker { root: schema }.check(schema, value, "", DEPTH)
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn check(
        &self,
        schema: &Value,
        value: &Value,
        field: &str,
        depth: usize,
    ) -> Result<(), Mismatch> {
        let Some(deeper) = depth.checked_sub(1) else {
            return Ok(());
        };
        let fail = |message: String| {
            Err(Mismatch {
                field: field.to_owned(),
                message,
            })
        };
        if let Some(reference) = schema["$ref"].as_str() {
            let target = reference
                .strip_prefix('#')
                .and_then(|at| self.root.pointer(at));
            if let Some(target) = target {
                self.check(target, value, field, deeper)?;
            }
        }
        if let Some(expected) = expected_types(&schema["type"])
            && !expected.iter().any(|kind| is_a(value, kind))
        {
            return fail(format!(
                "{} is not of type {}",
                shown(value),
                expected.join(" or ")
            ));
        }
        if let Some(choices) = schema["enum"].as_array()
            && !choices.contains(value)
        {
            let choices: Vec<String> = choices.iter().map(shown).collect();
            return fail(format!(
                "{} is none of {}",
                shown(value),
                choices.join(", ")
            ));
        }
        if let Some(constant) = schema.get("const")
            && constant != value
        {
            return fail(format!("{} is not {}", shown(value), shown(constant)));
        }
        if let Some(number) = value.as_f64() {
            let least = schema["minimum"]
                .as_f64()
                .is_some_and(|least| number < least);
            let most = schema["maximum"].as_f64().is_some_and(|most| number > most);
            if least || most {
                let (least, most) = (&schema["minimum"], &schema["maximum"]);
                return fail(match (least.is_null(), most.is_null()) {
                    (false, false) => format!("{value} is out of bounds: from {least} to {most}"),
                    (false, true) => format!("{value} is out of bounds: at least {least}"),
                    _ => format!("{value} is out of bounds: at most {most}"),
                });
            }
        }
        if let Some(message) = out_of_bounds(schema, value) {
            return fail(message);
        }
        self.check_members(schema, value, field, deeper)?;
        for keyword in ["anyOf", "oneOf"] {
            let Some(branches) = schema[keyword].as_array() else {
                continue;
            };
            let mut mismatches: Vec<Mismatch> = Vec::new();
            for branch in branches {
                match self.check(branch, value, field, deeper) {
                    Ok(()) => return Ok(()),
                    Err(mismatch) => mismatches.push(mismatch),
                }
            }
            // The branch that got furthest is the one that was meant.
            let best = mismatches
                .iter()
                .max_by_key(|mismatch| mismatch.field.len());
            if let Some(best) = best.filter(|best| best.field.len() > field.len()) {
                return Err(best.clone());
            }
            let reasons: Vec<_> = mismatches.iter().map(|it| it.message.as_str()).collect();
            return fail(reasons.join("; "));
        }
        Ok(())
    }

    fn check_members(
        &self,
        schema: &Value,
        value: &Value,
        field: &str,
        depth: usize,
    ) -> Result<(), Mismatch> {
        if let Some(items) = value.as_array() {
            for (index, item) in items.iter().enumerate() {
                if schema["items"].is_object() {
                    self.check(&schema["items"], item, &format!("{field}[{index}]"), depth)?;
                }
            }
        }
        let Some(members) = value.as_object() else {
            return Ok(());
        };
        for (name, member) in members {
            let path = if field.is_empty() {
                name.clone()
            } else {
                format!("{field}.{name}")
            };
            if let Some(known) = schema["properties"].get(name) {
                self.check(known, member, &path, depth)?;
            } else if schema["additionalProperties"] == false {
                let known = schema["properties"].as_object();
                let names: Vec<_> = known
                    .into_iter()
                    .flat_map(|it| it.keys())
                    .map(|it| format!("`{it}`"))
                    .collect();
                return Err(Mismatch {
                    field: path,
                    message: format!(
                        "unknown field `{name}`, expected one of {}",
                        names.join(", ")
                    ),
                });
            } else if schema["additionalProperties"].is_object() {
                self.check(&schema["additionalProperties"], member, &path, depth)?;
            }
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            if let Some(name) = required.as_str()
                && !members.contains_key(name)
            {
                return Err(Mismatch {
                    field: field.to_owned(),
                    message: format!("missing field `{name}`"),
                });
            }
        }
        Ok(())
    }
}

/// What is wrong with how many entries, members or characters there are. A filter may count bytes where a schema counts
/// characters: a text is refused only where it is too short or too long either way.
fn out_of_bounds(schema: &Value, value: &Value) -> Option<String> {
    let (least, most, few, many, what) = match value {
        Value::Array(items) => ("minItems", "maxItems", items.len(), items.len(), "entries"),
        Value::Object(members) => {
            let count = members.len();
            ("minProperties", "maxProperties", count, count, "members")
        }
        Value::String(text) => {
            let characters = text.chars().count();
            (
                "minLength",
                "maxLength",
                text.len(),
                characters,
                "characters",
            )
        }
        _ => return None,
    };
    let bound = |keyword: &str| schema[keyword].as_u64();
    let beyond = |bound: u64, count: usize| bound.cmp(&u64::try_from(count).unwrap_or(u64::MAX));
    let (least, most) = (bound(least), bound(most));
    let is_less = least.is_some_and(|least| beyond(least, few).is_gt());
    let is_more = most.is_some_and(|most| beyond(most, many).is_lt());
    if !is_less && !is_more {
        return None;
    }
    let bounds = match (least, most) {
        (Some(least), Some(most)) => format!("from {least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, most) => format!("at most {}", most.unwrap_or(0)),
    };
    Some(format!("{many} {what} are out of bounds: {bounds}"))
}

fn expected_types(types: &Value) -> Option<Vec<&str>> {
    match types {
        Value::String(one) => Some(vec![one]),
        Value::Array(several) => Some(several.iter().filter_map(Value::as_str).collect()),
        _ => None,
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    }
}

/// A value as an error shows it: JSON, not too long.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 {
        text.chars().take(57).chain("...".chars()).collect()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_found_and_named() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "status": { "type": "integer", "minimum": 400, "maximum": 599 },
                "body": { "type": ["string", "null"] },
                "rules": { "type": "array", "maxItems": 2, "items": { "$ref": "#/$defs/Rule" } },
                "groups": { "type": "object", "minProperties": 1, "maxProperties": 2,
                    "additionalProperties": { "type": "array", "minItems": 1 } },
                "secret": { "type": "string", "minLength": 4, "maxLength": 8 },
            },
            "$defs": { "Rule": {
                "type": "object",
                "additionalProperties": false,
                "required": ["rate"],
                "properties": {
                    "rate": { "anyOf": [{ "type": "integer" }, { "$ref": "#/$defs/Text" }] },
                    "mode": { "oneOf": [{ "const": "open" }, { "const": "closed" }] },
                },
            }, "Text": { "type": "string" } },
        });
        for (case, value, want) in [
            ("nothing", json!({}), None),
            (
                "all",
                json!({"status": 429, "body": null, "rules": [{"rate": "1/s", "mode": "open"}]}),
                None,
            ),
            (
                "unknown",
                json!({"stats": 1}),
                Some((
                    "stats",
                    "expected one of `body`, `groups`, `rules`, `secret`, `status`",
                )),
            ),
            (
                "type",
                json!({"body": 3}),
                Some(("body", "3 is not of type string or null")),
            ),
            (
                "bound",
                json!({"status": 200}),
                Some(("status", "200 is out of bounds: from 400 to 599")),
            ),
            (
                "most entries",
                json!({"rules": [{"rate": 1}, {"rate": 1}], "groups": {"a": [1], "b": [1]}}),
                None,
            ),
            (
                "too many",
                json!({"rules": [{"rate": 1}, {"rate": 1}, {"rate": 1}]}),
                Some(("rules", "3 entries are out of bounds: at most 2")),
            ),
            (
                "no member",
                json!({"groups": {}}),
                Some(("groups", "0 members are out of bounds: from 1 to 2")),
            ),
            (
                "too many members",
                json!({"groups": {"a": [1], "b": [1], "c": [1]}}),
                Some(("groups", "3 members are out of bounds: from 1 to 2")),
            ),
            (
                "no entry",
                json!({"groups": {"a": []}}),
                Some(("groups.a", "0 entries are out of bounds: at least 1")),
            ),
            (
                "too short",
                json!({"secret": "abc"}),
                Some(("secret", "3 characters are out of bounds: from 4 to 8")),
            ),
            (
                "too long",
                json!({"secret": "abcdefghi"}),
                Some(("secret", "9 characters are out of bounds: from 4 to 8")),
            ),
            ("long enough in bytes", json!({"secret": "éé"}), None),
            (
                "short enough in characters",
                json!({"secret": "éééééééé"}),
                None,
            ),
            (
                "nested",
                json!({"rules": [{"rate": 1}, {"rat": 1}]}),
                Some(("rules[1].rat", "unknown field `rat`")),
            ),
            (
                "missing",
                json!({"rules": [{}]}),
                Some(("rules[0]", "missing field `rate`")),
            ),
            (
                "branches",
                json!({"rules": [{"rate": []}]}),
                Some(("rules[0].rate", "[] is not of type integer; [] is not")),
            ),
            (
                "choice",
                json!({"rules": [{"rate": 1, "mode": "x"}]}),
                Some(("rules[0].mode", "\"x\" is not \"open\"")),
            ),
        ] {
            match (check(&schema, &value), want) {
                (Ok(()), None) => {}
                (Err(got), Some((field, message))) => {
                    assert_eq!(got.field, field, "{case}");
                    assert!(got.message.contains(message), "{case}: {}", got.message);
                }
                (got, want) => panic!("{case}: {got:?}, not {want:?}"),
            }
        }
    }
}
