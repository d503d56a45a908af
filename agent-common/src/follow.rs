//! Stale attempts whose outcome is awaited, and what ends the wait.

#[cfg(test)]
mod tests;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    key::{RealServerKey, ServiceKey},
    verdict::Outcome,
};

/// `IPPROTO_SCTP`.
const SCTP: u8 = 132;
/// `IP_VS_TCP_S_CLOSE` (include/uapi/linux/ip_vs.h).
const TCP_CLOSE: u8 = 6;
/// `IP_VS_SCTP_S_REJECTED`; the state behind it is CLOSED.
const SCTP_REJECTED: u8 = 12;

/// Stale attempts followed at once.
///
/// 16,384 within the default deadline of 16 s are 1,000 stale attempts per second, far above an
/// incident anybody would leave alone; about 3 MiB. An attempt beyond it is counted in
/// [`crate::stat::Stat::FollowedFull`], and so its outcome stays unknown.
pub const FOLLOWED_MAX: u32 = 16_384;

/// One stale attempt on its way, kept by the tuple of its SYN.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Followed {
    /// Address of IPVS's entry; read again only after it has proven to be the same entry.
    pub conn: u64,
    /// When IPVS had decided about the first SYN.
    pub since_ns: u64,
    /// When the latest SYN of the attempt was seen.
    pub last_syn_ns: u64,
    /// Service the attempt belongs to.
    pub service: ServiceKey,
    /// The stale real server.
    pub real_server: RealServerKey,
    /// Its weight at the decision.
    pub weight: i32,
    /// Initial sequence number, host order.
    pub isn: u32,
    /// SYNs seen after the first.
    pub retransmits: u16,
    /// [`crate::verdict::StaleCause`].
    pub cause: u8,
    /// 1: the client itself reset the old connection, so a closed entry is no refusal.
    pub client_reset: u8,
    /// Always 0.
    pub pad: [u8; 4],
}

const _: () = assert!(size_of::<Followed>() == 88);

/// What a packet of the client that opens nothing says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientPacket {
    /// The client goes on: the server has answered.
    Continues,
    /// The client resets the connection.
    Resets,
}

impl Followed {
    /// A SYN of the same addresses was sent again: the wait for an answer starts over.
    #[inline(always)]
    pub const fn on_retransmit(&mut self, isn: u32, now_ns: u64) {
        if self.isn == isn {
            self.last_syn_ns = now_ns;
            self.retransmits = self.retransmits.saturating_add(1);
            self.client_reset = 0;
        }
    }

    /// A SYN of the same addresses came; the outcome if it is another attempt's, which ends this
    /// one. `state` is that of the entry the SYN met, before IPVS changes it, or 0.
    #[inline(always)]
    pub const fn on_syn(&self, isn: u32, proto: u8, state: u8) -> Option<Outcome> {
        if self.isn == isn {
            return None;
        }
        if self.is_refused(proto, state) {
            Some(Outcome::Refused)
        } else {
            Some(Outcome::TimedOut)
        }
    }

    /// The client sent a packet that is no SYN.
    #[inline(always)]
    pub const fn on_client_packet(&mut self, packet: ClientPacket) -> Option<Outcome> {
        match packet {
            ClientPacket::Continues => Some(Outcome::Answered),
            ClientPacket::Resets => {
                self.client_reset = 1;
                None
            }
        }
    }

    /// Time has passed. `state` is that of IPVS's entry while it still is the attempt's own.
    #[inline(always)]
    pub const fn on_look(
        &self,
        proto: u8,
        state: Option<u8>,
        now_ns: u64,
        timeout_ns: u64,
    ) -> Option<Outcome> {
        if let Some(state) = state
            && self.is_refused(proto, state)
        {
            return Some(Outcome::Refused);
        }
        let waited_ns = now_ns.wrapping_sub(self.last_syn_ns);
        // A SYN on another CPU may have come after `now_ns` was read.
        if waited_ns > timeout_ns && waited_ns < 1 << 63 {
            return Some(Outcome::TimedOut);
        }
        None
    }

    /// A closed entry is a refusal, unless it was the client that closed it.
    #[inline(always)]
    const fn is_refused(&self, proto: u8, state: u8) -> bool {
        let closed = if proto == SCTP {
            state >= SCTP_REJECTED
        } else {
            state == TCP_CLOSE
        };
        closed && self.client_reset == 0
    }
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: `#[repr(C)]`, `Copy`, and `zerocopy::IntoBytes` proves there is no padding.
    unsafe impl aya::Pod for super::Followed {}
}
