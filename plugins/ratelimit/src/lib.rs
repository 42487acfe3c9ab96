//! Rate limiting as a pure filter: GCRA or a sliding window, several limits at once, decided by one atomic update.
//!
//! A refusal is a 429 with `Retry-After`, `RateLimit-Policy`, `RateLimit` and problem details; every response that a
//! rule decided carries the `RateLimit` fields. With an exact [`Effect::Update`] (Envoy's shared data) the limit holds
//! across all workers; where the edge only has an instance's memory it holds per instance, and says so at load.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

mod answer;
mod config;
mod gcra;
mod identity;
mod quota;
mod rate;
mod window;

use std::rc::Rc;
use std::time::Duration;

use edgeweir_filter::{
    Answer, Body, Change, ConfigError, Configured, Cx, Effect, Exchange, Filter, Level,
    RequestHead, ResponseHead, Step, Wants,
};

pub use config::{Algorithm, Burst, Config, KeyPart, Limit, OnStoreFailure, Rule};
pub use rate::Rate;

use identity::Client;
use quota::{Decision, Quota};

/// The rate limiter, configured.
pub struct RateLimit(Rc<Rules>);

struct Rules {
    config: Config,
    quotas: Vec<Rc<Quota>>,
}

impl Configured for RateLimit {
    const NAME: &'static str = "ratelimit";
    type Config = Config;

    fn new(mut config: Config) -> Result<Self, ConfigError> {
        let quotas = config.check()?.into_iter().map(Rc::new).collect();
        for part in config.rules.iter_mut().flat_map(|rule| &mut rule.key) {
            if let KeyPart::Header(name) = part {
                name.make_ascii_lowercase();
            }
        }
        Ok(Self(Rc::new(Rules { config, quotas })))
    }
}

impl Filter for RateLimit {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Limited {
            rules: self.0.clone(),
            rule: 0,
            asked_at: 0,
            decision: None,
        })
    }
    fn wants(&self) -> Wants {
        let rules = &self.0.config.rules;
        Wants {
            peer: rules.iter().any(|rule| rule.key.contains(&KeyPart::Client)),
            exact_updates: true,
            ..Wants::default()
        }
    }
}

/// One request under the rules.
struct Limited {
    rules: Rc<Rules>,
    rule: usize,
    asked_at: u64,
    decision: Option<Decision>,
}

impl Exchange for Limited {
    fn request(&mut self, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let config = &self.rules.config;
        let path = decoded(head.path_only());
        let found = config
            .rules
            .iter()
            .zip(&self.rules.quotas)
            .enumerate()
            .find(|(_, (rule, _))| rule.matches(head, &path));
        let Some((at, (rule, quota))) = found else {
            cx.count("ratelimit.unmatched");
            return Step::Forward(Body::Pass);
        };
        self.rule = at;
        self.asked_at = cx.now.0;
        let client = Client {
            trusted_hops: config.trusted_hops,
            ipv6_prefix: config.ipv6_prefix,
        };
        let key = identity::key(&rule.name, quota.layout(), &rule.key, client, head);
        let (quota, now, cost) = (quota.clone(), cx.now.0, rule.cost);
        let ttl = Duration::from_nanos(quota.span());
        let change = Change::new(move |before| quota.decide(before, now, cost).value);
        Step::Do(Effect::Update {
            table: "limits",
            key,
            change,
            ttl,
        })
    }

    fn request_answer(&mut self, answer: Answer, _: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let rules = self.rules.clone();
        let (Some(rule), Some(quota)) = (
            rules.config.rules.get(self.rule),
            rules.quotas.get(self.rule),
        ) else {
            return Step::Forward(Body::Pass);
        };
        let before = match answer {
            Answer::Updated(Ok(before)) => before,
            Answer::Updated(Err(failed)) => return self.without_store(rule, failed.name(), cx),
            _ => return self.without_store(rule, "unexpected", cx),
        };
        let decision = quota.decide(before.as_deref(), self.asked_at, rule.cost);
        if decision.admitted() {
            cx.count("ratelimit.admitted");
        } else if rule.shadow {
            cx.count("ratelimit.shadowed");
        } else {
            cx.count("ratelimit.limited");
            return Step::Reply(answer::refusal(&rules.config, quota, &decision));
        }
        self.decision = Some(decision);
        Step::Forward(Body::Pass)
    }

    fn response(&mut self, head: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
        if let (Some(decision), Some(quota)) = (&self.decision, self.rules.quotas.get(self.rule)) {
            answer::fields(&self.rules.config, quota, decision, &mut head.fields);
        }
        Step::Forward(Body::Pass)
    }
}

impl Limited {
    fn without_store(&self, rule: &Rule, reason: &'static str, cx: &mut Cx<'_>) -> Step {
        cx.count("ratelimit.store_error");
        cx.log(
            Level::Debug,
            format!("rule {}: no state ({reason})", rule.name),
        );
        match rule.on_store_failure {
            OnStoreFailure::Open => Step::Forward(Body::Pass),
            OnStoreFailure::Closed => Step::Reply(answer::unavailable(reason)),
        }
    }
}

impl Rule {
    fn matches(&self, head: &RequestHead, path: &[u8]) -> bool {
        let by_method = self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|method| method.as_bytes() == head.method);
        let by_path = || {
            self.paths
                .iter()
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => path.starts_with(prefix.as_bytes()),
                    None => path == pattern.as_bytes(),
                })
        };
        by_method && (self.paths.is_empty() || by_path())
    }
}

/// RFC 3986 §6.2.2.2: a percent-encoded unreserved character equals the character itself; nothing else is decoded.
fn decoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%'
            && let Some((digits, after)) = tail.split_first_chunk::<2>()
            && let Some(value) = std::str::from_utf8(digits)
                .ok()
                .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            && (value.is_ascii_alphanumeric() || b"-._~".contains(&value))
        {
            out.push(value);
            rest = after;
            continue;
        }
        out.push(byte);
    }
    out
}
