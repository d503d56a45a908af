//! The places netfilter's rules hang on.

use crate::verdict::{UnknownNumber, wire_enum};

wire_enum! {
    /// A hook of netfilter (`enum nf_inet_hooks`, include/uapi/linux/netfilter.h), one higher.
    HookPoint {
        /// Every packet that comes in, before it is routed.
        Prerouting = 1, "prerouting";
        /// Packets for this host.
        Input = 2, "input";
        /// Packets that pass through.
        Forward = 3, "forward";
        /// Packets of this host, and those IPVS sends on.
        Output = 4, "output";
        /// Every packet that goes out.
        Postrouting = 5, "postrouting";
    }
}
