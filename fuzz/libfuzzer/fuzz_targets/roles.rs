#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| otad_fuzz::roles(bytes));
