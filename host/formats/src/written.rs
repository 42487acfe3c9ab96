//! `[[listener.route]]` of `edgeweir.toml`: as it is written, and what that means.

use std::collections::BTreeMap;
use std::ops::Range;

use http::{Method, StatusCode};
use serde::Deserialize;
use toml::Spanned;

use crate::Placed;
use crate::action::{Action, PathEdit, Redirect, Respond};
use crate::number::Within;
use crate::route::{
    HostPattern, Match, NamedMatch, PathMatch, Segments, TextMatch, field_name, whole,
};

/// `[[listener.route]]`: the first that matches a request is taken.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name, which modules see as `xds.route_name`; default: the listener's.
    pub name: Option<Spanned<String>>,
    /// Whom the request is for: `example.org`, `*.example.org`, `example.*`; any if there is none.
    #[serde(default)]
    pub hosts: Vec<Spanned<String>>,
    /// The very path.
    pub path: Option<Spanned<String>>,
    /// This path and those below it.
    pub prefix: Option<Spanned<String>>,
    /// A regular expression for the whole path.
    pub regex: Option<Spanned<String>>,
    /// Segment by segment: `/a/:name/...`.
    pub pattern: Option<Spanned<String>>,
    /// One of these methods; any if there is none.
    #[serde(default)]
    pub methods: Vec<Spanned<String>>,
    /// Fields the request must have with these values, `"*"` for any value; not Host, which is `hosts`.
    #[serde(default)]
    pub headers: BTreeMap<String, Spanned<String>>,
    /// Where it goes; default: the listener's upstream.
    pub upstream: Option<Spanned<String>>,
    /// What stands in place of `path` or `prefix` on the way to the upstream.
    pub rewrite: Option<Spanned<String>>,
    /// It is told to go elsewhere instead.
    pub redirect: Option<RedirectTo>,
    /// It is answered instead.
    pub respond: Option<Answer>,
    /// Names of filters, outermost first, in place of the listener's.
    pub filters: Option<Vec<Spanned<String>>>,
    /// Configuration of filters in place of their own, by their name.
    #[serde(default)]
    pub config: BTreeMap<String, Spanned<toml::Value>>,
}

/// `redirect` of a route: what is not named stays.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectTo {
    /// 301, 302, 303, 307 or 308.
    pub status: Option<Spanned<u16>>,
    /// `https` or `http`.
    pub scheme: Option<Spanned<String>>,
    /// The host.
    pub host: Option<String>,
    /// The port.
    pub port: Option<Within<1, 65_535>>,
    /// The path.
    pub path: Option<String>,
}

/// `respond` of a route.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The status.
    pub status: Within<200, 599>,
    /// The body, text.
    #[serde(default)]
    pub body: String,
}

/// What a route means.
#[derive(Clone, Debug)]
pub struct Meaning {
    /// The requests that take it.
    pub wanted: Match,
    /// What becomes of them.
    pub action: Action,
    /// What becomes of their path behind the filters.
    pub path: PathEdit,
    /// Its name; the listener's where it has none.
    pub name: String,
    /// Names of filters, outermost first; the listener's where it has none.
    pub filters: Vec<Spanned<String>>,
}

/// What is around a route: its listener, and what there is to name.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The listener's name.
    pub name: &'a Spanned<String>,
    /// The listener's upstream.
    pub upstream: Option<&'a Spanned<String>>,
    /// The listener's filters.
    pub filters: &'a [Spanned<String>],
    /// Every upstream.
    pub upstreams: &'a [&'a str],
    /// Every filter.
    pub known: &'a [&'a str],
}

/// What is wrong with a route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Where it stands in the text.
    pub span: Range<usize>,
    /// The field of the route.
    pub field: String,
    /// What is wrong, with the value and what would be right.
    pub message: String,
}

impl Refusal {
    fn new(span: Range<usize>, field: &str, message: impl Into<String>) -> Self {
        Self {
            span,
            field: field.to_owned(),
            message: message.into(),
        }
    }
}

impl Route {
    /// What it means, or the first thing that is wrong with it.
    pub fn meaning(&self, around: &Around<'_>) -> Result<Meaning, Refusal> {
        let wanted = self.wanted()?;
        let action = self.action(around)?;
        let path = self.rewritten()?;
        let filters = self.filters.as_deref().unwrap_or(around.filters).to_vec();
        self.filters_known(&filters, around)?;
        let name = self.name.as_ref().unwrap_or(around.name).get_ref().clone();
        Ok(Meaning {
            wanted,
            action,
            path,
            name,
            filters,
        })
    }

    /// The name of what it makes of a filter that it configures: `minify@api`, and its place behind that where it is taken.
    pub fn variant(base: &str, name: &str, at: usize, taken: impl Fn(&str) -> bool) -> String {
        let mut variant = format!("{base}@{name}");
        while taken(&variant) {
            variant = format!("{variant}-{at}");
        }
        variant
    }

    fn wanted(&self) -> Result<Match, Refusal> {
        let mut wanted = Match::default();
        for (at, host) in self.hosts.iter().enumerate() {
            let pattern = HostPattern::parse(host.get_ref())
                .map_err(|why| Refusal::new(host.span(), &format!("hosts[{at}]"), why))?;
            wanted.hosts.push(pattern);
        }
        let kinds = [
            ("path", &self.path),
            ("prefix", &self.prefix),
            ("regex", &self.regex),
            ("pattern", &self.pattern),
        ];
        let mut set = kinds
            .iter()
            .filter_map(|(kind, it)| Some((*kind, (*it).as_ref()?)));
        if let Some((kind, text)) = set.next() {
            if let Some((other, text)) = set.next() {
                let message = format!("it has a `{kind}` already: a route has one of them");
                return Err(Refusal::new(text.span(), other, message));
            }
            let value = text.get_ref();
            if kind != "regex" && !value.starts_with('/') {
                let message = format!("\"{value}\" does not begin with `/`");
                return Err(Refusal::new(text.span(), kind, message));
            }
            let refused = |why| Refusal::new(text.span(), kind, why);
            wanted.path = match kind {
                "path" => PathMatch::Exact(value.clone()),
                "prefix" if value == "/" => PathMatch::Any,
                "prefix" => PathMatch::Below(value.trim_end_matches('/').to_owned()),
                "regex" => PathMatch::Regex(whole(value).map_err(refused)?),
                _ => PathMatch::Segments(Segments::parse(value).map_err(refused)?),
            };
        }
        for (at, method) in self.methods.iter().enumerate() {
            let parsed = Method::from_bytes(method.get_ref().as_bytes()).map_err(|_| {
                let message = format!("\"{}\" is no method", method.get_ref());
                Refusal::new(method.span(), &format!("methods[{at}]"), message)
            })?;
            wanted.methods.push(parsed);
        }
        for (name, value) in &self.headers {
            let refused = |why| Refusal::new(value.span(), &format!("headers.{name}"), why);
            if name.eq_ignore_ascii_case("host") {
                let message = "whom a request is for stands in `hosts`";
                return Err(refused(message.to_owned()));
            }
            wanted.fields.push(NamedMatch {
                name: field_name(name).map_err(refused)?,
                value: match value.get_ref().as_str() {
                    "*" => TextMatch::Present,
                    text => TextMatch::Exact(text.to_owned()),
                },
                ignore_case: false,
                invert: false,
            });
        }
        Ok(wanted)
    }

    fn action(&self, around: &Around<'_>) -> Result<Action, Refusal> {
        let span = || around.name.span();
        let actions = [
            self.upstream.is_some(),
            self.redirect.is_some(),
            self.respond.is_some(),
        ];
        if actions.iter().filter(|set| **set).count() > 1 {
            let span = self.upstream.as_ref().map_or_else(span, Spanned::span);
            let message = "a route has one of `upstream`, `redirect` and `respond`";
            return Err(Refusal::new(span, "upstream", message));
        }
        if let Some(redirect) = &self.redirect {
            return redirected(redirect).map(Action::Redirect);
        }
        if let Some(answer) = &self.respond {
            let status = u16::try_from(answer.status.get()).unwrap_or(500);
            return Ok(Action::Respond(Respond {
                status: StatusCode::from_u16(status).unwrap_or_default(),
                body: answer.body.clone(),
            }));
        }
        let Some(upstream) = self.upstream.as_ref().or(around.upstream) else {
            let message = "neither it nor the listener has an `upstream`";
            return Err(Refusal::new(span(), "upstream", message));
        };
        let name = upstream.get_ref();
        if !around.upstreams.contains(&name.as_str()) {
            let there = choices(around.upstreams);
            let message = format!("there is no [upstream.{name}]; there {there}");
            return Err(Refusal::new(upstream.span(), "upstream", message));
        }
        let to = Placed::new(name.clone(), upstream.span());
        Ok(Action::Forward(vec![(1, to)]))
    }

    fn rewritten(&self) -> Result<PathEdit, Refusal> {
        let Some(rewrite) = &self.rewrite else {
            return Ok(PathEdit::Keep);
        };
        let to = rewrite.get_ref();
        if !to.starts_with('/') {
            let message = format!("\"{to}\" does not begin with `/`");
            return Err(Refusal::new(rewrite.span(), "rewrite", message));
        }
        if self.path.is_none() && self.prefix.is_none() {
            let message = "it stands in place of a `path` or a `prefix`, and there is none";
            return Err(Refusal::new(rewrite.span(), "rewrite", message));
        }
        // The prefix `/a` rewritten to `/` leaves `/b` of `/a/b`, not `//b`.
        let to = match self.prefix {
            Some(_) => to.trim_end_matches('/'),
            None => to,
        };
        Ok(PathEdit::Prefix(to.to_owned()))
    }

    fn filters_known(
        &self,
        filters: &[Spanned<String>],
        around: &Around<'_>,
    ) -> Result<(), Refusal> {
        for (at, filter) in filters.iter().enumerate() {
            let name = filter.get_ref();
            if !around.known.contains(&name.as_str()) {
                let there = choices(around.known);
                let message = format!("there is no [filter.{name}]; there {there}");
                return Err(Refusal::new(
                    filter.span(),
                    &format!("filters[{at}]"),
                    message,
                ));
            }
        }
        for (name, config) in &self.config {
            if !filters.iter().any(|filter| filter.get_ref() == name) {
                let there = choices(filters.iter().map(|filter| filter.get_ref()));
                let message = format!("`{name}` is no filter of this route; there {there}");
                return Err(Refusal::new(
                    config.span(),
                    &format!("config.{name}"),
                    message,
                ));
            }
        }
        Ok(())
    }
}

fn redirected(redirect: &RedirectTo) -> Result<Redirect, Refusal> {
    let mut status = None;
    if let Some(wanted) = &redirect.status {
        status = match *wanted.get_ref() {
            code @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(code).ok(),
            code => {
                let message = format!("{code} is none of 301, 302, 303, 307 and 308");
                return Err(Refusal::new(wanted.span(), "redirect.status", message));
            }
        };
    }
    if let Some(scheme) = &redirect.scheme
        && !matches!(scheme.get_ref().as_str(), "http" | "https")
    {
        let message = format!("\"{}\" is neither http nor https", scheme.get_ref());
        return Err(Refusal::new(scheme.span(), "redirect.scheme", message));
    }
    Ok(Redirect {
        status,
        scheme: redirect.scheme.as_ref().map(|it| it.get_ref().clone()),
        host: redirect.host.clone(),
        port: redirect
            .port
            .and_then(|port| u16::try_from(port.get()).ok()),
        path: redirect
            .path
            .clone()
            .map_or(PathEdit::Keep, PathEdit::Whole),
        strip_query: false,
    })
}

/// Names as an error gives them: `is "one"`, `are "one", "two"`, `is none`.
pub fn choices<'a, T: AsRef<str> + 'a>(names: impl IntoIterator<Item = &'a T>) -> String {
    let names: Vec<_> = names
        .into_iter()
        .map(|name| format!("\"{}\"", name.as_ref()))
        .collect();
    match names.as_slice() {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}

/// The one of some names that was meant by a misspelt one: no more than a third of its letters are others, left out or too many.
pub fn meant<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = name.chars().count() / 3;
    let apart = names.into_iter().map(|it| (distance(name, it), it));
    let near = apart.filter(|(distance, _)| *distance <= most);
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many letters must be put in, taken out or replaced to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut next = vec![at + 1];
        let mut least = at + 1;
        for (pair, its) in row.windows(2).zip(&other) {
            let (Some(diagonal), Some(above)) = (pair.first(), pair.last()) else {
                continue;
            };
            let replaced = diagonal + usize::from(letter != *its);
            least = replaced.min(above + 1).min(least + 1);
            next.push(least);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_a_few_letters_away() {
        let names = || ["edgeweir_cache", "edgeweir_ratelimit", "v"];
        for (name, want) in [
            ("edgeweir_cach", Some("edgeweir_cache")),
            ("edgewier_ratelimit", Some("edgeweir_ratelimit")),
            ("EDGEWEIR", None),
            ("w", None),
            ("", None),
        ] {
            assert_eq!(meant(name, names()), want, "{name}");
        }
        for (one, other, want) in [("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3)] {
            assert_eq!(distance(one, other), want, "{one} {other}");
        }
    }

    #[test]
    fn variants_have_names_of_their_own() {
        let mut names = Vec::new();
        for _ in 0..3 {
            let taken = |name: &str| names.iter().any(|known| known == name);
            let name = Route::variant("minify", "api", 2, taken);
            names.push(name);
        }
        assert_eq!(names, ["minify@api", "minify@api-2", "minify@api-2-2"]);
    }

    #[test]
    fn choices_are_named() {
        let none: [&str; 0] = [];
        assert_eq!(choices(&none), "is none");
        assert_eq!(choices(&["a"]), "is \"a\"");
        assert_eq!(choices(&["a", "b"]), "are \"a\", \"b\"");
    }
}
