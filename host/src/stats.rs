//! What a listener did: requests by status, latency, what is in flight, and the last exchanges.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use edgeweir_host_chain::{distribution, lock};
use edgeweir_host_upstream::Tally;

/// Upper bounds of the latency histogram on `/metrics`, microseconds.
pub const BUCKETS_US: [u64; 16] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 60_000_000,
];
/// How many finished exchanges are remembered.
pub const RECENT: usize = 50;
/// Seconds over which the dashboard's percentiles are taken.
const WINDOW: usize = 10;

/// Each power of two of microseconds in this many steps: percentiles are within 1/16 of the truth.
const STEPS: u64 = 16;
/// Up to 2^36 µs, 19 hours.
const FINE: usize = (STEPS as usize) * 34;

/// Counts of one listener.
pub struct ListenerStats {
    /// Answered requests by first digit of the status; index 0 is for clients that left before an answer.
    pub by_class: [AtomicU64; 6],
    /// Exchanges begun and not ended.
    pub in_flight: AtomicU64,
    /// Connections open.
    pub connections: AtomicU64,
    /// Bytes on them.
    pub wire: Arc<Tally>,
    /// Responses whose body did not reach its end.
    pub cut: AtomicU64,
    /// Responses with status 429.
    pub limited: AtomicU64,
    /// Responses for which the cache nearest the client was looked into, by their `Cache-Status`.
    pub looked_up: AtomicU64,
    /// Of those, the ones it reused.
    pub reused: AtomicU64,
    /// Connections whose request could be read in two ways, or in none, or with a malformed frame of HTTP/2; it was refused unread.
    pub malformed: AtomicU64,
    /// Response body bytes sent.
    pub sent: AtomicU64,
    /// Time of all ended exchanges, microseconds.
    pub total_us: AtomicU64,
    coarse: [AtomicU64; BUCKETS_US.len() + 1],
    fine: Box<[AtomicU64]>,
    recent: Mutex<VecDeque<Ended>>,
    window: Mutex<VecDeque<Sample>>,
}

/// One ended exchange, for the dashboard's list.
#[derive(Clone, Debug)]
pub struct Ended {
    /// When it ended.
    pub at: SystemTime,
    /// The request's method.
    pub method: String,
    /// Path and query, cut at 200 bytes; then with `…` at its end.
    pub path: String,
    /// The status; 0 when the client left first.
    pub status: u16,
    /// From the request's head to the last byte of the response.
    pub took: Duration,
    /// The response's `Cache-Status`, cut at 200 bytes: what is cut is of the caches farthest from the client.
    pub cache_status: String,
    /// Whether the cache nearest the client reused a response; `None` when it was not looked into.
    pub reused: Option<bool>,
    /// The response's `RateLimit`.
    pub rate_limit: String,
    /// The response's `Content-Encoding`.
    pub content_encoding: String,
    /// Response body bytes sent.
    pub bytes: u64,
    /// The body did not reach its end.
    pub cut: bool,
}

struct Sample {
    at: Instant,
    requests: u64,
    fine: Box<[u64]>,
}

/// The last seconds of a listener.
#[derive(Clone, Copy, Default, Debug)]
pub struct Rate {
    /// Requests ended per second.
    pub per_second: f64,
    /// Percentiles of the time to the last byte; `None` when nothing ended.
    pub percentiles: Option<[Duration; 3]>,
}

impl Default for ListenerStats {
    fn default() -> Self {
        Self {
            by_class: Default::default(),
            in_flight: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            wire: Arc::default(),
            cut: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            looked_up: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            total_us: AtomicU64::new(0),
            coarse: Default::default(),
            fine: (0..FINE).map(|_| AtomicU64::new(0)).collect(),
            recent: Mutex::default(),
            window: Mutex::default(),
        }
    }
}

impl ListenerStats {
    /// Counts an ended exchange and remembers it.
    pub fn end(&self, ended: Ended) {
        // RFC 9110 §15: a status beyond 599 is to be taken for one of 5xx.
        let class = usize::from(ended.status / 100).min(self.by_class.len() - 1);
        self.by_class[class].fetch_add(1, Relaxed);
        if ended.cut {
            self.cut.fetch_add(1, Relaxed);
        }
        if ended.status == 429 {
            self.limited.fetch_add(1, Relaxed);
        }
        if let Some(reused) = ended.reused {
            self.looked_up.fetch_add(1, Relaxed);
            self.reused.fetch_add(u64::from(reused), Relaxed);
        }
        self.sent.fetch_add(ended.bytes, Relaxed);
        let us = u64::try_from(ended.took.as_micros()).unwrap_or(u64::MAX);
        self.total_us.fetch_add(us, Relaxed);
        let at = BUCKETS_US.partition_point(|bound| *bound < us);
        self.coarse[at].fetch_add(1, Relaxed);
        self.fine[fine_index(us)].fetch_add(1, Relaxed);
        let mut recent = lock(&self.recent);
        if recent.len() >= RECENT {
            recent.pop_front();
        }
        recent.push_back(ended);
    }

    /// Ended exchanges, all classes.
    pub fn requests(&self) -> u64 {
        self.by_class.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Counts up to each bound of [`BUCKETS_US`] and beyond, not cumulative.
    pub fn histogram(&self) -> Vec<u64> {
        self.coarse
            .iter()
            .map(|count| count.load(Relaxed))
            .collect()
    }

    /// The last exchanges, newest first.
    pub fn recent(&self) -> Vec<Ended> {
        lock(&self.recent).iter().rev().cloned().collect()
    }

    /// Notes where the counts stand; called once a second.
    pub fn sample(&self) {
        let sample = Sample {
            at: Instant::now(),
            requests: self.requests(),
            fine: self.fine.iter().map(|count| count.load(Relaxed)).collect(),
        };
        let mut window = lock(&self.window);
        if window.len() > WINDOW {
            window.pop_front();
        }
        window.push_back(sample);
    }

    /// Rate over the last second, percentiles over the last ten.
    pub fn rate(&self) -> Rate {
        let window = lock(&self.window);
        let (Some(oldest), Some(newest)) = (window.front(), window.back()) else {
            return Rate::default();
        };
        let per_second = window.iter().rev().nth(1).map_or(0.0, |before| {
            let seconds = newest.at.duration_since(before.at).as_secs_f64().max(0.001);
            (newest.requests.saturating_sub(before.requests)) as f64 / seconds
        });
        let counts: Vec<u64> = self
            .fine
            .iter()
            .zip(&oldest.fine)
            .map(|(now, then)| now.load(Relaxed).saturating_sub(*then))
            .collect();
        Rate {
            per_second,
            percentiles: percentiles(&counts, [0.50, 0.95, 0.99]),
        }
    }
}

/// What the cache nearest the client says of itself in a `Cache-Status`.
pub fn nearest(cache_status: &str) -> &str {
    // RFC 9211 §2: the list is in the order responses passed, the cache closest to the user last.
    let (mut quoted, mut escaped, mut last) = (false, false, 0);
    for (at, byte) in cache_status.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => last = at + 1,
            _ => {}
        }
    }
    cache_status.get(last..).unwrap_or_default().trim()
}

/// Whether the cache nearest the client reused a response, by `Cache-Status`; `None` when it was not looked into.
pub fn reused(cache_status: &str) -> Option<bool> {
    let mut parameters = nearest(cache_status).split(';').map(str::trim).skip(1);
    parameters.find_map(|parameter| match parameter {
        "hit" => Some(Some(true)),
        // RFC 9211 §2.2: with these it was configured or asked not to look, or could not.
        "fwd=bypass" | "fwd=method" => Some(None),
        parameter if parameter.starts_with("fwd=") => Some(Some(false)),
        _ => None,
    })?
}

/// The times below which the given shares of the counted exchanges ended.
fn percentiles<const N: usize>(counts: &[u64], shares: [f64; N]) -> Option<[Duration; N]> {
    let counted = counts.iter().enumerate();
    let counted = counted.map(|(index, count)| (fine_bound(index), *count));
    distribution::percentiles(counted, shares).map(|found| found.map(Duration::from_micros))
}

fn fine_index(us: u64) -> usize {
    (distribution::place(us, STEPS) as usize).min(FINE - 1)
}

/// The largest value counted at an index.
fn fine_bound(index: usize) -> u64 {
    distribution::bound(index as u64, STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_place_whose_bound_is_close() {
        let mut last = 0;
        for us in (0..5_000).chain((5_000..60_000_000).step_by(9_973)) {
            let index = fine_index(us);
            assert!(index >= last, "{us} is before a smaller time");
            last = index;
            let bound = fine_bound(index);
            assert!(bound >= us, "{us} is above its bound {bound}");
            assert!(bound - us <= us / 16, "{us} is far from its bound {bound}");
        }
        assert_eq!(fine_index(u64::MAX), FINE - 1);
    }

    #[test]
    fn every_status_is_counted() {
        let stats = ListenerStats::default();
        for status in [0, 200, 299, 503, 600, 999] {
            stats.end(Ended {
                at: SystemTime::now(),
                method: String::new(),
                path: String::new(),
                status,
                took: Duration::ZERO,
                cache_status: String::new(),
                reused: None,
                rate_limit: String::new(),
                content_encoding: String::new(),
                bytes: 0,
                cut: false,
            });
        }
        let classes: Vec<u64> = stats.by_class.iter().map(|it| it.load(Relaxed)).collect();
        assert_eq!(classes, [1, 0, 2, 0, 0, 3]);
        assert_eq!(stats.requests(), stats.histogram().iter().sum::<u64>());
    }

    #[test]
    fn the_nearest_cache_counts() {
        for (field, want) in [
            ("", None),
            ("edgeweir; hit; ttl=53", Some(true)),
            (
                "edgeweir; fwd=uri-miss; fwd-status=200; stored",
                Some(false),
            ),
            ("edgeweir; fwd=stale; fwd-status=304", Some(false)),
            ("edgeweir; fwd=method; detail=method", None),
            ("edgeweir; fwd=bypass", None),
            ("cdn; hit, edgeweir; fwd=uri-miss", Some(false)),
            ("cdn; fwd=uri-miss, edgeweir; hit", Some(true)),
            (
                "edgeweir; key=\"a, b\\\", ; hit\"; fwd=uri-miss",
                Some(false),
            ),
            ("edgeweir", None),
        ] {
            assert_eq!(reused(field), want, "{field}");
        }
    }

    #[test]
    fn percentiles_are_taken_over_the_window_only() {
        let stats = ListenerStats::default();
        let end = |ms: u64| {
            stats.end(Ended {
                at: SystemTime::now(),
                method: "GET".into(),
                path: "/".into(),
                status: 200,
                took: Duration::from_millis(ms),
                cache_status: String::new(),
                reused: None,
                rate_limit: String::new(),
                content_encoding: String::new(),
                bytes: 10,
                cut: false,
            });
        };
        end(5_000);
        stats.sample();
        assert!(stats.rate().percentiles.is_none());
        (0..100).for_each(|_| end(10));
        end(100);
        let [p50, _, p99] = stats.rate().percentiles.expect("there were exchanges");
        assert!((10..=11).contains(&p50.as_millis()), "{p50:?}");
        assert!((10..=11).contains(&p99.as_millis()), "{p99:?}");
        assert_eq!(stats.requests(), 102);
        assert_eq!(stats.recent().len(), RECENT);
    }
}
