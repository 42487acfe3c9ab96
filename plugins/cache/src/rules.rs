//! Rules for paths: the first that matches a request decides whether it is looked up, under which key, and how long a
//! response without an explicit lifetime is fresh.

use std::collections::BTreeMap;

use edgeweir_filter::{ConfigError, PathPattern, bounded};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{KeyConfig, KeySettings};
use crate::key::Target;

/// A rule for paths.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// The paths: an exact path (`/a`), or a prefix ending in `*` (`/a/*`). Compared without the query, in the
    /// spelling of the key: `/%61` and `/a`, `/%c3%a9`, `/%C3%A9` and `/é` are the same. Default `*`: all.
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
    /// Leave matching requests alone: no lookup, no storing. Default false.
    pub bypass: bool,
    /// Seconds a response of a status (three digits) is fresh when it has no explicit lifetime of its own, instead of
    /// a guess. 0 to 31536000 (a year); 0 stores no such response without a validator. Default: none.
    pub ttl_by_status: BTreeMap<String, u64>,
    /// What makes two requests for these paths ask for the same, in place of all that the filter's own `key` says.
    /// Default: the filter's.
    pub key: Option<KeyConfig>,
}

/// Checked rules, in order.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Checked>);

/// What a matching rule says.
#[derive(Clone, Copy, Debug)]
pub struct Ruling<'a>(Option<&'a Checked>);

#[derive(Clone, Debug)]
struct Checked {
    path: PathPattern,
    bypass: bool,
    ttl: Vec<(u16, u32)>,
    key: Option<KeySettings>,
}

impl Rules {
    /// Checks rules.
    pub fn new(rules: Vec<Rule>) -> Result<Self, ConfigError> {
        if rules.len() > 100 {
            let message = format!("has {} rules, at most 100 are allowed", rules.len());
            return Err(ConfigError::new("rules", message));
        }
        let checked = rules
            .into_iter()
            .enumerate()
            .map(|(at, rule)| check(at, rule));
        Ok(Self(checked.collect::<Result<_, _>>()?))
    }

    /// The first rule for a target.
    pub fn of(&self, target: &Target) -> Ruling<'_> {
        if self.0.is_empty() {
            return Ruling(None);
        }
        let path = target.plain_path();
        Ruling(self.0.iter().find(|rule| rule.path.matches(&path)))
    }
}

impl<'a> Ruling<'a> {
    /// The key's settings, where they are not the filter's.
    pub fn key(&self) -> Option<&'a KeySettings> {
        self.0?.key.as_ref()
    }

    /// Whether requests are left alone.
    pub fn bypass(&self) -> bool {
        self.0.is_some_and(|rule| rule.bypass)
    }

    /// The lifetime of a response that has none of its own.
    pub fn ttl(&self, status: u16) -> Option<u32> {
        let ttl = self.0?.ttl.iter().find(|(of, _)| *of == status)?;
        Some(ttl.1)
    }
}

fn check(at: usize, rule: Rule) -> Result<Checked, ConfigError> {
    let path = PathPattern::check(&format!("rules[{at}].path"), rule.path.as_deref())?;
    let mut ttl = Vec::new();
    for (status, lifetime) in &rule.ttl_by_status {
        let field = format!("rules[{at}].ttl_by_status");
        let code = status.parse::<u16>().ok();
        let Some(code) = code.filter(|code| status.len() == 3 && (200..=599).contains(code)) else {
            let message = format!("has status {status:?}, must be 200 to 599");
            return Err(ConfigError::new(field, message));
        };
        ttl.push((
            code,
            bounded(&format!("{field}.{status}"), *lifetime, 0, 31_536_000)?,
        ));
    }
    let key = rule.key.map(|key| {
        let field = format!("rules[{at}].key");
        KeySettings::check(&field, key)
    });
    Ok(Checked {
        path,
        bypass: rule.bypass,
        ttl,
        key: key.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn target(path: &str) -> Target {
        Target {
            scheme: Bytes::from("https"),
            authority: Bytes::from("a.example"),
            path: Bytes::copy_from_slice(path.as_bytes()),
        }
    }

    #[test]
    fn a_rule_is_for_every_spelling_of_a_path_that_shares_a_key() {
        for (pattern, path, want) in [
            ("/admin/*", "/%61dmin/me", true),
            ("/admin.php", "/admin%2ephp", true),
            ("/admin/*", "/admi%6E/me?x=1", true),
            ("/%61dmin/*", "/admin/me", true),
            ("/caf%c3%a9/*", "/caf%C3%A9/", true),
            ("/café/*", "/caf%c3%A9/", true),
            ("/caf%C3%A9/*", "/café/", true),
            ("/a b", "/a%20b", true),
            ("/", "", true),
            ("/", "?x", true),
            // Other keys, so other paths.
            ("/admin/*", "/admin%2Fme", false),
            ("/admin/*", "//admin/me", false),
            ("/admin/*", "/x/../admin/me", false),
            ("/admin/*", "/Admin/me", false),
        ] {
            let rule = Rule {
                path: Some(pattern.to_owned()),
                bypass: true,
                ..Rule::default()
            };
            let rules = Rules::new(vec![rule]).expect("valid");
            assert_eq!(rules.of(&target(path)).bypass(), want, "{pattern} {path}");
        }
    }

    #[test]
    fn the_first_match_counts() {
        let rule = |path: &str, bypass| Rule {
            path: Some(path.to_owned()),
            bypass,
            ttl_by_status: BTreeMap::from([("404".to_owned(), 7)]),
            key: None,
        };
        let rules = Rules::new(vec![
            rule("/a/open", false),
            rule("/a/*", true),
            rule("/b", true),
        ]);
        let rules = rules.expect("valid");
        for (path, bypass, ttl) in [
            ("/a/open", false, Some(7)),
            ("/a/", true, Some(7)),
            ("/a", false, None),
            ("/b", true, Some(7)),
            ("/b/c", false, None),
        ] {
            let ruling = rules.of(&target(path));
            assert_eq!((ruling.bypass(), ruling.ttl(404)), (bypass, ttl), "{path}");
            assert_eq!(ruling.ttl(200), None);
        }
    }
}
