//! What is measured against what.

use serde_json::{Value, json};

/// A proxy under load.
#[derive(Clone, Debug)]
pub enum Proxy {
    /// Envoy with HTTP filters of its own, by their configuration.
    Native(Vec<Value>),
    /// Envoy with our modules, by name and configuration.
    Envoy(Vec<(&'static str, Value)>),
    /// The host with our modules.
    Modules(Vec<(&'static str, Value)>),
    /// The host with our components.
    Components(Vec<(&'static str, Value)>),
    /// nginx with its `proxy_cache`.
    Nginx,
    /// Varnish.
    Varnish,
}

impl Proxy {
    /// Whether it is the host of this project.
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Modules(_) | Self::Components(_))
    }

    /// The program it needs that not every machine has.
    pub fn program(&self) -> Option<&'static str> {
        match self {
            Self::Nginx => Some("nginx"),
            Self::Varnish => Some("varnishd"),
            _ => None,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is asked for: cases of one workload are compared with its first.
    pub workload: &'static str,
    /// What answers.
    pub name: &'static str,
    /// How it is set up.
    pub proxy: Proxy,
    /// The path.
    pub path: &'static str,
    /// Whether the client accepts gzip.
    pub gzip: bool,
    /// Envoy's own filter that does the same, compared with too.
    pub native: bool,
    /// Most requests are to be refused: what is not 2xx is a response like the others.
    pub refuses: bool,
    /// Checked beforehand: a word that must be in the response's head, so that what is measured happens at all.
    pub shows: &'static str,
}

impl Case {
    /// Workload and proxy, as `--only` looks at them.
    pub fn title(&self) -> String {
        format!("{}: {}", self.workload, self.name)
    }

    /// Whether it is an Envoy without any filter of interest.
    pub fn is_plain(&self) -> bool {
        matches!(&self.proxy, Proxy::Native(filters) if filters.is_empty())
    }
}

/// The names of the workloads.
pub fn workloads() -> Vec<&'static str> {
    let mut names: Vec<_> = all().iter().map(|case| case.workload).collect();
    names.dedup();
    names
}

/// All of them, the plain Envoy first in each workload.
pub fn all() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(workload(
        "1 KiB",
        "/1k",
        false,
        "ratelimit",
        limit(),
        "ratelimit:",
        Some((local_ratelimit(1_000_000), "")),
    ));
    let empty = case(
        "1 KiB",
        "Envoy, empty Wasm filter",
        Proxy::Envoy(vec![("edge", json!({ "filters": [] }))]),
        "/1k",
        false,
        "",
    );
    all.insert(1, empty);
    let bare = case(
        "1 KiB",
        "host, no filter",
        Proxy::Modules(Vec::new()),
        "/1k",
        false,
        "",
    );
    all.insert(2, bare);
    all.extend(refused());
    for (name, path) in [("1 KiB hit", "/cached-1k"), ("100 KiB hit", "/cached-100k")] {
        all.extend(workload(
            name,
            path,
            false,
            "cache",
            json!({}),
            "; hit",
            Some((cache(), "age:")),
        ));
        let others = [
            (
                "Envoy, its cache_v2",
                Proxy::Native(vec![cache_v2()]),
                "age:",
            ),
            ("nginx, proxy_cache", Proxy::Nginx, "x-cache: hit"),
            ("Varnish", Proxy::Varnish, "age:"),
        ];
        all.extend(
            others.map(|(proxy_name, proxy, shows)| {
                case(name, proxy_name, proxy, path, false, shows)
            }),
        );
    }
    all.extend(workload(
        "50 KiB JSON gzip",
        "/json",
        true,
        "compress",
        json!({}),
        "content-encoding: gzip",
        Some((compressor(), "content-encoding: gzip")),
    ));
    all.extend(workload(
        "50 KiB JSON minify",
        "/json",
        false,
        "minify",
        json!({}),
        "",
        None,
    ));
    for (name, path) in [("four, miss", "/json"), ("four, hit", "/cached-json")] {
        let shows = "content-encoding: gzip";
        let list = json!({ "filters": [{ "ratelimit": limit() }, "cache", "compress", "minify"] });
        all.extend(workload(name, path, true, "edge", list, shows, None));
        let four = vec![
            ("ratelimit", limit()),
            ("cache", json!({})),
            ("compress", json!({})),
            ("minify", json!({})),
        ];
        all.push(case(
            name,
            "Envoy, four modules",
            Proxy::Envoy(four.clone()),
            path,
            true,
            shows,
        ));
        all.push(case(
            name,
            "host, four modules",
            Proxy::Modules(four.clone()),
            path,
            true,
            shows,
        ));
        all.push(case(
            name,
            "host, four components",
            Proxy::Components(four),
            path,
            true,
            shows,
        ));
    }
    all
}

/// Plain Envoy, Envoy with one of ours, its counterpart, and the host with both forms.
fn workload(
    workload: &'static str,
    path: &'static str,
    gzip: bool,
    filter: &'static str,
    config: Value,
    shows: &'static str,
    native: Option<(Value, &'static str)>,
) -> Vec<Case> {
    let ours = vec![(filter, config)];
    let mut cases = vec![
        case(
            workload,
            "Envoy, plain",
            Proxy::Native(Vec::new()),
            path,
            gzip,
            "",
        ),
        case(
            workload,
            "Envoy, ours",
            Proxy::Envoy(ours.clone()),
            path,
            gzip,
            shows,
        ),
    ];
    if let Some((native, shows)) = native {
        let mut native = case(
            workload,
            "Envoy, its own",
            Proxy::Native(vec![native]),
            path,
            gzip,
            shows,
        );
        native.native = true;
        cases.push(native);
    }
    cases.push(case(
        workload,
        "host, module",
        Proxy::Modules(ours.clone()),
        path,
        gzip,
        shows,
    ));
    cases.push(case(
        workload,
        "host, component",
        Proxy::Components(ours),
        path,
        gzip,
        shows,
    ));
    cases
}

fn case(
    workload: &'static str,
    name: &'static str,
    proxy: Proxy,
    path: &'static str,
    gzip: bool,
    shows: &'static str,
) -> Case {
    Case {
        workload,
        name,
        proxy,
        path,
        gzip,
        native: false,
        refuses: false,
        shows,
    }
}

/// The limiter and Envoy's own at so many requests a second, far fewer than are asked for.
fn refused() -> Vec<Case> {
    let workload = "1 KiB refused";
    let ours = json!({ "rules": [{ "key": ["client"], "limits": [{ "rate": "1000/second" }] }] });
    let mut cases = vec![
        case(
            workload,
            "Envoy, plain",
            Proxy::Native(Vec::new()),
            "/1k",
            false,
            "",
        ),
        case(
            workload,
            "Envoy, ours",
            Proxy::Envoy(vec![("ratelimit", ours.clone())]),
            "/1k",
            false,
            "ratelimit:",
        ),
        case(
            workload,
            "Envoy, its own",
            Proxy::Native(vec![local_ratelimit(1_000)]),
            "/1k",
            false,
            "",
        ),
        case(
            workload,
            "host, module",
            Proxy::Modules(vec![("ratelimit", ours)]),
            "/1k",
            false,
            "ratelimit:",
        ),
    ];
    for case in cases.iter_mut().skip(1) {
        case.refuses = true;
        case.native = matches!(&case.proxy, Proxy::Native(_));
    }
    cases
}

/// A limit that is never reached.
fn limit() -> Value {
    json!({ "rules": [{ "key": ["client"], "limits": [{ "rate": "1000000/second" }] }] })
}

fn local_ratelimit(per_second: u32) -> Value {
    let always = json!({ "default_value": { "numerator": 100, "denominator": "HUNDRED" } });
    json!({
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "limit",
            "token_bucket": { "max_tokens": per_second, "tokens_per_fill": per_second, "fill_interval": "1s" },
            "filter_enabled": always,
            "filter_enforced": always
        }
    })
}

fn cache() -> Value {
    json!({
        "name": "envoy.filters.http.cache",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cache.v3.CacheConfig",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.cache.simple_http_cache.v3.SimpleHttpCacheConfig"
            }
        }
    })
}

fn cache_v2() -> Value {
    json!({
        "name": "envoy.filters.http.cache_v2",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cache_v2.v3.CacheV2Config",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.cache_v2.simple_http_cache.v3.SimpleHttpCacheV2Config"
            }
        }
    })
}

fn compressor() -> Value {
    json!({
        "name": "envoy.filters.http.compressor",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
            "compressor_library": {
                "name": "gzip",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip"
                }
            }
        }
    })
}
