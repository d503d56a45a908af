//! Identities: wire keys to services, real servers and tuples.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use agent_common::key::{FAMILY_IPV4, FAMILY_IPV6, RealServerKey, ServiceKey, TupleKey};

use super::{Malformed, zeros};
use crate::event::{Family, NetnsId, Proto, RealServer, Service, ServiceName, Tuple};

/// The service a wire key names; [`ServiceName::Unknown`] when all but the namespace is 0.
///
/// # Errors
/// [`Malformed`] for a family, protocol or address that cannot be.
pub fn service(key: &ServiceKey) -> Result<Service, Malformed> {
    Ok(Service {
        netns: NetnsId(key.netns),
        name: service_name(key)?,
    })
}

fn service_name(key: &ServiceKey) -> Result<ServiceName, Malformed> {
    if key.fwmark != 0 {
        zeros("address of a fwmark service", &key.addr)?;
        zeros("port of a fwmark service", &key.port.to_ne_bytes())?;
        zeros("protocol of a fwmark service", &[key.proto])?;
        let family = family("service", key.family)?;
        return Ok(ServiceName::Fwmark {
            mark: key.fwmark,
            family,
        });
    }
    if key.family == 0 {
        zeros("address of an unknown service", &key.addr)?;
        zeros("port of an unknown service", &key.port.to_ne_bytes())?;
        zeros("protocol of an unknown service", &[key.proto])?;
        return Ok(ServiceName::Unknown);
    }
    Ok(ServiceName::Address {
        proto: proto("protocol of the service", key.proto)?,
        local: socket("service", key.family, &key.addr, key.port)?,
    })
}

/// The real server a wire key names; `None` when all is 0.
///
/// # Errors
/// [`Malformed`] for a family or address that cannot be.
pub fn real_server(key: &RealServerKey) -> Result<Option<RealServer>, Malformed> {
    if *key == RealServerKey::NONE {
        return Ok(None);
    }
    zeros("padding of the real server", &[key.pad])?;
    socket("real server", key.family, &key.addr, key.port).map(|s| Some(RealServer(s)))
}

/// Decodes who asked whom.
///
/// # Errors
/// What is wrong with it.
pub fn tuple(key: &TupleKey) -> Result<Tuple, Malformed> {
    zeros("padding of the tuple", &key.pad)?;
    Ok(Tuple {
        client: socket("client", key.family, &key.client_addr, key.client_port)?,
        destination: socket("destination", key.family, &key.dest_addr, key.dest_port)?,
        netns: NetnsId(key.netns),
        proto: proto("protocol of the tuple", key.proto)?,
    })
}

fn proto(object: &'static str, number: u8) -> Result<Proto, Malformed> {
    let known = Proto::ALL.iter().find(|p| p.number() == number);
    known.copied().ok_or(Malformed::UnknownNumber {
        object,
        found: number,
    })
}

fn family(object: &'static str, number: u8) -> Result<Family, Malformed> {
    match number {
        FAMILY_IPV4 => Ok(Family::V4),
        FAMILY_IPV6 => Ok(Family::V6),
        found => Err(Malformed::BadFamily { object, found }),
    }
}

pub(super) fn socket(
    object: &'static str,
    family_number: u8,
    bytes: &[u8; 16],
    port: u16,
) -> Result<SocketAddr, Malformed> {
    let ip = match family(object, family_number)? {
        Family::V4 => {
            let [a, b, c, d, rest @ ..] = bytes;
            zeros("bytes behind an IPv4 address", rest)?;
            IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::from(*bytes)),
    };
    Ok(SocketAddr::new(ip, port))
}
