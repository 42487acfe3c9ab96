//! The load: connections that ask again as soon as they were answered, or requests at a fixed rate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// The longest one request may take; what takes longer is an error and opens a new connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// Latencies are kept up to this, nanoseconds.
const MOST_NS: u64 = 60_000_000_000;

/// What is asked, and how.
#[derive(Clone, Debug)]
pub struct Load {
    /// HTTP/2 with prior knowledge; else HTTP/1.1.
    pub http2: bool,
    /// Connections.
    pub connections: usize,
    /// Requests in flight on each connection; one on HTTP/1.1.
    pub streams: usize,
    /// Requests a second over all connections, whatever the answers do; `None`: as fast as they come.
    pub rate: Option<f64>,
    /// Paths with their queries, in turn.
    pub paths: Vec<String>,
    /// Fields of every request.
    pub fields: Vec<(HeaderName, HeaderValue)>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Time to the last byte, nanoseconds.
    pub latency: Histogram<u64>,
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without a whole response.
    pub errors: u64,
    /// Bytes of response bodies.
    pub bytes: u64,
    /// Requests of the fixed rate that were not even sent when the time was over.
    pub unsent: u64,
    /// How long it took.
    pub took: Duration,
}

impl Tally {
    fn empty() -> Self {
        Self {
            latency: Histogram::new_with_bounds(1_000, MOST_NS, 3).expect("the bounds are sound"),
            statuses: BTreeMap::new(),
            errors: 0,
            bytes: 0,
            unsent: 0,
            took: Duration::ZERO,
        }
    }

    /// Whole responses.
    pub fn responses(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.latency
            .add(&other.latency)
            .expect("the bounds are the same");
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.errors += other.errors;
        self.bytes += other.bytes;
        self.unsent += other.unsent;
        self.took += other.took;
    }
}

/// When each request is due.
struct Clock {
    began: Instant,
    ends: Instant,
    /// Requests of the fixed rate that are due and not taken yet.
    due: Option<(Semaphore, f64)>,
    next: AtomicU64,
}

impl Clock {
    /// The number of the next request and the moment its time counts from; `None` when the time is over.
    async fn next(&self) -> Option<(u64, Instant)> {
        let Some((due, rate)) = &self.due else {
            let now = Instant::now();
            return (now < self.ends).then(|| (self.next.fetch_add(1, Relaxed), now));
        };
        due.acquire().await.ok()?.forget();
        let number = self.next.fetch_add(1, Relaxed);
        // A request counts from the moment it was due, not from when a connection had time for it: else a proxy that
        // stalls stops the load too and its stall is measured once instead of once for every request it delayed
        // ("coordinated omission", Gil Tene, "How NOT to Measure Latency", 2015).
        Some((
            number,
            self.began + Duration::from_secs_f64(number as f64 / rate),
        ))
    }
}

/// Loads `target` for so long.
pub async fn run(load: &Arc<Load>, target: SocketAddr, lasts: Duration) -> Result<Tally> {
    if load.paths.is_empty() {
        bail!("there is no path to ask for");
    }
    // What cannot be sent is said before anything is.
    for path in &load.paths {
        request(load, target, path)?;
    }
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(Connection::open(load.http2, target).await?);
    }
    let began = Instant::now();
    let clock = Arc::new(Clock {
        began,
        ends: began + lasts,
        due: load.rate.map(|rate| (Semaphore::new(0), rate)),
        next: AtomicU64::new(0),
    });
    let metronome = load.rate.map(|rate| {
        let clock = clock.clone();
        // A thread: the runtime's timer has steps of a millisecond.
        std::thread::spawn(move || tick(&clock, rate))
    });
    let mut asking = tokio::task::JoinSet::new();
    for connection in connections {
        let streams = if load.http2 { load.streams.max(1) } else { 1 };
        for _ in 0..streams {
            asking.spawn(ask(load.clone(), clock.clone(), connection.clone(), target));
        }
    }
    let mut all = Tally::empty();
    while let Some(tally) = asking.join_next().await {
        all.add(&tally.context("a connection's task ended")?);
    }
    if let Some(metronome) = metronome {
        let issued = metronome.join().unwrap_or_default();
        all.unsent = issued.saturating_sub(all.responses() + all.errors);
    }
    all.took = began.elapsed();
    Ok(all)
}

/// Makes requests due until the time is over; how many there were.
fn tick(clock: &Clock, rate: f64) -> u64 {
    let Some((due, _)) = &clock.due else { return 0 };
    let mut issued = 0_u64;
    loop {
        let now = Instant::now();
        if now >= clock.ends {
            // Who waits is to end; what is due and not taken stays unsent.
            due.close();
            return issued;
        }
        let until_now = (now - clock.began).as_secs_f64() * rate;
        let owed = (until_now.floor() as u64 + 1).saturating_sub(issued);
        if owed > 0 {
            due.add_permits(usize::try_from(owed).unwrap_or(usize::MAX >> 4));
            issued += owed;
        }
        let next = clock.began + Duration::from_secs_f64(issued as f64 / rate);
        std::thread::sleep(
            next.min(clock.ends)
                .saturating_duration_since(Instant::now()),
        );
    }
}

/// One connection's way through the load.
async fn ask(
    load: Arc<Load>,
    clock: Arc<Clock>,
    connection: Connection,
    target: SocketAddr,
) -> Tally {
    let mut tally = Tally::empty();
    let mut connection = Some(connection);
    while let Some((number, due)) = clock.next().await {
        let path = &load.paths[(number % load.paths.len() as u64) as usize];
        let answered = tokio::time::timeout(PATIENCE, async {
            let open = match &mut connection {
                Some(open) => open,
                None => connection.insert(Connection::open(load.http2, target).await?),
            };
            open.exchange(request(&load, target, path)?).await
        });
        match answered.await {
            Ok(Ok((status, bytes))) => {
                let took = u64::try_from(due.elapsed().as_nanos()).unwrap_or(MOST_NS);
                tally.latency.saturating_record(took);
                *tally.statuses.entry(status).or_default() += 1;
                tally.bytes += bytes;
            }
            _ => {
                tally.errors += 1;
                connection = None;
                // A target that is gone must not turn the load into a loop of failed connects.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    tally
}

fn request(load: &Load, target: SocketAddr, path: &str) -> Result<Request<Empty<Bytes>>> {
    // A Host that is given is the one that is sent: two are answered with 400 (RFC 9112 §3.2).
    let given = load.fields.iter().find(|(name, _)| *name == HOST);
    let host = match given {
        Some((_, host)) => host.clone(),
        None => HeaderValue::from_str(&target.to_string())?,
    };
    let uri: Uri = if load.http2 {
        let authority = host.to_str().context("the host")?;
        let uri = format!("http://{authority}{path}");
        uri.parse().with_context(|| format!("the URL {uri}"))?
    } else {
        path.parse().with_context(|| format!("the path {path}"))?
    };
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = uri;
    if !load.http2 {
        request.headers_mut().insert(HOST, host);
    }
    for (name, value) in load.fields.iter().filter(|(name, _)| *name != HOST) {
        request.headers_mut().append(name.clone(), value.clone());
    }
    Ok(request)
}

/// One connection to the target; clones of an HTTP/2 one share it.
#[derive(Clone)]
enum Connection {
    Http1(Arc<tokio::sync::Mutex<http1::SendRequest<Empty<Bytes>>>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    async fn open(http2: bool, target: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(target)
            .await
            .with_context(|| format!("connecting to {target}"))?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        if http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(1 << 24)
                .handshake(stream)
                .await?;
            tokio::spawn(connection);
            Ok(Self::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            Ok(Self::Http1(Arc::new(tokio::sync::Mutex::new(sender))))
        }
    }

    /// The status and the length of the body.
    async fn exchange(&mut self, request: Request<Empty<Bytes>>) -> Result<(u16, u64)> {
        let mut response = match self {
            Self::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let mut bytes = 0;
        while let Some(frame) = response.body_mut().frame().await {
            if let Some(data) = frame?.data_ref() {
                bytes += data.len() as u64;
            }
        }
        Ok((response.status().as_u16(), bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Origin;

    fn load(http2: bool, rate: Option<f64>) -> Arc<Load> {
        Arc::new(Load {
            http2,
            connections: 4,
            streams: if http2 { 4 } else { 1 },
            rate,
            paths: vec!["/1k".to_owned(), "/json".to_owned()],
            fields: Vec::new(),
        })
    }

    #[tokio::test]
    async fn as_fast_as_answers_come() {
        let origin = Origin::start().expect("an origin");
        for http2 in [false, true] {
            let tally = run(
                &load(http2, None),
                origin.address,
                Duration::from_millis(300),
            )
            .await
            .expect("a tally");
            assert_eq!(tally.errors, 0, "http2: {http2}");
            assert!(tally.statuses[&200] > 20, "{:?}", tally.statuses);
            assert_eq!(tally.latency.len(), tally.responses());
            assert!(tally.bytes > 20 * 1_024, "{}", tally.bytes);
        }
    }

    #[test]
    fn a_host_that_is_given_is_the_one_that_is_sent() {
        let target = SocketAddr::from(([127, 0, 0, 1], 80));
        for http2 in [false, true] {
            let mut load = (*load(http2, None)).clone();
            let host = HeaderValue::from_static("x.test:81");
            load.fields = vec![(HOST, host.clone())];
            let asked = request(&load, target, "/1k").expect("a request");
            let hosts: Vec<_> = asked.headers().get_all(HOST).iter().collect();
            match http2 {
                true => assert_eq!(asked.uri().to_string(), "http://x.test:81/1k"),
                false => assert_eq!(hosts, [&host]),
            }
            assert_eq!(hosts.len(), usize::from(!http2));
        }
    }

    #[tokio::test]
    async fn a_fixed_rate_is_kept() {
        let origin = Origin::start().expect("an origin");
        let tally = run(
            &load(false, Some(200.0)),
            origin.address,
            Duration::from_millis(1_000),
        )
        .await
        .expect("a tally");
        let all = tally.responses() + tally.unsent;
        assert!((190..=201).contains(&all), "{all} requests");
    }

    #[tokio::test]
    async fn a_stall_counts_for_every_request_it_delayed() {
        // 100 a second over one connection to an origin that takes 300 ms: a closed loop would say 300 ms for each.
        let origin = Origin::start().expect("an origin");
        let mut slow = (*load(false, Some(100.0))).clone();
        slow.connections = 1;
        slow.paths = vec!["/slow".to_owned()];
        let tally = run(
            &Arc::new(slow),
            origin.address,
            Duration::from_millis(1_500),
        )
        .await
        .expect("a tally");
        let last = Duration::from_nanos(tally.latency.max());
        assert!(last > Duration::from_millis(900), "{last:?}");
        assert!(tally.unsent > 50, "{}", tally.unsent);
    }
}
