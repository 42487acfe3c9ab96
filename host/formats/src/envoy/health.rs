//! What keeps a cluster in order: health checks, bounds of what is under way, ejection.

use std::time::Duration;

use super::{Bounds, HealthCheck};
use crate::section::{At, Section};

/// What Envoy takes where a bound is not given.
const UNSET: u64 = 1024;

/// The first check over HTTP.
pub(super) fn checks(fields: &Section<'_>, cluster: &str) -> Option<HealthCheck> {
    let checks = fields.items("health_checks");
    let (first, others) = checks.split_first()?;
    for other in others {
        other.section().let_go();
        other.warn("an upstream has one health check: only the first is made");
    }
    let check = first.section();
    let Some(http) = check.get("http_health_check") else {
        check.let_go();
        first.warn(
            "endpoints are asked over HTTP alone (`http_health_check`): this check is not made",
        );
        return None;
    };
    check.without_effect(&[
        "reuse_connection",
        "event_log_path",
        "event_logger",
        "event_service",
        "always_log_health_check_failures",
        "always_log_health_check_success",
    ]);
    let http = http.section();
    http.without_effect(&["codec_client_type"]);
    let path = http.need("path")?;
    let number = |name| check.need(name)?.number(u32::MAX.into());
    let duration = |name| -> Option<Duration> { check.need(name)?.duration() };
    Some(HealthCheck {
        path: path.placed(path.text()?),
        // As Envoy: the name of the cluster where none is given.
        host: http.text("host").unwrap_or_else(|| cluster.to_owned()),
        interval: duration("interval")?,
        timeout: duration("timeout")?,
        healthy: number("healthy_threshold")?,
        unhealthy: number("unhealthy_threshold")?,
    })
}

/// The thresholds of priority DEFAULT.
pub(super) fn bounds(fields: &Section<'_>, http2: bool) -> Option<Bounds> {
    let breakers = fields.get("circuit_breakers")?.section();
    let mut found = None;
    for at in breakers.items("thresholds") {
        let threshold = at.section();
        let priority = threshold.get("priority").and_then(|at| at.word());
        if !matches!(priority.as_deref(), None | Some("DEFAULT" | "0")) {
            threshold.let_go();
            at.warn("requests have no priority: the thresholds of DEFAULT hold for all");
            continue;
        }
        // Nothing is repeated as a bootstrap asks for it.
        threshold.without_effect(&[
            "max_retries",
            "retry_budget",
            "track_remaining",
            "max_connection_pools",
        ]);
        found = Some(match http2 {
            true => of_streams(&threshold),
            false => of_connections(&threshold),
        });
    }
    found
}

fn number(at: Option<&At<'_>>) -> u64 {
    at.and_then(|at| at.number(u32::MAX.into()))
        .unwrap_or(UNSET)
}

/// HTTP/1.1: what finds no connection waits.
fn of_connections(threshold: &Section<'_>) -> Bounds {
    let connections = number(threshold.get("max_connections").as_ref());
    if let Some(at) = threshold.get("max_requests") {
        if number(Some(&at)) < connections {
            at.warn("over HTTP/1.1 `max_connections` alone bounds the requests under way");
        } else {
            at.has_no_effect();
        }
    }
    let pending = number(threshold.get("max_pending_requests").as_ref());
    Bounds {
        requests: positive(threshold, "max_connections", connections),
        pending,
    }
}

/// HTTP/2: what is too much gets 503 at once.
fn of_streams(threshold: &Section<'_>) -> Bounds {
    threshold.without_effect(&["max_connections", "max_pending_requests"]);
    let requests = number(threshold.get("max_requests").as_ref());
    Bounds {
        requests: positive(threshold, "max_requests", requests),
        pending: 0,
    }
}

fn positive(threshold: &Section<'_>, name: &str, value: u64) -> u64 {
    if value == 0
        && let Some(at) = threshold.get(name)
    {
        at.warn("one request at a time is let through");
    }
    value.max(1)
}

/// Envoy's rules are others than this host's.
pub(super) fn ejection(fields: &Section<'_>) {
    if let Some(at) = fields.get("outlier_detection") {
        at.section().let_go();
        at.warn("no endpoint is put aside for what it answers: only `[upstream.NAME.outlier]` of an edgeweir.toml does that, by rules of its own");
    }
}
