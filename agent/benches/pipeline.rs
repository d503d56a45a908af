//! Decode and correlate of 10,000 events: what one full ring and a half cost the agent, and what
//! share of it is reading the same records without looking at them.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use agent_common::verdict::{DropCause, StaleCause};
use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use ipvs_lens::clock::{MonoNs, thread_time};
use ipvs_lens::correlate::{Correlator, REORDER_WINDOW};
use ipvs_lens::decode::{decode, wire};
use ipvs_lens::event::{
    AttemptDecided, AttemptId, Event, FirstDrop, NetnsId, PacketEvent, Proto, RealServer, Service,
    ServiceName, Tuple, Verdict,
};
use ipvs_lens::source::batch::Batch;
use ipvs_lens::source::ring::BATCH_MAX;

const EVENTS: u32 = 10_000;

fn main() {
    divan::main();
    print_ratio();
}

/// Rounds of which the fastest counts, in CPU time.
const ROUNDS: u32 = 30;

/// A bare drain against drain, decode and correlate, of the same records in batches as the ring has
/// them.
fn print_ratio() {
    let records = records();
    let (mut bare, mut full) = (Batch::default(), Batch::default());
    let fastest = |round: &mut dyn FnMut()| {
        let rounds = (0..ROUNDS).map(|_| {
            let begin = thread_time();
            round();
            thread_time().saturating_sub(begin)
        });
        rounds.min().unwrap_or_default()
    };
    let bare = fastest(&mut || drain(&mut bare, &records, |record| drop(black_box(record))));
    let full = fastest(&mut || {
        let mut correlator = Correlator::new(false);
        drain(&mut full, &records, |record| {
            handle(&mut correlator, &record);
        });
        black_box(correlator.counters());
    });
    let ratio = full.as_secs_f64() / bare.as_secs_f64();
    println!(
        "{EVENTS} records: bare drain {bare:?}, drain with decode and correlate {full:?}, ratio \
         {ratio:.1}"
    );
}

fn records() -> Vec<Vec<u8>> {
    events().iter().map(wire::encode_packet).collect()
}

/// As [`ipvs_lens::source::ring::RingSource`] fills a batch and the observer empties it.
fn drain(batch: &mut Batch, records: &[Vec<u8>], mut take: impl FnMut(Bytes)) {
    for chunk in records.chunks(BATCH_MAX) {
        for record in chunk {
            batch.push([record.as_slice(), &[]], <[u8]>::len);
        }
        batch.drain().for_each(&mut take);
    }
}

fn handle(correlator: &mut Correlator, record: &[u8]) {
    if let Ok(Event::Packet(event)) = decode(record) {
        correlator.handle_event(event.at(), event);
        correlator.handle_timeout(event.at() + REORDER_WINDOW);
        while let Some(finding) = correlator.poll_output() {
            black_box(finding);
        }
    }
}

#[divan::bench]
fn drain_10k(bencher: Bencher<'_, '_>) {
    let records = records();
    let mut batch = Batch::default();
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        drain(&mut batch, &records, |record| drop(black_box(record)));
    });
}

#[divan::bench]
fn drain_decode_correlate_10k(bencher: Bencher<'_, '_>) {
    let records = records();
    let mut batch = Batch::default();
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let mut correlator = Correlator::new(false);
        drain(&mut batch, &records, |record| {
            handle(&mut correlator, &record);
        });
        correlator.counters()
    });
}

/// 10 µs apart; of three attempts one is stale, one dropped, one gets through after a drop.
fn events() -> Vec<PacketEvent> {
    (0..EVENTS).map(event).collect()
}

fn event(number: u32) -> PacketEvent {
    let at = MonoNs(u64::from(number) * 10_000);
    let first_drop = FirstDrop {
        at: at - Duration::from_secs(1),
        cause: DropCause::IpvsReuse,
    };
    let (verdict, first_drop) = match number % 3 {
        0 => (Verdict::ReusedStale(StaleCause::PortReuse), None),
        1 => (Verdict::Dropped(DropCause::IpvsReuse), None),
        _ => (Verdict::Rescheduled, Some(first_drop)),
    };
    let service = SocketAddr::from(([10, 96, 0, 10], 80));
    let [_, _, high, low] = number.to_be_bytes();
    PacketEvent::AttemptDecided(AttemptDecided {
        at,
        attempt: AttemptId {
            tuple: Tuple {
                client: SocketAddr::from(([10, 0, high, low], 40_000)),
                destination: service,
                netns: NetnsId(1),
                proto: Proto::Tcp,
            },
            isn: number,
        },
        verdict,
        service: Service {
            netns: NetnsId(1),
            name: ServiceName::Address {
                proto: Proto::Tcp,
                local: service,
            },
        },
        real_server: Some(RealServer(SocketAddr::from(([10, 1, 1, 2], 8080)))),
        weight: 0,
        first_seen: at,
        first_drop,
        retransmits: 0,
        drops: 0,
        old_state: None,
        cpu: 0,
    })
}

#[divan::bench]
fn decode_10k(bencher: Bencher<'_, '_>) {
    let records = records();
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        for record in &records {
            black_box(decode(black_box(record)).is_ok());
        }
    });
}

#[divan::bench]
fn correlate_10k(bencher: Bencher<'_, '_>) {
    let events = events();
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let mut correlator = Correlator::new(false);
        for event in &events {
            correlator.handle_event(event.at(), *event);
            correlator.handle_timeout(event.at() + REORDER_WINDOW);
            while let Some(finding) = correlator.poll_output() {
                black_box(finding);
            }
        }
        correlator.counters()
    });
}
