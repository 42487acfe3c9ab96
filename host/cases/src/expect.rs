//! What is expected of an exchange.

use regex::bytes::Regex;

use crate::content::{self, LONGEST};
use crate::source::{Node, Problem, Table};

/// What is expected of one exchange. What is not named is not looked at, but for `complete`, `traps` and `hung`.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// Where it is.
    pub line: usize,
    /// The status.
    pub status: Option<u16>,
    /// Fields by name.
    pub fields: Vec<(String, Line)>,
    /// The body.
    pub body: Option<BodyWant>,
    /// Trailer fields by name.
    pub trailers: Vec<(String, Line)>,
    /// Whether the response comes whole; `false`: it is reset or cut off.
    pub complete: Option<bool>,
    /// What the origin received.
    pub upstream: Option<UpstreamWant>,
    /// Whether a filter answered itself.
    pub local: Option<bool>,
    /// Lines that are logged.
    pub log: Vec<LogWant>,
    /// Lines that are not.
    pub no_log: Vec<LogWant>,
    /// Metrics after the exchange.
    pub metrics: Vec<(String, Number)>,
    /// Shared data after it.
    pub shared: Vec<(String, Line)>,
    /// Callbacks of the exchange in order, each run of one name once.
    pub callbacks: Option<Vec<String>>,
    /// Traps.
    pub traps: u64,
}

/// What is expected of a text: a field's value, a line, a value of shared data.
#[derive(Clone, Debug)]
pub enum Line {
    /// Exactly this; several lines of a field are joined by `, `.
    Equals(String),
    /// These lines, in order.
    Lines(Vec<String>),
    /// It is there, or it is not.
    Present(bool),
    /// All of these.
    Is(Tests),
}

/// Tests on a text.
#[derive(Clone, Debug, Default)]
pub struct Tests {
    /// It holds this.
    pub contains: Vec<String>,
    /// It holds none of these.
    pub lacks: Vec<String>,
    /// The expression is found in it.
    pub matches: Option<Regex>,
    /// It is one of these.
    pub one_of: Option<Vec<String>>,
}

/// What is expected of a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Number {
    /// At least.
    pub least: u64,
    /// At most.
    pub most: u64,
}

/// What is expected of a body.
#[derive(Clone, Debug, Default)]
pub struct BodyWant {
    /// Looked at after its content codings are undone.
    pub decoded: bool,
    /// Exactly these bytes.
    pub equals: Option<Vec<u8>>,
    /// The same JSON value.
    pub json: Option<serde_json::Value>,
    /// Its length.
    pub length: Option<Number>,
    /// Its SHA-256, in hexadecimal.
    pub sha256: Option<String>,
    /// Tests on it as a text.
    pub tests: Tests,
}

/// What is expected of what the origin received.
#[derive(Clone, Debug, Default)]
pub struct UpstreamWant {
    /// How many requests.
    pub count: Option<u64>,
    /// Of the last one: its method.
    pub method: Option<String>,
    /// Its target.
    pub path: Option<Line>,
    /// Its fields.
    pub fields: Vec<(String, Line)>,
    /// Its body.
    pub body: Option<BodyWant>,
}

/// A line of the log.
#[derive(Clone, Debug)]
pub struct LogWant {
    /// Its level, 0 (trace) to 5 (critical).
    pub level: Option<u8>,
    /// Found in it.
    pub matches: Regex,
    /// As it is written.
    pub text: String,
}

/// Names of the levels of a log.
pub const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "critical"];

pub(crate) fn read(node: &Node<'_>) -> Result<Expect, Problem> {
    let table = node.table()?;
    let mut expect = Expect {
        line: table.line(),
        ..Expect::default()
    };
    if let Some(status) = table.get("status") {
        expect.status = Some(status.number(100, 999)? as u16);
    }
    expect.fields = lines(table.get("fields"), true)?;
    expect.trailers = lines(table.get("trailers"), true)?;
    expect.shared = lines(table.get("shared"), false)?;
    expect.body = table.get("body").map(|body| body_want(&body)).transpose()?;
    expect.complete = table.get("complete").map(|it| it.flag()).transpose()?;
    expect.local = table.get("local").map(|it| it.flag()).transpose()?;
    expect.upstream = table.get("upstream").map(|it| upstream(&it)).transpose()?;
    expect.log = logs(table.get("log"))?;
    expect.no_log = logs(table.get("no_log"))?;
    if let Some(metrics) = table.get("metrics") {
        for (name, want) in metrics.table()?.entries() {
            expect.metrics.push((name.to_owned(), number(&want)?));
        }
    }
    if let Some(callbacks) = table.get("callbacks") {
        let names = callbacks.list()?;
        let names = names.iter().map(|name| name.text().map(str::to_owned));
        expect.callbacks = Some(names.collect::<Result<_, _>>()?);
    }
    if let Some(traps) = table.get("traps") {
        expect.traps = traps.number(0, 1_000)?;
    }
    table.finish()?;
    Ok(expect)
}

fn lines(node: Option<Node<'_>>, fields: bool) -> Result<Vec<(String, Line)>, Problem> {
    let Some(node) = node else {
        return Ok(Vec::new());
    };
    node.table()?
        .entries()
        .into_iter()
        .map(|(name, want)| {
            let name = match fields {
                true => name.to_ascii_lowercase(),
                false => name.to_owned(),
            };
            Ok((name, line(&want)?))
        })
        .collect()
}

fn line(node: &Node<'_>) -> Result<Line, Problem> {
    if let Some(text) = node.as_text() {
        return Ok(Line::Equals(text.to_owned()));
    }
    if let Some(present) = node.as_flag() {
        return Ok(Line::Present(present));
    }
    if node.is_list() {
        return Ok(Line::Lines(texts(node)?));
    }
    let Some(table) = node.as_table() else {
        return node.fail(
            "want a text, true (it is there), false (it is not), a list of lines, or a table of tests",
        );
    };
    let tests = tests(&table)?;
    table.finish()?;
    Ok(Line::Is(tests))
}

fn tests(table: &Table<'_>) -> Result<Tests, Problem> {
    let some = |node: Option<Node<'_>>| match node {
        None => Ok(Vec::new()),
        Some(node) if node.is_list() => texts(&node),
        Some(node) => Ok(vec![node.text()?.to_owned()]),
    };
    Ok(Tests {
        contains: some(table.get("contains"))?,
        lacks: some(table.get("lacks"))?,
        matches: table.get("matches").map(|it| regex(&it)).transpose()?,
        one_of: table.get("one_of").map(|it| texts(&it)).transpose()?,
    })
}

fn texts(node: &Node<'_>) -> Result<Vec<String>, Problem> {
    let items = node.list()?;
    items
        .iter()
        .map(|item| item.text().map(str::to_owned))
        .collect()
}

fn regex(node: &Node<'_>) -> Result<Regex, Problem> {
    let text = node.text()?;
    match Regex::new(text) {
        Ok(regex) => Ok(regex),
        Err(error) => node.fail(format!("it is no regular expression: {error}")),
    }
}

fn number(node: &Node<'_>) -> Result<Number, Problem> {
    if let Some(number) = node.as_number() {
        return Ok(Number {
            least: number,
            most: number,
        });
    }
    let Some(table) = node.as_table() else {
        return node.fail("want a number, or `at_least` and `at_most`");
    };
    let most = u64::MAX >> 1;
    let bound = |node: Option<Node<'_>>, default| match node {
        Some(node) => node.number(0, most),
        None => Ok(default),
    };
    let number = Number {
        least: bound(table.get("at_least"), 0)?,
        most: bound(table.get("at_most"), most)?,
    };
    table.finish()?;
    Ok(number)
}

fn body_want(node: &Node<'_>) -> Result<BodyWant, Problem> {
    let mut want = BodyWant::default();
    if let Some(text) = node.as_text() {
        want.equals = Some(text.as_bytes().to_vec());
        return Ok(want);
    }
    let table = node.table()?;
    if let Some(decoded) = table.get("decoded") {
        want.decoded = decoded.flag()?;
    }
    if let Some(equals) = table.get("equals") {
        want.equals = Some(content::bytes(&equals)?);
    }
    if let Some(file) = table.get("file") {
        want.equals = Some(content::read_file(&file)?);
    }
    if let Some(json) = table.get("json") {
        want.json = Some(json.json()?);
    }
    if let Some(length) = table.get("length") {
        want.length = Some(number(&length)?);
        if want.length.is_some_and(|length| length.least > LONGEST) {
            return length.fail(format!("no body is longer than {LONGEST} bytes"));
        }
    }
    if let Some(sha256) = table.get("sha256") {
        let text = sha256.text()?;
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return sha256.fail("want 64 hexadecimal digits");
        }
        want.sha256 = Some(text.to_ascii_lowercase());
    }
    want.tests = tests(&table)?;
    table.finish()?;
    Ok(want)
}

fn upstream(node: &Node<'_>) -> Result<UpstreamWant, Problem> {
    let mut want = UpstreamWant::default();
    if let Some(count) = node.as_number() {
        want.count = Some(count);
        return Ok(want);
    }
    let Some(table) = node.as_table() else {
        return node.fail("want how many requests the origin received, or a table");
    };
    if let Some(count) = table.get("count") {
        want.count = Some(count.number(0, 1_000_000)?);
    }
    want.method = table
        .get("method")
        .map(|it| it.text().map(str::to_owned))
        .transpose()?;
    want.path = table.get("path").map(|it| line(&it)).transpose()?;
    want.fields = lines(table.get("fields"), true)?;
    want.body = table.get("body").map(|body| body_want(&body)).transpose()?;
    table.finish()?;
    Ok(want)
}

fn logs(node: Option<Node<'_>>) -> Result<Vec<LogWant>, Problem> {
    let Some(node) = node else {
        return Ok(Vec::new());
    };
    let one = |node: &Node<'_>| -> Result<LogWant, Problem> {
        if let Some(text) = node.as_text() {
            return Ok(LogWant {
                level: None,
                matches: regex(node)?,
                text: text.to_owned(),
            });
        }
        let table = node.table()?;
        let mut level = None;
        if let Some(named) = table.get("level") {
            let name = named.text()?;
            let Some(at) = LEVELS.iter().position(|level| *level == name) else {
                return named.fail(format!("{name:?} is no level: {}", LEVELS.join(", ")));
            };
            level = u8::try_from(at).ok();
        }
        let matches = table.need("matches")?;
        let want = LogWant {
            level,
            text: matches.text()?.to_owned(),
            matches: regex(&matches)?,
        };
        table.finish()?;
        Ok(want)
    };
    match node.is_list() {
        true => node.list()?.iter().map(one).collect(),
        false => Ok(vec![one(&node)?]),
    }
}

/// What a number of things may be, as text.
impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.least, self.most) {
            (least, most) if least == most => write!(f, "{least}"),
            (0, most) => write!(f, "at most {most}"),
            (least, most) if most == u64::MAX >> 1 => write!(f, "at least {least}"),
            (least, most) => write!(f, "from {least} to {most}"),
        }
    }
}

impl Number {
    /// Whether a number is within.
    pub fn holds(&self, number: u64) -> bool {
        (self.least..=self.most).contains(&number)
    }
}
