//! What the histories in `attempt::tests` cannot reach: other protocols, clocks that disagree.

use super::*;
use crate::verdict::StaleCause;

const TCP: u8 = 6;

fn followed(client_reset: u8) -> Followed {
    Followed {
        conn: 1,
        since_ns: 1_000,
        last_syn_ns: 1_000,
        service: ServiceKey {
            addr: [0; 16],
            fwmark: 0,
            netns: 1,
            port: 80,
            family: 4,
            proto: TCP,
        },
        real_server: RealServerKey::NONE,
        weight: 0,
        isn: 7,
        retransmits: 0,
        cause: StaleCause::PortReuse as u8,
        client_reset,
        pad: [0; 4],
    }
}

#[test]
fn a_state_is_read_in_its_own_protocol() {
    for state in 0..=u8::MAX {
        let refused = |proto| followed(0).on_look(proto, Some(state), 1_000, 100);
        let want = |closed: bool| closed.then_some(Outcome::Refused);
        assert_eq!(refused(TCP), want(state == TCP_CLOSE), "TCP {state}");
        assert_eq!(refused(SCTP), want(state >= SCTP_REJECTED), "SCTP {state}");
    }
}

#[test]
fn a_client_that_reset_the_connection_was_not_refused() {
    assert_eq!(followed(1).on_look(TCP, Some(TCP_CLOSE), 1_000, 100), None);
    assert_eq!(
        followed(1).on_syn(8, TCP, TCP_CLOSE),
        Some(Outcome::TimedOut)
    );
}

#[test]
fn silence_is_measured_from_the_latest_syn_and_never_backwards() {
    let look = |now_ns| followed(0).on_look(TCP, None, now_ns, 100);
    assert_eq!(look(1_100), None);
    assert_eq!(look(1_101), Some(Outcome::TimedOut));
    // The SYN came on another CPU after this one had read the clock.
    assert_eq!(look(999), None);
}

#[test]
fn a_retransmit_of_another_attempt_changes_nothing() {
    let mut it = followed(1);
    it.on_retransmit(8, 2_000);
    assert_eq!(it, followed(1));
    it.on_retransmit(7, 2_000);
    assert_eq!(
        (it.last_syn_ns, it.retransmits, it.client_reset),
        (2_000, 1, 0)
    );
}
