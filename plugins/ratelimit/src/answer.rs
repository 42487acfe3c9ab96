//! What a client is told: `RateLimit-Policy`, `RateLimit`, `Retry-After`, problem details.
//!
//! Fields after draft-ietf-httpapi-ratelimit-headers-10, as Structured Fields (RFC 9651).

use edgeweir_filter::{Fields, Reply};

use crate::config::Config;
use crate::quota::{Decision, Policy, Quota};

const SECOND: u64 = 1_000_000_000;

/// The fields of every response that a rule decided.
pub fn fields(config: &Config, quota: &Quota, decision: &Decision, fields: &mut Fields) {
    let policies: Vec<String> = quota
        .policies()
        .iter()
        .map(
            |Policy {
                 name,
                 quota,
                 window,
                 ..
             }| format!("\"{name}\";q={quota};w={window}"),
        )
        .collect();
    fields.set("ratelimit-policy", policies.join(", "));
    let Some(strictest) = decision.strictest() else {
        return;
    };
    let Some(policy) = quota.policies().get(strictest.policy) else {
        return;
    };
    let reset = strictest.reset.div_ceil(SECOND);
    fields.set(
        "ratelimit",
        format!("\"{}\";r={};t={reset}", policy.name, strictest.remaining),
    );
    if config.x_ratelimit {
        fields.set("x-ratelimit-limit", policy.quota.to_string());
        fields.set("x-ratelimit-remaining", strictest.remaining.to_string());
        fields.set("x-ratelimit-reset", reset.to_string());
    }
}

/// The refusal.
pub fn refusal(config: &Config, quota: &Quota, decision: &Decision) -> Reply {
    let (kind, body) = match &config.body {
        Some(body) => (config.content_type.clone(), body.clone()),
        None => {
            let violated = decision
                .standings
                .iter()
                .filter(|standing| standing.wait.is_some());
            let violated: Vec<&str> = violated
                .filter_map(|standing| quota.policies().get(standing.policy))
                .map(|policy| policy.name.as_str())
                .collect();
            let problem = serde_json::json!({
                "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "title": "Request cannot be satisfied as assigned quota has been exceeded",
                "status": config.status,
                "violated-policies": violated,
            });
            ("application/problem+json".to_owned(), problem.to_string())
        }
    };
    let mut reply = Reply::new(
        config.status,
        &[("content-type", &kind), ("cache-control", "no-store")],
        body,
    );
    fields(config, quota, decision, &mut reply.head.fields);
    // RFC 9110 §10.2.3: delay-seconds, a whole number; rounded up, so that waiting as told is enough.
    reply.head.fields.set(
        "retry-after",
        decision.wait().div_ceil(SECOND).max(1).to_string(),
    );
    reply
}

/// The answer of a rule that closes when its state can't be reached.
pub fn unavailable(reason: &str) -> Reply {
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": format!("the rate limit's state could not be read ({reason})"),
    });
    let fields = [
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
        ("retry-after", "1"),
    ];
    Reply::new(503, &fields, problem.to_string())
}
