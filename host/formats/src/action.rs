//! What a route does with a request that takes it: send it on, changed or not, redirect it, or answer it.

use http::header::HeaderMap;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use regex::bytes::Regex;

use crate::Placed;
use crate::route::{PathMatch, without_port};

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// It goes to one of these upstreams, by weight.
    Forward(Vec<(u32, Placed<String>)>),
    /// It is told to go elsewhere.
    Redirect(Redirect),
    /// It is answered.
    Respond(Respond),
}

/// A fixed answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Respond {
    /// Its status.
    pub status: StatusCode,
    /// Its body, text.
    pub body: String,
}

/// Where a request is told to go: what is not set stays as it was asked for.
#[derive(Clone, Default, Debug)]
pub struct Redirect {
    /// The status; 301 without one.
    pub status: Option<StatusCode>,
    /// `https` or `http`.
    pub scheme: Option<String>,
    /// The host.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The path.
    pub path: PathEdit,
    /// Leave the query out.
    pub strip_query: bool,
}

/// A change of a path.
#[derive(Clone, Default, Debug)]
pub enum PathEdit {
    /// As it was.
    #[default]
    Keep,
    /// What the route matched of it becomes this.
    Prefix(String),
    /// The whole path; a query in it replaces the request's.
    Whole(String),
    /// Every match of an expression becomes this text, in which `\1` is the first group.
    Regex(Regex, String),
}

impl PathEdit {
    /// The path a request is sent on with; `matched` is how its route looked at it.
    fn apply(&self, path: &str, matched: &PathMatch) -> String {
        match self {
            Self::Keep => path.to_owned(),
            Self::Whole(whole) => whole.clone(),
            Self::Prefix(to) => {
                let length = match matched {
                    PathMatch::Prefix(prefix) | PathMatch::Below(prefix) => prefix.len(),
                    PathMatch::Exact(_) | PathMatch::Regex(_) => path.len(),
                    PathMatch::Any | PathMatch::Segments(_) => 0,
                };
                format!("{to}{}", path.get(length..).unwrap_or_default())
            }
            Self::Regex(pattern, to) => {
                let replaced = pattern.replace_all(path.as_bytes(), to.as_bytes());
                String::from_utf8_lossy(&replaced).into_owned()
            }
        }
    }
}

/// Envoy's substitution (`\1`, `\\`) as this engine's (`${1}`).
pub fn substitution(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match characters.next() {
                Some('\\') => out.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                _ => return Err(format!("\"{text}\": behind `\\` stands a digit or `\\`")),
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

impl Redirect {
    /// The status and the `Location` of the answer to a request that came over plain HTTP or (`tls`) HTTPS.
    pub fn location(&self, uri: &Uri, tls: bool, matched: &PathMatch) -> (StatusCode, String) {
        let before = if tls { "https" } else { "http" };
        let scheme = self.scheme.as_deref().unwrap_or(before);
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let old_host = without_port(authority);
        let old_port = uri.authority().and_then(|authority| authority.port_u16());
        let host = self.host.as_deref().unwrap_or(old_host);
        // A port that was the default of the old scheme would be wrong under the new one, and one of this host says nothing
        // of another (as in Envoy: `Utility::newUri` of source/common/http/utility.cc).
        let default = if before == "https" { 443 } else { 80 };
        let stays = |port: &u16| self.host.is_none() && (scheme == before || *port != default);
        let port = self.port.or(old_port.filter(stays));
        let authority = match port {
            // A host that brings its own port keeps it.
            Some(port) if without_port(host) == host => format!("{host}:{port}"),
            _ => host.to_owned(),
        };
        let path = self.path.apply(uri.path(), matched);
        let query = match uri.query() {
            Some(query) if !self.strip_query && !path.contains('?') => format!("?{query}"),
            _ => String::new(),
        };
        let status = self.status.unwrap_or(StatusCode::MOVED_PERMANENTLY);
        (status, format!("{scheme}://{authority}{path}{query}"))
    }
}

/// What is changed of a message on its way to the upstream and back.
#[derive(Clone, Default, Debug)]
pub struct Edits {
    /// The request's path.
    pub path: PathEdit,
    /// Whom the request is for.
    pub host: Option<String>,
    /// The request's fields, one after the other.
    pub request: Vec<FieldEdits>,
    /// The response's fields, one after the other.
    pub response: Vec<FieldEdits>,
}

impl Edits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        matches!(self.path, PathEdit::Keep)
            && self.host.is_none()
            && self.request.is_empty()
            && self.response.is_empty()
    }

    /// The target of a request, changed; `None` if it would be none.
    pub fn target(&self, uri: &Uri, matched: &PathMatch) -> Option<Uri> {
        let mut parts = uri.clone().into_parts();
        let mut target = self.path.apply(uri.path(), matched);
        if !target.starts_with('/') {
            target.insert(0, '/');
        }
        if let Some(query) = uri.query()
            && !target.contains('?')
        {
            target.push('?');
            target.push_str(query);
        }
        parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
        if let Some(host) = &self.host {
            parts.authority = Some(host.parse().ok()?);
            parts.scheme.get_or_insert(http::uri::Scheme::HTTP);
        }
        Uri::from_parts(parts).ok()
    }
}

/// When a field is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Always, beside what is there.
    Append,
    /// If there is none.
    Absent,
    /// Always, in place of what is there.
    Overwrite,
    /// If there is one, in its place.
    Present,
}

/// Fields to remove, then fields to set: what one level of a configuration (a route, say) changes of a head.
#[derive(Clone, Default, Debug)]
pub struct FieldEdits {
    /// Names that go.
    pub remove: Vec<HeaderName>,
    /// Fields that come.
    pub set: Vec<(HeaderName, HeaderValue, When)>,
}

impl FieldEdits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }

    /// Changes a head. A field beyond what a map can hold is left out.
    ///
    /// As Envoy does it (`HeaderParser::evaluateHeaders` of source/common/router/header_parser.cc): whether a field is
    /// there is asked once, before any is set; what stands in the place of others is set before what stands beside them.
    pub fn apply(&self, fields: &mut HeaderMap) {
        for name in &self.remove {
            fields.remove(name);
        }
        let (mut instead, mut beside) = (Vec::new(), Vec::new());
        for (name, value, when) in &self.set {
            match (when, fields.contains_key(name)) {
                (When::Append, _) | (When::Absent, false) => beside.push((name, value)),
                (When::Overwrite, _) | (When::Present, true) => instead.push((name, value)),
                (When::Absent, true) | (When::Present, false) => {}
            }
        }
        for (name, value) in instead {
            let _ = fields.try_insert(name.clone(), value.clone());
        }
        for (name, value) in beside {
            let _ = fields.try_append(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::part;

    #[test]
    fn redirects_change_what_they_name() {
        let base = Redirect::default;
        for (name, redirect, uri, want) in [
            (
                "to https, default port",
                Redirect {
                    scheme: Some("https".into()),
                    ..base()
                },
                "http://a.org:80/x?y",
                "https://a.org/x?y",
            ),
            (
                "to https, another port stays",
                Redirect {
                    scheme: Some("https".into()),
                    ..base()
                },
                "http://a.org:8080/x",
                "https://a.org:8080/x",
            ),
            (
                "to the scheme it has",
                Redirect {
                    scheme: Some("http".into()),
                    ..base()
                },
                "http://a.org:80/x",
                "http://a.org:80/x",
            ),
            (
                "to another host, whose port is not this one's",
                Redirect {
                    host: Some("b.org".into()),
                    ..base()
                },
                "http://a.org:8080/x",
                "http://b.org/x",
            ),
            (
                "host and port",
                Redirect {
                    host: Some("b.org".into()),
                    port: Some(81),
                    ..base()
                },
                "http://a.org/x",
                "http://b.org:81/x",
            ),
            (
                "path",
                Redirect {
                    path: PathEdit::Whole("/new".into()),
                    ..base()
                },
                "http://a.org/x?y",
                "http://a.org/new?y",
            ),
            (
                "path with a query",
                Redirect {
                    path: PathEdit::Whole("/new?z".into()),
                    ..base()
                },
                "http://a.org/x?y",
                "http://a.org/new?z",
            ),
            (
                "prefix, no query",
                Redirect {
                    path: PathEdit::Prefix("/b".into()),
                    strip_query: true,
                    ..base()
                },
                "http://a.org/a/x?y",
                "http://a.org/b/x",
            ),
        ] {
            let matched = PathMatch::Prefix("/a".into());
            let (status, got) = redirect.location(&uri.parse().unwrap(), false, &matched);
            assert_eq!((status.as_u16(), got.as_str()), (301, want), "{name}");
        }
    }

    #[test]
    fn targets_are_rewritten() {
        let regex =
            |pattern, to| PathEdit::Regex(part(pattern).unwrap(), substitution(to).unwrap());
        for (name, path, host, want) in [
            ("prefix", PathEdit::Prefix("/".into()), None, "http://h/b?q"),
            ("whole", PathEdit::Whole("/w".into()), None, "http://h/w?q"),
            (
                "expression",
                regex("^/a/(.)", r"/\1/$1"),
                None,
                "http://h/b/$1?q",
            ),
            (
                "host",
                PathEdit::Keep,
                Some("other:1"),
                "http://other:1/a/b?q",
            ),
        ] {
            let edits = Edits {
                path,
                host: host.map(str::to_owned),
                ..Edits::default()
            };
            let matched = PathMatch::Prefix("/a/".into());
            let got = edits.target(&"http://h/a/b?q".parse().unwrap(), &matched);
            assert_eq!(got.unwrap().to_string(), want, "{name}");
        }
        assert!(substitution(r"\x").is_err());
    }

    #[test]
    fn fields_are_set_when_they_are_to_be() {
        for (when, there, want) in [
            (When::Append, true, "old,new"),
            (When::Append, false, "new"),
            (When::Absent, true, "old"),
            (When::Absent, false, "new"),
            (When::Overwrite, true, "new"),
            (When::Overwrite, false, "new"),
            (When::Present, true, "new"),
            (When::Present, false, ""),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert("x-gone", HeaderValue::from_static("1"));
            if there {
                fields.insert("x-a", HeaderValue::from_static("old"));
            }
            let edits = FieldEdits {
                remove: vec![HeaderName::from_static("x-gone")],
                set: vec![(
                    HeaderName::from_static("x-a"),
                    HeaderValue::from_static("new"),
                    when,
                )],
            };
            edits.apply(&mut fields);
            let got: Vec<_> = fields
                .get_all("x-a")
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect();
            assert_eq!(got.join(","), want, "{when:?} {there}");
            assert!(!fields.contains_key("x-gone"));
        }
    }

    #[test]
    fn what_is_there_is_asked_before_anything_is_set() {
        let field = |name, value, when| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value), when)
        };
        for (case, set, there, want) in [
            (
                "absent, twice",
                vec![("x-a", "1", When::Absent), ("x-a", "2", When::Absent)],
                None,
                "1,2",
            ),
            (
                "overwritten first",
                vec![
                    ("x-a", "1", When::Append),
                    ("x-a", "2", When::Overwrite),
                    ("x-a", "3", When::Append),
                ],
                Some("0"),
                "2,1,3",
            ),
            (
                "not there before it was set",
                vec![("x-a", "1", When::Overwrite), ("x-a", "2", When::Present)],
                None,
                "1",
            ),
        ] {
            let set = set.into_iter();
            let edits = FieldEdits {
                remove: Vec::new(),
                set: set
                    .map(|(name, value, when)| field(name, value, when))
                    .collect(),
            };
            let mut fields = HeaderMap::new();
            if let Some(there) = there {
                fields.insert("x-a", HeaderValue::from_static(there));
            }
            edits.apply(&mut fields);
            let got = fields.get_all("x-a").iter().map(|it| it.to_str().unwrap());
            assert_eq!(got.collect::<Vec<_>>().join(","), want, "{case}");
        }
    }
}
