//! The end of a chain: a request is given an endpoint and a connection, and another where that may be.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use async_trait::async_trait;
use edgeweir_host_chain::{Activity, Body, EndToEnd, Error, Layer, Next, Request, Response, empty};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::balance;
use crate::bodies::Watched;
use crate::connect::{Connector, To};
use crate::counts::{Counts, Event};
use crate::endpoint::{Endpoint, EndpointSnapshot, Ticket};
use crate::failure::Failure;
use crate::fields;
use crate::outlier::Peers;
use crate::pool::{Pool, Unanswered, Wire};
use crate::retry::{self, Asked, Ended, Final, UnderWay};
use crate::settings::Settings;
use crate::tend;

/// Endpoints of one upstream.
const ENDPOINTS: usize = 256;

/// One upstream.
///
/// A failure before the response head is a response, 502, 503 or 504, so that the filters see it as they do in Envoy; it
/// is marked [`edgeweir_host_chain::Unreached`], by which filters of wasi:http get an error code. A failure after it is an
/// error of the body.
pub struct Upstream {
    inner: Arc<Inner>,
}

/// What the tasks of an upstream share with it; they end when it is dropped.
pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) settings: Settings,
    pub(crate) counts: Arc<Counts>,
    connector: Arc<Connector>,
    endpoints: RwLock<Arc<[Arc<Endpoint>]>>,
    resolving: tokio::sync::Mutex<()>,
    room: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
    requests: AtomicUsize,
    repetitions: AtomicUsize,
}

/// An upstream at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// What happened, by name.
    pub counts: Vec<(&'static str, u64)>,
    /// Requests under way.
    pub requests: usize,
    /// Requests that wait for room.
    pub waiting: usize,
    /// Its endpoints.
    pub endpoints: Vec<EndpointSnapshot>,
}

impl Upstream {
    /// An upstream and its tasks (probes, look-ups, sweeping); must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Certificates that cannot be read, a name that is none; the text begins with the field.
    pub fn new(name: &str, settings: Settings, counts: Arc<Counts>) -> Result<Self, String> {
        let connector = Arc::new(Connector::new(&settings, &counts.wire)?);
        let room = settings.requests.map(|most| Arc::new(Semaphore::new(most)));
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            counts,
            connector,
            endpoints: RwLock::new(Arc::new([])),
            resolving: tokio::sync::Mutex::new(()),
            room,
            waiting: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            repetitions: AtomicUsize::new(0),
            settings,
        });
        if inner.settings.every_address.is_none() {
            let settings = &inner.settings;
            let names = settings.addresses.iter().map(|authority| {
                let to = To::Name(authority.clone());
                (authority.clone(), to)
            });
            inner.replace(names.collect());
        }
        tend::start(&inner);
        Ok(Self { inner })
    }

    /// What it was told.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// What happened so far.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.inner.counts
    }

    /// How it stands.
    pub fn snapshot(&self) -> Snapshot {
        let inner = &self.inner;
        let now = Instant::now();
        Snapshot {
            name: inner.name.clone(),
            counts: inner.counts.all().collect(),
            requests: inner.requests.load(Relaxed),
            waiting: inner.waiting.load(Relaxed),
            endpoints: inner
                .endpoints()
                .iter()
                .map(|endpoint| endpoint.snapshot(now))
                .collect(),
        }
    }
}

#[async_trait]
impl Layer for Upstream {
    fn name(&self) -> &str {
        &self.inner.name
    }

    async fn handle(&self, request: Request, _: Next) -> Result<Response, Error> {
        let inner = &self.inner;
        match inner.send(request).await {
            Ok((response, held)) => {
                inner.counts.add(Event::Answered);
                let (mut parts, body) = response.into_parts();
                let named = fields::strip_response(&mut parts.headers);
                let body = EndToEnd::new(body, named);
                parts.extensions.clear();
                // RFC 9112 §2.3: an intermediary sends its own version in the messages it forwards. Another would tell the
                // client of framing that is not that of its connection: of HTTP/1.0, that the end of the connection is that of
                // the body.
                parts.version = Version::HTTP_11;
                let late =
                    |limit| format!("the upstream sent nothing of its body for {limit:?}").into();
                let body =
                    Watched::new(body, inner.settings.idle_timeout, held, late).boxed_unsync();
                Ok(Response::from_parts(parts, body))
            }
            Err((failure, address)) => {
                inner.counts.add(failure.event());
                let address = address.as_deref().unwrap_or("-");
                Ok(failure.response(&inner.name, address))
            }
        }
    }
}

/// What a response holds until its end.
struct Held {
    _ticket: Ticket,
    _room: Option<OwnedSemaphorePermit>,
    _request: Entered,
}

/// A place in a count.
struct Entered(Arc<Inner>, fn(&Inner) -> &AtomicUsize);

impl Entered {
    fn new(inner: &Arc<Inner>, count: fn(&Inner) -> &AtomicUsize) -> Self {
        count(inner).fetch_add(1, Relaxed);
        Self(inner.clone(), count)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

type Failed = (Failure, Option<String>);

impl Inner {
    pub(crate) fn endpoints(&self) -> Arc<[Arc<Endpoint>]> {
        self.endpoints
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts endpoints in the place of those there are; one that stays keeps its connections and its standing.
    pub(crate) fn replace(&self, wanted: Vec<(String, To)>) {
        let before = self.endpoints();
        let mut after: Vec<Arc<Endpoint>> = Vec::new();
        for (authority, to) in wanted.into_iter().take(ENDPOINTS) {
            let same = |it: &&Arc<Endpoint>| it.to == to && it.authority == authority;
            if after.iter().any(|it| same(&it)) {
                continue;
            }
            let endpoint = before.iter().find(same).cloned().unwrap_or_else(|| {
                let pool = Pool::new(
                    to.clone(),
                    &authority,
                    &self.connector,
                    &self.settings,
                    &self.counts,
                );
                Endpoint::new(&authority, to.clone(), pool)
            });
            after.push(endpoint);
        }
        *self
            .endpoints
            .write()
            .unwrap_or_else(PoisonError::into_inner) = after.into();
    }

    /// Looks every name up; one that cannot be found keeps the addresses it had.
    pub(crate) async fn resolve(&self) {
        let before = self.endpoints();
        let mut wanted: Vec<(String, To)> = Vec::new();
        for authority in &self.settings.addresses {
            let found = tokio::net::lookup_host(authority.as_str());
            let found = tokio::time::timeout(self.settings.connect_timeout, found).await;
            let found: BTreeSet<SocketAddr> = match found {
                Ok(Ok(found)) => found.collect(),
                Ok(Err(_)) | Err(_) => BTreeSet::new(),
            };
            if found.is_empty() {
                tracing::warn!(upstream = self.name, authority, "a name has no address");
                let kept = before.iter().filter(|it| it.authority == *authority);
                wanted.extend(kept.map(|it| (authority.clone(), it.to.clone())));
            }
            let found = found.into_iter().map(To::Address);
            wanted.extend(found.map(|to| (authority.clone(), to)));
        }
        self.replace(wanted);
    }

    async fn send(
        self: &Arc<Self>,
        request: Request,
    ) -> Result<(http::Response<Incoming>, Held), Failed> {
        let room = self.room().await.map_err(|failure| (failure, None))?;
        let under_way = Entered::new(self, |inner| &inner.requests);
        if self.settings.every_address.is_some() && self.endpoints().is_empty() {
            // The first request; the others wait for what it finds.
            let _one = self.resolving.lock().await;
            if self.endpoints().is_empty() {
                self.resolve().await;
            }
        }
        let (parts, body) = request.into_parts();
        let activity = Activity::start();
        // Nothing to note in a body that is not there; and a request without one can be sent twice.
        let bodiless = body.is_end_stream();
        let mut body = (!bodiless).then(|| activity.noting(body));
        let mut last: Option<Arc<Endpoint>> = None;
        let mut repetition = None;
        let mut repeated = 0;
        loop {
            let mut ticket = self
                .choose(last.as_ref())
                .map_err(|failure| (failure, last.as_ref().map(|it| it.authority.clone())))?;
            let endpoint = ticket.endpoint.clone();
            let attempt = self.attempt(&endpoint, &parts, &mut body, bodiless);
            let outcome = tokio::select! {
                outcome = attempt => outcome,
                () = activity.silent_for(self.settings.timeout) => Err(match activity.awaited() {
                    true => Failure::BodyTimeout(self.settings.timeout),
                    false => Failure::Timeout(self.settings.timeout),
                }),
            };
            let outcome = match outcome {
                Err(Failure::Closed(why) | Failure::Reset(why)) if activity.failed() => {
                    Err(Failure::BodyFailed(why))
                }
                outcome => outcome,
            };
            let good = match &outcome {
                Ok(response) => !gateway_failure(response.status()),
                Err(failure) if failure.of_the_request() => true,
                Err(_) => false,
            };
            self.judge(&mut ticket, good);
            let ended = match &outcome {
                Ok(response) if !good => Some(Ended::Status(response.status().as_u16())),
                Ok(_) => None,
                Err(failure) => failure.ended(),
            };
            let again = match ended {
                None => Err(Final::Condition),
                Some(ended) => {
                    let asked = Asked {
                        method: &parts.method,
                        whole: bodiless || body.is_some(),
                        repeated,
                    };
                    let under_way = UnderWay {
                        requests: self.requests.load(Relaxed),
                        // This one's place is not another's.
                        repetitions: self.repetitions.load(Relaxed)
                            - usize::from(repetition.is_some()),
                    };
                    retry::again(ended, asked, &self.settings.retry, under_way)
                }
            };
            match again {
                Ok(()) => {
                    self.counts.add(Event::Repeated);
                    if let Err(failure) = &outcome {
                        tracing::debug!(
                            upstream = self.name,
                            address = endpoint.authority,
                            ?failure,
                            "repeating"
                        );
                    }
                    if repetition.is_none() {
                        repetition = Some(Entered::new(self, |inner| &inner.repetitions));
                    }
                    drop((outcome, ticket));
                    let pause = retry::pause(repeated, &self.settings.retry, fastrand::u64(..));
                    tokio::time::sleep(pause).await;
                    repeated += 1;
                    last = Some(endpoint);
                }
                Err(why) => {
                    self.final_because(why);
                    let held = Held {
                        _ticket: ticket,
                        _room: room,
                        _request: under_way,
                    };
                    return match outcome {
                        Ok(response) => Ok((response, held)),
                        Err(failure) => Err((failure, Some(endpoint.authority.clone()))),
                    };
                }
            }
        }
    }

    fn final_because(&self, why: Final) {
        match why {
            Final::Off | Final::Condition => {}
            Final::Method => self.counts.add(Event::FinalMethod),
            Final::BodySent => self.counts.add(Event::FinalBodySent),
            Final::Attempts => self.counts.add(Event::FinalAttempts),
            Final::Budget => self.counts.add(Event::FinalBudget),
        }
    }

    /// A place among the requests that may be under way; waits for one where few enough wait already.
    async fn room(self: &Arc<Self>) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        let Some(room) = &self.room else {
            return Ok(None);
        };
        if let Ok(place) = room.clone().try_acquire_owned() {
            return Ok(Some(place));
        }
        let most = self.settings.pending;
        let waiting = Entered::new(self, |inner| &inner.waiting);
        if self.waiting.load(Relaxed) > most {
            let text = format!("{most} requests wait for it already");
            return Err(Failure::Overflow(text));
        }
        let place = room.clone().acquire_owned();
        let place = tokio::time::timeout(self.settings.timeout, place).await;
        drop(waiting);
        match place {
            Ok(Ok(place)) => Ok(Some(place)),
            Ok(Err(_)) | Err(_) => Err(Failure::Overflow(format!(
                "no room within {:?}",
                self.settings.timeout
            ))),
        }
    }

    /// An endpoint in order, the less loaded of two; another than the one that just failed, where there is one.
    fn choose(&self, but: Option<&Arc<Endpoint>>) -> Result<Ticket, Failure> {
        let all = self.endpoints();
        let now = Instant::now();
        if let [only] = &all[..] {
            return only.enter(now).ok_or(Failure::CircuitOpen);
        }
        if all.is_empty() {
            return Err(Failure::Unresolved);
        }
        let in_order = |endpoint: &&Arc<Endpoint>| {
            let standing = endpoint.standing();
            standing.health.healthy() && !standing.outlier.ejected(now)
        };
        let mut usable: Vec<&Arc<Endpoint>> = all.iter().filter(in_order).collect();
        if usable.is_empty() {
            // Better one that may fail than none.
            self.counts.add(Event::Panic);
            usable = all.iter().collect();
        }
        usable.retain(|endpoint| endpoint.standing().breaker.would_admit(now));
        if let Some(but) = but
            && usable.len() > 1
        {
            usable.retain(|endpoint| !Arc::ptr_eq(endpoint, but));
        }
        while !usable.is_empty() {
            let loads: Vec<usize> = usable.iter().map(|endpoint| endpoint.load()).collect();
            let Some(at) = balance::pick(&loads, fastrand::u64(..)) else {
                break;
            };
            match usable[at].enter(now) {
                Some(ticket) => return Ok(ticket),
                // Another request was the probe.
                None => drop(usable.swap_remove(at)),
            }
        }
        Err(Failure::CircuitOpen)
    }

    /// Tells the breaker and the outlier detection how an attempt went.
    fn judge(&self, ticket: &mut Ticket, good: bool) {
        let now = Instant::now();
        let endpoint = ticket.endpoint.clone();
        if ticket.judge(good, now, self.settings.breaker) {
            self.counts.add(Event::BreakerOpened);
            tracing::warn!(
                upstream = self.name,
                address = endpoint.authority,
                "the breaker opened"
            );
        }
        let Some(policy) = &self.settings.outlier else {
            return;
        };
        let all = self.endpoints();
        let ejected = all
            .iter()
            .filter(|it| it.standing().outlier.ejected(now))
            .count();
        let peers = Peers {
            all: all.len(),
            ejected,
        };
        if endpoint.standing().outlier.ended(good, now, policy, peers) {
            self.counts.add(Event::Ejected);
            tracing::warn!(
                upstream = self.name,
                address = endpoint.authority,
                "put aside for its failures"
            );
        }
    }

    /// One attempt at one endpoint. A body of which nothing was taken is put back.
    async fn attempt(
        &self,
        endpoint: &Arc<Endpoint>,
        parts: &Parts,
        body: &mut Option<Body>,
        bodiless: bool,
    ) -> Result<http::Response<Incoming>, Failure> {
        let mut fresh = false;
        loop {
            let taken = endpoint.pool.take(fresh).await?;
            let reused = taken.reused;
            let this = body.take().unwrap_or_else(empty);
            let request = Request::from_parts(parts.clone(), this);
            let request = match &taken.wire {
                Wire::Http1(_) => to_http1(request, &endpoint.authority)?,
                Wire::Http2(_) => to_http2(request, &endpoint.authority, self.connector.secure())?,
            };
            let (again, failure) = match taken.send(&endpoint.pool, request).await {
                // RFC 9110 §7.8: a server switches protocols only when asked to, and this host never asks.
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    let why = "it switched protocols without being asked";
                    return Err(Failure::Closed(why.to_owned()));
                }
                Ok(response) => return Ok(response),
                Err(Unanswered::Unsent(request, failure)) => {
                    if !bodiless {
                        *body = Some(request.into_body());
                    }
                    (true, failure)
                }
                // RFC 9110 §9.2.2: an idempotent request may be repeated when the connection closed under it, which a
                // kept connection does whenever the upstream's patience ends just then.
                Err(Unanswered::Lost(failure)) => {
                    let closed = matches!(failure, Failure::Closed(_));
                    let may = bodiless && parts.method.is_idempotent();
                    (closed && may, failure)
                }
            };
            if !again || !reused || fresh {
                return Err(failure);
            }
            self.counts.add(Event::Stale);
            fresh = true;
        }
    }
}

/// Answers that say that what is behind could not be reached.
fn gateway_failure(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

fn to_http1(mut request: Request, endpoint: &str) -> Result<Request, Failure> {
    let host = match authority_of(&request) {
        Some(authority) => HeaderValue::from_str(authority.as_str()),
        None => HeaderValue::from_str(endpoint),
    }
    .map_err(|error| Failure::Request(error.to_string()))?;
    *request.uri_mut() = Uri::from(path_of(&request));
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().insert(header::HOST, host);
    if request.headers().contains_key(header::TE) {
        // RFC 9110 §10.1.4: a sender of TE names it in Connection.
        request
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    Ok(request)
}

fn to_http2(mut request: Request, endpoint: &str, secure: bool) -> Result<Request, Failure> {
    let authority = match authority_of(&request) {
        Some(authority) => authority,
        None => {
            Authority::try_from(endpoint).map_err(|error| Failure::Request(error.to_string()))?
        }
    };
    let scheme = if secure { Scheme::HTTPS } else { Scheme::HTTP };
    *request.uri_mut() = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path_of(&request))
        .build()
        .map_err(|error| Failure::Request(error.to_string()))?;
    *request.version_mut() = Version::HTTP_2;
    // RFC 9113 §8.3.1: :authority is what a client generates; Host beside it could only contradict it.
    request.headers_mut().remove(header::HOST);
    Ok(request)
}

fn path_of(request: &Request) -> PathAndQuery {
    request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"))
}

/// Whom the request is for: the URI's authority, or the Host a filter wrote in its place.
fn authority_of(request: &Request) -> Option<Authority> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.clone());
    }
    let host = request.headers().get(header::HOST)?;
    Authority::try_from(host.as_bytes()).ok()
}
