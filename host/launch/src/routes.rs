//! Envoy's routes and filters for the ways through a listener: the same requests take the same way through the same filters.
//!
//! What Envoy has no counterpart of is an error that names its field.

use std::path::Path;

use anyhow::{Result, anyhow};
use edgeweir_host_formats::action::{Action, PathEdit, Redirect, Respond};
use edgeweir_host_formats::route::{PathMatch, without_port};
use http::StatusCode;
use http::uri::PathAndQuery;
use serde_json::{Value as Json, json};

use crate::conditions::{self, Refused, refused};
use crate::ways::{Way, Ways};
use crate::weave::{taken, woven};

/// The longest direct response that Envoy takes unless it is told otherwise (`max_direct_response_body_size_bytes`), bytes.
const BODY: usize = 4_096;
/// A place in Envoy's chain of filters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// What Envoy calls it.
    pub name: String,
    /// The filter in it.
    pub filter: String,
    /// Whether it is on where no route says otherwise: it is one of the listener's own.
    pub on: bool,
}

/// One chain for all ways.
pub(crate) fn places(ways: &Ways) -> Vec<Place> {
    let chain = woven(ways.lists());
    let on = taken(&chain, &ways.filters);
    let place = |(at, (filter, on)): (usize, (&String, bool))| {
        // A route switches filters by their names: each place has its own.
        let before = chain[..at].iter().filter(|it| *it == filter).count();
        let name = match before {
            0 => format!("wasm.{filter}"),
            _ => format!("wasm.{filter}.{}", before + 1),
        };
        let filter = filter.clone();
        Place { name, filter, on }
    };
    chain.iter().zip(on).enumerate().map(place).collect()
}

/// The route configuration: one virtual host for every host, as the host has it, whose routes look at the host themselves.
pub(crate) fn configuration(file: &Path, ways: &Ways, places: &[Place]) -> Result<Json> {
    let mut routes = Vec::new();
    let mut longest = BODY;
    for way in &ways.ways {
        if let Action::Respond(Respond { body, .. }) = &way.action {
            longest = longest.max(body.len());
        }
        routes.push(route(way, places).map_err(|Refused(field, why)| {
            anyhow!(
                "{}: in `{}.{field}`: Envoy {why}",
                file.display(),
                way.field
            )
        })?);
    }
    Ok(json!({
        "name": ways.name,
        "virtual_hosts": [{ "name": ways.name, "domains": ["*"], "routes": routes }],
        "max_direct_response_body_size_bytes": longest
    }))
}

fn route(way: &Way, places: &[Place]) -> Result<Json, Refused> {
    let mut route = json!({ "name": way.name, "match": conditions::of(&way.wanted)? });
    match &way.action {
        Action::Forward(upstreams) => {
            let [(_, upstream)] = upstreams.as_slice() else {
                return refused("upstream", "gets one cluster of a route");
            };
            let mut forward = json!({ "cluster": upstream.value, "timeout": "60s" });
            rewrite(&mut forward, &way.path, &way.wanted.path)?;
            route["route"] = forward;
        }
        Action::Redirect(to) => route["redirect"] = redirect(to, way)?,
        Action::Respond(Respond { status, body }) => {
            let mut answer = json!({ "status": status.as_u16() });
            if !body.is_empty() {
                answer["body"] = json!({ "inline_string": body });
            }
            route["direct_response"] = answer;
        }
    }
    let chain: Vec<String> = places.iter().map(|place| place.filter.clone()).collect();
    let switched = places.iter().zip(taken(&chain, &way.filters));
    let switched: serde_json::Map<_, _> = switched
        .filter(|(place, on)| place.on != *on)
        .map(|(place, on)| (place.name.clone(), switch(on)))
        .collect();
    if !switched.is_empty() {
        route["typed_per_filter_config"] = switched.into();
    }
    Ok(route)
}

/// Switches a filter for a route: an empty `config` is what switches one on ("Route based filter chain" of Envoy's documentation,
/// intro/arch_overview/http/http_filters).
fn switch(on: bool) -> Json {
    let mut config = json!({ "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig" });
    match on {
        true => config["config"] = json!({}),
        false => config["disabled"] = true.into(),
    }
    config
}

/// What becomes of the path, in an action that forwards or redirects.
fn rewrite(action: &mut Json, edit: &PathEdit, matched: &PathMatch) -> Result<(), Refused> {
    let to = match edit {
        PathEdit::Keep => return Ok(()),
        PathEdit::Prefix(to) => to,
        _ => return refused("rewrite", "gets no such rewrite from here"),
    };
    // The host puts it in place of the path; Envoy looks at path and query as one and takes any text.
    let sound =
        to.is_empty() || PathAndQuery::try_from(to.as_str()).is_ok_and(|read| read.path() == to);
    if !sound {
        return refused("rewrite", format!("takes paths alone: \"{to}\" is none"));
    }
    let by = |pattern: String, to: &str| {
        // RE2 reads `\1` as a group.
        let to = to.replace('\\', "\\\\");
        json!({ "pattern": { "regex": pattern }, "substitution": to })
    };
    match matched {
        PathMatch::Exact(_) => action["prefix_rewrite"] = to.as_str().into(),
        PathMatch::Below(prefix) if !prefix.is_empty() => match to.as_str() {
            // An empty `prefix_rewrite` is none, and `/` would leave `//b` of `/a/b`.
            "" => action["regex_rewrite"] = by(format!("^{}/?", regex::escape(prefix)), "/"),
            to => action["prefix_rewrite"] = to.into(),
        },
        PathMatch::Any | PathMatch::Below(_) if to.is_empty() => {}
        PathMatch::Any | PathMatch::Below(_) => {
            action["regex_rewrite"] = by("^/".to_owned(), &format!("{to}/"));
        }
        _ => return refused("rewrite", "gets no such rewrite from here"),
    }
    Ok(())
}

fn redirect(to: &Redirect, way: &Way) -> Result<Json, Refused> {
    let status = to.status.unwrap_or(StatusCode::MOVED_PERMANENTLY);
    let code = match status.as_u16() {
        301 => "MOVED_PERMANENTLY",
        302 => "FOUND",
        303 => "SEE_OTHER",
        307 => "TEMPORARY_REDIRECT",
        308 => "PERMANENT_REDIRECT",
        _ => return refused("redirect.status", format!("redirects with no {status}")),
    };
    let mut redirect = json!({ "response_code": code });
    if let Some(scheme) = &to.scheme {
        redirect["scheme_redirect"] = scheme.as_str().into();
    }
    if let Some(host) = &to.host {
        if host.is_empty() {
            return refused("redirect.host", "takes an empty one for none");
        }
        redirect["host_redirect"] = host.as_str().into();
    }
    // A host that brings its own port keeps it; Envoy would write both.
    let brings = |host: &String| without_port(host) != host;
    if let Some(port) = to.port
        && !to.host.as_ref().is_some_and(brings)
    {
        redirect["port_redirect"] = port.into();
    }
    match &to.path {
        PathEdit::Whole(path) if path.is_empty() => {
            return refused("redirect.path", "takes an empty one for none");
        }
        PathEdit::Whole(path) => redirect["path_redirect"] = path.as_str().into(),
        // What is behind the filters changes the path before it is told.
        _ => rewrite(&mut redirect, &way.path, &way.wanted.path)?,
    }
    if to.strip_query {
        redirect["strip_query"] = true.into();
    }
    Ok(redirect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::Edge;

    const TOML: &str = r#"
[upstream.one]
address = "127.0.0.1:1"
[upstream.two]
address = "127.0.0.1:2"
[filter.a]
module = "a.wasm"
[filter.b]
module = "b.wasm"
config = { x = 1 }
[filter.c]
module = "c.wasm"
[[listener]]
name = "main"
listen = "127.0.0.1:0"
filters = ["a", "b"]
"#;

    fn ways(routes: &str) -> Result<Ways> {
        let file = tempfile::NamedTempFile::with_suffix(".toml")?;
        std::fs::write(file.path(), format!("{TOML}{routes}"))?;
        Ways::of(&Edge::read(file.path())?, None)
    }

    fn made(routes: &str) -> Result<Json> {
        let ways = ways(routes)?;
        let all = configuration(Path::new("edge.toml"), &ways, &places(&ways))?;
        Ok(all["virtual_hosts"][0]["routes"].clone())
    }

    #[test]
    fn actions_are_envoys() {
        for (name, route, field, want) in [
            (
                "an upstream",
                "upstream = \"two\"",
                "/route/cluster",
                json!("two"),
            ),
            (
                "its name",
                "name = \"r\"\nupstream = \"two\"",
                "/name",
                json!("r"),
            ),
            (
                "rewrite of a path",
                "path = \"/a\"\nrewrite = \"/b\"\nupstream = \"one\"",
                "/route/prefix_rewrite",
                json!("/b"),
            ),
            (
                "rewrite of a prefix",
                "prefix = \"/a/\"\nrewrite = \"/b/\"\nupstream = \"one\"",
                "/route/prefix_rewrite",
                json!("/b"),
            ),
            (
                "a prefix goes",
                "prefix = \"/a.b\"\nrewrite = \"/\"\nupstream = \"one\"",
                "/route/regex_rewrite",
                json!({ "pattern": { "regex": "^/a\\.b/?" }, "substitution": "/" }),
            ),
            (
                "a prefix comes",
                "prefix = \"/\"\nrewrite = \"/b\"\nupstream = \"one\"",
                "/route/regex_rewrite",
                json!({ "pattern": { "regex": "^/" }, "substitution": "/b/" }),
            ),
            (
                "redirect",
                "redirect = { status = 308, scheme = \"https\", host = \"h\", port = 81, path = \"/p\" }",
                "/redirect",
                json!({ "response_code": "PERMANENT_REDIRECT", "scheme_redirect": "https", "host_redirect": "h",
                    "port_redirect": 81, "path_redirect": "/p" }),
            ),
            (
                "redirect to a host with a port",
                "redirect = { host = \"h:80\", port = 81 }",
                "/redirect",
                json!({ "response_code": "MOVED_PERMANENTLY", "host_redirect": "h:80" }),
            ),
            (
                "redirect of a prefix",
                "prefix = \"/a\"\nrewrite = \"/b\"\nredirect = {}",
                "/redirect",
                json!({ "response_code": "MOVED_PERMANENTLY", "prefix_rewrite": "/b" }),
            ),
            (
                "answer",
                "respond = { status = 418, body = \"tea\" }",
                "/direct_response",
                json!({ "status": 418, "body": { "inline_string": "tea" } }),
            ),
        ] {
            let routes = made(&format!("[[listener.route]]\n{route}\n")).expect(name);
            assert_eq!(routes[0].pointer(field), Some(&want), "{name}: {routes}");
            assert_eq!(routes.as_array().map(Vec::len), Some(1), "{name}");
        }
    }

    #[test]
    fn what_envoy_has_not_is_an_error_with_its_field() {
        for (route, want) in [
            (
                "path = \"/a\"\nrewrite = \"/b?c\"\nupstream = \"one\"",
                "edge.toml: in `listener[0].route[0].rewrite`: Envoy takes paths alone: \"/b?c\" is none",
            ),
            (
                "headers = { x-envoy-a = \"h\" }\nupstream = \"one\"",
                "in `listener[0].route[0].headers.x-envoy-a`: Envoy and the host do not see the same",
            ),
            (
                "redirect = { host = \"\" }",
                "in `listener[0].route[0].redirect.host`: Envoy takes an empty one",
            ),
            // What is wrong on the host is wrong here.
            (
                "path = \"a\"\nupstream = \"one\"",
                "in `listener[0].route[0].path`: \"a\" does not begin with `/`",
            ),
            (
                "headers = { host = \"h\" }\nupstream = \"one\"",
                "in `listener[0].route[0].headers.host`: whom a request is for stands in `hosts`",
            ),
            (
                "upstream = \"three\"",
                "in `listener[0].route[0].upstream`: there is no [upstream.three]",
            ),
            (
                "respond = { status = 99 }",
                "in `listener[0].route[0].respond.status`: 99 is out of bounds",
            ),
            (
                "paht = \"/\"",
                "in `listener[0].route[0].paht`: unknown field `paht`",
            ),
            (
                "filters = []",
                "in `listener[0].route[0].upstream`: neither it nor the listener",
            ),
        ] {
            let error = made(&format!("[[listener.route]]\n{route}\n")).expect_err(route);
            assert!(error.to_string().contains(want), "{route}: {error}");
        }
    }

    #[test]
    fn routes_switch_filters() {
        let routes = r#"
[[listener.route]]
name = "own"
respond = { status = 200 }
[[listener.route]]
name = "none"
respond = { status = 200 }
filters = []
[[listener.route]]
name = "more"
respond = { status = 200 }
filters = ["b", "c", "a"]
[[listener.route]]
name = "config"
respond = { status = 200 }
config.b = { x = 2 }
"#;
        let ways = ways(routes).expect("ways");
        let places = places(&ways);
        let shown: Vec<String> = places
            .iter()
            .map(|place| format!("{}{}", if place.on { "" } else { "!" }, place.name))
            .collect();
        assert_eq!(
            shown.join(" "),
            "!wasm.b !wasm.c wasm.a !wasm.b@config wasm.b.2"
        );
        let made = configuration(Path::new("edge.toml"), &ways, &places).expect("routes");
        let of = |at: usize| {
            let route = &made["virtual_hosts"][0]["routes"][at];
            let switched = route["typed_per_filter_config"].as_object();
            let switched = switched.into_iter().flatten().map(|(name, config)| {
                let kind = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
                assert_eq!(config["@type"], kind);
                let on = config["config"] == json!({});
                assert_eq!(config["disabled"] == true, !on, "{config}");
                format!("{}{name}", if on { "" } else { "!" })
            });
            let mut switched: Vec<String> = switched.collect();
            switched.sort();
            switched.join(" ")
        };
        assert_eq!(of(0), "");
        assert_eq!(of(1), "!wasm.a !wasm.b.2");
        assert_eq!(of(2), "!wasm.b.2 wasm.b wasm.c");
        assert_eq!(of(3), "!wasm.b.2 wasm.b@config");
    }
}
