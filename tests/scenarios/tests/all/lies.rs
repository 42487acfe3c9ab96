//! Origins that trickle, stop, or say another length than they send: what passes is true, and nobody else suffers.

use std::time::Duration;

use edgeweir_scenarios::{
    Edge, Filter, Host, Origin, Setup, compress, edge as in_one, get, http2, minify, on_each_host,
};
use serde_json::{Value, json};

fn two() -> [Filter; 2] {
    [compress(json!({})), minify(json!({}))]
}

fn two_in_one() -> [Filter; 1] {
    [in_one(json!({ "filters": ["compress", "minify"] }))]
}

fn on_the_wire(filters: impl IntoIterator<Item = Filter>) -> Setup {
    Setup::of(filters).except(Host::Pure, "a length that is wrong is a matter of the wire")
}

fn short(body: &str) -> String {
    let value: Value = serde_json::from_str(body).expect("the document is JSON");
    value.to_string()
}

/// Whatever came as whole is whole, and the next exchange is as ever.
fn says_true(edge: &mut Edge, name: &str, origin: &Origin, whole: &[&str]) {
    for accepts in ["gzip", "br", "identity"] {
        let asks = get("/a").field("accept-encoding", accepts);
        if let Ok(seen) = edge.try_send(&asks, origin)
            && seen.complete
            && seen.status < 500
        {
            let body = String::from_utf8_lossy(&seen.decoded()).into_owned();
            assert!(
                whole.contains(&body.as_str()),
                "{name}, {accepts}: {} bytes came as a whole body: {:?} …",
                body.len(),
                body.get(..60)
            );
        }
        let good = super::document(3_000);
        let next = edge.send(&asks, &Origin::json(&good));
        assert_eq!(next.status, 200, "{name}, {accepts}");
        assert!(
            next.complete && next.decoded() == short(&good).as_bytes(),
            "{name}, {accepts}: the next one suffers"
        );
    }
}

/// Lengths that are no lengths of what comes.
fn lies(edge: &mut Edge) {
    for size in [2_000, 60_000, 150_000] {
        let body = super::document(size);
        let minified = short(&body);
        let too_long = Origin::json("")
            .cut_into(&body, 9_000)
            .field("content-length", (body.len() + 500).to_string())
            .cut();
        says_true(edge, "declares more than it sends", &too_long, &[]);
        // RFC 9112 §6.3: the length is what the field says; what comes after is no part of this response. A body that ends
        // there is no JSON: it goes on as far as it is, and what was minified of it stays so.
        let cut = &body[..body.len() - 700];
        let too_short = Origin::json("")
            .cut_into(&body, 9_000)
            .field("content-length", cut.len().to_string())
            .cut();
        let as_sent = [cut.to_owned(), minified.clone()];
        for accepts in ["gzip", "identity"] {
            let asks = get("/a").field("accept-encoding", accepts);
            let Ok(seen) = edge.try_send(&asks, &too_short) else {
                continue;
            };
            if seen.complete && seen.status < 500 {
                let decoded = String::from_utf8_lossy(&seen.decoded()).into_owned();
                let squeezed = |text: &str| text.split_whitespace().collect::<String>();
                assert!(
                    as_sent
                        .iter()
                        .any(|sent| squeezed(sent) == squeezed(&decoded)),
                    "declares less than it sends, {size} B, {accepts}: {} bytes",
                    decoded.len()
                );
            }
        }
        says_true(
            edge,
            "after one that declared less",
            &Origin::json(&body),
            &[&minified],
        );
    }
}

on_each_host!(
    a_length_that_is_a_lie_harms_nobody_through_two_modules,
    on_the_wire(two()),
    |edge| { lies(edge) }
);

on_each_host!(
    a_length_that_is_a_lie_harms_nobody_through_two_in_one,
    on_the_wire(two_in_one()),
    |edge| { lies(edge) }
);

on_each_host!(
    a_length_that_is_a_lie_harms_nobody_on_http2,
    on_the_wire(two_in_one()).http2_origin(),
    |edge| { lies(edge) }
);

on_each_host!(a_trickle_comes_whole, Setup::of(two()), |edge| {
    let body = super::document(1_500);
    let want = short(&body);
    for (name, origin) in [
        ("with a length", Origin::json("").cut_into(&body, 7)),
        ("in chunks", Origin::json("").cut_into(&body, 7).chunked()),
        (
            "to the end of the connection",
            Origin::json("").cut_into(&body, 7).until_close(),
        ),
    ] {
        let origin = origin.pause(Duration::from_millis(1));
        for accepts in ["gzip", "br", "deflate", "identity"] {
            let seen = edge.send(&get("/a").field("accept-encoding", accepts), &origin);
            assert!(seen.complete, "{name}, {accepts}");
            assert_eq!(
                String::from_utf8_lossy(&seen.decoded()),
                want,
                "{name}, {accepts}"
            );
        }
    }
});

on_each_host!(
    a_stream_that_is_reset_in_the_middle_has_no_end,
    on_the_wire(two_in_one()).http2_origin(),
    |edge| {
        let body = super::document(400_000);
        let address = edge.address().expect("not the pure contract");
        for size in [100, 20_000, 300_000] {
            let origin = Origin::json("")
                .cut_into(&body[..size], 16_000)
                .chunked()
                .cut();
            says_true(edge, "reset", &origin, &[]);
            edge.origin_does(&origin);
            for accepts in ["gzip", "identity"] {
                let asks = get("/a").field("accept-encoding", accepts);
                let seen = http2::exchange(address, &asks, &edge.path("/a")).expect("an answer");
                assert!(
                    !seen.complete || seen.status >= 500,
                    "{accepts}: {} bytes of a reset stream came as a whole body",
                    seen.body.len()
                );
            }
        }
    }
);

// RFC 9112 §6.3: both might be an attempt at response splitting, and ought to be handled as an error.
on_each_host!(
    two_lengths_at_once_are_no_response,
    on_the_wire(two()).except(Host::Spin, "what it takes of an origin is its own"),
    |edge| {
        let body = super::document(3_000);
        for length in [5, body.len()] {
            let origin = Origin::json(&body)
                .chunked()
                .field("transfer-encoding", "chunked")
                .field("content-length", length.to_string());
            for accepts in ["gzip", "identity"] {
                let asks = get("/a").field("accept-encoding", accepts);
                let seen = edge.send(&asks, &origin);
                assert_eq!(seen.status, 502, "{length}, {accepts}");
                let good = edge.send(&asks, &Origin::json(&body));
                assert!(good.status == 200 && good.complete, "{length}, {accepts}");
            }
        }
    }
);
