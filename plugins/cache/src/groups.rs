//! Groups of stored responses: which ones a response belongs to, which ones it invalidates, and which go with which.
//!
//! `Surrogate-Key` (separated by blanks) and `Cache-Tag` (by commas) name groups of the whole cache, `Cache-Groups`
//! (RFC 9875) groups of one origin, which an operator names as the others. A group is known by a 64-bit hash of its kind and
//! name: two that share one are invalidated together, which costs a request and never shows a wrong response.

use std::collections::{BTreeMap, BTreeSet};

use edgeweir_filter::{ConfigError, Fields, list_members};
use sfv::{BareItem, List, ListEntry, Parser};

use crate::reason::Refused;
use crate::store::hash_of;

/// Bytes of a group's name at most.
pub const LONGEST: usize = 256;
/// What is kept of the groups of one response at most: their number is stored in a byte.
const MOST_KEPT: usize = 255;
/// Names in the dependencies of a configuration at most.
const MOST_DEPENDENCIES: usize = 1000;

/// The group an operator names, and a response in any of the three fields.
pub fn named(name: &[u8]) -> u64 {
    hash_of(&[b"name ", name].concat())
}

/// The groups of a response, each once. One that has more than `most`, or one with too long a name, can't be stored:
/// an invalidation might miss it.
pub fn of(fields: &Fields, origin: &[u8], most: usize) -> Result<Vec<u64>, Refused> {
    let keys = fields
        .values("surrogate-key")
        .flat_map(|line| line.split(u8::is_ascii_whitespace));
    let tags = fields.values("cache-tag").flat_map(list_members);
    let mut all = BTreeSet::new();
    let of_origin: Vec<String> = members(fields, "cache-groups").collect();
    let own = of_origin.iter().map(|name| name.as_bytes());
    all.extend(own.clone().map(named));
    for name in keys.chain(tags).filter(|name| !name.is_empty()) {
        if name.len() > LONGEST {
            return Err(Refused::TooManyGroups);
        }
        all.insert(named(name));
        if all.len() > most {
            return Err(Refused::TooManyGroups);
        }
    }
    let fits = all.len() <= most;
    all.extend(own.map(|name| named_in(origin, name)));
    match fits && all.len() <= MOST_KEPT {
        true => Ok(all.into_iter().collect()),
        false => Err(Refused::TooManyGroups),
    }
}

/// The groups that a response to an unsafe request invalidates. RFC 9875 §3: "The Cache-Group-Invalidation … MUST be
/// ignored on responses to requests that have a safe method", and reaches stored responses of the same origin only: so do
/// those that depend on a group.
pub fn invalidated(fields: &Fields, origin: &[u8], dependencies: &Dependencies) -> Vec<u64> {
    let mut all = BTreeSet::new();
    for name in members(fields, "cache-group-invalidation") {
        // What was reached brought its own with it.
        if !all.contains(&named_in(origin, name.as_bytes())) {
            let names = dependencies.cascade(&name).into_iter();
            all.extend(names.map(|name| named_in(origin, name.as_bytes())));
        }
    }
    all.into_iter().collect()
}

/// The group that `Cache-Groups` names at an origin.
fn named_in(origin: &[u8], name: &[u8]) -> u64 {
    hash_of(&[b"group ", origin, b" ", name].concat())
}

/// RFC 9875 §2: a List of Strings, each case-sensitive; "Parameters … MUST be ignored". What is no such list counts as
/// absent, a member of another type too.
fn members(fields: &Fields, field: &'static str) -> impl Iterator<Item = String> {
    let list: List = fields
        .joined(field)
        .and_then(|text| Parser::new(&text).parse().ok())
        .unwrap_or_default();
    list.into_iter().filter_map(|member| match member {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(name) => Some(name.into()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    })
}

/// Which groups are invalidated with which.
#[derive(Clone, Debug, Default)]
pub struct Dependencies(BTreeMap<String, Vec<String>>);

impl Dependencies {
    /// Checks a configuration: for each group, those that depend on it.
    pub fn new(edges: BTreeMap<String, Vec<String>>) -> Result<Self, ConfigError> {
        let names = edges.values().map(Vec::len).sum::<usize>();
        if names > MOST_DEPENDENCIES {
            let message = format!("has {names} names, at most {MOST_DEPENDENCIES} are allowed");
            return Err(ConfigError::new("dependencies", message));
        }
        for (name, dependent) in &edges {
            for one in dependent.iter().chain([name]) {
                if one.is_empty() || one.len() > LONGEST {
                    let message = format!("has {one:?}, a name must have 1 to {LONGEST} bytes");
                    return Err(ConfigError::new(format!("dependencies.{name}"), message));
                }
            }
        }
        Ok(Self(edges))
    }

    /// A group and all that depend on it, directly or not, each once.
    pub fn cascade<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        let mut all = vec![name];
        let mut at = 0;
        while let Some(next) = all.get(at) {
            at += 1;
            for dependent in self.0.get(*next).into_iter().flatten() {
                if !all.contains(&dependent.as_str()) {
                    all.push(dependent);
                }
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &[u8] = b"https://a.example";

    #[test]
    fn a_response_names_its_groups() {
        let fields = Fields::of(&[
            ("surrogate-key", "a  b"),
            ("cache-tag", "b, c"),
            ("cache-tag", "d"),
            ("cache-groups", "\"a\", \"e\";x=y, token"),
        ]);
        let got = of(&fields, ORIGIN, 64).expect("few");
        assert_eq!(got.len(), 7, "two of them of the origin");
        for name in ["a", "b", "c", "d", "e"] {
            assert!(got.contains(&named(name.as_bytes())), "{name}");
        }
        assert!(of(&fields, ORIGIN, 5).is_ok(), "each name counts once");
        assert_eq!(of(&fields, ORIGIN, 4), Err(Refused::TooManyGroups));
        for (count, fits) in [(127, true), (128, false)] {
            let many: Vec<String> = (0..count).map(|at| format!("\"g{at}\"")).collect();
            let many = Fields::of(&[("cache-groups", &many.join(", "))]);
            assert_eq!(of(&many, ORIGIN, 255).is_ok(), fits, "{count}");
        }
        let long = Fields::of(&[("cache-tag", &"x".repeat(LONGEST + 1))]);
        assert_eq!(of(&long, ORIGIN, 64), Err(Refused::TooManyGroups));
        assert_eq!(of(&Fields::default(), ORIGIN, 0), Ok(Vec::new()));
        let broken = Fields::of(&[("cache-groups", "\"a")]);
        assert_eq!(of(&broken, ORIGIN, 64), Ok(Vec::new()));
    }

    #[test]
    fn groups_of_an_origin_are_its_own() {
        let stored = Fields::of(&[("cache-groups", "\"a\"")]);
        let reply = Fields::of(&[("cache-group-invalidation", "\"a\", \"A\"")]);
        let groups = of(&stored, ORIGIN, 64).expect("few");
        let meant = |origin: &[u8]| {
            let gone = invalidated(&reply, origin, &Dependencies::default());
            groups.iter().any(|group| gone.contains(group))
        };
        assert!(meant(ORIGIN));
        assert!(!meant(b"https://b.example"));
        let none = Dependencies::default();
        assert_eq!(invalidated(&reply, ORIGIN, &none).len(), 2, "case counts");
    }

    #[test]
    fn dependencies_cascade_once_each() {
        let edges = [
            ("menu", vec!["page", "home"]),
            ("page", vec!["home", "map"]),
            ("map", vec!["menu"]),
        ];
        let edges = edges.map(|(name, all)| {
            (
                name.to_owned(),
                all.into_iter().map(str::to_owned).collect(),
            )
        });
        let all = Dependencies::new(BTreeMap::from(edges)).expect("valid");
        assert_eq!(all.cascade("menu"), ["menu", "page", "home", "map"]);
        assert_eq!(all.cascade("home"), ["home"]);
        assert_eq!(all.cascade("other"), ["other"]);
        let reply = Fields::of(&[("cache-group-invalidation", "\"home\", \"page\", \"x\"")]);
        let mut gone = ["menu", "page", "home", "map", "x"].map(|n| named_in(ORIGIN, n.as_bytes()));
        gone.sort_unstable();
        assert_eq!(invalidated(&reply, ORIGIN, &all), gone);
    }
}
