//! An Envoy bootstrap as a configuration of this host.
//!
//! Clusters become upstreams, Wasm filters become filters under the name of their plugin, routes keep their names. Every
//! place in the result is a place in the bootstrap.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgeweir_host_formats::envoy::{self, Bootstrap, Code, HttpFilter, Plugin, Policy};
use edgeweir_host_formats::route::VirtualHost;
use edgeweir_host_formats::{Finding, Level, Placed};
use toml::Spanned;

use crate::sources::place;

use super::{
    Address, Admin, Authority, Config, ConfigError, Filter, Health, Listener, ListenerTls, OnTrap,
    Options, Raw, Source, Upstream, UpstreamTls, Way, Ways, Within,
};

/// A connection manager without a `stream_idle_timeout` has this one in Envoy.
const STREAM_IDLE: Duration = Duration::from_secs(300);

/// Reads a bootstrap.
pub(super) fn parse(file: &Path, text: String, options: &Options) -> Result<Config, ConfigError> {
    let (bootstrap, findings) = envoy::read(&text);
    let source = Source {
        file: file.to_owned(),
        text,
    };
    let mut config = Config::bare(source, findings);
    if options.refuses(&config.notes) {
        return Err(options.refusal(&config));
    }
    translate(&bootstrap, &mut config)?;
    if options.refuses(&config.notes) {
        return Err(options.refusal(&config));
    }
    Ok(config)
}

fn translate(bootstrap: &Bootstrap, config: &mut Config) -> Result<(), ConfigError> {
    if let Some(admin) = &bootstrap.admin {
        if admin.value.ip().is_loopback() {
            config.admin = Some(Admin {
                listen: spanned(admin, Address(admin.value)),
                token: None,
                token_file: None,
            });
        } else {
            config.notes.push(note(
                Level::Warning,
                "ignored",
                "admin.address",
                admin,
                format!(
                    "{} is not a loopback address: the admin pages are not served",
                    admin.value
                ),
            ));
        }
    }
    let idle = stream_idle(bootstrap);
    config.limits.stall_timeout_ms = Within::of(idle);
    clusters(bootstrap, idle, config);
    let heads = bootstrap.listeners.iter().filter_map(|it| it.head_timeout);
    if let Some(longest) = heads.filter(|it| !it.is_zero()).max() {
        config.limits.head_timeout_ms = Within::of(millis(longest));
    }
    let fields = bootstrap.listeners.iter().filter_map(|it| it.max_headers);
    if let Some(most) = fields.max() {
        // Each listener has its own bound; that of the host leaves room for it.
        config.limits.headers = Within::of(config.limits.headers.get().max(most.into()));
    }
    for listener in &bootstrap.listeners {
        let names = filters(listener, config)?;
        let made = made(listener, &names);
        one_address(&made, config);
        config.listeners.push(made);
    }
    Ok(())
}

/// Each listener has an address of its own, as in Envoy.
fn one_address(listener: &Listener, config: &mut Config) {
    let listen = &listener.listen;
    let address = listen.get_ref().0;
    let mut others = config.listeners.iter();
    if let Some(other) = others.find(|it| it.listen.get_ref().0 == address)
        && address.port() != 0
    {
        let message = format!(
            "listener \"{}\" has {address} already",
            other.name.get_ref()
        );
        config.notes.push(Finding {
            level: Level::Error,
            code: "invalid",
            path: "static_resources.listeners.address".to_owned(),
            span: listen.span(),
            message,
        });
    }
}

/// The longest time for which nothing may move of a stream, of any listener's, milliseconds.
fn stream_idle(bootstrap: &Bootstrap) -> u64 {
    let listeners = bootstrap.listeners.iter();
    let idle = listeners.map(|it| it.stream_idle_timeout.unwrap_or(STREAM_IDLE));
    // 0 is no limit.
    let idle = idle.map(|it| if it.is_zero() { Duration::MAX } else { it });
    millis(idle.max().unwrap_or(STREAM_IDLE))
}

fn clusters(bootstrap: &Bootstrap, idle: u64, config: &mut Config) {
    for cluster in &bootstrap.clusters {
        let Some(first) = cluster.endpoints.first() else {
            continue;
        };
        let mut upstream = Upstream::at(first.value.clone());
        upstream.http2 = cluster.http2;
        upstream.connect_timeout_ms = Within::of(millis(
            cluster.connect_timeout.unwrap_or(Duration::from_secs(5)),
        ));
        upstream.bounds = cluster.bounds;
        upstream.health = cluster.health.as_ref().map(health);
        let others = cluster.endpoints.iter().skip(1);
        upstream.others = others.map(|it| Authority(it.value.clone())).collect();
        if let Some(tls) = &cluster.tls {
            match &tls.value.trusted {
                Some(trusted) => {
                    upstream.tls = Some(UpstreamTls {
                        ca: Some(spanned(tls, trusted.clone())),
                        server_name: tls.value.sni.clone().map(|sni| spanned(tls, sni)),
                    });
                }
                None => config.notes.push(note(
                    Level::Unsupported,
                    "unsupported",
                    "clusters.transport_socket",
                    tls,
                    "without `trusted_ca` Envoy believes any certificate; this host believes none"
                        .to_owned(),
                )),
            }
        }
        // The longest time-out of a route to it: an upstream has one.
        let ways = bootstrap.listeners.iter().flat_map(|it| &it.virtual_hosts);
        let ways = ways.flat_map(|host| &host.routes).map(|(_, way)| way);
        let here = ways.filter(|way| match &way.action {
            edgeweir_host_formats::action::Action::Forward(to) => {
                to.iter().any(|(_, name)| name.value == cluster.name.value)
            }
            _ => false,
        });
        let limits: Vec<_> = here.filter_map(|way| way.timeout.as_ref()).collect();
        if let Some(longest) = limits.iter().map(|it| it.value).max() {
            upstream.timeout_ms = Within::of(millis(longest));
            if let Some(shorter) = limits.iter().find(|it| it.value < longest) {
                config.notes.push(note(
                    Level::Warning,
                    "ignored",
                    "route.timeout",
                    shorter,
                    format!("an upstream has one time-out: that of {longest:?}, of another route, holds here too"),
                ));
            }
        }
        upstream.idle_timeout_ms = Within::of(idle);
        // While a head is waited for nothing moves.
        upstream.timeout_ms = Within::of(upstream.timeout_ms.get().min(idle));
        config
            .upstreams
            .insert(cluster.name.value.clone(), upstream);
    }
}

fn health(check: &envoy::HealthCheck) -> Health {
    Health {
        path: spanned(&check.path, check.path.value.clone()),
        host: Some(Authority(check.host.clone())),
        interval_ms: Within::of(millis(check.interval)),
        timeout_ms: Within::of(millis(check.timeout)),
        healthy: Within::of(check.healthy),
        unhealthy: Within::of(check.unhealthy),
    }
}

/// Adds the filters of a listener; gives the names they have here, by the names they have there.
fn filters(
    listener: &envoy::Listener,
    config: &mut Config,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut names = BTreeMap::new();
    for filter in &listener.filters {
        let made = filter_of(filter, listener, config)?;
        let plugin = &filter.plugin.name;
        let wanted = if plugin.is_empty() {
            &filter.name.value
        } else {
            plugin
        };
        let mut name = wanted.clone();
        let mut count = 1;
        while config
            .filters
            .get(&name)
            .is_some_and(|there| !super::same(there, &made))
        {
            count += 1;
            name = format!("{wanted}-{count}");
        }
        config.filters.entry(name.clone()).or_insert(made);
        if names.insert(filter.name.value.clone(), name).is_some() {
            let message = format!(
                "two filters of this listener are called \"{}\"",
                filter.name.value
            );
            return Err(ConfigError::at(
                &config.source,
                filter.name.span.clone(),
                "http_filters",
                message,
            ));
        }
    }
    Ok(names)
}

fn filter_of(
    filter: &HttpFilter,
    listener: &envoy::Listener,
    config: &mut Config,
) -> Result<Filter, ConfigError> {
    let plugin = &filter.plugin;
    let module = match &plugin.code.value {
        Code::File(file) => file.clone(),
        Code::Remote(remote) => place(remote),
        Code::Inline(bytes) => {
            let kept = kept(plugin, bytes).map_err(|error| {
                ConfigError::at(
                    &config.source,
                    plugin.code.span.clone(),
                    "code",
                    format!("inline code cannot be kept: {error}"),
                )
            })?;
            let path = kept.path().join("inline.wasm");
            config.held.push(Arc::new(kept));
            path
        }
    };
    let at = || plugin.code.span.clone();
    let mut made = Filter::of(module);
    made.module = Spanned::new(at(), made.module.into_inner());
    if let Code::Remote(remote) = &plugin.code.value {
        made.remote = Some(remote.clone());
    }
    made.on_trap = match plugin.policy {
        Policy::Open => OnTrap::Pass,
        Policy::Closed | Policy::Reload => OnTrap::Respond,
    };
    made.vm_id = Some(Spanned::new(at(), plugin.vm_id.clone()));
    made.root_id = Some(Spanned::new(at(), plugin.root_id.clone()));
    made.allow_on_headers_stop_iteration =
        Some(Spanned::new(at(), plugin.allow_on_headers_stop_iteration));
    if !plugin.environment.is_empty() {
        made.environment = Some(Spanned::new(at(), plugin.environment.clone()));
    }
    made.body_buffer_bytes = listener.buffer_limit.map(|bytes| bytes as usize);
    made.raw = Some(Raw {
        configuration: plugin.configuration.clone(),
        text: plugin.text,
        vm_configuration: plugin.vm_configuration.clone(),
        policy: plugin.policy,
        policy_span: plugin.policy_span.clone(),
    });
    Ok(made)
}

/// Inline code becomes a file: filters are files.
fn kept(plugin: &Plugin, bytes: &[u8]) -> std::io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("edgeweir-inline-")
        .tempdir()?;
    std::fs::write(folder.path().join("inline.wasm"), bytes)?;
    tracing::debug!(plugin = plugin.name, folder = %folder.path().display(), "inline code");
    Ok(folder)
}

fn made(listener: &envoy::Listener, names: &BTreeMap<String, String>) -> Listener {
    let on = |disabled: &BTreeMap<String, bool>| -> Vec<Spanned<String>> {
        listener
            .filters
            .iter()
            .filter(|filter| {
                let here = disabled.get(&filter.name.value).copied();
                !here.unwrap_or(filter.disabled)
            })
            .filter_map(|filter| {
                Some(spanned(
                    &filter.name,
                    names.get(&filter.name.value)?.clone(),
                ))
            })
            .collect()
    };
    let ways_of = |host: &VirtualHost<envoy::Way>| VirtualHost {
        name: host.name.clone(),
        domains: host.domains.clone(),
        routes: host
            .routes
            .iter()
            .map(|(matched, way)| {
                let way = Way {
                    name: way.name.clone(),
                    action: way.action.clone(),
                    edits: way.edits.clone(),
                    filters: on(&way.disabled),
                    spin: None,
                };
                (matched.clone(), way)
            })
            .collect(),
    };
    let all = on(&BTreeMap::new());
    let name = spanned(&listener.name, listener.name.value.clone());
    let listen = spanned(&listener.address, Address(listener.address.value));
    let ways = Ways {
        virtual_hosts: listener.virtual_hosts.iter().map(ways_of).collect(),
        ignore_port: listener.ignore_port,
        filters: all.clone(),
        services: BTreeMap::new(),
    };
    Listener {
        upstream: None,
        forwarded_for: listener.use_remote_address,
        strip_port: listener.strip_port,
        most_fields: listener.max_headers.map(|most| most as usize),
        ways,
        tls: listener.tls.as_ref().map(|tls| ListenerTls {
            certificate: spanned(&tls.certificate, tls.certificate.value.clone()),
            key: spanned(&tls.key, tls.key.value.clone()),
            names: Vec::new(),
        }),
        ..Listener::plain(name, listen, spanned(&listener.name, String::new()), all)
    }
}

fn spanned<T, U>(place: &Placed<T>, value: U) -> Spanned<U> {
    Spanned::new(place.span.clone(), value)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn note<T>(
    level: Level,
    code: &'static str,
    path: &str,
    place: &Placed<T>,
    message: String,
) -> Finding {
    Finding {
        level,
        code,
        path: path.to_owned(),
        span: place.span.clone(),
        message,
    }
}
