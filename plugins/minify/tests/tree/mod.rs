//! JSON as a tree, members in order and with their doubles, and what rules make of it: all at once, in plain steps.

use std::fmt::Write;

use edgeweir_minify::{Config, DropNulls, Pattern, Redaction, Replacement};
use hmac::{Hmac, KeyInit, Mac};

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub enum Tree {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// A longer name is no name of a mask, and is not held until its value is known.
const LONGEST: usize = 1_536;

/// Names from the top on, `None` for any.
pub type Path = Vec<Option<String>>;

/// As a mask.
pub fn text(path: &Path) -> String {
    let names: Vec<_> = path
        .iter()
        .map(|name| name.as_deref().unwrap_or("*"))
        .collect();
    names.join("/")
}

fn parse(text: &str) -> Path {
    text.split('/')
        .map(|name| (name != "*").then(|| name.to_owned()))
        .collect()
}

impl Tree {
    /// With white space wherever it may be.
    pub fn pretty(&self, escaped: bool) -> String {
        let mut out = "\r\n".to_owned();
        self.write(&mut out, escaped, " \t", "\n    ");
        out + "\n"
    }

    /// With none.
    pub fn compact(&self, escaped: bool) -> String {
        let mut out = String::new();
        self.write(&mut out, escaped, "", "");
        out
    }

    fn write(&self, out: &mut String, escaped: bool, small: &str, large: &str) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::String(text) => quote(text, false, out),
            Self::Array(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        out.extend([small, ","]);
                    }
                    out.push_str(large);
                    value.write(out, escaped, small, large);
                }
                out.extend([large, "]"]);
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.extend([small, ","]);
                    }
                    out.push_str(large);
                    quote(name, escaped, out);
                    out.extend([small, ":", small]);
                    value.write(out, escaped, small, large);
                }
                out.extend([large, "}"]);
            }
        }
    }

    /// With a secret in place of every value of a name.
    pub fn with_secrets(&self, name: &str, secret: &str) -> Self {
        match self {
            Self::Array(values) => Self::Array(
                values
                    .iter()
                    .map(|value| value.with_secrets(name, secret))
                    .collect(),
            ),
            Self::Object(members) => Self::Object(
                members
                    .iter()
                    .map(|(own, value)| {
                        let value = match own == name {
                            true => Self::String(secret.to_owned()),
                            false => value.with_secrets(name, secret),
                        };
                        (own.clone(), value)
                    })
                    .collect(),
            ),
            other => other.clone(),
        }
    }
}

fn quote(text: &str, escaped: bool, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            _ if escaped => write!(out, "\\u{:04X}", u32::from(char)).expect("a string"),
            _ => out.push(char),
        }
    }
    out.push('"');
}

/// What rules and a client's mask leave of a tree.
pub fn rewrite(tree: &Tree, config: &Config, client: &[Path]) -> Tree {
    let own: Vec<Path> = config.include.iter().map(|text| parse(text)).collect();
    let mut tree = tree.clone();
    for include in [&own[..], client] {
        if !include.is_empty() {
            tree = select(&tree, include).unwrap_or(Tree::Null);
        }
    }
    let paths: Vec<Path> = config.exclude.iter().map(|text| parse(text)).collect();
    tree = without(tree, &paths);
    tree = without_nulls(tree, config.drop_nulls);
    let paths: Vec<(usize, Path)> = config
        .redact
        .iter()
        .enumerate()
        .filter_map(|(at, one)| Some((at, parse(one.path.as_ref()?))))
        .collect();
    hidden(tree, &paths, config)
}

/// What is left of paths behind a name.
fn behind<'p>(paths: &'p [Path], name: &str) -> Vec<&'p [Option<String>]> {
    let matches = |path: &&Path| path[0].as_deref().is_none_or(|own| own == name);
    paths
        .iter()
        .filter(matches)
        .map(|path| &path[1..])
        .collect()
}

fn owned(paths: &[&[Option<String>]]) -> Vec<Path> {
    paths.iter().map(|path| path.to_vec()).collect()
}

fn select(tree: &Tree, paths: &[Path]) -> Option<Tree> {
    match tree {
        Tree::Array(values) => Some(Tree::Array(
            values
                .iter()
                .filter_map(|value| select(value, paths))
                .collect(),
        )),
        Tree::Object(members) => {
            let kept = members.iter().filter_map(|(name, value)| {
                let below = behind(paths, name);
                let value = match below.iter().any(|path| path.is_empty()) {
                    true => value.clone(),
                    false if below.is_empty() || name.len() > LONGEST => return None,
                    false => select(value, &owned(&below))?,
                };
                Some((name.clone(), value))
            });
            Some(Tree::Object(kept.collect()))
        }
        _ => None,
    }
}

fn without(tree: Tree, paths: &[Path]) -> Tree {
    match tree {
        Tree::Array(values) => Tree::Array(
            values
                .into_iter()
                .map(|value| without(value, paths))
                .collect(),
        ),
        Tree::Object(members) => {
            let kept = members.into_iter().filter_map(|(name, value)| {
                let below = behind(paths, &name);
                if below.iter().any(|path| path.is_empty()) {
                    return None;
                }
                let value = without(value, &owned(&below));
                Some((name, value))
            });
            Tree::Object(kept.collect())
        }
        other => other,
    }
}

fn without_nulls(tree: Tree, which: DropNulls) -> Tree {
    match tree {
        Tree::Array(values) => Tree::Array(
            values
                .into_iter()
                .filter(|value| which != DropNulls::All || *value != Tree::Null)
                .map(|value| without_nulls(value, which))
                .collect(),
        ),
        Tree::Object(members) => Tree::Object(
            members
                .into_iter()
                .filter(|(name, value)| {
                    which == DropNulls::Never || *value != Tree::Null || name.len() > LONGEST
                })
                .map(|(name, value)| (name, without_nulls(value, which)))
                .collect(),
        ),
        other => other,
    }
}

fn hidden(tree: Tree, paths: &[(usize, Path)], config: &Config) -> Tree {
    match tree {
        Tree::Array(values) => Tree::Array(
            values
                .into_iter()
                .map(|value| hidden(value, paths, config))
                .collect(),
        ),
        Tree::Object(members) => {
            let members = members.into_iter().map(|(name, value)| {
                let below: Vec<(usize, Path)> = paths
                    .iter()
                    .filter(|(_, path)| path[0].as_deref().is_none_or(|own| own == name))
                    .map(|(at, path)| (*at, path[1..].to_vec()))
                    .collect();
                let by_path = below
                    .iter()
                    .filter(|(_, path)| path.is_empty())
                    .map(|(at, _)| *at);
                let by_key = config.redact.iter().position(|one| is_for(one, &name));
                let value = match by_path.chain(by_key).min() {
                    Some(at) => replaced(&value, config.redact[at].replace),
                    None => {
                        let below: Vec<_> = below
                            .into_iter()
                            .filter(|(_, path)| !path.is_empty())
                            .collect();
                        hidden(value, &below, config)
                    }
                };
                (name, value)
            });
            Tree::Object(members.collect())
        }
        Tree::String(ref text) | Tree::Number(ref text) => {
            let mut patterns = config
                .redact
                .iter()
                .filter(|one| one.pattern.is_some())
                .peekable();
            if patterns.peek().is_some() && tree.compact(false).len() > 64 {
                return Tree::String("***".into());
            }
            let found = patterns.find_map(|one| {
                // The samples' own places.
                let found = match one.pattern {
                    Some(Pattern::Card) => ["4111111111111111", "5555-5555-5555-4444"]
                        .into_iter()
                        .find(|card| card == text),
                    _ => text.contains('@').then_some("a@b.example"),
                }?;
                Some(replaced(&Tree::String(found.into()), one.replace))
            });
            found.unwrap_or(tree)
        }
        other => other,
    }
}

fn is_for(one: &Redaction, name: &str) -> bool {
    let key = one.key.as_deref();
    key.is_some_and(|key| match one.ignore_case {
        true => key.eq_ignore_ascii_case(name),
        false => key == name,
    })
}

fn replaced(tree: &Tree, by: Replacement) -> Tree {
    let (Tree::String(text) | Tree::Number(text)) = tree else {
        return Tree::String("***".into());
    };
    let too_long = tree.compact(false).len() > 64;
    let chars: Vec<char> = text.chars().collect();
    Tree::String(match by {
        Replacement::Hash if !too_long => {
            let mut hmac =
                Hmac::<sha2::Sha256>::new_from_slice(b"0123456789abcdef").expect("any length");
            hmac.update(text.as_bytes());
            let bytes = hmac.finalize().into_bytes();
            let hex: String = bytes
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("hmac:{hex}")
        }
        Replacement::Last4 if !too_long && chars.len() >= 8 => {
            let last: String = chars[chars.len() - 4..].iter().collect();
            format!("***{last}")
        }
        _ => "***".into(),
    })
}
