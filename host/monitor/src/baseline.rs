//! A summary of a good time, and what is worse since.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::filters::FilterSeen;

/// What a host and its filters cost at a good time; JSON.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// The version of the host that wrote it.
    pub version: String,
    /// Resident memory, bytes.
    pub memory_bytes: f64,
    /// Processor time for an exchange, microseconds, all included; 0 where there were fewer than [`EXCHANGES`].
    pub cpu_us_per_exchange: f64,
    /// By filter.
    pub filters: BTreeMap<String, Costs>,
}

/// What a filter costs.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Median time of a call, microseconds.
    pub p50_us: f64,
    /// 95 of a hundred calls end within this, microseconds.
    pub p95_us: f64,
    /// 99 of a hundred.
    pub p99_us: f64,
    /// Time in all calls for one exchange, microseconds.
    pub us_per_exchange: f64,
    /// Linear memory of all instances, bytes.
    pub memory_bytes: f64,
}

/// One thing that is worse than it was.
#[derive(Clone, PartialEq, Debug)]
pub struct Regression {
    /// Of which filter; `None`: of the host.
    pub filter: Option<String>,
    /// What: a field of [`Baseline`] or [`Costs`].
    pub what: &'static str,
    /// Before.
    pub was: f64,
    /// Now.
    pub is: f64,
}

impl Regression {
    /// By how many percent it is worse.
    pub fn percent(&self) -> f64 {
        (self.is / self.was - 1.0) * 100.0
    }
}

/// Exchanges a filter, or the host, must have had before its costs are compared.
pub const EXCHANGES: u64 = 200;
/// Differences below this many microseconds are noise whatever their share.
const NOISE_US: f64 = 20.0;
/// The same for bytes.
const NOISE_BYTES: f64 = 4_194_304.0;

impl Baseline {
    /// A summary of now. Costs of filters that had fewer than [`EXCHANGES`] are left out.
    pub fn of(
        version: &str,
        memory_bytes: f64,
        cpu_us_per_exchange: f64,
        filters: &[FilterSeen],
    ) -> Self {
        let costs = |filter: &FilterSeen| {
            let recent = filter.recent?;
            let [p50_us, p95_us, p99_us] = recent.percentiles_us;
            let costs = Costs {
                p50_us,
                p95_us,
                p99_us,
                us_per_exchange: recent.busy_ns as f64 / 1e3 / recent.exchanges as f64,
                memory_bytes: filter.memory as f64,
            };
            (recent.exchanges >= EXCHANGES).then(|| (filter.name.clone(), costs))
        };
        Self {
            version: version.to_owned(),
            memory_bytes,
            cpu_us_per_exchange,
            filters: filters.iter().filter_map(costs).collect(),
        }
    }

    /// Whether it says nothing of what exchanges cost: of a host that did nothing yet, memory alone is no good time.
    pub fn is_empty(&self) -> bool {
        self.cpu_us_per_exchange <= 0.0 && self.filters.is_empty()
    }

    /// What of `now` is worse by more than `tolerance` percent.
    pub fn regressions(&self, now: &Self, tolerance: f64) -> Vec<Regression> {
        let mut found = Vec::new();
        let mut compare = |filter: Option<&str>, what, was: f64, is: f64, noise: f64| {
            if was > 0.0 && is - was > noise && is > was * (1.0 + tolerance / 100.0) {
                found.push(Regression {
                    filter: filter.map(str::to_owned),
                    what,
                    was,
                    is,
                });
            }
        };
        compare(
            None,
            "memory_bytes",
            self.memory_bytes,
            now.memory_bytes,
            NOISE_BYTES,
        );
        let (was, is) = (self.cpu_us_per_exchange, now.cpu_us_per_exchange);
        compare(None, "cpu_us_per_exchange", was, is, NOISE_US);
        for (name, is) in &now.filters {
            let Some(was) = self.filters.get(name) else {
                continue;
            };
            let name = Some(name.as_str());
            compare(name, "p50_us", was.p50_us, is.p50_us, NOISE_US);
            compare(name, "p95_us", was.p95_us, is.p95_us, NOISE_US);
            compare(name, "p99_us", was.p99_us, is.p99_us, NOISE_US);
            let (before, after) = (was.us_per_exchange, is.us_per_exchange);
            compare(name, "us_per_exchange", before, after, NOISE_US);
            compare(
                name,
                "memory_bytes",
                was.memory_bytes,
                is.memory_bytes,
                NOISE_BYTES,
            );
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::Recent;

    fn seen(scale: f64, exchanges: u64) -> FilterSeen {
        FilterSeen {
            name: "store".to_owned(),
            memory: (8_388_608.0 * scale) as u64,
            recent: Some(Recent {
                exchanges,
                busy_ns: (100_000.0 * scale) as u64 * exchanges,
                percentiles_us: [60.0 * scale, 150.0 * scale, 400.0 * scale],
            }),
            ..FilterSeen::default()
        }
    }

    #[test]
    fn what_is_worse_is_named() {
        let good = Baseline::of("1", 1e8, 200.0, &[seen(1.0, 1_000)]);
        for (name, now, want) in [
            (
                "the same",
                Baseline::of("1", 1e8, 200.0, &[seen(1.0, 5_000)]),
                vec![],
            ),
            (
                "within",
                Baseline::of("1", 1.1e8, 220.0, &[seen(1.1, 5_000)]),
                vec![],
            ),
            (
                "better",
                Baseline::of("1", 1e7, 20.0, &[seen(0.1, 5_000)]),
                vec![],
            ),
            (
                "memory",
                Baseline::of("1", 1.5e8, 200.0, &[seen(1.0, 5_000)]),
                vec!["memory_bytes"],
            ),
            (
                "a filter",
                Baseline::of("1", 1e8, 200.0, &[seen(2.0, 5_000)]),
                vec![
                    "p50_us",
                    "p95_us",
                    "p99_us",
                    "us_per_exchange",
                    "memory_bytes",
                ],
            ),
            (
                "too few exchanges",
                Baseline::of("1", 1e8, 200.0, &[seen(9.0, 50)]),
                vec![],
            ),
            ("another filter", Baseline::of("1", 1e8, 200.0, &[]), vec![]),
        ] {
            let found = good.regressions(&now, 25.0);
            let found: Vec<_> = found.iter().map(|it| it.what).collect();
            assert_eq!(found, want, "{name}");
        }
    }

    #[test]
    fn noise_is_no_regression() {
        let small = |us: f64| {
            let mut filter = seen(1.0, 1_000);
            filter.recent = Some(Recent {
                percentiles_us: [us; 3],
                ..filter.recent.unwrap()
            });
            Baseline::of("1", 1e8, 200.0, &[filter])
        };
        assert!(small(5.0).regressions(&small(15.0), 25.0).is_empty());
        assert_eq!(small(5.0).regressions(&small(50.0), 25.0).len(), 3);
    }

    #[test]
    fn one_that_says_nothing_is_empty() {
        assert!(Baseline::default().is_empty());
        assert!(Baseline::of("1", 1e8, 0.0, &[]).is_empty());
        assert!(Baseline::of("1", 1e8, 0.0, &[seen(1.0, EXCHANGES - 1)]).is_empty());
        assert!(!Baseline::of("1", 1e8, 200.0, &[]).is_empty());
        assert!(!Baseline::of("1", 0.0, 0.0, &[seen(1.0, EXCHANGES)]).is_empty());
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written() {
        let good = Baseline::of("1", 1e8, 200.0, &[seen(1.0, 1_000)]);
        let text = serde_json::to_string(&good).unwrap();
        assert_eq!(serde_json::from_str::<Baseline>(&text).unwrap(), good);
        assert!(serde_json::from_str::<Baseline>("{\"versoin\":\"1\"}").is_err());
    }
}
