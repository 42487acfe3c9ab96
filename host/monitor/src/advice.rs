//! What could be set differently, in words: the setting, the numbers seen, and why.

use std::time::Duration;

use crate::filters::FilterSeen;
use crate::metric::{Metric, Sample, Unit, shown};

/// A recommendation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advice {
    /// The setting it is about, as it is named in `edgeweir.toml`.
    pub setting: String,
    /// What was seen and what to do.
    pub text: String,
}

/// Bounds of the host that advice is about.
#[derive(Clone, Copy, Default, Debug)]
pub struct Bounds {
    /// Connections one listener may have at once.
    pub connections: u64,
    /// Connections open at the listener that has the most.
    pub fullest: u64,
    /// Processors the process may use.
    pub processors: u32,
    /// Descriptors the process may have; 0 when it is not known.
    pub descriptors: u64,
}

/// Lookups, responses or requests below which shares mean nothing.
const ENOUGH: u64 = 500;

/// What is to be recommended now. `forecasts` are times to a threshold.
pub fn advice(
    sample: &Sample,
    filters: &[FilterSeen],
    bounds: Bounds,
    forecasts: &[(Metric, f64, Duration)],
) -> Vec<Advice> {
    let mut found = Vec::new();
    memory(sample, filters, &mut found);
    connections(sample, bounds, &mut found);
    processor(sample, filters, bounds, &mut found);
    disk(sample, forecasts, &mut found);
    for filter in filters {
        of_filter(filter, &mut found);
    }
    found
}

fn say(found: &mut Vec<Advice>, setting: impl Into<String>, text: String) {
    found.push(Advice {
        setting: setting.into(),
        text,
    });
}

fn memory(sample: &Sample, filters: &[FilterSeen], found: &mut Vec<Advice>) {
    let Some(percent) = sample
        .get(Metric::Memory)
        .filter(|percent| *percent >= 75.0)
    else {
        return;
    };
    let resident = sample.get(Metric::MemoryResident).unwrap_or_default();
    let Some(most) = filters.iter().max_by_key(|it| it.memory + it.shared) else {
        return;
    };
    say(
        found,
        format!("filter.{}.instances", most.name),
        format!(
            "the process holds {} ({percent:.0} % of what it may have), of which {} has {} of linear memory and {} shared: \
             lower its `instances`, or what it may keep (`l1_bytes`, `l2_bytes` of a cache, `memory_bytes` of compress)",
            shown(Unit::Bytes, resident),
            most.name,
            shown(Unit::Bytes, most.memory as f64),
            shown(Unit::Bytes, most.shared as f64),
        ),
    );
}

fn connections(sample: &Sample, bounds: Bounds, found: &mut Vec<Advice>) {
    if let Some(used) = sample
        .get(Metric::DescriptorsUsed)
        .filter(|used| *used >= 70.0)
    {
        say(
            found,
            "limits.connections",
            format!(
                "{used:.0} % of the {} descriptors are open: raise the limit (`ulimit -n`, `LimitNOFILE=`), or lower \
                 `limits.connections` ({}) to less than half of it",
                bounds.descriptors, bounds.connections
            ),
        );
    } else if bounds.descriptors > 0 && bounds.connections.saturating_mul(2) > bounds.descriptors {
        say(
            found,
            "limits.connections",
            format!(
                "`limits.connections` ({}) and as many to upstreams are more than the {} descriptors the process may \
                 open: raise the limit (`ulimit -n`, `LimitNOFILE=`), or lower `limits.connections`",
                bounds.connections, bounds.descriptors
            ),
        );
    }
    // The bound is each listener's own: what all have together says nothing of it.
    if bounds.connections > 0
        && bounds.fullest.saturating_mul(10) >= bounds.connections.saturating_mul(8)
    {
        say(
            found,
            "limits.connections",
            format!(
                "a listener has {} of the {} connections it may have: new ones will wait; raise `limits.connections`",
                bounds.fullest, bounds.connections
            ),
        );
    }
}

fn processor(sample: &Sample, filters: &[FilterSeen], bounds: Bounds, found: &mut Vec<Advice>) {
    let Some(busy) = sample.get(Metric::ProcessCpu).filter(|busy| *busy >= 70.0) else {
        return;
    };
    let all: u64 = filters.iter().map(|it| it.busy_ns).sum();
    let Some(most) = filters.iter().max_by_key(|it| it.busy_ns) else {
        return;
    };
    let share = most.busy_ns as f64 / all.max(1) as f64 * 100.0;
    if share < 40.0 {
        return;
    }
    let per = most.busy_ns as f64 / 1e3 / most.exchanges.max(1) as f64;
    let seen = format!(
        "the process uses {busy:.0} % of {} processor(s), and {share:.0} % of the filters' time is {}'s ({per:.0} µs an \
         exchange)",
        bounds.processors, most.name
    );
    let (setting, what) = if most.counter("compress.bytes_in") > 0 {
        (
            "config.preset",
            "`preset = \"fast\"`, a lower `gzip_level`, `brotli_level` or `zstd_level`, or a `cpu_percent` make it cheaper",
        )
    } else {
        (
            "module",
            "`edgeweir bench` names the callback; fewer exchanges reach a filter that stands behind a cache",
        )
    };
    say(
        found,
        format!("filter.{}.{setting}", most.name),
        format!("{seen}: {what}"),
    );
}

fn disk(sample: &Sample, forecasts: &[(Metric, f64, Duration)], found: &mut Vec<Advice>) {
    let of_disk = forecasts.iter().filter(|it| it.0 == Metric::DiskFree);
    // However many thresholds are ahead, what to do is the same.
    let Some((_, at, left)) = of_disk.min_by_key(|it| it.2) else {
        return;
    };
    let free = sample.get(Metric::DiskFree).unwrap_or_default();
    say(
        found,
        "state.store",
        format!(
            "{free:.1} % of the disk are free, and {at:.0} % in about {} min: move `state.store` or `state.cache_dir` to a \
             larger one",
            left.as_secs() / 60
        ),
    );
}

fn of_filter(filter: &FilterSeen, found: &mut Vec<Advice>) {
    let name = &filter.name;
    if filter.traps > 0 {
        say(
            found,
            format!("filter.{name}.on_trap"),
            format!(
                "{name} trapped {} time(s) since the start: its last trap is on the dashboard; {}",
                filter.traps,
                match filter.passes {
                    true => "requests went on without it",
                    false => "`on_trap = \"pass\"` goes on without it meanwhile",
                }
            ),
        );
    }
    if filter.memory_limit > 0 && filter.memory_peak * 10 >= filter.memory_limit * 8 {
        say(
            found,
            format!("filter.{name}.memory_mib"),
            format!(
                "an instance of {name} had {} of {}: at the limit it traps; raise `memory_mib`, or lower what it keeps",
                shown(Unit::Bytes, filter.memory_peak as f64),
                shown(Unit::Bytes, filter.memory_limit as f64),
            ),
        );
    }
    cache(filter, found);
    compress(filter, found);
}

fn cache(filter: &FilterSeen, found: &mut Vec<Advice>) {
    let name = &filter.name;
    let count = |counter: &str| filter.counter(counter);
    let (hits, misses) = (
        count("cache.hit") + count("cache.stale") + count("cache.collapsed"),
        count("cache.miss"),
    );
    let looked = hits + misses;
    if looked < ENOUGH {
        return;
    }
    let ratio = hits as f64 / looked as f64 * 100.0;
    let evicted = count("cache.l1.evicted");
    if evicted * 5 > looked {
        say(
            found,
            format!("filter.{name}.config.l1_bytes"),
            format!(
                "{name} evicted {evicted} responses from its first tier for {looked} lookups: raise `l1_bytes` and \
                 `l1_entries`"
            ),
        );
    }
    if ratio >= 30.0 {
        return;
    }
    let no_lifetime = count("cache.refused.no_freshness");
    let (setting, why) = if no_lifetime * 2 > misses {
        (
            "rules",
            format!(
                "{no_lifetime} were not stored as the origin gives them no lifetime: set `ttl_by_status` for their paths"
            ),
        )
    } else if count("cache.refused.set_cookie") * 2 > misses {
        (
            "store_set_cookie",
            format!(
                "{} set a cookie: let the origin set none on what is the same for all",
                count("cache.refused.set_cookie")
            ),
        )
    } else if count("cache.refused.too_large") * 2 > misses {
        (
            "max_object_bytes",
            format!(
                "{} were too large: raise `max_object_bytes`",
                count("cache.refused.too_large")
            ),
        )
    } else if count("cache.forwarded.variant") * 2 > misses {
        (
            "key",
            "most miss by `Vary`: let the origin vary by less".to_owned(),
        )
    } else {
        (
            "key",
            "parameters that do not change the response can leave the key: `key.query_exclude`, `key.query_sort`".to_owned(),
        )
    };
    say(
        found,
        format!("filter.{name}.config.{setting}"),
        format!("{name} reused {ratio:.0} % of {looked} lookups; {why}"),
    );
}

fn compress(filter: &FilterSeen, found: &mut Vec<Advice>) {
    let name = &filter.name;
    let coded: u64 = ["br", "zstd", "gzip", "deflate"]
        .iter()
        .map(|coding| filter.counter(&format!("compress.coded.{coding}")))
        .sum();
    let (busy, room) = (
        filter.counter("compress.skipped.cpu"),
        filter.counter("compress.skipped.memory"),
    );
    if busy * 10 > coded && busy > 100 {
        say(
            found,
            format!("filter.{name}.config.cpu_percent"),
            format!(
                "{name} left {busy} responses uncoded for want of time, and coded {coded}: raise `cpu_percent`, or take \
                 `preset = \"fast\"`"
            ),
        );
    }
    if room * 10 > coded && room > 100 {
        say(
            found,
            format!("filter.{name}.config.memory_bytes"),
            format!("{name} left {room} responses uncoded for want of room: raise `memory_bytes`"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(name: &str, counters: &[(&str, u64)]) -> FilterSeen {
        FilterSeen {
            name: name.to_owned(),
            counters: counters
                .iter()
                .map(|(name, count)| (format!("edgeweir.{name}"), *count))
                .collect(),
            ..FilterSeen::default()
        }
    }

    #[test]
    fn each_piece_of_advice_names_its_setting_and_its_numbers() {
        let calm = Sample::default();
        let bounds = Bounds {
            connections: 1_000,
            fullest: 790,
            processors: 4,
            descriptors: 65_536,
        };
        let mut heavy = filter("coder", &[("compress.bytes_in", 9)]);
        (heavy.busy_ns, heavy.exchanges) = (9_000_000, 10);
        let mut full = filter("store", &[]);
        (full.memory_peak, full.memory_limit) = (230 << 20, 256 << 20);
        let mut broken = filter("mine", &[]);
        broken.traps = 3;
        let mut passed = broken.clone();
        passed.passes = true;
        let missing = [
            ("cache.hit", 100),
            ("cache.miss", 900),
            ("cache.refused.no_freshness", 800),
        ];
        for (name, sample, filters, bounds, setting, words) in [
            (
                "memory",
                calm.with(Metric::Memory, 83.0)
                    .with(Metric::MemoryResident, 1e9),
                vec![filter("store", &[])],
                bounds,
                "filter.store.instances",
                "83 %",
            ),
            (
                "descriptors",
                calm.with(Metric::DescriptorsUsed, 91.0),
                vec![],
                bounds,
                "limits.connections",
                "91 % of the 65536 descriptors",
            ),
            (
                "too few descriptors for what is allowed",
                calm,
                vec![],
                Bounds {
                    descriptors: 1_024,
                    ..bounds
                },
                "limits.connections",
                "more than the 1024 descriptors",
            ),
            (
                "connections of one listener",
                calm.with(Metric::Connections, 950.0),
                vec![],
                Bounds {
                    fullest: 800,
                    ..bounds
                },
                "limits.connections",
                "a listener has 800 of the 1000 connections",
            ),
            (
                "the most expensive filter",
                calm.with(Metric::ProcessCpu, 88.0),
                vec![heavy, filter("other", &[])],
                bounds,
                "filter.coder.config.preset",
                "900 µs an exchange",
            ),
            (
                "near its memory",
                calm,
                vec![full],
                bounds,
                "filter.store.memory_mib",
                "230.0 MiB of 256.0 MiB",
            ),
            (
                "traps",
                calm,
                vec![broken],
                bounds,
                "filter.mine.on_trap",
                "`on_trap = \"pass\"` goes on without it",
            ),
            (
                "traps of one that is passed by",
                calm,
                vec![passed],
                bounds,
                "filter.mine.on_trap",
                "trapped 3 time(s) since the start: its last trap is on the dashboard; requests went on without it",
            ),
            (
                "no lifetimes",
                calm,
                vec![filter("store", &missing)],
                bounds,
                "filter.store.config.rules",
                "reused 10 % of 1000 lookups; 800 were not stored",
            ),
            (
                "evictions",
                calm,
                vec![filter(
                    "store",
                    &[
                        ("cache.hit", 900),
                        ("cache.miss", 100),
                        ("cache.l1.evicted", 600),
                    ],
                )],
                bounds,
                "filter.store.config.l1_bytes",
                "evicted 600",
            ),
            (
                "uncoded",
                calm,
                vec![filter(
                    "coder",
                    &[
                        ("compress.coded.gzip", 1_000),
                        ("compress.skipped.cpu", 500),
                    ],
                )],
                bounds,
                "filter.coder.config.cpu_percent",
                "left 500 responses uncoded",
            ),
        ] {
            let found = advice(&sample, &filters, bounds, &[]);
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert_eq!(found[0].setting, setting, "{name}");
            assert!(found[0].text.contains(words), "{name}: {}", found[0].text);
        }
        let fine = filter("store", &[("cache.hit", 900), ("cache.miss", 100)]);
        assert_eq!(advice(&calm, &[fine], bounds, &[]), []);
        // Four listeners with 790 each are none that is full.
        let many = calm.with(Metric::Connections, 3_160.0);
        assert_eq!(advice(&many, &[], bounds, &[]), []);
        let soon = [
            (Metric::DiskFree, 10.0, Duration::from_secs(1_200)),
            (Metric::DiskFree, 3.0, Duration::from_secs(3_600)),
        ];
        let found = advice(&calm.with(Metric::DiskFree, 14.0), &[], bounds, &soon);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].text.contains("10 % in about 20 min"), "{found:?}");
    }
}
