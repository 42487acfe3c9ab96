//! Exchanges of a filter that reads no heads: what it is given, and what that costs.

use edgeweir_filter::{
    Body, Chain, Cx, Emergency, Exchange, Filter, Reply, RequestHead, ResponseHead, Step, Wants,
};

use super::{HOST, done, host, owned};
use crate::vm::{self, Module};

const ROOT: u32 = 1;

/// Admits a client, unless there is an emergency; sets a field of every response.
struct Admit;

impl Filter for Admit {
    fn name(&self) -> &'static str {
        "admit"
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Self)
    }
    fn wants(&self) -> Wants {
        Wants {
            peer: true,
            emergency: true,
            blind_request: true,
            blind_response: true,
            ..Wants::default()
        }
    }
}

impl Exchange for Admit {
    fn request(&mut self, head: &mut RequestHead, _: &mut Cx<'_>) -> Step {
        assert_eq!(head.peer.as_deref(), Some(&b"192.0.2.1"[..]));
        assert!(head.path.is_empty() && head.method.is_empty());
        match head.emergency.level() {
            0 => Step::Forward(Body::Pass),
            _ => Step::Reply(Reply::new(429, &[], "no")),
        }
    }
    fn response(&mut self, head: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
        head.fields.set("x-admitted", "yes");
        head.fields.append("x-by", "us");
        Step::Forward(Body::Pass)
    }
}

/// One exchange; what the host was asked and told to do.
fn exchange(id: u32, method: &str, emergency: &str) -> (Vec<&'static str>, Vec<String>) {
    vm::create(id, ROOT);
    let lines = [
        (":method", method),
        (":path", "/"),
        ("edgeweir-emergency", emergency),
    ];
    host(|host| {
        host.maps.insert(0, owned(&lines));
        host.maps.insert(
            2,
            owned(&[(":status", "200"), ("x-admitted", "by the origin")]),
        );
        host.calls.clear();
    });
    done();
    vm::stream(id, |stream| stream.on_request(true));
    vm::stream(id, |stream| stream.on_response(true));
    vm::delete(id);
    (host(|host| std::mem::take(&mut host.calls)), done())
}

fn begin(variables: &[&'static str]) {
    HOST.take();
    host(|host| host.variables = variables.to_vec());
    vm::install(Module {
        name: "admit",
        load: |_| Ok(Chain::of(Admit)),
    });
    vm::delete(ROOT);
    vm::create(ROOT, 0);
    assert!(vm::configure(ROOT, 0));
    exchange(2, "GET", "0");
}

#[test]
fn a_filter_that_reads_no_heads_costs_no_copy_of_them() {
    begin(&[]);
    let (calls, _) = exchange(3, "GET", "0");
    assert_eq!(
        calls,
        [
            "proxy_get_current_time_nanoseconds",
            "proxy_get_property",
            "proxy_replace_header_map_value",
            "proxy_add_header_map_value",
        ]
    );
}

#[test]
fn a_field_raises_the_level_of_a_request_that_is_not_read() {
    begin(&[Emergency::HEEDED]);
    let (calls, told) = exchange(3, "GET", "2");
    assert!(calls.contains(&"proxy_send_local_response"), "{calls:?}");
    assert!(told.iter().any(|what| what.contains("429")), "{told:?}");
}

#[test]
fn a_clients_field_raises_nothing() {
    begin(&[]);
    let (calls, told) = exchange(3, "GET", "3");
    assert!(!calls.contains(&"proxy_send_local_response"), "{calls:?}");
    assert!(!told.iter().any(|what| what.contains("429")), "{told:?}");
}
