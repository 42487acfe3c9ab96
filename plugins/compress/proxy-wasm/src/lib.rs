//! The compress filter as a proxy-wasm module.
edgeweir_adapter_proxy_wasm::module!(edgeweir_compress::Compress, response_bodies);
