//! Any bytes: refused, or exactly what a kernel program would have written.

#![no_main]

use agent_core::decode::{decode, wire};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match decode(bytes) {
        Ok(event) => assert_eq!(wire::encode(&event), bytes),
        Err(malformed) => assert!(!malformed.to_string().is_empty()),
    }
});
