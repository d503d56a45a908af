//! Any bytes as an answer of the kernel about the IPVS table: refused or read, never a panic.

#![no_main]

use agent_core::event::{Family, NetnsId};
use agent_core::table::wire::{self, Frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for frame in wire::frames("anything", bytes) {
        let attributes = match frame {
            Ok(Frame::Object(attributes)) => attributes,
            Ok(Frame::Done) => continue,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        let _ = wire::family_number(attributes);
        if let Ok(row) = wire::service(attributes, NetnsId(1)) {
            // A name that was read can be asked about.
            assert!(wire::real_servers(34, 1, &row.service).is_some());
        }
        let _ = wire::real_server(attributes, Family::V4);
    }
});
