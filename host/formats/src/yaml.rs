//! YAML (and JSON, which is YAML) as a tree that knows where each value stands.
//!
//! Bounded in depth and in size, aliases included: a file of a few lines cannot become a tree of gigabytes.

use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Value as Json;

use crate::{Finding, Level, Placed};

/// Nested collections.
const DEPTH: usize = 100;
/// Values in all, those of aliases counted each time.
const NODES: usize = 200_000;

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A text; `plain` where it has no quotes, so that it may be a number, a truth or nothing.
    Scalar {
        /// The text.
        text: String,
        /// Without quotes.
        plain: bool,
    },
    /// Values in a row.
    List(Vec<Node>),
    /// Values by name, in the order of the file.
    Map(Vec<(Placed<String>, Node)>),
}

/// Reads the first document of a text.
pub fn parse(text: &str) -> Result<Node, Finding> {
    let bytes = Bytes::of(text);
    let mut builder = Builder {
        bytes: &bytes,
        stack: Vec::new(),
        anchors: Vec::new(),
        nodes: 0,
        root: None,
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = bytes.at(error.marker().index());
            refused(at..at, error.info().to_owned())
        })?;
        if matches!(event, Event::DocumentEnd) {
            break;
        }
        builder.take(event, span)?;
    }
    builder
        .root
        .ok_or_else(|| refused(0..0, "it holds nothing".to_owned()))
}

fn refused(span: Range<usize>, message: String) -> Finding {
    Finding {
        level: Level::Error,
        code: "yaml",
        path: String::new(),
        span,
        message,
    }
}

/// Bytes by characters: the parser counts the latter.
struct Bytes(Option<Vec<usize>>, usize);

impl Bytes {
    fn of(text: &str) -> Self {
        let ascii = text.is_ascii();
        let offsets = (!ascii).then(|| text.char_indices().map(|(at, _)| at).collect());
        Self(offsets, text.len())
    }

    fn at(&self, character: usize) -> usize {
        match &self.0 {
            None => character.min(self.1),
            Some(offsets) => offsets.get(character).copied().unwrap_or(self.1),
        }
    }
}

struct Builder<'a> {
    bytes: &'a Bytes,
    stack: Vec<Open>,
    anchors: Vec<(usize, Node)>,
    nodes: usize,
    root: Option<Node>,
}

struct Open {
    start: usize,
    anchor: usize,
    /// The key whose value is next, in a map.
    key: Option<Placed<String>>,
    value: Value,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Finding> {
        let at = self.bytes.at(span.start.index())..self.bytes.at(span.end.index());
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = Value::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                self.put(Node { span: at, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(at, anchor, Value::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(at, anchor, Value::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.stack.pop() else {
                    return Ok(());
                };
                let node = Node {
                    // A value of many lines is shown by its first.
                    span: open.start..at.end.max(open.start + 1),
                    value: open.value,
                };
                self.put(node, open.anchor)
            }
            Event::Alias(anchor) => {
                let found = self.anchors.iter().rev().find(|(id, _)| *id == anchor);
                let Some((_, node)) = found.cloned() else {
                    return Err(refused(
                        at,
                        "this alias names no anchor before it".to_owned(),
                    ));
                };
                self.nodes += size(&node);
                self.put(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, at: Range<usize>, anchor: usize, value: Value) -> Result<(), Finding> {
        if self.stack.len() >= DEPTH {
            return Err(refused(at, format!("it is nested more than {DEPTH} deep")));
        }
        self.stack.push(Open {
            start: at.start,
            anchor,
            key: None,
            value,
        });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Finding> {
        self.nodes += 1;
        if self.nodes > NODES {
            return Err(refused(
                node.span,
                format!("it has more than {NODES} values"),
            ));
        }
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut open.value, open.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some(key)) => entries.push((key, node)),
            (Value::Map(entries), None) => {
                let Value::Scalar { text, .. } = node.value else {
                    return Err(refused(node.span, "a name is a text".to_owned()));
                };
                if entries.iter().any(|(key, _)| key.value == text) {
                    return Err(refused(node.span, format!("`{text}` is there twice")));
                }
                open.key = Some(Placed::new(text, node.span));
            }
            (Value::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| size(node)).sum(),
    }
}

impl Node {
    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries
                .iter()
                .find(|(key, _)| key.value == name)
                .map(|(_, node)| node),
            _ => None,
        }
    }

    /// Whether it is the plain nothing.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// The same as JSON, with plain numbers, truths and nothing as such.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Scalar { text, plain } => {
                if !plain {
                    return Json::String(text.clone());
                }
                match text.as_str() {
                    "" | "~" | "null" => Json::Null,
                    "true" | "True" => Json::Bool(true),
                    "false" | "False" => Json::Bool(false),
                    text => {
                        let integer = text.parse::<i64>().map(Json::from).ok();
                        let number = || {
                            let digits = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
                            let number = text.parse::<f64>().ok().filter(|_| digits)?;
                            serde_json::Number::from_f64(number).map(Json::Number)
                        };
                        integer
                            .or_else(number)
                            .unwrap_or_else(|| Json::String(text.to_owned()))
                    }
                }
            }
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, node)| (key.value.clone(), node.to_json()))
                    .collect(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(text: &'a str, node: &Node) -> &'a str {
        &text[node.span.clone()]
    }

    #[test]
    fn values_know_their_place() {
        let text = "# ü\na: { b: 'x', c: [1, \"2\"] }\nd: &e\n- true\n- ~\nf: *e\n";
        let root = parse(text).unwrap();
        let a = root.get("a").unwrap();
        assert_eq!(at(text, a.get("b").unwrap()), "'x'");
        assert_eq!(
            root.to_json().to_string(),
            r#"{"a":{"b":"x","c":[1,"2"]},"d":[true,null],"f":[true,null]}"#
        );
        let json = parse("{\"a\": [1.5, -3, \"t\"], \"b\": false}").unwrap();
        assert_eq!(
            json.to_json().to_string(),
            r#"{"a":[1.5,-3,"t"],"b":false}"#
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        let mut bomb = "a0: &a0 [1,2,3,4,5,6,7,8,9,10]\n".to_owned();
        for n in 1..9 {
            let before = format!("*a{},", n - 1).repeat(10);
            bomb.push_str(&format!("a{n}: &a{n} [{before}]\n"));
        }
        for (name, text, wants) in [
            ("unfinished", "a: [1\nb: 2\n", ""),
            ("twice", "a: 1\nb: 2\na: 3\n", "`a` is there twice"),
            ("deep", &deep, "100 deep"),
            ("bomb", &bomb, "more than 200000 values"),
            ("empty", "", "holds nothing"),
            ("no anchor", "a: *b\n", ""),
        ] {
            let error = parse(text).expect_err(name);
            assert!(error.message.contains(wants), "{name}: {}", error.message);
        }
        let error = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(error.place("a: 1\nb: 2\na: 3\n").unwrap().line, 3);
    }
}
