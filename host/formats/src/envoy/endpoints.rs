//! The endpoints of a cluster, and how requests are spread over them: here each goes to the one with fewer requests in flight of
//! two drawn at random.

use std::net::IpAddr;

use super::host_port;
use crate::section::{At, Section};
use crate::{Level, Placed};

/// What chooses among endpoints, beside `lb_policy`.
const BALANCING: &[&str] = &[
    "load_balancing_policy",
    "common_lb_config",
    "least_request_lb_config",
    "ring_hash_lb_config",
    "maglev_lb_config",
    "round_robin_lb_config",
];

/// `fixed` are those of a cluster whose endpoints are addresses, not names.
pub(super) fn read(fields: &Section<'_>, fixed: bool) -> Vec<Placed<String>> {
    let Some(assignment) = fields.need("load_assignment") else {
        return Vec::new();
    };
    let assignment = assignment.section();
    let _ = assignment.get("cluster_name");
    if let Some(policy) = assignment.get("policy") {
        policy.section().let_go();
        policy.warn("no request is dropped, and endpoints of other priorities are not held back");
    }
    let mut found = Vec::new();
    let mut weights = Vec::new();
    let groups = assignment.items("endpoints");
    for at in &groups {
        let group = at.section();
        group.without_effect(&["locality", "proximity"]);
        if let Some(priority) = group.get("priority")
            && priority.number(128).is_some_and(|it| it > 0)
        {
            priority.warn("endpoints of all priorities are used alike");
        }
        match group.get("load_balancing_weight") {
            Some(weight) if groups.len() > 1 => {
                weight.warn("localities are not weighed: endpoints are drawn alike");
            }
            Some(weight) => weight.has_no_effect(),
            None => {}
        }
        for at in group.items("lb_endpoints") {
            let one = at.section();
            one.without_effect(&["metadata"]);
            let weight = one.get("load_balancing_weight");
            if let Some(endpoint) = endpoint(&one, fixed) {
                found.push(endpoint);
                weights.push(weight);
            }
        }
    }
    weigh(&weights);
    found
}

fn endpoint(one: &Section<'_>, fixed: bool) -> Option<Placed<String>> {
    if let Some(status) = one.get("health_status")
        && status
            .word()
            .is_some_and(|it| !matches!(it.as_str(), "HEALTHY" | "UNKNOWN"))
    {
        status.warn("the endpoint is left out");
        one.let_go();
        return None;
    }
    let endpoint_at = one.need("endpoint")?;
    let endpoint = endpoint_at.section();
    endpoint.without_effect(&["hostname"]);
    for (name, message) in [
        (
            "health_check_config",
            "it is asked at its own address, as the cluster says",
        ),
        ("additional_addresses", "its other addresses are not tried"),
    ] {
        if let Some(at) = endpoint.get(name) {
            at.warn(message);
        }
    }
    let (host, port, at) = endpoint.need("address").and_then(|at| host_port(&at))?;
    if fixed && host.parse::<IpAddr>().is_err() {
        let message = format!(
            "Envoy does not start with the name \"{host}\" in a cluster of type STATIC: STRICT_DNS and LOGICAL_DNS take names"
        );
        at.say(Level::Warning, "refused", message);
    }
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    if port == 0 {
        at.error("port 0 is nobody's");
    }
    Some(at.placed(format!("{host}:{port}")))
}

/// Weights that are all the same say nothing.
fn weigh(weights: &[Option<At<'_>>]) {
    let most = u64::from(u32::MAX);
    let of = |at: &Option<At<'_>>| at.as_ref().map_or(Some(1), |at| at.number(most));
    let numbers: Vec<Option<u64>> = weights.iter().map(of).collect();
    let same = numbers.windows(2).all(|two| two.first() == two.last());
    for at in weights.iter().flatten() {
        if same {
            at.has_no_effect();
        } else {
            at.warn("endpoints are not weighed: they are drawn alike");
        }
    }
}

/// How endpoints are chosen; of one alone all policies are the same.
pub(super) fn balancing(fields: &Section<'_>, several: bool) {
    if !several {
        fields.without_effect(&["lb_policy"]);
        fields.without_effect(BALANCING);
        return;
    }
    let message =
        "each request goes to the endpoint with fewer requests in flight of two drawn at random";
    if let Some(policy) = fields.get("lb_policy") {
        match policy.word().as_deref() {
            Some("LEAST_REQUEST" | "1") => {}
            _ => policy.warn(message),
        }
    }
    for at in BALANCING.iter().filter_map(|name| fields.get(name)) {
        at.warn(message);
    }
}
