//! What a SYN says about itself.

use agent_common::{
    key::{FAMILY_IPV4, FAMILY_IPV6, TupleKey},
    stat::Stat,
};

use crate::{
    call::Load,
    read::{Probe, field, offset},
};

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `AF_INET6`, the same on every architecture Linux supports.
const AF_INET6: u64 = 10;

/// Bytes of a TCP header up to and including its flags.
const TCP_HEADER_TO_FLAGS_BYTES: u32 = 14;
/// Offset of the flags byte in a TCP header (RFC 9293, section 3.1).
const TCP_FLAGS_OFFSET: u64 = 13;
/// `ETH_P_IP` (include/uapi/linux/if_ether.h).
const ETH_P_IP: u16 = 0x0800;
/// `ETH_P_IPV6`.
const ETH_P_IPV6: u16 = 0x86dd;
/// Bytes of an IPv6 header; extension headers in front of a SYN are not followed.
const IPV6_HEADER_BYTES: u64 = 40;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// One SYN packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Syn {
    /// Who asks whom.
    pub tuple: TupleKey,
    /// Initial sequence number, host order.
    pub isn: u32,
}

/// Whether a flags byte opens a connection.
#[inline(always)]
const fn is_syn(flags: u8) -> bool {
    flags & (TCP_SYN | TCP_ACK) == TCP_SYN
}

/// Address of the TCP header of a packet that opens a connection; `None` for any other packet, an
/// ICMP error about a connection or a reply included.
///
/// `skb` and `iph` are arguments of a traced function. Most packets open nothing, so what tells
/// that comes first and what only a SYN needs comes last.
#[inline(always)]
pub fn opening(load: &impl Load, skb: u64, iph: u64) -> Probe<Option<u64>> {
    let protocol: u16 = load.load(iph, offset!(iphdr_protocol))?;
    if protocol != u16::from(TCP) {
        return Ok(None);
    }
    let flags: u32 = load.load(iph, offset!(iphdr_flags))?;
    if flags != 0 {
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
    let tcp = data.wrapping_add(u64::from(header_offset));
    let opens = opens_connection(tcp)? && is_first_fragment(load, iph)?;
    Ok(opens.then_some(tcp))
}

#[inline(always)]
fn header_is_linear(load: &impl Load, skb: u64, header_offset: u32, outside: u32) -> Probe<bool> {
    let len: u32 = load.load(skb, offset!(skb_len))?;
    Ok(len.wrapping_sub(outside) >= header_offset.wrapping_add(TCP_HEADER_TO_FLAGS_BYTES))
}

/// Only the first fragment carries a TCP header; elsewhere its place holds payload.
#[inline(always)]
fn is_first_fragment(load: &impl Load, iph: u64) -> Probe<bool> {
    let fragment_offset: u16 = load.load(iph, offset!(iphdr_fragoffs))?;
    Ok(fragment_offset == 0)
}

/// Whether the TCP packet whose header is at `tcp` opens a connection.
#[inline(always)]
fn opens_connection(tcp: u64) -> Probe<bool> {
    let flags: u8 = field(tcp + TCP_FLAGS_OFFSET, 0)?;
    Ok(is_syn(flags))
}

/// The SYN with IPVS's parsed IP header at `iph` and its TCP header at `tcp`.
#[inline(always)]
pub fn syn(iph: u64, tcp: u64, family: u8, netns: u32) -> Probe<Syn> {
    let ports: [u16; 2] = field(tcp, 0)?;
    let sequence: u32 = field(tcp + 4, 0)?;
    Ok(Syn {
        tuple: TupleKey {
            client_addr: address(iph, offset!(iphdr_saddr), family)?,
            dest_addr: address(iph, offset!(iphdr_daddr), family)?,
            client_port: u16::from_be(ports[0]),
            dest_port: u16::from_be(ports[1]),
            netns,
            family,
            proto: TCP,
            pad: [0; 2],
        },
        isn: u32::from_be(sequence),
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

/// The SYN in a packet, read by its own IP header; `None` for any other packet.
#[inline(always)]
pub fn syn_of_skb(skb: u64) -> Probe<Option<Syn>> {
    let protocol = u16::from_be(field(skb, offset!(skb_protocol))?);
    if protocol != ETH_P_IP && protocol != ETH_P_IPV6 {
        return Ok(None);
    }
    let head: u64 = field(skb, offset!(skb_head))?;
    let network_header: u16 = field(skb, offset!(skb_network_header))?;
    let ip = head.wrapping_add(u64::from(network_header));
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
    if protocol != TCP {
        return Ok(None);
    }
    let fragment: u16 = field(ip, 6)?;
    if u16::from_be(fragment) & 0x1fff != 0 {
        return Ok(None);
    }
    let version_and_length: u8 = field(ip, 0)?;
    let tcp = ip + u64::from(version_and_length & 0x0f) * 4;
    if !opens_connection(tcp)? {
        return Ok(None);
    }
    let source = address(ip, 12, FAMILY_IPV4)?;
    let destination = address(ip, 16, FAMILY_IPV4)?;
    with_ports(skb, tcp, FAMILY_IPV4, source, destination).map(Some)
}

#[inline(always)]
fn ipv6_syn(skb: u64, ip: u64) -> Probe<Option<Syn>> {
    // RFC 8200: next header at 6, addresses at 8 and 24.
    let next_header: u8 = field(ip, 6)?;
    if next_header != TCP {
        return Ok(None);
    }
    let tcp = ip + IPV6_HEADER_BYTES;
    if !opens_connection(tcp)? {
        return Ok(None);
    }
    let source = address(ip, 8, FAMILY_IPV6)?;
    let destination = address(ip, 24, FAMILY_IPV6)?;
    with_ports(skb, tcp, FAMILY_IPV6, source, destination).map(Some)
}

#[inline(always)]
fn with_ports(
    skb: u64,
    tcp: u64,
    family: u8,
    client_addr: [u8; 16],
    dest_addr: [u8; 16],
) -> Probe<Syn> {
    let ports: [u16; 2] = field(tcp, 0)?;
    let sequence: u32 = field(tcp + 4, 0)?;
    Ok(Syn {
        tuple: TupleKey {
            client_addr,
            dest_addr,
            client_port: u16::from_be(ports[0]),
            dest_port: u16::from_be(ports[1]),
            netns: netns(skb)?,
            family,
            proto: TCP,
            pad: [0; 2],
        },
        isn: u32::from_be(sequence),
    })
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
