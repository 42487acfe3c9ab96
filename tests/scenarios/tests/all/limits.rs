//! Who is limited, by what, and what is given back.

use std::time::{Duration, Instant};

use edgeweir_scenarios::client::{self, Client};
use edgeweir_scenarios::hosts::{self, envoy};
use edgeweir_scenarios::{
    Edge, Host, Origin, Request, Seen, Setup, get, on_each_host, origin, ratelimit,
};
use serde_json::{Value, json};

/// What the limits count, one scenario and host apart from the others on the same edge.
fn mine(edge: &Edge, name: &str) -> String {
    format!("{name}-{}", edge.host().name())
}

fn admitted(edge: &mut Edge, request: &Request, times: usize) -> usize {
    (0..times)
        .filter(|_| edge.send(request, &Origin::text("ok")).status == 200)
        .count()
}

on_each_host!(
    addresses_of_one_network_are_one_client,
    [ratelimit(json!({
        "trusted_hops": 2,
        "rules": [{ "limits": [{ "rate": "10/hour" }] }]
    }))],
    |edge| {
        let network = format!("2001:db8:{:x}", edge.host() as u8);
        // Envoy appends an address of its own for a proxy on the loopback; elsewhere that is another proxy's.
        let proxy = match edge.host() {
            Host::Envoy => "",
            _ => ", 198.51.100.1",
        };
        let mut from = |address: String| {
            let asks = get("/a").field("x-forwarded-for", format!("{address}{proxy}"));
            edge.send(&asks, &Origin::text("ok")).status
        };
        let statuses: Vec<u16> = (0..40)
            // What a client writes itself stands further left.
            .map(|at| from(format!("203.0.113.{at}, {network}:1::{at:x}")))
            .collect();
        let count = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(count, 10, "{statuses:?}");
        assert_eq!(from(format!("{network}:2::1")), 200, "another network");
    }
);

/// Without `use_remote_address` Envoy takes the field's last entry for the address of the connection.
#[test]
fn a_client_chooses_no_key_where_envoy_believes_the_field() {
    let modules = hosts::modules().expect("the modules are built");
    let folder = hosts::folder(Host::Envoy).expect("a folder");
    let setup = Setup::of([ratelimit(json!({
        "trusted_hops": 1,
        "rules": [{ "limits": [{ "rate": "3/hour" }] }]
    }))]);
    let mut config = envoy::bootstrap(&setup, &modules, origin::server().http1);
    let manager = config.pointer_mut(
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/use_remote_address",
    );
    *manager.expect("the connection manager's") = false.into();
    let edge = envoy::run(&folder, "envoy.json", &config.to_string(), 1).expect("Envoy starts");
    let refused = |of: &dyn Fn(u8) -> String| {
        let statuses = (0..6).map(|at| {
            let asks = get("/").field("x-forwarded-for", of(at));
            let seen = client::exchange(edge.address, &asks, "/");
            seen.expect("a response").status
        });
        statuses.filter(|status| *status == 429).count()
    };
    let spoofed = |at| format!("203.0.113.{at}, 198.51.100.7");
    assert_eq!(refused(&spoofed), 3, "one client");
    let others = |at| format!("203.0.113.1, 198.51.101.{at}");
    assert_eq!(refused(&others), 0, "clients of their own");
}

/// A token with these claims; nobody checks its signature.
fn bearer(claims: &Value) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut payload = String::new();
    for group in claims.to_string().as_bytes().chunks(3) {
        let bits = (0..3).fold(0, |bits: u32, at| {
            bits << 8 | u32::from(group.get(at).copied().unwrap_or(0))
        });
        let digits = (0..=group.len()).map(|at| DIGITS[(bits >> (18 - 6 * at) & 63) as usize]);
        payload.extend(digits.map(char::from));
    }
    format!("Bearer e30.{payload}.c2ln")
}

on_each_host!(
    rules_match_in_order_and_tiers_have_their_own_limits,
    [ratelimit(json!({ "rules": [
        { "name": "blocked", "when": [{ "by": { "header": "x-client" }, "is": ["bad"] }], "action": "deny" },
        { "name": "probes", "when": [{ "by": { "header": "user-agent" }, "is": ["probe/1"] }], "action": "allow" },
        {
            "name": "named",
            "when": [{ "by": { "claim": "sub" } }],
            "key": [{ "claim": "sub" }],
            "limits": [{ "rate": "2/hour" }],
            "tiers": { "by": { "claim": "plan" }, "limits": { "gold": [{ "rate": "6/hour" }] } }
        },
        { "name": "rest", "key": [{ "cookie": "id" }], "limits": [{ "rate": "3/hour" }] }
    ] }))],
    |edge| {
        let blocked = edge.send(&get("/a").field("x-client", "bad"), &Origin::text("ok"));
        assert_eq!((blocked.status, blocked.upstream.len()), (403, 0));
        assert!(
            blocked.body_text().contains("blocked"),
            "{}",
            blocked.body_text()
        );
        let probe = get("/a").field("user-agent", "probe/1");
        assert_eq!(admitted(edge, &probe, 12), 12);
        let (sub, id) = (mine(edge, "sub"), format!("id={}", mine(edge, "tier")));
        for (name, field, value, want) in [
            (
                "gold",
                "authorization",
                bearer(&json!({ "sub": sub, "plan": "gold" })),
                6,
            ),
            (
                "no plan",
                "authorization",
                bearer(&json!({ "sub": sub })),
                2,
            ),
            ("no token", "cookie", id, 3),
        ] {
            let asks = get("/a").field(field, value);
            assert_eq!(admitted(edge, &asks, 8), want, "{name}");
        }
    }
);

on_each_host!(
    a_segment_of_the_path_is_a_client,
    [ratelimit(json!({ "rules": [{
        "paths": ["/{scenario}/users/{id}", "/{scenario}/users/{id}/*"],
        "key": [{ "segment": "scenario" }, { "segment": "id" }],
        "limits": [{ "rate": "4/hour" }]
    }] }))],
    |edge| {
        for (path, want) in [
            ("/users/7", 4),
            ("/users/%37/orders", 0),
            ("/users/8/orders", 4),
            ("/users/", 6),
        ] {
            assert_eq!(admitted(edge, &get(path), 6), want, "{path}");
        }
    }
);

on_each_host!(
    a_response_costs_what_it_says,
    [ratelimit(json!({ "rules": [{
        "key": [{ "header": "x-client" }],
        "cost": { "response": "x-cost", "most": 8 },
        "limits": [{ "rate": "20/hour" }]
    }] }))],
    |edge| {
        let asks = get("/a").field("x-client", mine(edge, "cost"));
        let dear = Origin::text("ok").field("x-cost", "8");
        let mut left = Vec::new();
        for _ in 0..4 {
            let seen = edge.send(&asks, &dear);
            left.push((seen.status, seen.text("ratelimit").contains("r=0;")));
            // What is taken after the fact is taken beside the response.
            edge.pass(Duration::from_millis(50));
        }
        let statuses: Vec<u16> = left.iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [200, 200, 200, 429], "{left:?}");
    }
);

on_each_host!(
    an_emergency_tightens_limits,
    Setup::of([ratelimit(json!({ "rules": [{
        "key": [{ "header": "x-client" }],
        "emergency": [50, 20, 10],
        "limits": [{ "rate": "20/hour" }]
    }] }))])
    .heeds_emergencies()
    .except(Host::Pure, "its script says the level itself"),
    |edge| {
        for (level, want) in [("0", 20), ("1", 10), ("2", 4), ("3", 2)] {
            let asks = get("/a")
                .field("x-client", mine(edge, level))
                .field("edgeweir-emergency", level);
            assert_eq!(admitted(edge, &asks, 25), want, "level {level}");
        }
    }
);

on_each_host!(
    a_clients_own_emergency_takes_nothing_from_others,
    [ratelimit(json!({ "rules": [{
        "name": "all", "key": [], "emergency": [50, 20, 1],
        "limits": [{ "rate": "20/hour" }]
    }] }))],
    |edge| {
        let asks = get("/a");
        let worst = asks.clone().field("edgeweir-emergency", "3");
        assert_eq!(admitted(edge, &worst, 10), 10);
        assert_eq!(admitted(edge, &asks, 15), 10, "each took one cell");
    }
);

fn slow() -> Origin {
    Origin::text("slow").delay(Duration::from_millis(1_500))
}

on_each_host!(
    requests_under_way_are_counted_until_they_end,
    Setup::of([ratelimit(json!({ "rules": [{
        "name": "few", "key": [{ "header": "x-client" }], "concurrency": 2
    }] }))])
    .except(Host::Pure, "one exchange at a time")
    .except(Host::Spin, "an instance for each few requests"),
    |edge| {
        let address = edge.address().expect("not the pure contract");
        let asks = get("/a").field("x-client", mine(edge, "few"));
        let path = edge.path("/a");
        edge.origin_does(&slow());
        let open = || {
            let mut client = Client::connect(address).expect("it listens");
            client.send(&asks, &path).expect("it is sent");
            client
        };
        let mut clients: Vec<Client> = (0..12).map(|_| open()).collect();
        // Refusals come at once; those admitted are at the origin.
        std::thread::sleep(Duration::from_millis(600));
        let at_origin = edge.received().len();
        let workers = 2;
        assert!(
            (2..=2 * workers).contains(&at_origin),
            "{at_origin} at once"
        );
        let statuses: Vec<u16> = clients
            .iter_mut()
            .map(|client| client.receive(false).expect("a response").status)
            .collect();
        let good = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(
            (good, statuses.len() - good),
            (at_origin, 12 - at_origin),
            "{statuses:?}"
        );
        // Whole responses gave their places back, and so do clients that leave.
        for round in 0..3 {
            let leaving: Vec<Client> = (0..12).map(|_| open()).collect();
            std::thread::sleep(Duration::from_millis(300));
            assert!(
                !edge.received().is_empty(),
                "round {round}: nobody is admitted"
            );
            leaving.into_iter().for_each(Client::leave);
            std::thread::sleep(Duration::from_millis(300));
        }
        edge.origin_does(&Origin::text("ok"));
        let until = Instant::now() + Duration::from_secs(10);
        let mut row = 0;
        while row < 8 {
            let seen: Seen = edge.send(&asks, &Origin::text("ok"));
            row = if seen.status == 200 { row + 1 } else { 0 };
            assert!(Instant::now() < until, "places are kept: {}", seen.status);
        }
    }
);
