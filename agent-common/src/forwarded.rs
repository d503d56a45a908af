//! SYNs that IPVS sent on, by what no translation changes.
//!
//! Behind IPVS a SYN has another destination, behind masquerading another source, and in a pod
//! another namespace. Its initial sequence number stays.

use crate::key::{RealServerKey, ServiceKey, TupleKey};

/// SYNs remembered at once, a power of two; a younger SYN takes the place of an older one.
///
/// A SYN is looked up when it dies, mostly within a millisecond: 65,536 last that long up to
/// 65 million SYNs per second. One that waits 3 s for a neighbour is found again up to some 20,000
/// SYNs per second. One that is not found is counted as of no service. 6 MiB.
pub const FORWARDED_MAX: u32 = 65_536;

/// A SYN that IPVS sent on.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Who asked whom, in front of IPVS.
    pub tuple: TupleKey,
    /// Initial sequence number, host order.
    pub isn: u32,
    /// Its service.
    pub service: ServiceKey,
    /// The real server it was sent to.
    pub real_server: RealServerKey,
    /// Weight of the real server at the decision.
    pub weight: i32,
}

const _: () = assert!(size_of::<Forwarded>() == 100);

impl Forwarded {
    /// Where the SYN with this initial sequence number is remembered.
    ///
    /// Linux draws the numbers from a hash; the multiplication (Knuth, TAOCP 6.4) spreads those of
    /// clients that count.
    #[inline(always)]
    pub const fn slot(isn: u32) -> u32 {
        isn.wrapping_mul(0x9E37_79B1) >> (u32::BITS - FORWARDED_MAX.trailing_zeros())
    }

    /// Whether a packet with these addresses is this SYN: on its way to the real server, or not
    /// translated yet, as with direct routing. Masquerading changes the source, so the source is
    /// not compared. What two CPUs wrote at the same moment is no SYN, unless both were for one
    /// service.
    #[inline(always)]
    pub fn is_of(&self, tuple: &TupleKey, isn: u32) -> bool {
        if self.isn != isn || self.tuple.proto != tuple.proto {
            return false;
        }
        let is_consistent = self.service.fwmark != 0
            || (self.service.addr == self.tuple.dest_addr
                && (self.service.port == self.tuple.dest_port || self.service.port == 0));
        if !is_consistent {
            return false;
        }
        let translated = tuple.dest_addr == self.real_server.addr
            && (tuple.dest_port == self.real_server.port || self.real_server.port == 0);
        translated
            || (tuple.dest_addr == self.tuple.dest_addr && tuple.dest_port == self.tuple.dest_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u8) -> [u8; 16] {
        let mut addr = [0; 16];
        addr[0] = 10;
        addr[3] = last;
        addr
    }

    fn tuple(client: u8, dest: u8, dest_port: u16) -> TupleKey {
        TupleKey {
            client_addr: addr(client),
            dest_addr: addr(dest),
            client_port: 40_000,
            dest_port,
            netns: 1,
            family: 4,
            proto: 6,
            pad: [0; 2],
        }
    }

    fn forwarded(port: u16) -> Forwarded {
        Forwarded {
            tuple: tuple(2, 10, 80),
            isn: 7,
            service: ServiceKey {
                addr: addr(10),
                fwmark: 0,
                netns: 1,
                port: 80,
                family: 4,
                proto: 6,
            },
            real_server: RealServerKey {
                addr: addr(3),
                port,
                family: 4,
                pad: 0,
            },
            weight: 1,
        }
    }

    #[test]
    fn a_syn_is_found_on_both_sides_of_a_translation() {
        let it = forwarded(8_080);
        assert!(it.is_of(&tuple(2, 10, 80), 7), "in front of IPVS");
        assert!(it.is_of(&tuple(2, 3, 8_080), 7), "behind IPVS");
        assert!(it.is_of(&tuple(9, 3, 8_080), 7), "behind masquerading");
        let mut in_pod = tuple(2, 3, 8_080);
        in_pod.netns = 5;
        assert!(it.is_of(&in_pod, 7), "in another namespace");
        assert!(forwarded(0).is_of(&tuple(2, 3, 1), 7), "of every port");
    }

    #[test]
    fn another_syn_is_not_it() {
        let it = forwarded(8_080);
        assert!(!it.is_of(&tuple(2, 3, 8_080), 8), "another attempt");
        assert!(!it.is_of(&tuple(2, 3, 8_081), 7), "another port");
        assert!(!it.is_of(&tuple(2, 4, 8_080), 7), "another real server");
        let mut sctp = tuple(2, 3, 8_080);
        sctp.proto = 132;
        assert!(!it.is_of(&sctp, 7), "another protocol");
    }

    #[test]
    fn slots_lie_in_the_table_and_differ_for_clients_that_count() {
        let mut slots: std::vec::Vec<u32> = (0..1_000).map(Forwarded::slot).collect();
        assert!(slots.iter().all(|slot| *slot < FORWARDED_MAX));
        assert!(Forwarded::slot(u32::MAX) < FORWARDED_MAX);
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), 1_000);
    }
}
