#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tapgate::demo::parsers::check("packets", bytes));
