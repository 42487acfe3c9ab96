#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeweir_host_framing::fuzzing::http2(data));
