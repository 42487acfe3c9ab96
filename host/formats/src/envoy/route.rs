//! Route configurations: virtual hosts, what a route matches, and what it does.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

use super::{HttpFilter, Way, any};
use crate::action::{Action, Edits, FieldEdits, PathEdit, Redirect, Respond, When, substitution};
use crate::route::{
    HostPattern, Match, NamedMatch, PathMatch, TextMatch, VirtualHost, field_name, part, whole,
};
use crate::section::{At, Section};

/// A route without a `timeout` has this one in Envoy.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A route configuration.
pub(super) struct Routes {
    pub(super) virtual_hosts: Vec<VirtualHost<Way>>,
    pub(super) ignore_port: bool,
}

/// What holds for everything inside: the configuration's, the virtual host's, the route's.
#[derive(Clone, Default)]
struct Inherited {
    /// `most_specific_header_mutations_wins`.
    nearest_last: bool,
    request: Vec<FieldEdits>,
    response: Vec<FieldEdits>,
    disabled: BTreeMap<String, bool>,
}

impl Inherited {
    /// Reads the fields that all three have. What is nearer to the request is changed first, as in Envoy, unless told
    /// otherwise; each level removes before it adds.
    fn read(&self, section: &Section<'_>, filters: &[HttpFilter]) -> Self {
        let levels = |outer: &[FieldEdits], add: &str, remove: &str| {
            let mut levels = outer.to_vec();
            let own = field_edits(section, add, remove);
            if !own.is_empty() {
                let at = if self.nearest_last { levels.len() } else { 0 };
                levels.insert(at, own);
            }
            levels
        };
        let request = levels(
            &self.request,
            "request_headers_to_add",
            "request_headers_to_remove",
        );
        let response = levels(
            &self.response,
            "response_headers_to_add",
            "response_headers_to_remove",
        );
        let mut disabled = self.disabled.clone();
        if let Some(at) = section.get("typed_per_filter_config") {
            for (name, at) in at.entries() {
                if let Some(off) = per_filter(&name, &at, filters) {
                    disabled.insert(name, off);
                }
            }
        }
        Self {
            nearest_last: self.nearest_last,
            request,
            response,
            disabled,
        }
    }
}

/// Whether a filter is off; Envoy's Wasm filter takes no configuration of a route but this.
fn per_filter(name: &str, at: &At<'_>, filters: &[HttpFilter]) -> Option<bool> {
    let (kind, config) = any(at)?;
    if !filters.iter().any(|filter| filter.name.value == name) {
        config.let_go();
        at.warn(format!(
            "there is no filter \"{name}\" that this could be for"
        ));
        return None;
    }
    if kind != "envoy.config.route.v3.FilterConfig" {
        config.let_go();
        at.error(
            "Envoy's Wasm filter has no configuration of routes; it can be turned off or on by an \
             envoy.config.route.v3.FilterConfig",
        );
        return None;
    }
    let off = config.flag("disabled");
    let _ = config.get("is_optional");
    if let Some(inner) = config.get("config")
        && !inner.entries().is_empty()
    {
        inner.error("Envoy's Wasm filter has no configuration of routes");
    }
    Some(off)
}

fn field_edits(section: &Section<'_>, add: &str, remove: &str) -> FieldEdits {
    let mut edits = FieldEdits::default();
    for at in section.items(remove) {
        let Some(text) = at.text() else { continue };
        match HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) => edits.remove.push(name),
            Err(_) => at.error(format!("\"{text}\" is no name of a field")),
        }
    }
    for at in section.items(add) {
        edits.set.extend(field_edit(&at));
    }
    edits
}

/// A field to set; none where it has no effect, or is wrong.
fn field_edit(at: &At<'_>) -> Option<(HeaderName, HeaderValue, When)> {
    let option = at.section();
    let mut when = When::Append;
    if let Some(append) = option.get("append") {
        when = if append.flag()? {
            When::Append
        } else {
            When::Overwrite
        };
    }
    if let Some(action) = option.get("append_action") {
        when = match action.word()?.as_str() {
            "APPEND_IF_EXISTS_OR_ADD" => When::Append,
            "ADD_IF_ABSENT" => When::Absent,
            "OVERWRITE_IF_EXISTS_OR_ADD" => When::Overwrite,
            "OVERWRITE_IF_EXISTS" => When::Present,
            other => {
                action.error(format!("\"{other}\" is no append_action"));
                return None;
            }
        };
    }
    let keeps_empty = option.flag("keep_empty_value");
    let header_at = option.need("header")?;
    let header = header_at.section();
    let name = header.need("key")?;
    let (key, value) = (name.text()?, header.text("value").unwrap_or_default());
    header.unsupported(&["raw_value"]);
    let plain = value.replace("%%", "");
    if plain.contains('%') {
        header_at.unsupported(format!(
            "\"{value}\": values are fixed texts, without %COMMANDS%"
        ));
        return None;
    }
    let parsed = HeaderName::from_bytes(key.as_bytes())
        .ok()
        .zip(HeaderValue::try_from(value.replace("%%", "%")).ok());
    let Some((key, value)) = parsed else {
        header_at.error(format!("\"{key}: {value}\" is no field"));
        return None;
    };
    // A field without a value is left alone, whatever the action.
    (keeps_empty || !value.is_empty()).then_some((key, value, when))
}

pub(super) fn read(at: &At<'_>, filters: &[HttpFilter]) -> Routes {
    let config = at.section();
    config.without_effect(&[
        "name",
        "validate_clusters",
        "internal_only_headers",
        "max_direct_response_body_size_bytes",
        "metadata",
    ]);
    config.unsupported(&[
        "vhds",
        "request_mirror_policies",
        "cluster_specifier_plugins",
    ]);
    let outermost = Inherited {
        nearest_last: config.flag("most_specific_header_mutations_wins"),
        ..Inherited::default()
    };
    let inherited = outermost.read(&config, filters);
    let ignore_port = config.flag("ignore_port_in_host_matching");
    let mut virtual_hosts = Vec::new();
    let mut domains = std::collections::BTreeSet::new();
    for at in config.items("virtual_hosts") {
        let Some(host) = virtual_host(&at, &inherited, filters) else {
            continue;
        };
        for domain in &host.domains {
            if !domains.insert(format!("{domain:?}")) {
                at.error(format!(
                    "another virtual host has this domain too: {domain:?}"
                ));
            }
        }
        virtual_hosts.push(host);
    }
    Routes {
        virtual_hosts,
        ignore_port,
    }
}

fn virtual_host(
    at: &At<'_>,
    outer: &Inherited,
    filters: &[HttpFilter],
) -> Option<VirtualHost<Way>> {
    let host = at.section();
    let name = host.need("name")?.text()?;
    host.without_effect(&[
        "virtual_clusters",
        "include_request_attempt_count",
        "include_attempt_count_in_response",
        "metadata",
        "per_request_buffer_limit_bytes",
    ]);
    host.unsupported(&["matcher", "cors", "rate_limits", "request_mirror_policies"]);
    for name in ["retry_policy", "hedge_policy"] {
        if let Some(at) = host.get(name) {
            at.section().let_go();
            at.warn(format!("`{name}` is not supported: a failure is answered"));
        }
    }
    if let Some(tls) = host.get("require_tls")
        && tls.word().is_some_and(|it| it != "NONE")
    {
        tls.unsupported("requests are not redirected to https; write a redirect");
    }
    let inherited = outer.read(&host, filters);
    let mut domains = Vec::new();
    for at in host.items("domains") {
        match HostPattern::parse(&at.text()?) {
            Ok(pattern) => domains.push(pattern),
            Err(why) => at.error(why),
        }
    }
    if domains.is_empty() {
        at.error("it has no domain");
    }
    let routes = host
        .items("routes")
        .iter()
        .filter_map(|at| route(at, &inherited, filters))
        .collect();
    Some(VirtualHost {
        name,
        domains,
        routes,
    })
}

fn route(at: &At<'_>, outer: &Inherited, filters: &[HttpFilter]) -> Option<(Match, Way)> {
    let fields = at.section();
    fields.without_effect(&[
        "metadata",
        "decorator",
        "tracing",
        "stat_prefix",
        "per_request_buffer_limit_bytes",
    ]);
    fields.unsupported(&["filter_action", "non_forwarding_action"]);
    let Inherited {
        request,
        response,
        disabled,
        ..
    } = outer.read(&fields, filters);
    let mut edits = Edits {
        request,
        response,
        ..Edits::default()
    };
    let name = fields.text("name").unwrap_or_default();
    let wanted = wanted(&fields.need("match")?)?;
    let mut timeout = None;
    let action = if let Some(at) = fields.get("route") {
        forward(&at, &mut edits, &mut timeout)?
    } else if let Some(at) = fields.get("redirect") {
        redirect(&at)?
    } else if let Some(at) = fields.get("direct_response") {
        respond(&at)?
    } else {
        at.error("it has none of `route`, `redirect` and `direct_response`");
        return None;
    };
    Some((
        wanted,
        Way {
            name,
            action,
            edits,
            disabled,
            timeout,
        },
    ))
}

fn wanted(at: &At<'_>) -> Option<Match> {
    let fields = at.section();
    fields.unsupported(&[
        "connect_matcher",
        "path_match_policy",
        "grpc",
        "tls_context",
        "dynamic_metadata",
        "filter_state",
        "cookies",
    ]);
    let mut wanted = Match {
        ignore_case: fields.get("case_sensitive").and_then(|at| at.flag()) == Some(false),
        ..Match::default()
    };
    if let Some(fraction) = fields.get("runtime_fraction") {
        let inner = fraction.section();
        inner.let_go();
        fraction.unsupported("a route takes all requests that match it, not a part of them");
    }
    let mut kinds = 0;
    for kind in ["prefix", "path", "path_separated_prefix"] {
        let Some(text) = fields.get(kind).and_then(|at| at.text()) else {
            continue;
        };
        kinds += 1;
        wanted.path = match kind {
            "prefix" => PathMatch::Prefix(text),
            "path" => PathMatch::Exact(text),
            _ => PathMatch::Below(text),
        };
    }
    if let Some(at) = fields.get("safe_regex") {
        kinds += 1;
        wanted.path = PathMatch::Regex(regex(&at, whole)?);
    }
    match kinds {
        1 => {}
        0 => at
            .error("it matches no path: `prefix`, `path`, `path_separated_prefix` or `safe_regex`"),
        _ => at.error(
            "it has more than one of `prefix`, `path`, `path_separated_prefix` and `safe_regex`",
        ),
    }
    for at in fields.items("headers") {
        wanted.fields.extend(field_match(&at));
    }
    for at in fields.items("query_parameters") {
        let parameter = at.section();
        let name = parameter.need("name")?.text()?;
        let (value, ignore_case) = match parameter.get("string_match") {
            Some(at) => string_match(&at)?,
            None => (TextMatch::Present, false),
        };
        let invert = parameter.get("present_match").and_then(|at| at.flag()) == Some(false);
        wanted.query.push(NamedMatch {
            name,
            value,
            ignore_case,
            invert,
        });
    }
    Some(wanted)
}

fn regex(
    at: &At<'_>,
    compile: fn(&str) -> Result<regex::bytes::Regex, String>,
) -> Option<regex::bytes::Regex> {
    let matcher = at.section();
    if let Some(engine) = matcher.get("google_re2") {
        engine.section().let_go();
    }
    let expression = matcher.need("regex")?;
    compile(&expression.text()?)
        .map_err(|why| expression.error(why))
        .ok()
}

fn field_match(at: &At<'_>) -> Option<NamedMatch> {
    let fields = at.section();
    let name_at = fields.need("name")?;
    let text = name_at.text()?;
    let name = if matches!(text.as_str(), ":method" | ":path" | ":authority") {
        text
    } else if text == ":scheme" {
        name_at.unsupported("routes do not look at the scheme");
        return None;
    } else {
        field_name(&text).map_err(|why| name_at.error(why)).ok()?
    };
    fields.unsupported(&["range_match"]);
    if fields.flag("treat_missing_header_as_empty") {
        at.warn("a missing field is missing, not empty");
    }
    let mut invert = fields.flag("invert_match");
    let mut ignore_case = false;
    let mut value = TextMatch::Present;
    if let Some(at) = fields.get("string_match") {
        (value, ignore_case) = string_match(&at)?;
    }
    if let Some(at) = fields.get("present_match")
        && !at.flag()?
    {
        invert = !invert;
    }
    for kind in [
        "exact_match",
        "prefix_match",
        "suffix_match",
        "contains_match",
    ] {
        if let Some(text) = fields.text(kind) {
            value = text_match(kind.trim_end_matches("_match"), text);
        }
    }
    if let Some(at) = fields.get("safe_regex_match") {
        value = TextMatch::Regex(regex(&at, whole)?);
    }
    Some(NamedMatch {
        name,
        value,
        ignore_case,
        invert,
    })
}

fn string_match(at: &At<'_>) -> Option<(TextMatch, bool)> {
    let fields = at.section();
    fields.unsupported(&["custom"]);
    let ignore_case = fields.flag("ignore_case");
    if let Some(at) = fields.get("safe_regex") {
        return Some((TextMatch::Regex(regex(&at, whole)?), ignore_case));
    }
    for kind in ["exact", "prefix", "suffix", "contains"] {
        if let Some(text) = fields.text(kind) {
            return Some((text_match(kind, text), ignore_case));
        }
    }
    at.error("it has none of `exact`, `prefix`, `suffix`, `contains` and `safe_regex`");
    None
}

fn text_match(kind: &str, text: String) -> TextMatch {
    match kind {
        "exact" => TextMatch::Exact(text),
        "prefix" => TextMatch::Prefix(text),
        "suffix" => TextMatch::Suffix(text),
        _ => TextMatch::Contains(text),
    }
}

fn forward(
    at: &At<'_>,
    edits: &mut Edits,
    timeout: &mut Option<crate::Placed<Duration>>,
) -> Option<Action> {
    let fields = at.section();
    fields.without_effect(&[
        "cluster_not_found_response_code",
        "priority",
        "hash_policy",
        "metadata_match",
        "max_grpc_timeout",
        "grpc_timeout_offset",
        "idle_timeout",
        "include_vh_rate_limits",
        "host_rewrite",
    ]);
    fields.unsupported(&[
        "cluster_header",
        "cluster_specifier_plugin",
        "inline_cluster_specifier_plugin",
        "path_rewrite_policy",
        "path_rewrite",
        "host_rewrite_header",
        "host_rewrite_path_regex",
        "cors",
        "rate_limits",
    ]);
    for name in [
        "retry_policy",
        "hedge_policy",
        "request_mirror_policies",
        "internal_redirect_policy",
        "max_stream_duration",
        "upgrade_configs",
        "auto_host_rewrite",
        "append_x_forwarded_host",
    ] {
        if let Some(at) = fields.get(name) {
            at.warn(format!("`{name}` is not supported: it is ignored"));
        }
    }
    edits.path = path_edit(&fields);
    edits.host = fields.text("host_rewrite_literal");
    let limit = fields.get("timeout");
    let waits = match &limit {
        // 0 is no limit.
        Some(at) => at
            .duration()
            .filter(|limit| !limit.is_zero())
            .unwrap_or(Duration::from_secs(3_600)),
        None => TIMEOUT,
    };
    *timeout = Some(limit.as_ref().unwrap_or(at).placed(waits));
    if let Some(cluster) = fields.get("cluster") {
        let name = cluster.text()?;
        return Some(Action::Forward(vec![(1, cluster.placed(name))]));
    }
    let Some(weighted) = fields.get("weighted_clusters") else {
        at.error("it names no `cluster`");
        return None;
    };
    let weighted = weighted.section();
    weighted.without_effect(&["total_weight", "runtime_key_prefix"]);
    weighted.unsupported(&["header_name", "use_hash_policy"]);
    let mut all = Vec::new();
    for at in weighted.items("clusters") {
        let one = at.section();
        one.unsupported(&[
            "cluster_header",
            "request_headers_to_add",
            "request_headers_to_remove",
            "response_headers_to_add",
            "response_headers_to_remove",
            "typed_per_filter_config",
            "host_rewrite_literal",
        ]);
        one.without_effect(&["metadata_match"]);
        let name = one.need("name")?;
        let weight = one
            .get("weight")
            .and_then(|at| at.number(u64::from(u32::MAX) / 1_000))
            .unwrap_or(0);
        all.push((
            u32::try_from(weight).unwrap_or(0),
            name.placed(name.text()?),
        ));
    }
    if all.iter().all(|(weight, _)| *weight == 0) {
        at.error("the weights of its clusters add up to 0");
        return None;
    }
    Some(Action::Forward(all))
}

fn path_edit(fields: &Section<'_>) -> PathEdit {
    if let Some(to) = fields.text("prefix_rewrite").filter(|to| !to.is_empty()) {
        return PathEdit::Prefix(to);
    }
    let Some(at) = fields.get("regex_rewrite") else {
        return PathEdit::Keep;
    };
    let rewrite = at.section();
    let pattern = rewrite.need("pattern").and_then(|at| regex(&at, part));
    let to = rewrite.get("substitution");
    let text = to.as_ref().and_then(|at| at.text()).unwrap_or_default();
    match (pattern, substitution(&text)) {
        (Some(pattern), Ok(to)) => PathEdit::Regex(pattern, to),
        (_, Err(why)) => {
            to.unwrap_or(at).error(why);
            PathEdit::Keep
        }
        (None, Ok(_)) => PathEdit::Keep,
    }
}

fn redirect(at: &At<'_>) -> Option<Action> {
    let fields = at.section();
    let mut redirect = Redirect {
        scheme: fields.text("scheme_redirect"),
        host: fields.text("host_redirect").filter(|host| !host.is_empty()),
        strip_query: fields.flag("strip_query"),
        path: path_edit(&fields),
        ..Redirect::default()
    };
    if fields.flag("https_redirect") {
        redirect.scheme = Some("https".to_owned());
    }
    if let Some(port) = fields.get("port_redirect") {
        redirect.port = u16::try_from(port.number(65_535)?)
            .ok()
            .filter(|port| *port != 0);
    }
    if let Some(path) = fields.text("path_redirect").filter(|path| !path.is_empty()) {
        redirect.path = PathEdit::Whole(path);
    }
    if let Some(code) = fields.get("response_code") {
        redirect.status = Some(match code.word()?.as_str() {
            "MOVED_PERMANENTLY" | "0" => StatusCode::MOVED_PERMANENTLY,
            "FOUND" | "1" => StatusCode::FOUND,
            "SEE_OTHER" | "2" => StatusCode::SEE_OTHER,
            "TEMPORARY_REDIRECT" | "3" => StatusCode::TEMPORARY_REDIRECT,
            "PERMANENT_REDIRECT" | "4" => StatusCode::PERMANENT_REDIRECT,
            other => {
                code.error(format!("\"{other}\" is no response_code"));
                return None;
            }
        });
    }
    Some(Action::Redirect(redirect))
}

fn respond(at: &At<'_>) -> Option<Action> {
    let fields = at.section();
    fields.unsupported(&["body_format"]);
    let status_at = fields.need("status")?;
    let code = u16::try_from(status_at.number(599)?).ok()?;
    let Some(status) = StatusCode::from_u16(code).ok().filter(|_| code >= 200) else {
        status_at.error(format!("{code} is no status from 200 to 599"));
        return None;
    };
    let mut body = String::new();
    if let Some(at) = fields.get("body") {
        let source = at.section();
        match source.get("inline_string") {
            Some(text) => body = text.text()?,
            None => {
                source.let_go();
                at.unsupported("a body is written here: `inline_string`");
            }
        }
    }
    Some(Action::Respond(Respond { status, body }))
}
