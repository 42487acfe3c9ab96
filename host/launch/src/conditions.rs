//! What a request must be like to take a route, as Envoy's `match`.

use edgeweir_host_formats::route::{HostPattern, Match, NamedMatch, PathMatch, TextMatch};
use http::Method;
use regex_syntax::ast;
use serde_json::{Value as Json, json};

/// Fields that a route of the host looks at and Envoy has written, renamed or taken away by then, or the other way round: see
/// "HTTP header manipulation" of Envoy's documentation (configuration/http/http_conn_man/headers) and RFC 9110 §7.6.1.
const OF_THE_PROXY: [&str; 11] = [
    "connection",
    "edgeweir-emergency",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
    "x-envoy-*",
];

/// What has no counterpart in Envoy: which field, and why.
pub(crate) struct Refused(pub String, pub String);

/// Says so.
pub(crate) fn refused<T>(field: &str, why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(field.to_owned(), why.into()))
}

/// The `match` of a route.
pub(crate) fn of(wanted: &Match) -> Result<Json, Refused> {
    let mut all = path(&wanted.path)?;
    let mut headers: Vec<Json> = Vec::new();
    headers.extend(hosts(&wanted.hosts));
    headers.extend(methods(&wanted.methods));
    for field in &wanted.fields {
        headers.push(self::field(field)?);
    }
    if wanted.ignore_case || !wanted.query.is_empty() {
        return refused(
            "query",
            "gets neither a query nor a path of either case from here",
        );
    }
    if !headers.is_empty() {
        all["headers"] = headers.into();
    }
    Ok(all)
}

fn path(wanted: &PathMatch) -> Result<Json, Refused> {
    Ok(match wanted {
        PathMatch::Any => json!({ "prefix": "/" }),
        PathMatch::Exact(path) => json!({ "path": path }),
        PathMatch::Prefix(prefix) => json!({ "prefix": prefix }),
        // `prefix = "//"` means what `prefix = "/"` does.
        PathMatch::Below(prefix) if prefix.is_empty() => json!({ "prefix": "/" }),
        PathMatch::Below(prefix) if prefix.contains(['?', '#']) => {
            return refused("prefix", format!("takes no `?` or `#` in \"{prefix}\""));
        }
        PathMatch::Below(prefix) => json!({ "path_separated_prefix": prefix }),
        PathMatch::Regex(expression) => {
            known_to_re2(expression.as_str())
                .map_err(|why| Refused("regex".to_owned(), why.to_owned()))?;
            json!({ "safe_regex": { "regex": expression.as_str() } })
        }
        PathMatch::Segments(pattern) => {
            json!({ "safe_regex": { "regex": pattern.expression() } })
        }
    })
}

/// Whether RE2 reads an expression as the host does. What it does not know at all it says itself, before it serves; this is what
/// it would read as something else.
fn known_to_re2(expression: &str) -> Result<(), &'static str> {
    struct Look;
    impl ast::Visitor for Look {
        type Output = ();
        type Err = &'static str;

        fn finish(self) -> Result<(), &'static str> {
            Ok(())
        }

        fn visit_pre(&mut self, part: &ast::Ast) -> Result<(), &'static str> {
            let flags = match part {
                ast::Ast::Flags(set) => Some(&set.flags),
                ast::Ast::Group(group) => group.flags(),
                _ => None,
            };
            let known = |flag: ast::Flag| {
                use ast::Flag::{CaseInsensitive, DotMatchesNewLine, MultiLine, SwapGreed};
                matches!(
                    flag,
                    CaseInsensitive | DotMatchesNewLine | MultiLine | SwapGreed
                )
            };
            let mut flags = flags.into_iter().flat_map(|flags| &flags.items);
            let strange = flags.any(|item| match item.kind {
                ast::FlagsItemKind::Negation => false,
                ast::FlagsItemKind::Flag(flag) => !known(flag),
            });
            match strange {
                true => Err("knows no flags but `i`, `m`, `s` and `U`"),
                false => Ok(()),
            }
        }

        fn visit_class_set_item_pre(
            &mut self,
            item: &ast::ClassSetItem,
        ) -> Result<(), &'static str> {
            match item {
                ast::ClassSetItem::Bracketed(_) => Err("knows no class within a class"),
                _ => Ok(()),
            }
        }

        fn visit_class_set_binary_op_pre(
            &mut self,
            _: &ast::ClassSetBinaryOp,
        ) -> Result<(), &'static str> {
            Err("knows no `&&`, `--` or `~~` in a class")
        }
    }
    match ast::parse::Parser::new().parse(expression) {
        Ok(parsed) => ast::visit(&parsed, Look),
        Err(_) => Err("gets an expression that was read by another parser"),
    }
}

/// Hosts are conditions of a route, not virtual hosts: those would come before the order of the routes. A pattern without a port
/// is of any port. Letters of either case are the same.
fn hosts(wanted: &[HostPattern]) -> Option<Json> {
    let alternatives: Option<Vec<String>> = wanted
        .iter()
        .map(|pattern| match pattern {
            HostPattern::Any => None,
            HostPattern::Exact(name) => Some(format!("{}(?::[0-9]*)?", regex::escape(name))),
            HostPattern::Suffix(end) => Some(format!(".+{}(?::[0-9]*)?", regex::escape(end))),
            HostPattern::Prefix(start) => Some(format!("{}.+", regex::escape(start))),
        })
        .collect();
    let alternatives = alternatives.filter(|all| !all.is_empty())?;
    let expression = format!("(?i)(?:{})", alternatives.join("|"));
    Some(of_header(
        ":authority",
        json!({ "safe_regex": { "regex": expression } }),
    ))
}

fn methods(wanted: &[Method]) -> Option<Json> {
    match wanted {
        [] => None,
        [one] => Some(of_header(":method", json!({ "exact": one.as_str() }))),
        many => {
            let names: Vec<String> = many.iter().map(|it| regex::escape(it.as_str())).collect();
            let expression = names.join("|");
            Some(of_header(
                ":method",
                json!({ "safe_regex": { "regex": expression } }),
            ))
        }
    }
}

fn field(wanted: &NamedMatch) -> Result<Json, Refused> {
    let name = wanted.name.as_str();
    let field = format!("headers.{name}");
    let is = |known: &&str| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *known,
    };
    if OF_THE_PROXY.iter().any(is) {
        let why = format!("and the host do not see the same `{name}`: it is of the proxy");
        return refused(&field, why);
    }
    let mut header = match &wanted.value {
        TextMatch::Present => json!({ "name": name, "present_match": true }),
        TextMatch::Exact(text) => of_header(
            name,
            json!({ "exact": text, "ignore_case": wanted.ignore_case }),
        ),
        _ => return refused(&field, "gets no such condition from here"),
    };
    if wanted.invert {
        header["invert_match"] = true.into();
    }
    Ok(header)
}

fn of_header(name: &str, text: Json) -> Json {
    json!({ "name": name, "string_match": text })
}

#[cfg(test)]
mod tests {
    use edgeweir_host_formats::route::{Segments, field_name, whole};

    use super::*;

    fn text(wanted: Match) -> String {
        match of(&wanted) {
            Ok(json) => json.to_string(),
            Err(Refused(field, why)) => format!("{field}: Envoy {why}"),
        }
    }

    #[test]
    fn conditions_are_envoys() {
        let path = |path| Match {
            path,
            ..Match::default()
        };
        let regex = |text| path(PathMatch::Regex(whole(text).expect("an expression")));
        let field = |name: &str, value| Match {
            fields: vec![NamedMatch {
                name: field_name(name).expect("a name"),
                value,
                ignore_case: false,
                invert: false,
            }],
            ..Match::default()
        };
        let hosts = |all: &[&str]| {
            let hosts = all
                .iter()
                .map(|host| HostPattern::parse(host).expect("a host"));
            Match {
                hosts: hosts.collect(),
                ..Match::default()
            }
        };
        let below = |prefix: &str| path(PathMatch::Below(prefix.to_owned()));
        let segments = Segments::parse("/u/:id/...").expect("a pattern");
        let methods = Match {
            methods: vec![Method::GET, Method::HEAD],
            ..Match::default()
        };
        for (name, wanted, want) in [
            ("all", Match::default(), r#"{"prefix":"/"}"#),
            (
                "path",
                path(PathMatch::Exact("/a".into())),
                r#"{"path":"/a"}"#,
            ),
            ("prefix", below("/a"), r#"{"path_separated_prefix":"/a"}"#),
            ("prefix of all", below(""), r#"{"prefix":"/"}"#),
            (
                "prefix with a query",
                below("/a?b"),
                "prefix: Envoy takes no `?` or `#` in \"/a?b\"",
            ),
            (
                "regex",
                regex("/[a-z]+"),
                r#"{"safe_regex":{"regex":"^(?:/[a-z]+)$"}}"#,
            ),
            (
                "another language",
                regex("/[a-z&&[^b]]"),
                "regex: Envoy knows no `&&`, `--` or `~~` in a class",
            ),
            (
                "nested",
                regex("/[a[bc]]"),
                "regex: Envoy knows no class within a class",
            ),
            (
                "flags",
                regex("(?x) / a"),
                "regex: Envoy knows no flags but `i`, `m`, `s` and `U`",
            ),
            (
                "pattern",
                path(PathMatch::Segments(segments)),
                r#"{"safe_regex":{"regex":"/+u/+[^/]+(?:/.*)?"}}"#,
            ),
            (
                "hosts",
                hosts(&["a.test", "*.b.test:81", "c.*"]),
                r#"{"headers":[{"name":":authority","string_match":{"safe_regex":{"regex":"(?i)(?:a\\.test(?::[0-9]*)?|.+\\.b\\.test:81(?::[0-9]*)?|c\\..+)"}}}],"prefix":"/"}"#,
            ),
            ("every host", hosts(&["a.test", "*"]), r#"{"prefix":"/"}"#),
            (
                "methods",
                methods,
                r#"{"headers":[{"name":":method","string_match":{"safe_regex":{"regex":"GET|HEAD"}}}],"prefix":"/"}"#,
            ),
            (
                "field",
                field("x-a", TextMatch::Exact("1".into())),
                r#"{"headers":[{"name":"x-a","string_match":{"exact":"1","ignore_case":false}}],"prefix":"/"}"#,
            ),
            (
                "any value",
                field("x-a", TextMatch::Present),
                r#"{"headers":[{"name":"x-a","present_match":true}],"prefix":"/"}"#,
            ),
            (
                "the proxy's",
                field("x-envoy-a", TextMatch::Present),
                "headers.x-envoy-a: Envoy and the host do not see the same `x-envoy-a`: it is of the proxy",
            ),
        ] {
            assert_eq!(text(wanted), want, "{name}");
        }
    }
}
