//! Bytes of real kernels, and any bytes at all.

use std::time::Duration;

use netlink_packet_core::{DefaultNla, Emitable};
use proptest::prelude::*;

use super::wire::{self, Frame};
use super::*;
use crate::event::{Family, NetnsId};

/// What one kernel answered about the same table, datagram behind datagram.
struct Capture {
    kernel: &'static str,
    family: &'static [u8],
    services: &'static [u8],
    real_servers: &'static [u8],
}

/// "Operation not permitted" (include/uapi/asm-generic/errno-base.h).
const EPERM: i32 = 1;

const CAPTURES: [Capture; 2] = [
    Capture {
        kernel: "5.10",
        family: include_bytes!("../../../tests/fuzz/seeds/table/5.10-family.bin"),
        services: include_bytes!("../../../tests/fuzz/seeds/table/5.10-services.bin"),
        real_servers: include_bytes!("../../../tests/fuzz/seeds/table/5.10-real-servers.bin"),
    },
    Capture {
        kernel: "6.12",
        family: include_bytes!("../../../tests/fuzz/seeds/table/6.12-family.bin"),
        services: include_bytes!("../../../tests/fuzz/seeds/table/6.12-services.bin"),
        real_servers: include_bytes!("../../../tests/fuzz/seeds/table/6.12-real-servers.bin"),
    },
];

/// The rules the captured tables were made from, as `ipvsadm -R` took them:
/// see `tests/vm/src/scenarios/table.rs`.
const SERVICES: [&str; 6] = [
    "FWM 00000102 sh flags 0x2 persistence 0 netmask ffffffff",
    "TCP 10.96.0.10:443 wrr flags 0x3 persistence 300 netmask ffffffff",
    "TCP 10.96.0.10:80 rr flags 0x2 persistence 0 netmask ffffffff",
    "TCP 10.96.0.10:81 rr flags 0x2 persistence 0 netmask ffffffff",
    "TCP [fd96::10]:80 wlc flags 0x3 persistence 600 netmask 40",
    "UDP 10.96.0.10:53 rr flags 0x6 persistence 0 netmask ffffffff",
];

const REAL_SERVERS: [&str; 7] = [
    "10.1.1.2:443 route weight 7 limits 0 0",
    "10.1.1.2:8080 masq weight 1 limits 100 50",
    "10.1.2.2:53 tunnel weight 2 limits 0 0",
    "10.1.2.2:8080 masq weight 3 limits 0 0",
    "10.1.3.2:0 route weight 5 limits 0 0",
    "10.1.3.2:8080 masq weight 0 limits 0 0",
    "[fd01:0:0:1::2]:8080 masq weight 65535 limits 0 0",
];

/// The objects of a capture; every list in it must be complete.
fn objects<'a>(capture: &'a [u8], lists: usize) -> Vec<&'a [u8]> {
    let frames: Vec<Frame<'a>> = wire::frames("capture", capture)
        .collect::<Result<_, _>>()
        .unwrap();
    let done = frames.iter().filter(|frame| **frame == Frame::Done).count();
    assert_eq!(done, lists);
    let objects = frames.into_iter().filter_map(|frame| match frame {
        Frame::Object(attributes) => Some(attributes),
        Frame::Done => None,
    });
    objects.collect()
}

fn service_words(row: &ServiceRow) -> String {
    format!(
        "{} {} flags {:#x} persistence {} netmask {:x}",
        row.service,
        row.scheduler,
        row.flags.0,
        row.persistence.as_secs(),
        row.netmask
    )
}

fn real_server_words(row: &RealServerRow) -> String {
    assert_eq!((row.active, row.inactive, row.persistent), (0, 0, 0));
    format!(
        "{} {} weight {} limits {} {}",
        row.real_server, row.forwarding, row.weight, row.upper_threshold, row.lower_threshold
    )
}

#[test]
fn the_tables_of_real_kernels_are_read_to_the_last_field() {
    for capture in CAPTURES {
        let mut services: Vec<_> = objects(capture.services, 1)
            .into_iter()
            .map(|object| service_words(&wire::service(object, NetnsId(1)).unwrap()))
            .collect();
        services.sort();
        assert_eq!(services, SERVICES, "{}", capture.kernel);
        let mut servers: Vec<_> = objects(capture.real_servers, 6)
            .into_iter()
            .map(|object| real_server_words(&wire::real_server(object, Family::V4).unwrap()))
            .collect();
        servers.sort();
        assert_eq!(servers, REAL_SERVERS, "{}", capture.kernel);
    }
}

#[test]
fn the_family_of_real_kernels_has_a_number() {
    for capture in CAPTURES {
        let family = objects(capture.family, 0)[0];
        let number = wire::family_number(family).unwrap();
        // The first message of the list of services carries it as its type.
        let kind = [capture.services[4], capture.services[5]];
        assert_eq!(number, u16::from_ne_bytes(kind), "{}", capture.kernel);
    }
}

#[test]
fn the_flags_say_what_ipvsadm_was_told() {
    let rows: Vec<_> = objects(CAPTURES[1].services, 1)
        .into_iter()
        .map(|object| wire::service(object, NetnsId(1)).unwrap())
        .collect();
    let persistent = rows.iter().filter(|row| row.flags.is_persistent());
    let persistent: Vec<_> = persistent.map(|row| row.persistence.as_secs()).collect();
    assert_eq!(persistent.len(), 2);
    assert!(persistent.contains(&300) && persistent.contains(&600));
    let one_packet: Vec<_> = rows
        .iter()
        .filter(|row| row.flags.is_one_packet())
        .collect();
    assert_eq!(one_packet.len(), 1);
    assert_eq!(one_packet[0].service.to_string(), "UDP 10.96.0.10:53");
}

#[test]
fn a_question_names_its_service_as_the_kernel_would() {
    // What the kernel wrote as a service's name is what it wants to be asked with.
    for object in objects(CAPTURES[1].services, 1) {
        let row = wire::service(object, NetnsId(1)).unwrap();
        let request = wire::real_servers(34, 1, &row.service).unwrap();
        // Netlink and generic header, then IPVS_CMD_ATTR_SERVICE: 20 + 4 bytes.
        let ours = &request[24..];
        let theirs = &object[4..];
        assert_eq!(ours, &theirs[..ours.len()], "{}", row.service);
        assert_eq!(request[16], 8, "IPVS_CMD_GET_DEST");
    }
}

#[test]
fn a_refusal_names_its_reason() {
    let mut bytes = vec![36, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend((-EPERM).to_ne_bytes());
    bytes.extend([0; 16]);
    let mut frames = wire::frames("services", &bytes);
    let error = frames.next().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel refused to list services: Operation not permitted (os error 1)"
    );
    assert!(frames.next().is_none());
}

#[test]
fn what_is_missing_is_named() {
    let nested = attributes(&[(1, &[2, 0])]);
    let object = attributes(&[(1, &nested)]);
    let error = wire::service(&object, NetnsId(1)).unwrap_err();
    assert!(
        error.to_string().contains("IPVS_SVC_ATTR_PROTOCOL"),
        "{error}"
    );
    let short = attributes(&[(1, &attributes(&[(1, &[2])]))]);
    let error = wire::service(&short, NetnsId(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "family of a service has 1 bytes, expected 2"
    );
    let strange = attributes(&[(1, &attributes(&[(1, &[9, 0])]))]);
    let error = wire::service(&strange, NetnsId(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "address family is 9, expected 2 (AF_INET) or 10 (AF_INET6)"
    );
}

fn attributes(pairs: &[(u16, &[u8])]) -> Vec<u8> {
    let attributes: Vec<_> = pairs
        .iter()
        .map(|(kind, value)| DefaultNla::new(*kind, value.to_vec()))
        .collect();
    let mut bytes = vec![0; attributes.as_slice().buffer_len()];
    attributes.as_slice().emit(&mut bytes);
    bytes
}

fn read_everything(bytes: &[u8]) -> usize {
    let mut objects = 0;
    for frame in wire::frames("anything", bytes) {
        let attributes = match frame {
            Ok(Frame::Object(attributes)) => attributes,
            Ok(Frame::Done) => continue,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                continue;
            }
        };
        objects += 1;
        let _ = wire::family_number(attributes);
        let _ = wire::service(attributes, NetnsId(1));
        let _ = wire::real_server(attributes, Family::V6);
    }
    objects
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_everything(&bytes);
    }

    #[test]
    fn no_damage_to_real_bytes_panics(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        for capture in CAPTURES {
            for bytes in [capture.services, capture.real_servers] {
                let mut damaged = bytes.to_vec();
                let place = at.index(damaged.len());
                damaged[place] = byte;
                damaged.truncate(cut.index(damaged.len()) + 1);
                prop_assert!(read_everything(&damaged) <= read_everything(bytes) + damaged.len() / 16);
            }
        }
    }
}

#[test]
fn a_snapshot_finds_its_rows() {
    let rows = objects(CAPTURES[0].services, 1)
        .into_iter()
        .map(|object| wire::service(object, NetnsId(1)).unwrap());
    let servers: Vec<_> = objects(CAPTURES[0].real_servers, 6)
        .into_iter()
        .map(|object| wire::real_server(object, Family::V4).unwrap())
        .collect();
    let rows = rows
        .map(|row| row.with_real_servers(servers.clone()))
        .collect();
    let snapshot = Snapshot::new(MonoNs(9), Duration::from_nanos(2), NetnsId(1), rows);
    assert_eq!(snapshot.real_servers().count(), 6 * 7);
    for (service, row) in snapshot.real_servers() {
        let found = snapshot.real_server(&service.service, &row.real_server);
        assert_eq!(found, Some(row));
    }
    assert_eq!(snapshot.services[0].weight(), 7 + 1 + 2 + 3 + 5 + 65_535);
}
