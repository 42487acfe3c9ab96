//! `Cache-Control`, read cautiously: what can't be understood never makes a response fresher or more public.

use edgeweir_filter::{Fields, delta_seconds, list_members};

/// RFC 9111 §1.2.2: "if a cache receives a delta-seconds value greater than the greatest integer it can represent …
/// the cache MUST consider the value to be 2147483648 (2^31) or the greatest positive integer it can represent".
pub const LONGEST: u32 = 1 << 31;

/// The argument of a directive in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delta {
    /// A number of seconds, at most [`LONGEST`].
    Seconds(u32),
    /// No number, or several different ones. RFC 9111 §4.2.1: "Caches are encouraged to consider responses that have
    /// invalid freshness information … to be stale."
    Invalid,
}

impl Delta {
    /// Parses delta-seconds (RFC 9111 §1.2.2: `1*DIGIT`): no sign, no fraction, no space.
    pub fn parse(text: &[u8]) -> Self {
        delta_seconds(text).map_or(Self::Invalid, |seconds| Self::Seconds(seconds.min(LONGEST)))
    }

    /// The seconds; an invalid value counts as none at all.
    pub fn or_stale(self) -> u32 {
        match self {
            Self::Seconds(seconds) => seconds,
            Self::Invalid => 0,
        }
    }
}

/// `private` or `no-cache`, which may name fields.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Qualified {
    /// Not there.
    #[default]
    Absent,
    /// The whole response.
    All,
    /// Only these fields, in lower case.
    Fields(Vec<Vec<u8>>),
}

impl Qualified {
    /// Of these fields; of the whole response when none is named.
    pub fn of(names: &[u8]) -> Self {
        let mut all = Self::Absent;
        all.add(Some(names));
        all
    }

    fn add(&mut self, argument: Option<&[u8]>) {
        let names: Vec<Vec<u8>> = argument
            .map(|list| list_members(list).map(<[u8]>::to_ascii_lowercase).collect())
            .unwrap_or_default();
        match self {
            Self::All => {}
            _ if names.is_empty() => *self = Self::All,
            Self::Absent => *self = Self::Fields(names),
            Self::Fields(known) => known.extend(names),
        }
    }

    /// Whether a field is named.
    pub fn names(&self, name: &[u8]) -> bool {
        matches!(self, Self::Fields(names) if names.iter().any(|n| n == name))
    }
}

/// The directives of a response that this cache acts upon; unknown ones are ignored (RFC 9111 §5.2.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResponseDirectives {
    /// `no-store`
    pub no_store: bool,
    /// `no-cache`
    pub no_cache: Qualified,
    /// `private`
    pub private: Qualified,
    /// `public`
    pub public: bool,
    /// `must-revalidate`
    pub must_revalidate: bool,
    /// `proxy-revalidate`
    pub proxy_revalidate: bool,
    /// `must-understand`
    pub must_understand: bool,
    /// `max-age`
    pub max_age: Option<Delta>,
    /// `s-maxage`
    pub s_maxage: Option<Delta>,
    /// `stale-while-revalidate` (RFC 5861 §3)
    pub stale_while_revalidate: Option<Delta>,
    /// `stale-if-error` (RFC 5861 §4)
    pub stale_if_error: Option<Delta>,
    /// A quoted string does not end: any directive may hide in it.
    pub malformed: bool,
}

impl ResponseDirectives {
    /// Reads all `Cache-Control` lines.
    pub fn of(fields: &Fields) -> Self {
        let mut all = Self::default();
        for line in fields.values("cache-control") {
            all.malformed |= has_open_quote(line);
            for (name, argument) in list_members(line).map(directive) {
                // RFC 9111 §5.2: directives are compared case-insensitively; arguments may be tokens or quoted.
                match name.as_slice() {
                    b"no-store" => all.no_store = true,
                    b"no-cache" => all.no_cache.add(argument.as_deref()),
                    b"private" => all.private.add(argument.as_deref()),
                    b"public" => all.public = true,
                    b"must-revalidate" => all.must_revalidate = true,
                    b"proxy-revalidate" => all.proxy_revalidate = true,
                    b"must-understand" => all.must_understand = true,
                    b"max-age" => once(&mut all.max_age, argument.as_deref()),
                    b"s-maxage" => once(&mut all.s_maxage, argument.as_deref()),
                    b"stale-while-revalidate" => {
                        once(&mut all.stale_while_revalidate, argument.as_deref());
                    }
                    b"stale-if-error" => once(&mut all.stale_if_error, argument.as_deref()),
                    _ => {}
                }
            }
        }
        all
    }

    /// RFC 9111 §3.5: the directives that let a shared cache store and reuse a response to a request with
    /// `Authorization`: "must-revalidate, public, and s-maxage".
    pub fn shared_with_authorization(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    /// RFC 9111 §4.2.4: "A cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol
    /// directive (e.g., … no-cache, must-revalidate, s-maxage, or proxy-revalidate)".
    pub fn never_stale(&self) -> bool {
        self.must_revalidate
            || self.proxy_revalidate
            || self.s_maxage.is_some()
            || self.no_cache == Qualified::All
    }
}

/// How stale a response the client takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MaxStale {
    /// Not at all.
    #[default]
    Not,
    /// By so many seconds.
    By(u32),
    /// RFC 9111 §5.2.1.2: "If no value is assigned to max-stale, then the client will accept a stale response of any age."
    Any,
}

impl MaxStale {
    /// With one more `max-stale`: the least of all counts, as of `max-age`.
    fn and(self, given: Option<Delta>) -> Self {
        match (self, given) {
            (Self::By(known), Some(Delta::Seconds(seconds))) => Self::By(known.min(seconds)),
            (_, Some(Delta::Seconds(seconds))) => Self::By(seconds),
            (Self::Not, _) => Self::Any,
            (known, _) => known,
        }
    }
}

/// The directives of a request (RFC 9111 §5.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` without `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`
    pub no_store: bool,
    /// `no-transform`
    pub no_transform: bool,
    /// `only-if-cached`
    pub only_if_cached: bool,
    /// `max-age` in seconds; one that can't be read counts as 0.
    pub max_age: Option<u32>,
    /// `min-fresh` in seconds; one that can't be read is ignored.
    pub min_fresh: Option<u32>,
    /// `max-stale`; one that can't be read is ignored.
    pub max_stale: MaxStale,
    /// `stale-if-error` in seconds (RFC 5861 §4); one that can't be read is ignored.
    pub stale_if_error: Option<u32>,
}

impl RequestDirectives {
    /// Reads `Cache-Control` and `Pragma`.
    pub fn of(fields: &Fields) -> Self {
        let mut all = Self::default();
        if !fields.has("cache-control") {
            // RFC 9111 §5.4: without Cache-Control, "no-cache" in Pragma means the same.
            all.no_cache = fields
                .list("pragma")
                .any(|member| member.eq_ignore_ascii_case(b"no-cache"));
            return all;
        }
        for (name, argument) in fields.list("cache-control").map(directive) {
            let delta = argument.as_deref().map(Delta::parse);
            match name.as_slice() {
                b"no-cache" => all.no_cache = true,
                b"no-store" => all.no_store = true,
                b"no-transform" => all.no_transform = true,
                b"only-if-cached" => all.only_if_cached = true,
                b"max-age" => {
                    let seconds = delta.map_or(0, Delta::or_stale);
                    all.max_age = Some(all.max_age.map_or(seconds, |known| known.min(seconds)));
                }
                b"min-fresh" => {
                    if let Some(Delta::Seconds(seconds)) = delta {
                        all.min_fresh = Some(seconds);
                    }
                }
                b"stale-if-error" => {
                    if let Some(Delta::Seconds(seconds)) = delta {
                        let least = all
                            .stale_if_error
                            .map_or(seconds, |known| known.min(seconds));
                        all.stale_if_error = Some(least);
                    }
                }
                b"max-stale" => match delta {
                    Some(Delta::Invalid) => {}
                    given => all.max_stale = all.max_stale.and(given),
                },
                _ => {}
            }
        }
        all
    }
}

/// A value that is to be there once: a different second one spoils it.
fn once(known: &mut Option<Delta>, argument: Option<&[u8]>) {
    let value = argument.map_or(Delta::Invalid, Delta::parse);
    // RFC 9111 §4.2.1: "either the first occurrence should be used or the response should be considered stale".
    *known = match *known {
        Some(before) if before != value => Some(Delta::Invalid),
        _ => Some(value),
    };
}

/// Name in lower case, and the argument without its quotes.
fn directive(member: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let Some(at) = member.iter().position(|&byte| byte == b'=') else {
        return (member.to_ascii_lowercase(), None);
    };
    let (name, rest) = member.split_at(at);
    let argument = rest.get(1..).unwrap_or_default();
    // A space before or after `=` is no grammar: the directive still counts, its argument doesn't.
    let spaced = name.ends_with(b" ") || name.ends_with(b"\t");
    let argument = if spaced {
        Vec::new()
    } else {
        unquoted(argument)
    };
    (name.trim_ascii().to_ascii_lowercase(), Some(argument))
}

/// A quoted-string without quotes and escapes; anything else as it is.
fn unquoted(text: &[u8]) -> Vec<u8> {
    let Some(inner) = text
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
    else {
        return text.to_vec();
    };
    let mut escaped = false;
    let plain = inner.iter().filter(|&&byte| {
        escaped = byte == b'\\' && !escaped;
        !escaped
    });
    plain.copied().collect()
}

fn has_open_quote(line: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for &byte in line {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn max_age(value: &str) -> Option<Delta> {
        ResponseDirectives::of(&Fields::of(&[("cache-control", value)])).max_age
    }

    #[test]
    fn max_age_is_read_or_spoilt() {
        use Delta::{Invalid, Seconds};
        for (name, value, want) in [
            ("plain", "max-age=60", Some(Seconds(60))),
            ("upper case", "MAX-AGE=60", Some(Seconds(60))),
            ("quoted", "max-age=\"60\"", Some(Seconds(60))),
            (
                "among others",
                "foo, max-age=60 , bar=\"a, b\"",
                Some(Seconds(60)),
            ),
            (
                "no space after the comma",
                "public,max-age=60",
                Some(Seconds(60)),
            ),
            ("leading zeros", "max-age=0060", Some(Seconds(60))),
            (
                "overflow",
                "max-age=99999999999999999999",
                Some(Seconds(LONGEST)),
            ),
            ("negative", "max-age=-60", Some(Invalid)),
            ("signed", "max-age=+60", Some(Invalid)),
            ("fraction", "max-age=60.5", Some(Invalid)),
            ("space before =", "max-age =60", Some(Invalid)),
            ("space after =", "max-age= 60", Some(Invalid)),
            ("single quotes", "max-age='60'", Some(Invalid)),
            ("empty", "max-age=", Some(Invalid)),
            ("bare", "max-age", Some(Invalid)),
            (
                "twice the same",
                "max-age=60, max-age=60",
                Some(Seconds(60)),
            ),
            ("twice different", "max-age=60, max-age=0", Some(Invalid)),
            ("in another's quoted string", "ext=\"max-age=60\"", None),
            ("part of a longer name", "x-max-age=60", None),
        ] {
            assert_eq!(max_age(value), want, "{name}: {value}");
        }
    }

    #[test]
    fn qualified_forms_name_fields() {
        for (name, value, want) in [
            ("bare", "private", Qualified::All),
            ("empty list", "private=\"\"", Qualified::All),
            (
                "one token",
                "private=A",
                Qualified::Fields(vec![b"a".to_vec()]),
            ),
            (
                "quoted list",
                "private=\"A, b\"",
                Qualified::Fields(vec![b"a".to_vec(), b"b".to_vec()]),
            ),
            ("both", "private=\"a\", private", Qualified::All),
            ("neither", "privates", Qualified::Absent),
        ] {
            let fields = Fields::of(&[("cache-control", value)]);
            assert_eq!(ResponseDirectives::of(&fields).private, want, "{name}");
        }
    }

    #[test]
    fn an_open_quote_is_malformed() {
        for (value, want) in [
            ("a=\"b, no-store", true),
            ("a=\"b\\\", no-store", true),
            ("a=\"b\"", false),
        ] {
            let fields = Fields::of(&[("cache-control", value)]);
            assert_eq!(ResponseDirectives::of(&fields).malformed, want, "{value}");
        }
    }

    #[test]
    fn requests_are_read() {
        let of = |lines: &[(&str, &str)]| RequestDirectives::of(&Fields::of(lines));
        assert!(of(&[("pragma", "No-Cache")]).no_cache);
        assert!(!of(&[("pragma", "no-cache"), ("cache-control", "max-age=5")]).no_cache);
        let asked = of(&[("cache-control", "max-stale, min-fresh=x, max-age=y")]);
        assert_eq!(
            (asked.max_stale, asked.min_fresh, asked.max_age),
            (MaxStale::Any, None, Some(0))
        );
        assert_eq!(
            of(&[("cache-control", "max-stale=7")]).max_stale,
            MaxStale::By(7)
        );
        for value in [
            "max-stale=1, max-stale=100",
            "max-stale=100, max-stale=1",
            "max-stale, max-stale=1",
            "max-stale=1, max-stale",
            "max-stale=1, max-stale=x",
        ] {
            let asked = of(&[("cache-control", value)]);
            assert_eq!(asked.max_stale, MaxStale::By(1), "{value}");
        }
        assert!(of(&[("cache-control", "max-age=5, No-Transform")]).no_transform);
    }
}
