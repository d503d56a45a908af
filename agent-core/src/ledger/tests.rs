use std::collections::BTreeMap;

use agent_common::count::{TALLY_SYN_DROP, rest_index, rest_key};
use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn service(number: u16) -> ServiceKey {
    ServiceKey {
        addr: [0; 16],
        fwmark: 0,
        netns: 1,
        port: number + 1,
        family: 4,
        proto: 6,
    }
}

fn server(number: u16) -> RealServerKey {
    RealServerKey {
        addr: [1; 16],
        port: number + 1,
        family: 4,
        pad: 0,
    }
}

fn key(service_number: u16, server_number: u16, decision: Decision) -> CountKey {
    CountKey {
        service: service(service_number),
        real_server: server(server_number),
        tally: TALLY_ATTEMPT,
        decision: decision as u8,
        cause: 0,
        pad: 0,
    }
}

fn at(seconds: u64) -> MonoNs {
    MonoNs(seconds * SECOND)
}

/// Sums by kind: tally, decision and cause.
fn by_kind(ledger: &mut Ledger) -> BTreeMap<(u8, u8, u8), u64> {
    let mut sums = BTreeMap::new();
    for count in ledger.counts(at(0)).all.iter().filter(|it| it.total > 0) {
        let key = count.key;
        *sums
            .entry((key.tally, key.decision, key.cause))
            .or_default() += count.total;
    }
    sums
}

fn by_service(ledger: &mut Ledger, wanted: ServiceKey) -> u64 {
    let all = ledger.counts(at(0)).all;
    let of_service = all.iter().filter(|it| it.key.service == wanted);
    of_service.map(|it| it.total).sum()
}

#[test]
fn a_removed_real_server_keeps_its_name_while_clients_still_come() {
    let mut ledger = Ledger::default();
    let key = key(0, 0, Decision::ReusedStale);
    ledger.add(at(0), key, 5);
    ledger.handle_tables(at(10), |(_, server)| match *server {
        RealServerKey::NONE => Presence::Listed,
        _ => Presence::Absent,
    });
    // Gone for long enough, but a client came a minute ago.
    ledger.add(at(850), key, 1);
    assert!(ledger.due(at(910)).is_empty());
    let due = ledger.due(at(850) + KEPT);
    assert_eq!(due, [(key.service, key.real_server)]);
    ledger.fold(&due);
    let counts = ledger.counts(at(0)).all;
    let only: Vec<_> = counts.iter().map(|it| (it.key, it.total)).collect();
    let folded = CountKey {
        real_server: RealServerKey::REST,
        ..key
    };
    assert_eq!(only, [(folded, 6)]);
}

#[test]
fn a_real_server_that_comes_back_begins_a_new_life_at_0() {
    let mut ledger = Ledger::default();
    let key = key(0, 0, Decision::Scheduled);
    ledger.add(at(0), key, 5);
    let born = ledger.counts(at(0)).all[0].born;
    ledger.fold(&[(key.service, key.real_server)]);
    ledger.add(at(1), key, 2);
    let counts = ledger.counts(at(1));
    let again = counts.all.iter().find(|it| it.key == key).unwrap();
    assert_eq!(again.total, 2);
    assert!(again.born > born);
    assert_eq!(by_service(&mut ledger, key.service), 7);
}

#[test]
fn what_is_listed_again_was_never_gone() {
    let mut ledger = Ledger::default();
    let key = key(0, 0, Decision::Scheduled);
    ledger.add(at(0), key, 1);
    ledger.handle_tables(at(1), |_| Presence::Absent);
    ledger.handle_tables(at(2), |_| Presence::Unknown);
    assert_eq!(ledger.counts(at(2)).all[0].presence, Presence::Absent);
    ledger.handle_tables(at(3), |_| Presence::Listed);
    ledger.handle_tables(at(4), |_| Presence::Absent);
    assert!(ledger.due(at(2) + KEPT).is_empty());
    assert_eq!(ledger.due(at(4) + KEPT).len(), 1);
}

#[test]
fn a_service_that_is_gone_is_reported_once() {
    let mut ledger = Ledger::default();
    ledger.add(at(0), key(0, 0, Decision::Scheduled), 1);
    ledger.handle_tables(at(1), |_| Presence::Absent);
    assert!(ledger.take_gone_services(at(2)).is_empty());
    let later = at(1) + KEPT;
    assert_eq!(ledger.take_gone_services(later), [service(0)]);
    ledger.handle_tables(later, |_| Presence::Absent);
    assert!(ledger.take_gone_services(later).is_empty());
}

#[test]
fn the_sums_of_a_service_that_is_gone_end_together_and_after_those_of_its_real_servers() {
    let mut ledger = Ledger::default();
    let gone = service(0);
    ledger.plant(at(0), (gone, RealServerKey::NONE));
    ledger.add(at(0), key(0, 0, Decision::Scheduled), 5);
    ledger.add(at(0), key(1, 0, Decision::Scheduled), 3);
    ledger.handle_tables(at(1), |(it, _)| {
        if *it == gone {
            Presence::Absent
        } else {
            Presence::Listed
        }
    });
    let later = at(1) + KEPT;
    let due = ledger.due(later);
    assert_eq!(due, [(gone, server(0))]);
    ledger.fold(&due);
    assert_eq!(by_service(&mut ledger, gone), 5);
    let due = ledger.due(later);
    assert_eq!(due, [(gone, RealServerKey::NONE)]);
    ledger.fold(&due);
    assert_eq!(by_service(&mut ledger, gone), 0);
    assert_eq!(by_service(&mut ledger, ServiceKey::REST), 5);
    assert_eq!(by_service(&mut ledger, service(1)), 3);
    assert!(ledger.due(later + KEPT).is_empty());
}

#[test]
fn only_what_is_new_is_an_increment() {
    let mut ledger = Ledger::default();
    let key = key(0, 0, Decision::Scheduled);
    ledger.add(at(0), key, 5);
    assert_eq!(ledger.take_increments(), [(key, 5)]);
    assert!(ledger.take_increments().is_empty());
    ledger.add(at(1), key, 2);
    assert_eq!(ledger.take_increments(), [(key, 2)]);
}

#[test]
fn without_room_the_coldest_go_first_and_services_last() {
    let mut ledger = Ledger::default();
    let services = 4;
    let each = u16::try_from(KEYS_MAX / usize::from(services)).unwrap() + 100;
    let mut sent = 0;
    for number in 0..each {
        for of in 0..services {
            // The last service is the one whose real servers are still listed.
            ledger.add(
                at(u64::from(number)),
                key(of, number, Decision::Scheduled),
                3,
            );
            sent += 3;
        }
        if ledger.len() > KEYS_MAX - 100 {
            ledger.handle_tables(at(1), |(service, _)| match service.port {
                4 => Presence::Listed,
                _ => Presence::Absent,
            });
            let due = ledger.due(at(u64::from(number)));
            assert!(due.iter().all(|owner| owner.0 != service(3)));
            ledger.fold(&due);
            assert!(ledger.len() <= KEYS_MAX / 4 * 3 + 4, "{}", ledger.len());
        }
    }
    assert!(ledger.len() <= KEYS_MAX);
    let all: u64 = by_kind(&mut ledger).values().sum();
    assert_eq!(all, sent);
    for of in 0..services {
        let total = by_service(&mut ledger, service(of));
        assert_eq!(total, 3 * u64::from(each), "service {of}");
    }
}

#[test]
fn a_full_ledger_that_is_not_folded_takes_no_new_key_and_no_number_is_lost() {
    let mut ledger = Ledger::default();
    let all = KEYS_MAX as u64 + 1_000;
    for number in 0..all {
        let of = u16::try_from(number >> 10).unwrap();
        let server = u16::try_from(number & 1023).unwrap();
        ledger.add(at(0), key(of, server, Decision::Scheduled), 1);
    }
    // A sum for the kind in the rest of all services, and one in that of the last service.
    assert!(ledger.len() <= KEYS_MAX + 2, "{}", ledger.len());
    assert_eq!(by_kind(&mut ledger).values().sum::<u64>(), all);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(u16, u16, u8, u64),
    Drop(u16, u64),
    Plant(u16, u16),
    Remove(u16),
    RemoveService(u16),
    List,
    FoldDue,
    Fold(u16, u16),
    FoldService(u16),
    /// The kernel's table was full: counted without names.
    Flood(u8, u64),
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..4_u16;
    prop_oneof![
        4 => (number.clone(), number.clone(), 1..6_u8, 0..9_u64)
            .prop_map(|(a, b, decision, more)| Step::Add(a, b, decision, more)),
        1 => (number.clone(), 0..9_u64).prop_map(|(a, more)| Step::Drop(a, more)),
        1 => (number.clone(), number.clone()).prop_map(|(a, b)| Step::Plant(a, b)),
        1 => number.clone().prop_map(Step::Remove),
        1 => number.clone().prop_map(Step::RemoveService),
        1 => Just(Step::List),
        1 => Just(Step::FoldDue),
        1 => (number.clone(), number.clone()).prop_map(|(a, b)| Step::Fold(a, b)),
        1 => number.prop_map(Step::FoldService),
        1 => (1..6_u8, 0..900_u64).prop_map(|(decision, more)| Step::Flood(decision, more)),
        1 => Just(Step::Read),
    ]
}

proptest! {
    /// What was sent is the sum over all keys of its kind, and what was sent to a service is its
    /// sum unless the service itself was folded.
    #[test]
    fn nothing_is_lost_in_any_order(steps in prop::collection::vec(step(), 0..80)) {
        let mut ledger = Ledger::default();
        let mut sent: BTreeMap<(u8, u8, u8), u64> = BTreeMap::new();
        let mut of_service: BTreeMap<ServiceKey, u64> = BTreeMap::new();
        let mut increments: u64 = 0;
        for (second, step) in (0..).zip(steps) {
            let now = at(second * 400);
            let mut add = |ledger: &mut Ledger, key: CountKey, more: u64| {
                ledger.add(now, key, more);
                if more > 0 {
                    *sent.entry((key.tally, key.decision, key.cause)).or_default() += more;
                    *of_service.entry(key.service).or_default() += more;
                }
            };
            match step {
                Step::Add(a, b, decision, more) => {
                    let decision = Decision::try_from(decision).unwrap();
                    add(&mut ledger, key(a, b, decision), more);
                }
                Step::Drop(a, more) => add(&mut ledger, CountKey {
                    real_server: RealServerKey::NONE,
                    tally: TALLY_SYN_DROP,
                    decision: 0,
                    cause: 1,
                    ..key(a, 0, Decision::Dropped)
                }, more),
                Step::Plant(a, b) => ledger.plant(now, (service(a), server(b))),
                Step::Remove(b) => ledger.handle_tables(now, |(_, it)| {
                    if *it == server(b) { Presence::Absent } else { Presence::Unknown }
                }),
                Step::RemoveService(a) => ledger.handle_tables(now, |(it, _)| {
                    if *it == service(a) { Presence::Absent } else { Presence::Draining }
                }),
                Step::List => ledger.handle_tables(now, |_| Presence::Listed),
                Step::FoldDue => {
                    increments += ledger.take_increments().iter().map(|it| it.1).sum::<u64>();
                    let due = ledger.due(now);
                    ledger.fold(&due);
                    for (service, _) in due.iter().filter(|it| it.1 == RealServerKey::NONE) {
                        of_service.remove(service);
                        prop_assert_eq!(by_service(&mut ledger, *service), 0);
                    }
                }
                Step::Fold(a, b) => ledger.fold(&[(service(a), server(b))]),
                Step::FoldService(a) => {
                    of_service.remove(&service(a));
                    let all: Vec<Owner> = (0..4).map(|b| (service(a), server(b))).collect();
                    ledger.fold(&all);
                    ledger.fold(&[(service(a), RealServerKey::NONE)]);
                    prop_assert_eq!(by_service(&mut ledger, service(a)), 0);
                }
                Step::Flood(decision, more) => {
                    let index = rest_index(TALLY_ATTEMPT, decision, 0);
                    add(&mut ledger, rest_key(index), more);
                    of_service.remove(&ServiceKey::REST);
                }
                Step::Read => drop(ledger.counts(now)),
            }
            prop_assert_eq!(&by_kind(&mut ledger), &sent);
            for (service, total) in &of_service {
                prop_assert_eq!(by_service(&mut ledger, *service), *total);
            }
        }
        increments += ledger.take_increments().iter().map(|it| it.1).sum::<u64>();
        prop_assert_eq!(increments, sent.values().sum::<u64>());
    }
}
