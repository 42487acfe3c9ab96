//! What ships codes as what the compiler made, byte for byte, although `cargo edge build` takes functions and a table out of it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cargo_edge::artifact::{Artifact, Flavour, Kind};
use cargo_edge::build::compiled;
use edgeweir_compress::Dictionary;
use edgeweir_host_chain::{Error, Layer, Next, Request, Response, empty};
use edgeweir_host_proxy_wasm::{Plugin, Runtime, RuntimeOptions, load};
use edgeweir_scenarios::hosts::modules;
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::{Value, json};

const COMPRESS: Artifact = Artifact {
    name: "compress",
    kind: Kind::ProxyWasm,
    flavour: Flavour::Usual,
};

type Lines<'a> = &'a [(&'a str, &'a str)];

/// What the origin answers next.
#[derive(Clone, Default)]
struct Origin(Arc<Mutex<Answer>>);

#[derive(Clone, Default)]
struct Answer {
    body: Bytes,
    pieces: usize,
    is_declared: bool,
    fields: Vec<(String, String)>,
}

struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

#[async_trait]
impl Layer for Origin {
    fn name(&self) -> &str {
        "origin"
    }

    async fn handle(&self, _: Request, _: Next) -> Result<Response, Error> {
        let answer = self.0.lock().expect("nothing failed here").clone();
        let mut response = http::Response::builder().header("content-type", "text/html");
        if answer.is_declared {
            response = response.header("content-length", answer.body.len());
        }
        for (name, value) in &answer.fields {
            response = response.header(name, value);
        }
        let chunks = answer.body.chunks(answer.pieces);
        let pieces = chunks.map(|chunk| answer.body.slice_ref(chunk)).collect();
        Ok(response.body(Pieces(pieces).boxed_unsync())?)
    }
}

/// The module that ships and the one that was compiled, behind one origin.
struct Both {
    edges: [Next; 2],
    origin: Origin,
}

impl Both {
    async fn new(config: &Value) -> Self {
        let ships = modules()
            .expect("the modules build")
            .join(COMPRESS.file_name());
        let runtime = Runtime::new(RuntimeOptions::default()).expect("a runtime");
        let origin = Origin::default();
        let mut edges = Vec::new();
        for module in [ships, compiled(&COMPRESS)] {
            let mut plugin = Plugin::new("compress", module);
            plugin.configuration = config.to_string().into_bytes();
            plugin.instances = 1;
            let layer = load(&runtime, plugin).await.expect("it loads");
            edges.push(Next::new(vec![layer, Arc::new(origin.clone())]));
        }
        let edges = edges.try_into().unwrap_or_else(|_| unreachable!("two"));
        Self { edges, origin }
    }

    /// Asks both for a path; they answer the same.
    async fn ask(&self, path: &str, asks: Lines<'_>, coding: &str) {
        let mut answers = Vec::new();
        for edge in &self.edges {
            let mut request = http::Request::builder().uri(path).header("host", "front");
            for (name, value) in asks {
                request = request.header(*name, *value);
            }
            let request = request.body(empty()).expect("a request");
            let answer = edge.clone().run(request).await.expect(path);
            let got = answer.headers().get("content-encoding");
            let got = got
                .map_or("", |it| it.to_str().expect("a token"))
                .to_owned();
            let body = answer.into_body().collect().await.expect(path).to_bytes();
            assert_eq!(got, coding, "{path}");
            answers.push(body);
        }
        assert!(answers[0] == answers[1], "{path}: the bytes differ");
    }

    fn answers(&self, body: &Bytes, pieces: usize, is_declared: bool, fields: Lines<'_>) {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        *self.origin.0.lock().expect("nothing failed here") = Answer {
            body: body.clone(),
            pieces,
            is_declared,
            fields: fields.collect(),
        };
    }
}

/// Text of few letters that comes again, with what never does in between: some strings near, some as far away as there is room.
fn text(bytes: usize) -> Bytes {
    let document = super::document(bytes / 2).into_bytes();
    let noise = super::noise(bytes);
    let mixed = document.chunks(700).zip(noise.chunks(90)).cycle();
    let mixed = mixed.flat_map(|(text, noise)| [text, noise].concat());
    mixed.take(bytes).collect()
}

/// Every level, with a rule for its path.
fn levels(windows: &[u32]) -> Vec<(&'static str, u32, String, Value)> {
    let mut all = Vec::new();
    for (coding, option, levels) in [
        ("br", "brotli_level", 0..=11),
        ("zstd", "zstd_level", 1..=4),
        ("gzip", "gzip_level", 1..=9),
        ("deflate", "deflate_level", 1..=9),
    ] {
        for level in levels {
            let windows = if option.starts_with(['g', 'd']) {
                &windows[..1]
            } else {
                windows
            };
            for window in windows {
                let path = format!("/{coding}/{level}/{window}");
                let rule = json!({ "path": path, option: level, "brotli_window_bits": window });
                all.push((coding, level, path, rule));
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_level_window_and_length_codes_as_before_it_was_made_smaller() {
    let all = levels(&[20, 17, 24]);
    let rules: Vec<&Value> = all.iter().map(|(.., rule)| rule).collect();
    let config = json!({ "rules": rules, "min_bytes": 1, "max_ratio_percent": 100 });
    let both = Both::new(&config).await;
    let bodies = [
        text(600_000),
        super::noise(140_000).into(),
        vec![b'a'; 300_000].into(),
    ];
    for (coding, level, path, _) in &all {
        // What differs by window is far away.
        let bodies = if path.ends_with("/20") {
            &bodies[..]
        } else {
            &bodies[..1]
        };
        for body in bodies {
            // Tables of zstd have the size that a body needs; counts of brotli are in blocks of 64 KiB.
            for length in [
                300, 3_000, 9_000, 15_000, 30_000, 62_000, 130_000, 270_000, 600_000,
            ] {
                let is_slow = *coding == "br" && *level > 8;
                if length > body.len() || (is_slow && length > 130_000) {
                    continue;
                }
                let body = body.slice(..length);
                for (pieces, is_declared) in [(length, true), (16_384, true), (4_099, false)] {
                    if pieces == 4_099 && length > 62_000 {
                        continue;
                    }
                    both.answers(&body, pieces, is_declared, &[]);
                    both.ask(path, &[("accept-encoding", *coding)], coding)
                        .await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_dictionaries_too() {
    let all = levels(&[20]);
    let rules: Vec<&Value> = all.iter().map(|(.., rule)| rule).collect();
    let config = json!({
        "rules": rules, "min_bytes": 1, "max_ratio_percent": 100,
        "dictionaries": { "plain_http": true },
    });
    let both = Both::new(&config).await;
    for held in [2_000, 60_000, 700_000] {
        let dictionary = text(held);
        let fields = [
            ("cache-control", "max-age=3600"),
            ("use-as-dictionary", "match=\"/*\""),
        ];
        both.answers(&dictionary, 50_000, true, &fields);
        both.ask("/dictionary", &[("accept-encoding", "gzip")], "gzip")
            .await;
        let name = BASE64_STANDARD.encode(Dictionary::new(dictionary.to_vec()).sha256());
        let name = format!(":{name}:");
        for (coding, _, path, _) in &all {
            let with = match *coding {
                "br" => "dcb",
                "zstd" => "dcz",
                _ => continue,
            };
            let asks = [
                ("accept-encoding", with),
                ("available-dictionary", name.as_str()),
            ];
            for length in [1_500, 20_000, 200_000] {
                for (pieces, is_declared) in [(length, true), (4_099, false)] {
                    both.answers(&text(length), pieces, is_declared, &[]);
                    both.ask(path, &asks, with).await;
                }
            }
        }
    }
}
