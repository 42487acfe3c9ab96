//! What the store answers: the cache's third tier, keys and values, limits, statistics and health.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH,
    IF_NONE_MATCH,
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use crate::backend::{Backend, Failure, Put};
use crate::news::{self, Mark};
use crate::pattern::{What, decoded, group};
use crate::problem::{Answer, Problem, empty, typed};
use crate::shelf::{Deleted, Space, Written};
use crate::wire::{self, Condition, Done, MOST_KEY, Operation, Step};

const TTL: HeaderName = HeaderName::from_static("edgeweir-ttl");
const TTL_MS: HeaderName = HeaderName::from_static("edgeweir-ttl-ms");
const GROUPS: HeaderName = HeaderName::from_static("edgeweir-groups");
const URI: HeaderName = HeaderName::from_static("edgeweir-uri");
const LEASE: HeaderName = HeaderName::from_static("edgeweir-lease");
const NEWS: HeaderName = HeaderName::from_static("edgeweir-news");
/// The longest lease, in milliseconds.
const MOST_LEASE: u64 = 60_000;
/// Groups of one entry.
const MOST_GROUPS: usize = 256;
/// Bytes of a URI.
const MOST_URI: usize = 4096;
const BINARY: &str = "application/octet-stream";

/// What requests may take.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Asked for as `Authorization: Bearer <token>`.
    pub token: Option<String>,
    /// Bytes of a request's body.
    pub body: usize,
    /// Requests at once; one more is refused as `too-busy`.
    pub concurrency: usize,
    /// How long a body may take to come.
    pub body_timeout: Duration,
    /// The longest anything is kept, and how long it is without a time of its own.
    pub ttl: Duration,
}

/// The service.
pub struct Service {
    backend: Backend,
    rules: Rules,
    room: Semaphore,
    started: Instant,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    gets: AtomicU64,
    hits: AtomicU64,
    puts: AtomicU64,
    deletes: AtomicU64,
    invalidations: AtomicU64,
    leases: AtomicU64,
    admitted: AtomicU64,
    limited: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Service {
    /// Answers from a back-end.
    pub fn new(backend: Backend, rules: Rules) -> Self {
        Self {
            backend,
            room: Semaphore::new(rules.concurrency),
            rules,
            started: Instant::now(),
            counts: Counts::default(),
        }
    }

    /// The back-end.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Answers one request; never fails.
    pub async fn answer<B>(self: Arc<Self>, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        count(&self.counts.requests);
        match self.decide(request).await {
            Ok(answer) => answer,
            Err(problem) => {
                count(if problem.status >= 500 {
                    &self.counts.failed
                } else {
                    &self.counts.refused
                });
                tracing::debug!(name = problem.name, detail = problem.detail, "refused");
                problem.answer()
            }
        }
    }

    async fn decide<B>(&self, request: Request<B>) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        // A probe has no token, and is answered when all places are taken.
        if path == "/health" {
            return match head.method {
                Method::GET | Method::HEAD => self.health().await,
                _ => Err(not_allowed("GET")),
            };
        }
        self.authorise(&head.headers)?;
        let _place = self.room.try_acquire().map_err(|_| {
            let most = self.rules.concurrency;
            Problem::new(
                503,
                "too-busy",
                format!("{most} requests are being answered already"),
            )
        })?;
        let query = head.uri.query().unwrap_or("");
        if path == "/stats" {
            return match head.method {
                Method::GET => Ok(self.stats()),
                _ => Err(not_allowed("GET")),
            };
        }
        if path == "/limit" {
            let body = self.read(&head.headers, body).await?;
            return match head.method {
                Method::POST => self.limit(&body).await,
                _ => Err(not_allowed("POST")),
            };
        }
        let (space, name) = match (path.strip_prefix("/cache/"), path.strip_prefix("/kv/")) {
            (Some(rest), _) => (Space::Cache, rest),
            (_, Some(rest)) => (Space::Keys, rest),
            _ => {
                let detail = "paths: /cache/<name> /kv/<key> /limit /stats /health";
                return Err(Problem::new(404, "no-such-path", detail));
            }
        };
        match (head.method, name) {
            (Method::POST, "invalidate") => {
                let what = What::of(query).map_err(Problem::bad)?;
                let line = news_of(&head.headers)?;
                self.backend.invalidate(space, &what).await?;
                // Told afterwards: who hears of it must not find here what is meant.
                if let (Space::Cache, Some(line)) = (space, line) {
                    self.backend.tell(line).await?;
                }
                count(&self.counts.invalidations);
                Ok(empty(StatusCode::NO_CONTENT))
            }
            (Method::POST, "batch") if space == Space::Keys => {
                let body = self.read(&head.headers, body).await?;
                self.batch(&body).await
            }
            (Method::GET, "news") if space == Space::Cache => self.news(query).await,
            (Method::GET, name) if space == Space::Cache && head.headers.contains_key(LEASE) => {
                let name = key_of(space, name)?;
                self.get_or_lease(&name, &head.headers).await
            }
            (Method::GET | Method::HEAD, name) => {
                let name = key_of(space, name)?;
                self.get(space, &name, &head.headers).await
            }
            (Method::PUT, name) => {
                let name = key_of(space, name)?;
                let condition = condition(&head.headers)?;
                let mut put = self.put_of(&head.headers)?;
                put.value = self.read(&head.headers, body).await?;
                count(&self.counts.puts);
                let answer = self.put(space, &name, put, condition).await?;
                if space == Space::Cache && releases(&head.headers) {
                    self.release(&name).await;
                }
                Ok(answer)
            }
            (Method::DELETE, name) if space == Space::Cache && releases(&head.headers) => {
                let name = key_of(space, name)?;
                self.release(&name).await;
                Ok(empty(StatusCode::NO_CONTENT))
            }
            (Method::DELETE, name) => {
                let name = key_of(space, name)?;
                count(&self.counts.deletes);
                let condition = condition(&head.headers)?;
                match self.backend.delete(space, &name, condition).await? {
                    Deleted::Gone => Ok(empty(StatusCode::NO_CONTENT)),
                    Deleted::Missing => Err(missing()),
                    Deleted::Precondition => Err(precondition()),
                }
            }
            _ => Err(not_allowed("GET, HEAD, PUT, DELETE, POST …/invalidate")),
        }
    }

    fn authorise(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.rules.token else {
            return Ok(());
        };
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        // RFC 9110 §11.1: the scheme is case-insensitive.
        let given = given.and_then(|value| {
            let (scheme, token) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        match given {
            Some(given) if bool::from(given.ct_eq(token.as_bytes())) => Ok(()),
            Some(_) => Err(Problem::new(
                401,
                "wrong-token",
                "the token is not this store's",
            )),
            None => Err(Problem::new(
                401,
                "no-token",
                "send Authorization: Bearer <token>",
            )),
        }
    }

    async fn read<B>(&self, headers: &HeaderMap, body: B) -> Result<Bytes, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let most = self.rules.body;
        let large = || {
            let detail = format!("the body is over {most} bytes (--max-request-kib)");
            Problem::new(413, "body-too-large", detail)
        };
        let length = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok());
        if length
            .and_then(|it| it.parse::<u64>().ok())
            .is_some_and(|it| it > most as u64)
        {
            return Err(large());
        }
        let whole =
            tokio::time::timeout(self.rules.body_timeout, Limited::new(body, most).collect());
        match whole.await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(large()),
            Ok(Err(error)) => Err(Problem::bad(format!("the body ended early: {error}"))),
            Err(_) => Err(Problem::new(
                408,
                "body-too-slow",
                "the body did not come in time",
            )),
        }
    }

    async fn get(&self, space: Space, name: &[u8], headers: &HeaderMap) -> Result<Answer, Problem> {
        count(&self.counts.gets);
        let found = self.backend.get(space, name).await?.ok_or_else(missing)?;
        count(&self.counts.hits);
        let tag = tag(found.version);
        let same = headers.get(IF_NONE_MATCH).and_then(|it| it.to_str().ok());
        let mut answer =
            if same.is_some_and(|it| it == "*" || it.split(',').any(|one| one.trim() == tag)) {
                empty(StatusCode::NOT_MODIFIED)
            } else {
                typed(StatusCode::OK, BINARY, found.value)
            };
        let fields = answer.headers_mut();
        put_text(fields, ETAG, &tag);
        put_text(fields, TTL_MS, &found.left.as_millis().to_string());
        Ok(answer)
    }

    /// What is kept, or else the lease for it: 404 to who has it now, 409 while another has it.
    async fn get_or_lease(&self, name: &[u8], headers: &HeaderMap) -> Result<Answer, Problem> {
        let asked = headers.get(LEASE).and_then(|it| it.to_str().ok());
        let millis = asked.and_then(|it| it.parse().ok()).unwrap_or(0);
        if !(1..=MOST_LEASE).contains(&millis) {
            return Err(Problem::bad(format!(
                "{LEASE} is {asked:?}, must be 1 to {MOST_LEASE} milliseconds"
            )));
        }
        let answer = self.get(Space::Cache, name, headers).await;
        if !matches!(&answer, Err(problem) if problem.status == 404) {
            return answer;
        }
        let lease = Put {
            ttl: Duration::from_millis(millis),
            uri: Vec::new(),
            groups: Vec::new(),
            value: Bytes::new(),
        };
        let name = lease_name(name);
        let put = self
            .backend
            .put(Space::Keys, &name, lease, Condition::Absent);
        match put.await? {
            Written::Stored { .. } => {
                count(&self.counts.leases);
                answer
            }
            Written::Precondition | Written::Full => Err(Problem::new(
                409,
                "lease-held",
                "nothing is kept under this name, and somebody else is about to write it",
            )),
        }
    }

    /// Ends a lease; when that fails, its time ends it.
    async fn release(&self, name: &[u8]) {
        let name = lease_name(name);
        let deleted = self
            .backend
            .delete(Space::Keys, &name, Condition::Any)
            .await;
        if let Err(failure) = deleted {
            tracing::debug!(failure = failure.name(), "a lease was not released");
        }
    }

    /// What edges told one another: a mark, `lost` or `known`, and a line for each.
    async fn news(&self, query: &str) -> Result<Answer, Problem> {
        let mark = query.strip_prefix("since=").unwrap_or("");
        let news = self.backend.since(&Mark::of(mark)).await?;
        let known = if news.lost { "lost" } else { "known" };
        let mut text = format!("{}\n{known}\n", news.mark.text());
        for line in &news.lines {
            text.push_str(line);
            text.push('\n');
        }
        Ok(typed(StatusCode::OK, "text/plain", text))
    }

    async fn put(
        &self,
        space: Space,
        name: &[u8],
        put: Put,
        condition: Condition,
    ) -> Result<Answer, Problem> {
        match self.backend.put(space, name, put, condition).await? {
            Written::Stored { version, created } => {
                // The cache's protocol knows one answer.
                let mut answer = empty(match created && space == Space::Keys {
                    true => StatusCode::CREATED,
                    false => StatusCode::NO_CONTENT,
                });
                put_text(answer.headers_mut(), ETAG, &tag(version));
                Ok(answer)
            }
            Written::Precondition | Written::Full => Err(precondition()),
        }
    }

    fn put_of(&self, headers: &HeaderMap) -> Result<Put, Problem> {
        let number = |name: &HeaderName| match headers.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str().ok().and_then(|it| it.parse::<u64>().ok()) {
                Some(number) if number > 0 => Ok(Some(number)),
                _ => Err(Problem::bad(format!(
                    "{name} is {value:?}, must be a whole number from 1"
                ))),
            },
        };
        let ttl = match (number(&TTL_MS)?, number(&TTL)?) {
            (Some(millis), _) => Duration::from_millis(millis),
            (None, Some(seconds)) => Duration::from_secs(seconds),
            (None, None) => self.rules.ttl,
        };
        let groups = match headers.get(&GROUPS) {
            None => Vec::new(),
            Some(value) => value
                .as_bytes()
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii)
                .filter(|item| !item.is_empty())
                .map(group)
                .collect::<Result<_, _>>()
                .map_err(Problem::bad)?,
        };
        let uri = headers.get(&URI).map_or(&b""[..], |it| it.as_bytes());
        if groups.len() > MOST_GROUPS || uri.len() > MOST_URI {
            return Err(Problem::bad(format!(
                "{} groups and a URI of {} bytes: at most {MOST_GROUPS} and {MOST_URI}",
                groups.len(),
                uri.len()
            )));
        }
        Ok(Put {
            ttl: ttl.min(self.rules.ttl),
            uri: uri.to_vec(),
            groups,
            value: Bytes::new(),
        })
    }

    async fn batch(&self, body: &Bytes) -> Result<Answer, Problem> {
        let steps = wire::steps(body).map_err(|why| Problem::bad(why.0))?;
        let mut done = Vec::with_capacity(steps.len());
        let mut bytes = 0;
        for step in steps {
            let one = self.step(step).await?;
            if let Done::Did { value, .. } = &one {
                bytes += value.len();
            }
            // What is read together is bounded as what is written together.
            if bytes > self.rules.body {
                let detail = format!(
                    "the values read are over {} bytes together",
                    self.rules.body
                );
                return Err(Problem::new(413, "answer-too-large", detail));
            }
            done.push(one);
        }
        Ok(typed(StatusCode::OK, BINARY, wire::done_bytes(&done)))
    }

    async fn step(&self, step: Step) -> Result<Done, Problem> {
        let Step {
            key,
            condition,
            operation,
        } = step;
        let space = Space::Keys;
        let did = |version, value| Done::Did { version, value };
        Ok(match operation {
            Operation::Get => {
                count(&self.counts.gets);
                match self.backend.get(space, &key).await? {
                    Some(found) => {
                        count(&self.counts.hits);
                        did(found.version, found.value)
                    }
                    None => Done::Missing,
                }
            }
            Operation::Put { ttl, value } => {
                count(&self.counts.puts);
                let put = Put {
                    ttl: match ttl {
                        0 => self.rules.ttl,
                        millis => Duration::from_millis(millis).min(self.rules.ttl),
                    },
                    uri: Vec::new(),
                    groups: Vec::new(),
                    value,
                };
                match self.backend.put(space, &key, put, condition).await? {
                    Written::Stored { version, .. } => did(version, Bytes::new()),
                    Written::Precondition | Written::Full => Done::Precondition,
                }
            }
            Operation::Delete => {
                count(&self.counts.deletes);
                match self.backend.delete(space, &key, condition).await? {
                    Deleted::Gone => did(0, Bytes::new()),
                    Deleted::Missing => Done::Missing,
                    Deleted::Precondition => Done::Precondition,
                }
            }
        })
    }

    async fn limit(&self, body: &[u8]) -> Result<Answer, Problem> {
        let asks = wire::asks(body).map_err(|why| Problem::bad(why.0))?;
        let decided = self.backend.limit(&asks).await.map_err(undecided)?;
        for standings in &decided.decisions {
            count(match standings.iter().all(|it| it.wait == 0) {
                true => &self.counts.admitted,
                false => &self.counts.limited,
            });
        }
        let answer = wire::answer_bytes(decided.now, &decided.decisions);
        Ok(typed(StatusCode::OK, BINARY, answer))
    }

    async fn health(&self) -> Result<Answer, Problem> {
        self.backend.health().await?;
        Ok(typed(StatusCode::OK, "text/plain", "ok\n"))
    }

    fn stats(&self) -> Answer {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        let stats = json!({
            "uptime_s": self.started.elapsed().as_secs(),
            "requests": of(&counts.requests),
            "refused": of(&counts.refused),
            "failed": of(&counts.failed),
            "gets": of(&counts.gets),
            "hits": of(&counts.hits),
            "puts": of(&counts.puts),
            "deletes": of(&counts.deletes),
            "invalidations": of(&counts.invalidations),
            "leases": of(&counts.leases),
            "admitted": of(&counts.admitted),
            "limited": of(&counts.limited),
            "in_flight": self.rules.concurrency - self.room.available_permits(),
            "backend": self.backend.stats(),
        });
        typed(StatusCode::OK, "application/json", stats.to_string())
    }
}

/// What an invalidation tells the other edges.
/// Redis without memory can count for nobody, not even for those it knows: whoever asks is to leave it alone for a while.
fn undecided(failure: Failure) -> Problem {
    let status = match failure {
        Failure::OutOfMemory => 503,
        _ => failure.status(),
    };
    Problem {
        status,
        ..failure.into()
    }
}

fn news_of(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(NEWS) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(line) if (1..=news::LONGEST).contains(&line.len()) => Ok(Some(line)),
        _ => Err(Problem::bad(format!(
            "{NEWS} must be 1 to {} visible ASCII characters",
            news::LONGEST
        ))),
    }
}

/// A lease that was taken with `GET /cache/<name>` ends with this request.
fn releases(headers: &HeaderMap) -> bool {
    headers.get(LEASE).is_some_and(|it| it == "release")
}

fn lease_name(name: &[u8]) -> Vec<u8> {
    [b"cache-lease/", name].concat()
}

/// A cache name is 32 hexadecimal digits; a key is percent-decoded and 1 to 512 bytes.
fn key_of(space: Space, name: &str) -> Result<Vec<u8>, Problem> {
    if space == Space::Cache {
        let good = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        return match good {
            true => Ok(name.as_bytes().to_vec()),
            false => Err(Problem::bad(format!(
                "the name {name:?} must be 32 hexadecimal digits"
            ))),
        };
    }
    let key = decoded(name);
    match key.len() {
        1..=MOST_KEY => Ok(key),
        length => Err(Problem::bad(format!(
            "the key has {length} bytes, must be 1 to {MOST_KEY}"
        ))),
    }
}

/// `If-Match: "<version>"` or `*`, `If-None-Match: *`.
fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let text = |name| {
        headers
            .get(name)
            .map(|it: &HeaderValue| it.to_str().unwrap_or("").trim())
    };
    match (text(IF_MATCH), text(IF_NONE_MATCH)) {
        (None, None) => Ok(Condition::Any),
        (None, Some("*")) => Ok(Condition::Absent),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(tag), None) => tag
            .strip_prefix('"')
            .and_then(|it| it.strip_suffix('"'))
            .and_then(|it| it.parse().ok())
            .map(Condition::Version)
            // RFC 9110 §13.1.1: a tag that was never given matches nothing.
            .ok_or_else(precondition),
        _ => Err(Problem::bad(
            "one of If-Match: \"<version>\", If-Match: * and If-None-Match: *",
        )),
    }
}

fn tag(version: u64) -> String {
    format!("\"{version}\"")
}

fn put_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn missing() -> Problem {
    Problem::new(404, "not-found", "nothing is kept under this name")
}

fn precondition() -> Problem {
    Problem::new(
        412,
        "precondition-failed",
        "what is kept is not what the condition names",
    )
}

fn not_allowed(allowed: &str) -> Problem {
    Problem::new(405, "method-not-allowed", format!("allowed: {allowed}"))
}
