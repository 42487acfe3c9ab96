//! What a client is told: `RateLimit-Policy`, `RateLimit`, `Retry-After`, problem details.
//!
//! Fields after draft-ietf-httpapi-ratelimit-headers-11, as Structured Fields (RFC 9651).

use bytes::Bytes;
use edgeweir_filter::{ConfigError, Fields, Reply, bounded};

use crate::config::{Config, Told};
use crate::quota::{Decision, Quota};

const SECOND: u64 = 1_000_000_000;
/// Draft §5: the problem types it registers.
const EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// How refusals and fields are written.
#[derive(Debug)]
pub struct Answers {
    status: u16,
    closed_status: u16,
    /// Media type and text in place of problem details.
    body: Option<(Bytes, Bytes)>,
    told: Told,
    x_ratelimit: bool,
}

/// Why a request is refused.
#[derive(Debug)]
pub enum Refusal<'d> {
    /// Limits do not admit it.
    Quota {
        /// The limits.
        quota: &'d Quota,
        /// What they said.
        decision: &'d Decision,
        /// The emergency level they were decided at.
        level: u8,
    },
    /// Its client has as many under way as it may.
    Concurrency {
        /// The rule.
        rule: &'d str,
        /// How many.
        limit: u32,
    },
    /// The rule has as many under way as the origin bears.
    Adaptive {
        /// The rule.
        rule: &'d str,
        /// How many.
        limit: u32,
    },
}

impl Answers {
    /// Checks the bounds.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let status = bounded("status", config.status, 400, 599)?;
        let closed_status = bounded("closed_status", config.closed_status, 400, 599)?;
        let length = config.body.as_ref().map_or(0, String::len);
        if length > 16_384 {
            let message = format!("{length} bytes is out of bounds: at most 16384 bytes");
            return Err(ConfigError::new("body", message));
        }
        let kind = &config.content_type;
        let body = config
            .body
            .as_ref()
            .map(|body| (Bytes::from(kind.clone()), Bytes::from(body.clone())));
        Ok(Self {
            status,
            closed_status,
            body,
            told: config.fields,
            x_ratelimit: config.x_ratelimit,
        })
    }

    /// The fields of a response that goes through.
    pub fn admitted(&self, quota: &Quota, decision: &Decision, level: u8, fields: &mut Fields) {
        if self.told == Told::All {
            self.fields(quota, decision, level, fields);
        }
        if self.x_ratelimit {
            x_fields(quota, decision, level, fields);
        }
    }

    /// The refusal.
    pub fn refusal(&self, refusal: &Refusal<'_>) -> Reply {
        let (reduced, violated, wait) = match refusal {
            Refusal::Quota {
                quota,
                decision,
                level,
            } => {
                let violated = decision
                    .standings
                    .iter()
                    .filter(|standing| standing.wait.is_some())
                    .filter_map(|standing| quota.policies(*level).get(standing.policy))
                    .map(|policy| policy.name.clone());
                (false, violated.collect(), decision.wait())
            }
            // When a place gets free nobody knows.
            Refusal::Concurrency { rule, .. } => (false, vec![format!("{rule}-concurrency")], 0),
            Refusal::Adaptive { rule, .. } => (true, vec![format!("{rule}-adaptive")], 0),
        };
        let violated: Vec<String> = violated;
        // Draft §5.2: a server that has less to give than usual answers 503; nothing the client did is wrong.
        let (status, kind, title) = match reduced {
            true => (
                503,
                REDUCED,
                "Request cannot be satisfied due to temporary server capacity constraints",
            ),
            false => (
                self.status,
                EXCEEDED,
                "Request cannot be satisfied as assigned quota has been exceeded",
            ),
        };
        let mut reply = match &self.body {
            Some((kind, body)) => {
                let mut reply = Reply::new(status, &[], body.clone());
                reply.head.fields.set("content-type", kind.clone());
                reply
            }
            // Names of policies have no character that JSON would escape.
            None => problem(
                kind,
                title,
                status,
                &format!("\"violated-policies\":[\"{}\"]", violated.join("\",\"")),
            ),
        };
        reply.head.status = status;
        let fields = &mut reply.head.fields;
        // RFC 6585 §4: responses with 429 MUST NOT be stored by a cache.
        fields.set("cache-control", "no-store");
        // RFC 9110 §10.2.3: delay-seconds, a whole number; rounded up, so that waiting as told is enough.
        fields.set("retry-after", wait.div_ceil(SECOND).max(1).to_string());
        match refusal {
            Refusal::Quota {
                quota,
                decision,
                level,
                ..
            } => {
                if self.told != Told::None {
                    self.fields(quota, decision, *level, fields);
                }
                if self.x_ratelimit {
                    x_fields(quota, decision, *level, fields);
                }
            }
            Refusal::Concurrency { limit, .. } | Refusal::Adaptive { limit, .. } => {
                if let (Some(name), true) = (violated.first(), self.told != Told::None) {
                    let policy = format!("\"{name}\";q={limit};qu=\"concurrent-requests\"");
                    fields.set("ratelimit-policy", policy);
                    fields.set("ratelimit", format!("\"{name}\";r=0"));
                }
            }
        }
        reply
    }

    /// The answer of a rule that closes when its state can't be reached.
    pub fn unavailable(&self, reason: &'static str) -> Reply {
        let detail = format!("\"detail\":\"the rate limit's state could not be read ({reason})\"");
        let title = "Rate limit without its state";
        let mut reply = problem("about:blank", title, self.closed_status, &detail);
        reply.head.fields.set("retry-after", "1");
        reply
    }

    fn fields(&self, quota: &Quota, decision: &Decision, level: u8, fields: &mut Fields) {
        fields.reserve(2);
        // Both are lists. The draft asks intermediaries that do not know the origin's policy to leave its fields there: what the
        // origin says of its own limits stays, and these are members more.
        fields.append("ratelimit-policy", quota.line(level).clone());
        if let Some(strictest) = decision.strictest()
            && let Some(policy) = quota.policies(level).get(strictest.policy)
        {
            let mut line = Vec::with_capacity(policy.name.len() + 40);
            line.push(b'"');
            line.extend_from_slice(policy.name.as_bytes());
            line.extend_from_slice(b"\";r=");
            digits(&mut line, u64::from(strictest.remaining));
            line.extend_from_slice(b";t=");
            digits(&mut line, strictest.reset.div_ceil(SECOND));
            fields.append("ratelimit", line);
        }
    }
}

/// Appends a number: every response has two, and the standard formatting takes ten times as long.
fn digits(line: &mut Vec<u8>, mut number: u64) {
    let from = line.len();
    loop {
        line.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Some(digits) = line.get_mut(from..) {
        digits.reverse();
    }
}

fn x_fields(quota: &Quota, decision: &Decision, level: u8, fields: &mut Fields) {
    if let Some(strictest) = decision.strictest()
        && let Some(policy) = quota.policies(level).get(strictest.policy)
    {
        let reset = strictest.reset.div_ceil(SECOND);
        fields.set("x-ratelimit-limit", policy.quota.to_string());
        fields.set("x-ratelimit-remaining", strictest.remaining.to_string());
        fields.set("x-ratelimit-reset", reset.to_string());
    }
}

/// The answer of a rule that denies.
pub fn denied(rule: &str) -> Reply {
    let detail = format!("\"detail\":\"rule {rule} denies this request\"");
    problem("about:blank", "Forbidden", 403, &detail)
}

/// Problem details (RFC 9457) with one more member; all text is free of what JSON escapes.
fn problem(kind: &str, title: &str, status: u16, more: &str) -> Reply {
    let body = format!("{{\"type\":\"{kind}\",\"title\":\"{title}\",\"status\":{status},{more}}}");
    let fields = [
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
    ];
    Reply::new(status, &fields, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 1, 9, 10, 42, 100, 86_400, 999_999_999, u64::MAX] {
            let mut line = b"r=".to_vec();
            digits(&mut line, number);
            assert_eq!(line, format!("r={number}").as_bytes());
        }
    }
}
