//! Many at once, and methods nobody knows.

use std::time::Duration;

use edgeweir_scenarios::{Host, Origin, Setup, client::Client, get, on_each_host, request};

use super::chain::four;

on_each_host!(
    a_thousand_connections_at_once,
    Setup::of(four()).except(Host::Pure, "there are no connections"),
    |edge| {
        let body = super::document(2_000);
        let origin = Origin::json(&body)
            .field("cache-control", "no-store")
            .delay(Duration::from_millis(100));
        edge.origin_does(&origin);
        let address = edge.address().expect("not the pure contract");
        let mut clients = Vec::new();
        for at in 0..1_000 {
            let mut client =
                Client::connect(address).unwrap_or_else(|error| panic!("connection {at}: {error}"));
            let asks = get("/a")
                .field("accept-encoding", "gzip")
                .field("x-client", at.to_string());
            client
                .send(&asks, &edge.path("/a"))
                .unwrap_or_else(|error| panic!("request {at}: {error}"));
            clients.push(client);
        }
        let want: serde_json::Value = serde_json::from_str(&body).expect("the document is JSON");
        for (at, client) in clients.iter_mut().enumerate() {
            let seen = client
                .receive(false)
                .unwrap_or_else(|error| panic!("response {at}: {error}"));
            assert_eq!((seen.status, seen.complete), (200, true), "response {at}");
            assert_eq!(seen.json(), want, "response {at}");
        }
        assert_eq!(edge.received().len(), 1_000);
    }
);

on_each_host!(
    one_connection_serves_many_requests,
    Setup::of(four()).except(Host::Pure, "there are no connections"),
    |edge| {
        edge.origin_does(&Origin::json("{ \"a\" : 1 }").chunked());
        let mut client =
            Client::connect(edge.address().expect("not the pure contract")).expect("connects");
        for at in 0..50 {
            client
                .send(&get("/a"), &edge.path(&format!("/{at}")))
                .expect("asks");
            let seen = client
                .receive(false)
                .unwrap_or_else(|error| panic!("response {at}: {error}"));
            assert_eq!(
                (seen.status, seen.body_text().as_str()),
                (200, "{\"a\":1}"),
                "response {at}"
            );
        }
    }
);

on_each_host!(a_method_nobody_knows_passes, Setup::of(four()), |edge| {
    for method in ["BREW", "PROPFIND", "PATCH"] {
        let seen = edge.send(&request(method, "/a").body("x"), &Origin::text("tea"));
        assert_eq!(
            (seen.status, seen.body_text().as_str()),
            (200, "tea"),
            "{method}"
        );
        assert_eq!(
            (seen.asked().method.as_str(), &seen.asked().body[..]),
            (method, &b"x"[..])
        );
    }
});
