//! What another array sends; see the target's own words.

#![no_main]

// Each program has one target of all.
#[allow(dead_code)]
#[path = "../../tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::remote(data));
