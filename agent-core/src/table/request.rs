//! The three questions the agent asks, as netlink frames.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{
    DefaultNla, Emitable, NLA_F_NESTED, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader,
};

use super::uapi::{self, AF_INET, AF_INET6, CONTROL_FAMILY, command, control, service};
use crate::event::{Family, Service, ServiceName};

/// Version of the control family and of IPVS's family; both are 1 for good.
const VERSION: u8 = 1;

/// Asks for the number the kernel gave IPVS's family.
///
/// A kernel whose `ip_vs` is not loaded answers this by loading it: ask only where it is.
#[must_use]
pub fn family_number(sequence: u32) -> Vec<u8> {
    let name = DefaultNla::new(control::FAMILY_NAME, b"IPVS\0".to_vec());
    frame(
        CONTROL_FAMILY,
        NLM_F_REQUEST,
        sequence,
        control::GET_FAMILY,
        &[name],
    )
}

/// Asks for every service.
#[must_use]
pub fn services(family: u16, sequence: u32) -> Vec<u8> {
    frame(
        family,
        NLM_F_REQUEST | NLM_F_DUMP,
        sequence,
        command::GET_SERVICE,
        &[],
    )
}

/// Asks for every real server of a service; `None` for a service without a name.
#[must_use]
pub fn real_servers(family: u16, sequence: u32, of: &Service) -> Option<Vec<u8>> {
    let named = match of.name {
        ServiceName::Unknown => return None,
        ServiceName::Fwmark { mark, family } => vec![
            u16_attribute(service::AF, af(family)),
            DefaultNla::new(service::FWMARK, mark.to_ne_bytes().to_vec()),
        ],
        ServiceName::Address { proto, local } => vec![
            u16_attribute(service::AF, af(family_of(local))),
            u16_attribute(service::PROTOCOL, proto.number().into()),
            DefaultNla::new(service::ADDR, address(local.ip())),
            DefaultNla::new(service::PORT, local.port().to_be_bytes().to_vec()),
        ],
    };
    let which = DefaultNla::new(uapi::attribute::SERVICE | NLA_F_NESTED, emitted(&named));
    Some(frame(
        family,
        NLM_F_REQUEST | NLM_F_DUMP,
        sequence,
        command::GET_DEST,
        &[which],
    ))
}

fn family_of(local: SocketAddr) -> Family {
    if local.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

const fn af(family: Family) -> u16 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

fn u16_attribute(kind: u16, value: u16) -> DefaultNla {
    DefaultNla::new(kind, value.to_ne_bytes().to_vec())
}

/// `union nf_inet_addr`: 16 bytes, an IPv4 address in the first four.
fn address(ip: IpAddr) -> Vec<u8> {
    let mut bytes = match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    bytes.resize(16, 0);
    bytes
}

/// A whole frame: netlink header, generic header (command, version, two bytes of zero), attributes.
fn frame(
    family: u16,
    flags: u16,
    sequence: u32,
    command: u8,
    attributes: &[DefaultNla],
) -> Vec<u8> {
    let body = emitted(attributes);
    let mut header = NetlinkHeader::default();
    let length = header.buffer_len() + uapi::GENERIC_HEADER_BYTES + body.len();
    header.length = u32::try_from(length).unwrap_or(u32::MAX);
    header.message_type = family;
    header.flags = flags;
    header.sequence_number = sequence;
    let mut bytes = vec![0; header.buffer_len()];
    header.emit(&mut bytes);
    bytes.extend([command, VERSION, 0, 0]);
    bytes.extend(body);
    bytes
}

fn emitted(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}
