//! Walking a tree of YAML: every field is asked for by name, and what nobody asked for is named in a finding.

use std::cell::RefCell;
use std::time::Duration;

use crate::yaml::{Node, Value};
use crate::{Finding, Level, Placed};

/// What was found on the way.
#[derive(Default, Debug)]
pub(crate) struct Notes {
    found: RefCell<Vec<Finding>>,
    /// Where a list belongs, a value that is none is its one item.
    has_lone_items: bool,
}

impl Notes {
    /// Of a file that is read as protobuf's own reader of JSON does: it takes "a single element in place of an array thereof".
    pub(crate) fn of_protobuf() -> Self {
        Self {
            has_lone_items: true,
            ..Self::default()
        }
    }

    pub(crate) fn push(&self, finding: Finding) {
        self.found.borrow_mut().push(finding);
    }

    /// Whether something was found that cannot be used.
    pub(crate) fn broken(&self) -> bool {
        let found = self.found.borrow();
        found.iter().any(|it| it.level >= Level::Unsupported)
    }

    pub(crate) fn take(self) -> Vec<Finding> {
        self.found.into_inner()
    }
}

/// A value with its path.
#[derive(Clone)]
pub(crate) struct At<'a> {
    pub(crate) node: &'a Node,
    pub(crate) path: String,
    pub(crate) notes: &'a Notes,
}

impl<'a> At<'a> {
    pub(crate) fn say(&self, level: Level, code: &'static str, message: impl Into<String>) {
        self.notes.push(Finding {
            level,
            code,
            path: self.path.clone(),
            span: self.node.span.clone(),
            message: message.into(),
        });
    }

    pub(crate) fn error(&self, message: impl Into<String>) {
        self.say(Level::Error, "invalid", message);
    }

    /// It would make answers wrong.
    pub(crate) fn unsupported(&self, message: impl Into<String>) {
        self.say(Level::Unsupported, "unsupported", message);
    }

    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.say(Level::Warning, "ignored", message);
    }

    /// No answer is another for it.
    pub(crate) fn has_no_effect(&self) {
        let name = self.path.rsplit('.').next().unwrap_or_default();
        let message = format!("`{name}` has no effect here; no answer is another for it");
        self.say(Level::Advice, "no-effect", message);
    }

    pub(crate) fn placed<T>(&self, value: T) -> Placed<T> {
        Placed::new(value, self.node.span.clone())
    }

    /// Its fields; an error and none if it has no fields.
    pub(crate) fn section(&self) -> Section<'a> {
        if !matches!(self.node.value, Value::Map(_)) && !self.node.is_null() {
            self.error("a value with fields (a mapping) belongs here");
        }
        Section {
            at: self.clone(),
            taken: RefCell::default(),
        }
    }

    /// Its items.
    pub(crate) fn items(&self) -> Vec<At<'a>> {
        match &self.node.value {
            Value::List(items) => (0..)
                .zip(items)
                .map(|(index, node): (usize, _)| At {
                    node,
                    path: format!("{}[{index}]", self.path),
                    notes: self.notes,
                })
                .collect(),
            _ if self.node.is_null() => Vec::new(),
            _ if self.notes.has_lone_items => vec![self.clone()],
            _ => {
                self.error("a list belongs here");
                Vec::new()
            }
        }
    }

    /// Whether it is a list or a mapping with nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.node.value {
            Value::Scalar { .. } => false,
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
        }
    }

    /// Its entries, whatever their names.
    pub(crate) fn entries(&self) -> Vec<(String, At<'a>)> {
        match &self.node.value {
            Value::Map(entries) => entries
                .iter()
                .map(|(key, node)| {
                    let at = At {
                        node,
                        path: format!("{}.{}", self.path, key.value),
                        notes: self.notes,
                    };
                    (key.value.clone(), at)
                })
                .collect(),
            _ => {
                self.error("a value with fields (a mapping) belongs here");
                Vec::new()
            }
        }
    }

    pub(crate) fn text(&self) -> Option<String> {
        match &self.node.value {
            Value::Scalar { text, .. } => Some(text.clone()),
            _ => {
                self.error("a text belongs here");
                None
            }
        }
    }

    /// A value of an enumeration by its name, whose letters Envoy takes in either case.
    pub(crate) fn word(&self) -> Option<String> {
        self.text().map(|text| text.to_ascii_uppercase())
    }

    /// A number, also as a text, as protobuf's JSON has it.
    pub(crate) fn number(&self, most: u64) -> Option<u64> {
        let text = self.text()?;
        match text.parse::<u64>() {
            Ok(number) if number <= most => Some(number),
            _ => {
                self.error(format!("\"{text}\" is no whole number from 0 to {most}"));
                None
            }
        }
    }

    pub(crate) fn flag(&self) -> Option<bool> {
        let text = self.text()?;
        match text.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.error(format!("\"{text}\" is neither true nor false"));
                None
            }
        }
    }

    /// A duration as protobuf writes it: seconds with `s`.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let text = self.text()?;
        let seconds = text.strip_suffix('s').and_then(|it| it.parse::<f64>().ok());
        match seconds.map(Duration::try_from_secs_f64) {
            Some(Ok(duration)) => Some(duration),
            _ => {
                self.error(format!("\"{text}\" is no duration, such as \"1.5s\""));
                None
            }
        }
    }
}

/// The fields of a value. When it goes, what was not asked for is named.
pub(crate) struct Section<'a> {
    pub(crate) at: At<'a>,
    taken: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    /// A field by its name, or by the name JSON gives it (`snakeCase`); nothing counts as not there.
    pub(crate) fn get(&self, name: &str) -> Option<At<'a>> {
        let Value::Map(entries) = &self.at.node.value else {
            return None;
        };
        let (key, node) = entries
            .iter()
            .find(|(key, _)| key.value == name || snake(&key.value) == name)?;
        self.taken.borrow_mut().push(key.value.clone());
        let at = At {
            node,
            path: join(&self.at.path, &key.value),
            notes: self.at.notes,
        };
        (!node.is_null()).then_some(at)
    }

    /// A field that has to be there.
    pub(crate) fn need(&self, name: &str) -> Option<At<'a>> {
        let found = self.get(name);
        if found.is_none() {
            self.at.error(format!("missing field `{name}`"));
        }
        found
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name)?.text()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(|at| at.flag()).unwrap_or(false)
    }

    pub(crate) fn items(&self, name: &str) -> Vec<At<'a>> {
        self.get(name).map_or_else(Vec::new, |at| at.items())
    }

    /// Fields that change no answer.
    pub(crate) fn without_effect(&self, names: &[&str]) {
        for name in names {
            if let Some(at) = self.get(name) {
                at.has_no_effect();
            }
        }
    }

    /// Fields that would make answers wrong.
    pub(crate) fn unsupported(&self, names: &[&str]) {
        for name in names {
            if let Some(at) = self.get(name) {
                at.unsupported(format!("`{name}` is not supported"));
            }
        }
    }

    /// The fields nobody asked for are no finding.
    pub(crate) fn let_go(&self) {
        if let Value::Map(entries) = &self.at.node.value {
            let names = entries.iter().map(|(key, _)| key.value.clone());
            self.taken.borrow_mut().extend(names);
        }
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        let Value::Map(entries) = &self.at.node.value else {
            return;
        };
        let taken = self.taken.borrow();
        for (key, _) in entries {
            if !taken.contains(&key.value) && key.value != "@type" {
                self.at.notes.push(Finding {
                    level: Level::Warning,
                    code: "ignored",
                    path: join(&self.at.path, &key.value),
                    span: key.span.clone(),
                    message: format!("`{}` is not supported: it is ignored", key.value),
                });
            }
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// `snakeCase` as `snake_case`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
