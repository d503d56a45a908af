//! What the kernel answers: frames, and the attributes of services and real servers in them.
//!
//! PURE. Never panics on any bytes; what IPVS cannot have sent is a [`TableError`]. Attributes
//! this build does not know are passed over, because kernels add some.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{NLA_HEADER_SIZE, NetlinkBuffer, NlasIterator};

use super::uapi::{
    self, AF_INET, AF_INET6, FORWARDING_MASK, GENERIC_HEADER_BYTES, NETLINK_HEADER_BYTES,
    attribute, control, dest,
};
use super::{Forwarding, RealServerRow, ServiceFlags, ServiceRow, TableError};
use crate::event::{Family, NetnsId, Proto, RealServer, Service, ServiceName};

pub use super::request::{family_number as family_request, real_servers, services};

/// `NLMSG_ERROR` and `NLMSG_DONE` (`include/uapi/linux/netlink.h`).
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLMSG_MIN_TYPE`: smaller numbers are netlink's own.
const MIN_TYPE: u16 = 16;

/// One frame of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Attributes of one object, behind the generic header.
    Object(&'a [u8]),
    /// The list is complete.
    Done,
}

/// The frames of one datagram about `object`; ends with the first that makes no sense.
pub fn frames<'a>(
    object: &'static str,
    datagram: &'a [u8],
) -> impl Iterator<Item = Result<Frame<'a>, TableError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (bytes, kind, behind) = match split(object, rest) {
                Ok(split) => split,
                Err(error) => {
                    rest = &[];
                    return Some(Err(error));
                }
            };
            rest = behind;
            if let Some(frame) = frame(object, kind, bytes).transpose() {
                return Some(frame);
            }
        }
        None
    })
}

/// Payload and type of the first frame, and what is behind it.
fn split<'a>(
    object: &'static str,
    bytes: &'a [u8],
) -> Result<(&'a [u8], u16, &'a [u8]), TableError> {
    let buffer =
        NetlinkBuffer::new_checked(bytes).map_err(|source| TableError::Frame { object, source })?;
    let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX);
    let payload = bytes.get(NETLINK_HEADER_BYTES..length).unwrap_or_default();
    // Frames begin at multiples of four.
    let next = length.next_multiple_of(4);
    let behind = bytes.get(next..).unwrap_or_default();
    Ok((payload, buffer.message_type(), behind))
}

/// The frame; `None` for what only fills space.
fn frame<'a>(
    object: &'static str,
    kind: u16,
    payload: &'a [u8],
) -> Result<Option<Frame<'a>>, TableError> {
    match kind {
        ERROR | DONE => match errno(payload) {
            0 if kind == DONE => Ok(Some(Frame::Done)),
            0 => Ok(None),
            errno => Err(TableError::Refused { object, errno }),
        },
        kind if kind < MIN_TYPE => Ok(None),
        _ => match payload.get(GENERIC_HEADER_BYTES..) {
            Some(attributes) => Ok(Some(Frame::Object(attributes))),
            None => Err(TableError::Length {
                object,
                found: payload.len(),
                wanted: GENERIC_HEADER_BYTES,
            }),
        },
    }
}

/// The error number at the head of a payload, positive; 0 when there is none.
fn errno(payload: &[u8]) -> i32 {
    let number = payload.first_chunk().copied().map(i32::from_ne_bytes);
    number.unwrap_or(0).saturating_neg().max(0)
}

/// The number the kernel gave IPVS's family, from the attributes of the control family's answer.
///
/// # Errors
/// [`TableError`] when it is not in there.
pub fn family_number(attributes: &[u8]) -> Result<u16, TableError> {
    const OBJECT: &str = "the family of IPVS";
    find(OBJECT, attributes, control::FAMILY_ID)?
        .map(|value| u16_of(OBJECT, value))
        .transpose()?
        .ok_or(TableError::Missing {
            object: OBJECT,
            attribute: "CTRL_ATTR_FAMILY_ID",
        })
}

/// A service, still without its real servers, from the attributes of one object.
///
/// # Errors
/// [`TableError`] when a part of its name is missing or makes no sense.
pub fn service(attributes: &[u8], netns: NetnsId) -> Result<ServiceRow, TableError> {
    const OBJECT: &str = "service";
    let nested = find(OBJECT, attributes, attribute::SERVICE)?.ok_or(TableError::Missing {
        object: "answer",
        attribute: "IPVS_CMD_ATTR_SERVICE",
    })?;
    let mut parts = ServiceParts::default();
    for pair in pairs(OBJECT, nested) {
        let (kind, value) = pair?;
        parts.take(kind, value)?;
    }
    parts.row(netns)
}

/// A real server from the attributes of one object, under a service of `family`.
///
/// # Errors
/// As [`service`].
pub fn real_server(attributes: &[u8], family: Family) -> Result<RealServerRow, TableError> {
    const OBJECT: &str = "real server";
    let nested = find(OBJECT, attributes, attribute::DEST)?.ok_or(TableError::Missing {
        object: "answer",
        attribute: "IPVS_CMD_ATTR_DEST",
    })?;
    let mut parts = RealServerParts::default();
    for pair in pairs(OBJECT, nested) {
        let (kind, value) = pair?;
        parts.take(kind, value)?;
    }
    parts.row(family)
}

#[derive(Default)]
struct ServiceParts<'a> {
    family: Option<Family>,
    proto: Option<Proto>,
    address: Option<[u8; 16]>,
    port: Option<u16>,
    mark: Option<u32>,
    scheduler: &'a str,
    flags: u32,
    timeout_s: u32,
    netmask: [u8; 4],
}

impl<'a> ServiceParts<'a> {
    fn take(&mut self, kind: u16, value: &'a [u8]) -> Result<(), TableError> {
        use uapi::service as is;
        match kind {
            is::AF => self.family = Some(family_of(u16_of("family of a service", value)?)?),
            is::PROTOCOL => {
                self.proto = Some(proto_of(u16_of("protocol of a service", value)?)?);
            }
            is::ADDR => self.address = Some(array("address of a service", value)?),
            is::PORT => {
                self.port = Some(u16::from_be_bytes(array("port of a service", value)?));
            }
            is::FWMARK => self.mark = Some(u32_of("mark of a service", value)?),
            is::SCHED_NAME => self.scheduler = text("scheduler of a service", value)?,
            is::FLAGS => {
                let [a, b, c, d, ..] = array::<8>("flags of a service", value)?;
                self.flags = u32::from_ne_bytes([a, b, c, d]);
            }
            is::TIMEOUT => self.timeout_s = u32_of("timeout of a service", value)?,
            is::NETMASK => self.netmask = array("netmask of a service", value)?,
            _ => {}
        }
        Ok(())
    }

    fn row(self, netns: NetnsId) -> Result<ServiceRow, TableError> {
        let missing = |attribute| TableError::Missing {
            object: "service",
            attribute,
        };
        let family = self.family.ok_or(missing("IPVS_SVC_ATTR_AF"))?;
        let name = match self.mark {
            Some(mark) if mark != 0 => ServiceName::Fwmark { mark, family },
            _ => ServiceName::Address {
                proto: self.proto.ok_or(missing("IPVS_SVC_ATTR_PROTOCOL"))?,
                local: SocketAddr::new(
                    ip(family, self.address.ok_or(missing("IPVS_SVC_ATTR_ADDR"))?),
                    self.port.ok_or(missing("IPVS_SVC_ATTR_PORT"))?,
                ),
            },
        };
        let flags = ServiceFlags(self.flags);
        // Kernels state a timeout also where there is no persistence it would belong to.
        let persistence_s = if flags.is_persistent() {
            self.timeout_s
        } else {
            0
        };
        Ok(ServiceRow {
            service: Service { netns, name },
            scheduler: self.scheduler.into(),
            flags,
            persistence: Duration::from_secs(persistence_s.into()),
            netmask: match family {
                Family::V4 => u32::from_be_bytes(self.netmask),
                Family::V6 => u32::from_ne_bytes(self.netmask),
            },
            real_servers: Vec::new(),
        })
    }
}

#[derive(Default)]
struct RealServerParts {
    family: Option<Family>,
    address: Option<[u8; 16]>,
    port: Option<u16>,
    forwarding: u32,
    weight: Option<u32>,
    active: u32,
    inactive: u32,
    persistent: u32,
    upper_threshold: u32,
    lower_threshold: u32,
}

impl RealServerParts {
    fn take(&mut self, kind: u16, value: &[u8]) -> Result<(), TableError> {
        match kind {
            dest::ADDR => self.address = Some(array("address of a real server", value)?),
            dest::PORT => {
                self.port = Some(u16::from_be_bytes(array("port of a real server", value)?));
            }
            dest::ADDR_FAMILY => {
                self.family = Some(family_of(u16_of("family of a real server", value)?)?);
            }
            dest::WEIGHT => self.weight = Some(u32_of("weight of a real server", value)?),
            dest::FWD_METHOD => self.forwarding = u32_of("forwarding method", value)?,
            dest::ACTIVE_CONNS => self.active = u32_of("active connections", value)?,
            dest::INACT_CONNS => self.inactive = u32_of("inactive connections", value)?,
            dest::PERSIST_CONNS => self.persistent = u32_of("persistent connections", value)?,
            dest::U_THRESH => self.upper_threshold = u32_of("upper threshold", value)?,
            dest::L_THRESH => self.lower_threshold = u32_of("lower threshold", value)?,
            _ => {}
        }
        Ok(())
    }

    fn row(self, service: Family) -> Result<RealServerRow, TableError> {
        let missing = |attribute| TableError::Missing {
            object: "real server",
            attribute,
        };
        let address = self.address.ok_or(missing("IPVS_DEST_ATTR_ADDR"))?;
        let port = self.port.ok_or(missing("IPVS_DEST_ATTR_PORT"))?;
        let method = self.forwarding & FORWARDING_MASK;
        let known = Forwarding::ALL.iter().find(|(_, number)| *number == method);
        let (forwarding, _) = known.ok_or(TableError::Number {
            object: "forwarding method",
            found: method,
            wanted: "0 to 4",
        })?;
        Ok(RealServerRow {
            real_server: RealServer(SocketAddr::new(
                ip(self.family.unwrap_or(service), address),
                port,
            )),
            forwarding: *forwarding,
            weight: self.weight.ok_or(missing("IPVS_DEST_ATTR_WEIGHT"))?,
            active: self.active,
            inactive: self.inactive,
            persistent: self.persistent,
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        })
    }
}

/// Every attribute as its number and value.
fn pairs<'a>(
    object: &'static str,
    bytes: &'a [u8],
) -> impl Iterator<Item = Result<(u16, &'a [u8]), TableError>> {
    NlasIterator::new(bytes).map(move |attribute| {
        let attribute = attribute.map_err(|source| TableError::Frame { object, source })?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        // From the buffer itself: the attribute's own accessor borrows the attribute.
        let whole = attribute.into_inner();
        Ok((kind, whole.get(NLA_HEADER_SIZE..length).unwrap_or_default()))
    })
}

fn find<'a>(
    object: &'static str,
    bytes: &'a [u8],
    wanted: u16,
) -> Result<Option<&'a [u8]>, TableError> {
    for pair in pairs(object, bytes) {
        let (kind, value) = pair?;
        if kind == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn array<const N: usize>(object: &'static str, value: &[u8]) -> Result<[u8; N], TableError> {
    value.try_into().map_err(|_| TableError::Length {
        object,
        found: value.len(),
        wanted: N,
    })
}

fn u16_of(object: &'static str, value: &[u8]) -> Result<u16, TableError> {
    array(object, value).map(u16::from_ne_bytes)
}

fn u32_of(object: &'static str, value: &[u8]) -> Result<u32, TableError> {
    array(object, value).map(u32::from_ne_bytes)
}

/// A text, with or without its NUL.
fn text<'a>(object: &'static str, value: &'a [u8]) -> Result<&'a str, TableError> {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text).map_err(|_| TableError::Text { object })
}

fn family_of(number: u16) -> Result<Family, TableError> {
    match number {
        AF_INET => Ok(Family::V4),
        AF_INET6 => Ok(Family::V6),
        found => Err(TableError::Number {
            object: "address family",
            found: found.into(),
            wanted: "2 (AF_INET) or 10 (AF_INET6)",
        }),
    }
}

fn proto_of(number: u16) -> Result<Proto, TableError> {
    let known = Proto::ALL
        .iter()
        .find(|proto| u16::from(proto.number()) == number);
    known.copied().ok_or(TableError::Number {
        object: "protocol of a service",
        found: number.into(),
        wanted: "6 (TCP), 17 (UDP) or 132 (SCTP)",
    })
}

fn ip(family: Family, bytes: [u8; 16]) -> IpAddr {
    match family {
        Family::V4 => {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::from(bytes)),
    }
}
