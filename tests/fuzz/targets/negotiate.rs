#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeweir_compress::fuzzing::negotiate(data));
