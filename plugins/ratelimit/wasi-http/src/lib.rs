//! The ratelimit filter as a wasi:http middleware component.

edgeweir_adapter_wasi_http::component!(edgeweir_ratelimit::RateLimit, fetch);
