//! What came of a case: what the client, the origin and the host saw.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::coding;

/// A message as it was received.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Message {
    /// Its field lines, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Its body, or what came of it.
    pub body: Vec<u8>,
    /// Its trailer fields.
    pub trailers: Vec<(String, Vec<u8>)>,
}

/// A response as the client received it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// The message.
    pub message: Message,
    /// Why it did not come to its end.
    pub cut: Option<String>,
}

/// A request as the origin received it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its target.
    pub path: String,
    /// The message.
    pub message: Message,
    /// What it was answered, when that was sent whole.
    pub answered: Option<Response>,
}

/// One exchange.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Exchange {
    /// The response, or why there is none.
    pub response: Option<Response>,
    /// Why there is none.
    pub error: Option<String>,
    /// It did not end in time.
    pub hung: bool,
    /// What the origin received.
    pub upstream: Vec<Request>,
    /// Lines logged: level where it is known, and text.
    pub log: Vec<(Option<u8>, String)>,
    /// Callbacks of the exchange, each run of one name once.
    pub callbacks: Vec<String>,
    /// Metrics after it.
    pub metrics: BTreeMap<String, u64>,
    /// Shared data after it, of the keys asked for.
    pub shared: BTreeMap<String, Option<Vec<u8>>>,
    /// Traps in it, and the last one's message.
    pub traps: u64,
    /// The last trap.
    pub trap: String,
}

/// What a case cost, after its modules had started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Wasm instructions, where they are counted.
    pub fuel: u64,
    /// The most linear memory of one instance, bytes.
    pub memory: u64,
    /// Calls of host functions.
    pub host_calls: u64,
    /// Bytes between host and guest.
    pub bytes_copied: u64,
    /// Wall time.
    pub wall: Duration,
}

/// What came of a case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Its exchanges: the number of the step, and which time of it, from 0.
    pub exchanges: Vec<(usize, u32, Exchange)>,
    /// What it cost.
    pub cost: Cost,
}

/// The value of a field, several lines joined; `None` where it is not there.
pub fn field(fields: &[(String, Vec<u8>)], name: &str) -> Option<Vec<u8>> {
    let mut lines = fields.iter().filter(|(other, _)| other == name);
    let mut value = lines.next()?.1.clone();
    for (_, line) in lines {
        value.extend_from_slice(b", ");
        value.extend_from_slice(line);
    }
    Some(value)
}

/// A body after its content codings are undone; why not, where that fails. One that is empty is: of a response to HEAD, say.
pub fn decoded(message: &Message) -> Result<Vec<u8>, String> {
    if message.body.is_empty() {
        return Ok(Vec::new());
    }
    let codings = field(&message.fields, "content-encoding").unwrap_or_default();
    coding::decoded(&String::from_utf8_lossy(&codings), &message.body)
}
