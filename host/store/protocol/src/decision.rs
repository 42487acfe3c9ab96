//! A decision as a call of [`LIMIT`](crate::scripts::LIMIT): its key, its arguments, and what its answer says.

use crate::limit::{Kept, Limit, Standing, State};
use crate::wire::Ask;

const SECOND: u64 = 1_000_000_000;

/// The name of a limit's state: its key, behind the kinds of its limits, so that rules of another layout never read it. Of a
/// window its seconds belong to it: counts of another window are no counts of this one.
pub fn limit_name(ask: &Ask) -> Vec<u8> {
    let mut name = Vec::with_capacity(ask.key.len() + 16);
    for limit in &ask.limits {
        match limit {
            Limit::Gcra { .. } => name.push(b'g'),
            Limit::Window { per, .. } => {
                name.extend_from_slice(format!("w{}", per / SECOND).as_bytes());
            }
        }
    }
    name.push(b':');
    name.extend_from_slice(&ask.key);
    name
}

/// The script's arguments; `now` is seconds and microseconds since the epoch, or the clock of Redis.
pub fn arguments(ask: &Ask, now: Option<(u64, u32)>) -> Vec<String> {
    let mut all = match now {
        Some((seconds, micros)) => vec![seconds.to_string(), micros.to_string()],
        None => vec![String::new(), String::new()],
    };
    all.push(ask.cost.to_string());
    all.push(if ask.charge { "charge" } else { "" }.to_owned());
    for limit in &ask.limits {
        match *limit {
            Limit::Gcra {
                interval,
                tolerance,
            } => {
                let span = interval.saturating_add(tolerance);
                let advance = match ask.charge {
                    true => interval.saturating_mul(u64::from(ask.cost)).min(span),
                    false => interval * u64::from(ask.cost).min(span / interval.max(1)),
                };
                all.push("g".to_owned());
                for time in [advance, span] {
                    all.extend([time / SECOND, time % SECOND].map(|part| part.to_string()));
                }
            }
            Limit::Window { per, limit } => {
                all.push("w".to_owned());
                all.extend([(per / SECOND).to_string(), limit.to_string()]);
                all.push(ask.cost.min(limit).to_string());
            }
        }
    }
    all
}

/// When it was decided, nanoseconds since the epoch, and what each limit says, of the script's answer: whether it admits, the time
/// in seconds and microseconds, and the state before.
pub fn standings(
    ask: &Ask,
    admits: bool,
    (seconds, micros): (u64, u64),
    kept: &str,
) -> (u64, Vec<Standing>) {
    let now = seconds
        .saturating_mul(SECOND)
        .saturating_add(micros.saturating_mul(1000));
    let before = read(kept, &ask.limits);
    let decision = ask.decide(before.as_ref(), now);
    // Both work on the same state and time; a property holds them together.
    debug_assert_eq!(decision.admitted(), admits, "{ask:?} {kept} {now}");
    (now, decision.standings)
}

/// The states, then when they were written.
fn read(kept: &str, limits: &[Limit]) -> Option<Kept> {
    let mut words = kept.split_ascii_whitespace().map(str::parse::<u64>);
    let mut word = || words.next()?.ok();
    let mut states = Vec::with_capacity(limits.len());
    for limit in limits {
        states.push(match limit {
            Limit::Gcra { .. } => State::Gcra(word()?.checked_mul(SECOND)?.checked_add(word()?)?),
            Limit::Window { .. } => State::Window {
                index: word()?,
                previous: u32::try_from(word()?).ok()?,
                current: u32::try_from(word()?).ok()?,
            },
        });
    }
    let mut time = || word()?.checked_mul(SECOND)?.checked_add(word()?);
    Some(Kept {
        written: time(),
        states,
    })
}
