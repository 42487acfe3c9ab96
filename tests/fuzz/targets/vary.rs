#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeweir_cache::fuzzing::vary(data));
