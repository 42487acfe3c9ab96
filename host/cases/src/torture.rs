//! Faults: each call of a host function made to fail once, with each status its ABI allows, and what may come of it.

use std::fmt;
use std::str::FromStr;

use crate::model::{Case, Step};
use crate::seen::{Exchange, Message, Response, Seen, decoded, field};

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
        let fate = fate(fault, step, before, after, known.of(step)).map_err(says)?;
        if fate < Fate::Reset {
            requests(step, before, after).map_err(says)?;
        }
        worst = worst.max(fate);
    }
    Ok(worst)
}

/// What reached the origin is the client's or the filter's, whole, and says of its coding what that one says.
fn requests(step: &Step, before: &Exchange, after: &Exchange) -> Result<(), String> {
    let lines = step.request.fields.iter();
    let lines = lines.map(|(name, value)| (name.clone(), value.clone().into_bytes()));
    let asked = Message {
        fields: lines.collect(),
        body: step.request.body.bytes.clone(),
        ..Message::default()
    };
    for request in &after.upstream {
        let got = &request.message;
        check_length(got).map_err(|why| format!("the origin's request: {why}"))?;
        // A request of the filter's own, such as one to validate, has a method of its own.
        let own = got.body.is_empty() && request.method != step.request.method;
        let same =
            |other: &Message| other.body == got.body && label(other, CODING) == label(got, CODING);
        if !own && !same(&asked) && !before.upstream.iter().any(|it| same(&it.message)) {
            return Err(format!(
                "the origin received a body of {} bytes ({}) that is neither the client's nor the filter's",
                got.body.len(),
                said(got, CODING),
            ));
        }
    }
    Ok(())
}

/// Answers given to the same request before: one that is stored may be given again.
#[derive(Default)]
struct Known(Vec<(String, Vec<Response>)>);

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
        let whole = before.response.iter().filter(|it| it.cut.is_none());
        answers.extend(whole.cloned());
    }

    fn of(&self, step: &Step) -> &[Response] {
        let key = Self::key(step);
        let found = self.0.iter().find(|(known, _)| *known == key);
        found.map_or(&[], |(_, answers)| answers)
    }
}

fn fate(
    fault: &Fault,
    step: &Step,
    before: &Exchange,
    after: &Exchange,
    known: &[Response],
) -> Result<Fate, String> {
    fn whole(exchange: &Exchange) -> Result<&Response, &str> {
        match &exchange.response {
            Some(response) => response.cut.as_deref().map_or(Ok(response), Err),
            None => Err(exchange.error.as_deref().unwrap_or_default()),
        }
    }
    let response = match whole(after) {
        Ok(response) => response,
        Err(_) if whole(before).is_err() => return Ok(Fate::Same),
        Err(_) if touches_bodies(&fault.call) => return Ok(Fate::Reset),
        Err(why) => return Err(format!("the response is cut off: {why}")),
    };
    // RFC 9110 §6.4.1: responses to HEAD, 204 and 304 have no content, whatever their fields say of one.
    let bodiless = step.request.method == "HEAD" || matches!(response.status, 204 | 304);
    let message = &response.message;
    if !bodiless {
        check_length(message)?;
    }
    let gives = |other: &Response| {
        other.status == response.status
            && (bodiless && message.body.is_empty() || same(&other.message, message))
    };
    if whole(before).is_ok_and(gives) {
        return Ok(Fate::Same);
    }
    let mut answered = after.upstream.iter().filter_map(|it| it.answered.as_ref());
    if answered.any(gives) || known.iter().any(gives) {
        return Ok(Fate::Untouched);
    }
    let body = decoded(message).map_err(|why| format!("the body: {why}"))?;
    if response.status >= 400 {
        return Ok(Fate::Refused);
    }
    Err(format!(
        "status {} with {} bytes ({}, {}), which is neither the answer without the fault nor the origin's own",
        response.status,
        body.len(),
        said(message, TYPE),
        said(message, CODING),
    ))
}

const TYPE: &str = "content-type";
const CODING: &str = "content-encoding";

/// Whether a message says what another does: of its type, the same bytes in the same coding, or the same text in any. What
/// had no type may have one, as a host writes it into an answer of a filter; nothing is of any type.
fn same(wanted: &Message, got: &Message) -> bool {
    let kind = label(wanted, TYPE);
    if kind.is_some() && kind != label(got, TYPE) && !got.body.is_empty() {
        return false;
    }
    label(wanted, CODING) == label(got, CODING) && wanted.body == got.body
        || decoded(wanted).is_ok_and(|text| decoded(got) == Ok(text))
}

fn label(message: &Message, name: &str) -> Option<Vec<u8>> {
    field(&message.fields, name)
}

fn said(message: &Message, name: &str) -> String {
    match label(message, name) {
        Some(value) => format!("{name} {}", String::from_utf8_lossy(&value)),
        None => format!("no {name}"),
    }
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

fn check_length(message: &Message) -> Result<(), String> {
    let Some(length) = label(message, "content-length") else {
        return Ok(());
    };
    let length = String::from_utf8_lossy(&length).into_owned();
    let got = message.body.len();
    if length.parse() != Ok(got) {
        return Err(format!(
            "content-length says {length}, the body has {got} bytes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seen::Request;
    use crate::source::Source;

    fn message(fields: &[(&str, &str)], body: &[u8]) -> Message {
        let lines = fields.iter();
        let lines = lines.map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        Message {
            fields: lines.collect(),
            body: body.to_vec(),
            ..Message::default()
        }
    }

    fn response(status: u16, body: &str) -> Response {
        Response {
            status,
            message: message(&[], body.as_bytes()),
            cut: None,
        }
    }

    fn exchange(response: Response, origin: Response) -> Exchange {
        Exchange {
            response: Some(response),
            upstream: vec![Request {
                method: "GET".to_owned(),
                answered: Some(origin),
                ..Request::default()
            }],
            ..Exchange::default()
        }
    }

    fn case(request: &str) -> Case {
        let file = crate::parse::parse(Source {
            file: "a.test.toml".into(),
            text: format!(
                "module = \"a.wasm\"\n[[case]]\nname = \"a\"\n[[case.step]]\nrequest = {request}\n"
            ),
        });
        file.unwrap().cases.remove(0)
    }

    fn judged(
        request: &str,
        call: &str,
        before: Exchange,
        after: Exchange,
    ) -> Result<Fate, String> {
        let seen = |exchange| Seen {
            exchanges: vec![(0, 0, exchange)],
            ..Seen::default()
        };
        let fault = format!("{call}:1:2").parse().unwrap();
        judge(&case(request), &fault, &seen(before), &seen(after))
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::fast();
        let mut coder = flate2::write::GzEncoder::new(Vec::new(), level);
        std::io::Write::write_all(&mut coder, text).unwrap();
        coder.finish().unwrap()
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
        let mut cut = response(200, "as");
        cut.cut = Some("reset".to_owned());
        let set = "proxy_set_buffer_bytes";
        for (name, call, after, want) in [
            (
                "the same",
                "proxy_log",
                response(200, "small"),
                Ok(Fate::Same),
            ),
            (
                "untouched",
                "proxy_log",
                response(200, "as it was"),
                Ok(Fate::Untouched),
            ),
            (
                "an error",
                "proxy_log",
                response(502, "no"),
                Ok(Fate::Refused),
            ),
            (
                "a part",
                "proxy_log",
                response(200, "as"),
                Err("with 2 bytes"),
            ),
            (
                "nothing of it",
                "proxy_log",
                response(200, ""),
                Err("with 0 bytes"),
            ),
            (
                "two in one",
                set,
                response(200, "smas it was"),
                Err("with 11 bytes"),
            ),
            ("cut by a body call", set, cut.clone(), Ok(Fate::Reset)),
            ("cut by another", "proxy_log", cut, Err("cut off: reset")),
        ] {
            let before = exchange(response(200, "small"), response(200, "as it was"));
            let after = exchange(after, response(200, "as it was"));
            is(name, judged("\"GET /\"", call, before, after), want);
        }
    }

    fn is(name: &str, got: Result<Fate, String>, want: Result<Fate, &str>) {
        match (got, want) {
            (Err(got), Err(want)) => assert!(got.contains(want), "{name}: {got}"),
            (got, want) => assert_eq!(got, want.map_err(str::to_owned), "{name}"),
        }
    }

    /// What a body is, its fields say: the bytes without them are another message.
    #[test]
    fn bytes_are_what_their_fields_say() {
        let text = ("content-type", "text/plain");
        let coded = ("content-encoding", "gzip");
        let answer = |fields: &[(&str, &str)], body: &[u8]| Response {
            status: 200,
            message: message(fields, body),
            cut: None,
        };
        let (plain, small) = (&b"hello, hello"[..], &gzip(b"hello, hello")[..]);
        for (name, after, want) in [
            (
                "as without it",
                answer(&[text, coded], small),
                Ok(Fate::Same),
            ),
            ("the origin's", answer(&[text], plain), Ok(Fate::Same)),
            (
                "coded, and not said to be",
                answer(&[text], small),
                Err("no content-encoding"),
            ),
            (
                "said to be coded, and not",
                answer(&[text, coded], plain),
                Err("it is no gzip"),
            ),
            (
                "of no type",
                answer(&[coded], small),
                Err("no content-type"),
            ),
            (
                "of another type",
                answer(&[("content-type", "text/html")], plain),
                Err("content-type text/html"),
            ),
            (
                "of another length",
                answer(&[text, ("content-length", "29")], b""),
                Err("content-length says 29, the body has 0 bytes"),
            ),
        ] {
            let before = exchange(answer(&[text, coded], small), answer(&[text], plain));
            let after = exchange(after, answer(&[text], plain));
            is(name, judged("\"GET /\"", "proxy_log", before, after), want);
        }
    }

    #[test]
    fn a_host_may_give_a_type_to_what_had_none() {
        let typed = |body: &str| Response {
            message: message(&[("content-type", "text/plain")], body.as_bytes()),
            ..response(200, "")
        };
        for (name, before, after) in [
            ("of none", response(200, "a"), typed("a")),
            ("nothing of a type", typed(""), response(200, "")),
        ] {
            let before = exchange(before.clone(), before);
            let after = exchange(after, response(500, ""));
            is(
                name,
                judged("\"GET /\"", "proxy_log", before, after),
                Ok(Fate::Same),
            );
        }
    }

    #[test]
    fn only_what_has_no_content_may_be_empty() {
        let long = |status, length: &str| Response {
            status,
            message: message(&[("content-length", length)], b""),
            cut: None,
        };
        for (name, request, after, want) in [
            ("HEAD", "\"HEAD /\"", long(200, "9"), Ok(Fate::Same)),
            ("GET", "\"GET /\"", long(200, "0"), Err("with 0 bytes")),
            ("GET, 304", "\"GET /\"", long(304, "9"), Ok(Fate::Untouched)),
        ] {
            let origin = response(after.status, "as it was");
            let before = exchange(response(200, "small"), origin.clone());
            is(
                name,
                judged(request, "proxy_log", before, exchange(after, origin)),
                want,
            );
        }
    }

    #[test]
    fn a_request_comes_whole_to_the_origin() {
        let request =
            r#"{ method = "POST", fields = { content-encoding = "gzip" }, body = "asked" }"#;
        let coded = [("content-encoding", "gzip")];
        for (name, method, received, want) in [
            (
                "the client's",
                "POST",
                message(&coded, b"asked"),
                Ok(Fate::Same),
            ),
            (
                "the filter's",
                "POST",
                message(&[], b"decoded"),
                Ok(Fate::Same),
            ),
            (
                "a part",
                "POST",
                message(&coded, b"as"),
                Err("a body of 2 bytes"),
            ),
            (
                "nothing of it",
                "POST",
                message(&coded, b""),
                Err("a body of 0 bytes"),
            ),
            (
                "a request of its own",
                "GET",
                message(&[], b""),
                Ok(Fate::Same),
            ),
            (
                "not said to be coded",
                "POST",
                message(&[], b"asked"),
                Err("no content-encoding"),
            ),
            (
                "of another length",
                "POST",
                message(&[("content-length", "5")], b"decoded"),
                Err("content-length says 5"),
            ),
        ] {
            let mut before = exchange(response(200, "small"), response(200, "small"));
            let mut after = before.clone();
            before.upstream[0].message = message(&[], b"decoded");
            after.upstream[0].message = received;
            after.upstream[0].method = method.to_owned();
            is(name, judged(request, "proxy_log", before, after), want);
        }
    }
}
