//! Popularity as on the web: few keys are asked for often, many seldom. The bounded first tier must hit as often as an
//! exact LRU of the same size, which is simulated beside it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use edgeweir_cache::Cache;
use edgeweir_filter::{Script, load};

const KEYS: usize = 10_000;
const ROOM: usize = KEYS / 10;
const REQUESTS: usize = 30_000;
/// A ratio counts once both caches are full.
const WARM: usize = 10_000;

/// Ranks 0.. drawn with probability proportional to `1 / (rank + 1)^exponent`, the same at each run.
struct Zipf {
    sums: Vec<f64>,
    state: u64,
}

impl Zipf {
    fn new(exponent: f64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=KEYS).map(|rank| (rank as f64).powf(-exponent));
        let sums = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self {
            sums: sums.collect(),
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }

    fn draw(&mut self) -> usize {
        // xorshift64*; the upper 53 bits make a fraction.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let fraction = (drawn >> 11) as f64 / (1u64 << 53) as f64;
        let whole = self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum < fraction * whole)
    }
}

/// Least recently used goes first, exactly.
#[derive(Default)]
struct Lru {
    by_key: HashMap<usize, usize>,
    by_use: BTreeMap<usize, usize>,
}

impl Lru {
    /// Asks for a key, which is kept from then on; whether it was there.
    fn ask(&mut self, key: usize, turn: usize) -> bool {
        let before = self.by_key.insert(key, turn);
        if let Some(before) = before {
            self.by_use.remove(&before);
        } else if self.by_key.len() > ROOM
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_key.remove(&oldest);
        }
        self.by_use.insert(turn, key);
        before.is_some()
    }
}

fn ratios(exponent: f64) -> (f64, f64) {
    let config = format!(r#"{{ "shared": false, "l1_entries": {ROOM} }}"#);
    let cache = load::<Cache>(config.as_bytes()).expect("a valid configuration");
    let mut edge = Script::new(cache).origin(200, &[("cache-control", "max-age=86400")], "body");
    let (mut zipf, mut exact) = (Zipf::new(exponent), Lru::default());
    let (mut hits, mut exact_hits) = (0, 0);
    for turn in 0..REQUESTS {
        let key = zipf.draw();
        edge.pass(Duration::from_millis(1));
        let seen = edge.request(&["GET", &format!("/{key}")], &[]).run();
        let (hit, exact_hit) = (seen.upstream.is_none(), exact.ask(key, turn));
        if turn >= WARM {
            hits += usize::from(hit);
            exact_hits += usize::from(exact_hit);
        }
    }
    let of = |hits: usize| hits as f64 * 100.0 / (REQUESTS - WARM) as f64;
    (of(hits), of(exact_hits))
}

fn is_as_good_as_lru(exponent: f64) {
    let (ours, exact) = ratios(exponent);
    println!("exponent {exponent}: {ours:.2} % hits, an exact LRU {exact:.2} %");
    assert!(exact > 40.0, "the load has no favourites: {exact:.2} %");
    assert!(
        (ours - exact).abs() <= 2.0,
        "{ours:.2} % hits, an exact LRU has {exact:.2} %"
    );
}

#[test]
fn an_exponent_of_0_9() {
    is_as_good_as_lru(0.9);
}

#[test]
fn an_exponent_of_1() {
    is_as_good_as_lru(1.0);
}
