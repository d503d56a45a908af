//! Numbers of the interface, from the kernel's `include/uapi/linux/ip_vs.h` and `genetlink.h`.
//!
//! They are part of the kernel's stable interface: numbers are added, never changed.

/// Bytes of `struct nlmsghdr`.
pub const NETLINK_HEADER_BYTES: usize = 16;
/// Bytes of `struct genlmsghdr`, in front of the attributes.
pub const GENERIC_HEADER_BYTES: usize = 4;
/// Message type of the family that knows the numbers of the others (`GENL_ID_CTRL`).
pub const CONTROL_FAMILY: u16 = 16;

/// `AF_INET`, which IPVS writes in 16 bits.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;

/// Of the control family.
pub mod control {
    /// `CTRL_CMD_GETFAMILY`
    pub const GET_FAMILY: u8 = 3;
    /// `CTRL_ATTR_FAMILY_ID`, 16 bits.
    pub const FAMILY_ID: u16 = 1;
    /// `CTRL_ATTR_FAMILY_NAME`, a text with its NUL.
    pub const FAMILY_NAME: u16 = 2;
}

/// `IPVS_CMD_*`
pub mod command {
    /// `IPVS_CMD_GET_SERVICE`
    pub const GET_SERVICE: u8 = 4;
    /// `IPVS_CMD_GET_DEST`
    pub const GET_DEST: u8 = 8;
}

/// `IPVS_CMD_ATTR_*`: the outer attributes.
pub mod attribute {
    /// `IPVS_CMD_ATTR_SERVICE`, nested.
    pub const SERVICE: u16 = 1;
    /// `IPVS_CMD_ATTR_DEST`, nested.
    pub const DEST: u16 = 2;
}

/// `IPVS_SVC_ATTR_*`
pub mod service {
    /// `IPVS_SVC_ATTR_AF`, 16 bits.
    pub const AF: u16 = 1;
    /// `IPVS_SVC_ATTR_PROTOCOL`, 16 bits; absent with a mark.
    pub const PROTOCOL: u16 = 2;
    /// `IPVS_SVC_ATTR_ADDR`, `union nf_inet_addr`; absent with a mark.
    pub const ADDR: u16 = 3;
    /// `IPVS_SVC_ATTR_PORT`, network order; absent with a mark.
    pub const PORT: u16 = 4;
    /// `IPVS_SVC_ATTR_FWMARK`, 32 bits; absent without one.
    pub const FWMARK: u16 = 5;
    /// `IPVS_SVC_ATTR_SCHED_NAME`, a text with its NUL.
    pub const SCHED_NAME: u16 = 6;
    /// `IPVS_SVC_ATTR_FLAGS`, `struct ip_vs_flags`: flags and mask, 32 bits each.
    pub const FLAGS: u16 = 7;
    /// `IPVS_SVC_ATTR_TIMEOUT`, seconds.
    pub const TIMEOUT: u16 = 8;
    /// `IPVS_SVC_ATTR_NETMASK`, 32 bits: network order of IPv4, a prefix length of IPv6.
    pub const NETMASK: u16 = 9;
}

/// `IPVS_DEST_ATTR_*`
pub mod dest {
    /// `IPVS_DEST_ATTR_ADDR`, `union nf_inet_addr`.
    pub const ADDR: u16 = 1;
    /// `IPVS_DEST_ATTR_PORT`, network order.
    pub const PORT: u16 = 2;
    /// `IPVS_DEST_ATTR_FWD_METHOD`, `IP_VS_CONN_F_*` of the forwarding mask.
    pub const FWD_METHOD: u16 = 3;
    /// `IPVS_DEST_ATTR_WEIGHT`
    pub const WEIGHT: u16 = 4;
    /// `IPVS_DEST_ATTR_U_THRESH`
    pub const U_THRESH: u16 = 5;
    /// `IPVS_DEST_ATTR_L_THRESH`
    pub const L_THRESH: u16 = 6;
    /// `IPVS_DEST_ATTR_ACTIVE_CONNS`
    pub const ACTIVE_CONNS: u16 = 7;
    /// `IPVS_DEST_ATTR_INACT_CONNS`
    pub const INACT_CONNS: u16 = 8;
    /// `IPVS_DEST_ATTR_PERSIST_CONNS`
    pub const PERSIST_CONNS: u16 = 9;
    /// `IPVS_DEST_ATTR_ADDR_FAMILY`, 16 bits; absent before 3.18, when it was the service's.
    pub const ADDR_FAMILY: u16 = 11;
}

/// `IP_VS_CONN_F_FWD_MASK`: the bits of a forwarding method; others may be set as well.
pub const FORWARDING_MASK: u32 = 7;
