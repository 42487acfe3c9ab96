//! The cache filter as a proxy-wasm module.
edgeweir_adapter_proxy_wasm::module!(edgeweir_cache::Cache, response_bodies, log);
