//! Properties of the decoder, and one example per way of being refused.

use agent_common::key::RealServerKey;
use agent_common::record::{AttemptRecord, SynDropRecord};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::testing::{any_event, sample_attempt, sample_syn_drop};

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        // What is accepted must be exactly what a kernel program would write.
        if let Ok(event) = decode(&bytes) {
            prop_assert_eq!(wire::encode(&event), bytes);
        }
    }

    #[test]
    fn random_payloads_behind_a_valid_header_never_panic(
        event in any_event(),
        payload in proptest::collection::vec(any::<u8>(), 128),
    ) {
        let mut bytes = wire::encode(&event);
        let header = size_of::<RecordHeader>();
        let length = bytes.len();
        bytes[header..].copy_from_slice(&payload[..length - header]);
        if let Ok(read) = decode(&bytes) {
            prop_assert_eq!(wire::encode(&read), bytes);
        }
    }

    #[test]
    fn every_event_round_trips(event in any_event()) {
        prop_assert_eq!(decode(&wire::encode(&event)), Ok(event));
    }

    #[test]
    fn a_mutation_is_refused_or_read_back_exactly(
        event in any_event(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = wire::encode(&event);
        let at = place.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = decode(&bytes) {
            prop_assert_eq!(wire::encode(&read), bytes);
        }
    }

    #[test]
    fn a_cut_record_is_refused_as_short(event in any_event(), cut in any::<prop::sample::Index>()) {
        let bytes = wire::encode(&event);
        let cut = cut.index(bytes.len());
        prop_assert_eq!(decode(&bytes[..cut]).unwrap_err().reason(), Reason::Short);
    }

    #[test]
    fn alignment_does_not_matter(event in any_event(), shift in 0_usize..8) {
        let mut bytes = vec![0; shift];
        bytes.extend(wire::encode(&event));
        prop_assert_eq!(decode(&bytes[shift..]), Ok(event));
    }
}

fn attempt_with(change: impl FnOnce(&mut AttemptRecord)) -> Result<Event, Malformed> {
    let bytes = wire::encode_packet(&PacketEvent::AttemptDecided(sample_attempt()));
    let mut record = AttemptRecord::read_from_bytes(&bytes).unwrap();
    change(&mut record);
    decode(record.as_bytes())
}

fn syn_drop_with(change: impl FnOnce(&mut SynDropRecord)) -> Result<Event, Malformed> {
    let bytes = wire::encode_packet(&PacketEvent::SynDropped(sample_syn_drop()));
    let mut record = SynDropRecord::read_from_bytes(&bytes).unwrap();
    change(&mut record);
    decode(record.as_bytes())
}

fn refusal(result: Result<Event, Malformed>) -> (Reason, String) {
    let malformed = result.unwrap_err();
    (malformed.reason(), malformed.to_string())
}

#[test]
fn the_samples_are_accepted() {
    assert_eq!(
        attempt_with(|_| ()),
        Ok(PacketEvent::AttemptDecided(sample_attempt()).into())
    );
    assert_eq!(
        syn_drop_with(|_| ()),
        Ok(PacketEvent::SynDropped(sample_syn_drop()).into())
    );
}

#[test]
fn lengths_are_refused() {
    assert_eq!(
        refusal(decode(&[])),
        (
            Reason::Short,
            "record header is 0 bytes, expected 16".to_owned()
        )
    );
    let mut bytes = wire::encode_packet(&PacketEvent::SynDropped(sample_syn_drop()));
    assert_eq!(
        refusal(decode(&bytes[..79])),
        (
            Reason::Short,
            "SYN drop record is 79 bytes, expected 136".to_owned()
        )
    );
    bytes.push(0);
    assert_eq!(
        refusal(decode(&bytes)),
        (
            Reason::WrongLength,
            "SYN drop record says or has 137 bytes, expected exactly 136".to_owned()
        )
    );
    assert_eq!(
        refusal(attempt_with(|r| r.header.len = 80)),
        (
            Reason::WrongLength,
            "attempt record says or has 80 bytes, expected exactly 144".to_owned()
        )
    );
}

#[test]
fn an_unknown_kind_is_refused() {
    assert_eq!(
        refusal(attempt_with(|r| r.header.kind = 5)),
        (
            Reason::UnknownKind,
            "record kind is 5, expected 1 (attempt), 2 (SYN drop), 3 (outcome), 4 (datagram) or 16 (real server)".to_owned()
        )
    );
}

#[test]
fn unknown_numbers_are_refused() {
    let unknown = |text: &str| (Reason::UnknownNumber, text.to_owned());
    assert_eq!(
        refusal(attempt_with(|r| r.decision = 6)),
        unknown("decision is 6, which this build does not know")
    );
    assert_eq!(
        refusal(attempt_with(|r| r.cause = 9)),
        unknown("stale cause is 9, which this build does not know")
    );
    assert_eq!(
        refusal(attempt_with(|r| r.old_state = 11)),
        unknown("state of the old entry is 11, which this build does not know")
    );
    assert_eq!(
        refusal(attempt_with(|r| r.tuple.proto = 1)),
        unknown("protocol of the tuple is 1, which this build does not know")
    );
    assert_eq!(
        refusal(syn_drop_with(|r| r.cause = 0)),
        unknown("cause of the SYN drop is 0, which this build does not know")
    );
}

#[test]
fn bad_families_are_refused() {
    assert_eq!(
        refusal(attempt_with(|r| r.tuple.family = 2)),
        (
            Reason::BadFamily,
            "family of the client is 2, expected 4 or 6".to_owned()
        )
    );
    assert_eq!(
        refusal(attempt_with(|r| r.real_server.family = 0)),
        (
            Reason::BadFamily,
            "family of the real server is 0, expected 4 or 6".to_owned()
        )
    );
}

#[test]
fn padding_is_refused() {
    assert_eq!(
        refusal(attempt_with(|r| r.pad[3] = 1)),
        (
            Reason::Padding,
            "padding of the attempt record holds 1, expected 0".to_owned()
        )
    );
    assert_eq!(
        refusal(attempt_with(|r| r.tuple.client_addr[15] = 7)),
        (
            Reason::Padding,
            "bytes behind an IPv4 address holds 7, expected 0".to_owned()
        )
    );
    assert_eq!(
        refusal(attempt_with(|r| r.service.fwmark = 5)).0,
        Reason::Padding
    );
}

#[test]
fn contradictions_are_refused() {
    assert_eq!(
        refusal(attempt_with(|r| r.decision = Decision::Scheduled as u8)),
        (
            Reason::Contradiction,
            "cause of a decision that has none is 1, expected 0".to_owned()
        )
    );
    assert_eq!(
        refusal(attempt_with(|r| r.first_drop_cause = 1)),
        (
            Reason::Contradiction,
            "cause of a first drop that has no time is 1, expected 0".to_owned()
        )
    );
}

#[test]
fn no_real_server_is_none() {
    let Ok(Event::Packet(PacketEvent::AttemptDecided(decided))) =
        attempt_with(|r| r.real_server = RealServerKey::NONE)
    else {
        panic!("an attempt without a real server must be accepted");
    };
    assert_eq!(decided.real_server, None);
}
