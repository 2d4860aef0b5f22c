#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| runner_agent::store::fuzzing::held(input));
