//! Which request is likely to follow which: a small table learnt from the order in which clients ask.
//!
//! Per key it keeps one candidate with a count that other successors wear down (the majority vote of Boyer and Moore),
//! and how often the key was followed at all: memory per key is constant, and a candidate that more than half of the
//! clients go on to wins. Old counts are halved, so that habits may change.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use bytes::Bytes;
use edgeweir_filter::Timestamp;
use lru::LruCache;
use serde_json::{Value, json};

/// Clients whose last request is remembered at most.
const CLIENTS: usize = 4096;
/// A request that comes later than this after the one before does not follow it.
const TOGETHER: Duration = Duration::from_secs(30);
/// Followings of a key before anything is predicted of it.
const SEEN: u32 = 4;
/// Followings after which counts are halved.
const AGED: u32 = 64;
/// Longest path that is remembered.
const PATH: usize = 1024;

/// The table.
pub struct Successors {
    hasher: RandomState,
    last: LruCache<u64, (u64, Timestamp), RandomState>,
    table: LruCache<u64, Followed, RandomState>,
    most: usize,
    /// What was fetched ahead and not asked for yet.
    ahead: LruCache<u64, (), RandomState>,
    fetched: u64,
    used: u64,
}

struct Followed {
    path: Bytes,
    candidate: u64,
    votes: u32,
    /// How often the candidate came, and anything.
    matched: u32,
    seen: u32,
}

impl Successors {
    /// An empty table of at most `most` keys.
    pub fn new(most: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            last: LruCache::unbounded_with_hasher(RandomState::new()),
            table: LruCache::unbounded_with_hasher(RandomState::new()),
            most,
            ahead: LruCache::unbounded_with_hasher(RandomState::new()),
            fetched: 0,
            used: 0,
        }
    }

    /// A client asks for a path of an origin; whether it was fetched ahead for this.
    pub fn observe(&mut self, client: &[u8], origin: &[u8], path: &Bytes, now: Timestamp) -> bool {
        let key = self.key(origin, path);
        // Clients of one origin: a step from one to another is none.
        let client = self.hasher.hash_one((client, origin));
        let before = self.last.put(client, (key, now));
        while self.last.len() > CLIENTS {
            self.last.pop_lru();
        }
        if let Some((before, at)) = before
            && before != key
            && now.since(at) <= TOGETHER
            && path.len() <= PATH
        {
            self.follow(before, key, path);
        }
        let gained = self.ahead.pop(&key).is_some();
        self.used += u64::from(gained);
        gained
    }

    /// The path that most likely is asked for after this one: seen to follow it at least four times, and more than half
    /// of all times.
    pub fn predict(&mut self, origin: &[u8], path: &[u8]) -> Option<Bytes> {
        let followed = self.table.get(&self.key(origin, path))?;
        let likely = followed.seen >= SEEN && followed.matched.saturating_mul(2) > followed.seen;
        likely.then(|| followed.path.clone())
    }

    /// A path is fetched ahead; `false` when it was already and nobody asked since.
    pub fn begin(&mut self, origin: &[u8], path: &[u8]) -> bool {
        let key = self.key(origin, path);
        if self.ahead.put(key, ()).is_some() {
            return false;
        }
        while self.ahead.len() > self.most {
            self.ahead.pop_lru();
        }
        self.fetched += 1;
        true
    }

    /// Keys known, and how many of the paths fetched ahead were asked for.
    pub fn statistics(&self) -> Value {
        json!({ "keys": self.table.len(), "fetched_ahead": self.fetched, "asked_for": self.used })
    }

    fn key(&self, origin: &[u8], path: &[u8]) -> u64 {
        self.hasher.hash_one((origin, path))
    }

    fn follow(&mut self, before: u64, next: u64, path: &Bytes) {
        let followed = self.table.get_or_insert_mut(before, || Followed {
            path: path.clone(),
            candidate: next,
            votes: 0,
            matched: 0,
            seen: 0,
        });
        followed.seen += 1;
        if followed.candidate == next {
            followed.votes += 1;
            followed.matched += 1;
        } else if followed.votes == 0 {
            // As if it had not been known before.
            *followed = Followed {
                path: path.clone(),
                candidate: next,
                votes: 1,
                matched: 1,
                seen: 1,
            };
        } else {
            followed.votes -= 1;
        }
        if followed.seen >= AGED {
            followed.seen /= 2;
            followed.matched /= 2;
            followed.votes /= 2;
        }
        while self.table.len() > self.most {
            self.table.pop_lru();
        }
    }
}

/// A bound on how often something is done: so many a second, as many at once.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    per_second: u32,
    /// When the next is due, had all come evenly (a theoretical arrival time).
    due: Timestamp,
}

impl Rate {
    /// `per_second`; 0 is never.
    pub fn new(per_second: u32) -> Self {
        Self {
            per_second,
            due: Timestamp(0),
        }
    }

    /// Whether there is one now.
    pub fn has(&self, now: Timestamp) -> bool {
        self.per_second > 0 && self.due.max(now).since(now) < Duration::from_secs(1)
    }

    /// Takes one, if there is one now.
    pub fn take(&mut self, now: Timestamp) -> bool {
        if !self.has(now) {
            return false;
        }
        let interval = 1_000_000_000u64.div_ceil(u64::from(self.per_second));
        let due = self.due.max(now);
        self.due = due.plus(Duration::from_nanos(interval));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &[u8] = b"https://a.example";

    fn walk(table: &mut Successors, client: &str, paths: &[&'static str], at: u64) {
        for (step, path) in paths.iter().enumerate() {
            let now = Timestamp::from_secs(at + step as u64);
            table.observe(client.as_bytes(), ORIGIN, &Bytes::from(*path), now);
        }
    }

    #[test]
    fn what_most_go_on_to_is_predicted() {
        let mut table = Successors::new(100);
        for n in 0..3 {
            walk(&mut table, &format!("c{n}"), &["/a", "/b"], 100 * n);
        }
        assert_eq!(table.predict(ORIGIN, b"/a"), None, "too few yet");
        walk(&mut table, "c4", &["/a", "/b"], 500);
        assert_eq!(table.predict(ORIGIN, b"/a"), Some(Bytes::from("/b")));
        assert_eq!(table.predict(b"https://b.example", b"/a"), None);
        assert_eq!(table.predict(ORIGIN, b"/b"), None);
        for n in 10..30 {
            walk(&mut table, &format!("c{n}"), &["/a", "/c"], 1000 * n);
        }
        assert_eq!(
            table.predict(ORIGIN, b"/a"),
            Some(Bytes::from("/c")),
            "habits change"
        );
    }

    #[test]
    fn no_majority_no_prediction() {
        let mut table = Successors::new(100);
        for n in 0..60 {
            let next = ["/b", "/c", "/d"][n % 3];
            walk(&mut table, &format!("c{n}"), &["/a", next], 100 * n as u64);
        }
        assert_eq!(table.predict(ORIGIN, b"/a"), None);
    }

    #[test]
    fn a_pause_is_no_step_and_all_is_bounded() {
        let mut table = Successors::new(10);
        for n in 0..9 {
            let client = format!("c{n}");
            walk(&mut table, &client, &["/a"], 100 * n);
            walk(&mut table, &client, &["/b"], 100 * n + 31);
        }
        assert_eq!(table.predict(ORIGIN, b"/a"), None);
        for n in 0..1000u64 {
            let path = Bytes::from(format!("/{n}"));
            table.observe(&n.to_be_bytes(), ORIGIN, &path, Timestamp::from_secs(n));
            table.observe(b"one", ORIGIN, &path, Timestamp::from_secs(n));
            table.begin(ORIGIN, &path);
        }
        assert!(table.table.len() <= 10 && table.ahead.len() <= 10);
        assert!(table.last.len() <= CLIENTS);
    }

    #[test]
    fn what_was_fetched_ahead_and_asked_for_is_counted() {
        let mut table = Successors::new(10);
        assert!(table.begin(ORIGIN, b"/a"));
        assert!(!table.begin(ORIGIN, b"/a"));
        let (path, now) = (Bytes::from("/a"), Timestamp::from_secs(1));
        assert!(table.observe(b"c", ORIGIN, &path, now));
        assert!(!table.observe(b"c", ORIGIN, &path, now));
        assert_eq!((table.fetched, table.used), (1, 1));
    }

    #[test]
    fn a_rate_is_a_bound() {
        let mut rate = Rate::new(5);
        let taken = |rate: &mut Rate, from: u64, ms: u64| {
            (0..ms)
                .filter(|t| rate.take(Timestamp((from + t) * 1_000_000)))
                .count()
        };
        assert!(taken(&mut rate, 10_000, 1_000) <= 10);
        let steady = taken(&mut rate, 11_000, 10_000);
        assert!((48..=52).contains(&steady), "{steady}");
        assert_eq!(taken(&mut Rate::new(0), 0, 100), 0);
    }
}
