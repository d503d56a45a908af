//! Property: at every scrape the sum over a family's series is what was counted, whatever was
//! added, removed, folded, loaded again or counted without names before.

use std::sync::{Arc, Mutex};

use agent_common::count::{CountKey, TALLY_ATTEMPT, TALLY_SYN_DROP, rest_index, rest_key};
use agent_common::key::{RealServerKey, ServiceKey};
use agent_common::verdict::{Decision, DropCause};
use proptest::prelude::*;

use super::*;
use crate::ledger::{KEPT, Ledger, Presence};

/// More services than have series of their own.
const WAVE_MAX: u16 = 600;
const _: () = assert!(WAVE_MAX as usize > SERVICES_MAX);

#[derive(Default)]
struct Source(Mutex<Ledger>);

impl CountSource for Source {
    fn counts(&self) -> Result<Counts, SourceError> {
        Ok(self.0.lock().unwrap().counts(MonoNs(0)))
    }

    fn stats(&self) -> Result<Vec<(Stat, u64)>, SourceError> {
        Ok(Vec::new())
    }
}

fn service(number: u16) -> ServiceKey {
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&[10, 96, 0, 10]);
    ServiceKey {
        addr,
        fwmark: 0,
        netns: 1,
        port: number + 1,
        family: 4,
        proto: 6,
    }
}

fn attempt(service: ServiceKey, server: u16) -> CountKey {
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&[10, 1, 1, 2]);
    CountKey {
        service,
        real_server: RealServerKey {
            addr,
            port: server + 1,
            family: 4,
            pad: 0,
        },
        tally: TALLY_ATTEMPT,
        decision: Decision::Scheduled as u8,
        cause: 0,
        pad: 0,
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// One connection to a real server of each of so many services.
    Wave {
        services: u16,
        server: u16,
    },
    /// SYNs of a service that died.
    Drop {
        service: u16,
        more: u64,
    },
    /// Connections that found no room in the kernel's table.
    Flood(u64),
    /// Services from this one on are gone, and time passes.
    Remove {
        from: u16,
    },
    /// Every table is read again: all of them are listed.
    List,
    /// The coldest sums end, as where the ledger runs out of room.
    Fold {
        service: u16,
        server: u16,
    },
    Scrape,
}

fn step() -> impl Strategy<Value = Step> {
    let server = 0..3_u16;
    prop_oneof![
        3 => (0..WAVE_MAX, server.clone())
            .prop_map(|(services, server)| Step::Wave { services, server }),
        1 => (0..8_u16, 1..9_u64).prop_map(|(service, more)| Step::Drop { service, more }),
        1 => (1..900_u64).prop_map(Step::Flood),
        2 => (0..WAVE_MAX).prop_map(|from| Step::Remove { from }),
        1 => Just(Step::List),
        1 => (0..8_u16, server).prop_map(|(service, server)| Step::Fold { service, server }),
        3 => Just(Step::Scrape),
    ]
}

/// What was counted, and the second it is.
#[derive(Default)]
struct Truth {
    attempts: u64,
    drops: u64,
    second: u64,
}

impl Truth {
    fn now(&self) -> MonoNs {
        MonoNs(self.second * 1_000_000_000)
    }

    fn play(&mut self, ledger: &mut Ledger, step: Step) {
        let now = self.now();
        match step {
            Step::Wave { services, server } => {
                for number in 0..services {
                    ledger.add(now, attempt(service(number), server), 1);
                }
                self.attempts += u64::from(services);
            }
            Step::Drop { service: of, more } => {
                let key = CountKey {
                    real_server: RealServerKey::NONE,
                    tally: TALLY_SYN_DROP,
                    decision: 0,
                    cause: DropCause::IpvsReuse as u8,
                    ..attempt(service(of), 0)
                };
                ledger.add(now, key, more);
                self.drops += more;
            }
            Step::Flood(more) => {
                let index = rest_index(TALLY_ATTEMPT, Decision::Scheduled as u8, 0);
                ledger.add(now, rest_key(index), more);
                self.attempts += more;
            }
            Step::Remove { from } => {
                self.second += KEPT.as_secs() * 2 / 3;
                ledger.handle_tables(self.now(), |(it, _)| {
                    if it.port > from {
                        Presence::Absent
                    } else {
                        Presence::Listed
                    }
                });
                let due = ledger.due(self.now());
                ledger.fold(&due);
            }
            Step::List => ledger.handle_tables(now, |_| Presence::Listed),
            Step::Fold {
                service: of,
                server,
            } => {
                ledger.fold(&[(service(of), attempt(service(of), server).real_server)]);
            }
            Step::Scrape => {}
        }
    }
}

/// The sum of a family of counters.
fn sum(text: &str, family: &str) -> u64 {
    let rows = text.lines().filter(|line| line.starts_with(family));
    rows.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_sum_is_what_was_counted(steps in prop::collection::vec(step(), 1..24)) {
        let source = Arc::new(Source::default());
        let metrics = Metrics::new(BuildInfo::THIS);
        metrics.set_source(Some(Arc::clone(&source) as _));
        let mut truth = Truth::default();
        for step in steps.into_iter().chain([Step::Scrape]) {
            truth.play(&mut source.0.lock().unwrap(), step);
            if matches!(step, Step::Scrape) {
                let text = String::from_utf8(metrics.render(Form::OpenMetrics1).unwrap()).unwrap();
                let found = |family: &str| sum(&text, family);
                prop_assert_eq!(found("ipvs_lens_connections_total{"), truth.attempts);
                prop_assert_eq!(found("ipvs_lens_new_connections_total{"), truth.attempts);
                prop_assert_eq!(found("ipvs_lens_syn_drops_total{"), truth.drops);
            }
        }
    }
}
