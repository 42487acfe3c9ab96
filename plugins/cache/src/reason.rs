//! Every "no" by its name: the same word in `Cache-Status`, in the log and in the counter.

macro_rules! reasons {
    ($(#[$meta:meta])* $kind:ident, $prefix:literal { $($(#[$doc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $kind { $($(#[$doc])* $variant,)+ }

        impl $kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name shared by header, log and counter.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
            /// The counter's name.
            pub const fn counter(self) -> &'static str {
                match self { $(Self::$variant => concat!($prefix, $name),)+ }
            }
        }
    };
}

reasons! {
    /// Why a request was not looked up.
    Bypass, "cache.bypass." {
        /// Only GET and HEAD are answered from the store.
        Method = "method",
        /// A GET or HEAD with content: its meaning is not defined (RFC 9110 §9.3.1).
        RequestBody = "request_body",
        /// The request asks for another protocol.
        Upgrade = "upgrade",
        /// `If-Match` or `If-Unmodified-Since`: only the origin can evaluate them (RFC 9111 §4.3.2).
        Precondition = "precondition",
        /// A field names another method, which the origin may act upon.
        MethodOverride = "method_override",
        /// The cache key would be over its bound.
        KeyTooLong = "key_too_long",
        /// The request names no host: its key would be shared by all of them.
        NoAuthority = "no_authority",
        /// The request says `no-transform`: what is stored may be transformed, and what comes is not as others get it.
        NoTransform = "no_transform",
        /// A configured rule for the path says so.
        Rule = "rule",
        /// The preset is `disabled`.
        Disabled = "disabled",
    }
}

reasons! {
    /// Why a looked-up request was forwarded.
    Missed, "cache.forwarded." {
        /// Nothing is stored for the URI.
        Absent = "absent",
        /// Something is stored for the URI, but no variant for this request.
        Variant = "variant",
        /// A variant's place is known, but it is not there: on its way, evicted, or never taken by the shared store.
        Empty = "empty",
        /// The stored response is stale.
        Stale = "stale",
        /// The stored response says `no-cache`.
        NoCache = "no_cache",
        /// The request says `no-cache`.
        RequestNoCache = "request_no_cache",
        /// The stored response is older than the request's `max-age`.
        RequestMaxAge = "request_max_age",
        /// The stored response won't be fresh for the request's `min-fresh`.
        RequestMinFresh = "request_min_fresh",
        /// The request has `Authorization` and the stored response does not say that it may be shared.
        Authorization = "authorization",
        /// What the shared store gave is damaged.
        Corrupt = "corrupt",
        /// The stored response was invalidated with a group, a pattern or everything.
        Invalidated = "invalidated",
        /// Only a part is stored, and not the one asked for.
        Part = "part",
    }
}

reasons! {
    /// Why a response was not stored.
    Refused, "cache.refused." {
        /// Only responses to GET are stored.
        HeadRequest = "head_request",
        /// The request says `no-store`.
        RequestNoStore = "request_no_store",
        /// The request says `no-transform`: its response is not as others get it.
        RequestNoTransform = "request_no_transform",
        /// The response says `no-store`.
        NoStore = "no_store",
        /// The response says `private`.
        Private = "private",
        /// `Cache-Control` can't be parsed.
        Malformed = "malformed_cache_control",
        /// The request has `Authorization` and the response does not say that it may be shared.
        Authorization = "authorization",
        /// `Set-Cookie` is for one client.
        SetCookie = "set_cookie",
        /// A part that can't be kept: several ranges, an unknown unit or length, or a part of what is stored whole.
        Partial = "partial",
        /// More groups than `max_groups`, or one that is too long.
        TooManyGroups = "too_many_groups",
        /// 304 to the client's own condition.
        NotModified = "not_modified",
        /// A status that answers one request's own conditions, range or expectation, or that no cache may store.
        OneRequest = "one_request",
        /// Not a final status.
        Status = "status",
        /// `must-understand` with a status this cache does not know.
        NotUnderstood = "not_understood",
        /// No explicit freshness, and none can be guessed.
        NoFreshness = "no_freshness",
        /// Stale on arrival, without a validator.
        Expired = "expired",
        /// `Vary: *`.
        VaryStar = "vary_star",
        /// `Vary` names more fields than can be kept.
        VaryTooLong = "vary_too_long",
        /// `Vary: Accept-Encoding` with a coding that the normalised key does not tell apart.
        UnknownCoding = "unknown_coding",
        /// Over `max_object_bytes`.
        TooLarge = "too_large",
        /// Too many responses are being captured at once: `capture_bytes` are taken.
        Busy = "busy",
        /// `Content-Length` is not one number.
        BadLength = "bad_length",
        /// The body's length is not the declared one.
        LengthMismatch = "length_mismatch",
        /// The URI was invalidated while the response was on its way.
        Invalidated = "invalidated",
        /// The shared store did not answer.
        SharedStore = "shared_store",
        /// The origin could not be reached: the edge made the response up.
        Unreached = "unreached",
    }
}

impl Refused {
    /// Whether the response to another request for the same would be refused as well, to all likelihood: not where this
    /// request or its transmission was the reason.
    pub(crate) fn concerns_others(self) -> bool {
        !matches!(
            self,
            Self::HeadRequest
                | Self::RequestNoStore
                | Self::RequestNoTransform
                | Self::Authorization
                | Self::NotModified
                | Self::LengthMismatch
                | Self::Invalidated
        )
    }

    /// Whether the next response for the same key is likely to be refused as well.
    pub(crate) fn lasts(self) -> bool {
        matches!(
            self,
            Self::NoStore
                | Self::Private
                | Self::Malformed
                | Self::SetCookie
                | Self::NotUnderstood
                | Self::NoFreshness
                | Self::Expired
                | Self::VaryStar
                | Self::VaryTooLong
                | Self::UnknownCoding
                | Self::TooLarge
                | Self::TooManyGroups
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tokens_and_differ() {
        let names = [
            Bypass::ALL.iter().map(|r| r.counter()).collect::<Vec<_>>(),
            Missed::ALL.iter().map(|r| r.counter()).collect(),
            Refused::ALL.iter().map(|r| r.counter()).collect(),
        ]
        .concat();
        for (at, name) in names.iter().enumerate() {
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.')
            );
            assert!(!names[..at].contains(name), "{name} twice");
        }
    }
}
