//! Counters of a rule.
//!
//! The contract takes names that live as long as the program. A rule's are made when it is configured and kept for
//! good; a rule of the same name has them again. At most [`MOST`] of them are ever made in a VM or instance: the
//! rules of yet other names, after a great many configurations, share one set.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use edgeweir_filter::Cx;

/// Rules with counters of their own, over the life of a VM or instance: 16 configurations of 64 rules all new.
const MOST: usize = 1_024;

/// Of so many decisions of a rule one is timed, and counts for all of them: reading the clock and counting cost more than
/// a tenth of a decision.
const TIMED: u32 = 16;

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Became {
    /// It goes on.
    Admitted,
    /// It was refused.
    Limited,
    /// It would have been refused.
    Shadowed,
    /// The shared state could not be reached.
    StoreError,
}

/// The counters of one rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meter {
    admitted: &'static str,
    limited: &'static str,
    shadowed: &'static str,
    store_error: &'static str,
    decision_ns: &'static str,
}

thread_local! {
    static KNOWN: RefCell<BTreeMap<String, Meter>> = const { RefCell::new(BTreeMap::new()) };
}

impl Meter {
    /// The counters of the rule of this name.
    pub fn of(rule: &str) -> Self {
        KNOWN.with_borrow_mut(|known| {
            let rule = match known.contains_key(rule) || known.len() < MOST {
                true => rule,
                false => "(other)",
            };
            if let Some(meter) = known.get(rule) {
                return *meter;
            }
            let name = |what: &str| &*format!("ratelimit.rule.{rule}.{what}").leak();
            let meter = Self {
                admitted: name("admitted"),
                limited: name("limited"),
                shadowed: name("shadowed"),
                store_error: name("store_error"),
                decision_ns: name("decision_ns"),
            };
            known.insert(rule.to_owned(), meter);
            meter
        })
    }

    /// Counts a request, for the rule and in all.
    pub fn count(&self, became: Became, cx: &mut Cx<'_>) {
        let (own, all) = match became {
            Became::Admitted => (self.admitted, "ratelimit.admitted"),
            Became::Limited => (self.limited, "ratelimit.limited"),
            Became::Shadowed => (self.shadowed, "ratelimit.shadowed"),
            Became::StoreError => (self.store_error, "ratelimit.store_error"),
        };
        cx.count(all);
        cx.count(own);
    }

    /// Counts a request that a rule in shadow would have admitted, for the rule alone: another one decides.
    pub fn conformed(&self, cx: &mut Cx<'_>) {
        cx.count(self.admitted);
    }

    /// Adds the time of a decision that was timed.
    pub fn took(&self, nanoseconds: u64, cx: &mut Cx<'_>) {
        if nanoseconds > 0 {
            cx.add(
                self.decision_ns,
                nanoseconds.saturating_mul(u64::from(TIMED)),
            );
        }
    }
}

/// Which decisions of a rule are timed: the first, and then each sixteenth.
#[derive(Debug, Default)]
pub struct Timing(Cell<u32>);

impl Timing {
    /// Whether the next decision is.
    pub fn next(&self) -> bool {
        let at = self.0.get();
        self.0.set((at + 1) % TIMED);
        at == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_once_and_bounded() {
        assert_eq!(Meter::of("a").admitted, "ratelimit.rule.a.admitted");
        assert!(std::ptr::eq(
            Meter::of("a").admitted,
            Meter::of("a").admitted
        ));
        let many: Vec<Meter> = (0..2 * MOST).map(|at| Meter::of(&at.to_string())).collect();
        let shared = many
            .iter()
            .filter(|meter| meter.limited == "ratelimit.rule.(other).limited");
        assert_eq!(shared.count(), MOST + 1);
        assert!(KNOWN.with_borrow(BTreeMap::len) <= MOST + 1);
    }
}
