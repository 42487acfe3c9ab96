//! Whether a stored response may be reused, and the reply made of it (RFC 9111 §4).

use bytes::Bytes;
use edgeweir_filter::{Fields, Reply, ResponseHead, Timestamp};

use crate::conditional;
use crate::directives::{MaxStale, RequestDirectives};
use crate::lookup::Lookup;
use crate::parts::{self, Within};
use crate::ranges::{self, Selected};
use crate::reason::Missed;
use crate::standing::Standing;
use crate::status::Status;
use crate::stored::Stored;

/// What is to be done with the stored response that was selected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Reply with it.
    Reuse,
    /// It is stale, and may be used while it is validated.
    ReuseStale,
    /// Ask the origin first.
    Ask(Missed),
}

/// RFC 9111 §4: "When presented with a request, a cache MUST NOT reuse a stored response unless: …" the stored response
/// is fresh, or allowed to be served stale, and no directive asks for validation. `saving`: seconds that the operator allows
/// while the machine is short.
pub fn judge(
    stored: &Stored,
    asked: &RequestDirectives,
    (request, is_head): (&Fields, bool),
    standing: Standing,
    saving: u32,
    now: Timestamp,
) -> Verdict {
    if standing == Standing::Gone {
        return Verdict::Ask(Missed::Invalidated);
    }
    if request.has("authorization") && !stored.conditions.shared_with_authorization {
        return Verdict::Ask(Missed::Authorization);
    }
    // Before what asks for validation: that would only say that the wrong part is still right. RFC 9110 §14.2: "GET is the
    // only method for which range handling is defined", so that HEAD is about the whole.
    if let Some(part) = stored.part
        && (is_head || parts::answers(request, stored, part).is_none())
    {
        return Verdict::Ask(Missed::Part);
    }
    if asked.no_cache {
        return Verdict::Ask(Missed::RequestNoCache);
    }
    if stored.conditions.no_cache {
        return Verdict::Ask(Missed::NoCache);
    }
    let left = match standing {
        Standing::Stale => stored.left(now).min(0),
        _ => stored.left(now),
    };
    let mut while_revalidated = false;
    // RFC 9111 §4.2: response_is_fresh = (freshness_lifetime > current_age)
    if left <= 0 {
        // RFC 5861 §3: "caches MAY serve the response in which it appears after it becomes stale, up to the indicated
        // number of seconds"; not to a client that says how old it takes it. RFC 9111 §4.2.4 leaves more to "configuration
        // in accordance with an out-of-band contract".
        let window = stored.conditions.while_revalidate.max(saving);
        while_revalidated =
            asked.max_age.is_none() && asked.min_fresh.is_none() && stored.within(left, window);
        let taken = match asked.max_stale {
            MaxStale::Not => false,
            MaxStale::Any => true,
            MaxStale::By(seconds) => -left <= i64::from(seconds),
        };
        if (!taken || stored.conditions.never_stale) && !while_revalidated {
            return Verdict::Ask(Missed::Stale);
        }
    }
    // RFC 9111 §5.2.1.1: "the client prefers a response whose age is less than or equal to the specified number of
    // seconds. Unless the max-stale request directive is also present, the client does not wish to receive a stale
    // response."
    if asked
        .max_age
        .is_some_and(|seconds| stored.age(now) > seconds)
    {
        return Verdict::Ask(Missed::RequestMaxAge);
    }
    // RFC 9111 §5.2.1.3: "freshness lifetime is no less than its current age plus the specified time in seconds".
    if asked
        .min_fresh
        .is_some_and(|seconds| left < i64::from(seconds))
    {
        return Verdict::Ask(Missed::RequestMinFresh);
    }
    match while_revalidated {
        true => Verdict::ReuseStale,
        false => Verdict::Reuse,
    }
}

/// Whether a stale response may be used in place of an error: `reached` says that the origin itself sent it.
pub fn serves_error(
    stored: &Stored,
    asked: &RequestDirectives,
    reached: bool,
    unreached: u32,
    now: Timestamp,
) -> bool {
    let left = stored.left(now);
    // RFC 5861 §4: "when an error is encountered, a cached stale response MAY be used to satisfy the request", by the
    // response's directive or the request's. RFC 9111 §4.2.4 also allows it to a cache that is "disconnected", here for
    // as long as the operator says, unless the response has a window of its own.
    let window = match (
        stored.conditions.if_error.max(asked.stale_if_error),
        reached,
    ) {
        (Some(window), _) => window,
        (None, true) => return false,
        (None, false) => unreached,
    };
    stored.within(left, window)
}

/// The reply to a request from a stored response: 304 when the client has it already, the part it asks for, or all of
/// it (an adapter leaves the body out for HEAD). `unique` goes into a multipart boundary.
pub fn reply(
    stored: &Stored,
    lookup: &Lookup,
    mut status: Status,
    name: &str,
    unique: u64,
    now: Timestamp,
) -> Reply {
    let mut fields = stored.fields.clone();
    fields.reserve(2);
    // RFC 9111 §4: "MUST generate an Age header field, replacing any present in the response with a value equal to the
    // stored response's current_age".
    fields.set("age", stored.age(now).to_string());
    status.ttl = Some(stored.left(now));
    status.append_to(&mut fields, name);
    let within = stored
        .part
        .and_then(|part| parts::answers(&lookup.request, stored, part));
    // RFC 9110 §13.2.2: If-None-Match and If-Modified-Since come before Range; §14.2: Range is for GET and a 200.
    let (code, body) = if conditional::is_known_to(&lookup.request, stored) {
        conditional::leave_out_representation(&mut fields);
        (304, Bytes::new())
    } else if let Some(within) = within {
        of_part(within, stored, &mut fields)
    } else if lookup.is_head || stored.status != 200 {
        (stored.status, stored.body.clone())
    } else {
        let length = stored.body.len();
        match ranges::select(&lookup.request, &stored.fields, length) {
            Selected::Whole => (stored.status, stored.body.clone()),
            Selected::Parts(parts) => {
                let boundary = format!("edgeweir-{unique:016x}");
                (
                    206,
                    ranges::body(&parts, &stored.body, &mut fields, &boundary),
                )
            }
            Selected::Unsatisfiable => unsatisfiable(&mut fields, length as u64),
        }
    };
    Reply {
        head: ResponseHead {
            status: code,
            fields,
            end: body.is_empty(),
            ..ResponseHead::default()
        },
        body,
    }
}

fn of_part(within: Within, stored: &Stored, fields: &mut Fields) -> (u16, Bytes) {
    match within {
        Within::Outside(whole) => unsatisfiable(fields, whole),
        Within::Bytes {
            start,
            end,
            range: (first, last),
            whole,
        } => {
            fields.set("content-range", format!("bytes {first}-{last}/{whole}"));
            (206, stored.body.slice(start..=end))
        }
    }
}

fn unsatisfiable(fields: &mut Fields, length: u64) -> (u16, Bytes) {
    conditional::leave_out_representation(fields);
    // RFC 9110 §15.5.17: "SHOULD generate a Content-Range header field specifying the current length".
    fields.set("content-range", format!("bytes */{length}"));
    (416, Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::Conditions;

    #[test]
    fn reuse_is_judged() {
        let never_stale = Conditions {
            never_stale: true,
            ..Conditions::default()
        };
        let no_cache = Conditions {
            no_cache: true,
            ..Conditions::default()
        };
        let shared = Conditions {
            shared_with_authorization: true,
            ..Conditions::default()
        };
        let any = Conditions::default();
        let ask = Verdict::Ask;
        // Lifetime 60; age and the request's Cache-Control vary.
        for (name, conditions, age, control, authorization, want) in [
            ("fresh", any, 59, "", false, Verdict::Reuse),
            ("stale", any, 60, "", false, ask(Missed::Stale)),
            ("no-cache", no_cache, 0, "", false, ask(Missed::NoCache)),
            (
                "authorization",
                any,
                0,
                "",
                true,
                ask(Missed::Authorization),
            ),
            (
                "shared with authorization",
                shared,
                0,
                "",
                true,
                Verdict::Reuse,
            ),
            (
                "request no-cache",
                any,
                0,
                "no-cache",
                false,
                ask(Missed::RequestNoCache),
            ),
            (
                "max-age equal",
                any,
                30,
                "max-age=30",
                false,
                Verdict::Reuse,
            ),
            (
                "max-age exceeded",
                any,
                31,
                "max-age=30",
                false,
                ask(Missed::RequestMaxAge),
            ),
            ("min-fresh", any, 30, "min-fresh=30", false, Verdict::Reuse),
            (
                "min-fresh missed",
                any,
                31,
                "min-fresh=30",
                false,
                ask(Missed::RequestMinFresh),
            ),
            (
                "max-stale bare",
                any,
                100,
                "max-stale",
                false,
                Verdict::Reuse,
            ),
            ("max-stale", any, 70, "max-stale=10", false, Verdict::Reuse),
            (
                "max-stale exceeded",
                any,
                71,
                "max-stale=10",
                false,
                ask(Missed::Stale),
            ),
            (
                "max-stale forbidden",
                never_stale,
                70,
                "max-stale",
                false,
                ask(Missed::Stale),
            ),
        ] {
            let stored = Stored {
                generation: 1,
                status: 200,
                fields: Fields::default(),
                responded: Timestamp::from_secs(0),
                requested: Timestamp::from_secs(0),
                initial_age: age,
                lifetime: 60,
                conditions,
                part: None,
                groups: Vec::new(),
                secondary: bytes::Bytes::new(),
                body: bytes::Bytes::new(),
            };
            let mut request = Fields::of(&[("cache-control", control)]);
            if authorization {
                request.set("authorization", "x");
            }
            let asked = RequestDirectives::of(&request);
            assert_eq!(
                judge(
                    &stored,
                    &asked,
                    (&request, false),
                    Standing::Valid,
                    0,
                    Timestamp::from_secs(0)
                ),
                want,
                "{name}"
            );
        }
    }
}
