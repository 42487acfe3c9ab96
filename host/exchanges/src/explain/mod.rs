//! `edgeweir explain`: why a response was not cached, not compressed, not minified, or refused.

mod reasons;
mod time;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use edgeweir_host_launch::{Edge, Options, Side};
use http::Uri;
use serde_json::Value;

use crate::client::Client;
use crate::message::{Answer, Asked};
use crate::terminal::{said, say};

pub use reasons::{ALL, MEASURES, Reason, of, of_detail};

/// Modules count when an exchange has ended, a moment after the client has its last byte; components tell what they counted
/// 50 ms later. What has not changed for so long is what the exchange before left.
const QUIET: Duration = Duration::from_millis(150);
/// How often counters are read meanwhile.
const STEP: Duration = Duration::from_millis(30);
/// Where others ask all the time counters never stand still: no longer than this.
const PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of `explain`.
#[derive(clap::Args, Debug)]
pub struct Explain {
    /// A method (GET without one) and a URL.
    #[arg(required = true, num_args = 1..=2, value_name = "[METHOD] URL")]
    pub request: Vec<String>,
    /// Start this configuration (.toml) with its own upstreams and ask it; without it, or --at, the URL's own host is asked.
    #[arg(long, value_name = "SIDE", conflicts_with = "at")]
    pub config: Option<Side>,
    /// Ask what runs there (http://127.0.0.1:8000) in place of the URL's host.
    #[arg(long, value_name = "URL")]
    pub at: Option<Side>,
    /// The admin pages of what is asked, a host's or Envoy's, for its counters.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    pub admin: Option<Side>,
    /// The file with the host's `admin.token` in its first line; without it the environment's EDGEWEIR_ADMIN_TOKEN.
    #[arg(long, value_name = "FILE", requires = "admin")]
    pub token_file: Option<PathBuf>,
    /// The listener to ask; the first without it.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// A field of the request, such as 'accept-encoding: gzip'; may be repeated.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = field)]
    pub fields: Vec<(String, Vec<u8>)>,
    /// How often it is sent: what is stored by the first request shows in the second.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub times: u8,
    /// Envoy's program; else EDGEWEIR_ENVOY, else `envoy` of the PATH.
    #[arg(long, value_name = "FILE")]
    pub envoy: Option<PathBuf>,
}

/// Asks and explains; the token is that of the admin pages `--admin` names.
pub fn execute(arguments: &Explain, token: Option<String>) -> Result<()> {
    let (asked, own) = request(arguments)?;
    let options = Options {
        listener: arguments.listener.clone(),
        envoy: arguments.envoy.clone(),
        ..Options::default()
    };
    let child = match &arguments.config {
        None => None,
        Some(Side::Url(_)) => bail!("--config is a configuration; --at is for what runs already"),
        Some(side) => {
            let edge = |file: &Path| Edge::with_upstreams(file).map(Edge::with_cpu_time);
            side.start(edge, &options)?
        }
    };
    let target = match (&child, &arguments.at) {
        (Some(child), _) => child.address,
        (None, Some(Side::Url(address))) => *address,
        (None, Some(_)) => bail!("--at is an address, such as http://127.0.0.1:8000"),
        (None, None) => own.context(
            "https is not spoken here: name what runs in the clear with --at, or a --config",
        )?,
    };
    let admin = match (&child, &arguments.admin) {
        (Some(child), _) => child.admin.map(|address| Admin {
            address,
            token: None,
        }),
        (None, Some(Side::Url(address))) => Some(Admin {
            address: *address,
            token,
        }),
        (None, Some(_)) => bail!("--admin is an address, such as http://127.0.0.1:9901"),
        (None, None) => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut client = Client::new(target);
    say(&format!(
        "{} http://{}{}\n",
        asked.method, asked.authority, asked.target
    ));
    let settled = || match &admin {
        Some(admin) => still(|| admin.counters()),
        None => Ok(Counters::default()),
    };
    let spent = || admin.as_ref().map(time::spent).unwrap_or_default();
    let (mut before, mut spent_before) = (settled()?, spent());
    for number in 1..=arguments.times {
        let began = Instant::now();
        let answer = runtime
            .block_on(client.send(&asked))
            .map_err(|error| said(error, child.as_ref()))?;
        let took = began.elapsed();
        let (after, spent_after) = (settled()?, spent());
        say(&format!(
            "\n{number}. {}, {} bytes, {:.1} ms\n",
            answer.status,
            answer.whole().len(),
            took.as_secs_f64() * 1e3
        ));
        for line in explained(&answer, &grown(&before, &after)) {
            say(&format!("   {line}\n"));
        }
        if let Some(line) = time::line(&spent_before, &spent_after) {
            say(&format!("   {line}\n"));
        }
        (before, spent_before) = (after, spent_after);
    }
    if admin.is_none() {
        say(
            "\nWithout --admin only what the response says is known: filters count more than they say in fields.\n",
        );
    }
    Ok(())
}

/// The request, and the address of the URL's host where it is one that can be asked.
fn request(arguments: &Explain) -> Result<(Asked, Option<SocketAddr>)> {
    let (method, url) = match arguments.request.as_slice() {
        [url] => ("GET", url),
        [method, url] => (method.as_str(), url),
        _ => bail!("a method and a URL"),
    };
    let with_scheme = if url.contains("://") {
        url.clone()
    } else {
        format!("http://{url}")
    };
    let uri: Uri = with_scheme
        .parse()
        .with_context(|| format!("\"{url}\" is no URL"))?;
    let authority = uri
        .authority()
        .with_context(|| format!("\"{url}\" names no host"))?;
    let own = match uri.scheme_str() {
        // Asked only where nothing else is named: a host that is not known here may be behind what is.
        Some("http") if arguments.config.is_none() && arguments.at.is_none() => {
            match format!("http://{authority}").parse::<Side>() {
                Ok(Side::Url(address)) => Some(address),
                Ok(_) => None,
                Err(error) => bail!("{error}"),
            }
        }
        _ => None,
    };
    // A Host that is given is the one that is sent: two are answered with 400 (RFC 9112 §3.2).
    let (hosts, fields): (Vec<_>, Vec<_>) = arguments
        .fields
        .iter()
        .cloned()
        .partition(|(name, _)| name == "host");
    let host = match hosts.as_slice() {
        [] => authority.to_string(),
        [(_, host)] => String::from_utf8_lossy(host).into_owned(),
        _ => bail!("-H gives more than one host"),
    };
    let asked = Asked {
        method: method.to_ascii_uppercase(),
        authority: host,
        target: uri
            .path_and_query()
            .map_or("/".to_owned(), ToString::to_string),
        fields,
        ..Asked::default()
    };
    Ok((asked, own))
}

/// Counters by their full names.
type Counters = BTreeMap<String, u64>;

/// What `read` says when it has not changed for a while, or when patience is over.
fn still(mut read: impl FnMut() -> Result<Counters>) -> Result<Counters> {
    let began = Instant::now();
    let (mut seen, mut since) = (read()?, Instant::now());
    while since.elapsed() < QUIET && began.elapsed() < PATIENCE {
        std::thread::sleep(STEP);
        let now = read()?;
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
    Ok(seen)
}

/// Admin pages, a host's or an Envoy's.
struct Admin {
    address: SocketAddr,
    /// A host's `admin.token`.
    token: Option<String>,
}

impl Admin {
    /// The counters of the filters.
    fn counters(&self) -> Result<Counters> {
        if let Some(stats) = self.stats()? {
            return Ok(of_host(&stats));
        }
        let text = edgeweir_host_launch::get(self.address, "/stats?filter=^wasmcustom")?;
        Ok(of_envoy(&text))
    }

    /// A host's own statistics; `None` of an Envoy, which has no such page.
    fn stats(&self) -> Result<Option<Value>> {
        let (address, page) = (self.address, "/stats.json");
        let answer = edgeweir_host_launch::answer(address, page, self.token.as_deref())?;
        match answer {
            (200, text) => {
                let stats = serde_json::from_str(&text);
                stats.context("/stats.json is no JSON").map(Some)
            }
            (401, _) => bail!(
                "http://{address}{page}: the token is missing or wrong: give --token-file, or set EDGEWEIR_ADMIN_TOKEN"
            ),
            _ => Ok(None),
        }
    }
}

fn of_host(stats: &Value) -> Counters {
    let mut all = BTreeMap::new();
    for filter in stats["filters"].as_array().into_iter().flatten() {
        for (name, value) in filter["counters"].as_object().into_iter().flatten() {
            *all.entry(name.clone()).or_insert(0) += value.as_u64().unwrap_or_default();
        }
    }
    all
}

/// `wasmcustom.edgeweir.cache.hit: 3`.
fn of_envoy(text: &str) -> Counters {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.strip_prefix("wasmcustom.")?.rsplit_once(": ")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn grown(before: &Counters, after: &Counters) -> Vec<String> {
    after
        .iter()
        .filter(|(name, value)| **value > before.get(*name).copied().unwrap_or_default())
        .map(|(name, _)| name.clone())
        .collect()
}

/// One line for each thing that happened, the outermost filter's first.
fn explained(answer: &Answer, grown: &[String]) -> Vec<String> {
    let mut found: Vec<&'static Reason> = Vec::new();
    for counter in grown {
        found.extend(of(counter));
    }
    // What no counter says, the fields may: of another hop, or without admin pages.
    let mut lines = Vec::new();
    for (_, status) in answer
        .fields
        .iter()
        .filter(|(name, _)| name == "cache-status")
    {
        let status = String::from_utf8_lossy(status).into_owned();
        let detail = parameter(&status, "detail").and_then(|detail| of_detail(&detail));
        if let Some(reason) =
            detail.filter(|reason| !found.iter().any(|it| it.counter == reason.counter))
        {
            found.push(reason);
        }
        lines.push(format!("Cache-Status  {status}"));
        lines.extend(status_in_words(&status).map(|words| format!("              {words}")));
    }
    // What nothing stored answers is counted before it is known that the request may not go on: it did not.
    if found.iter().any(|it| it.counter == "cache.only_if_cached") {
        found.retain(|it| !it.counter.starts_with("cache.forwarded."));
    }
    // In the order of a chain, and of what happens within a filter.
    let order = |reason: &&Reason| {
        let filter = ["ratelimit.", "cache.", "compress.", "minify."]
            .iter()
            .position(|start| reason.counter.starts_with(start));
        let at = ALL.iter().position(|it| it.counter == reason.counter);
        (filter, at)
    };
    found.sort_by_key(order);
    for reason in found {
        let (filter, name) = reason
            .counter
            .split_once('.')
            .unwrap_or((reason.counter, ""));
        let name = name.rsplit('.').next().unwrap_or(name);
        let mut line = format!("{filter:<13} {} [{name}]", reason.says);
        if !reason.rfc.is_empty() {
            line.push_str(&format!(" ({})", reason.rfc));
        }
        lines.push(line);
        if !reason.change.is_empty() {
            lines.push(format!("              to change: {}", reason.change));
        }
    }
    for name in [
        "content-encoding",
        "retry-after",
        "ratelimit",
        "server-timing",
    ] {
        for (_, value) in answer.fields.iter().filter(|(it, _)| it == name) {
            lines.push(format!(
                "{:<13} {}",
                title(name),
                String::from_utf8_lossy(value)
            ));
        }
    }
    lines
}

/// The hops of a `Cache-Status` (RFC 9211 §2), the last (nearest to the client) in words.
fn status_in_words(status: &str) -> Option<String> {
    let hop = status.rsplit(',').next()?.trim();
    let has = |name: &str| hop.split(';').any(|part| part.trim() == name);
    let ttl = parameter(hop, "ttl").and_then(|ttl| ttl.parse::<i64>().ok());
    let freshness = match ttl {
        Some(ttl) if ttl >= 0 => format!(", fresh for {ttl} s more"),
        Some(ttl) => format!(", stale for {} s", -ttl),
        None => String::new(),
    };
    if has("hit") {
        return Some(format!("a hit{freshness} (RFC 9211 §2.1)"));
    }
    let why = match parameter(hop, "fwd")?.as_str() {
        "bypass" => "the cache was told not to handle it",
        "method" => "the method is not one that is cached",
        "uri-miss" => "nothing is stored for the URI",
        "vary-miss" => "what is stored is for other values of the fields Vary names",
        "miss" => "nothing stored could be used",
        "request" => "the request's own directives forbid what is stored",
        "stale" => "what is stored is stale",
        "partial" => "only a part is stored",
        _ => return None,
    };
    let stored = if has("stored") {
        "stored"
    } else {
        "not stored"
    };
    Some(format!(
        "went to the origin: {why}; the response was {stored}{freshness} (RFC 9211 §2.2)"
    ))
}

fn parameter(hop: &str, name: &str) -> Option<String> {
    let found = hop
        .split(';')
        .filter_map(|part| part.trim().split_once('='));
    let mut found = found.filter(|(it, _)| *it == name);
    found
        .next()
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

fn title(name: &str) -> &'static str {
    match name {
        "content-encoding" => "Coding",
        "retry-after" => "Retry-After",
        "ratelimit" => "RateLimit",
        _ => "Server-Timing",
    }
}

fn field(text: &str) -> Result<(String, Vec<u8>), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("\"{text}\" is not NAME: VALUE"))?;
    let name = http::HeaderName::from_bytes(name.trim().as_bytes())
        .map_err(|_| format!("\"{name}\" is no field name"))?;
    Ok((name.as_str().to_owned(), value.trim().as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fields: &[(&str, &str)]) -> Answer {
        Answer {
            status: 200,
            fields: fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
            ..Answer::default()
        }
    }

    #[test]
    fn counters_become_sentences_in_the_order_of_the_chain() {
        let grown = [
            "edgeweir.minify.minified",
            "edgeweir.cache.refused.no_store",
            "edgeweir.cache.forwarded.absent",
            "edgeweir.cache.miss",
            "edgeweir.ratelimit.admitted",
            "edgeweir.ratelimit.rule.default.admitted",
            "edgeweir.compress.skipped.no_accept_encoding",
        ]
        .map(str::to_owned);
        let lines = explained(&answer(&[]), &grown);
        let starts: Vec<&str> = lines
            .iter()
            .map(|line| line.split(' ').next().unwrap_or_default())
            .collect();
        assert_eq!(
            starts,
            ["ratelimit", "cache", "cache", "", "compress", "", "minify"]
        );
        assert_eq!(
            lines[2],
            "cache         not stored: the response says no-store [no_store] (RFC 9111 §5.2.2.5)"
        );
        assert_eq!(
            lines[3],
            "              to change: the origin's Cache-Control, or CDN-Cache-Control for this cache alone"
        );
    }

    #[test]
    fn cache_status_alone_explains_too() {
        for (status, words) in [
            ("edgeweir; hit; ttl=53", "a hit, fresh for 53 s more"),
            (
                "origin; hit, edgeweir; fwd=uri-miss; fwd-status=200; ttl=60; stored",
                "the response was stored, fresh for 60 s more",
            ),
            (
                "edgeweir; fwd=stale; fwd-status=503; ttl=-9; detail=stale_if_error",
                "what is stored is stale",
            ),
        ] {
            let got = status_in_words(status).unwrap_or_default();
            assert!(got.contains(words), "{status}: {got}");
        }
        let lines = explained(
            &answer(&[("cache-status", "edgeweir; fwd=uri-miss; detail=no_store")]),
            &[],
        );
        assert!(
            lines[2].starts_with("cache         not stored: the response says no-store"),
            "{lines:?}"
        );
    }

    #[test]
    fn what_may_not_go_on_did_not_go_to_the_origin() {
        let grown = [
            "edgeweir.cache.forwarded.absent",
            "edgeweir.cache.miss",
            "edgeweir.cache.only_if_cached",
        ]
        .map(str::to_owned);
        let lines = explained(&answer(&[]), &grown);
        assert!(
            lines[0].starts_with("cache         answered with 504: only-if-cached"),
            "{lines:?}"
        );
        assert!(
            !lines.iter().any(|line| line.contains("went to the origin")),
            "{lines:?}"
        );
    }

    #[test]
    fn admin_pages_with_a_token_are_read_with_it() {
        use std::io::{Read as _, Write as _};
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = socket.accept() {
                let mut head = [0; 1024];
                let length = stream.read(&mut head).unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                let known = head.contains("\r\nauthorization: Bearer the-token-of-the-host\r\n");
                let (status, body) = match (head.starts_with("GET /stats.json "), known) {
                    (true, true) => (
                        200,
                        r#"{"filters":[{"counters":{"edgeweir.cache.hit":7}}]}"#,
                    ),
                    _ => (401, "no"),
                };
                let _ = write!(stream, "HTTP/1.1 {status} x\r\n\r\n{body}");
            }
        });
        let admin = |token: Option<&str>| Admin {
            address,
            token: token.map(str::to_owned),
        };
        let counters = admin(Some("the-token-of-the-host")).counters();
        assert_eq!(counters.expect("counters")["edgeweir.cache.hit"], 7);
        for token in [None, Some("another-token")] {
            let error = admin(token).counters().expect_err("no counters");
            assert!(
                error
                    .to_string()
                    .contains("/stats.json: the token is missing or wrong"),
                "{error}"
            );
        }
    }

    #[test]
    fn counters_that_come_late_are_waited_for() {
        let began = Instant::now();
        let mut last = 0;
        let read = || {
            // A line 40 ms after the exchange, another 100 ms after that.
            let now = match began.elapsed().as_millis() {
                0..40 => 1,
                40..140 => 2,
                _ => 3,
            };
            last = now;
            Ok([("edgeweir.cache.hit".to_owned(), now)].into())
        };
        let seen = still(read).expect("counters");
        assert_eq!((seen["edgeweir.cache.hit"], last), (3, 3));
        let mut counted = 0;
        let busy = || {
            counted += 1;
            Ok([("edgeweir.cache.hit".to_owned(), counted)].into())
        };
        let began = Instant::now();
        assert!(still(busy).expect("counters")["edgeweir.cache.hit"] > 2);
        assert!(began.elapsed() < PATIENCE * 2);
    }

    #[test]
    fn a_host_that_is_given_is_the_one_that_is_sent() {
        let arguments = |fields: &[&str]| Explain {
            request: vec!["http://127.0.0.1:8000/a".to_owned()],
            config: None,
            at: None,
            admin: None,
            token_file: None,
            listener: None,
            fields: fields
                .iter()
                .map(|it| field(it).expect("a field"))
                .collect(),
            times: 1,
            envoy: None,
        };
        let (asked, _) = request(&arguments(&["Host: x.test", "a: b"])).expect("a request");
        assert_eq!(asked.authority, "x.test");
        assert_eq!(asked.fields, [("a".to_owned(), b"b".to_vec())]);
        let two = request(&arguments(&["host: x.test", "host: y.test"]));
        assert!(two.is_err());
    }

    #[test]
    fn counters_are_read_from_either_proxy() {
        let stats = serde_json::json!({ "filters": [
            { "counters": { "edgeweir.cache.hit": 2 } }, { "counters": { "edgeweir.cache.hit": 1 } },
        ] });
        assert_eq!(of_host(&stats)["edgeweir.cache.hit"], 3);
        let envoy = of_envoy("wasmcustom.edgeweir.cache.hit: 3\nother: 4\n");
        assert_eq!(envoy["edgeweir.cache.hit"], 3);
        assert_eq!(grown(&of_host(&stats), &envoy), [] as [String; 0]);
    }
}
