//! Options of rules, one by one: each is refused by its field, its value and what is expected.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use edgeweir_filter::ConfigError;

use crate::address::Block;
use crate::concurrency::Adaptive;
use crate::config::{Action, Condition, Follow, Rule};
use crate::part::Part;
use crate::path::Pattern;
use crate::rules::Clients;
use crate::token;

/// The field and the reason.
pub type Refused = (String, String);

/// Whether it can be the name of a rule, a tier or a group.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// Why it can't.
pub fn not_a_name(name: &str) -> String {
    format!("{name:?} must be 1 to 64 letters, digits, '-', '_' or '.'")
}

/// Whether two names are one where Envoy writes counters for Prometheus, whose names have letters, digits, `_` and `:` alone.
pub fn alike(one: &str, other: &str) -> bool {
    let plain = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => byte,
        false => b'_',
    };
    one.bytes().map(plain).eq(other.bytes().map(plain))
}

/// Refuses more than `most` entries.
pub fn at_most(field: &str, count: usize, most: usize) -> Result<(), Refused> {
    if count > most {
        let message = format!("{count} entries is out of bounds: at most {most}");
        return Err((field.to_owned(), message));
    }
    Ok(())
}

/// Paths that requests can have.
pub fn patterns(paths: &[String]) -> Result<Vec<Pattern>, Refused> {
    at_most("paths", paths.len(), 64)?;
    let parse = |(at, path): (usize, &String)| {
        Pattern::parse(path).map_err(|message| (format!("paths[{at}]"), message))
    };
    paths.iter().enumerate().map(parse).collect()
}

/// Methods that requests can have.
pub fn methods(methods: &[String]) -> Result<(), Refused> {
    at_most("methods", methods.len(), 64)?;
    for (at, method) in methods.iter().enumerate() {
        token::method(method).map_err(|message| (format!("methods[{at}]"), message))?;
    }
    Ok(())
}

/// Blocks and names of groups.
pub fn clients(all: &[String], groups: &[String]) -> Result<Vec<Clients>, Refused> {
    at_most("clients", all.len(), 1_024)?;
    let parse = |text: &String| match groups.iter().position(|name| name == text) {
        Some(at) => Ok(Clients::Group(at)),
        None => Block::parse(text).map(Clients::Block).map_err(|message| {
            (
                "clients".to_owned(),
                format!("{message}, or a name of `groups`"),
            )
        }),
    };
    all.iter().map(parse).collect()
}

/// Conditions that can hold, their values as requests have them.
pub fn conditions(
    when: Vec<Condition>,
    paths: &[Pattern],
    groups: &[String],
) -> Result<Vec<Condition>, Refused> {
    at_most("when", when.len(), 16)?;
    let mut ready = Vec::with_capacity(when.len());
    for (at, condition) in when.into_iter().enumerate() {
        let by = || format!("when[{at}].by");
        at_most(&format!("when[{at}].is"), condition.is.len(), 256)?;
        let checked = condition.by.check(paths, !groups.is_empty());
        checked.map_err(|message| (by(), message))?;
        if condition.by.is_of_address() {
            return Err((by(), "an address is a matter of `clients`".to_owned()));
        }
        if condition.by == Part::Template {
            return Err((by(), "a template is a matter of `paths`".to_owned()));
        }
        let part = condition.by.normalized();
        let one_of = condition.is.iter().enumerate().map(|(of, value)| {
            let value = part.value_of(value, groups);
            value.map_err(|message| (format!("when[{at}].is[{of}]"), message))
        });
        ready.push(Condition {
            is: one_of.collect::<Result<_, _>>()?,
            by: part,
        });
    }
    Ok(ready)
}

/// What chooses a tier, and could be one of their names.
pub fn tiers_by(by: Part, paths: &[Pattern], groups: &[String]) -> Result<Part, Refused> {
    let refuse = |message: String| ("tiers.by".to_owned(), message);
    by.check(paths, !groups.is_empty()).map_err(refuse)?;
    let message = match by {
        Part::Client => "no address names a tier: name blocks in `groups`, and write \"group\"",
        Part::Path | Part::Template => "no path names a tier: write a rule with `paths`",
        _ => return Ok(by.normalized()),
    };
    Err(refuse(message.to_owned()))
}

/// What makes a client.
pub fn key(parts: Vec<Part>, paths: &[Pattern], groups: &[String]) -> Result<Vec<Part>, Refused> {
    at_most("key", parts.len(), 7)?;
    let mut ready: Vec<Part> = Vec::with_capacity(parts.len());
    for (at, part) in parts.into_iter().enumerate() {
        let refuse = |message: String| (format!("key[{at}]"), message);
        part.check(paths, !groups.is_empty()).map_err(refuse)?;
        let part = part.normalized();
        if ready.contains(&part) {
            return Err(refuse(
                "the same part is there before: once is enough".to_owned(),
            ));
        }
        ready.push(part);
    }
    Ok(ready)
}

/// Refuses what would have no effect beside the rest of a rule.
pub fn idle(rule: &Rule) -> Result<(), Refused> {
    let default = Rule::default();
    let only_under_way = rule.concurrency.is_some() || rule.adaptive.is_some();
    let limits = rule.limits.as_ref().is_some_and(|all| !all.is_empty());
    let counts = limits || rule.tiers.is_some();
    let preset = rule.preset != default.preset;
    let refuse = |field: &str, message: &str| Err((field.to_owned(), message.to_owned()));
    if rule.action != Action::Limit {
        if preset || counts || rule.limits.is_some() || only_under_way {
            let message = "a rule that limits must not have the action to allow or deny";
            return refuse("action", message);
        }
        for (field, is_set) in [
            ("key", rule.key != default.key),
            ("cost", rule.cost != default.cost),
            ("emergency", rule.emergency != default.emergency),
            (
                "on_store_failure",
                rule.on_store_failure != default.on_store_failure,
            ),
            ("shadow", rule.shadow && rule.action == Action::Allow),
        ] {
            if is_set {
                return refuse(
                    field,
                    "has no effect: a rule that allows or denies counts nothing",
                );
            }
        }
        return Ok(());
    }
    if !only_under_way {
        return Ok(());
    }
    if preset && !limits {
        let message = "has no effect beside `concurrency` or `adaptive`: write `limits`";
        return refuse("preset", message);
    }
    for (field, is_set) in [
        ("cost", rule.cost != default.cost),
        (
            "on_store_failure",
            rule.on_store_failure != default.on_store_failure,
        ),
    ] {
        if is_set && !counts {
            return refuse(
                field,
                "has no effect without `limits`: requests under way count one each",
            );
        }
    }
    Ok(())
}

/// The limit that follows latency.
pub fn followed(follow: Follow) -> Result<Rc<Adaptive>, Refused> {
    let out = |field: &str, value: u32, bound: &str| {
        let message = format!("{value} is out of bounds: {bound}");
        Err((format!("adaptive.{field}"), message))
    };
    let Follow {
        latency_ms,
        floor,
        ceiling,
    } = follow;
    if !(1..=60_000).contains(&latency_ms) {
        return out("latency_ms", latency_ms, "1 to 60000");
    }
    if floor == 0 || floor > ceiling {
        return out("floor", floor, "1 to the ceiling");
    }
    if ceiling > 1_000_000 {
        return out("ceiling", ceiling, "at most 1000000");
    }
    let latency = Duration::from_millis(u64::from(latency_ms));
    Ok(Rc::new(Adaptive::new(floor, ceiling, latency)))
}

type Groups = (Vec<String>, Vec<Vec<Block>>);

/// Names and blocks of the groups.
pub fn groups(all: &BTreeMap<String, Vec<String>>) -> Result<Groups, ConfigError> {
    if all.len() > 64 {
        let message = format!("{} groups is out of bounds: at most 64", all.len());
        return Err(ConfigError::new("groups", message));
    }
    let mut ready = Groups::default();
    for (name, blocks) in all {
        let refuse = |message: String| Err(ConfigError::new(format!("groups.{name}"), message));
        if !is_name(name) {
            return refuse(not_a_name(name));
        }
        if name.parse::<IpAddr>().is_ok() {
            return refuse(format!(
                "{name:?} is an address: give the group a name that is none"
            ));
        }
        if !(1..=1_024).contains(&blocks.len()) {
            return refuse(format!(
                "{} blocks is out of bounds: 1 to 1024",
                blocks.len()
            ));
        }
        let parsed: Result<Vec<Block>, String> =
            blocks.iter().map(|block| Block::parse(block)).collect();
        match parsed {
            Ok(blocks) => ready.1.push(blocks),
            Err(message) => return refuse(message),
        }
        ready.0.push(name.clone());
    }
    Ok(ready)
}
