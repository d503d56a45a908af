//! Where the kernel keeps what we read: resolved by the agent from BTF, read by the programs.
//!
//! One line per field. [`KernelLayout`] holds byte offsets; [`FIELDS`] says how the agent finds
//! each one, so that adding a field is one line here and the compiler leads to its use.

/// Offset of a field this kernel does not have.
pub const ABSENT: u16 = u16::MAX;

/// How to find one field in BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldSpec {
    /// Name of the field in [`KernelLayout`].
    pub name: &'static str,
    /// C structure that holds it.
    pub structure: &'static str,
    /// Path of members from the structure, separated by dots; anonymous members are followed.
    pub path: &'static str,
    /// Size in bytes the programs read; more than one where a kernel series changed it.
    pub sizes_bytes: &'static [u16],
    /// Whether the programs can work on a kernel that does not have it.
    pub required: bool,
    /// What this very field is for, where its structure does not say it.
    pub own_costs: Option<&'static str>,
}

impl FieldSpec {
    /// What the agent cannot report without this field, for people.
    pub fn costs(&self) -> &'static str {
        if let Some(own) = self.own_costs {
            return own;
        }
        match self.structure {
            "ip_vs_conn" => "what became of a connection attempt that met an old entry",
            "ip_vs_dest" => "which real server a connection attempt went to",
            "ip_vs_service" => "which service a connection attempt was for",
            "netns_ipvs" => "in which network namespace a connection was attempted",
            "sock" | "inet_connection_sock" => {
                "which listener refused a connection, or for which destination no source port was free"
            }
            "tcp_sock" => "that a full segment was sent again and again",
            _ => "that a connection was attempted",
        }
    }
}

macro_rules! kernel_layout {
    ($($(#[$meta:meta])* $name:ident: $structure:literal . $path:literal, $sizes:expr, $required:ident $(, $costs:literal)?;)*) => {
        /// Byte offsets into kernel structures, [`ABSENT`] where an optional field is missing.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct KernelLayout {
            $($(#[$meta])* pub $name: u16,)*
        }

        /// How to find every field of [`KernelLayout`], in its order.
        pub const FIELDS: &[FieldSpec] = &[
            $(FieldSpec {
                name: stringify!($name),
                structure: $structure,
                path: $path,
                sizes_bytes: &$sizes,
                required: kernel_layout!(@ $required),
                own_costs: kernel_layout!(@ costs $($costs)?),
            },)*
        ];

        impl KernelLayout {
            /// Number of fields.
            pub const LEN: usize = FIELDS.len();

            /// The layout from offsets in the order of [`FIELDS`].
            pub const fn from_offsets(offsets: [u16; Self::LEN]) -> Self {
                let [$($name,)*] = offsets;
                Self { $($name,)* }
            }

            /// The offsets in the order of [`FIELDS`].
            pub const fn offsets(&self) -> [u16; Self::LEN] {
                [$(self.$name,)*]
            }
        }
    };
    (@ required) => { true };
    (@ optional) => { false };
    (@ costs) => { None };
    (@ costs $costs:literal) => { Some($costs) };
}

kernel_layout! {
    /// `unsigned char *`: first byte of the packet's buffer.
    skb_head: "sk_buff" . "head", [8], required;
    /// `unsigned char *`: first byte of the packet as the current layer sees it.
    skb_data: "sk_buff" . "data", [8], required;
    /// Total bytes.
    skb_len: "sk_buff" . "len", [4], required;
    /// Bytes outside the linear part.
    skb_data_len: "sk_buff" . "data_len", [4], required;
    /// `__be16`: Ethernet protocol.
    skb_protocol: "sk_buff" . "protocol", [2], required;
    /// Offset of the IP header from `head`.
    skb_network_header: "sk_buff" . "network_header", [2], required;
    /// `struct net_device *`.
    skb_dev: "sk_buff" . "dev", [8], required;
    /// `struct net *` of a device.
    dev_net: "net_device" . "nd_net.net", [8], required;
    /// Inode number of a network namespace.
    net_inum: "net" . "ns.inum", [4], required;

    /// Bits: 1 inverse, 2 ICMP; 0 for a packet of the connection itself.
    iphdr_flags: "ip_vs_iphdr" . "hdr_flags", [4], required;
    /// Bytes from `skb->data` to the transport header.
    iphdr_len: "ip_vs_iphdr" . "len", [4], required;
    /// Fragment offset; the transport header is only in the first fragment.
    iphdr_fragoffs: "ip_vs_iphdr" . "fragoffs", [2], required;
    /// IP protocol number.
    iphdr_protocol: "ip_vs_iphdr" . "protocol", [2], required;
    /// Source address.
    iphdr_saddr: "ip_vs_iphdr" . "saddr", [16], required;
    /// Destination address.
    iphdr_daddr: "ip_vs_iphdr" . "daddr", [16], required;

    /// Client port of an entry, `__be16`.
    conn_cport: "ip_vs_conn" . "cport", [2], required;
    /// Virtual port of an entry, `__be16`.
    conn_vport: "ip_vs_conn" . "vport", [2], required;
    /// Real server port of an entry, `__be16`.
    conn_dport: "ip_vs_conn" . "dport", [2], required;
    /// Client address of an entry.
    conn_caddr: "ip_vs_conn" . "caddr", [16], required;
    /// Virtual address of an entry.
    conn_vaddr: "ip_vs_conn" . "vaddr", [16], required;
    /// Real server address of an entry.
    conn_daddr: "ip_vs_conn" . "daddr", [16], required;
    /// IP protocol number of an entry.
    conn_protocol: "ip_vs_conn" . "protocol", [2], required;
    /// Firewall mark of an entry.
    conn_fwmark: "ip_vs_conn" . "fwmark", [4], required, "services by firewall mark";
    /// State of an entry, `IP_VS_TCP_S_*`.
    conn_state: "ip_vs_conn" . "state", [2], required, "the state of the old entry a connection attempt met";
    /// `struct ip_vs_conn *`: the persistence template (or FTP control) this entry belongs to.
    conn_control: "ip_vs_conn" . "control", [8], required, "persistence as the cause of a stale connection";
    /// `struct ip_vs_dest *`: the real server, kept alive after its removal.
    conn_dest: "ip_vs_conn" . "dest", [8], required;

    /// Address family (`AF_INET` 2, `AF_INET6` 10) of a real server.
    dest_af: "ip_vs_dest" . "af", [2], required;
    /// Port of a real server, `__be16`.
    dest_port: "ip_vs_dest" . "port", [2], required;
    /// Address of a real server.
    dest_addr: "ip_vs_dest" . "addr", [16], required;
    /// `atomic_t` weight.
    dest_weight: "ip_vs_dest" . "weight", [4], required, "stale connections to draining real servers";
    /// Flags; bit 0 is AVAILABLE where `cflags` does not exist.
    dest_flags: "ip_vs_dest" . "flags", [4], required, "stale connections to removed real servers";
    /// Flags of the configuration; bit 0 is AVAILABLE where this field exists (2026 stable updates).
    dest_cflags: "ip_vs_dest" . "cflags", [8], optional, "nothing: this kernel keeps in `flags` what newer ones keep here";
    /// IP protocol of the real server's service.
    dest_protocol: "ip_vs_dest" . "protocol", [2], required;
    /// Port of the real server's service, `__be16`.
    dest_vport: "ip_vs_dest" . "vport", [2], required;
    /// Address of the real server's service.
    dest_vaddr: "ip_vs_dest" . "vaddr", [16], required;
    /// `struct ip_vs_service *` of a real server; still there when it is removed.
    dest_svc: "ip_vs_dest" . "svc", [8], required;
    /// Firewall mark of the real server's service.
    dest_vfwmark: "ip_vs_dest" . "vfwmark", [4], required, "services by firewall mark";

    /// Address family of a service.
    svc_af: "ip_vs_service" . "af", [2], required;
    /// IP protocol of a service.
    svc_protocol: "ip_vs_service" . "protocol", [2], required;
    /// Address of a service.
    svc_addr: "ip_vs_service" . "addr", [16], required;
    /// Port of a service, `__be16`.
    svc_port: "ip_vs_service" . "port", [2], required;
    /// Firewall mark of a service.
    svc_fwmark: "ip_vs_service" . "fwmark", [4], required, "services by firewall mark";
    /// `struct netns_ipvs *` of a service.
    svc_ipvs: "ip_vs_service" . "ipvs", [8], required;
    /// `struct net *` of an IPVS instance.
    ipvs_net: "netns_ipvs" . "net", [8], required;

    /// Connections that wait for `accept`.
    sock_ack_backlog: "sock" . "sk_ack_backlog", [4], optional;
    /// Most of them, and of half-open ones.
    sock_max_ack_backlog: "sock" . "sk_max_ack_backlog", [4], optional;
    /// `struct net *` of a socket.
    sock_net: "sock" . "__sk_common.skc_net.net", [8], optional;
    /// Address family of a socket.
    sock_family: "sock" . "__sk_common.skc_family", [2], optional;
    /// Local port of a socket, host order; 0 before it has one.
    sock_num: "sock" . "__sk_common.skc_num", [2], optional;
    /// Local IPv4 address of a socket.
    sock_rcv_saddr: "sock" . "__sk_common.skc_rcv_saddr", [4], optional;
    /// Local IPv6 address of a socket.
    sock_v6_rcv_saddr: "sock" . "__sk_common.skc_v6_rcv_saddr", [16], optional;
    /// Remote port of a socket, `__be16`.
    sock_dport: "sock" . "__sk_common.skc_dport", [2], optional;
    /// Remote IPv4 address of a socket.
    sock_daddr: "sock" . "__sk_common.skc_daddr", [4], optional;
    /// Remote IPv6 address of a socket.
    sock_v6_daddr: "sock" . "__sk_common.skc_v6_daddr", [16], optional;
    /// Timeouts in a row of a socket.
    icsk_retransmits: "inet_connection_sock" . "icsk_retransmits", [1], optional;
    /// Which timer of a socket runs; 0 while what it timed is done.
    icsk_pending: "inet_connection_sock" . "icsk_pending", [1], optional;
    /// Bytes of a full segment.
    tcp_mss_cache: "tcp_sock" . "mss_cache", [4], optional;
    /// Conntrack entry of a packet and its state; 0 when it has none.
    skb_nfct: "sk_buff" . "_nfct", [8], optional,
        "that a SYN died because conntrack's table is full";
    /// `atomic_t` half-open connections of a listener.
    icsk_qlen: "inet_connection_sock" . "icsk_accept_queue.qlen", [4], optional;
    /// `net.ipv4.tcp_syncookies`; an `int` before 5.14, whose first byte has the value.
    net_syncookies: "net" . "ipv4.sysctl_tcp_syncookies", [1, 4], optional,
        "which listener refused a connection";
    /// `net.ipv4.tcp_max_syn_backlog`.
    net_max_syn_backlog: "net" . "ipv4.sysctl_max_syn_backlog", [4], optional,
        "which listener refused a connection";
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: `#[repr(C)]` and every field is a `u16`, so there is no padding.
    unsafe impl aya::Pod for super::KernelLayout {}
}
