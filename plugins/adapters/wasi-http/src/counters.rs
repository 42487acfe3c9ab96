//! Counters, for a host that asks for them: WASI has no metrics.
//!
//! A host that sets [`ASKED`] in the environment gets lines on standard error, apart from the log's:
//! `edgeweir-counters edgeweir.cache.hit=3 edgeweir.cache.stored=1`, what was counted since the line before. What is counted is
//! held for [`HOLD`], so that a line stands for many requests; what an instance counted last is lost when it ends first.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::{log, time};

/// The environment variable by which a host asks for counters, whatever its value.
pub(crate) const ASKED: &str = "EDGEWEIR_COUNTERS";
/// How long counts are held.
const HOLD: Duration = Duration::from_millis(50);

thread_local! {
    static HELD: RefCell<Held> = RefCell::new(Held::default());
}

#[derive(Default)]
struct Held {
    asked: Option<bool>,
    counts: BTreeMap<&'static str, u64>,
    /// A line is going to be written.
    due: bool,
}

impl Held {
    /// Adds; whether a line has to be made due.
    fn add(&mut self, counts: impl Iterator<Item = (&'static str, u64)>) -> bool {
        let asked = *self
            .asked
            .get_or_insert_with(|| std::env::var_os(ASKED).is_some());
        if !asked {
            return false;
        }
        for (name, by) in counts {
            let count = self.counts.entry(name).or_default();
            *count = count.saturating_add(by);
        }
        !self.counts.is_empty() && !std::mem::replace(&mut self.due, true)
    }

    /// What is held, as a line; nothing is held after it.
    fn line(&mut self) -> String {
        let mut line = String::from("edgeweir-counters");
        for (name, count) in std::mem::take(&mut self.counts) {
            let _ = write!(line, " edgeweir.{name}={count}");
        }
        line.push('\n');
        line
    }
}

/// Counts, and sees that it is written.
pub(crate) fn add(counts: impl Iterator<Item = (&'static str, u64)>) {
    if HELD.with_borrow_mut(|held| held.add(counts)) {
        let due = Due;
        wit_bindgen::spawn_local(async move {
            time::wait(HOLD).await;
            log::write(&HELD.with_borrow_mut(Held::line));
            drop(due);
        });
    }
}

/// A line that is going to be written; where its task is dropped first, the next count makes another.
struct Due;

impl Drop for Due {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| held.due = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_many_calls_are_one_line() {
        let mut held = Held {
            asked: Some(true),
            ..Held::default()
        };
        assert!(!held.add(std::iter::empty()), "nothing is due yet");
        assert!(held.add([("cache.hit", 1), ("cache.lookup", 1)].into_iter()));
        assert!(
            !held.add([("cache.hit", 2)].into_iter()),
            "it is due already"
        );
        assert_eq!(
            held.line(),
            "edgeweir-counters edgeweir.cache.hit=3 edgeweir.cache.lookup=1\n"
        );
        assert!(held.counts.is_empty());
    }

    #[test]
    fn a_host_that_does_not_ask_costs_nothing() {
        let mut held = Held {
            asked: Some(false),
            ..Held::default()
        };
        assert!(!held.add([("cache.hit", 1)].into_iter()));
        assert!(held.counts.is_empty());
    }
}
