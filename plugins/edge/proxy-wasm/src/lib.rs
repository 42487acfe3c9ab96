//! The edge filter as a proxy-wasm module.
edgeweir_adapter_proxy_wasm::module!(edgeweir_edge::Edge, response_bodies, log);
