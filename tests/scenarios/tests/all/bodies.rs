//! Messages as they come: bodies in any form, any bytes in fields, ends that are no ends.

use std::time::Duration;

use edgeweir_scenarios::{Host, Origin, Setup, client::Client, get, on_each_host, request};

use super::chain::{four, one};

on_each_host!(a_request_body_arrives_whole, Setup::of(four()), |edge| {
    let body = super::noise(40_000);
    for (name, asks) in [
        ("in one piece", request("POST", "/a").body(&body)),
        (
            "with a length, in pieces",
            request("PUT", "/a").pieces(body.chunks(3_001)),
        ),
        (
            "in chunks",
            request("POST", "/a").pieces(body.chunks(3_001)).chunked(),
        ),
        (
            "in chunks of one byte",
            request("POST", "/a").pieces(body[..50].chunks(1)).chunked(),
        ),
    ] {
        let want = asks.body.concat();
        let seen = edge.send(&asks, &Origin::text("thanks"));
        assert_eq!(
            (seen.status, seen.body_text().as_str()),
            (200, "thanks"),
            "{name}"
        );
        assert!(
            seen.asked().body == want,
            "{name}: {} bytes of {}",
            seen.asked().body.len(),
            want.len()
        );
    }
});

on_each_host!(five_megabytes_go_up, Setup::of(four()), |edge| {
    let body = super::noise(5_000_000);
    for asks in [
        request("POST", "/a").pieces(body.chunks(1_000_000)),
        request("POST", "/a").pieces(body.chunks(300_007)).chunked(),
    ] {
        let seen = edge.send(&asks, &Origin::text("thanks"));
        assert_eq!(seen.status, 200);
        assert!(
            seen.asked().body == body,
            "{} bytes",
            seen.asked().body.len()
        );
    }
});

on_each_host!(
    five_megabytes_come_down_the_chain,
    Setup::of(one()),
    |edge| {
        let body = super::document(5_000_000);
        let value: serde_json::Value = serde_json::from_str(&body).expect("the document is JSON");
        for origin in [
            Origin::json(&body),
            Origin::json("").cut_into(&body, 99_991).chunked(),
        ] {
            let seen = edge.send(&get("/a").field("accept-encoding", "gzip"), &origin);
            assert!(seen.complete);
            assert!(seen.decoded() == value.to_string().as_bytes());
        }
    }
);

on_each_host!(
    values_that_are_no_text_pass,
    Setup::of(four()).except(Host::Pure, "its script speaks text only"),
    |edge| {
        let value = b"caf\xe9 \xff\x80";
        let origin = Origin::json("{ \"a\" : 1 }")
            .field("x-answer", value)
            .field("cache-control", "max-age=60");
        for _ in 0..3 {
            let seen = edge.send(&get("/a").field("x-asked", value), &origin);
            assert_eq!((seen.status, seen.body_text().as_str()), (200, "{\"a\":1}"));
            let back = seen.fields.iter().find(|(name, _)| name == "x-answer");
            assert_eq!(back.map(|(_, value)| &value[..]), Some(&value[..]));
            if let [asked] = &seen.upstream[..] {
                let there = asked.fields.iter().find(|(name, _)| name == "x-asked");
                assert_eq!(there.map(|(_, value)| &value[..]), Some(&value[..]));
            }
            std::thread::sleep(Duration::from_millis(60));
        }
    }
);

on_each_host!(
    a_folded_value_adds_no_field,
    Setup::of(four()).except(Host::Pure, "there is no wire to fold a line on"),
    |edge| {
        let folded = Origin::text("x").field("x-folded", b"a\r\n set-cookie: stolen=1");
        // RFC 9112 §5.2: a proxy rejects the message with 502 or replaces the fold with spaces.
        if let Ok(seen) = edge.try_send(&get("/a"), &folded) {
            assert!(!seen.has("set-cookie"), "{:?}", seen.fields);
            assert!(matches!(seen.status, 200 | 502 | 503), "{}", seen.status);
        }
    }
);

on_each_host!(
    many_field_lines_keep_their_order,
    Setup::of(four()),
    |edge| {
        let mut origin = Origin::text("x");
        let mut asks = get("/a");
        for at in 0..60 {
            origin = origin.field("x-line", format!("out {at}"));
            asks = asks.field(&format!("x-in-{at}"), format!("in {at}"));
        }
        let seen = edge.send(&asks, &origin);
        let want: Vec<String> = (0..60).map(|at| format!("out {at}")).collect();
        assert_eq!(seen.text("x-line"), want.join(", "));
        for at in 0..60 {
            assert_eq!(seen.asked().text(&format!("x-in-{at}")), format!("in {at}"));
        }
    }
);

on_each_host!(
    an_origin_that_closes_in_the_middle_is_no_end,
    Setup::of(four()),
    |edge| {
        let body = super::document(60_000);
        for (name, origin) in [
            (
                "with a length",
                Origin::json("").cut_into(&body, 10_000).cut(),
            ),
            (
                "in chunks",
                Origin::json("").cut_into(&body, 10_000).chunked().cut(),
            ),
        ] {
            let origin = origin
                .field("cache-control", "max-age=60")
                .pause(Duration::from_millis(5));
            for accepts in ["gzip", "identity"] {
                if let Ok(seen) =
                    edge.try_send(&get("/a").field("accept-encoding", accepts), &origin)
                {
                    assert!(
                        !seen.complete || seen.status >= 500,
                        "{name}, {accepts}: a cut body came as a whole one"
                    );
                }
            }
            let whole = Origin::json(&body).field("cache-control", "max-age=60");
            let next = edge.send(&get("/a"), &whole);
            assert!(
                next.complete && next.status == 200,
                "{name}: nothing of the cut one may be kept"
            );
            assert_eq!(
                next.upstream.len(),
                1,
                "{name}: {}",
                next.text("cache-status")
            );
            edge.send(&request("DELETE", "/a"), &Origin::status(204));
        }
    }
);

on_each_host!(
    a_client_that_leaves_costs_its_own_exchange,
    Setup::of(four()).except(Host::Pure, "there is no client to leave"),
    |edge| {
        let body = super::noise(400_000);
        let slow = Origin::text("")
            .cut_into(&body, 20_000)
            .chunked()
            .field("cache-control", "max-age=60")
            .pause(Duration::from_millis(20));
        edge.origin_does(&slow);
        let address = edge.address().expect("not the pure contract");
        for when in ["before the response", "in the body"] {
            for _ in 0..4 {
                let mut client = Client::connect(address).expect("connects");
                client
                    .send(
                        &get("/a").field("accept-encoding", "gzip"),
                        &edge.path("/a"),
                    )
                    .expect("asks");
                if when == "in the body" {
                    let head = client.receive_head().expect("a head");
                    assert_eq!(head.status, 200);
                    client.read_some().expect("some of the body");
                }
                client.leave();
            }
        }
        let asks = get("/a").field("accept-encoding", "gzip");
        let seen = edge.send(
            &asks,
            &Origin::text(&body).field("cache-control", "max-age=60"),
        );
        assert!(
            seen.complete && seen.decoded() == body,
            "the next client gets {} bytes",
            seen.body.len()
        );
    }
);
