//! The minify filter as a proxy-wasm module.
edgeweir_adapter_proxy_wasm::module!(edgeweir_minify::Minify, response_bodies);
