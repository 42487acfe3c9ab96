//! What the schema says of bounds is what the loader holds to: at a bound an option loads, one beyond it does not.

use std::collections::BTreeSet;

use edgeweir_filter::{load, schema};
use edgeweir_ratelimit::RateLimit;
use serde_json::{Value, json};

/// Every option with a bound, as it loads whatever bound another of them is at. A `#` is where a text is stretched, and what
/// tells the entries of a list apart.
fn examples() -> Vec<Value> {
    let limit = json!({ "rate": "1000000000/second" });
    let burst = json!({ "rate": "1000000000/second", "burst": 1_000_000_000 });
    let said = |by: &str| json!({ by: "x-#", "default": 1, "most": 1_000_000_000 });
    let costs = [
        (json!(1), burst),
        (said("request"), limit.clone()),
        (said("response"), limit),
    ];
    let rules = costs.map(|(cost, limit)| {
        json!({
            "name": "r#", "paths": ["/{a#}/{#}"], "methods": ["M#"], "clients": ["192.0.2.1"],
            "when": [{ "by": { "header": "h#" }, "is": ["v#"] }],
            "key": [{ "header": "x-#" }], "limits": [limit], "cost": cost,
            "tiers": { "by": { "header": "plan#" }, "limits": { "t#": [limit] } },
            "concurrency": 5, "emergency": [9, 9, 9],
            "adaptive": { "latency_ms": 5, "floor": 1, "ceiling": 1_000_000 },
        })
    });
    let whole = |rule: Value| {
        json!({
            "rules": [rule], "groups": { "g#": ["192.0.2.0/24"] }, "trusted_hops": 1, "ipv6_prefix": 64, "status": 429,
            "closed_status": 503, "body": "#",
            "store": { "to": "s#", "path": "/#/", "token": "t#", "timeout_ms": 5 },
        })
    };
    // Each part, wherever one may be; of segments there is a path with all that are asked for.
    let names = (0..65).map(|number| format!("{{a{number}}}"));
    let names = names.collect::<Vec<_>>().join("/");
    let path = format!("/{{a}}/{names}/{{{}}}", "a".repeat(64));
    let parts = ["header", "cookie", "query", "claim", "segment"].map(|kind| {
        let part = json!({ kind: "a#" });
        let tiers = json!({ "by": part, "limits": { "t#": [{ "rate": "1/second" }] } });
        json!({ "rules": [{ "name": "r#", "paths": [path], "key": [part], "when": [{ "by": part }], "tiers": tiers }] })
    });
    rules.map(whole).into_iter().chain(parts).collect()
}

fn error(config: &Value) -> Option<String> {
    let loaded = load::<RateLimit>(plain(config, 0).to_string().as_bytes());
    loaded.err().map(|error| error.to_string())
}

/// Without its `#`: each is this number.
fn plain(value: &Value, number: usize) -> Value {
    let text = value.to_string().replace('#', &number.to_string());
    serde_json::from_str(&text).expect("still JSON")
}

/// A text of so many characters.
fn stretched(text: &str, length: usize) -> String {
    let fixed = text.replacen('#', "", 1);
    match length.checked_sub(fixed.len()) {
        Some(more) => text.replacen('#', &"a".repeat(more), 1),
        None => fixed[..length].to_owned(),
    }
}

/// The value as it is at a bound.
fn at(value: &Value, kind: &str, bound: usize) -> Value {
    let kinds = ["imum", "Items", "Properties", "Length"];
    let kind = kinds.into_iter().find(|known| kind.ends_with(known));
    match (kind, value) {
        (Some("imum"), _) => json!(bound),
        (Some("Items"), Value::Array(items)) => {
            (0..bound).map(|number| plain(&items[0], number)).collect()
        }
        (Some("Properties"), Value::Object(members)) => {
            let (name, value) = members.iter().next().expect("a member");
            let named = |number: usize| (name.replace('#', &number.to_string()), value.clone());
            Value::Object((0..bound).map(named).collect())
        }
        (Some("Length"), Value::String(text)) => json!(stretched(text, bound)),
        (kind, value) => panic!("{kind:?} of {value}"),
    }
}

/// A bound of the schema's, where it stands in a configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Bound {
    /// A member by its name, `[]` for all entries of a list, `{}` for all members of an object.
    path: Vec<String>,
    keyword: String,
    bound: usize,
}

struct Walk {
    root: Value,
    bounds: BTreeSet<Bound>,
    /// Options that should have a bound, and have none.
    without: Vec<String>,
}

impl Walk {
    fn schema(&mut self, schema: &Value, path: &[String]) {
        let below = |step: &str| [path, &[step.to_owned()]].concat();
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self
                .root
                .pointer(&reference[1..])
                .expect("a reference")
                .clone();
            self.schema(&target, path);
        }
        for branch in ["anyOf", "oneOf"]
            .iter()
            .filter_map(|name| schema[name].as_array())
            .flatten()
        {
            self.schema(branch, path);
        }
        let is = |kind: &str| match &schema["type"] {
            Value::Array(kinds) => kinds.iter().any(|it| it == kind),
            one => one == kind,
        };
        let items = ["minItems", "maxItems"];
        let members = ["minProperties", "maxProperties"];
        // A list may be empty, and 0 is the least that a number without a sign can be.
        for (is_one, keywords) in [
            (is("integer"), ["minimum", "maximum"]),
            (
                is("array")
                    && (schema["maxItems"].is_null() || schema["minItems"] != schema["maxItems"]),
                items,
            ),
            (schema["additionalProperties"].is_object(), members),
            (is("string"), ["minLength", "maxLength"]),
        ] {
            for keyword in keywords {
                let bound = schema[keyword].as_u64().filter(|_| is_one);
                if let Some(bound) = bound {
                    let (path, keyword) = (path.to_vec(), keyword.to_owned());
                    let bound = usize::try_from(bound).expect("small");
                    self.bounds.insert(Bound {
                        path,
                        keyword,
                        bound,
                    });
                } else if is_one && keyword.starts_with("max") && keyword != "maxLength" {
                    self.without.push(path.join("."));
                }
            }
        }
        if schema["items"].is_object() {
            self.schema(&schema["items"], &below("[]"));
        }
        if schema["additionalProperties"].is_object() {
            self.schema(&schema["additionalProperties"], &below("{}"));
        }
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            self.schema(member, &below(name));
        }
    }
}

/// Changes the values at a path; whether there are any that such a bound can be of.
fn change(value: &mut Value, path: &[String], bound: &Bound, to: usize) -> bool {
    let Some((step, rest)) = path.split_first() else {
        let fits = match bound.keyword.split_at(3).1 {
            "imum" => value.is_number(),
            "Items" => value.is_array(),
            "Properties" => value.is_object(),
            _ => value.is_string(),
        };
        if fits {
            *value = at(value, &bound.keyword, to);
        }
        return fits;
    };
    let each: Vec<&mut Value> = match (step.as_str(), value) {
        ("[]", Value::Array(items)) => items.iter_mut().collect(),
        ("{}", Value::Object(members)) => members.values_mut().collect(),
        (name, Value::Object(members)) => members.get_mut(name).into_iter().collect(),
        _ => Vec::new(),
    };
    // All of them, not those up to the first.
    let mut changed = false;
    for value in each {
        changed |= change(value, rest, bound, to);
    }
    changed
}

#[test]
fn the_schema_has_the_bounds_that_the_loader_holds_to() {
    let root = schema::<RateLimit>();
    let mut walk = Walk {
        root: root.clone(),
        bounds: BTreeSet::new(),
        without: Vec::new(),
    };
    walk.schema(&root, &[]);
    assert!(walk.without.is_empty(), "no bound: {:?}", walk.without);
    assert!(walk.bounds.len() > 60, "{}", walk.bounds.len());
    let examples = examples();
    for example in &examples {
        assert_eq!(error(example), None, "{example}");
    }
    for bound in &walk.bounds {
        let is_least = bound.keyword.starts_with("min");
        let beyond = match is_least {
            true => bound.bound.checked_sub(1),
            false => Some(bound.bound + 1),
        };
        let mut tried = 0;
        for example in &examples {
            let loads = |to: usize| {
                let mut config = example.clone();
                change(&mut config, &bound.path, bound, to).then(|| (error(&config), config))
            };
            let Some((told, config)) = loads(bound.bound) else {
                continue;
            };
            tried += 1;
            assert_eq!(told, None, "{bound:?}: {config}");
            if let Some((told, _)) = beyond.and_then(loads) {
                assert!(told.is_some(), "{bound:?}: one beyond it loads");
            }
        }
        assert!(tried > 0, "{bound:?}: no example has it");
    }
}
