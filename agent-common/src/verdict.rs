//! The words of the product: what IPVS decided and why a SYN died.
//!
//! Each enumeration travels as its `u8`; [`TryFrom`] refuses a number this build does not know.

/// A number that is no member of the enumeration it was read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownNumber(pub u8);

/// Declares an enumeration with its wire number and the string used in outputs.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $number:literal, $word:literal;)* }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$vmeta])* $variant = $number,)*
        }

        impl $name {
            /// Every member, in wire order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The string used in metrics, logs and JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl TryFrom<u8> for $name {
            type Error = UnknownNumber;

            fn try_from(number: u8) -> Result<Self, UnknownNumber> {
                match number { $($number => Ok(Self::$variant),)* other => Err(UnknownNumber(other)) }
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": [$($word,)*] })
            }
        }
    };
}

pub(crate) use wire_enum;

wire_enum! {
    /// What IPVS did with an attempt's SYN.
    Decision {
        /// No entry: the scheduler chose.
        Scheduled = 1, "scheduled";
        /// Followed an existing entry to a real server of weight > 0.
        Reused = 2, "reused";
        /// Followed an entry or template to a real server of weight 0 or removed from the service.
        ReusedStale = 3, "reused_stale";
        /// Entry found, expired by the kernel, scheduler chose again.
        Rescheduled = 4, "rescheduled";
        /// IPVS dropped the SYN.
        Dropped = 5, "dropped";
    }
}

wire_enum! {
    /// Why an attempt was sent to a stale real server.
    StaleCause {
        /// The client's source port came back before the old entry expired.
        PortReuse = 1, "port_reuse";
        /// A persistence template, or an entry controlled by one.
        Persistence = 2, "persistence";
    }
}

wire_enum! {
    /// Why a SYN died on this node.
    DropCause {
        /// IPVS: the old entry's conntrack is confirmed, so the SYN cannot be rescheduled.
        IpvsReuse = 1, "ipvs_reuse";
        /// IPVS: the entry's real server was removed from the service.
        IpvsRemoved = 2, "ipvs_removed";
        /// IPVS: the service has no server left to choose.
        IpvsNoDestination = 3, "ipvs_no_destination";
        /// A netfilter hook other than IPVS and conntrack: a rule of iptables or nftables.
        Netfilter = 4, "netfilter";
        /// Anything else the kernel freed a SYN for.
        Other = 5, "other";
        /// Conntrack: its table is full.
        ConntrackFull = 6, "conntrack_full";
        /// Conntrack: another entry took the addresses of this one first.
        ConntrackInsert = 7, "conntrack_insert";
        /// The listener's queue of connections waiting for `accept` is full.
        AcceptQueueFull = 8, "accept_queue_full";
        /// The listener's queue of half-open connections is full.
        SynQueueFull = 9, "syn_queue_full";
        /// Reverse path filter: the answer would leave by another device.
        RpFilter = 10, "rp_filter";
        /// No route to the real server, or one that prohibits.
        NoRoute = 11, "no_route";
        /// The neighbour's link-layer address is not known: nothing answered ARP or NDP.
        Neighbour = 12, "neighbour";
        /// IPVS could not send the packet on, for another reason than a missing route.
        IpvsTransmit = 13, "ipvs_transmit";
    }
}

wire_enum! {
    /// What became of an attempt that was sent to a stale real server.
    Outcome {
        /// The connection was opened: the real server was still finishing.
        Answered = 1, "answered";
        /// The real server's host refused (RST, or an ICMP error for the port).
        Refused = 2, "refused";
        /// An ICMP error: "No route to host" at the client.
        Unreachable = 3, "unreachable";
        /// Nothing came back in time.
        TimedOut = 4, "timed_out";
    }
}

wire_enum! {
    /// Where the SYN before a retransmit was lost.
    Lost {
        /// On this node: a drop of that attempt was seen here.
        Here = 1, "here";
        /// At a stale real server, to which IPVS had sent it.
        StaleRealServer = 2, "stale_real_server";
        /// Behind this node: it was seen leaving by a hardware device, and none of its attempt died
        /// here since.
        Elsewhere = 3, "elsewhere";
        /// Nowhere: the real server still had a connection of that port and answered with a
        /// challenge ACK (RFC 5961, section 4), as a retransmit that comes so early shows.
        ChallengeAck = 5, "challenge_ack";
        /// Not known: no drop of it was seen here, nor was it seen leaving.
        Unknown = 4, "unknown";
    }
}
