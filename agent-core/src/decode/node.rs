//! Keys of the counters about the node.

use std::net::SocketAddr;

use agent_common::node::{NodeCountKey, NodeEvent};

use super::{Malformed, key, unknown, zeros};
use crate::event::NetnsId;

/// What a counter about the node counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeCount {
    /// What happened.
    pub event: NodeEvent,
    /// Where.
    pub netns: NetnsId,
    /// The listener or destination; `None` for an event of no address.
    pub at: Option<SocketAddr>,
}

/// What a wire key stands for.
///
/// # Errors
/// [`Malformed`] for an event this build does not know, or an address that cannot be.
pub fn node_count(key: &NodeCountKey) -> Result<NodeCount, Malformed> {
    let event = NodeEvent::try_from(key.event).map_err(|n| unknown("event of the node", n))?;
    let at = if key.family == 0 {
        zeros("address of an event without one", &key.addr)?;
        None
    } else {
        let at = key::socket(
            "address of the node's event",
            key.family,
            &key.addr,
            key.port,
        )?;
        Some(at)
    };
    Ok(NodeCount {
        event,
        netns: NetnsId(key.netns),
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener() {
        let mut key = NodeCountKey {
            addr: [0; 16],
            netns: 7,
            port: 80,
            family: 4,
            event: NodeEvent::SynQueueFull as u8,
        };
        key.addr[..4].copy_from_slice(&[10, 0, 0, 1]);
        let expected = NodeCount {
            event: NodeEvent::SynQueueFull,
            netns: NetnsId(7),
            at: Some(SocketAddr::from(([10, 0, 0, 1], 80))),
        };
        assert_eq!(node_count(&key), Ok(expected));
        key.event = 200;
        assert!(node_count(&key).is_err());
    }

    #[test]
    fn an_event_of_no_address_has_none() {
        let mut key = NodeCountKey {
            addr: [0; 16],
            netns: 7,
            port: 0,
            family: 0,
            event: NodeEvent::SynQueueFull as u8,
        };
        assert_eq!(node_count(&key).unwrap().at, None);
        key.addr[3] = 1;
        assert!(node_count(&key).is_err());
    }
}
