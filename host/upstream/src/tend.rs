//! What goes on beside the requests: probes, looking names up, closing what is idle. Ends with the upstream.

use std::sync::{Arc, Weak};
use std::time::Duration;

use edgeweir_host_chain::{Request, empty};
use http::header::{self, HeaderValue};
use http::{Method, Uri, Version};
use http_body_util::BodyExt as _;
use http_body_util::Limited;
use tokio::task::JoinSet;

use crate::counts::Event;
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::health::Policy;
use crate::pool::{Unanswered, Wire};
use crate::upstream::Inner;

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(10);
/// What a probe reads of a body, so that its connection can be kept; beyond it the connection is closed.
const PROBE_BODY: usize = 64 << 10;

pub(crate) fn start(inner: &Arc<Inner>) {
    tokio::spawn(sweep(Arc::downgrade(inner)));
    if let Some(every) = inner.settings.every_address {
        tokio::spawn(look_up(Arc::downgrade(inner), every));
    }
    if let Some(policy) = &inner.settings.health {
        tokio::spawn(probe(Arc::downgrade(inner), policy.clone()));
    }
}

async fn sweep(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(inner) = inner.upgrade() else { return };
        for endpoint in inner.endpoints().iter() {
            endpoint.pool.sweep();
        }
    }
}

async fn look_up(inner: Weak<Inner>, every: Duration) {
    loop {
        match inner.upgrade() {
            Some(inner) => inner.resolve().await,
            None => return,
        }
        tokio::time::sleep(every).await;
    }
}

async fn probe(inner: Weak<Inner>, policy: Policy) {
    loop {
        let Some(held) = inner.upgrade() else { return };
        let mut probes = JoinSet::new();
        for endpoint in held.endpoints().iter().cloned() {
            let policy = policy.clone();
            let secure = held.settings.tls.is_some();
            probes.spawn(async move {
                let asking = ask(&endpoint, &policy, secure);
                let good = tokio::time::timeout(policy.timeout, asking).await;
                (endpoint, good.unwrap_or(false))
            });
        }
        while let Some(probed) = probes.join_next().await {
            let Ok((endpoint, good)) = probed else {
                continue;
            };
            if !good {
                held.counts.add(Event::ProbeFailed);
            }
            if endpoint.standing().health.probed(good, &policy) {
                held.counts.add(Event::HealthChanged);
                tracing::warn!(
                    upstream = held.name,
                    address = endpoint.authority,
                    healthy = good,
                    "health changed"
                );
            }
        }
        drop(held);
        tokio::time::sleep(policy.interval).await;
    }
}

/// Whether an endpoint answers with 2xx.
async fn ask(endpoint: &Arc<Endpoint>, policy: &Policy, secure: bool) -> bool {
    for fresh in [false, true] {
        let Ok(taken) = endpoint.pool.take(fresh).await else {
            return false;
        };
        let reused = taken.reused;
        let Some(request) = question(endpoint, policy, secure, &taken.wire) else {
            return false;
        };
        match taken.send(&endpoint.pool, request).await {
            Ok(response) => {
                let good = response.status().is_success();
                // A body that is not read would cost the connection.
                let _ = Limited::new(response.into_body(), PROBE_BODY)
                    .collect()
                    .await;
                return good;
            }
            // A kept connection that had closed says nothing about the endpoint.
            Err(Unanswered::Unsent(..) | Unanswered::Lost(Failure::Closed(_))) if reused => {}
            Err(_) => return false,
        }
    }
    false
}

fn question(endpoint: &Endpoint, policy: &Policy, secure: bool, wire: &Wire) -> Option<Request> {
    let host = policy.host.as_deref().unwrap_or(&endpoint.authority);
    let mut request = Request::new(empty());
    *request.method_mut() = Method::GET;
    let agent = HeaderValue::from_static("edgeweir health");
    request.headers_mut().insert(header::USER_AGENT, agent);
    match wire {
        Wire::Http1(_) => {
            *request.uri_mut() = policy.path.parse().ok()?;
            let host = HeaderValue::from_str(host).ok()?;
            request.headers_mut().insert(header::HOST, host);
        }
        Wire::Http2(_) => {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = Uri::builder()
                .scheme(if secure { "https" } else { "http" })
                .authority(host)
                .path_and_query(policy.path.as_str())
                .build()
                .ok()?;
        }
    }
    Some(request)
}
