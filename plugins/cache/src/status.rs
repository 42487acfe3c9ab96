//! `Cache-Status` (RFC 9211).

use std::fmt::Write;

use edgeweir_filter::Fields;

/// Why a request went on (RFC 9211 §2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Forward {
    /// The cache was configured, or made by the request's form, not to handle it.
    Bypass,
    /// The method's semantics ask for it.
    Method,
    /// Nothing stored for the URI.
    UriMiss,
    /// Stored for the URI, but not for this request.
    VaryMiss,
    /// Stored, but not to be found or read.
    Miss,
    /// The request's directives ask for it.
    Request,
    /// Stale, or to be validated.
    Stale,
    /// Only a part is stored.
    Partial,
}

impl Forward {
    fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// One member of `Cache-Status`.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Answered from the store.
    pub hit: bool,
    /// Went on, because.
    pub forward: Option<Forward>,
    /// The status the next hop answered.
    pub forward_status: Option<u16>,
    /// What is left of the freshness lifetime in seconds; negative when stale.
    pub ttl: Option<i64>,
    /// The response is being stored.
    pub stored: bool,
    /// It waited for another request to the origin; whether that one's response served it.
    pub collapsed: Option<bool>,
    /// The key, readable.
    pub key: Option<String>,
    /// The name of a reason.
    pub detail: Option<&'static str>,
}

impl Status {
    /// Appends this cache's member. RFC 9211 §2: "the first member … represents the cache closest to the origin server,
    /// and the last member … the cache closest to the user".
    pub fn append_to(&self, fields: &mut Fields, name: &str) {
        let member = self.member(name);
        let value = match fields.joined("cache-status") {
            Some(mut value) => {
                if !value.is_empty() {
                    value.extend_from_slice(b", ");
                }
                value.extend_from_slice(member.as_bytes());
                value
            }
            None => member.into_bytes(),
        };
        fields.set("cache-status", value);
    }

    fn member(&self, name: &str) -> String {
        let mut text = String::with_capacity(name.len() + 64);
        text.push_str(name);
        if self.hit {
            text.push_str("; hit");
        }
        // Writing to a string does not fail.
        if let Some(forward) = self.forward {
            let _ = write!(text, "; fwd={}", forward.token());
        }
        if let Some(status) = self.forward_status {
            let _ = write!(text, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(text, "; ttl={ttl}");
        }
        if self.stored {
            text.push_str("; stored");
        }
        match self.collapsed {
            Some(true) => text.push_str("; collapsed"),
            Some(false) => text.push_str("; collapsed=?0"),
            None => {}
        }
        if let Some(key) = &self.key {
            let _ = write!(text, "; key={}", quoted(key));
        }
        if let Some(detail) = self.detail {
            let _ = write!(text, "; detail={detail}");
        }
        text
    }
}

/// A string of RFC 8941 §3.3.3; what is not visible ASCII becomes `?`.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            ' '..='~' => out.push(letter),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_appended() {
        let hit = Status {
            hit: true,
            ttl: Some(-3),
            ..Status::default()
        };
        let forwarded = Status {
            forward: Some(Forward::UriMiss),
            forward_status: Some(200),
            ttl: Some(60),
            stored: true,
            key: Some("a\"b".to_owned()),
            detail: Some("absent"),
            ..Status::default()
        };
        for (name, before, status, want) in [
            ("alone", vec![], &hit, "edgeweir; hit; ttl=-3"),
            (
                "after two lines",
                vec![("cache-status", "a; hit"), ("cache-status", "b; fwd=miss")],
                &forwarded,
                "a; hit, b; fwd=miss, edgeweir; fwd=uri-miss; fwd-status=200; ttl=60; stored; key=\"a\\\"b\"; detail=absent",
            ),
        ] {
            let mut fields = Fields::of(&before);
            status.append_to(&mut fields, "edgeweir");
            assert_eq!(fields.values("cache-status").count(), 1, "{name}");
            assert_eq!(fields.text("cache-status"), Some(want), "{name}");
        }
    }
}
