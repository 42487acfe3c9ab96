//! `edgeweir purge`: invalidates what an edge's cache has, by its admin path.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::ask::{Asker, Edge, Keep};
use crate::secret;

/// Groups the cache takes in one request.
const GROUPS: usize = 100;
/// The largest answer read.
const LARGEST: usize = 1 << 20;
/// Where the token is looked for without --token-file.
pub const VARIABLE: &str = "EDGEWEIR_CACHE_TOKEN";

/// Arguments of `purge`.
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct Purge {
    /// Where the edge listens, such as http://127.0.0.1:8000; given more than once, each of them is told.
    #[arg(long, value_name = "URL", required = true)]
    pub edge: Vec<Edge>,
    /// A URL, or a path of the edge's own host: what is stored under it, for all users and variants.
    #[arg(long, value_name = "URL", group = "what")]
    pub url: Vec<String>,
    /// A group by Surrogate-Key, Cache-Tag or Cache-Groups.
    #[arg(long, value_name = "NAME", group = "what")]
    pub tag: Vec<String>,
    /// The beginning of paths.
    #[arg(long, value_name = "PATH", group = "what")]
    pub prefix: Vec<String>,
    /// Host and path with `*` (any bytes) and `?` (any one).
    #[arg(long, value_name = "PATTERN", group = "what")]
    pub pattern: Vec<String>,
    /// Everything.
    #[arg(long, group = "what", conflicts_with_all = ["url", "tag", "prefix", "pattern"])]
    pub all: bool,
    /// Make it stale instead of unusable: it is validated, and serves while the origin is away.
    #[arg(long)]
    pub soft: bool,
    /// With --soft: each key becomes stale at a moment of its own within so many seconds.
    #[arg(long, value_name = "SECONDS", requires = "soft", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub spread: Option<u16>,
    /// Touch nothing, and say what the worker that answers holds of it.
    #[arg(long)]
    pub dry_run: bool,
    /// The file with the cache's `admin.token` in its first line; without it the environment's EDGEWEIR_CACHE_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The cache's `admin.path`.
    #[arg(long, value_name = "PATH", default_value = "/.edgeweir/cache")]
    pub path: String,
    /// How long an answer may take, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,
    /// The answers as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Does it. `Ok(false)` when an edge refused or did not answer.
pub async fn execute(arguments: &Purge) -> anyhow::Result<bool> {
    let token = secret::token(arguments.token_file.as_deref(), VARIABLE)?;
    let Some(token) = token else {
        bail!("the cache wants its `admin.token`: give --token-file, or set {VARIABLE}");
    };
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))?;
    bearer.set_sensitive(true);
    let mut good = true;
    let mut answers = Vec::new();
    for edge in &arguments.edge {
        let asker = Asker::new(
            Some(edge.clone()),
            Duration::from_millis(arguments.timeout_ms),
        )?;
        for (what, query) in queries(arguments) {
            let url = format!("{}/purge?{query}", arguments.path);
            let fields = [(AUTHORIZATION, bearer.clone())];
            let answer = asker
                .ask(Method::POST, &url, &fields, Keep::UpTo(LARGEST))
                .await
                .with_context(|| format!("{edge}: {what}"));
            let answer = answer.map(|answer| {
                let body = serde_json::from_slice(&answer.body).ok();
                (answer.status, body)
            });
            let done = matches!(&answer, Ok((status, body)) if status.is_success() && is_ours(body.as_ref()));
            good &= done;
            if arguments.json {
                answers.push(in_json(edge, &what, done, &answer));
                continue;
            }
            let said = match &answer {
                Err(error) => format!("{error:#}"),
                Ok((status, body)) => {
                    let words = in_words(done, status.as_u16(), body.as_ref());
                    format!("{edge}: {what}: {words}")
                }
            };
            print(&format!("{said}\n"));
        }
    }
    if arguments.json {
        print(&format!("{:#}\n", Value::from(answers)));
    }
    Ok(good)
}

/// What to ask an edge for: each in words, and as the cache's admin path takes it.
fn queries(arguments: &Purge) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (option, name, values) in [
        ("url", "key", &arguments.url),
        ("prefix", "prefix", &arguments.prefix),
        ("pattern", "pattern", &arguments.pattern),
    ] {
        for value in values {
            found.push((
                format!("{option} {value}"),
                format!("{name}={}", encoded(value)),
            ));
        }
    }
    for tags in arguments.tag.chunks(GROUPS) {
        let query: Vec<_> = tags
            .iter()
            .map(|tag| format!("tag={}", encoded(tag)))
            .collect();
        found.push((format!("tag {}", tags.join(", ")), query.join("&")));
    }
    if arguments.all {
        found.push(("everything".to_owned(), "all=1".to_owned()));
    }
    for (_, query) in &mut found {
        if arguments.soft {
            query.push_str("&soft=1");
        }
        if let Some(seconds) = arguments.spread {
            query.push_str(&format!("&spread={seconds}"));
        }
        if arguments.dry_run {
            query.push_str("&dry_run=1");
        }
    }
    found
}

/// What an edge answered, or why there is no answer.
fn in_json(
    edge: &Edge,
    what: &str,
    done: bool,
    answer: &anyhow::Result<(StatusCode, Option<Value>)>,
) -> Value {
    let answered = answer.as_ref().ok();
    json!({
        "edge": edge.to_string(),
        "what": what,
        "done": done,
        "status": answered.map(|(status, _)| status.as_u16()),
        "answer": answered.and_then(|(_, body)| body.as_ref()),
        "error": answer.as_ref().err().map(|error| format!("{error:#}")),
    })
}

/// An origin that answers POST kindly has invalidated nothing.
fn is_ours(body: Option<&Value>) -> bool {
    body.is_some_and(|body| body.get("invalidated").is_some_and(Value::is_boolean))
}

fn in_words(done: bool, status: u16, body: Option<&Value>) -> String {
    let text = |name: &str| body.and_then(|body| body.get(name)).and_then(Value::as_str);
    if !done {
        let detail = text("detail").or_else(|| text("title"));
        let why = match (status, detail) {
            (_, Some(detail)) => detail,
            (200..=299, None) => {
                "the answer is not the cache's: has it an `admin.token`, and is --path its `admin.path`?"
            }
            _ => "the answer is not the cache's",
        };
        return format!("refused with {status}: {why}");
    }
    let get = |name: &str| body.and_then(|body| body.get(name));
    let did = match (get("invalidated") == Some(&Value::Bool(true)), get("soft")) {
        (false, _) => "would be invalidated",
        (true, Some(Value::Bool(true))) => "stale now",
        (true, _) => "invalidated",
    };
    let held = get("held_here").and_then(Value::as_u64).unwrap_or(0);
    let mut words = format!("{did}; the worker that answered held {held} of it");
    if let Some(examples) = get("for_example").and_then(Value::as_array)
        && !examples.is_empty()
    {
        let shown: Vec<_> = examples.iter().filter_map(Value::as_str).take(5).collect();
        words.push_str(&format!(": {}", shown.join(", ")));
    }
    words
}

/// Percent-encoding of all but the unreserved (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Prints, and does not mind when nobody reads any more.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Purge, clap::Error> {
        let command = Purge::augment_args(clap::Command::new("purge"));
        let all = ["purge", "--edge", "e:1"].iter().chain(arguments);
        Purge::from_arg_matches(&command.try_get_matches_from(all)?)
    }

    #[test]
    fn what_is_asked_for_is_what_the_cache_takes() {
        for (arguments, want) in [
            (&["--all"][..], &["all=1"][..]),
            (&["--url", "/a?b=c d"], &["key=/a%3Fb%3Dc%20d"]),
            (
                &["--url", "http://a.test/", "--tag", "x", "--tag", "y&z"],
                &["key=http%3A//a.test/", "tag=x&tag=y%26z"],
            ),
            (
                &["--prefix", "/img/", "--soft", "--spread", "60"],
                &["prefix=/img/&soft=1&spread=60"],
            ),
            (
                &["--pattern", "*/i/*.png", "--dry-run"],
                &["pattern=%2A/i/%2A.png&dry_run=1"],
            ),
        ] {
            let queries = queries(&parsed(arguments).unwrap());
            let queries: Vec<_> = queries.into_iter().map(|(_, query)| query).collect();
            assert_eq!(queries, want, "{arguments:?}");
        }
        for wrong in [
            &[][..],
            &["--all", "--tag", "x"],
            &["--all", "--spread", "9"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_did_not_answer_says_why_in_json_too() {
        let edge: Edge = "e:1".parse().unwrap();
        let refused = anyhow::anyhow!("connection refused").context("http://e:1: everything");
        let json = in_json(&edge, "everything", false, &Err(refused));
        assert_eq!(json["error"], "http://e:1: everything: connection refused");
        assert_eq!(json["status"], Value::Null);
        let body = json!({ "invalidated": true });
        let json = in_json(&edge, "everything", true, &Ok((StatusCode::OK, Some(body))));
        assert_eq!(json["answer"]["invalidated"], true);
        assert_eq!(
            (&json["status"], &json["error"]),
            (&json!(200), &Value::Null)
        );
    }

    #[test]
    fn what_an_edge_says_is_told_in_words() {
        for (status, body, want) in [
            (
                200,
                r#"{"invalidated":true,"soft":false,"held_here":2,"for_example":["a/1","a/2"]}"#,
                "invalidated; the worker that answered held 2 of it: a/1, a/2",
            ),
            (
                200,
                r#"{"invalidated":false,"held_here":0}"#,
                "would be invalidated; the worker that answered held 0 of it",
            ),
            (
                200,
                r#"{"invalidated":true,"soft":true,"held_here":1}"#,
                "stale now; the worker that answered held 1 of it",
            ),
            (
                401,
                r#"{"title":"unauthorized","detail":"missing"}"#,
                "refused with 401: missing",
            ),
            (
                200,
                "{}",
                "refused with 200: the answer is not the cache's: has it an `admin.token`, and is --path its `admin.path`?",
            ),
        ] {
            let body: Value = serde_json::from_str(body).unwrap();
            let done = status == 200 && is_ours(Some(&body));
            assert_eq!(in_words(done, status, Some(&body)), want);
        }
    }
}
