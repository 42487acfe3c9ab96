//! Faults: each call of a host function made to fail once, with each status its ABI allows, and what may come of it.

use std::fmt;
use std::str::FromStr;

use crate::model::{Case, Step};
use crate::seen::{Exchange, Response, Seen, decoded, field};

/// The name that stands for the guest's allocator, which has no memory left.
pub const ALLOCATE: &str = "proxy_on_memory_allocate";
/// The name that stands for the answer of a callout.
pub const CALLOUT: &str = "callout";

/// One call made to fail: the n-th of a name, with a status.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fault {
    /// The host function.
    pub call: String,
    /// Which call of it since the modules started, from 1.
    pub nth: u64,
    /// What it answers.
    pub status: u32,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.call, self.nth, self.status)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no fault: want CALL:N:STATUS, such as proxy_log:1:10");
        let mut parts = text.rsplitn(3, ':');
        let mut number = || parts.next()?.parse::<u64>().ok();
        let (status, nth) = (number().ok_or_else(wrong)?, number().ok_or_else(wrong)?);
        let call = parts.next().filter(|call| !call.is_empty() && nth > 0);
        Ok(Fault {
            call: call.ok_or_else(wrong)?.to_owned(),
            nth,
            status: u32::try_from(status).map_err(|_| wrong())?,
        })
    }
}

const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const SERIALIZATION_FAILURE: u32 = 3;
const PARSE_FAILURE: u32 = 4;
const EMPTY: u32 = 7;
const CAS_MISMATCH: u32 = 8;
const INTERNAL_FAILURE: u32 = 10;
const UNIMPLEMENTED: u32 = 12;

/// The statuses a host function may answer beside success, as the ABI lists them and hosts give them. A pointer out of
/// bounds (`InvalidMemoryAccess`) is the guest's own mistake and not among them.
pub fn statuses(call: &str) -> &'static [u32] {
    match call {
        "proxy_log" | "proxy_get_log_level" | "proxy_get_current_time_nanoseconds" => {
            &[BAD_ARGUMENT, INTERNAL_FAILURE]
        }
        "proxy_get_property" => &[NOT_FOUND, SERIALIZATION_FAILURE, INTERNAL_FAILURE],
        "proxy_set_property" => &[NOT_FOUND, BAD_ARGUMENT, PARSE_FAILURE, INTERNAL_FAILURE],
        "proxy_get_buffer_bytes"
        | "proxy_get_buffer_status"
        | "proxy_get_header_map_pairs"
        | "proxy_get_header_map_value"
        | "proxy_get_header_map_size" => &[NOT_FOUND, BAD_ARGUMENT, INTERNAL_FAILURE],
        "proxy_set_buffer_bytes" => &[NOT_FOUND, BAD_ARGUMENT, INTERNAL_FAILURE],
        "proxy_set_header_map_pairs"
        | "proxy_add_header_map_value"
        | "proxy_replace_header_map_value"
        | "proxy_remove_header_map_value" => &[BAD_ARGUMENT, INTERNAL_FAILURE],
        "proxy_continue_stream" | "proxy_close_stream" | "proxy_send_local_response" => {
            &[BAD_ARGUMENT, UNIMPLEMENTED, INTERNAL_FAILURE]
        }
        "proxy_http_call" => &[BAD_ARGUMENT, INTERNAL_FAILURE],
        "proxy_get_shared_data" => &[NOT_FOUND, INTERNAL_FAILURE],
        "proxy_set_shared_data" => &[CAS_MISMATCH, INTERNAL_FAILURE],
        "proxy_dequeue_shared_queue" => &[EMPTY, NOT_FOUND, INTERNAL_FAILURE],
        "proxy_register_shared_queue"
        | "proxy_resolve_shared_queue"
        | "proxy_enqueue_shared_queue" => &[NOT_FOUND, BAD_ARGUMENT, INTERNAL_FAILURE],
        "proxy_define_metric"
        | "proxy_increment_metric"
        | "proxy_record_metric"
        | "proxy_get_metric" => &[BAD_ARGUMENT, NOT_FOUND, INTERNAL_FAILURE],
        // Its only refusal says that a context is gone; of a stream that waits that would be a lie.
        "proxy_set_effective_context" => &[],
        ALLOCATE => &[0],
        // The answers a host makes up: unreachable, and too late.
        CALLOUT => &[503, 504],
        call if call.starts_with("proxy_") => &[BAD_ARGUMENT, INTERNAL_FAILURE],
        // Calls of components fail with an error of their own kind.
        _ => &[0],
    }
}

/// What came of an exchange under a fault, from best to worst of what is allowed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// The answer without the fault.
    Same,
    /// The origin's own answer.
    Untouched,
    /// An error of the filter's or the host's own, whole and with a status that says so.
    Refused,
    /// A reset the client notices, because bytes of a body were refused.
    Reset,
}

/// Whether what came of a case under a fault is allowed; the worst fate of its exchanges, or why not.
///
/// A message that passes for a whole one must be the one there would be without the fault, or the origin's own, or an
/// error that says so: never a part, never two in one.
pub fn judge(case: &Case, fault: &Fault, plain: &Seen, seen: &Seen) -> Result<Fate, String> {
    let mut worst = Fate::Same;
    let mut known = Known::default();
    for ((at, _, before), (_, _, after)) in plain.exchanges.iter().zip(&seen.exchanges) {
        let says = |why: String| format!("step {}: {why}", at + 1);
        if after.hung {
            return Err(says("the exchange hangs".to_owned()));
        }
        if after.traps > 0 {
            return Err(says(format!("a trap: {}", after.trap)));
        }
        let Some(step) = case.steps.get(*at) else {
            continue;
        };
        known.learn(step, before, after);
        let fate = fate(fault, before, after, known.of(step)).map_err(says)?;
        if fate < Fate::Reset {
            let asked = &step.request.body.bytes;
            for request in &after.upstream {
                let known =
                    |other: &crate::seen::Request| other.message.body == request.message.body;
                let body = &request.message.body;
                if body != asked && !body.is_empty() && !before.upstream.iter().any(known) {
                    return Err(says(format!(
                        "the origin received a body of {} bytes that is neither the client's nor the filter's",
                        body.len()
                    )));
                }
            }
        }
        worst = worst.max(fate);
    }
    Ok(worst)
}

/// A status and a body.
type Given = (u16, Vec<u8>);

/// Answers given to the same request before: one that is stored may be given again.
#[derive(Default)]
struct Known(Vec<(String, Vec<Given>)>);

impl Known {
    fn key(step: &Step) -> String {
        format!("{} {:?}", step.request.path, step.request.fields)
    }

    fn learn(&mut self, step: &Step, before: &Exchange, after: &Exchange) {
        let key = Self::key(step);
        let answers = match self.0.iter().position(|(known, _)| *known == key) {
            Some(at) => &mut self.0[at].1,
            None => {
                self.0.push((key, Vec::new()));
                let last = self.0.len() - 1;
                &mut self.0[last].1
            }
        };
        answers.extend(after.upstream.iter().filter_map(|it| it.answered.clone()));
        if let Some(response) = &before.response
            && response.cut.is_none()
            && let Ok(body) = decoded(&response.message)
        {
            answers.push((response.status, body));
        }
    }

    fn of(&self, step: &Step) -> &[(u16, Vec<u8>)] {
        let key = Self::key(step);
        let found = self.0.iter().find(|(known, _)| *known == key);
        found.map_or(&[], |(_, answers)| answers)
    }
}

fn fate(
    fault: &Fault,
    before: &Exchange,
    after: &Exchange,
    known: &[(u16, Vec<u8>)],
) -> Result<Fate, String> {
    let whole = |exchange: &Exchange| match &exchange.response {
        Some(response) if response.cut.is_none() => Ok(response.clone()),
        Some(response) => Err(response.cut.clone().unwrap_or_default()),
        None => Err(exchange.error.clone().unwrap_or_default()),
    };
    let response = match whole(after) {
        Ok(response) => response,
        Err(_) if whole(before).is_err() => return Ok(Fate::Same),
        Err(_) if touches_bodies(&fault.call) => return Ok(Fate::Reset),
        Err(why) => return Err(format!("the response is cut off: {why}")),
    };
    check_length(&response)?;
    let raw = &response.message.body;
    if let Ok(before) = whole(before)
        && before.status == response.status
        && before.message.body == *raw
    {
        return Ok(Fate::Same);
    }
    let is_raw = |(status, bytes): &&(u16, Vec<u8>)| *status == response.status && bytes == raw;
    let coded = |it: &Response| field(&it.message.fields, "content-encoding");
    let mut answered = after.upstream.iter().filter_map(|it| it.answered.as_ref());
    // Coded by the origin itself, or by nobody.
    if answered.any(|it| is_raw(&it)) && decoded(&response.message).is_err() {
        let by_origin = whole(before).is_ok_and(|before| coded(&before) == coded(&response));
        if by_origin {
            return Ok(Fate::Untouched);
        }
    }
    let body = decoded(&response.message).map_err(|why| format!("the body: {why}"))?;
    if let Ok(before) = whole(before)
        && before.status == response.status
        && decoded(&before.message).as_ref() == Ok(&body)
    {
        return Ok(Fate::Same);
    }
    let answered = after.upstream.iter().filter_map(|it| it.answered.as_ref());
    for (status, bytes) in answered {
        // HEAD and statuses without content bring none.
        if *status == response.status
            && (*bytes == body || body.is_empty() && is_bodiless(&response))
        {
            return Ok(Fate::Untouched);
        }
    }
    if known
        .iter()
        .any(|it| *it == (response.status, body.clone()))
    {
        return Ok(Fate::Untouched);
    }
    if response.status >= 400 {
        return Ok(Fate::Refused);
    }
    Err(format!(
        "status {} with {} bytes, which is neither the answer without the fault nor the origin's own",
        response.status,
        body.len()
    ))
}

fn touches_bodies(call: &str) -> bool {
    [
        "proxy_get_buffer_bytes",
        "proxy_set_buffer_bytes",
        "proxy_continue_stream",
        "proxy_close_stream",
        ALLOCATE,
    ]
    .contains(&call)
}

fn is_bodiless(response: &Response) -> bool {
    matches!(response.status, 204 | 304) || response.message.body.is_empty()
}

fn check_length(response: &Response) -> Result<(), String> {
    let Some(length) = field(&response.message.fields, "content-length") else {
        return Ok(());
    };
    let length = String::from_utf8_lossy(&length).into_owned();
    let got = response.message.body.len();
    if got > 0 && length.parse() != Ok(got) {
        return Err(format!(
            "content-length says {length}, the body has {got} bytes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seen::{Message, Request};

    fn response(status: u16, body: &str) -> Response {
        Response {
            status,
            message: Message {
                body: body.into(),
                ..Message::default()
            },
            cut: None,
        }
    }

    fn exchange(response: Response, origin: Option<(u16, &str)>) -> Exchange {
        let upstream = origin.map(|(status, body)| Request {
            answered: Some((status, body.into())),
            ..Request::default()
        });
        Exchange {
            response: Some(response),
            upstream: upstream.into_iter().collect(),
            ..Exchange::default()
        }
    }

    #[test]
    fn faults_are_written_as_they_are_read() {
        let fault: Fault = "proxy_log:3:10".parse().unwrap();
        assert_eq!(
            (fault.call.as_str(), fault.nth, fault.status),
            ("proxy_log", 3, 10)
        );
        assert_eq!(fault.to_string(), "proxy_log:3:10");
        for wrong in ["", "proxy_log", "proxy_log:0:1", "proxy_log:x:1", ":1:1"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_message_is_whole_and_one_of_the_two() {
        let before = exchange(response(200, "small"), Some((200, "as it was")));
        let mut cut = response(200, "as");
        cut.cut = Some("reset".to_owned());
        for (name, call, after, want) in [
            (
                "the same",
                "proxy_log",
                response(200, "small"),
                Some(Fate::Same),
            ),
            (
                "untouched",
                "proxy_log",
                response(200, "as it was"),
                Some(Fate::Untouched),
            ),
            (
                "an error",
                "proxy_log",
                response(502, "no"),
                Some(Fate::Refused),
            ),
            ("a part", "proxy_log", response(200, "as"), None),
            (
                "two in one",
                "proxy_set_buffer_bytes",
                response(200, "smas it was"),
                None,
            ),
            (
                "cut by a body call",
                "proxy_set_buffer_bytes",
                cut.clone(),
                Some(Fate::Reset),
            ),
            ("cut by another", "proxy_log", cut, None),
        ] {
            let fault = Fault {
                call: call.to_owned(),
                nth: 1,
                status: 2,
            };
            let after = exchange(after, Some((200, "as it was")));
            assert_eq!(fate(&fault, &before, &after, &[]).ok(), want, "{name}");
        }
    }
}
