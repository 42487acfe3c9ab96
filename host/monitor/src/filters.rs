//! What is known of each filter at a moment, for what looks at them.

use std::collections::BTreeMap;

/// One filter. Counts are since the start.
#[derive(Clone, Default, Debug)]
pub struct FilterSeen {
    /// Its name in the configuration.
    pub name: String,
    /// Exchanges handled.
    pub exchanges: u64,
    /// Wall time in its callbacks, nanoseconds.
    pub busy_ns: u64,
    /// Linear memory of its instances, bytes.
    pub memory: u64,
    /// What one instance may have, bytes.
    pub memory_limit: u64,
    /// On a trap requests go on without it.
    pub passes: bool,
    /// The most one instance had, bytes.
    pub memory_peak: u64,
    /// Bytes it keeps in shared data or stores.
    pub shared: u64,
    /// Traps.
    pub traps: u64,
    /// What it did of late; `None` when that was nothing.
    pub recent: Option<Recent>,
    /// Its own counters, by name.
    pub counters: BTreeMap<String, u64>,
}

/// What a filter did over the last minute or so.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Recent {
    /// Exchanges handled.
    pub exchanges: u64,
    /// Wall time in its callbacks, nanoseconds.
    pub busy_ns: u64,
    /// Time of its calls: half, 95 and 99 of a hundred ended within this, microseconds.
    pub percentiles_us: [f64; 3],
}

impl FilterSeen {
    /// A counter by what its name ends with; 0 when it is not there.
    pub fn counter(&self, name: &str) -> u64 {
        let dotted = |known: &str| {
            known == name
                || known
                    .strip_suffix(name)
                    .is_some_and(|before| before.ends_with('.'))
        };
        let known = self.counters.iter().find(|(known, _)| dotted(known));
        known.map_or(0, |(_, count)| *count)
    }
}
