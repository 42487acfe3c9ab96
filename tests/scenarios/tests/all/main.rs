//! The scenarios: each on every host.

#![allow(missing_docs, reason = "the names of the scenarios say what they hold")]

mod agreement;
mod agreement_routes;
mod attacks;
mod bodies;
mod cache;
mod cache_fleet;
mod cache_load;
mod cache_load_reload;
mod cache_routes;
mod cache_tiers;
mod cases;
mod chain;
mod collapsing;
mod compress;
mod compress_decode;
mod compress_policy;
mod compress_same;
mod configuration;
mod connections;
mod envoy_files;
mod events;
mod examples;
mod http2;
mod kubernetes;
mod layering;
mod lies;
mod limits;
mod limits_faults;
mod limits_global;
mod limits_load;
mod merged;
mod minify;
mod minify_rules;
mod operate;
mod purge;
mod ratelimit;
mod refresh;
mod requirements;
mod streams;

use serde_json::{Value, json};

/// A JSON document in its long form, of about `bytes` bytes, with what makes minifying hard: escapes, big numbers,
/// text outside ASCII.
fn document(bytes: usize) -> String {
    let entry = json!({
        "id": 9_007_199_254_740_993_u64,
        "name": "Straße \"Nine\" \\ \u{1F300}",
        "tags": ["  two  spaces ", "line\nbreak", ""],
        "price": 12.50,
        "nested": { "deep": { "deeper": [[], {}, null, true, false] } }
    });
    let one = serde_json::to_string_pretty(&entry)
        .unwrap_or_default()
        .len()
        + 60;
    let entries: Vec<&Value> = std::iter::repeat_n(&entry, (bytes / one).max(1)).collect();
    serde_json::to_string_pretty(&json!({ "entries": entries })).unwrap_or_default()
}

/// Bytes that do not compress away and differ everywhere, so that a lost or doubled piece shows.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b"abcdefghijklmnopqrstuvwxyz012345"[(state % 32) as usize]
        })
        .collect()
}
