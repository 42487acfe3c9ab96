//! What differs between two answers to one request, and which differences mean nothing.

use std::borrow::Cow;
use std::collections::BTreeSet;

use edgeweir_host_cases::coding;

use crate::message::{Answer, Asked, Fields};

/// How a difference in a field is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// It may differ, and be on one side only.
    Ignored,
    /// Numbers in it may differ by one: a second passed between the two.
    Clock,
    /// It may be on one side only; where both have it, it is the same.
    Optional,
    /// The complete length after `*/` may differ.
    Length,
}

/// A field that is compared in a way of its own.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name; a `*` at the end stands for any rest.
    pub name: &'static str,
    /// How it is looked at.
    pub rule: Rule,
    /// Why that is right.
    pub why: &'static str,
}

/// Differences that are no fault of either side, by field. In documentation as they are here.
pub const KNOWN: &[Known] = &[
    known(
        "date",
        Rule::Ignored,
        "the moment of the response; whoever forwards one without it adds it (RFC 9110 §6.6.1)",
    ),
    known(
        "server",
        Rule::Ignored,
        "Envoy writes its own name in place of the origin's",
    ),
    known(
        "x-envoy-*",
        Rule::Ignored,
        "Envoy's own measurements and hints",
    ),
    known(
        "server-timing",
        Rule::Ignored,
        "how long it took (the host's and Envoy's own, where they are asked for it)",
    ),
    known("x-request-id", Rule::Ignored, "made up by each proxy"),
    known(
        "x-forwarded-proto",
        Rule::Ignored,
        "Envoy says how the client came; the host serves what it is told to and says nothing",
    ),
    known(
        "x-forwarded-for",
        Rule::Ignored,
        "both append the client's address, one with a space after the comma, one without",
    ),
    known(
        "connection",
        Rule::Ignored,
        "of one connection (RFC 9110 §7.6.1)",
    ),
    known(
        "keep-alive",
        Rule::Ignored,
        "of one connection (RFC 9110 §7.6.1)",
    ),
    known(
        "transfer-encoding",
        Rule::Ignored,
        "of one connection (RFC 9112 §6.1)",
    ),
    known("te", Rule::Ignored, "of one connection (RFC 9110 §10.1.4)"),
    known(
        "content-length",
        Rule::Optional,
        "a body of known length may be sent in chunks; the bodies themselves are compared",
    ),
    known(
        "content-range",
        Rule::Length,
        "a 416 says how long the stored representation is, and a coded one has no certain length; of a part of a coded one neither place nor bytes are compared",
    ),
    known(
        "trailer",
        Rule::Ignored,
        "a hint which fields follow the body; the trailer sections themselves are compared",
    ),
    known(
        "proxy-status",
        Rule::Optional,
        "the host says in it why it answered by itself (RFC 9209); Envoy says it in its access log",
    ),
    known("age", Rule::Clock, "seconds"),
    known("cache-status", Rule::Clock, "the ttl in it is in seconds"),
    known("retry-after", Rule::Clock, "seconds"),
    known(
        "ratelimit",
        Rule::Clock,
        "the time to the reset is in seconds",
    ),
    known(
        "x-ratelimit-*",
        Rule::Clock,
        "the time to the reset is in seconds",
    ),
    known("expires", Rule::Clock, "a second may have passed"),
];

const fn known(name: &'static str, rule: Rule, why: &'static str) -> Known {
    Known { name, rule, why }
}

/// What is left out of comparisons besides [`KNOWN`].
#[derive(Clone, Default, Debug)]
pub struct Ignored(pub BTreeSet<String>);

impl Ignored {
    fn rule(&self, name: &str) -> Option<Rule> {
        if self.0.contains(name) {
            return Some(Rule::Ignored);
        }
        KNOWN
            .iter()
            .find(|known| match known.name.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == known.name,
            })
            .map(|known| known.rule)
    }
}

/// One difference.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Difference {
    /// What differs: `status`, `field etag`, `body`, `origin: requests`.
    pub what: String,
    /// On the first side.
    pub first: String,
    /// On the second.
    pub second: String,
}

impl Difference {
    /// What makes two differences the same: what differs, and of callbacks also in which part of them.
    pub fn kind(&self) -> String {
        let part = |calls: &str| {
            let from = calls.find('[')?;
            Some(calls[from..=calls.rfind(']')?].to_owned())
        };
        match (part(&self.first), part(&self.second)) {
            (Some(first), Some(second)) if self.what.starts_with("callbacks") => {
                format!("{} {first} {second}", self.what)
            }
            _ => self.what.clone(),
        }
    }
}

fn difference(
    what: impl Into<String>,
    first: impl Into<String>,
    second: impl Into<String>,
) -> Difference {
    Difference {
        what: what.into(),
        first: first.into(),
        second: second.into(),
    }
}

/// How two responses differ.
pub fn answers(first: &Answer, second: &Answer, ignored: &Ignored) -> Vec<Difference> {
    let (first, second) = (&with_one_boundary(first), &with_one_boundary(second));
    let mut all = Vec::new();
    if first.status != second.status {
        all.push(difference(
            "status",
            first.status.to_string(),
            second.status.to_string(),
        ));
    }
    fields(&mut all, "field", &first.fields, &second.fields, ignored);
    if first.text("content-encoding").is_some() {
        // Of a coded body: see below.
        all.retain(|difference| difference.what != "field content-length");
    }
    if first.cut != second.cut {
        let word = |cut| if cut { "cut" } else { "whole" };
        all.push(difference("end of body", word(first.cut), word(second.cut)));
    }
    let cut = first.cut && second.cut;
    let coded = coding_of(first).is_some() || coding_of(second).is_some();
    if !(first.left_out || second.left_out || cut && coded) {
        let (mut a, mut b) = (first.whole(), second.whole());
        if cut {
            // How much of a body that breaks off arrives is a matter of time.
            let both = a.len().min(b.len());
            a.truncate(both);
            b.truncate(both);
        }
        // Where a coder was flushed depends on how the body arrived, and the padding against BREACH is drawn at random:
        // what counts is the text.
        let one_coding = first.decoded || coding_of(first) == coding_of(second);
        let texts = (one_coding && coding_of(first).is_some())
            .then(|| Some((text(first)?, text(second)?)))
            .flatten();
        match texts {
            Some((a, b)) => bodies(&mut all, "decoded body", &a, &b),
            None => bodies(&mut all, "body", &a, &b),
        }
    }
    fields(
        &mut all,
        "trailer",
        &first.trailers,
        &second.trailers,
        ignored,
    );
    // A part of a coded representation is a part of bytes that are another's: see above.
    if first.status == 206 && first.text("content-encoding").is_some() {
        let parts = ["field content-range", "body", "decoded body"];
        all.retain(|difference| !parts.contains(&difference.what.as_str()));
    }
    all
}

fn coding_of(answer: &Answer) -> Option<String> {
    answer.text("content-encoding")
}

/// What the body says; `None` where it is not of its codings.
fn text(answer: &Answer) -> Option<Vec<u8>> {
    if answer.decoded {
        return Some(answer.whole());
    }
    let codings = coding_of(answer).unwrap_or_default();
    coding::decoded(&codings, &answer.whole()).ok()
}

/// The boundary between parts is drawn at random (RFC 9110 §14.6): the same word stands in its place.
fn with_one_boundary(answer: &Answer) -> Cow<'_, Answer> {
    let kind = answer.text("content-type").unwrap_or_default();
    let boundary = kind
        .strip_prefix("multipart/byteranges")
        .and_then(|rest| rest.split_once("boundary="))
        .map(|(_, boundary)| boundary.trim_matches('"').as_bytes().to_vec())
        .filter(|boundary| !boundary.is_empty());
    let Some(boundary) = boundary else {
        return Cow::Borrowed(answer);
    };
    let mut plain = answer.clone();
    for (name, value) in &mut plain.fields {
        if name == "content-type" {
            *value = replaced(value, &boundary);
        }
    }
    plain.body = vec![replaced(&answer.whole(), &boundary).into()];
    Cow::Owned(plain)
}

fn replaced(text: &[u8], boundary: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(boundary.len()).position(|it| it == boundary) {
        all.extend_from_slice(&rest[..at]);
        all.extend_from_slice(b"BOUNDARY");
        rest = &rest[at + boundary.len()..];
    }
    all.extend_from_slice(rest);
    all
}

/// How what two origins received differs.
pub fn received(first: &[Asked], second: &[Asked], ignored: &Ignored) -> Vec<Difference> {
    let mut all = Vec::new();
    if first.len() != second.len() {
        let lines = |all: &[Asked]| {
            let lines: Vec<String> = all
                .iter()
                .map(|one| format!("{} {}", one.method, one.target))
                .collect();
            format!("{} ({})", all.len(), lines.join(", "))
        };
        all.push(difference("origin: requests", lines(first), lines(second)));
        return all;
    }
    for (first, second) in first.iter().zip(second) {
        let line = |one: &Asked| format!("{} {}", one.method, one.target);
        if line(first) != line(second) {
            all.push(difference("origin: request", line(first), line(second)));
        }
        fields(
            &mut all,
            "origin: field",
            &first.fields,
            &second.fields,
            ignored,
        );
        bodies(
            &mut all,
            "origin: body",
            &first.body.concat(),
            &second.body.concat(),
        );
        fields(
            &mut all,
            "origin: trailer",
            &first.trailers,
            &second.trailers,
            ignored,
        );
    }
    all
}

/// Names in any order; the lines of one name in theirs.
fn fields(
    all: &mut Vec<Difference>,
    what: &str,
    first: &Fields,
    second: &Fields,
    ignored: &Ignored,
) {
    let names: BTreeSet<&str> = first
        .iter()
        .chain(second)
        .map(|(name, _)| name.as_str())
        .collect();
    for name in names {
        let lines = |fields: &Fields| {
            let lines = fields.iter().filter(|(it, _)| it == name);
            lines
                .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                .collect::<Vec<_>>()
        };
        let (a, b) = (lines(first), lines(second));
        if a == b {
            continue;
        }
        // RFC 9110 §5.3: lines of one name may be combined into one, with a comma between; Set-Cookie may not.
        let combined = |lines: &[String]| {
            let members = lines.iter().flat_map(|line| line.split(',')).map(str::trim);
            members.map(str::to_owned).collect::<Vec<_>>()
        };
        if !a.is_empty() && !b.is_empty() && name != "set-cookie" && combined(&a) == combined(&b) {
            continue;
        }
        let same = match ignored.rule(name) {
            Some(Rule::Ignored) => true,
            Some(Rule::Optional) => a.is_empty() || b.is_empty(),
            Some(Rule::Length) => {
                let length_alone =
                    |lines: &[String]| lines.len() == 1 && lines[0].starts_with("bytes */");
                length_alone(&a) && length_alone(&b)
            }
            Some(Rule::Clock) => {
                a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| within_a_second(a, b))
            }
            None => false,
        };
        if !same {
            let shown = |lines: Vec<String>| {
                if lines.is_empty() {
                    "(none)".to_owned()
                } else {
                    lines.join(" | ")
                }
            };
            all.push(difference(format!("{what} {name}"), shown(a), shown(b)));
        }
    }
}

/// The same text but for numbers that differ by at most one; dates, when they differ by at most a second.
fn within_a_second(first: &str, second: &str) -> bool {
    if let (Ok(a), Ok(b)) = (
        httpdate::parse_http_date(first),
        httpdate::parse_http_date(second),
    ) {
        let apart = a.duration_since(b).or_else(|_| b.duration_since(a));
        return apart.is_ok_and(|apart| apart.as_secs() <= 1);
    }
    let (mut a, mut b) = (Tokens(first), Tokens(second));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) if a.abs_diff(b) <= 1 => {}
                _ => return false,
            },
            _ => return false,
        }
    }
}

/// Runs of digits and runs of anything else.
struct Tokens<'t>(&'t str);

impl<'t> Iterator for Tokens<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let digits = self.0.chars().next()?.is_ascii_digit();
        let end = self
            .0
            .find(|c: char| c.is_ascii_digit() != digits)
            .unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(token)
    }
}

fn bodies(all: &mut Vec<Difference>, what: &str, first: &[u8], second: &[u8]) {
    if first == second {
        return;
    }
    let at = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    let shown = |body: &[u8]| {
        let from = at.saturating_sub(12);
        let to = (at + 28).min(body.len());
        let part = body.get(from..to).unwrap_or_default();
        format!(
            "{} bytes, at {from}: {:?}",
            body.len(),
            String::from_utf8_lossy(part)
        )
    };
    all.push(difference(what, shown(first), shown(second)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fields: &[(&str, &str)], body: &str) -> Answer {
        Answer {
            status: 200,
            fields: fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
            body: vec![body.to_owned().into()],
            ..Answer::default()
        }
    }

    #[test]
    fn only_what_means_something_differs() {
        for (case, first, second, want) in [
            (
                "order of names",
                vec![("a", "1"), ("b", "2")],
                vec![("b", "2"), ("a", "1")],
                None,
            ),
            (
                "order of lines",
                vec![("a", "1"), ("a", "2")],
                vec![("a", "2"), ("a", "1")],
                Some("field a"),
            ),
            (
                "a name of its own",
                vec![("server", "x")],
                vec![("server", "envoy")],
                None,
            ),
            (
                "any rest of a name",
                vec![],
                vec![("x-envoy-upstream-service-time", "1")],
                None,
            ),
            (
                "a second later",
                vec![("age", "9")],
                vec![("age", "10")],
                None,
            ),
            (
                "more than a second",
                vec![("age", "9")],
                vec![("age", "11")],
                Some("field age"),
            ),
            (
                "seconds in a text",
                vec![("cache-status", "edgeweir; hit; ttl=53")],
                vec![("cache-status", "edgeweir; hit; ttl=52")],
                None,
            ),
            (
                "not only seconds",
                vec![("cache-status", "edgeweir; hit; ttl=53")],
                vec![("cache-status", "edgeweir; fwd=stale; ttl=53")],
                Some("field cache-status"),
            ),
            (
                "dates",
                vec![("expires", "Sat, 21 Nov 2026 15:59:59 GMT")],
                vec![("expires", "Sat, 21 Nov 2026 16:00:00 GMT")],
                None,
            ),
            (
                "a length that is not needed",
                vec![("content-length", "3")],
                vec![],
                None,
            ),
            (
                "a wrong length",
                vec![("content-length", "3")],
                vec![("content-length", "4")],
                Some("field content-length"),
            ),
            (
                "not there",
                vec![("etag", "\"a\"")],
                vec![],
                Some("field etag"),
            ),
        ] {
            let all = answers(
                &answer(&first, "x"),
                &answer(&second, "x"),
                &Ignored::default(),
            );
            let got = all.first().map(|difference| difference.what.as_str());
            assert_eq!(got, want, "{case}");
        }
    }

    #[test]
    fn parts_may_be_bounded_by_any_word() {
        let parts = |boundary: &str, text: &str| {
            let kind = format!("multipart/byteranges; boundary={boundary}");
            answer(
                &[("content-type", &kind)],
                &format!("--{boundary}\r\n\r\n{text}\r\n--{boundary}--\r\n"),
            )
        };
        assert!(answers(&parts("a1", "x"), &parts("b2", "x"), &Ignored::default()).is_empty());
        let all = answers(&parts("a1", "x"), &parts("b2", "y"), &Ignored::default());
        assert_eq!(all[0].what, "body");
    }

    #[test]
    fn of_bodies_that_break_off_what_both_have_is_compared() {
        let cut = |body: &str| Answer {
            cut: true,
            ..answer(&[], body)
        };
        let what = |first: &Answer, second: &Answer| {
            let all = answers(first, second, &Ignored::default());
            all.first().map(|it| it.what.clone())
        };
        assert_eq!(what(&cut("a weir"), &cut("a w")), None);
        let body = Some("body".to_owned());
        assert_eq!(what(&cut("a weir"), &cut("a x")), body);
        let end = Some("end of body".to_owned());
        assert_eq!(what(&cut("a weir"), &answer(&[], "a weir")), end);
    }

    /// "a weir" in zlib's form, deflated and stored.
    const DEFLATED: &[u8] = b"\x78\x9c\x4b\x54\x28\x4f\xcd\x2c\x02\x00\x07\x3b\x02\x39";
    const STORED: &[u8] = b"\x78\x01\x01\x06\x00\xf9\xff\x61\x20\x77\x65\x69\x72\x07\x3b\x02\x39";

    #[test]
    fn coded_bodies_are_compared_by_what_they_say() {
        let coded = |body: &[u8]| Answer {
            body: vec![body.to_vec().into()],
            ..answer(&[("content-encoding", "deflate")], "")
        };
        let decoded = |body: &[u8]| Answer {
            decoded: true,
            ..coded(body)
        };
        let longer = [DEFLATED, b"GARBAGE!!!!!"].concat();
        let plain = answer(&[], "a weir");
        for (case, first, second, want) in [
            ("another coder", coded(DEFLATED), coded(STORED), None),
            (
                "more behind it",
                coded(DEFLATED),
                coded(&longer),
                Some("body"),
            ),
            (
                "only the text is known",
                decoded(b"a weir"),
                coded(STORED),
                None,
            ),
            (
                "another text",
                decoded(b"a wire"),
                coded(STORED),
                Some("decoded body"),
            ),
            ("no text", decoded(b"a weir"), coded(&longer), Some("body")),
            (
                "coded no more",
                decoded(b"a weir"),
                plain,
                Some("field content-encoding"),
            ),
        ] {
            let all = answers(&first, &second, &Ignored::default());
            let got: Vec<&str> = all.iter().map(|it| it.what.as_str()).collect();
            assert_eq!(got, want.map_or(vec![], |it| vec![it]), "{case}");
        }
    }

    #[test]
    fn a_body_says_where_it_differs() {
        let all = answers(
            &answer(&[], "0123456789abcdefX"),
            &answer(&[], "0123456789abcdefY!"),
            &Ignored::default(),
        );
        assert_eq!(all[0].what, "body");
        assert_eq!(all[0].first, "17 bytes, at 4: \"456789abcdefX\"");
    }

    #[test]
    fn what_a_user_ignores_is_ignored() {
        let ignored = Ignored(["etag".to_owned()].into());
        assert!(
            answers(
                &answer(&[("etag", "1")], ""),
                &answer(&[("etag", "2")], ""),
                &ignored
            )
            .is_empty()
        );
    }

    #[test]
    fn the_page_has_the_same_table() {
        let page = include_str!("../../docs/diff.md");
        for known in KNOWN {
            let word = match known.rule {
                Rule::Ignored => "may differ",
                Rule::Clock => "by one second",
                Rule::Optional => "may be absent",
                Rule::Length => "by its length",
            };
            let row = format!("| `{}` | {word} | {} |", known.name, known.why);
            assert!(page.contains(&row), "host/docs/diff.md lacks: {row}");
        }
    }

    #[test]
    fn each_known_difference_has_a_reason() {
        for known in KNOWN {
            assert!(known.why.len() > 5, "{}", known.name);
        }
    }
}
