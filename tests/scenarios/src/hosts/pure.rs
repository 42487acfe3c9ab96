//! The pure contract: two workers in turn, with one shared store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, bail};
use edgeweir_filter::{
    Chain, ConfigError, Configured, Filter as Contract, Script, SharedMemory, To, load,
};

use crate::machines::fetch_from;
use crate::{Filter, Framing, Origin, Received, Request, Seen, Setup};

/// Two scripts of the same filters.
pub struct Pure {
    workers: [Script; 2],
    sent: usize,
}

impl Pure {
    /// Both, or the filter's own error.
    pub fn new(setup: &Setup) -> Result<Self> {
        let shared = SharedMemory::default();
        let workers = [worker(setup, &shared)?, worker(setup, &shared)?];
        Ok(Self { workers, sent: 0 })
    }

    /// Lets time pass, for both.
    pub fn pass(&mut self, time: Duration) {
        for worker in &mut self.workers {
            worker.pass(time);
        }
    }

    /// What time it is there.
    pub fn now(&self) -> SystemTime {
        let [worker, _] = &self.workers;
        UNIX_EPOCH + Duration::from_secs(worker.now().as_secs())
    }

    /// One exchange; `prefix` bytes of the path are the scenario's own.
    pub fn send(&mut self, request: &Request, path: &str, origin: &Origin, prefix: usize) -> Seen {
        let turn = self.sent % 2;
        self.sent += 1;
        let [first, second] = &mut self.workers;
        let (worker, other) = if turn == 0 {
            (first, second)
        } else {
            (second, first)
        };
        // An adapter takes the authority out of the fields.
        let mut fields = text(&request.fields);
        let named = fields
            .iter()
            .position(|(name, _)| name.eq_ignore_ascii_case("host"));
        let authority = named.map_or("edge.example", |at| fields.remove(at).1);
        let body: Vec<&[u8]> = request.body.iter().map(|piece| &piece[..]).collect();
        worker
            .request(&[&request.method, path, authority], &fields)
            .request_body(&body);
        let length = origin.length().to_string();
        let mut fields = text(&origin.fields);
        let bodiless = matches!(origin.status, 204 | 304);
        let declared = fields.iter().any(|(name, _)| *name == "content-length");
        if origin.framing == Framing::Length && !bodiless && !declared {
            fields.push(("content-length", &length));
        }
        let chunks: Vec<&[u8]> = origin.body.iter().map(|piece| &piece[..]).collect();
        worker
            .answers(origin.status, &fields, &chunks)
            .delay(origin.delay);
        if !origin.trailers.is_empty() {
            let trailers: Vec<(&str, &str)> = origin
                .trailers
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect();
            worker.trailers(&trailers);
        }
        if origin.cut {
            worker.cut();
        }
        if origin.is_gone() {
            // What an adapter shows a filter then.
            let body: &[u8] = b"the edge's own words";
            worker.answers(503, &[], &[body]).unreached();
        }
        let before = worker.now();
        let seen = worker.run();
        other.pass(worker.now().since(before));
        let reached = seen.upstream.is_some();
        let bodiless = request.method == "HEAD" || matches!(seen.status, 204 | 304);
        let mut total = 0;
        // What is sent to a place of its own name does not reach the origin.
        let onward = seen.fetches.iter().filter(|it| it.to == To::Onward);
        Seen {
            status: seen.status,
            fields: owned(&seen.fields),
            body: if bodiless { Vec::new() } else { seen.body() },
            trailers: seen.trailers.as_ref().map(owned).unwrap_or_default(),
            complete: bodiless || !((seen.cut || origin.cut) && reached),
            pieces: seen
                .chunks
                .iter()
                .map(|chunk| {
                    total += chunk.len();
                    (Duration::ZERO, total)
                })
                .collect(),
            upstream: seen
                .upstream
                .iter()
                .chain(onward.map(|fetch| &fetch.head))
                .map(|head| Received {
                    method: String::from_utf8_lossy(&head.method).into_owned(),
                    path: String::from_utf8_lossy(&head.path)
                        .chars()
                        .skip(prefix)
                        .collect(),
                    fields: owned(&head.fields),
                    body: seen.upstream_body.clone(),
                })
                .collect(),
        }
    }
}

fn worker(setup: &Setup, shared: &SharedMemory) -> Result<Script> {
    let filters: Result<Vec<_>> = setup.filters.iter().map(contract).collect();
    let mut script = Script::new(Chain::new("scenario", filters?)).sharing(shared);
    if let Some(address) = setup.reaches() {
        script.fetch_with(move |fetch| fetch_from(address, fetch));
    }
    Ok(script)
}

fn contract(filter: &Filter) -> Result<Box<dyn Contract>> {
    let config = filter.config.to_string();
    let loaded = match filter.name {
        "cache" => boxed::<edgeweir_cache::Cache>(&config),
        "compress" => boxed::<edgeweir_compress::Compress>(&config),
        "minify" => boxed::<edgeweir_minify::Minify>(&config),
        "ratelimit" => boxed::<edgeweir_ratelimit::RateLimit>(&config),
        "edge" => boxed::<edgeweir_edge::Edge>(&config),
        other => bail!("no filter is called {other}"),
    };
    loaded.map_err(|error| anyhow!("{}: {error}", filter.name))
}

fn boxed<F: Configured>(config: &str) -> Result<Box<dyn Contract>, ConfigError> {
    Ok(Box::new(load::<F>(config.as_bytes())?))
}

/// The script takes text; a scenario with other bytes leaves this host out.
fn text(fields: &[(String, Vec<u8>)]) -> Vec<(&str, &str)> {
    fields
        .iter()
        .map(|(name, value)| match std::str::from_utf8(value) {
            Ok(value) => (name.as_str(), value),
            Err(_) => panic!("{name} is no text: leave the pure contract out of this scenario"),
        })
        .collect()
}

fn owned(fields: &edgeweir_filter::Fields) -> Vec<(String, Vec<u8>)> {
    fields
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec()))
        .collect()
}
