//! Fields whose repeated lines Envoy joins into one as it reads them.
//!
//! Of every other field a plugin that asks for its value sees the first line alone. Seen of Envoy 1.40 on the wire, each
//! name sent twice.

const REQUEST: [&str; 29] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-type",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "proxy-status",
    "referer",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-original-path",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

const RESPONSE: [&str; 24] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "age",
    "cache-control",
    "content-encoding",
    "content-type",
    "date",
    "etag",
    "expires",
    "grpc-message",
    "grpc-status",
    "last-modified",
    "location",
    "proxy-status",
    "server",
    "vary",
    "via",
    "x-envoy-attempt-count",
    "x-envoy-upstream-service-time",
    "x-request-id",
];

/// Whether Envoy joins the lines of a field of a request, or of a response.
pub(crate) fn joins(of_request: bool, name: &str) -> bool {
    let names: &[&str] = if of_request { &REQUEST } else { &RESPONSE };
    names.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted() {
        assert!(REQUEST.is_sorted() && RESPONSE.is_sorted());
        assert!(joins(true, "accept-encoding") && !joins(false, "accept-encoding"));
        assert!(joins(false, "vary") && !joins(true, "x-a"));
    }
}
