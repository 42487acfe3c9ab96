//! Lines for the operator, on standard error.

use std::cell::Cell;
use std::io::Write;

use edgeweir_filter::{Level, Record, Timestamp};

use crate::counters;

/// Lines a second at most, so that traffic can't fill a disk.
const LINES_PER_SECOND: u32 = 50;

thread_local! {
    static BUDGET: Cell<Budget> = const { Cell::new(Budget { second: 0, lines: 0, dropped: 0 }) };
}

#[derive(Clone, Copy)]
struct Budget {
    second: u64,
    lines: u32,
    dropped: u32,
}

impl Budget {
    /// Whether a line may be written at `now`, and how many were left out before it.
    fn take(&mut self, now: Timestamp) -> (bool, u32) {
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            self.lines = 0;
        }
        if self.lines >= LINES_PER_SECOND {
            self.dropped = self.dropped.saturating_add(1);
            return (false, 0);
        }
        self.lines += 1;
        (true, std::mem::take(&mut self.dropped))
    }
}

/// Writes one line, unless this second's share is used up.
pub(crate) fn line(now: Timestamp, filter: &str, level: Level, text: &str) {
    let (may, dropped) = BUDGET.with(|cell| {
        let mut budget = cell.get();
        let outcome = budget.take(now);
        cell.set(budget);
        outcome
    });
    if !may {
        return;
    }
    if dropped > 0 {
        write(&format!("edgeweir {filter}: {dropped} lines left out\n"));
    }
    let level = match level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    };
    write(&format!("edgeweir {filter} {level}: {text}\n"));
}

/// Publishes what a call left behind, but for its effects.
pub(crate) fn publish(now: Timestamp, filter: &str, record: &mut Record) {
    counters::add(record.counts.drain(..));
    for (level, text) in record.logs.drain(..) {
        if level >= Level::Info {
            line(now, filter, level, &text);
        }
    }
}

/// `eprintln!` panics when standard error is closed.
pub(crate) fn write(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_rest_is_counted() {
        let mut budget = Budget {
            second: 0,
            lines: 0,
            dropped: 0,
        };
        let now = Timestamp::from_secs(7);
        let written = (0..60).filter(|_| budget.take(now).0).count();
        assert_eq!(written, 50);
        assert_eq!(budget.take(Timestamp::from_secs(8)), (true, 10));
    }
}
