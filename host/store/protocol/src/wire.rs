//! The two compact layouts of `POST /limit` and `POST /kv/batch`: little-endian, without padding, bounded.
//!
//! The README page gives them as tables; `../../limit-vectors.txt` holds examples for other implementations.

use bytes::Bytes;

use crate::limit::{self, Decision, Kept, Limit, Standing};

/// The first byte of every message.
pub const VERSION: u8 = 1;
/// Decisions or operations in one message.
pub const MOST_IN_BATCH: usize = 256;
/// Limits of one decision.
pub const MOST_LIMITS: usize = 8;
/// Bytes of a key.
pub const MOST_KEY: usize = 512;
/// The longest interval plus tolerance: ten years, nanoseconds.
pub const MOST_SPAN: u64 = 315_360_000_000_000_000;
/// The longest window, seconds.
pub const MOST_WINDOW: u64 = 31 * 86_400;
/// The most requests of a window.
pub const MOST_COUNT: u64 = 1_000_000_000;

/// Added to the number of limits: a charge.
const CHARGE: u8 = 128;

/// One decision that is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Whose limits.
    pub key: Vec<u8>,
    /// Cells wanted; 0 looks without taking.
    pub cost: u32,
    /// They were used already: they are taken whatever the limits say.
    pub charge: bool,
    /// 1 to [`MOST_LIMITS`].
    pub limits: Vec<Limit>,
}

impl Ask {
    /// What the limits say, given what was kept. Pure: safe to call twice.
    pub fn decide(&self, before: Option<&Kept>, now: u64) -> Decision {
        match self.charge {
            true => limit::charge(&self.limits, before, now, self.cost),
            false => limit::decide(&self.limits, before, now, self.cost),
        }
    }
}

/// Why a message is not understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed(pub String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the body of `POST /limit`.
pub fn asks(body: &[u8]) -> Result<Vec<Ask>, Malformed> {
    let mut input = Input::open(body)?;
    let count = input.count()?;
    let mut asks = Vec::with_capacity(count);
    for at in 0..count {
        let key = input.key(at)?.to_vec();
        let cost = input.u32()?;
        let number = input.u8()?;
        let charge = number & CHARGE != 0;
        let number = usize::from(number & !CHARGE);
        if !(1..=MOST_LIMITS).contains(&number) {
            return Err(Malformed(format!(
                "decision {at} has {number} limits, must be 1 to {MOST_LIMITS}"
            )));
        }
        let mut limits = Vec::with_capacity(number);
        for _ in 0..number {
            let (kind, first, second) = (input.u8()?, input.u64()?, input.u64()?);
            limits.push(
                limit(kind, first, second)
                    .map_err(|why| Malformed(format!("decision {at}: {why}")))?,
            );
        }
        asks.push(Ask {
            key,
            cost,
            charge,
            limits,
        });
    }
    input.end()?;
    Ok(asks)
}

fn limit(kind: u8, first: u64, second: u64) -> Result<Limit, String> {
    match kind {
        1 => {
            let span = first.checked_add(second).filter(|span| *span <= MOST_SPAN);
            if first == 0 || span.is_none() {
                return Err(format!(
                    "interval {first} ns and tolerance {second} ns: the interval must be 1 or more, both together at most {MOST_SPAN}"
                ));
            }
            Ok(Limit::Gcra {
                interval: first,
                tolerance: second,
            })
        }
        2 => {
            let seconds = first / 1_000_000_000;
            if !first.is_multiple_of(1_000_000_000) || !(1..=MOST_WINDOW).contains(&seconds) {
                return Err(format!(
                    "window {first} ns: must be whole seconds, 1 to {MOST_WINDOW}"
                ));
            }
            match u32::try_from(second) {
                Ok(limit) if (1..=MOST_COUNT).contains(&second) => {
                    Ok(Limit::Window { per: first, limit })
                }
                _ => Err(format!(
                    "limit {second} of a window: must be 1 to {MOST_COUNT}"
                )),
            }
        }
        other => Err(format!(
            "algorithm {other}: must be 1 (GCRA) or 2 (sliding window)"
        )),
    }
}

/// Writes the body of `POST /limit`.
pub fn ask_bytes(asks: &[Ask]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(u16_of(asks.len()));
    for ask in asks {
        out.extend(u16_of(ask.key.len()));
        out.extend_from_slice(&ask.key);
        out.extend(ask.cost.to_le_bytes());
        let number = u8::try_from(ask.limits.len()).unwrap_or(u8::MAX);
        out.push(if ask.charge { number | CHARGE } else { number });
        for limit in &ask.limits {
            let (kind, first, second) = match *limit {
                Limit::Gcra {
                    interval,
                    tolerance,
                } => (1, interval, tolerance),
                Limit::Window { per, limit } => (2, per, u64::from(limit)),
            };
            out.push(kind);
            out.extend(first.to_le_bytes());
            out.extend(second.to_le_bytes());
        }
    }
    out
}

/// Writes the answer of `POST /limit`: the time it was decided at, and for each decision its verdict and standings.
pub fn answer_bytes(now: u64, decisions: &[Vec<Standing>]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(u16_of(decisions.len()));
    out.extend(now.to_le_bytes());
    for standings in decisions {
        let wait = standings.iter().map(|it| it.wait).max().unwrap_or(0);
        out.push(u8::from(wait > 0));
        out.extend(wait.to_le_bytes());
        out.push(u8::try_from(standings.len()).unwrap_or(u8::MAX));
        for standing in standings {
            out.extend(standing.remaining.to_le_bytes());
            out.extend(standing.reset.to_le_bytes());
            out.extend(standing.wait.to_le_bytes());
        }
    }
    out
}

/// Reads the answer of `POST /limit`.
pub fn answers(body: &[u8]) -> Result<(u64, Vec<Vec<Standing>>), Malformed> {
    let mut input = Input::open(body)?;
    let count = input.count()?;
    let now = input.u64()?;
    let mut decisions = Vec::with_capacity(count);
    for _ in 0..count {
        let (_, _) = (input.u8()?, input.u64()?);
        let number = input.u8()?;
        let mut standings = Vec::new();
        for _ in 0..number {
            standings.push(Standing {
                remaining: input.u32()?,
                reset: input.u64()?,
                wait: input.u64()?,
            });
        }
        decisions.push(standings);
    }
    input.end()?;
    Ok((now, decisions))
}

/// What a write demands of what is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// There must be nothing.
    Absent,
    /// There must be something.
    Present,
    /// There must be this version.
    Version(u64),
}

/// One operation of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Reads a key.
    Get,
    /// Writes a key for so many milliseconds.
    Put {
        /// Milliseconds.
        ttl: u64,
        /// The bytes.
        value: Bytes,
    },
    /// Deletes a key.
    Delete,
}

/// One operation, its key and its condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The key.
    pub key: Vec<u8>,
    /// What it demands.
    pub condition: Condition,
    /// What it does.
    pub operation: Operation,
}

/// What came of one operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// There was nothing to read or delete.
    Missing,
    /// Read, written or deleted; the version and, of a read, the value.
    Did {
        /// The version read or written; 0 after a deletion.
        version: u64,
        /// The bytes read.
        value: Bytes,
    },
    /// The condition did not hold.
    Precondition,
}

/// Reads the body of `POST /kv/batch`.
pub fn steps(body: &Bytes) -> Result<Vec<Step>, Malformed> {
    let mut input = Input::open(body)?;
    let count = input.count()?;
    let mut steps = Vec::with_capacity(count);
    for at in 0..count {
        let kind = input.u8()?;
        let key = input.key(at)?.to_vec();
        let condition = match input.u8()? {
            0 => Condition::Any,
            1 => Condition::Absent,
            2 => Condition::Version(input.u64()?),
            3 => Condition::Present,
            other => {
                return Err(Malformed(format!(
                    "operation {at} has condition {other}, must be 0 to 3"
                )));
            }
        };
        let operation = match kind {
            1 => Operation::Get,
            2 => {
                let ttl = input.u64()?;
                let length = input.u32()?;
                let value = input.take(usize::try_from(length).unwrap_or(usize::MAX))?;
                Operation::Put {
                    ttl,
                    value: body.slice_ref(value),
                }
            }
            3 => Operation::Delete,
            other => {
                return Err(Malformed(format!(
                    "operation {at} is {other}, must be 1 (get), 2 (put) or 3 (delete)"
                )));
            }
        };
        steps.push(Step {
            key,
            condition,
            operation,
        });
    }
    input.end()?;
    Ok(steps)
}

/// Writes the answer of `POST /kv/batch`.
pub fn done_bytes(done: &[Done]) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend(u16_of(done.len()));
    for one in done {
        let (status, version, value) = match one {
            Done::Missing => (0, 0, &Bytes::new()),
            Done::Did { version, value } => (1, *version, value),
            Done::Precondition => (2, 0, &Bytes::new()),
        };
        out.push(status);
        out.extend(version.to_le_bytes());
        out.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(value);
    }
    out
}

fn u16_of(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes()
}

/// What is left of a message.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn open(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut input = Self(body);
        match input.u8()? {
            VERSION => Ok(input),
            other => Err(Malformed(format!(
                "the layout's version is {other}, must be {VERSION}"
            ))),
        }
    }

    fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::from(self.u16()?);
        if !(1..=MOST_IN_BATCH).contains(&count) {
            return Err(Malformed(format!(
                "{count} entries, must be 1 to {MOST_IN_BATCH}"
            )));
        }
        Ok(count)
    }

    fn key(&mut self, at: usize) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u16()?);
        if !(1..=MOST_KEY).contains(&length) {
            return Err(Malformed(format!(
                "the key of entry {at} has {length} bytes, must be 1 to {MOST_KEY}"
            )));
        }
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| Malformed("the message ends early".to_owned()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }
    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn end(&self) -> Result<(), Malformed> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(Malformed(format!("{left} bytes after the last entry"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `<what> <hex of the message> <how it reads>`: other implementations read the same file.
    #[test]
    fn the_vectors_read_as_they_say() {
        let mut seen = 0;
        for line in include_str!("../../limit-vectors.txt").lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(what @ ("ask" | "answer" | "bad")), Some(hex), Some(want)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
                .collect();
            match what {
                "ask" => {
                    let read = asks(&bytes).expect(line);
                    assert_eq!(format!("{read:?}"), want);
                    assert_eq!(ask_bytes(&read), bytes, "{line}");
                }
                "answer" => {
                    let (now, read) = answers(&bytes).expect(line);
                    assert_eq!(format!("{now} {read:?}"), want);
                    assert_eq!(answer_bytes(now, &read), bytes, "{line}");
                }
                _ => assert_eq!(asks(&bytes).expect_err(line).to_string(), want),
            }
            seen += 1;
        }
        assert!(seen >= 6, "{seen} vectors");
    }
}
