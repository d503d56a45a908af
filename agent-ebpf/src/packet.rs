//! What a packet that opens a connection says about itself.
//!
//! "SYN" stands for what opens a connection: a TCP SYN, or an SCTP INIT.

use agent_common::{
    follow::ClientPacket,
    key::{FAMILY_IPV4, FAMILY_IPV6, TupleKey},
    stat::Stat,
};

use crate::read::{Load, Probe, field, offset};

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;
/// `IPPROTO_SCTP`.
pub const SCTP: u8 = 132;
/// `AF_INET6`, the same on every architecture Linux supports.
const AF_INET6: u64 = 10;

/// Bytes of a TCP header up to and including its flags.
const TCP_HEADER_TO_FLAGS_BYTES: u32 = 14;
/// Offset of the flags byte in a TCP header (RFC 9293, section 3.1).
const TCP_FLAGS_OFFSET: u64 = 13;
/// `ETH_P_IP` (include/uapi/linux/if_ether.h).
pub const ETH_P_IP: u16 = 0x0800;
/// `ETH_P_IPV6`.
pub const ETH_P_IPV6: u16 = 0x86dd;
/// Bytes of an IPv6 header; extension headers in front of a SYN are not followed.
const IPV6_HEADER_BYTES: u64 = 40;
/// First byte of an IPv4 header of 20 bytes (RFC 791).
const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// Bytes of such a header and of a TCP header up to and including its flags.
const START_BYTES: usize = 20 + TCP_HEADER_TO_FLAGS_BYTES as usize;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;
/// Offset of the first chunk's type in an SCTP packet (RFC 9260, section 3).
const SCTP_CHUNK_OFFSET: u64 = 12;
/// Offset of the initiate tag in a packet that begins with an INIT chunk (RFC 9260, 3.3.2).
const SCTP_TAG_OFFSET: u64 = 16;
const SCTP_INIT: u8 = 1;
const SCTP_ABORT: u8 = 6;

/// One SYN packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Syn {
    /// Who asks whom.
    pub tuple: TupleKey,
    /// Initial sequence number (SCTP: initiate tag), host order; 0 for a datagram.
    pub isn: u32,
}

impl Syn {
    /// Nothing known.
    pub const NONE: Self = Self {
        tuple: TupleKey {
            client_addr: [0; 16],
            dest_addr: [0; 16],
            client_port: 0,
            dest_port: 0,
            netns: 0,
            family: 0,
            proto: 0,
            pad: [0; 2],
        },
        isn: 0,
    };
}

/// Whether a flags byte opens a connection.
#[inline(always)]
const fn is_syn(flags: u8) -> bool {
    flags & (TCP_SYN | TCP_ACK) == TCP_SYN
}

/// IP protocol number of a packet IPVS has parsed.
#[inline(always)]
pub fn protocol(load: &impl Load, iph: u64) -> Probe<u16> {
    load.load(iph, offset!(iphdr_protocol))
}

/// Address of the transport header of a packet that opens a connection; `None` for any other
/// packet, an ICMP error about a connection or a reply included.
///
/// `skb` and `iph` are arguments of a traced function. Most packets open nothing, so the
/// checks that find this come first, and what only a SYN needs comes last.
#[inline(always)]
pub fn opening(load: &impl Load, skb: u64, iph: u64, protocol: u16) -> Probe<Option<u64>> {
    if protocol == u16::from(UDP) {
        return Ok(None);
    }
    let header_offset: u32 = load.load(iph, offset!(iphdr_len))?;
    let outside: u32 = load.load(skb, offset!(skb_data_len))?;
    if outside != 0 && !header_is_linear(load, skb, header_offset, outside)? {
        return if is_first_fragment(load, iph)? {
            Err(Stat::HeaderNotLinear)
        } else {
            Ok(None)
        };
    }
    let data: u64 = load.load(skb, offset!(skb_data))?;
    let header = data.wrapping_add(u64::from(header_offset));
    let protocol = u8::try_from(protocol).unwrap_or(u8::MAX);
    let opens =
        opens(protocol, header)? && is_own_packet(load, iph)? && is_first_fragment(load, iph)?;
    Ok(opens.then_some(header))
}

/// Address of the transport header of a datagram IPVS has parsed; `None` for an ICMP error about
/// a flow, a reply, and for what has no header of its own.
#[inline(always)]
pub fn datagram(load: &impl Load, skb: u64, iph: u64) -> Probe<Option<u64>> {
    if !is_own_packet(load, iph)? || !is_first_fragment(load, iph)? {
        return Ok(None);
    }
    header(load, skb, iph).map(Some)
}

/// What a packet that opens nothing says; `None` for what is not the client's own packet.
#[inline(always)]
pub fn going(load: &impl Load, skb: u64, iph: u64, protocol: u16) -> Probe<Option<ClientPacket>> {
    if !is_own_packet(load, iph)? || !is_first_fragment(load, iph)? {
        return Ok(None);
    }
    let header = header(load, skb, iph)?;
    if protocol == u16::from(SCTP) {
        let away = chunk(header)? == SCTP_ABORT;
        return Ok(Some(if away {
            ClientPacket::Resets
        } else {
            ClientPacket::Continues
        }));
    }
    let flags: u8 = field(header + TCP_FLAGS_OFFSET, 0)?;
    if flags & TCP_RST != 0 {
        return Ok(Some(ClientPacket::Resets));
    }
    Ok((flags & TCP_ACK != 0).then_some(ClientPacket::Continues))
}

/// Address of the transport header of a packet that has one in its linear part.
#[inline(always)]
pub fn header(load: &impl Load, skb: u64, iph: u64) -> Probe<u64> {
    let header_offset: u32 = load.load(iph, offset!(iphdr_len))?;
    let data: u64 = load.load(skb, offset!(skb_data))?;
    Ok(data.wrapping_add(u64::from(header_offset)))
}

/// Type of the first chunk of an SCTP packet.
#[inline(always)]
fn chunk(sctp: u64) -> Probe<u8> {
    field(sctp + SCTP_CHUNK_OFFSET, 0)
}

#[inline(always)]
fn header_is_linear(load: &impl Load, skb: u64, header_offset: u32, outside: u32) -> Probe<bool> {
    let len: u32 = load.load(skb, offset!(skb_len))?;
    Ok(len.wrapping_sub(outside) >= header_offset.wrapping_add(TCP_HEADER_TO_FLAGS_BYTES))
}

/// Whether IPVS parsed the packet's own header: not one inside an ICMP error, nor a reply's.
#[inline(always)]
fn is_own_packet(load: &impl Load, iph: u64) -> Probe<bool> {
    let flags: u32 = load.load(iph, offset!(iphdr_flags))?;
    Ok(flags == 0)
}

/// Only the first fragment carries a TCP header; elsewhere its place holds payload.
#[inline(always)]
fn is_first_fragment(load: &impl Load, iph: u64) -> Probe<bool> {
    let fragment_offset: u16 = load.load(iph, offset!(iphdr_fragoffs))?;
    Ok(fragment_offset == 0)
}

/// Whether the packet whose transport header is at `header` opens a connection.
#[inline(always)]
fn opens(protocol: u8, header: u64) -> Probe<bool> {
    match protocol {
        TCP => {
            let flags: u8 = field(header + TCP_FLAGS_OFFSET, 0)?;
            Ok(is_syn(flags))
        }
        SCTP => Ok(chunk(header)? == SCTP_INIT),
        _ => Ok(false),
    }
}

/// Where a packet IPVS has parsed says who asks whom.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Place {
    /// IPVS's parsed IP header (`struct ip_vs_iphdr *`).
    pub iph: u64,
    /// The transport header.
    pub header: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// IP protocol number.
    pub protocol: u16,
    /// `FAMILY_*`.
    pub family: u8,
}

/// Reads a SYN or a datagram.
///
/// # Errors
/// [`Stat::ReadFailed`].
#[inline(always)]
pub fn syn(place: &Place, syn: &mut Syn) -> Probe<()> {
    if read_syn(place, syn) == 0 {
        return Err(Stat::ReadFailed);
    }
    Ok(())
}

/// 1 if it could be read. A function of its own, for a stack of its own.
#[inline(never)]
fn read_syn(place: &Place, syn: &mut Syn) -> u32 {
    let Ok(tuple) = tuple(place) else {
        return 0;
    };
    let isn: Probe<u32> = match tuple.proto {
        TCP => field(place.header + 4, 0),
        SCTP => field(place.header + SCTP_TAG_OFFSET, 0),
        _ => Ok(0),
    };
    let Ok(isn) = isn else {
        return 0;
    };
    syn.tuple = tuple;
    syn.isn = u32::from_be(isn);
    1
}

/// The addresses and ports of a packet; the ports stand first in every transport header.
#[inline(always)]
fn tuple(place: &Place) -> Probe<TupleKey> {
    let ports: [u16; 2] = field(place.header, 0)?;
    let family = place.family;
    Ok(TupleKey {
        client_addr: address(place.iph, offset!(iphdr_saddr), family)?,
        dest_addr: address(place.iph, offset!(iphdr_daddr), family)?,
        client_port: u16::from_be(ports[0]),
        dest_port: u16::from_be(ports[1]),
        netns: place.netns,
        family,
        proto: u8::try_from(place.protocol).unwrap_or(u8::MAX),
        pad: [0; 2],
    })
}

/// The family of an address-family number of the kernel.
#[inline(always)]
pub const fn family(af: u64) -> u8 {
    if af & 0xffff_ffff == AF_INET6 {
        FAMILY_IPV6
    } else {
        FAMILY_IPV4
    }
}

/// Reads an address; the kernel leaves the bytes behind an IPv4 address undefined, so they are
/// not read.
#[inline(always)]
pub fn address(base: u64, offset: u16, family: u8) -> Probe<[u8; 16]> {
    if family == FAMILY_IPV6 {
        return field(base, offset);
    }
    let ipv4: [u8; 4] = field(base, offset)?;
    let mut all = [0; 16];
    all[0] = ipv4[0];
    all[1] = ipv4[1];
    all[2] = ipv4[2];
    all[3] = ipv4[3];
    Ok(all)
}

/// Ethernet protocol of a packet, host order.
#[inline(always)]
pub fn ethernet_protocol(skb: u64) -> Probe<u16> {
    Ok(u16::from_be(field(skb, offset!(skb_protocol))?))
}

/// Address of a packet's IP header.
#[inline(always)]
pub fn network_header(skb: u64) -> Probe<u64> {
    let head: u64 = field(skb, offset!(skb_head))?;
    let network_header: u16 = field(skb, offset!(skb_network_header))?;
    Ok(head.wrapping_add(u64::from(network_header)))
}

/// The SYN in a packet, read by its own IP header; `None` for any other packet.
#[inline(always)]
pub fn syn_of_skb(skb: u64) -> Probe<Option<Syn>> {
    let mut syn = Syn::NONE;
    match read_syn_of_skb(skb, &mut syn) {
        0 => Ok(None),
        1 => Ok(Some(syn)),
        _ => Err(Stat::ReadFailed),
    }
}

/// 1 for a SYN, 0 for any other packet, 2 for what cannot be read. A function of its own, for a
/// stack of its own.
#[inline(never)]
fn read_syn_of_skb(skb: u64, syn: &mut Syn) -> u32 {
    match found_syn_of_skb(skb) {
        Ok(None) => 0,
        Ok(Some(found)) => {
            *syn = found;
            1
        }
        Err(_) => 2,
    }
}

#[inline(always)]
fn found_syn_of_skb(skb: u64) -> Probe<Option<Syn>> {
    let protocol = ethernet_protocol(skb)?;
    if protocol != ETH_P_IP && protocol != ETH_P_IPV6 {
        return Ok(None);
    }
    let ip = network_header(skb)?;
    if protocol == ETH_P_IP {
        ipv4_syn(skb, ip)
    } else {
        ipv6_syn(skb, ip)
    }
}

#[inline(always)]
fn ipv4_syn(skb: u64, ip: u64) -> Probe<Option<Syn>> {
    // RFC 791: version and length in the first byte, fragment offset at 6, protocol at 9.
    let protocol: u8 = field(ip, 9)?;
    if protocol != TCP && protocol != SCTP {
        return Ok(None);
    }
    let fragment: u16 = field(ip, 6)?;
    if u16::from_be(fragment) & 0x1fff != 0 {
        return Ok(None);
    }
    let version_and_length: u8 = field(ip, 0)?;
    let header = ip + u64::from(version_and_length & 0x0f) * 4;
    if !opens(protocol, header)? {
        return Ok(None);
    }
    let source = address(ip, 12, FAMILY_IPV4)?;
    let destination = address(ip, 16, FAMILY_IPV4)?;
    with_ports(skb, header, (FAMILY_IPV4, protocol), source, destination).map(Some)
}

#[inline(always)]
fn ipv6_syn(skb: u64, ip: u64) -> Probe<Option<Syn>> {
    // RFC 8200: next header at 6, addresses at 8 and 24.
    let next_header: u8 = field(ip, 6)?;
    if next_header != TCP && next_header != SCTP {
        return Ok(None);
    }
    let header = ip + IPV6_HEADER_BYTES;
    if !opens(next_header, header)? {
        return Ok(None);
    }
    let source = address(ip, 8, FAMILY_IPV6)?;
    let destination = address(ip, 24, FAMILY_IPV6)?;
    with_ports(skb, header, (FAMILY_IPV6, next_header), source, destination).map(Some)
}

#[inline(always)]
fn with_ports(
    skb: u64,
    header: u64,
    (family, protocol): (u8, u8),
    client_addr: [u8; 16],
    dest_addr: [u8; 16],
) -> Probe<Syn> {
    let ports: [u16; 2] = field(header, 0)?;
    let isn: u32 = if protocol == SCTP {
        field(header + SCTP_TAG_OFFSET, 0)?
    } else {
        field(header + 4, 0)?
    };
    Ok(Syn {
        tuple: TupleKey {
            client_addr,
            dest_addr,
            client_port: u16::from_be(ports[0]),
            dest_port: u16::from_be(ports[1]),
            netns: netns(skb)?,
            family,
            proto: protocol,
            pad: [0; 2],
        },
        isn: u32::from_be(isn),
    })
}

/// Whether a packet on one of IPVS's hooks can be one that opens a connection, in two reads;
/// what cannot be read can be.
#[inline(always)]
pub fn may_open(skb: u64) -> bool {
    opens_on_hook(skb).unwrap_or(true)
}

/// A fragment's payload may look like a SYN here.
#[inline(always)]
fn opens_on_hook(skb: u64) -> Probe<bool> {
    // netfilter's hooks of IP get packets whose data begins with the IP header.
    let ip: u64 = field(skb, offset!(skb_data))?;
    let start: [u8; START_BYTES] = field(ip, 0)?;
    if start[0] == IPV4_WITHOUT_OPTIONS && start[9] == TCP {
        return Ok(is_syn(start[START_BYTES - 1]));
    }
    match start[0] >> 4 {
        4 => opens(start[9], ip + u64::from(start[0] & 0x0f) * 4),
        6 => opens(start[6], ip + IPV6_HEADER_BYTES),
        _ => Ok(false),
    }
}

/// Address of the ICMP header of a packet that is an ICMP error.
#[inline(always)]
pub fn icmp(skb: u64, family: u8) -> Probe<u64> {
    let head: u64 = field(skb, offset!(skb_head))?;
    let network_header: u16 = field(skb, offset!(skb_network_header))?;
    let ip = head.wrapping_add(u64::from(network_header));
    if family == FAMILY_IPV6 {
        return Ok(ip + IPV6_HEADER_BYTES);
    }
    let version_and_length: u8 = field(ip, 0)?;
    Ok(ip + u64::from(version_and_length & 0x0f) * 4)
}

/// Namespace of the packet's device; 0 when it has none (a packet that was never routed).
#[inline(always)]
pub fn netns(skb: u64) -> Probe<u32> {
    let device: u64 = field(skb, offset!(skb_dev))?;
    if device == 0 {
        return Ok(0);
    }
    let net: u64 = field(device, offset!(dev_net))?;
    field(net, offset!(net_inum))
}
