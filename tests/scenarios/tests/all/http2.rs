//! HTTP/2 on both sides: prior knowledge at the client, and an origin that speaks it.

use edgeweir_scenarios::{
    Edge, Filter, Host, Origin, Setup, cache, compress, edge as in_one, get, http2, minify,
    on_each_host, request,
};
use serde_json::{Value, json};

fn three() -> [Filter; 3] {
    [cache(json!({})), compress(json!({})), minify(json!({}))]
}

fn three_in_one() -> [Filter; 1] {
    [in_one(
        json!({ "filters": ["cache", "compress", "minify"] }),
    )]
}

fn on_the_wire(filters: impl IntoIterator<Item = Filter>) -> Setup {
    Setup::of(filters).except(Host::Pure, "it has no connections")
}

fn short(body: &str) -> String {
    let value: Value = serde_json::from_str(body).expect("the document is JSON");
    value.to_string()
}

/// Forty streams on one connection, with lengths and without, each coding.
fn side_by_side(edge: &Edge) {
    let address = edge.address().expect("not the pure contract");
    for (size, cut) in [(900, 100), (40_000, 7_001), (700_000, 60_000)] {
        let body = super::document(size);
        let want = short(&body);
        for origin in [
            Origin::json("").cut_into(&body, cut),
            Origin::json("").cut_into(&body, cut).chunked(),
        ] {
            edge.origin_does(&origin);
            let all: Vec<_> = ["gzip", "br", "deflate", "identity"]
                .iter()
                .cycle()
                .take(40)
                .map(|accepts| (get("/a").field("accept-encoding", accepts), edge.path("/a")))
                .collect();
            let seen = http2::together(address, &all).expect("answers");
            for (seen, (asks, _)) in seen.iter().zip(&all) {
                assert!(
                    seen.status == 200 && seen.complete,
                    "{} {:?}",
                    seen.status,
                    asks.fields
                );
                assert!(
                    seen.decoded() == want.as_bytes(),
                    "{size} B as {:?}",
                    seen.text("content-encoding")
                );
            }
        }
    }
}

on_each_host!(
    streams_side_by_side_to_an_http1_origin,
    on_the_wire(three_in_one()),
    |edge| { side_by_side(edge) }
);

on_each_host!(
    streams_side_by_side_to_an_http2_origin,
    on_the_wire(three_in_one()).http2_origin(),
    |edge| { side_by_side(edge) }
);

on_each_host!(
    streams_side_by_side_through_three_modules,
    on_the_wire(three()).http2_origin(),
    |edge| { side_by_side(edge) }
);

on_each_host!(
    five_megabytes_both_ways_on_http2,
    on_the_wire(three_in_one()).http2_origin(),
    |edge| {
        let address = edge.address().expect("not the pure contract");
        let up = super::noise(5_000_000);
        let down = super::document(5_000_000);
        let origin = Origin::json("")
            .cut_into(&down, 99_991)
            .chunked()
            .trailer("x-checked", "yes");
        edge.origin_does(&origin);
        let asks = request("POST", "/a")
            .field("accept-encoding", "identity")
            .field("te", "trailers")
            .pieces(up.chunks(1_000_000));
        let seen = http2::exchange(address, &asks, &edge.path("/a")).expect("an answer");
        assert_eq!(seen.status, 200);
        assert!(seen.complete && seen.body == short(&down).as_bytes());
        assert_eq!(seen.trailer("x-checked"), "yes");
        let received = edge.received();
        assert_eq!(received.len(), 1);
        assert!(received[0].body == up, "{} bytes", received[0].body.len());
    }
);

// RFC 9113 §8.2.3: crumbs of cookies are put together before they go to an HTTP/1.1 connection.
on_each_host!(
    cookies_in_crumbs_reach_the_origin_as_one_line,
    on_the_wire(three_in_one()).except(Host::Spin, "it puts nothing together"),
    |edge| {
        let address = edge.address().expect("not the pure contract");
        edge.origin_does(&Origin::text("ok"));
        let asks = get("/a").field("cookie", "a=1").field("cookie", "b=2");
        let seen = http2::exchange(address, &asks, &edge.path("/a")).expect("an answer");
        assert_eq!(seen.status, 200);
        let received = edge.received();
        assert_eq!(received[0].text("cookie"), "a=1; b=2");
    }
);
