//! From a counter's name to a sentence: what happened, where it is written, what changes it.

/// What one counter says when it grows.
#[derive(Clone, Copy, Debug)]
pub struct Reason {
    /// Its name, without the `edgeweir.` that hosts put before it.
    pub counter: &'static str,
    /// What happened.
    pub says: &'static str,
    /// The section behind it; empty where it is this project's own matter.
    pub rfc: &'static str,
    /// What changes it; empty where nothing should.
    pub change: &'static str,
}

const fn why(
    counter: &'static str,
    says: &'static str,
    rfc: &'static str,
    change: &'static str,
) -> Reason {
    Reason {
        counter,
        says,
        rfc,
        change,
    }
}

/// The sentence of a counter; a rule's own counters (`ratelimit.rule.NAME.limited`) have none, those of all rules do.
pub fn of(counter: &str) -> Option<&'static Reason> {
    let counter = counter.strip_prefix("edgeweir.").unwrap_or(counter);
    ALL.iter().find(|reason| reason.counter == counter)
}

/// The sentence of a name as `Cache-Status` has it in `detail`.
pub fn of_detail(detail: &str) -> Option<&'static Reason> {
    [
        "cache.refused.",
        "cache.bypass.",
        "cache.forwarded.",
        "cache.",
    ]
    .iter()
    .find_map(|start| of(&format!("{start}{detail}")))
}

/// Counters that measure and explain nothing: amounts, times, the inner life of tiers.
pub const MEASURES: &[&str] = &[
    "cache.stored_bytes",
    "cache.miss",
    "cache.miss.lookup_ns",
    "cache.l1.",
    "cache.l2.",
    "cache.l3.",
    "cache.purged",
    "cache.invalidated_groups",
    "cache.ahead_known",
    "cache.prefetch_used",
    "cache.prefetched",
    "cache.warmed",
    "compress.bytes_in",
    "compress.bytes_out",
    "compress.padding_bytes",
    "compress.micros.",
    "compress.ratio.",
    "compress.dictionary.kept",
    "minify.bytes_in",
    "minify.bytes_out",
    "minify.nanoseconds",
    "ratelimit.rule.",
    "ratelimit.store.",
];

/// All of them.
pub const ALL: &[Reason] = &[
    // Answered from the store.
    why(
        "cache.hit",
        "answered from the cache: the stored response was fresh",
        "RFC 9111 §4",
        "",
    ),
    why(
        "cache.stale",
        "answered from the cache with a stale response, as it or the request allows",
        "RFC 9111 §4.2.4",
        "stale-while-revalidate or max-stale allow it; must-revalidate forbids it",
    ),
    why(
        "cache.stale_if_error",
        "answered with a stale response in place of an error",
        "RFC 5861 §4",
        "stale-if-error of the origin, unreached_seconds",
    ),
    why(
        "cache.stale_forbidden",
        "the origin failed, and the stale response may not be used in its place",
        "RFC 9111 §4.2.4",
        "must-revalidate, proxy-revalidate, s-maxage or no-cache forbid it",
    ),
    why(
        "cache.collapsed",
        "waited for another request's response and shared it",
        "RFC 9111 §4",
        "collapse.max_waiters, collapse.timeout_ms",
    ),
    why(
        "cache.collapse_full",
        "did not wait for another request's response: too many do",
        "",
        "collapse.max_waiters",
    ),
    why(
        "cache.asked_for_all",
        "the origin was not told what the client has already, so that the response can be stored",
        "",
        "ask_for_all; uncacheable_seconds: for so long a condition goes on where nothing could be stored",
    ),
    why(
        "cache.validated",
        "the origin confirmed the stored response with 304",
        "RFC 9111 §4.3.4",
        "",
    ),
    why(
        "cache.validation_mismatch",
        "the origin's 304 was for another response than the stored one",
        "RFC 9111 §4.3.4",
        "the origin should send the same validators in 200 and 304",
    ),
    why(
        "cache.refresh",
        "is being refreshed behind the client's back",
        "RFC 5861 §3",
        "stale-while-revalidate of the origin",
    ),
    why(
        "cache.refresh_ahead",
        "is being refreshed before it is stale, because it is asked for often",
        "",
        "refresh_ahead_percent, refresh_ahead_hits",
    ),
    why(
        "cache.refresh_failed",
        "a refresh of the cache's own did not succeed",
        "",
        "background.cluster, background.timeout_ms",
    ),
    why(
        "cache.background_other_host",
        "is not refreshed or fetched ahead: a component would ask background.cluster for another host",
        "RFC 9110 §7.2",
        "background.cluster",
    ),
    why(
        "cache.only_if_cached",
        "answered with 504: only-if-cached, and there was nothing to use",
        "RFC 9111 §5.2.1.7",
        "the client's only-if-cached; request_directives",
    ),
    why(
        "cache.invalidated",
        "what was stored for the URI became unusable: an unsafe request succeeded",
        "RFC 9111 §4.4",
        "",
    ),
    why(
        "cache.invalidation_failed",
        "the shared store did not take an invalidation",
        "",
        "shared, l2_bytes",
    ),
    why(
        "cache.shared_store_failed",
        "the store that workers share failed; the worker's own was used",
        "",
        "shared, l2_bytes",
    ),
    why(
        "cache.admin_denied",
        "an invalidation was refused: wrong or missing token",
        "",
        "admin.token",
    ),
    // Not looked up.
    why(
        "cache.bypass.method",
        "passed on without a look into the cache: only GET and HEAD are answered from it",
        "RFC 9110 §9.2.3",
        "QUERY and others are not cached",
    ),
    why(
        "cache.bypass.request_body",
        "passed on: a GET or HEAD with content has no defined meaning",
        "RFC 9110 §9.3.1",
        "send no content with it",
    ),
    why(
        "cache.bypass.upgrade",
        "passed on: the request asks for another protocol",
        "RFC 9110 §7.8",
        "",
    ),
    why(
        "cache.bypass.precondition",
        "passed on: only the origin can evaluate If-Match and If-Unmodified-Since",
        "RFC 9111 §4.3.2",
        "leave these fields out of requests that read",
    ),
    why(
        "cache.bypass.no_transform",
        "passed on: the request says no-transform, and what is stored or would be is transformed as others get it",
        "RFC 9111 §5.2.1.6",
        "the client's no-transform",
    ),
    why(
        "cache.bypass.method_override",
        "passed on: a field names another method, and the origin may act upon it",
        "",
        "leave X-HTTP-Method-Override and its like out",
    ),
    why(
        "cache.bypass.key_too_long",
        "passed on: the key would be longer than 3 KiB",
        "",
        "key.query_include, key.headers",
    ),
    why(
        "cache.bypass.no_authority",
        "passed on: the request names no host, so its key would be shared by all of them",
        "RFC 9110 §7.2",
        "send Host",
    ),
    why(
        "cache.bypass.rule",
        "passed on: a rule for the path says so",
        "",
        "rules[].bypass",
    ),
    why(
        "cache.bypass.disabled",
        "passed on: the preset is disabled",
        "",
        "preset",
    ),
    // Looked up and forwarded.
    why(
        "cache.forwarded.absent",
        "went to the origin: nothing is stored for the URI, as for the first request always",
        "RFC 9111 §4",
        "",
    ),
    why(
        "cache.forwarded.variant",
        "went to the origin: what is stored is for other values of the fields that Vary names",
        "RFC 9111 §4.1",
        "the origin's Vary; max_variants",
    ),
    why(
        "cache.forwarded.empty",
        "went to the origin: its place is known, but it is not there (evicted, or still on its way)",
        "",
        "l1_bytes, l2_bytes",
    ),
    why(
        "cache.forwarded.stale",
        "went to the origin: the stored response is stale",
        "RFC 9111 §4.2",
        "a longer max-age or s-maxage of the origin",
    ),
    why(
        "cache.forwarded.no_cache",
        "went to the origin: the stored response says no-cache, so it is validated each time",
        "RFC 9111 §5.2.2.4",
        "the origin's no-cache",
    ),
    why(
        "cache.forwarded.request_no_cache",
        "went to the origin: the request says no-cache",
        "RFC 9111 §5.2.1.4",
        "request_directives; browsers send it when a page is reloaded",
    ),
    why(
        "cache.forwarded.request_max_age",
        "went to the origin: the stored response is older than the request's max-age",
        "RFC 9111 §5.2.1.1",
        "request_directives",
    ),
    why(
        "cache.forwarded.request_min_fresh",
        "went to the origin: the stored response is not fresh for as long as the request's min-fresh",
        "RFC 9111 §5.2.1.3",
        "request_directives",
    ),
    why(
        "cache.forwarded.authorization",
        "went to the origin: the request has Authorization, and the stored response may not be shared",
        "RFC 9111 §3.5",
        "public, s-maxage or must-revalidate of the origin",
    ),
    why(
        "cache.forwarded.corrupt",
        "went to the origin: what the shared store gave was damaged",
        "",
        "",
    ),
    why(
        "cache.forwarded.invalidated",
        "went to the origin: the stored response was invalidated",
        "RFC 9111 §4.4",
        "",
    ),
    why(
        "cache.forwarded.part",
        "went to the origin: only another part is stored",
        "RFC 9111 §3.3",
        "",
    ),
    why(
        "cache.stored",
        "stored for later requests",
        "RFC 9111 §3",
        "",
    ),
    // Not stored.
    why(
        "cache.refused.request_no_transform",
        "not stored: the request says no-transform, so its response is not as others get it",
        "RFC 9111 §5.2.1.6",
        "the client's no-transform",
    ),
    why(
        "cache.refused.head_request",
        "not stored: only responses to GET are",
        "RFC 9110 §9.3.2",
        "",
    ),
    why(
        "cache.refused.request_no_store",
        "not stored: the request says no-store",
        "RFC 9111 §5.2.1.5",
        "the client's no-store",
    ),
    why(
        "cache.refused.no_store",
        "not stored: the response says no-store",
        "RFC 9111 §5.2.2.5",
        "the origin's Cache-Control, or CDN-Cache-Control for this cache alone",
    ),
    why(
        "cache.refused.private",
        "not stored: the response says private, and this cache is shared",
        "RFC 9111 §5.2.2.7",
        "the origin's private; key.user_context stores per user",
    ),
    why(
        "cache.refused.malformed_cache_control",
        "not stored: Cache-Control cannot be parsed",
        "RFC 9111 §5.2",
        "the origin's Cache-Control",
    ),
    why(
        "cache.refused.authorization",
        "not stored: the request has Authorization, and the response does not say that it may be shared",
        "RFC 9111 §3.5",
        "public, s-maxage or must-revalidate of the origin",
    ),
    why(
        "cache.refused.set_cookie",
        "not stored: it sets a cookie, which is for one client",
        "RFC 9111 §7.3",
        "store_set_cookie, or no cookie from the origin",
    ),
    why(
        "cache.refused.partial",
        "not stored: a part that cannot be kept",
        "RFC 9111 §3.3",
        "",
    ),
    why(
        "cache.refused.too_many_groups",
        "not stored: it is in more groups than are kept",
        "RFC 9875 §2",
        "max_groups",
    ),
    why(
        "cache.refused.not_modified",
        "not stored: a 304 to the client's own condition",
        "RFC 9111 §4.3.3",
        "the next request without the condition is stored",
    ),
    why(
        "cache.refused.one_request",
        "not stored: the status answers this request's own conditions, range or expectation, or is one that no cache may store",
        "RFC 9110 §15.5.17, RFC 6585",
        "",
    ),
    why(
        "cache.refused.status",
        "not stored: not a final status",
        "RFC 9111 §3",
        "",
    ),
    why(
        "cache.refused.not_understood",
        "not stored: must-understand, and this cache does not know the status",
        "RFC 9111 §5.2.2.3",
        "",
    ),
    why(
        "cache.refused.no_freshness",
        "not stored: the response says nothing of its freshness, and none can be guessed",
        "RFC 9111 §3",
        "max-age of the origin, a Last-Modified to guess from (heuristic_percent), or rules[].ttl_by_status",
    ),
    why(
        "cache.refused.expired",
        "not stored: stale on arrival, and without a validator nothing can be done with it",
        "RFC 9111 §4.2",
        "max-age of the origin, or an ETag",
    ),
    why(
        "cache.refused.vary_star",
        "not stored: Vary: * never matches a later request",
        "RFC 9111 §4.1",
        "the origin's Vary",
    ),
    why(
        "cache.refused.vary_too_long",
        "not stored: Vary names more fields than are kept",
        "RFC 9111 §4.1",
        "the origin's Vary",
    ),
    why(
        "cache.refused.unknown_coding",
        "not stored: it varies by Accept-Encoding and has a coding that the key does not tell apart",
        "RFC 9111 §4.1",
        "the origin's Content-Encoding",
    ),
    why(
        "cache.refused.too_large",
        "not stored: larger than may be",
        "",
        "max_object_bytes",
    ),
    why(
        "cache.refused.busy",
        "not stored: too many responses are being stored at once",
        "",
        "capture_bytes",
    ),
    why(
        "cache.refused.bad_length",
        "not stored: Content-Length is not one number",
        "RFC 9110 §8.6",
        "the origin's Content-Length",
    ),
    why(
        "cache.refused.length_mismatch",
        "not stored: the body was not as long as Content-Length said",
        "RFC 9111 §3.3",
        "the origin, or the way to it, cuts bodies",
    ),
    why(
        "cache.refused.invalidated",
        "not stored: the URI was invalidated while the response was on its way",
        "RFC 9111 §4.4",
        "",
    ),
    why(
        "cache.refused.shared_store",
        "not stored: the shared store did not answer",
        "",
        "shared",
    ),
    why(
        "cache.refused.unreached",
        "not stored: the origin could not be reached, the response is the proxy's own",
        "RFC 9111 §4.3.3",
        "",
    ),
    // Codings.
    why(
        "compress.coded.br",
        "compressed with Brotli",
        "RFC 9110 §8.4",
        "",
    ),
    why(
        "compress.coded.zstd",
        "compressed with Zstandard",
        "RFC 9110 §8.4",
        "",
    ),
    why(
        "compress.coded.gzip",
        "compressed with gzip",
        "RFC 9110 §8.4.1.3",
        "",
    ),
    why(
        "compress.coded.deflate",
        "compressed with deflate",
        "RFC 9110 §8.4.1.2",
        "",
    ),
    why(
        "compress.lowered",
        "compressed at a lower level than configured",
        "",
        "cpu_percent, memory_bytes",
    ),
    why(
        "compress.incompressible",
        "came out larger than it went in",
        "",
        "except_media_types, max_ratio_percent",
    ),
    why("compress.failed", "the coder failed", "", ""),
    why(
        "compress.dictionary.used",
        "compressed with a dictionary the client has",
        "RFC 9842 §2",
        "",
    ),
    why(
        "compress.dictionary.cross_origin",
        "not compressed with a dictionary: the response is not shared with the site that asks",
        "RFC 9842 §9.3.3",
        "",
    ),
    why(
        "compress.dictionary.refused",
        "not kept as a dictionary: not for everybody, not fresh, coded, or a pattern that is not understood",
        "RFC 9842 §2",
        "",
    ),
    why(
        "compress.dictionary.too_large",
        "not kept as a dictionary: too large",
        "RFC 9842 §2",
        "dictionaries",
    ),
    why(
        "compress.skipped.breach",
        "not compressed: it may carry a secret beside what a client chose",
        "",
        "breach, breach_cookies",
    ),
    why(
        "compress.skipped.coded",
        "not compressed: the origin has applied a coding",
        "RFC 9110 §8.4",
        "remove_accept_encoding, or decode",
    ),
    why(
        "compress.skipped.cpu",
        "not compressed: coding takes more than its share of the processor",
        "",
        "cpu_percent",
    ),
    why(
        "compress.skipped.decoded",
        "not compressed: a coding was taken off for what follows",
        "",
        "decode",
    ),
    why(
        "compress.skipped.disabled",
        "not compressed: a rule says so",
        "",
        "rules",
    ),
    why(
        "compress.skipped.emergency",
        "not compressed: the machine is in its worst emergency",
        "",
        "",
    ),
    why(
        "compress.skipped.empty",
        "not compressed: there is no body",
        "",
        "",
    ),
    why(
        "compress.skipped.excluded",
        "not compressed: its media type is excepted",
        "",
        "except_media_types",
    ),
    why(
        "compress.skipped.grpc",
        "not compressed: gRPC codes its own messages",
        "",
        "",
    ),
    why(
        "compress.skipped.media_type",
        "not compressed: its media type is not among those that are",
        "",
        "media_types",
    ),
    why(
        "compress.skipped.memory",
        "not compressed: no room for another encoder",
        "",
        "memory_bytes",
    ),
    why(
        "compress.skipped.no_accept_encoding",
        "not compressed: the request has no Accept-Encoding",
        "RFC 9110 §12.5.3",
        "send Accept-Encoding: gzip, br, zstd",
    ),
    why(
        "compress.skipped.no_content",
        "not compressed: the response has no content",
        "RFC 9110 §15.3.5",
        "",
    ),
    why(
        "compress.skipped.no_media_type",
        "not compressed: the response has no Content-Type",
        "RFC 9110 §8.3",
        "the origin's Content-Type, or */* in media_types",
    ),
    why(
        "compress.skipped.no_transform",
        "not compressed: Cache-Control: no-transform",
        "RFC 9111 §5.2.2.6",
        "no-transform of the origin or the client",
    ),
    why(
        "compress.skipped.not_acceptable",
        "not compressed: the client accepts none of the configured codings",
        "RFC 9110 §12.5.3",
        "codings",
    ),
    why(
        "compress.skipped.not_modified",
        "not compressed: a 304 has no content; its validator is kept in step",
        "RFC 9110 §15.4.5",
        "",
    ),
    why(
        "compress.skipped.partial",
        "not compressed: part of a representation",
        "RFC 9110 §14",
        "",
    ),
    why(
        "compress.skipped.poor_ratio",
        "not compressed: the last body of this URL gained too little",
        "",
        "max_ratio_percent",
    ),
    why(
        "compress.skipped.too_small",
        "not compressed: shorter than is worth it",
        "",
        "min_bytes",
    ),
    why(
        "compress.skipped.trailers",
        "not compressed: trailers are announced, before which nothing could be added here",
        "RFC 9110 §6.5",
        "",
    ),
    why(
        "compress.decoded.br",
        "Brotli was taken off",
        "RFC 9110 §8.4",
        "decode",
    ),
    why(
        "compress.decoded.zstd",
        "Zstandard was taken off",
        "RFC 9110 §8.4",
        "decode",
    ),
    why(
        "compress.decoded.gzip",
        "gzip was taken off",
        "RFC 9110 §8.4",
        "decode",
    ),
    why(
        "compress.decoded.deflate",
        "deflate was taken off",
        "RFC 9110 §8.4",
        "decode",
    ),
    why(
        "compress.request.decoded",
        "the request's coding was taken off",
        "RFC 9110 §8.4",
        "decode",
    ),
    why(
        "compress.request.unsupported",
        "refused with 415: the request's coding is not known",
        "RFC 9110 §15.5.16",
        "decode",
    ),
    why(
        "compress.request.memory",
        "the request went on coded: no room for a decoder",
        "",
        "memory_bytes",
    ),
    why(
        "compress.undecodable.bomb",
        "a coded body was given up: it grows too much",
        "",
        "decode",
    ),
    why(
        "compress.undecodable.corrupt",
        "a coded body was given up: it is damaged",
        "",
        "the sender's coding",
    ),
    why(
        "compress.undecodable.trailing",
        "a coded body was given up: something follows its end",
        "",
        "the sender's coding",
    ),
    why(
        "compress.undecodable.truncated",
        "a coded body was given up: it ends too early",
        "",
        "the sender's coding",
    ),
    why(
        "compress.undecodable.window",
        "a coded body was given up: it needs a larger window",
        "",
        "memory_bytes",
    ),
    // JSON.
    why(
        "minify.minified",
        "white space of the JSON was removed",
        "RFC 8259 §2",
        "",
    ),
    why(
        "minify.nulls_dropped",
        "nulls were removed",
        "",
        "drop_nulls",
    ),
    why(
        "minify.members_dropped",
        "members were removed by masks",
        "",
        "include, exclude, fields",
    ),
    why("minify.values_redacted", "values were hidden", "", "redact"),
    why(
        "minify.bad_mask",
        "answered 400: the selection in the client's query could not be read",
        "",
        "fields.parameter",
    ),
    why(
        "minify.refused",
        "answered with 502: a body that rules have to look into cannot be read",
        "",
        "unreadable",
    ),
    why(
        "minify.cut",
        "the body was broken off where it could not be read on: rules hide something of it, or that was within a value that goes",
        "",
        "unreadable",
    ),
    why(
        "minify.stopped.too_large",
        "no more was changed: more than may be read",
        "",
        "max_bytes",
    ),
    why(
        "minify.skipped.charset",
        "not minified: not UTF-8",
        "RFC 8259 §8.1",
        "the origin's charset",
    ),
    why(
        "minify.skipped.coded",
        "not minified: the body is coded",
        "RFC 9110 §8.4",
        "remove_accept_encoding of compress, so that the origin answers plainly",
    ),
    why(
        "minify.skipped.empty",
        "not minified: there is no body",
        "",
        "",
    ),
    why(
        "minify.skipped.media_type",
        "not minified: not of a JSON media type",
        "RFC 6839 §3.1",
        "the origin's Content-Type",
    ),
    why(
        "minify.skipped.no_content",
        "not minified: the response has no content",
        "RFC 9110 §15.3.5",
        "",
    ),
    why(
        "minify.skipped.no_transform",
        "not minified: Cache-Control: no-transform",
        "RFC 9111 §5.2.2.6",
        "no-transform of the origin or the client",
    ),
    why(
        "minify.skipped.not_modified",
        "not minified: a 304 has no content",
        "RFC 9110 §15.4.5",
        "",
    ),
    why(
        "minify.skipped.partial",
        "not minified: part of a representation",
        "RFC 9110 §14",
        "",
    ),
    why(
        "minify.skipped.too_large",
        "not minified: longer than may be read",
        "",
        "max_bytes",
    ),
    why(
        "minify.invalid.bad_literal",
        "passed as it came from there on: a literal that is none of true, false, null",
        "RFC 8259 §3",
        "the origin's JSON",
    ),
    why(
        "minify.invalid.bad_number",
        "passed as it came from there on: a number that is none",
        "RFC 8259 §6",
        "the origin's JSON",
    ),
    why(
        "minify.invalid.control_character",
        "passed as it came from there on: a control character in a string",
        "RFC 8259 §7",
        "the origin's JSON",
    ),
    why(
        "minify.invalid.depth",
        "passed as it came from there on: nested too deeply",
        "",
        "max_depth",
    ),
    why(
        "minify.invalid.encoding",
        "passed as it came: another encoding than UTF-8",
        "RFC 8259 §8.1",
        "the origin's JSON",
    ),
    why(
        "minify.invalid.line_feed",
        "passed as it came from there on: a line feed within a record",
        "",
        "the origin's JSON",
    ),
    why(
        "minify.invalid.trailing",
        "passed as it came from there on: something follows the value",
        "RFC 8259 §2",
        "the origin's JSON",
    ),
    why(
        "minify.invalid.truncated",
        "passed as it came: the JSON ends too early",
        "RFC 8259 §2",
        "the origin's JSON",
    ),
    why(
        "minify.invalid.unexpected_byte",
        "passed as it came from there on: a byte that JSON does not allow there",
        "RFC 8259 §2",
        "the origin's JSON",
    ),
    // Limits.
    why("ratelimit.admitted", "admitted by the limit", "", ""),
    why(
        "ratelimit.limited",
        "refused: the client has used what its limit allows; Retry-After says when it may come again",
        "RFC 6585 §4",
        "rules[].limits, rules[].key",
    ),
    why(
        "ratelimit.shadowed",
        "would have been refused: the rule is in shadow",
        "",
        "rules[].shadow",
    ),
    why(
        "ratelimit.store_error",
        "decided without the state it should have been",
        "",
        "store, rules[].on_store_failure",
    ),
    why(
        "ratelimit.unmatched",
        "no rule decides it: there is no limit for it",
        "",
        "rules[].paths, rules[].methods",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every counter the filters' sources name: literals such as `"cache.hit"`, and the names of `reasons!`.
    fn defined() -> BTreeSet<String> {
        let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
        let mut all = BTreeSet::new();
        for filter in ["cache", "compress", "minify", "ratelimit"] {
            let mut folders = vec![plugins.join(filter).join("src")];
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(&folder).expect("the sources").flatten() {
                    let path = entry.path();
                    if path.is_dir() {
                        folders.push(path);
                    } else if path.extension().is_some_and(|kind| kind == "rs") {
                        read(
                            filter,
                            &std::fs::read_to_string(&path).expect("a source"),
                            &mut all,
                        );
                    }
                }
            }
        }
        all
    }

    fn read(filter: &str, source: &str, all: &mut BTreeSet<String>) {
        let source = source.split("#[cfg(test)]").next().unwrap_or_default();
        let mut group = None;
        for line in source
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            for literal in line.split('"').skip(1).step_by(2) {
                let named = literal
                    .strip_prefix(filter)
                    .is_some_and(|rest| rest.starts_with('.'));
                let plain = literal
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._".contains(c));
                if named && plain {
                    if literal.ends_with('.') {
                        group = Some(literal.to_owned());
                    } else {
                        all.insert(literal.to_owned());
                    }
                } else if let Some(group) = &group
                    && line.contains(&format!("= \"{literal}\","))
                {
                    all.insert(format!("{group}{literal}"));
                }
            }
            if line == "}" {
                group = None;
            }
        }
    }

    fn measures(counter: &str) -> bool {
        MEASURES.iter().any(|name| match name.strip_suffix('.') {
            Some(_) => counter.starts_with(name),
            None => counter == *name,
        })
    }

    #[test]
    fn every_counter_has_a_sentence_or_is_a_measure() {
        let defined = defined();
        assert!(defined.len() > 120, "{} counters found", defined.len());
        assert!(defined.contains("cache.refused.no_store"), "{defined:?}");
        let without: Vec<_> = defined
            .iter()
            .filter(|counter| of(counter).is_none() && !measures(counter))
            .collect();
        assert!(without.is_empty(), "no sentence for {without:?}");
    }

    #[test]
    fn every_sentence_is_of_a_counter() {
        let defined = defined();
        let unknown: Vec<_> = ALL
            .iter()
            .map(|reason| reason.counter)
            .filter(|counter| !defined.contains(*counter))
            .collect();
        assert!(unknown.is_empty(), "no filter counts {unknown:?}");
    }

    #[test]
    fn a_detail_of_cache_status_is_found_by_its_name() {
        for (detail, counter) in [
            ("no_store", "cache.refused.no_store"),
            ("method", "cache.bypass.method"),
            ("stale_if_error", "cache.stale_if_error"),
        ] {
            assert_eq!(
                of_detail(detail).map(|reason| reason.counter),
                Some(counter)
            );
        }
        assert!(of_detail("unheard_of").is_none());
    }
}
