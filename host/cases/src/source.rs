//! A file's text, and what is wrong with it: file, line, field, value and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A file and its text.
#[derive(Clone, Debug)]
pub struct Source {
    /// As it was named.
    pub file: PathBuf,
    /// What it says.
    pub text: String,
}

impl Source {
    /// The line of a byte of the text, from 1.
    pub fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at.min(self.text.len())).unwrap_or_default();
        before.matches('\n').count() + 1
    }

    /// A path written in the file: relative to the file's folder.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    pub(crate) fn problem(
        &self,
        span: Range<usize>,
        field: &str,
        message: impl Into<String>,
    ) -> Problem {
        let line = self.line(span.start);
        Problem {
            file: self.file.clone(),
            line,
            field: field.to_owned(),
            message: message.into(),
            excerpt: self
                .text
                .lines()
                .nth(line - 1)
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// What is wrong with a file of cases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The file as it was named.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The path of the field; empty for the file as a whole.
    pub field: String,
    /// What is wrong, with the value and what would be right.
    pub message: String,
    excerpt: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        if !self.field.is_empty() {
            write!(f, "in `{}`: ", self.field)?;
        }
        write!(f, "{}", self.message)?;
        if !self.excerpt.trim().is_empty() {
            write!(f, "\n  {} | {}", self.line, self.excerpt.trim_end())?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// A value of the file, with its place.
#[derive(Clone)]
pub(crate) struct Node<'a> {
    pub(crate) source: &'a Source,
    pub(crate) field: String,
    pub(crate) value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Node<'a> {
    pub(crate) fn fail<T>(&self, message: impl Into<String>) -> Result<T, Problem> {
        Err(self.source.problem(self.value.span(), &self.field, message))
    }

    fn wants<T>(&self, what: &str) -> Result<T, Problem> {
        let got = match self.value.get_ref() {
            DeValue::String(text) => format!("the text {text:?}"),
            DeValue::Integer(number) => format!("the number {number}"),
            DeValue::Float(number) => format!("the number {number}"),
            DeValue::Boolean(it) => it.to_string(),
            DeValue::Datetime(time) => format!("the time {time}"),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.fail(format!("it is {got}, want {what}"))
    }

    pub(crate) fn table(&self) -> Result<Table<'a>, Problem> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(Table::new(
                self.source,
                self.field.clone(),
                self.value.span(),
                table,
            )),
            _ => self.wants("a table"),
        }
    }

    pub(crate) fn as_table(&self) -> Option<Table<'a>> {
        self.value
            .get_ref()
            .is_table()
            .then(|| self.table().ok())
            .flatten()
    }

    pub(crate) fn text(&self) -> Result<&'a str, Problem> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(text),
            _ => self.wants("a text"),
        }
    }

    pub(crate) fn as_text(&self) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn flag(&self) -> Result<bool, Problem> {
        match self.value.get_ref() {
            DeValue::Boolean(flag) => Ok(*flag),
            _ => self.wants("true or false"),
        }
    }

    pub(crate) fn as_flag(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        }
    }

    pub(crate) fn as_number(&self) -> Option<u64> {
        match self.value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        }
    }

    pub(crate) fn number(&self, min: u64, max: u64) -> Result<u64, Problem> {
        let wanted = format!("a whole number from {min} to {max}");
        match self.as_number() {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            _ => self.wants(&wanted),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<Node<'a>>, Problem> {
        match self.value.get_ref() {
            DeValue::Array(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(at, value)| Node {
                    source: self.source,
                    field: format!("{}[{at}]", self.field),
                    value,
                })
                .collect()),
            _ => self.wants("a list"),
        }
    }

    pub(crate) fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// The value as JSON, as filters are configured.
    pub(crate) fn json(&self) -> Result<serde_json::Value, Problem> {
        use serde_json::Value;
        Ok(match self.value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => number.into(),
                    Err(_) => return self.wants("a number of 64 bits"),
                }
            }
            DeValue::Float(number) => {
                let number = number.as_str().parse::<f64>().ok();
                match number.and_then(serde_json::Number::from_f64) {
                    Some(number) => Value::Number(number),
                    None => return self.wants("a number that JSON has"),
                }
            }
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(time) => Value::String(time.to_string()),
            DeValue::Array(_) => Value::Array(
                self.list()?
                    .iter()
                    .map(Node::json)
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(_) => Value::Object(
                self.table()?
                    .entries()
                    .into_iter()
                    .map(|(name, node)| Ok((name.to_owned(), node.json()?)))
                    .collect::<Result<_, Problem>>()?,
            ),
        })
    }
}

/// A table of the file; it knows which of its keys were asked for.
pub(crate) struct Table<'a> {
    source: &'a Source,
    pub(crate) field: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
    asked: std::cell::RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(
        source: &'a Source,
        field: String,
        span: Range<usize>,
        table: &'a DeTable<'a>,
    ) -> Self {
        Self {
            source,
            field,
            span,
            table,
            asked: std::cell::RefCell::default(),
        }
    }

    pub(crate) fn line(&self) -> usize {
        self.source.line(self.span.start)
    }

    fn below(&self, key: &str) -> String {
        if self.field.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.field)
        }
    }

    pub(crate) fn get(&self, key: &'static str) -> Option<Node<'a>> {
        self.asked.borrow_mut().push(key);
        self.table.get(key).map(|value| Node {
            source: self.source,
            field: self.below(key),
            value,
        })
    }

    pub(crate) fn need(&self, key: &'static str) -> Result<Node<'a>, Problem> {
        match self.get(key) {
            Some(node) => Ok(node),
            None => self.fail(format!("`{key}` is missing")),
        }
    }

    pub(crate) fn entries(&self) -> Vec<(&'a str, Node<'a>)> {
        let node = |key: &str, value| Node {
            source: self.source,
            field: self.below(key),
            value,
        };
        self.table
            .iter()
            .map(|(key, value)| {
                let key: &'a str = key.get_ref();
                (key, node(key, value))
            })
            .collect()
    }

    pub(crate) fn fail<T>(&self, message: impl Into<String>) -> Result<T, Problem> {
        Err(self.source.problem(self.span.clone(), &self.field, message))
    }

    /// Refuses keys nobody asked for, with the nearest name there is.
    pub(crate) fn finish(&self) -> Result<(), Problem> {
        let known = self.asked.borrow();
        for key in self.table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let near = known
                .iter()
                .map(|known| (strsim::damerau_levenshtein(name, known), *known))
                .min();
            let hint = match near {
                Some((distance, near)) if distance <= 2.max(name.len() / 3) => {
                    format!("; did you mean `{near}`?")
                }
                _ => {
                    let mut names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                    names.sort();
                    names.dedup();
                    format!("; there are {}", names.join(", "))
                }
            };
            let field = self.below(name);
            return Err(self.source.problem(
                key.span(),
                &field,
                format!("there is no `{name}` here{hint}"),
            ));
        }
        Ok(())
    }
}
