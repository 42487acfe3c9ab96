//! Which responses may be stored (RFC 9111 §3), and what of them (§3.1).

use bytes::Bytes;
use edgeweir_filter::{Fields, ResponseHead, list_members};

use crate::directives::{Delta, Qualified, ResponseDirectives};
use crate::freshness::{Heuristic, Times, format_date, initial_age, lifetime};
use crate::groups;
use crate::parts;
use crate::reason::Refused;
use crate::stored::{Conditions, Part, Stored, has_validator};
use crate::targeted;
use crate::vary::{self, Vary};

/// Fields of one connection (RFC 9110 §7.6.1) or of the proxy (RFC 9111 §3.1): never stored.
const NEVER_STORED: [&str; 12] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // Computed anew with every reuse; the length is that of the stored body.
    "age",
    "content-length",
];

/// Final statuses this cache knows the caching rules of (RFC 9110 §15, RFC 6585, RFC 7725).
const UNDERSTOOD: [u16; 44] = [
    200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 305, 307, 308, 400, 401, 402, 403, 404,
    405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 426, 428, 429, 431,
    451, 500, 501, 502, 503, 504,
];

/// What the request says about storing its response.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The request's fields as the client sent them.
    pub fields: &'a Fields,
    /// `Cache-Control: no-store` in the request.
    pub no_store: bool,
    /// `Cache-Control: no-transform` in the request.
    pub no_transform: bool,
    /// Whether the method is HEAD.
    pub is_head: bool,
    /// Scheme and authority, normalised.
    pub origin: &'a [u8],
}

/// What the operator says about storing.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// How freshness is guessed.
    pub heuristic: Heuristic,
    /// The longest guess for an error, in seconds; 0 for none.
    pub longest_error: u32,
    /// The fields whose directives come before those of `Cache-Control` (RFC 9213).
    pub targets: &'a [String],
    /// Groups of one response at most.
    pub max_groups: usize,
    /// Seconds a stale response may be used while the origin can't be reached.
    pub unreached: u32,
    /// Seconds a stale response is kept that may be used stale or validated.
    pub keep_stale: u32,
    /// Responses with `Set-Cookie` may be stored, cookie and all.
    pub set_cookie: bool,
    /// Seconds a response without explicit freshness is fresh, by a rule for its status.
    pub assumed: Option<u32>,
    /// Percent by which a lifetime may be cut at random, so that what was stored together does not go stale together.
    pub jitter: u8,
    /// Chance.
    pub random: u64,
}

impl Policy<'_> {
    /// Never longer than the origin said.
    fn cut(&self, lifetime: u32) -> u32 {
        let most = u64::from(lifetime) * u64::from(self.jitter) / 100;
        let cut = self.random % (most + 1);
        lifetime.saturating_sub(u32::try_from(cut).unwrap_or(0))
    }
}

/// A response that may be stored: there is no other way to make one than [`Storable::check`].
#[derive(Debug)]
pub struct Storable {
    /// The fields that its `Vary` names.
    pub names: Vec<Bytes>,
    /// Seconds past its freshness during which it may be used without being validated.
    tolerated: u32,
    /// All but generation and body.
    stored: Stored,
}

impl Storable {
    /// RFC 9111 §3: "A cache MUST NOT store a response to a request unless: …", each condition in turn.
    pub fn check(
        asked: Asked<'_>,
        head: &ResponseHead,
        times: Times,
        policy: &Policy<'_>,
    ) -> Result<Self, Refused> {
        if asked.is_head {
            return Err(Refused::HeadRequest);
        }
        // RFC 9111 §5.2.1.5: "a cache MUST NOT store any part of either this request or any response to it".
        if asked.no_store {
            return Err(Refused::RequestNoStore);
        }
        // RFC 9111 §5.2.1.6: "the client is asking for intermediaries to avoid transforming the content": other clients did
        // not, and neither the key nor `Vary` tells them apart.
        if asked.no_transform {
            return Err(Refused::RequestNoTransform);
        }
        let targeted::Chosen {
            directives,
            targeted,
        } = targeted::directives(&head.fields, policy.targets);
        if directives.malformed {
            return Err(Refused::Malformed);
        }
        check_status(head.status, &directives)?;
        // "the private response directive is not present … or allows a shared cache to store a modified response"
        if directives.private == Qualified::All {
            return Err(Refused::Private);
        }
        // RFC 9111 §3.5: "A shared cache MUST NOT use a cached response to a request with an Authorization header
        // field … to satisfy any subsequent request unless …"
        if asked.fields.has("authorization") && !directives.shared_with_authorization() {
            return Err(Refused::Authorization);
        }
        let Vary::Fields(names) = Vary::of(&head.fields) else {
            return Err(Refused::VaryStar);
        };
        if names.iter().any(|name| name == "accept-encoding")
            && !vary::codings_are_known(&head.fields)
        {
            return Err(Refused::UnknownCoding);
        }
        let fields = storable_fields(&head.fields, &directives, times);
        // RFC 9111 §7.3: a cookie is meant for one client; stored only where the operator says so.
        if fields.has("set-cookie") && !policy.set_cookie {
            return Err(Refused::SetCookie);
        }
        let part = part(head)?;
        let groups = groups::of(&head.fields, asked.origin, policy.max_groups)?;
        let guess = guess(head.status, &directives, policy);
        // RFC 9213 §2.2: a cache that uses a targeted field ignores Cache-Control and Expires.
        let dated = if targeted {
            without_expires(&head.fields)
        } else {
            None
        };
        let dated = dated.as_ref().unwrap_or(&head.fields);
        let found = lifetime(dated, &directives, times.responded, guess);
        let lifetime = match (found, policy.assumed) {
            (Some(lifetime), _) if lifetime.explicit => lifetime.seconds,
            (_, Some(assumed)) => assumed,
            (Some(lifetime), None) => lifetime.seconds,
            (None, None) => return Err(Refused::NoFreshness),
        };
        let lifetime = policy.cut(lifetime);
        let initial_age = initial_age(&head.fields, times);
        let never_stale = directives.never_stale();
        let while_revalidate = directives.stale_while_revalidate;
        let while_revalidate = while_revalidate.map_or(0, Delta::or_stale);
        let if_error = directives.stale_if_error.map(Delta::or_stale);
        let useful_stale = !never_stale && (while_revalidate > 0 || if_error.unwrap_or(0) > 0);
        let usable_at_once = initial_age < lifetime && directives.no_cache != Qualified::All;
        if !usable_at_once && !useful_stale && !has_validator(&fields) {
            return Err(Refused::Expired);
        }
        let tolerated = match (never_stale, lifetime) {
            (true, _) => 0,
            (false, 0) => while_revalidate.max(if_error.unwrap_or(0)),
            // Also for a client that takes it stale (`max-stale`).
            (false, _) => while_revalidate
                .max(if_error.unwrap_or(0))
                .max(policy.unreached)
                .max(policy.keep_stale),
        };
        let secondary = vary::secondary(&names, asked.fields).into();
        Ok(Self {
            names,
            tolerated,
            stored: Stored {
                generation: 0,
                status: head.status,
                fields,
                responded: times.responded,
                requested: times.requested,
                initial_age,
                lifetime,
                conditions: Conditions {
                    no_cache: directives.no_cache == Qualified::All,
                    never_stale,
                    shared_with_authorization: directives.shared_with_authorization(),
                    while_revalidate,
                    if_error,
                },
                part,
                groups,
                secondary,
                body: Bytes::new(),
            },
        })
    }

    /// The response in a generation, body still to come.
    pub fn into_stored(self, generation: u64) -> Stored {
        Stored {
            generation,
            ..self.stored
        }
    }

    /// Seconds since the epoch until which it may be of use: past its freshness for `keep` seconds when it can be
    /// validated, and as long as it may be used stale.
    pub fn until(&self, keep: u32) -> u32 {
        let kept = if self.stored.has_validator() { keep } else { 0 };
        let kept = kept.max(self.tolerated);
        let left = self.stored.lifetime.saturating_sub(self.stored.initial_age);
        let until = self.stored.responded.as_secs() + u64::from(left) + u64::from(kept) + 1;
        u32::try_from(until).unwrap_or(u32::MAX)
    }

    /// What is left of its freshness, in seconds.
    pub fn left(&self) -> i64 {
        self.stored.left(self.stored.responded)
    }
}

fn check_status(status: u16, directives: &ResponseDirectives) -> Result<(), Refused> {
    match status {
        // "the response status code is final"
        0..200 => return Err(Refused::Status),
        // "if the response status code is 206 or 304 … the cache understands the response status code": a 304 has no
        // content of its own.
        304 => return Err(Refused::NotModified),
        _ if of_one_request(status) => return Err(Refused::OneRequest),
        _ => {}
    }
    let understood = UNDERSTOOD.contains(&status);
    if directives.must_understand {
        // RFC 9111 §5.2.2.3: "limits caching of the response to a cache that understands and conforms to the
        // requirements for that response's status code"; such a cache ignores the no-store beside it.
        return if understood {
            Ok(())
        } else {
            Err(Refused::NotUnderstood)
        };
    }
    if directives.no_store {
        return Err(Refused::NoStore);
    }
    Ok(())
}

/// Whether a status answers what is in one request only and not in the key: another request under the same key would be
/// answered otherwise.
fn of_one_request(status: u16) -> bool {
    match status {
        // RFC 9110 §15.5.13: "one or more conditions given in the request header fields evaluated to false"; §15.5.17: "the
        // set of ranges in the request's Range header field … has been rejected"; §15.5.18: "the expectation given in the
        // request's Expect header field … could not be met".
        412 | 416 | 417 => true,
        // RFC 8470 §5.2: the server "is unwilling to risk processing a request that might be replayed": this one, early.
        425 => true,
        // RFC 6585 §3 to §6: "Responses with the … status code MUST NOT be stored by a cache".
        428 | 429 | 431 | 511 => true,
        _ => false,
    }
}

/// How freshness may be guessed for a status, if at all.
///
/// RFC 9110 §15.1 lists the statuses that are heuristically cacheable; RFC 9111 §4.2.2 says that a cache "MAY assign a
/// heuristic expiration time" to them. Lest a passing mistake stays, for the errors among them it is not done unless the
/// operator says for how long at most. `public` makes any other success so (RFC 9111 §4.2.2). All other errors need explicit
/// freshness.
fn guess(status: u16, directives: &ResponseDirectives, policy: &Policy<'_>) -> Option<Heuristic> {
    match status {
        200 | 203 | 204 | 206 | 300 | 301 | 308 => Some(policy.heuristic),
        404 | 405 | 410 | 414 | 501 => (policy.longest_error > 0).then_some(Heuristic {
            longest: policy.heuristic.longest.min(policy.longest_error),
            ..policy.heuristic
        }),
        _ => (directives.public && status < 400).then_some(policy.heuristic),
    }
}

fn without_expires(fields: &Fields) -> Option<Fields> {
    let mut dated = fields.clone();
    dated.remove("expires").then_some(dated)
}

/// What a 206 is a part of. RFC 9111 §3.3: a cache "MUST NOT store incomplete or partial-content responses if it does not
/// support the Range and Content-Range header fields or if it does not understand the range units used".
fn part(head: &ResponseHead) -> Result<Option<Part>, Refused> {
    match (head.status, head.fields.joined("content-range")) {
        (206, Some(range)) => match parts::content_range(&range) {
            Some((first, last, whole))
                if head
                    .content_length()
                    .is_none_or(|length| length == last - first + 1) =>
            {
                Ok(Some(Part { first, whole }))
            }
            _ => Err(Refused::Partial),
        },
        // RFC 9110 §15.3.7.2: several parts have theirs inside the body; they are not taken apart here.
        (206, None) => Err(Refused::Partial),
        _ => Ok(None),
    }
}

/// Whether a field of a message belongs to its connection or is made anew: by its name, or because `Connection` says so.
pub fn of_connection(fields: &Fields) -> impl Fn(&[u8]) -> bool + use<> {
    let named: Vec<Vec<u8>> = fields
        .values("connection")
        .flat_map(list_members)
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    move |name| {
        NEVER_STORED.iter().any(|never| never.as_bytes() == name)
            || named.iter().any(|named| named == name)
    }
}

/// RFC 9111 §3.1: all received fields, unknown ones too, but those of the connection, those it names, and those that
/// a qualified `no-cache` or `private` names. A trailer section is discarded: §3.1 lets a cache "discard" trailers and
/// forbids merging them into the header section.
fn storable_fields(fields: &Fields, directives: &ResponseDirectives, times: Times) -> Fields {
    let never = of_connection(fields);
    let kept = fields.iter().filter(|(name, _)| {
        !never(name) && !directives.private.names(name) && !directives.no_cache.names(name)
    });
    let mut lines: Vec<(Bytes, Bytes)> = kept.map(|(n, v)| (n.clone(), v.clone())).collect();
    if !fields.has("date") {
        // RFC 9110 §6.6.1: "MUST record the time it was received and append a corresponding Date header field".
        lines.push((
            Bytes::from_static(b"date"),
            format_date(times.responded).into(),
        ));
    }
    Fields::received(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeweir_filter::Timestamp;

    type Lines<'a> = &'a [(&'a str, &'a str)];

    fn check(request: Lines<'_>, status: u16, response: Lines<'_>) -> Result<Storable, Refused> {
        let at = Timestamp::from_secs(1_767_225_600);
        let head = ResponseHead {
            status,
            fields: Fields::of(response),
            end: false,
            ..ResponseHead::default()
        };
        let fields = Fields::of(request);
        let asked = Asked {
            fields: &fields,
            no_store: false,
            no_transform: false,
            is_head: false,
            origin: b"https://a.example",
        };
        let policy = Policy {
            longest_error: 60,
            targets: &[],
            max_groups: 64,
            unreached: 0,
            keep_stale: 0,
            heuristic: Heuristic {
                percent: 10,
                longest: 86_400,
            },
            set_cookie: false,
            assumed: None,
            jitter: 0,
            random: 0,
        };
        Storable::check(
            asked,
            &head,
            Times {
                requested: at,
                responded: at,
            },
            &policy,
        )
    }

    #[test]
    fn what_may_be_stored() {
        let auth = [("authorization", "Basic eA==")];
        let modified = ("last-modified", "Thu, 01 Jan 2015 00:00:00 GMT");
        let none: Lines<'_> = &[];
        let control = |value| [("cache-control", value)];
        type Row<'a> = (&'a str, Lines<'a>, u16, Lines<'a>, Result<(), Refused>);
        let table: &[Row<'_>] = &[
            ("max-age", none, 200, &control("max-age=5"), Ok(())),
            (
                "no-store",
                none,
                200,
                &control("max-age=5, no-store"),
                Err(Refused::NoStore),
            ),
            (
                "no-store in upper case",
                none,
                200,
                &control("max-age=5,NO-STORE"),
                Err(Refused::NoStore),
            ),
            (
                "no-store with an argument",
                none,
                200,
                &control("max-age=5, no-store=x"),
                Err(Refused::NoStore),
            ),
            (
                "private",
                none,
                200,
                &control("max-age=5, private"),
                Err(Refused::Private),
            ),
            (
                "private of one field",
                none,
                200,
                &control("max-age=5, private=\"x-a\""),
                Ok(()),
            ),
            (
                "an open quote",
                none,
                200,
                &control("max-age=5, x=\"a, no-store"),
                Err(Refused::Malformed),
            ),
            (
                "unknown directives",
                none,
                200,
                &control("max-age=5, x, y=\"z, no-store\""),
                Ok(()),
            ),
            (
                "authorization",
                &auth,
                200,
                &control("max-age=5"),
                Err(Refused::Authorization),
            ),
            (
                "authorization and public",
                &auth,
                200,
                &control("max-age=5, public"),
                Ok(()),
            ),
            (
                "authorization and s-maxage",
                &auth,
                200,
                &control("s-maxage=5"),
                Ok(()),
            ),
            (
                "authorization and must-revalidate",
                &auth,
                200,
                &control("max-age=5, must-revalidate"),
                Ok(()),
            ),
            (
                "206 without a range",
                none,
                206,
                &control("max-age=5"),
                Err(Refused::Partial),
            ),
            (
                "206",
                none,
                206,
                &[
                    ("content-range", "bytes 0-3/9"),
                    ("cache-control", "max-age=5"),
                ],
                Ok(()),
            ),
            (
                "206 of another length",
                none,
                206,
                &[
                    ("content-range", "bytes 0-3/9"),
                    ("content-length", "5"),
                    ("cache-control", "max-age=5"),
                ],
                Err(Refused::Partial),
            ),
            (
                "304",
                none,
                304,
                &control("max-age=5"),
                Err(Refused::NotModified),
            ),
            (
                "416",
                none,
                416,
                &control("max-age=5, public, must-understand"),
                Err(Refused::OneRequest),
            ),
            (
                "429",
                none,
                429,
                &control("max-age=5"),
                Err(Refused::OneRequest),
            ),
            (
                "103",
                none,
                103,
                &control("max-age=5"),
                Err(Refused::Status),
            ),
            (
                "a status nobody knows",
                none,
                599,
                &control("max-age=5"),
                Ok(()),
            ),
            (
                "must-understand, unknown",
                none,
                599,
                &control("max-age=5, must-understand"),
                Err(Refused::NotUnderstood),
            ),
            (
                "must-understand over no-store",
                none,
                200,
                &control("max-age=5, must-understand, no-store"),
                Ok(()),
            ),
            ("nothing said", none, 200, &[], Err(Refused::NoFreshness)),
            ("a guess", none, 200, &[modified], Ok(())),
            (
                "a short guess for a client error",
                none,
                404,
                &[modified],
                Ok(()),
            ),
            (
                "no guess for an error without a date",
                none,
                404,
                &[("cache-control", "public")],
                Err(Refused::NoFreshness),
            ),
            (
                "no guess for a server error",
                none,
                503,
                &[modified, ("cache-control", "public")],
                Err(Refused::NoFreshness),
            ),
            (
                "an error with a lifetime",
                none,
                500,
                &control("max-age=5"),
                Ok(()),
            ),
            (
                "no guess for 302",
                none,
                302,
                &[modified],
                Err(Refused::NoFreshness),
            ),
            (
                "a guess for public 302",
                none,
                302,
                &[modified, ("cache-control", "public")],
                Ok(()),
            ),
            (
                "set-cookie",
                none,
                200,
                &[("set-cookie", "a=b"), ("cache-control", "max-age=5")],
                Err(Refused::SetCookie),
            ),
            (
                "set-cookie left out",
                none,
                200,
                &[
                    ("set-cookie", "a=b"),
                    ("cache-control", "max-age=5, no-cache=\"Set-Cookie\""),
                ],
                Ok(()),
            ),
            (
                "stale, no validator",
                none,
                200,
                &control("max-age=0"),
                Err(Refused::Expired),
            ),
            (
                "stale with a validator",
                none,
                200,
                &[("etag", "\"a\""), ("cache-control", "max-age=0")],
                Ok(()),
            ),
            (
                "older than its lifetime",
                none,
                200,
                &[("age", "9"), ("cache-control", "max-age=9")],
                Err(Refused::Expired),
            ),
            (
                "no-cache, no validator",
                none,
                200,
                &control("max-age=5, no-cache"),
                Err(Refused::Expired),
            ),
            (
                "vary *",
                none,
                200,
                &[("vary", "a, *"), ("cache-control", "max-age=5")],
                Err(Refused::VaryStar),
            ),
            (
                "an unknown coding",
                none,
                200,
                &[
                    ("vary", "accept-encoding"),
                    ("content-encoding", "exi"),
                    ("cache-control", "max-age=5"),
                ],
                Err(Refused::UnknownCoding),
            ),
        ];
        for (name, request, status, response, want) in table {
            assert_eq!(
                check(request, *status, response).map(|_| ()),
                *want,
                "{name}"
            );
        }
    }

    #[test]
    fn jitter_only_cuts_and_within_its_bound() {
        let mut policy = Policy {
            longest_error: 60,
            targets: &[],
            max_groups: 64,
            unreached: 0,
            keep_stale: 0,
            heuristic: Heuristic {
                percent: 0,
                longest: 0,
            },
            set_cookie: false,
            assumed: None,
            jitter: 0,
            random: u64::MAX,
        };
        assert_eq!(policy.cut(100), 100);
        policy.jitter = 20;
        let lives: Vec<u32> = (0..1000)
            .map(|random| Policy { random, ..policy }.cut(100))
            .collect();
        assert_eq!(
            (lives.iter().min(), lives.iter().max()),
            (Some(&80), Some(&100))
        );
        assert!(policy.cut(crate::directives::LONGEST) >= crate::directives::LONGEST / 10 * 8);
    }

    #[test]
    fn fields_of_the_connection_are_left_out() {
        let storable = check(
            &[],
            200,
            &[
                ("connection", "X-Hop, close"),
                ("x-hop", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authenticate", "Basic"),
                ("x-private", "1"),
                ("x-unknown", "1"),
                ("cache-control", "max-age=5, private=\"X-Private\""),
            ],
        );
        let stored = storable.expect("storable").into_stored(1);
        let names: Vec<&[u8]> = stored.fields.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, [&b"x-unknown"[..], b"cache-control", b"date"]);
        assert_eq!(
            stored.fields.text("date"),
            Some("Thu, 01 Jan 2026 00:00:00 GMT")
        );
    }
}
