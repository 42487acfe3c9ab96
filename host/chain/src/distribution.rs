//! How values are distributed: counts in places that widen with the value, and shares of what was counted.
//!
//! Values below `steps`, a power of two, have a place each; beyond, every power of two is divided in as many: the bound of a
//! place is at most one part in `steps` above what is counted there.

/// The place a value is counted at.
pub const fn place(value: u64, steps: u64) -> u64 {
    if value < steps {
        return value;
    }
    let (power, bits) = (value.ilog2() as u64, steps.ilog2() as u64);
    (power - bits + 1) * steps + (value >> (power - bits)) - steps
}

/// The largest value counted at a place.
pub const fn bound(place: u64, steps: u64) -> u64 {
    if place < steps {
        return place;
    }
    let wider = place / steps - 1;
    ((steps + place % steps + 1) << wider) - 1
}

/// The bounds within which the given shares of what was counted are; `counted` are bounds, rising, and counts. `None` where
/// nothing was counted.
pub fn percentiles<const N: usize>(
    counted: impl Iterator<Item = (u64, u64)> + Clone,
    shares: [f64; N],
) -> Option<[u64; N]> {
    let all: u64 = counted.clone().map(|(_, count)| count).sum();
    if all == 0 {
        return None;
    }
    Some(shares.map(|share| {
        let rank = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = counted.clone().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        found.map_or(0, |(bound, _)| bound)
    }))
}
