//! Exchanges made up from a seed: the same seed makes the same ones, on any machine.
//!
//! They come in sessions: a few requests for one or two resources of their own, so that hits, validations and invalidations
//! happen, and so that one session can be run again, smaller, without the others.

use std::fmt::Write as _;

use bytes::Bytes;
use fastrand::Rng;

use crate::message::{Answer, Asked, Fields};

/// The most exchanges of a session.
pub const LONGEST: usize = 8;
/// In place of what makes the resources of a run its own; see [`Session::placed`].
const PLACE: &str = "PLACE";

/// A request and what the origin answers should it be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What the client sends.
    pub asked: Asked,
    /// What the origin is to say.
    pub script: Answer,
}

/// Steps that belong together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// The seed it was made from.
    pub seed: u64,
    /// In order.
    pub steps: Vec<Step>,
}

impl Session {
    /// The session of a seed.
    pub fn generate(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut resources: Vec<Resource> = (0..rng.usize(1..=2))
            .map(|at| Resource::new(&mut rng, at))
            .collect();
        let length = rng.usize(1..=LONGEST);
        let steps = (0..length)
            .map(|_| step(&mut rng, &mut resources))
            .collect();
        Self { seed, steps }
    }

    /// The session on resources that no other run has, and for a client of its own.
    pub fn placed(&self, place: &str) -> Self {
        let mut session = self.clone();
        for step in &mut session.steps {
            step.asked.target = step.asked.target.replace(PLACE, place);
            for (_, value) in &mut step.asked.fields {
                if value == PLACE.as_bytes() {
                    *value = place.as_bytes().to_vec();
                }
            }
        }
        session
    }
}

/// Something at a path: its representation stays, mostly, between steps.
#[derive(Clone)]
struct Resource {
    path: String,
    script: Answer,
}

impl Resource {
    fn new(rng: &mut Rng, at: usize) -> Self {
        let mut path = format!("/{PLACE}/{at}");
        if rng.u8(..4) == 0 {
            path.push_str(pick(rng, &["?a=1", "?b=2&a=1", "?", "?q=%20x", "?a=1&a=2"]));
        }
        Self {
            path,
            script: script(rng),
        }
    }
}

fn step(rng: &mut Rng, resources: &mut [Resource]) -> Step {
    let at = rng.usize(..resources.len());
    let resource = &mut resources[at];
    // The origin's mind changes now and then.
    if rng.u8(..6) == 0 {
        resource.script = script(rng);
    }
    let method = weighted(
        rng,
        &[
            (70, "GET"),
            (9, "HEAD"),
            (8, "POST"),
            (4, "PUT"),
            (3, "DELETE"),
            (2, "OPTIONS"),
            (2, "PATCH"),
            (2, "REPORT"),
        ],
    );
    let mut fields = Fields::new();
    add(&mut fields, "x-client", PLACE);
    request_fields(rng, &mut fields, &resource.script);
    let mut asked = Asked {
        method: method.to_owned(),
        authority: "app.test".to_owned(),
        target: resource.path.clone(),
        fields,
        ..Asked::default()
    };
    let has_body = match method {
        "POST" | "PUT" | "PATCH" | "REPORT" => rng.u8(..8) > 0,
        "DELETE" => rng.u8(..8) == 0,
        _ => false,
    };
    if has_body {
        let (kind, body) = body(rng);
        if let Some(kind) = kind {
            add(&mut asked.fields, "content-type", kind);
        }
        asked.body = pieces(rng, body);
        if !asked.body.is_empty() && rng.u8(..10) == 0 {
            add(&mut asked.trailers, "x-request-sum", "1");
        }
    }
    Step {
        asked,
        script: resource.script.clone(),
    }
}

fn request_fields(rng: &mut Rng, fields: &mut Fields, script: &Answer) {
    if rng.u8(..3) > 0 {
        let accepted = [
            "gzip",
            "gzip, br",
            "br",
            "zstd, gzip;q=0.5",
            "gzip;q=0",
            "identity;q=0",
            "*",
            "*;q=0",
            "",
            "deflate",
            "gzip;q=0.001, br;q=1.0",
            "GZIP",
            "gzip;;q=x",
            "x-gzip",
            "br;q=0, *;q=0.2",
        ];
        add(fields, "accept-encoding", pick(rng, &accepted));
    }
    if rng.u8(..4) == 0 {
        let directives = [
            "no-cache",
            "no-store",
            "max-age=0",
            "max-age=5",
            "only-if-cached",
            "max-stale",
            "max-stale=10",
            "min-fresh=30",
            "max-age=x",
            "no-transform",
            "NO-CACHE",
            "max-age=\"3\"",
            ",,no-cache,",
        ];
        add(fields, "cache-control", pick(rng, &directives));
    }
    if rng.u8(..20) == 0 {
        add(fields, "pragma", "no-cache");
    }
    let tag = script
        .text("etag")
        .unwrap_or_else(|| "\"other\"".to_owned());
    match rng.u8(..24) {
        0 | 1 => add(fields, "if-none-match", &tag),
        2 => add(fields, "if-none-match", &format!("\"x\", {tag}")),
        3 => add(fields, "if-none-match", "*"),
        4 => add(fields, "if-modified-since", MODIFIED),
        5 => add(fields, "if-match", &tag),
        6 => add(fields, "if-unmodified-since", MODIFIED),
        _ => {}
    }
    if rng.u8(..10) == 0 {
        let ranges = [
            "bytes=0-9",
            "bytes=5-",
            "bytes=-5",
            "bytes=0-0,10-12",
            "items=0-5",
            "bytes=90000-",
            "bytes=9-5",
        ];
        add(fields, "range", pick(rng, &ranges));
        if rng.bool() {
            add(fields, "if-range", &tag);
        }
    }
    if rng.u8(..12) == 0 {
        add(fields, "authorization", "Bearer t");
    }
    if rng.u8(..10) == 0 {
        add(fields, "cookie", "a=1; b=2");
    }
    if rng.u8(..4) == 0 {
        add(
            fields,
            "accept-language",
            pick(rng, &["en", "de, en;q=0.5", "EN", ""]),
        );
    }
    if rng.u8(..8) == 0 {
        add(
            fields,
            "accept",
            pick(rng, &["application/json", "text/html, */*;q=0.1", "*/*"]),
        );
    }
    if rng.u8(..12) == 0 {
        add(fields, "x-custom", "one");
        add(fields, "x-custom", pick(rng, &["two", "", "a,b"]));
    }
    if rng.u8(..30) == 0 {
        fields.push(("x-bytes".to_owned(), vec![b'a', 0xe9, 0xff, b'z']));
    }
    // Without it an origin may not send trailers (RFC 9110 §6.5.1).
    if !script.trailers.is_empty() || rng.u8(..16) == 0 {
        add(fields, "te", "trailers");
    }
}

const MODIFIED: &str = "Sun, 01 Nov 2026 10:00:00 GMT";

fn script(rng: &mut Rng) -> Answer {
    let status = *weighted(
        rng,
        &[
            (78, &200_u16),
            (5, &404),
            (3, &301),
            (3, &204),
            (2, &500),
            (2, &503),
            (2, &410),
            (1, &201),
            (1, &202),
            (1, &400),
            (1, &418),
            (1, &203),
        ],
    );
    let mut fields = Fields::new();
    let (kind, whole) = body(rng);
    if let Some(kind) = kind {
        add(&mut fields, "content-type", kind);
    }
    if rng.u8(..8) > 0 {
        let directives = [
            "max-age=3600",
            "max-age=3600",
            "public, max-age=600",
            "s-maxage=600",
            "max-age=600, must-revalidate",
            "no-store",
            "private",
            "no-cache",
            "max-age=0",
            "no-transform, max-age=600",
            "max-age=\"600\"",
            "max-age=600, max-age=5",
            "max-age=-1",
            "MAX-AGE=600",
            "private=\"x-custom\", max-age=600",
            "public",
            "max-age=600, stale-if-error=60",
            "must-understand, no-store, max-age=600",
            "immutable, max-age=600",
            "max-age=600,,,",
            "max-age 600",
        ];
        add(&mut fields, "cache-control", pick(rng, &directives));
    }
    if rng.u8(..2) == 0 {
        add(
            &mut fields,
            "etag",
            pick(
                rng,
                &["\"one\"", "W/\"one\"", "\"two\"", "\"\"", "unquoted"],
            ),
        );
    }
    if rng.u8(..3) == 0 {
        add(&mut fields, "last-modified", MODIFIED);
    }
    if rng.u8(..3) == 0 {
        let varies = [
            "accept-encoding",
            "Accept-Language",
            "*",
            "accept-encoding, x-custom",
            "x-custom",
            "Cookie",
            ",",
        ];
        add(&mut fields, "vary", pick(rng, &varies));
        if rng.u8(..4) == 0 {
            add(&mut fields, "vary", "accept");
        }
    }
    match rng.u8(..16) {
        0 => add(&mut fields, "expires", "0"),
        1 => add(&mut fields, "expires", "Fri, 01 Jan 2100 00:00:00 GMT"),
        2 => add(
            &mut fields,
            "age",
            pick(rng, &["0", "30", "99999", "x", "-3"]),
        ),
        _ => {}
    }
    if rng.u8(..16) == 0 {
        add(&mut fields, "set-cookie", "a=1; Path=/");
        add(&mut fields, "set-cookie", "b=2");
    }
    if rng.u8(..20) == 0 {
        add(
            &mut fields,
            "content-encoding",
            pick(rng, &["gzip", "identity", "br", "unknown"]),
        );
    }
    if rng.u8(..12) == 0 {
        add(&mut fields, "x-multi", "one");
        add(
            &mut fields,
            "x-multi",
            pick(rng, &["two", "", "three, four"]),
        );
    }
    if rng.u8(..24) == 0 {
        fields.push(("x-bytes".to_owned(), vec![0xff, b'b']));
    }
    if rng.u8(..20) == 0 {
        add(&mut fields, "accept-ranges", "bytes");
    }
    if rng.u8(..24) == 0 {
        add(
            &mut fields,
            "cdn-cache-control",
            pick(rng, &["max-age=900", "no-store", "max-age=\"9\""]),
        );
    }
    if status == 301 {
        add(&mut fields, "location", "/elsewhere");
    }
    let body = if status == 204 {
        Vec::new()
    } else {
        pieces(rng, whole)
    };
    let mut trailers = Fields::new();
    if !body.is_empty() && rng.u8(..12) == 0 {
        add(&mut trailers, "x-sum", "42");
    }
    Answer {
        status,
        fields,
        body,
        trailers,
        ..Answer::default()
    }
}

/// A media type and a body that is mostly of it.
fn body(rng: &mut Rng) -> (Option<&'static str>, Vec<u8>) {
    let size = weighted(
        rng,
        &[
            (1, &0_usize),
            (3, &40),
            (5, &700),
            (4, &4_000),
            (2, &20_000),
            (1, &70_000),
        ],
    );
    let size = if *size == 0 { 0 } else { rng.usize(1..=*size) };
    match rng.u8(..10) {
        0..=3 => {
            let kinds = [
                "application/json",
                "application/json; charset=utf-8",
                "application/problem+json",
                "APPLICATION/JSON",
            ];
            let mut text = json(rng, size);
            if rng.u8(..8) == 0 {
                // Not JSON all the way.
                let at = rng.usize(..=text.len());
                text.insert_str(
                    floor(&text, at),
                    pick(rng, &["}", "\u{1}", ",,", "\"", "nul"]),
                );
            }
            (Some(pick(rng, &kinds)), text.into_bytes())
        }
        4 | 5 => {
            let mut text = String::from("<!doctype html>\n");
            while text.len() < size {
                let _ = writeln!(
                    text,
                    "  <p class=\"c{}\">paragraph {}</p>",
                    rng.u8(..9),
                    rng.u16(..)
                );
            }
            (Some("text/html; charset=utf-8"), text.into_bytes())
        }
        6 | 7 => {
            let mut text = String::new();
            while text.len() < size {
                let _ = write!(
                    text,
                    "{} ",
                    pick(rng, &["weir", "water", "river", "flow", "gauge", "α"])
                );
            }
            (
                Some(pick(
                    rng,
                    &["text/plain", "text/css", "application/javascript"],
                )),
                text.into_bytes(),
            )
        }
        8 => {
            let kind = pick(rng, &["application/octet-stream", "image/png"]);
            (Some(kind), (0..size).map(|_| rng.u8(..)).collect())
        }
        _ => (None, (0..size).map(|at| (at % 251) as u8).collect()),
    }
}

/// A JSON document of about a size, with the white space of a person.
fn json(rng: &mut Rng, size: usize) -> String {
    let mut text = String::from("{\n");
    let mut number = 0;
    while text.len() < size {
        let _ = write!(text, "  \"key{number}\": ");
        match rng.u8(..7) {
            0 => text.push_str("null"),
            1 => {
                let _ = write!(text, "{}", rng.i32(..));
            }
            2 => text.push_str(pick(
                rng,
                &["1.50", "-0.0", "1e9", "12345678901234567890", "0"],
            )),
            3 => text.push_str(pick(rng, &["true", "false"])),
            4 => text.push_str(pick(
                rng,
                &["\"a  b\"", "\"\\u00e9\\n\"", "\"ü\"", "\"\\\"\"", "\"\""],
            )),
            5 => text.push_str("[ 1, 2 ,\t[ ] ]"),
            _ => text.push_str("{ \"inner\" : { } }"),
        }
        text.push_str(",\n");
        number += 1;
    }
    let _ = write!(text, "  \"last\": {number}\n}}\n");
    text
}

/// A body in one piece, or cut at random.
fn pieces(rng: &mut Rng, whole: Vec<u8>) -> Vec<Bytes> {
    let mut rest = Bytes::from(whole);
    let mut all = Vec::new();
    if rng.bool() {
        for _ in 0..rng.usize(1..=4) {
            if rest.len() < 2 {
                break;
            }
            let at = rng.usize(1..rest.len());
            all.push(rest.split_to(at));
        }
    }
    if !rest.is_empty() {
        all.push(rest);
    }
    all
}

fn add(fields: &mut Fields, name: &str, value: &str) {
    fields.push((name.to_owned(), value.as_bytes().to_vec()));
}

fn pick<'t>(rng: &mut Rng, all: &[&'t str]) -> &'t str {
    all[rng.usize(..all.len())]
}

fn weighted<'t, T: ?Sized>(rng: &mut Rng, all: &[(u32, &'t T)]) -> &'t T {
    let sum: u32 = all.iter().map(|(weight, _)| weight).sum();
    let mut at = rng.u32(..sum);
    for (weight, value) in all {
        if at < *weight {
            return value;
        }
        at -= weight;
    }
    all[0].1
}

/// The next place at or below which a character begins.
fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_session_every_time() {
        for seed in 0..50 {
            assert_eq!(Session::generate(seed), Session::generate(seed));
        }
        assert_ne!(Session::generate(1), Session::generate(2));
    }

    #[test]
    fn a_placed_session_is_its_own() {
        for seed in 0..200 {
            let session = Session::generate(seed).placed("r7");
            for step in &session.steps {
                assert!(
                    step.asked.target.starts_with("/r7/"),
                    "{}",
                    step.asked.target
                );
                assert_eq!(step.asked.text("x-client").as_deref(), Some("r7"));
            }
        }
    }

    #[test]
    fn everything_worth_comparing_occurs() {
        let steps: Vec<Step> = (0..2_000)
            .flat_map(|seed| Session::generate(seed).steps)
            .collect();
        type Is = fn(&Step) -> bool;
        let wanted: [(&str, Is); 12] = [
            ("HEAD", |step| step.asked.method == "HEAD"),
            ("a method of its own", |step| step.asked.method == "REPORT"),
            ("a request body in pieces", |step| step.asked.body.len() > 2),
            ("request trailers", |step| !step.asked.trailers.is_empty()),
            ("a condition", |step| {
                step.asked.text("if-none-match").is_some()
            }),
            ("a range", |step| step.asked.text("range").is_some()),
            ("bytes that are no text", |step| {
                step.asked.fields.iter().any(|(name, _)| name == "x-bytes")
            }),
            ("trailers", |step| !step.script.trailers.is_empty()),
            ("a large body", |step| step.script.whole().len() > 30_000),
            ("no content", |step| step.script.status == 204),
            ("two lines of a name", |step| {
                step.script
                    .fields
                    .iter()
                    .filter(|(name, _)| name == "vary")
                    .count()
                    == 2
            }),
            ("a coded body", |step| {
                step.script.text("content-encoding").is_some()
            }),
        ];
        for (what, is) in wanted {
            let count = steps.iter().filter(|step| is(step)).count();
            assert!(count > 5, "{what}: {count} of {}", steps.len());
        }
        for step in &steps {
            step.asked
                .target
                .parse::<http::Uri>()
                .expect("a target that can be sent");
        }
    }
}
