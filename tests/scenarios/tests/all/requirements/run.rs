//! Runs the rows of a file on one host, in lockstep.

use std::time::{Duration, SystemTime};

use edgeweir_scenarios::{Edge, Host, Origin, Request, Seen, request};

use super::parse::{Expected, Row, Step};

/// What `.` lets pass: more than a second, so that what lives for one is stale after it.
const WAIT: Duration = Duration::from_millis(1_300);
/// A stored response may be written just after the client has the last byte.
const SETTLE: Duration = Duration::from_millis(80);

/// What became of a step.
struct Done {
    status: u16,
    body: String,
}

/// Runs all of them; panics with a paragraph for each row that does not hold.
pub fn all(edge: &mut Edge, rows: &[Row]) {
    let all: Vec<&Row> = rows.iter().collect();
    let mut failures = once(edge, &all);
    // What a component stored is gone with its instance, which may end between two steps: those get two more goes.
    for go in ["second", "third"] {
        if edge.host() == Host::WasiHttp && !failures.is_empty() {
            let failed: Vec<&Row> = failures.iter().map(|(at, _)| all[*at]).collect();
            let again = edge.aside(go, |edge| once(edge, &failed));
            let numbers: Vec<usize> = failures.iter().map(|(at, _)| *at).collect();
            failures = again
                .into_iter()
                .map(|(at, why)| (numbers[at], why))
                .collect();
        }
    }
    let texts: Vec<String> = failures.into_iter().map(|(_, why)| why).collect();
    assert!(
        texts.is_empty(),
        "{} of {} rows do not hold{}",
        texts.len(),
        rows.len(),
        texts.concat()
    );
}

/// Runs them once; gives the number of each that does not hold, and a paragraph.
fn once(edge: &mut Edge, rows: &[&Row]) -> Vec<(usize, String)> {
    let host = edge.host();
    let mut running: Vec<(usize, &Row, Vec<Done>)> = rows
        .iter()
        .copied()
        .enumerate()
        .filter(|(_, row)| !row.skipped.iter().any(|name| name == host.name()))
        .map(|(at, row)| (at, row, Vec::new()))
        .collect();
    let longest = rows.iter().map(|row| row.steps.len()).max().unwrap_or(0);
    let (mut failures, mut turns) = (Vec::new(), 0);
    for at in 0..longest {
        let mut steps = running.iter().filter_map(|(_, row, _)| row.steps.get(at));
        if steps.any(|step| step.waits) {
            edge.pass(WAIT);
        }
        running.retain_mut(|(number, row, done)| {
            let Some(step) = row.steps.get(at) else {
                return true;
            };
            // The pure host's two workers take turns: each step of a row meets the other one.
            if host == Host::Pure && (turns + *number + at) % 2 == 1 {
                edge.send(&request("GET", "/turn"), &Origin::status(404));
                turns += 1;
            }
            turns += 1;
            let seen = edge.aside(&format!("r{number}"), |edge| exchange(edge, step, at));
            match check(edge, &format!("r{number}"), row, at, seen, done) {
                Ok(()) => true,
                Err(_) if row.pending => false,
                Err(why) => {
                    let text = format!(
                        "\n  row: {}\n  {}\n  step {} on {host}: {why}",
                        row.name,
                        row.sentence,
                        at + 1
                    );
                    failures.push((*number, text));
                    false
                }
            }
        });
        if host != Host::Pure {
            std::thread::sleep(SETTLE);
        }
    }
    if host == Host::Pure {
        for (number, row, _) in running.iter().filter(|(_, row, _)| row.pending) {
            let text = format!("\n  row: {}\n  holds now: its `~` has to go", row.name);
            failures.push((*number, text));
        }
    }
    failures
}

fn exchange(edge: &mut Edge, step: &Step, at: usize) -> Result<Seen, String> {
    let mut sent = request(&step.method, &step.path);
    for (name, value) in &step.request {
        sent = sent.field(name, filled(edge, value));
    }
    if let Some(body) = &step.request_body {
        sent = sent.body(body);
    }
    let origin = origin(edge, step, at);
    match edge.try_send(&sent, &origin) {
        Ok(seen) => Ok(seen),
        // An edge that held the head back has nothing to say when the rest is cut.
        Err(_) if step.cut => Ok(Seen {
            upstream: edge.received(),
            ..Seen::default()
        }),
        Err(error) => Err(format!("no response: {error}; {}", shown(&sent))),
    }
}

fn origin(edge: &Edge, step: &Step, at: usize) -> Origin {
    if step.closes {
        return Origin::gone();
    }
    let mut origin = Origin::status(step.status);
    for (name, value) in &step.response {
        origin = origin.field(name, filled(edge, value));
    }
    let bodiless = matches!(step.status, 204 | 205 | 304);
    if !bodiless || step.body.is_some() {
        origin = origin.body(body(edge, step, at));
    }
    if step.cut {
        origin = origin.cut();
    }
    origin
}

fn body(edge: &Edge, step: &Step, at: usize) -> String {
    match &step.body {
        Some(body) => filled(edge, body),
        None => format!("body {}", at + 1),
    }
}

fn check(
    edge: &mut Edge,
    aside: &str,
    row: &Row,
    at: usize,
    seen: Result<Seen, String>,
    done: &mut Vec<Done>,
) -> Result<(), String> {
    let step = &row.steps[at];
    let seen = seen?;
    let sent = body(edge, step, at);
    done.push(Done {
        status: step.status,
        body: if matches!(step.status, 204 | 205 | 304) && step.body.is_none() {
            String::new()
        } else {
            sent
        },
    });
    for expected in &step.expected {
        let holds = edge.aside(aside, |edge| holds(edge, expected, step, at, &seen, done));
        if let Err(why) = holds {
            return Err(format!("expected {expected:?}, {why}; {}", report(&seen)));
        }
    }
    Ok(())
}

fn holds(
    edge: &Edge,
    expected: &Expected,
    step: &Step,
    at: usize,
    seen: &Seen,
    done: &[Done],
) -> Result<(), String> {
    let asked = !seen.upstream.is_empty();
    let as_in = |number: usize| {
        let of = number.checked_sub(1).and_then(|at| done.get(at));
        let of = of.ok_or_else(|| format!("there is no step {number}"))?;
        let bodiless = step.method == "HEAD";
        let body = if bodiless { "" } else { &of.body };
        match (seen.status == of.status, seen.body_text() == body) {
            (true, true) => Ok(()),
            _ => Err(format!("not the {} {body:?} of step {number}", of.status)),
        }
    };
    let when = |holds: bool, why: &str| if holds { Ok(()) } else { Err(why.to_owned()) };
    match expected {
        Expected::Miss => {
            when(asked, "the origin was not asked")?;
            as_in(at + 1)
        }
        Expected::Asked => when(asked, "the origin was not asked"),
        Expected::NotAsked => when(!asked, "the origin was asked"),
        Expected::Hit(number) => {
            as_in(*number)?;
            when(!asked, "the origin was asked")?;
            // RFC 9111 §5.1: "The presence of an Age header field implies that the response was not generated or
            // validated by the origin server for this request."
            when(seen.has("age"), "there is no Age")
        }
        Expected::Validated(number) => {
            let conditional = seen.upstream.iter().any(|received| {
                !received.text("if-none-match").is_empty()
                    || !received.text("if-modified-since").is_empty()
            });
            when(conditional, "the origin was not asked with a condition")?;
            as_in(*number)
        }
        Expected::Stale(number) => as_in(*number),
        Expected::Status(status) => when(seen.status == *status, "another status"),
        Expected::Body(text) => {
            let want = filled(edge, text);
            when(seen.body_text() == want, "another body")
        }
        Expected::NoBody => when(seen.body.is_empty(), "there is a body"),
        Expected::Asks(name, value) => {
            let want = filled(edge, value);
            let holds = seen.upstream.iter().any(|asked| asked.text(name) == want);
            when(holds, "the origin was not asked so")
        }
        Expected::AsksNo(name) => {
            let holds = asked
                && seen
                    .upstream
                    .iter()
                    .all(|asked| asked.text(name).is_empty());
            when(holds, "the origin was asked so")
        }
        Expected::Gets(name, value) => {
            let want = filled(edge, value);
            // Who joins lines may leave the space out.
            let loose = |text: &str| text.replace(", ", ",");
            when(
                loose(&seen.text(name)) == loose(&want),
                "the field is another",
            )
        }
        Expected::GetsNo(name) => when(!seen.has(name), "the field is there"),
        Expected::Within(name, low, high) => {
            let value: Option<i64> = seen.text(name).parse().ok();
            let holds = value.is_some_and(|value| (*low..=*high).contains(&value));
            when(holds, "it is not")
        }
        Expected::Says(word) => when(seen.text("cache-status").contains(word), "it does not"),
        Expected::SaysNo(word) => when(!seen.text("cache-status").contains(word), "it does"),
        Expected::Lines(name, count) => {
            when(seen.all(name).len() == *count, "another number of lines")
        }
    }
}

/// A value with what is in braces put in.
fn filled(edge: &Edge, value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        out.push_str(before);
        out.push_str(&variable(edge, name));
        rest = after;
    }
    out + rest
}

fn variable(edge: &Edge, name: &str) -> String {
    let scheme = if edge.host() == Host::Pure {
        "https"
    } else {
        "http"
    };
    let (word, rest) = name.split_once(' ').unwrap_or((name, ""));
    match (word, rest) {
        ("path", path) => edge.path(path),
        ("url", path) => format!("{scheme}://edge.example{}", edge.path(path)),
        ("rfc850", at) => rfc850(&date(edge, at)),
        ("asctime", at) => asctime(&date(edge, at)),
        (count, "bytes") => "x".repeat(count.parse().unwrap_or(0)),
        (at, _) => date(edge, at),
    }
}

/// `now`, `now+60`, `now-60` in the preferred form.
fn date(edge: &Edge, at: &str) -> String {
    let offset = at.strip_prefix("now").unwrap_or_default();
    let seconds: i64 = match offset {
        "" => 0,
        offset => match offset.trim_start_matches('+').parse() {
            Ok(seconds) => seconds,
            Err(_) => panic!("no such variable: {at}"),
        },
    };
    let by = Duration::from_secs(seconds.unsigned_abs());
    let now: SystemTime = edge.now();
    let at = if seconds < 0 { now - by } else { now + by };
    httpdate::fmt_http_date(at)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as `Sunday, 06-Nov-94 08:49:37 GMT`.
fn rfc850(date: &str) -> String {
    let words: Vec<&str> = date.split(' ').collect();
    let day = [
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
    ]
    .into_iter()
    .find(|day| words[0].starts_with(&day[..3]));
    let year = &words[3][2..];
    format!(
        "{}, {}-{}-{year} {} GMT",
        day.unwrap_or_default(),
        words[1],
        words[2],
        words[4]
    )
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as `Sun Nov  6 08:49:37 1994`.
fn asctime(date: &str) -> String {
    let words: Vec<&str> = date.split(' ').collect();
    let day = words[1].trim_start_matches('0');
    format!(
        "{} {} {day:>2} {} {}",
        &words[0][..3],
        words[2],
        words[4],
        words[3]
    )
}

fn report(seen: &Seen) -> String {
    let fields: Vec<String> = seen
        .fields
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
        .collect();
    let asked: Vec<String> = seen
        .upstream
        .iter()
        .map(|received| {
            let fields = received.fields.iter();
            let fields = fields.map(|(n, v)| format!("{n}: {}", String::from_utf8_lossy(v)));
            format!("{} {:?}", received.method, fields.collect::<Vec<_>>())
        })
        .collect();
    format!(
        "seen {} {:?} {fields:?}; the origin got {asked:?}",
        seen.status,
        seen.body_text().chars().take(60).collect::<String>()
    )
}

fn shown(request: &Request) -> String {
    format!("{} {}", request.method, request.path)
}
