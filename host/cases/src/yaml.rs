//! YAML as the tree that TOML is read as, so that one reader serves both.

use std::ops::Range;

use edgeweir_host_formats::yaml::{self, Node, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::source::{Problem, Source};

/// Whether a file is read as YAML, by the end of its name.
pub(crate) fn is(source: &Source) -> bool {
    let ending = source.file.extension();
    ending.is_some_and(|it| it == "yaml" || it == "yml")
}

/// Reads the text of a file.
pub(crate) fn parse(source: &Source) -> Result<Node, Problem> {
    yaml::parse(&source.text).map_err(|found| source.problem(found.span, "", found.message))
}

/// What was read, each value with its place in the text.
pub(crate) fn table<'a>(source: &Source, root: &'a Node) -> Result<Spanned<DeTable<'a>>, Problem> {
    let span = root.span.clone();
    match value(source, root)?.into_inner() {
        DeValue::Table(table) => Ok(Spanned::new(span, table)),
        _ => Err(source.problem(
            span,
            "",
            "want names with values, `module` and `case` among them",
        )),
    }
}

fn value<'a>(source: &Source, node: &'a Node) -> Result<Spanned<DeValue<'a>>, Problem> {
    let read = match &node.value {
        Value::Scalar { text, plain: true } => plain(source, node.span.clone(), text)?,
        Value::Scalar { text, .. } => DeValue::String(text.into()),
        Value::List(items) => {
            let items = items.iter().map(|item| value(source, item));
            DeValue::Array(items.collect::<Result<_, _>>()?)
        }
        Value::Map(entries) => {
            let mut table = DeTable::new();
            for (key, node) in entries {
                let name = Spanned::new(key.span.clone(), key.value.as_str().into());
                table.insert(name, value(source, node)?);
            }
            DeValue::Table(table)
        }
    };
    Ok(Spanned::new(node.span.clone(), read))
}

/// A text without quotes: a truth, a number or a moment where it is one.
fn plain<'a>(source: &Source, span: Range<usize>, text: &'a str) -> Result<DeValue<'a>, Problem> {
    match text {
        "" | "~" | "null" => {
            let message = "there is no value: leave the name out, or give \"\"";
            return Err(source.problem(span, "", message));
        }
        "true" | "True" => return Ok(DeValue::Boolean(true)),
        "false" | "False" => return Ok(DeValue::Boolean(false)),
        _ => {}
    }
    let digits = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let read = digits.then(|| DeValue::parse(text).ok()).flatten();
    Ok(match read.map(Spanned::into_inner) {
        Some(number @ (DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_))) => number,
        _ => DeValue::String(text.into()),
    })
}
