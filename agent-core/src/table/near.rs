//! Clients whose source ports come back before IPVS forgets them: reuse, before anything fails.
//!
//! PURE. Looks only at who opened connections of late, so it warns while nothing is stale yet.
//! The attempts it is handed are those the kernel programs remember for recognising retransmits.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_common::attempt::ATTEMPTS_MAX;
use agent_common::key::TupleKey;

use crate::decode;
use crate::event::{Service, ServiceName, Tuple};

/// Source ports a client has for one destination before it begins again.
///
/// Linux gives outgoing connections 32768–60999, and of those one parity as long as it can
/// (`__inet_hash_connect`).
const PORTS: u32 = 14_116;

/// How long IPVS keeps the entry of a closed connection (`IP_VS_TCP_S_TIME_WAIT`,
/// net/netfilter/ipvs/ip_vs_proto_tcp.c). No parameter changes it.
const KEPT: Duration = Duration::from_secs(120);

/// Near is four fifths of the 118 connections per second at which ports come back in time: a
/// client's rate is never that even.
const NEAR: (u32, u32) = (4, 5);

/// What a rate is taken over: long enough that a burst of a second is none.
pub const WINDOW: Duration = Duration::from_secs(30);

/// Connections of one client to one address and port in a whole [`WINDOW`] that bring it near.
pub const NEAR_FROM: u64 = near_from(WINDOW.as_secs()) as u64;

/// The kernel remembers the latest attempts whoever made them. Beyond half of its room some of a
/// window may have been forgotten already.
const REMEMBERED: u64 = (ATTEMPTS_MAX / 2) as u64;

/// What to look for, and how far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// As much of [`WINDOW`] as the kernel remembers.
    pub window: Duration,
}

impl Look {
    /// Whether any client can be near, given the new connections of the last [`WINDOW`]: of the
    /// busiest service, and of all.
    #[must_use]
    pub fn for_rates(busiest: u64, all: u64) -> Option<Self> {
        if busiest < NEAR_FROM {
            return None;
        }
        let remembered = REMEMBERED.min(all);
        #[expect(clippy::cast_precision_loss, reason = "connections of half a minute")]
        let window = WINDOW.mul_f64(remembered as f64 / all as f64);
        Some(Self { window })
    }

    /// Connections of one client that bring it near.
    fn near_from(self) -> usize {
        let whole = WINDOW.as_millis().max(1);
        let part = u128::from(NEAR_FROM) * self.window.as_millis() / whole;
        usize::try_from(part).unwrap_or(usize::MAX).max(1)
    }
}

const fn near_from(seconds: u64) -> u32 {
    let (of, all) = NEAR;
    // Rounded up.
    let ports = (PORTS * of) as u64 * seconds;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "fewer than there are ports"
    )]
    let from = ports.div_ceil((all as u64) * KEPT.as_secs()) as u32;
    from
}

/// Clients near reuse of each service, by the `attempts` of the window.
///
/// A service by mark is not found: a tuple does not carry the mark. What reaches no service is
/// no service's.
#[must_use]
pub fn clients(
    mut attempts: Vec<TupleKey>,
    look: Look,
    knows: impl Fn(&Service) -> bool,
) -> BTreeMap<Service, usize> {
    // The kernel's table is read while it changes: one attempt may be read twice.
    attempts.sort_unstable();
    attempts.dedup();
    for attempt in &mut attempts {
        attempt.client_port = 0;
    }
    attempts.sort_unstable();
    let mut near = BTreeMap::new();
    for of_client in attempts.chunk_by(PartialEq::eq) {
        let Some(first) = of_client.first() else {
            continue;
        };
        if of_client.len() < look.near_from() {
            continue;
        }
        if let Some(service) = decode::tuple(first).ok().and_then(|t| service(&t, &knows)) {
            *near.entry(service).or_default() += 1;
        }
    }
    near
}

/// The service a tuple was for: its own port, or every port of its address.
fn service(tuple: &Tuple, knows: impl Fn(&Service) -> bool) -> Option<Service> {
    let every_port = std::net::SocketAddr::new(tuple.destination.ip(), 0);
    [tuple.destination, every_port]
        .map(|local| Service {
            netns: tuple.netns,
            name: ServiceName::Address {
                proto: tuple.proto,
                local,
            },
        })
        .into_iter()
        .find(|service| knows(service))
}

#[cfg(test)]
mod tests {
    use agent_common::key::FAMILY_IPV4;

    use super::*;
    use crate::decode::wire;
    use crate::testing::sample_service;

    /// Attempts of one client to the sample service, from ports of its own.
    fn attempts(client: u8, count: usize) -> Vec<TupleKey> {
        let service = wire::service(&sample_service());
        let mut client_addr = [0; 16];
        client_addr[..4].copy_from_slice(&[192, 0, 2, client]);
        (10_000..)
            .take(count)
            .map(|client_port| TupleKey {
                client_addr,
                dest_addr: service.addr,
                client_port,
                dest_port: service.port,
                netns: service.netns,
                family: FAMILY_IPV4,
                proto: service.proto,
                pad: [0; 2],
            })
            .collect()
    }

    fn look() -> Look {
        Look::for_rates(NEAR_FROM, NEAR_FROM).unwrap()
    }

    fn found(attempts: Vec<TupleKey>, look: Look) -> BTreeMap<Service, usize> {
        clients(attempts, look, |service| *service == sample_service())
    }

    #[test]
    fn ports_come_back_at_118_per_second() {
        assert_eq!(u64::from(PORTS) / KEPT.as_secs(), 117);
        // Four fifths of 117.63, for half a minute.
        assert_eq!(NEAR_FROM, 2_824);
    }

    #[test]
    fn each_client_is_judged_by_its_own_rate() {
        let near = usize::try_from(NEAR_FROM).unwrap();
        let all = [
            attempts(1, near),
            attempts(2, near - 1),
            attempts(3, near + 9),
        ]
        .concat();
        assert_eq!(found(all, look()), BTreeMap::from([(sample_service(), 2)]));
    }

    #[test]
    fn what_is_read_twice_counts_once() {
        let half = attempts(1, usize::try_from(NEAR_FROM).unwrap() - 1);
        assert!(found([half.clone(), half].concat(), look()).is_empty());
    }

    #[test]
    fn a_quiet_node_is_not_looked_at_and_a_busy_one_over_less() {
        assert_eq!(Look::for_rates(NEAR_FROM - 1, 1_000_000), None);
        assert_eq!(Look::for_rates(NEAR_FROM, 10_000).unwrap().window, WINDOW);
        let busy = Look::for_rates(400_000, 10 * REMEMBERED).unwrap();
        assert_eq!(busy.window, WINDOW / 10);
        assert_eq!(busy.near_from(), 282);
        assert_eq!(found(attempts(1, 282), busy).len(), 1);
        assert!(found(attempts(1, 281), busy).is_empty());
    }

    #[test]
    fn a_service_of_every_port_is_found_and_a_stranger_is_not() {
        let near = usize::try_from(NEAR_FROM).unwrap();
        let every_port = Service {
            name: ServiceName::Address {
                proto: crate::event::Proto::Tcp,
                local: "10.96.0.10:0".parse().unwrap(),
            },
            ..sample_service()
        };
        let known = clients(attempts(1, near), look(), |service| *service == every_port);
        assert_eq!(known, BTreeMap::from([(every_port, 1)]));
        assert!(clients(attempts(1, near), look(), |_| false).is_empty());
    }
}
