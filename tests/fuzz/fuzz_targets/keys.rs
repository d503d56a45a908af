//! Any bytes as a key of a kernel map: refused with a reason, or read and written back unchanged.

#![no_main]

use agent_common::key::{RealServerKey, ServiceKey, TupleKey};
use agent_common::node::NodeCountKey;
use agent_core::decode::{self, node_count, wire};
use libfuzzer_sys::fuzz_target;
use zerocopy::FromBytes;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((raw, _)) = ServiceKey::read_from_prefix(bytes)
        && let Ok(service) = decode::service(&raw)
    {
        assert_eq!(decode::service(&wire::service(&service)), Ok(service));
    }
    if let Ok((raw, _)) = RealServerKey::read_from_prefix(bytes)
        && let Ok(server) = decode::real_server(&raw)
    {
        assert_eq!(decode::real_server(&wire::real_server(server)), Ok(server));
    }
    if let Ok((raw, _)) = TupleKey::read_from_prefix(bytes) {
        let _ = decode::tuple(&raw);
    }
    if let Ok((raw, _)) = NodeCountKey::read_from_prefix(bytes)
        && let Err(malformed) = node_count(&raw)
    {
        assert!(!malformed.to_string().is_empty());
    }
});
