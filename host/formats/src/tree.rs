//! TOML as the same tree that YAML is.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::yaml::{Node, Value};
use crate::{Finding, Level, Placed};

/// Nested tables and arrays.
const DEPTH: usize = 100;

/// Reads a text.
pub(crate) fn parse(text: &str) -> Result<Node, Finding> {
    let refused = |span, message: String| Finding {
        level: Level::Error,
        code: "toml",
        path: String::new(),
        span,
        message,
    };
    let root = DeTable::parse(text).map_err(|error| {
        refused(
            error.span().unwrap_or(0..0),
            error.message().trim().to_owned(),
        )
    })?;
    let span = root.span();
    table(root.get_ref(), span, DEPTH)
        .ok_or_else(|| refused(0..0, format!("it is nested more than {DEPTH} deep")))
}

fn table(table: &DeTable<'_>, span: std::ops::Range<usize>, depth: usize) -> Option<Node> {
    let deeper = depth.checked_sub(1)?;
    let mut entries = Vec::new();
    for (key, value) in table.iter() {
        let name = Placed::new(key.get_ref().to_string(), key.span());
        entries.push((name, node(value, deeper)?));
    }
    // In the order of the file, as a reader would name them.
    entries.sort_by_key(|(key, _)| key.span.start);
    Some(Node {
        span,
        value: Value::Map(entries),
    })
}

fn node(value: &Spanned<DeValue<'_>>, depth: usize) -> Option<Node> {
    let deeper = depth.checked_sub(1)?;
    let scalar = |text: String, plain| Value::Scalar { text, plain };
    let read = match value.get_ref() {
        DeValue::String(text) => scalar(text.to_string(), false),
        DeValue::Integer(number) => scalar(number.to_string(), true),
        DeValue::Float(number) => scalar(number.to_string(), true),
        DeValue::Boolean(flag) => scalar(flag.to_string(), true),
        DeValue::Datetime(date) => scalar(date.to_string(), false),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| node(item, deeper))
                .collect::<Option<_>>()?,
        ),
        DeValue::Table(inner) => return table(inner, value.span(), deeper),
    };
    Some(Node {
        span: value.span(),
        value: read,
    })
}
