//! Server-sent events stay live: an event is with the client, decoded, before the origin sends the next one.
//!
//! No clock decides here. The origin holds each event back until the client has decoded the one before and confirmed it
//! on another channel; a filter that keeps a byte of an event to itself stops both, and the origin cuts the connection.

use std::io::Write as _;

use edgeweir_scenarios::client::Client;
use edgeweir_scenarios::lockstep::Confirmed;
use edgeweir_scenarios::{
    Edge, Host, Origin, Setup, cache, compress, edge as in_one, get, minify, on_each_host,
};
use serde_json::json;

/// A decoder that gives what it can of what it got.
enum Decoder {
    Plain(Vec<u8>),
    Gzip(Box<flate2::write::GzDecoder<Vec<u8>>>),
    Deflate(Box<flate2::write::ZlibDecoder<Vec<u8>>>),
    Brotli(Box<brotli::DecompressorWriter<Vec<u8>>>),
}

impl Decoder {
    fn of(coding: &str) -> Self {
        match coding {
            "gzip" => Self::Gzip(Box::new(flate2::write::GzDecoder::new(Vec::new()))),
            "deflate" => Self::Deflate(Box::new(flate2::write::ZlibDecoder::new(Vec::new()))),
            "br" => Self::Brotli(Box::new(brotli::DecompressorWriter::new(Vec::new(), 4_096))),
            _ => Self::Plain(Vec::new()),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> &[u8] {
        match self {
            Self::Plain(out) => {
                out.extend_from_slice(bytes);
                out
            }
            Self::Gzip(decoder) => {
                decoder.write_all(bytes).expect("gzip decodes");
                decoder.flush().expect("gzip gives what it has");
                decoder.get_ref()
            }
            Self::Deflate(decoder) => {
                decoder.write_all(bytes).expect("deflate decodes");
                decoder.flush().expect("deflate gives what it has");
                decoder.get_ref()
            }
            Self::Brotli(decoder) => {
                decoder.write_all(bytes).expect("br decodes");
                decoder.flush().expect("br gives what it has");
                decoder.get_ref()
            }
        }
    }
}

/// Events as an API sends them, of very different sizes; JSON in one is no JSON document.
fn events() -> Vec<String> {
    (0..12)
        .map(|at| {
            let value = json!({ "at": at, "text": "x".repeat(at * at * 7) });
            let value = serde_json::to_string(&value).unwrap_or_default();
            format!("id: {at}\ndata: {value}  \n\n")
        })
        .collect()
}

fn lines() -> Vec<String> {
    (0..12)
        .map(|at| {
            format!(
                "{{ \"at\" : {at}, \"text\" : \"{}\" }}\n",
                "x ".repeat(at * 9)
            )
        })
        .collect()
}

/// Sends each piece after the client confirmed the ones before; `want` is what the client is to have by then.
fn in_step(edge: &Edge, media: &str, sent: &[String], want: &[String], codings: &[&str]) {
    // The pure contract has no wire: its filters are asked for a flush with every call, which their own tests hold.
    let Some(address) = edge.address() else {
        return;
    };
    for coding in codings {
        let confirmed = Confirmed::default();
        let origin = Origin::ok(media, "")
            .pieces(sent)
            .chunked()
            .in_lockstep(&confirmed);
        edge.origin_does(&origin);
        let mut client = Client::connect(address).expect("connects");
        let asks = get("/events").field("accept-encoding", coding);
        client.send(&asks, &edge.path("/events")).expect("asks");
        let head = client.receive_head().expect("a head");
        assert_eq!(head.status, 200);
        assert_eq!(head.text("content-encoding"), *coding, "{media}");
        let mut decoder = Decoder::of(coding);
        let mut expected = String::new();
        for (at, piece) in want.iter().enumerate() {
            expected.push_str(piece);
            loop {
                let bytes = client.chunk().expect("the stream goes on");
                let bytes = bytes.unwrap_or_else(|| panic!("{coding}: it ended before piece {at}"));
                let decoded = decoder.push(&bytes);
                assert!(
                    expected.as_bytes().starts_with(decoded),
                    "{coding}: other bytes in piece {at}"
                );
                if decoded.len() == expected.len() {
                    break;
                }
            }
            confirmed.confirm();
        }
        while let Some(bytes) = client.chunk().expect("the stream ends") {
            let decoded = decoder.push(&bytes);
            assert_eq!(
                decoded.len(),
                expected.len(),
                "{coding}: more than was sent"
            );
        }
    }
}

const CODINGS: [&str; 4] = ["gzip", "br", "deflate", ""];

fn three() -> [edgeweir_scenarios::Filter; 3] {
    [cache(json!({})), compress(json!({})), minify(json!({}))]
}

fn three_in_one() -> [edgeweir_scenarios::Filter; 1] {
    [in_one(
        json!({ "filters": ["cache", "compress", "minify"] }),
    )]
}

fn on_the_wire(filters: impl IntoIterator<Item = edgeweir_scenarios::Filter>) -> Setup {
    Setup::of(filters).except(Host::Pure, "there is no wire to be in step on")
}

on_each_host!(
    events_come_in_step_through_three_modules,
    on_the_wire(three()),
    |edge| { in_step(edge, "text/event-stream", &events(), &events(), &CODINGS) }
);

on_each_host!(
    events_come_in_step_through_three_in_one,
    on_the_wire(three_in_one()),
    |edge| { in_step(edge, "text/event-stream", &events(), &events(), &CODINGS) }
);

on_each_host!(
    events_of_an_http2_origin_come_in_step,
    on_the_wire(three_in_one()).http2_origin(),
    |edge| {
        in_step(
            edge,
            "text/event-stream; charset=utf-8",
            &events(),
            &events(),
            &CODINGS,
        )
    }
);

on_each_host!(
    lines_of_json_come_in_step_and_minified,
    on_the_wire(three_in_one()),
    |edge| {
        let want: Vec<String> = lines()
            .iter()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
                format!("{value}\n")
            })
            .collect();
        in_step(
            edge,
            "application/x-ndjson",
            &lines(),
            &want,
            &["gzip", "br", ""],
        );
    }
);
