//! What is measured against what.

use serde_json::{Value, json};

/// A proxy under load.
#[derive(Clone, Debug)]
pub enum Proxy {
    /// Envoy with HTTP filters of its own, by their configuration.
    Native(Vec<Value>),
    /// Envoy with a module that does nothing.
    Empty,
    /// Envoy with our modules, by name and configuration.
    Envoy(Vec<(&'static str, Value)>),
    /// Envoy with our modules, and an `edgeweir store` beside it as the cluster `store`.
    Stored(Vec<(&'static str, Value)>, Keeps),
    /// The host with our modules.
    Modules(Vec<(&'static str, Value)>),
    /// The host with our components.
    Components(Vec<(&'static str, Value)>),
    /// nginx.
    Nginx(Nginx),
    /// Varnish.
    Varnish,
    /// No proxy: each decision is a round trip to Redis.
    Redis,
}

/// What an `edgeweir store` keeps its state in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// Its own memory.
    Memory,
    /// A Redis.
    Redis,
}

/// What nginx does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nginx {
    /// `proxy_cache`.
    Cache,
    /// `gzip` of this level.
    Gzip(u8),
    /// `limit_req`, never reached.
    Limit,
}

impl Proxy {
    /// Whether it is the host of this project.
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Modules(_) | Self::Components(_))
    }

    /// Whether it is Envoy, with nothing beside it.
    pub fn is_envoy(&self) -> bool {
        matches!(self, Self::Native(_) | Self::Empty | Self::Envoy(_))
    }

    /// The program it needs that not every machine has.
    pub fn program(&self) -> Option<&'static str> {
        match self {
            Self::Nginx(_) => Some("nginx"),
            Self::Varnish => Some("varnishd"),
            Self::Redis | Self::Stored(_, Keeps::Redis) => Some("redis-benchmark"),
            _ => None,
        }
    }
}

/// What the other cases of a workload are compared with; a column each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reference {
    /// An Envoy without any filter of interest.
    Plain,
    /// An Envoy with a Wasm filter that does nothing and calls nothing of the host.
    Empty,
    /// Envoy's own filter for it, on its defaults.
    Own,
    /// Envoy's own filter, tuned for small bodies.
    Tuned,
    /// Our own, doing it each time.
    EachTime,
}

impl Reference {
    /// All of them, in the order of their columns.
    pub const ALL: [Self; 5] = [
        Self::Plain,
        Self::Empty,
        Self::Own,
        Self::Tuned,
        Self::EachTime,
    ];

    /// The column's name, after "×".
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Empty => "empty",
            Self::Own => "its own",
            Self::Tuned => "its own, tuned",
            Self::EachTime => "each time",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is asked for: cases of one workload are compared with its references.
    pub workload: &'static str,
    /// What answers.
    pub name: &'static str,
    /// How it is set up.
    pub proxy: Proxy,
    /// The path.
    pub path: &'static str,
    /// The content coding the client accepts; none when empty.
    pub accepts: &'static str,
    /// What the others of the workload are compared with.
    pub reference: Option<Reference>,
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

    fn is(mut self, reference: Reference) -> Self {
        self.reference = Some(reference);
        self
    }
}

/// The names of the workloads.
pub fn workloads() -> Vec<&'static str> {
    let mut names: Vec<_> = all().iter().map(|case| case.workload).collect();
    names.dedup();
    names
}

/// What is asked for: its name, path and the coding the client accepts.
#[derive(Clone, Copy)]
struct Load(&'static str, &'static str, &'static str);

impl Load {
    fn case(self, name: &'static str, proxy: Proxy, shows: &'static str) -> Case {
        Case {
            workload: self.0,
            name,
            proxy,
            path: self.1,
            accepts: self.2,
            reference: None,
            refuses: false,
            shows,
        }
    }

    fn plain(self) -> Case {
        self.case("Envoy, plain", Proxy::Native(Vec::new()), "")
            .is(Reference::Plain)
    }

    fn empty(self) -> Case {
        self.case("Envoy, empty Wasm filter", Proxy::Empty, "")
            .is(Reference::Empty)
    }

    fn ours(self, filter: &'static str, config: Value, shows: &'static str) -> Case {
        self.case("Envoy, ours", Proxy::Envoy(vec![(filter, config)]), shows)
    }

    fn own(self, filter: Value, shows: &'static str) -> Case {
        self.case("Envoy, its own", Proxy::Native(vec![filter]), shows)
            .is(Reference::Own)
    }

    /// The host with both forms.
    fn hosts(self, filter: &'static str, config: Value, shows: &'static str) -> [Case; 2] {
        let ours = vec![(filter, config)];
        [
            self.case("host, module", Proxy::Modules(ours.clone()), shows),
            self.case("host, component", Proxy::Components(ours), shows),
        ]
    }
}

/// All of them, the plain Envoy first in each workload.
pub fn all() -> Vec<Case> {
    let mut all = Vec::new();
    let small = Load("1 KiB", "/1k", "");
    all.extend([small.plain(), small.empty()]);
    all.push(small.case("host, no filter", Proxy::Modules(Vec::new()), ""));
    all.push(small.ours("ratelimit", limit(), "ratelimit:"));
    all.push(small.own(local_ratelimit(1_000_000), ""));
    all.extend(small.hosts("ratelimit", limit(), "ratelimit:"));
    let mut global = limit();
    global["store"] = json!({ "to": "store", "timeout_ms": 1000 });
    global["rules"][0]["scope"] = json!("global");
    for (name, keeps) in [
        ("Envoy, ours, one limit for all machines", Keeps::Memory),
        ("Envoy, ours, one limit for all, in Redis", Keeps::Redis),
    ] {
        let global = Proxy::Stored(vec![("ratelimit", global.clone())], keeps);
        all.push(small.case(name, global, "ratelimit:"));
    }
    all.push(small.case("Redis alone, a round trip each", Proxy::Redis, ""));
    all.push(small.case("nginx, limit_req", Proxy::Nginx(Nginx::Limit), ""));
    refused(Load("1 KiB refused", "/1k", ""), &mut all);
    for load in [
        Load("1 KiB hit", "/cached-1k", ""),
        Load("100 KiB hit", "/cached-100k", ""),
    ] {
        all.extend([load.plain(), load.ours("cache", json!({}), "; hit")]);
        all.push(load.own(cache(), "age:"));
        all.extend(load.hosts("cache", json!({}), "; hit"));
        let v2 = Proxy::Native(vec![cache_v2()]);
        all.push(load.case("Envoy, its cache_v2", v2, "age:"));
        let nginx = Proxy::Nginx(Nginx::Cache);
        all.push(load.case("nginx, proxy_cache", nginx, "x-cache: hit"));
        all.push(load.case("Varnish", Proxy::Varnish, "age:"));
    }
    for load in [
        Load("50 KiB JSON gzip", "/json", "gzip"),
        Load("90 KB HTML gzip", "/html", "gzip"),
        Load("630 KB JSON gzip", "/large-json", "gzip"),
    ] {
        gzip(load, &mut all);
    }
    for load in [
        Load("50 KiB JSON br", "/json", "br"),
        Load("90 KB HTML br", "/html", "br"),
        Load("630 KB JSON br", "/large-json", "br"),
    ] {
        let shows = "content-encoding: br";
        all.extend([load.plain(), load.ours("compress", json!({}), shows)]);
        all.push(load.own(compressor("brotli", json!({})), shows));
    }
    for load in [
        Load("50 KiB JSON zstd", "/json", "zstd"),
        Load("90 KB HTML zstd", "/html", "zstd"),
        Load("630 KB JSON zstd", "/large-json", "zstd"),
    ] {
        let shows = "content-encoding: zstd";
        all.extend([load.plain(), load.ours("compress", json!({}), shows)]);
        all.push(load.own(compressor("zstd", json!({})), shows));
    }
    for load in [
        Load("50 KiB JSON minify", "/json", ""),
        Load("630 KB JSON minify", "/large-json", ""),
    ] {
        all.extend([load.plain(), load.empty()]);
        all.push(load.ours("minify", json!({}), ""));
        let trusting = Proxy::Envoy(vec![("minify", json!({ "validate": false }))]);
        all.push(load.case("Envoy, ours, not validating", trusting, ""));
        all.extend(load.hosts("minify", json!({}), ""));
    }
    for load in [
        Load("630 KB JSON gzip, stored", "/cached-large-json", "gzip"),
        Load("630 KB JSON br, stored", "/cached-large-json", "br"),
    ] {
        let shows = match load.2 {
            "br" => "content-encoding: br",
            _ => "content-encoding: gzip",
        };
        let code = json!({ "filters": ["compress"] });
        let store = json!({ "filters": ["cache", "compress"] });
        all.push(load.plain());
        let each = Proxy::Envoy(vec![("edge", code)]);
        let each = load.case("Envoy, ours, coded each time", each, shows);
        all.push(each.is(Reference::EachTime));
        // The stored response is the coded one: a hit that is not coded would not show the coding.
        let hit = Proxy::Envoy(vec![("edge", store)]);
        all.push(load.case("Envoy, ours, coded once, a hit", hit, "; hit"));
    }
    for load in [
        Load("four, miss", "/json", "gzip"),
        Load("four, hit", "/cached-json", "gzip"),
    ] {
        let shows = "content-encoding: gzip";
        let list = json!({ "filters": [{ "ratelimit": limit() }, "cache", "compress", "minify"] });
        all.extend([load.plain(), load.ours("edge", list.clone(), shows)]);
        all.extend(load.hosts("edge", list, shows));
        let four = vec![
            ("ratelimit", limit()),
            ("cache", json!({})),
            ("compress", json!({})),
            ("minify", json!({})),
        ];
        let modules = Proxy::Envoy(four.clone());
        all.push(load.case("Envoy, four modules", modules, shows));
        let modules = Proxy::Modules(four.clone());
        all.push(load.case("host, four modules", modules, shows));
        all.push(load.case("host, four components", Proxy::Components(four), shows));
    }
    all
}

/// The limiter and Envoy's own at so many requests a second, a tenth or so of what is asked for.
fn refused(load: Load, all: &mut Vec<Case>) {
    let few = json!({ "rules": [{ "key": ["client"], "limits": [{ "rate": "1000/second" }] }] });
    all.extend([load.plain(), load.empty()]);
    let mut refusing = vec![
        load.ours("ratelimit", few.clone(), "ratelimit:"),
        load.own(local_ratelimit(1_000), ""),
    ];
    refusing.extend(load.hosts("ratelimit", few, "ratelimit:"));
    for case in &mut refusing {
        case.refuses = true;
    }
    all.extend(refusing);
}

/// Ours on its defaults and at the level of the tuned one, Envoy's on its defaults and tuned, and nginx.
fn gzip(load: Load, all: &mut Vec<Case>) {
    let shows = "content-encoding: gzip";
    all.extend([load.plain(), load.ours("compress", json!({}), shows)]);
    let six = Proxy::Envoy(vec![("compress", json!({ "gzip_level": 6 }))]);
    all.push(load.case("Envoy, ours, level 6", six, shows));
    all.push(load.own(compressor("gzip", json!({})), shows));
    let tuned = json!({
        "compression_level": "COMPRESSION_LEVEL_6", "window_bits": 15, "memory_level": 8
    });
    let tuned = Proxy::Native(vec![compressor("gzip", tuned)]);
    let tuned = load.case("Envoy, its own, tuned (level 6)", tuned, shows);
    all.push(tuned.is(Reference::Tuned));
    for (name, level) in [("nginx, gzip (level 1)", 1), ("nginx, gzip, level 6", 6)] {
        all.push(load.case(name, Proxy::Nginx(Nginx::Gzip(level)), shows));
    }
    all.extend(load.hosts("compress", json!({}), shows));
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

/// Envoy's compressor with one of its libraries.
fn compressor(library: &str, mut settings: Value) -> Value {
    let message = match library {
        "gzip" => "Gzip",
        "brotli" => "Brotli",
        _ => "Zstd",
    };
    settings["@type"] = format!(
        "type.googleapis.com/envoy.extensions.compression.{library}.compressor.v3.{message}"
    )
    .into();
    json!({
        "name": "envoy.filters.http.compressor",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
            "compressor_library": { "name": library, "typed_config": settings }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_title_is_there_once_and_each_workload_begins_with_the_plain_envoy() {
        let all = all();
        let mut titles: Vec<_> = all.iter().map(Case::title).collect();
        let count = titles.len();
        titles.sort();
        titles.dedup();
        assert_eq!(titles.len(), count);
        for name in workloads() {
            let first = all.iter().find(|case| case.workload == name);
            let reference = first.and_then(|case| case.reference);
            assert_eq!(reference, Some(Reference::Plain), "{name}");
        }
    }
}
