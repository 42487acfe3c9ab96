//! Routes: which of a listener's ways a request takes, by host, path, method and fields.
//!
//! Virtual hosts are chosen as Envoy chooses them: an exact name before a suffix (`*.x`), a suffix before a prefix (`x.*`),
//! the longest first, `*` last. Within one the first route that matches is taken.

use http::{HeaderMap, HeaderName, Method};
use regex::bytes::{Regex, RegexBuilder};

/// The size a compiled expression may have, bytes.
const REGEX: usize = 1 << 20;

/// A host, or a family of hosts. Matched without regard to case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostPattern {
    /// `*`.
    Any,
    /// `example.org`, or with a port.
    Exact(String),
    /// `*.example.org`: what ends with `.example.org`.
    Suffix(String),
    /// `example.*`: what begins with `example.`.
    Prefix(String),
}

impl HostPattern {
    /// Reads a pattern; the error says what one looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let refuse = || {
            Err(format!(
                "\"{text}\" is no host: `example.org`, `*.example.org`, `example.*` or `*`"
            ))
        };
        if lower == "*" {
            return Ok(Self::Any);
        }
        let inner = lower.trim_matches('*');
        if inner.is_empty() || inner.contains('*') || inner.contains(char::is_whitespace) {
            return refuse();
        }
        match (lower.strip_prefix('*'), lower.strip_suffix('*')) {
            (Some(_), Some(_)) => refuse(),
            (Some(rest), None) if rest == inner => Ok(Self::Suffix(rest.to_owned())),
            (None, Some(rest)) if rest == inner => Ok(Self::Prefix(rest.to_owned())),
            (None, None) => Ok(Self::Exact(lower)),
            _ => refuse(),
        }
    }

    /// Whether a host in lower case is one of them. The part a `*` stands for is not empty.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host == name,
            Self::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Prefix(prefix) => host.len() > prefix.len() && host.starts_with(prefix.as_str()),
        }
    }

    /// The higher, the earlier it is tried.
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Exact(name) => (3, name.len()),
            Self::Suffix(suffix) => (2, suffix.len()),
            Self::Prefix(prefix) => (1, prefix.len()),
            Self::Any => (0, 0),
        }
    }
}

/// A text that a value must be like.
#[derive(Clone, Debug)]
pub enum TextMatch {
    /// There, whatever it is.
    Present,
    /// The very text.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// A part of it.
    Contains(String),
    /// The whole of it, by an expression.
    Regex(Regex),
}

impl TextMatch {
    fn matches(&self, text: &str, ignore_case: bool) -> bool {
        let low = |text: &str| {
            if ignore_case {
                text.to_ascii_lowercase()
            } else {
                text.to_owned()
            }
        };
        match self {
            Self::Present => true,
            Self::Exact(want) => low(text) == low(want),
            Self::Prefix(want) => low(text).starts_with(&low(want)),
            Self::Suffix(want) => low(text).ends_with(&low(want)),
            Self::Contains(want) => low(text).contains(&low(want)),
            Self::Regex(want) => want.is_match(text.as_bytes()),
        }
    }
}

/// A condition on a field or a query parameter.
#[derive(Clone, Debug)]
pub struct NamedMatch {
    /// The name, in lower case for a field; `:method`, `:path` and `:authority` are what they are in HTTP/2, and `host` is
    /// `:authority`.
    pub name: String,
    /// What its value must be like.
    pub value: TextMatch,
    /// Letters of either case are the same.
    pub ignore_case: bool,
    /// It must not be so. The value of a field that is absent is neither like nor unlike anything.
    pub invert: bool,
}

/// What a path must be like; the query is no part of it.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Every path.
    Any,
    /// This one.
    Exact(String),
    /// What begins so: `/a` is a prefix of `/ab`.
    Prefix(String),
    /// This path and those below it: `/a` of `/a` and `/a/b`, not of `/ab`.
    Below(String),
    /// The whole path, by an expression.
    Regex(Regex),
    /// Segment by segment, as in Spin: `/a/:name/...`.
    Segments(Segments),
}

/// A pattern of segments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segments {
    parts: Vec<Segment>,
    /// It ends with `/...`: more may follow.
    open: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    Literal(String),
    Named(String),
}

impl Segments {
    /// Reads `/a/:name/...`, which may end with `/*` as well; the error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("\"{text}\" is no route: {why}"));
        if !text.starts_with('/') {
            return refuse("it does not begin with `/`");
        }
        let mut parts = Vec::new();
        let mut open = false;
        for part in text.split('/').filter(|part| !part.is_empty()) {
            if open {
                return refuse("`...` or `*` stands at its end only");
            }
            match part.strip_prefix(':') {
                _ if matches!(part, "..." | "*") => open = true,
                Some("") => return refuse("`:` needs a name behind it"),
                Some(name) => parts.push(Segment::Named(name.to_owned())),
                None => parts.push(Segment::Literal(part.to_owned())),
            }
        }
        Ok(Self { parts, open })
    }

    /// The named segments of a path and what the `...` stands for; `None` if the path does not match.
    pub fn bind<'a>(&self, path: &'a str) -> Option<(Vec<(&str, &'a str)>, &'a str)> {
        let mut rest = path;
        let mut bound = Vec::new();
        for part in &self.parts {
            let from = rest.trim_start_matches('/');
            let end = from.find('/').unwrap_or(from.len());
            let (segment, after) = (from.get(..end)?, from.get(end..)?);
            match part {
                Segment::Literal(want) if want == segment => {}
                Segment::Named(name) if !segment.is_empty() => bound.push((name.as_str(), segment)),
                _ => return None,
            }
            rest = after;
        }
        if self.open || rest.trim_matches('/').is_empty() {
            Some((bound, if self.open { rest } else { "" }))
        } else {
            None
        }
    }

    /// An expression for the whole of the paths that [`bind`](Self::bind).
    pub fn expression(&self) -> String {
        let parts = self.parts.iter().map(|part| match part {
            Segment::Literal(text) => format!("/+{}", regex::escape(text)),
            Segment::Named(_) => "/+[^/]+".to_owned(),
        });
        let end = if self.open { "(?:/.*)?" } else { "/*" };
        parts.chain([end.to_owned()]).collect()
    }

    /// What stands before the first name or `...`: the base of what the `...` stands for.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// The higher, the earlier it is tried: literals before names from the left, longer before shorter, closed before open.
    pub fn rank(&self) -> (Vec<u8>, bool) {
        let mut kinds: Vec<u8> = self
            .parts
            .iter()
            .map(|part| match part {
                Segment::Literal(_) => 3,
                Segment::Named(_) => 2,
            })
            .collect();
        kinds.push(u8::from(self.open));
        (kinds, !self.open)
    }
}

/// What a request must be like to take a way.
#[derive(Clone, Debug)]
pub struct Match {
    /// One of these; any if there is none.
    pub hosts: Vec<HostPattern>,
    /// Its path.
    pub path: PathMatch,
    /// Letters of the path of either case are the same.
    pub ignore_case: bool,
    /// One of these; any if there is none.
    pub methods: Vec<Method>,
    /// All of these.
    pub fields: Vec<NamedMatch>,
    /// All of these.
    pub query: Vec<NamedMatch>,
}

impl Default for Match {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            path: PathMatch::Any,
            ignore_case: false,
            methods: Vec::new(),
            fields: Vec::new(),
            query: Vec::new(),
        }
    }
}

/// What is looked at of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Whom it is for, with its port if it has one.
    pub authority: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The query, without `?`.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The fields.
    pub fields: &'a HeaderMap,
}

impl Match {
    /// Whether a request is like this.
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        let path = || match &self.path {
            PathMatch::Any => true,
            PathMatch::Exact(want) if self.ignore_case => asked.path.eq_ignore_ascii_case(want),
            PathMatch::Exact(want) => asked.path == want,
            PathMatch::Prefix(want) => begins(asked.path, want, self.ignore_case),
            PathMatch::Below(want) => {
                let rest = asked.path.get(want.len()..);
                begins(asked.path, want, self.ignore_case)
                    && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            PathMatch::Regex(want) => want.is_match(asked.path.as_bytes()),
            PathMatch::Segments(want) => want.bind(asked.path).is_some(),
        };
        let host = || {
            let host = asked.authority.to_ascii_lowercase();
            self.hosts
                .iter()
                .any(|pattern| matches_host(pattern, &host))
        };
        (self.methods.is_empty() || self.methods.contains(asked.method))
            && path()
            && (self.hosts.is_empty() || host())
            && self.fields.iter().all(|field| of_field(field, asked))
            && self
                .query
                .iter()
                .all(|parameter| of_query(parameter, asked.query))
    }
}

/// A pattern without a port is of any port; one with a port of that one.
fn matches_host(pattern: &HostPattern, authority: &str) -> bool {
    pattern.matches(authority) || pattern.matches(without_port(authority))
}

/// The host of an authority: without its port.
pub fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // An IPv6 address has its colons in brackets.
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

fn begins(path: &str, want: &str, ignore_case: bool) -> bool {
    match path.get(..want.len()) {
        Some(start) if ignore_case => start.eq_ignore_ascii_case(want),
        Some(start) => start == want,
        None => false,
    }
}

fn of_field(field: &NamedMatch, asked: &Asked<'_>) -> bool {
    let is = |text: &str| field.value.matches(text, field.ignore_case);
    let found = match field.name.as_str() {
        ":method" => is(asked.method.as_str()),
        // One of both is in a request, and says the same (RFC 9113 §8.3.1).
        ":authority" | "host" => is(asked.authority),
        ":path" => match asked.query {
            Some(query) => is(&format!("{}?{query}", asked.path)),
            None => is(asked.path),
        },
        name => {
            // One of its lines, as in Envoy since 1.39 (`envoy.reloadable_features.match_headers_individually`).
            let mut values = asked.fields.get_all(name).into_iter().peekable();
            // There, no value of a field that is absent is like anything, nor unlike it.
            if values.peek().is_none() && !matches!(field.value, TextMatch::Present) {
                return false;
            }
            values.any(|value| is(&String::from_utf8_lossy(value.as_bytes())))
        }
    };
    found != field.invert
}

fn of_query(parameter: &NamedMatch, query: Option<&str>) -> bool {
    let value = query.unwrap_or_default().split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == parameter.name).then_some(value)
    });
    let found = value.is_some_and(|value| parameter.value.matches(value, parameter.ignore_case));
    found != parameter.invert
}

/// Compiles an expression that the whole of a text must match; in time linear in the text.
pub fn whole(expression: &str) -> Result<Regex, String> {
    part(&format!("^(?:{expression})$")).map_err(|_| match part(expression) {
        Err(error) => error,
        Ok(_) => format!("\"{expression}\" is too large"),
    })
}

/// Compiles an expression that a part of a text may match.
pub fn part(expression: &str) -> Result<Regex, String> {
    RegexBuilder::new(expression)
        .size_limit(REGEX)
        .unicode(false)
        .build()
        .map_err(|error| format!("\"{expression}\" is no regular expression: {error}"))
}

/// A name of a field for a [`NamedMatch`].
pub fn field_name(text: &str) -> Result<String, String> {
    HeaderName::from_bytes(text.as_bytes())
        .map(|name| name.as_str().to_owned())
        .map_err(|_| format!("\"{text}\" is no name of a field"))
}

/// A family of hosts with its ways.
#[derive(Clone, Debug)]
pub struct VirtualHost<T> {
    /// Its name.
    pub name: String,
    /// Whom it answers for.
    pub domains: Vec<HostPattern>,
    /// Its ways, the first that matches is taken.
    pub routes: Vec<(Match, T)>,
}

/// The ways of a listener.
#[derive(Clone, Debug)]
pub struct Table<T> {
    /// The domains of all, as they are tried.
    order: Vec<(HostPattern, usize)>,
    virtual_hosts: Vec<VirtualHost<T>>,
    /// The port of an authority counts for nothing.
    ignore_port: bool,
}

impl<T> Table<T> {
    /// The ways of these virtual hosts.
    pub fn new(virtual_hosts: Vec<VirtualHost<T>>, ignore_port: bool) -> Self {
        let mut order: Vec<(HostPattern, usize)> = virtual_hosts
            .iter()
            .enumerate()
            .flat_map(|(at, host)| host.domains.iter().map(move |domain| (domain.clone(), at)))
            .collect();
        order.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.rank()));
        Self {
            order,
            virtual_hosts,
            ignore_port,
        }
    }

    /// The way of a request: the name of its virtual host, and the way if one of its routes matches.
    pub fn find(&self, asked: &Asked<'_>) -> Option<(&str, Option<&T>)> {
        let mut host = asked.authority.to_ascii_lowercase();
        if self.ignore_port {
            host.truncate(without_port(&host).len());
        }
        let (_, at) = self
            .order
            .iter()
            .find(|(domain, _)| domain.matches(&host))?;
        let found = self.virtual_hosts.get(*at)?;
        let way = found
            .routes
            .iter()
            .find(|(wanted, _)| wanted.matches(asked))
            .map(|(_, way)| way);
        Some((&found.name, way))
    }

    /// Every way.
    pub fn ways(&self) -> impl Iterator<Item = &T> {
        self.virtual_hosts
            .iter()
            .flat_map(|host| host.routes.iter().map(|(_, way)| way))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(authority: &'a str, path: &'a str, fields: &'a HeaderMap) -> Asked<'a> {
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path, None),
        };
        Asked {
            authority,
            path,
            query,
            method: &Method::GET,
            fields,
        }
    }

    #[test]
    fn hosts_are_read_and_matched() {
        for (name, text, host, want) in [
            ("exact", "Example.org", "example.org", Ok(true)),
            (
                "exact with a port",
                "example.org:80",
                "example.org:80",
                Ok(true),
            ),
            ("another", "example.org", "www.example.org", Ok(false)),
            ("suffix", "*.example.org", "www.example.org", Ok(true)),
            (
                "suffix is not itself",
                "*.example.org",
                ".example.org",
                Ok(false),
            ),
            (
                "suffix with a dash",
                "*-bar.foo.com",
                "x-bar.foo.com",
                Ok(true),
            ),
            ("prefix", "example.*", "example.net", Ok(true)),
            ("any", "*", "whatever:1", Ok(true)),
            ("in the middle", "a*b", "", Err(())),
            ("both ends", "*a*", "", Err(())),
            ("two", "**", "", Err(())),
            ("nothing", "", "", Err(())),
        ] {
            let got = HostPattern::parse(text).map(|pattern| pattern.matches(host));
            assert_eq!(got.map_err(drop), want, "{name}");
        }
    }

    #[test]
    fn paths_match_as_their_kind_says() {
        let fields = HeaderMap::new();
        let segments = |text| PathMatch::Segments(Segments::parse(text).unwrap());
        for (name, path, asks, want) in [
            ("exact", PathMatch::Exact("/a".into()), "/a?b", true),
            ("exact, longer", PathMatch::Exact("/a".into()), "/a/", false),
            ("prefix", PathMatch::Prefix("/a".into()), "/ab", true),
            ("below, itself", PathMatch::Below("/a".into()), "/a", true),
            ("below", PathMatch::Below("/a".into()), "/a/b", true),
            ("below, beside", PathMatch::Below("/a".into()), "/ab", false),
            (
                "regex is whole",
                PathMatch::Regex(whole("/a.").unwrap()),
                "/abc",
                false,
            ),
            (
                "regex",
                PathMatch::Regex(whole("/a|/b").unwrap()),
                "/b?x",
                true,
            ),
            ("segments", segments("/a/:id"), "/a/7", true),
            (
                "segments, slash at the end",
                segments("/a/:id"),
                "/a/7/",
                true,
            ),
            ("segments, none", segments("/a/:id"), "/a", false),
            ("segments, more", segments("/a/:id"), "/a/7/8", false),
            ("open", segments("/a/..."), "/a/7/8", true),
            ("open, itself", segments("/a/..."), "/a", true),
            ("all", segments("/..."), "/", true),
        ] {
            let wanted = Match {
                path,
                ..Match::default()
            };
            assert_eq!(wanted.matches(&asked("h", asks, &fields)), want, "{name}");
        }
    }

    #[test]
    fn conditions_are_all_to_hold() {
        let mut fields = HeaderMap::new();
        fields.append("x-a", "one".parse().unwrap());
        fields.append("x-a", "two".parse().unwrap());
        let field = |name: &str, value, invert| Match {
            fields: vec![NamedMatch {
                name: name.into(),
                value,
                ignore_case: true,
                invert,
            }],
            ..Match::default()
        };
        let query = |value| Match {
            query: vec![NamedMatch {
                name: "q".into(),
                value,
                ignore_case: false,
                invert: false,
            }],
            ..Match::default()
        };
        let method = Match {
            methods: vec![Method::POST],
            ..Match::default()
        };
        for (name, wanted, want) in [
            ("present", field("x-a", TextMatch::Present, false), true),
            ("absent", field("x-b", TextMatch::Present, false), false),
            ("inverted", field("x-b", TextMatch::Present, true), true),
            (
                "absent, and another value is wanted",
                field("x-b", TextMatch::Exact("1".into()), true),
                false,
            ),
            (
                "one of two lines",
                field("x-a", TextMatch::Exact("TWO".into()), false),
                true,
            ),
            (
                "both",
                field("x-a", TextMatch::Exact("one,two".into()), false),
                false,
            ),
            (
                "part",
                field("x-a", TextMatch::Contains("w".into()), false),
                true,
            ),
            ("query", query(TextMatch::Exact("1".into())), true),
            ("query, another", query(TextMatch::Exact("2".into())), false),
            ("method", method, false),
            (
                "whom it is for",
                field("host", TextMatch::Exact("h:1".into()), false),
                true,
            ),
            (
                "the same, as HTTP/2 names it",
                field(":authority", TextMatch::Exact("h:1".into()), false),
                true,
            ),
            (
                "for somebody",
                field("host", TextMatch::Present, false),
                true,
            ),
            (
                "for anybody else",
                field("host", TextMatch::Exact("h".into()), true),
                true,
            ),
        ] {
            assert_eq!(
                wanted.matches(&asked("h:1", "/?q=1&r", &fields)),
                want,
                "{name}"
            );
        }
    }

    #[test]
    fn the_most_particular_virtual_host_answers_alone() {
        let host = |name: &str, domains: &[&str], path: &str| VirtualHost {
            name: name.to_owned(),
            domains: domains
                .iter()
                .map(|it| HostPattern::parse(it).unwrap())
                .collect(),
            routes: vec![(
                Match {
                    path: PathMatch::Prefix(path.into()),
                    ..Match::default()
                },
                name.to_owned(),
            )],
        };
        let hosts = vec![
            host("any", &["*"], "/"),
            host("suffix", &["*.org"], "/"),
            host("longer", &["*.b.org"], "/"),
            host("prefix", &["a.b.*"], "/"),
            host("exact", &["a.b.org", "a.b.org:81"], "/only"),
        ];
        let table = Table::new(hosts.clone(), false);
        let fields = HeaderMap::new();
        for (name, authority, path, want) in [
            ("exact", "a.b.org", "/only", ("exact", Some("exact"))),
            ("exact has no such route", "a.b.org", "/", ("exact", None)),
            ("longest suffix", "c.b.org", "/", ("longer", Some("longer"))),
            ("suffix", "c.org", "/", ("suffix", Some("suffix"))),
            ("prefix", "a.b.net", "/", ("prefix", Some("prefix"))),
            (
                "the port counts",
                "a.b.org:82",
                "/",
                ("prefix", Some("prefix")),
            ),
            (
                "a listed port",
                "A.b.org:81",
                "/only",
                ("exact", Some("exact")),
            ),
            ("any", "x", "/", ("any", Some("any"))),
        ] {
            let got = table.find(&asked(authority, path, &fields)).unwrap();
            assert_eq!((got.0, got.1.map(String::as_str)), want, "{name}");
        }
        let table = Table::new(hosts, true);
        let found = table.find(&asked("a.b.org:82", "/only", &fields)).unwrap();
        assert_eq!(found.0, "exact");
        assert!(
            Table::<()>::new(Vec::new(), false)
                .find(&asked("a", "/", &fields))
                .is_none()
        );
    }

    #[test]
    fn segments_bind_names_and_the_rest() {
        let pattern = Segments::parse("/u/:id/p/...").unwrap();
        assert_eq!(
            pattern.bind("/u/7/p/a/b"),
            Some((vec![("id", "7")], "/a/b"))
        );
        assert_eq!(pattern.bind("/u/7/p"), Some((vec![("id", "7")], "")));
        let paths = [
            "/", "//", "/a", "/a/", "/a/b", "//a//b//", "/a/b/c", "/ab", "/a.b", "/axb", "/a.b/",
        ];
        for text in [
            "/", "/...", "/a", "/a/:x", "/a/b/...", "/:x", "/:x/...", "/a.b",
        ] {
            let pattern = Segments::parse(text).unwrap();
            let expression = whole(&pattern.expression()).unwrap();
            for path in paths {
                let (bound, matched) = (pattern.bind(path), expression.is_match(path.as_bytes()));
                assert_eq!(bound.is_some(), matched, "{text} {path}");
            }
        }
        assert_eq!(Segments::parse("/a/*"), Segments::parse("/a/..."));
        for bad in ["a", "/.../a", "/*/a", "/:"] {
            assert!(Segments::parse(bad).is_err(), "{bad}");
        }
        let mut all =
            ["/...", "/a/...", "/a/:x", "/a/b", "/:x/b"].map(|it| Segments::parse(it).unwrap());
        all.sort_by_key(|it| std::cmp::Reverse(it.rank()));
        let want =
            ["/a/b", "/a/:x", "/a/...", "/:x/b", "/..."].map(|it| Segments::parse(it).unwrap());
        assert_eq!(all, want);
    }
}
