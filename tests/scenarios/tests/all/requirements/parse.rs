//! How rows are written.
//!
//! ```text
//! = no-store is not stored                      the row's name; an empty line ends the row
//! | RFC 9111 §5.2.2.5: "MUST NOT store any …"   the sentence, with its section
//! ! envoy: its own reason                       not on this host, because (optional)
//! ~ what is missing                             does not hold yet (optional); once it does, the mark has to go
//! > GET /b                                      a step: method, and path (default `/`)
//! > accept: a                                   a field of the request
//! < 200                                         the origin's status (default 200), or `closes`, or `cut`
//! < cache-control: max-age=60                   a field of its response
//! << text                                       its body (default `body N`, N being the step's number)
//! .                                             before a step: time passes, 1.3 seconds for all rows
//! ? hit 1                                       what is expected (default `miss`)
//! ```
//!
//! Expectations: `miss` (the origin was asked and its answer came through), `asked`, `not asked`, `hit N` (from the
//! cache: status and body of step N, an `Age`), `validated N` (asked with a condition, answered with status and body of
//! step N), `stale N` (status and body of step N though the origin failed), `status S`, `body TEXT`, `no body`,
//! `asks NAME: VALUE`, `asks no NAME`, `gets NAME: VALUE`, `gets no NAME`, `NAME in A..B` (a number), `says WORD` and `says no WORD` (in
//! `Cache-Status`), `lines NAME: N`.
//!
//! In values: `{now}`, `{now+60}`, `{now-60}` as dates, `{rfc850 now}` and `{asctime now}` in the obsolete forms,
//! `{path /b}` the path as it is on the wire, `{url /b}` with scheme and host before it, `{N bytes}` so many `x`, `\t` a tab.

/// A requirement.
pub struct Row {
    /// Its name.
    pub name: String,
    /// The sentence it comes from.
    pub sentence: String,
    /// Hosts it is not run on.
    pub skipped: Vec<String>,
    /// It does not hold yet.
    pub pending: bool,
    /// Its exchanges.
    pub steps: Vec<Step>,
}

/// One exchange.
#[derive(Default)]
pub struct Step {
    /// Time passes before it.
    pub waits: bool,
    pub method: String,
    pub path: String,
    pub request: Vec<(String, String)>,
    pub request_body: Option<String>,
    pub status: u16,
    pub closes: bool,
    pub cut: bool,
    pub response: Vec<(String, String)>,
    pub body: Option<String>,
    pub expected: Vec<Expected>,
}

/// What is to be seen.
#[derive(Clone, PartialEq, Debug)]
pub enum Expected {
    Miss,
    Asked,
    NotAsked,
    Hit(usize),
    Validated(usize),
    Stale(usize),
    Status(u16),
    Body(String),
    NoBody,
    Asks(String, String),
    AsksNo(String),
    Gets(String, String),
    GetsNo(String),
    Within(String, i64, i64),
    Says(String),
    SaysNo(String),
    Lines(String, usize),
}

/// The rows of a file; panics with file and line where it is not written so.
pub fn rows(file: &str, text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut waits = false;
    for (at, line) in text.lines().enumerate() {
        let fail = |what: &str| -> ! { panic!("{file}.txt:{}: {what}: {line:?}", at + 1) };
        if line.trim().is_empty() || line.starts_with("# ") {
            continue;
        }
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark == "=" {
            rows.push(Row {
                name: rest.to_owned(),
                sentence: String::new(),
                skipped: Vec::new(),
                pending: false,
                steps: Vec::new(),
            });
            continue;
        }
        let Some(row) = rows.last_mut() else {
            fail("before any row");
        };
        match mark {
            "|" => row.sentence = rest.to_owned(),
            "!" => row
                .skipped
                .push(rest.split(':').next().unwrap_or_default().to_owned()),
            "~" => row.pending = true,
            "." => waits = true,
            ">" if field(rest).is_none() => {
                let mut words = rest.split(' ');
                row.steps.push(Step {
                    waits: std::mem::take(&mut waits),
                    method: words.next().unwrap_or_default().to_owned(),
                    path: words.next().unwrap_or("/").to_owned(),
                    status: 200,
                    ..Step::default()
                });
            }
            _ => {
                let Some(step) = row.steps.last_mut() else {
                    fail("before any step");
                };
                match (mark, field(rest)) {
                    (">", Some(field)) => step.request.push(field),
                    (">>", _) => step.request_body = Some(rest.to_owned()),
                    ("<", Some(field)) => step.response.push(field),
                    ("<", None) if rest == "closes" => step.closes = true,
                    ("<", None) if rest == "cut" => step.cut = true,
                    ("<", None) => match rest.parse() {
                        Ok(status) => step.status = status,
                        Err(_) => fail("no status"),
                    },
                    ("<<", _) => step.body = Some(rest.to_owned()),
                    ("?", _) => match expected(rest) {
                        Some(expected) => step.expected.push(expected),
                        None => fail("no expectation"),
                    },
                    _ => fail("no such mark"),
                }
            }
        }
    }
    for step in rows.iter_mut().flat_map(|row| &mut row.steps) {
        if step.expected.is_empty() {
            step.expected.push(Expected::Miss);
        }
    }
    rows
}

/// `name: value`; a name is a token, so that a request line is none.
fn field(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let token = !name.is_empty() && !name.contains([' ', '/']);
    let value = value.strip_prefix(' ').unwrap_or(value);
    token.then(|| (name.to_owned(), value.replace("\\t", "\t")))
}

fn expected(text: &str) -> Option<Expected> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let number = || rest.parse().ok();
    let named =
        |make: fn(String, String) -> Expected| field(rest).map(|(name, value)| make(name, value));
    match word {
        "miss" => Some(Expected::Miss),
        "asked" => Some(Expected::Asked),
        "not" if rest == "asked" => Some(Expected::NotAsked),
        "hit" => number().map(Expected::Hit),
        "validated" => number().map(Expected::Validated),
        "stale" => number().map(Expected::Stale),
        "status" => rest.parse().ok().map(Expected::Status),
        "body" => Some(Expected::Body(rest.to_owned())),
        "no" if rest == "body" => Some(Expected::NoBody),
        "asks" => match rest.strip_prefix("no ") {
            Some(name) => Some(Expected::AsksNo(name.to_owned())),
            None => named(Expected::Asks),
        },
        "gets" => match rest.strip_prefix("no ") {
            Some(name) => Some(Expected::GetsNo(name.to_owned())),
            None => named(Expected::Gets),
        },
        "says" => match rest.strip_prefix("no ") {
            Some(word) => Some(Expected::SaysNo(word.to_owned())),
            None => Some(Expected::Says(rest.to_owned())),
        },
        "lines" => {
            let (name, count) = field(rest)?;
            Some(Expected::Lines(name, count.parse().ok()?))
        }
        name => {
            let (low, high) = rest.strip_prefix("in ")?.split_once("..")?;
            let (low, high) = (low.parse().ok()?, high.parse().ok()?);
            Some(Expected::Within(name.to_owned(), low, high))
        }
    }
}
