//! Totals of everything the kernel programs have counted, bounded, without ever losing a number.
//!
//! The kernel's table of counters holds what was counted since it was emptied last; the ledger
//! holds the sums. A sum has a life: it begins with the first count under its key, and it ends when
//! its real server or service has been gone and quiet for [`KEPT`], or when the ledger runs out of
//! room. At its end it is folded: the sum of a real server into that of the real servers of its
//! service that have none of their own ([`RealServerKey::REST`]), the sums of a service into those
//! of such services ([`ServiceKey::REST`]). What comes back begins a new life at 0.
//!
//! **Conservation**: the sum over all keys of one kind (tally, decision, cause) is what was counted
//! of that kind, whatever was added, folded or removed in between, in any order.

pub mod node;
pub mod shelf;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_common::count::{CountKey, TALLY_ATTEMPT};
use agent_common::key::{RealServerKey, ServiceKey};
use agent_common::verdict::Decision;

use crate::clock::MonoNs;

/// Sums kept apart.
///
/// 10,000 services with 10 real servers each are 100,000 real servers, most of which have one sum.
/// About 15 MB when full.
pub const KEYS_MAX: usize = 131_072;

/// How long the sums of a real server outlive it, and its last count.
///
/// Entries in IPVS's connection table lead clients to a removed real server for as long as they
/// live: 15 minutes for an established connection (`ip_vs_proto_tcp.c`, Linux 6.12). While such
/// clients come, the real server is what operators look for.
pub const KEPT: Duration = Duration::from_mins(15);

/// A real server under its service, as the kernel programs name them.
pub type Owner = (ServiceKey, RealServerKey);

/// What the last reading of its table says of a real server or service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It is not listed.
    Absent,
    /// Its table was not read.
    #[default]
    Unknown,
    /// It is listed.
    Listed,
    /// It is listed with weight 0.
    Draining,
}

/// One sum with what is known of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// What was counted, for whom.
    pub key: CountKey,
    /// How often, in this life of the key.
    pub total: u64,
    /// The number of the reading ([`Counts::reading`]) in which this life began.
    pub born: u64,
    /// When it rose last.
    pub changed: MonoNs,
    /// Whether its real server, or its service where it has none, is listed.
    pub presence: Presence,
}

impl From<(CountKey, u64)> for Count {
    fn from((key, total): (CountKey, u64)) -> Self {
        Self {
            key,
            total,
            born: 1,
            changed: MonoNs(0),
            presence: Presence::Unknown,
        }
    }
}

/// Everything counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of this reading, from 1 on.
    pub reading: u64,
    /// When it was made.
    pub at: MonoNs,
    /// Every sum, in the order of the keys.
    pub all: Vec<Count>,
}

/// A sum.
#[derive(Clone, Copy, Debug)]
struct Sum {
    total: u64,
    /// As much of it as [`Ledger::take_increments`] has returned.
    reported: u64,
    born: u64,
    changed: MonoNs,
}

/// A service or real server that is not listed.
#[derive(Clone, Copy, Debug)]
struct Absence {
    since: MonoNs,
    reported: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Ledger {
    sums: BTreeMap<CountKey, Sum>,
    absent: BTreeMap<Owner, Absence>,
    draining: BTreeSet<Owner>,
    /// The readings made so far.
    readings: u64,
}

impl Ledger {
    /// Adds `more` under `key`; without room for a new key, under that of the rest of its service.
    pub fn add(&mut self, at: MonoNs, key: CountKey, more: u64) {
        if more > 0 {
            let key = self.with_room(key);
            self.add_to(at, key, more);
        }
    }

    /// Begins the life of this real server's sum at 0, if it has none and there is room to spare.
    ///
    /// A rate sees the first count only if its series was there before it.
    pub fn plant(&mut self, at: MonoNs, (service, real_server): Owner) {
        let key = CountKey {
            service,
            real_server,
            tally: TALLY_ATTEMPT,
            decision: Decision::Scheduled as u8,
            cause: 0,
            pad: 0,
        };
        if self.sums.len() < KEYS_MAX / 2 {
            self.sums.entry(key).or_insert(Sum {
                total: 0,
                reported: 0,
                born: self.readings + 1,
                changed: at,
            });
        }
    }

    /// Every sum, as a new reading.
    pub fn counts(&mut self, at: MonoNs) -> Counts {
        self.readings += 1;
        let all = self.sums.iter().map(|(key, sum)| Count {
            key: *key,
            total: sum.total,
            born: sum.born,
            changed: sum.changed,
            presence: self.presence(key),
        });
        Counts {
            reading: self.readings,
            at,
            all: all.collect(),
        }
    }

    /// What each sum has risen by since the last call.
    pub fn take_increments(&mut self) -> Vec<(CountKey, u64)> {
        let risen = self.sums.iter_mut().filter_map(|(key, sum)| {
            let more = sum.total - std::mem::replace(&mut sum.reported, sum.total);
            (more > 0).then_some((*key, more))
        });
        risen.collect()
    }

    /// Takes over what readings of the tables say of every real server and service that was
    /// counted for.
    pub fn handle_tables(&mut self, at: MonoNs, presence: impl Fn(&Owner) -> Presence) {
        let (mut absent, mut draining) = (BTreeMap::new(), BTreeSet::new());
        for owner in self.owners() {
            let before = self.absent.get(&owner);
            match presence(&owner) {
                Presence::Listed => {}
                Presence::Draining => drop(draining.insert(owner)),
                Presence::Absent => {
                    let begins = Absence {
                        since: at,
                        reported: false,
                    };
                    absent.insert(owner, before.copied().unwrap_or(begins));
                }
                Presence::Unknown => {
                    if let Some(absence) = before {
                        absent.insert(owner, *absence);
                    }
                    if self.draining.contains(&owner) {
                        draining.insert(owner);
                    }
                }
            }
        }
        (self.absent, self.draining) = (absent, draining);
    }

    /// Services that have been gone for [`KEPT`], each once.
    pub fn take_gone_services(&mut self, now: MonoNs) -> Vec<ServiceKey> {
        let gone = |(_, real_server): &Owner, absence: &Absence| {
            *real_server == RealServerKey::NONE
                && !absence.reported
                && now.since(absence.since) >= KEPT
        };
        let mut services = Vec::new();
        for (owner, absence) in &mut self.absent {
            if gone(owner, absence) {
                absence.reported = true;
                services.push(owner.0);
            }
        }
        services
    }

    /// Whose sums have to be folded at `now`: those of real servers gone and quiet for [`KEPT`] and
    /// of services that have been so and have no real server left, and where room runs out, the
    /// coldest: of real servers that are gone, of services that are gone, then of real servers,
    /// then of services.
    #[must_use]
    pub fn due(&self, now: MonoNs) -> Vec<Owner> {
        let mut cold = self.cold();
        let with_real_servers: BTreeSet<ServiceKey> = cold
            .iter()
            .filter(|(_, _, (_, real_server), _)| *real_server != RealServerKey::NONE)
            .map(|(_, _, (service, _), _)| *service)
            .collect();
        let over = if self.sums.len() > KEYS_MAX / 8 * 7 {
            self.sums.len() - KEYS_MAX / 4 * 3
        } else {
            0
        };
        cold.sort_unstable();
        let mut keys = 0;
        let due = cold.into_iter().filter(|(class, changed, owner, sums)| {
            let ends = match class {
                Class::GoneRealServer => true,
                Class::GoneService => !with_real_servers.contains(&owner.0),
                Class::RealServer | Class::Service => false,
            };
            let quiet = now.since(*changed) >= KEPT;
            let expired = ends && quiet && self.gone_for(owner, now) >= KEPT;
            let folds = expired || keys < over;
            keys += if folds { *sums } else { 0 };
            folds
        });
        due.map(|(_, _, owner, _)| owner).collect()
    }

    /// Ends the lives of these real servers' sums, and of those of these services
    /// ([`RealServerKey::NONE`]).
    pub fn fold(&mut self, owners: &[Owner]) {
        for (service, real_server) in owners {
            let (first, last) = bounds(*service, *real_server);
            let keys: Vec<CountKey> = self.sums.range(first..=last).map(|(key, _)| *key).collect();
            for key in keys {
                if let Some(sum) = self.sums.remove(&key)
                    && sum.total > 0
                {
                    let into = self.add_to(sum.changed, folded(key), sum.total);
                    into.reported = into.reported.saturating_add(sum.reported);
                    // What its service has counted goes on.
                    into.born = into.born.min(sum.born);
                }
            }
        }
    }

    /// Sums there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    /// Whether nothing was counted yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    fn add_to(&mut self, at: MonoNs, key: CountKey, more: u64) -> &mut Sum {
        let sum = self.sums.entry(key).or_insert(Sum {
            total: 0,
            reported: 0,
            born: self.readings + 1,
            changed: at,
        });
        sum.total = sum.total.saturating_add(more);
        sum.changed = sum.changed.max(at);
        sum
    }

    /// The key itself, or the first of those it folds into that is there or has room: the kinds of
    /// the rest of all services are a few dozen and always have.
    fn with_room(&self, mut key: CountKey) -> CountKey {
        while key.service != ServiceKey::REST
            && self.sums.len() >= KEYS_MAX
            && !self.sums.contains_key(&key)
        {
            key = folded(key);
        }
        key
    }

    fn presence(&self, key: &CountKey) -> Presence {
        let owner = owner(key);
        if self.absent.contains_key(&owner) {
            Presence::Absent
        } else if self.draining.contains(&owner) {
            Presence::Draining
        } else {
            Presence::Listed
        }
    }

    fn gone_for(&self, owner: &Owner, now: MonoNs) -> Duration {
        let absence = self.absent.get(owner);
        absence.map_or(Duration::ZERO, |absence| now.since(absence.since))
    }

    /// Everyone counted for, each once, and their services.
    fn owners(&self) -> BTreeSet<Owner> {
        let keys = self.sums.keys();
        let known = keys.filter(|key| key.service != ServiceKey::REST && is_known(&key.service));
        known
            .flat_map(|key| [owner(key), (key.service, RealServerKey::NONE)])
            .collect()
    }

    /// Everyone whose sums can be folded: class, last change, and how many sums.
    fn cold(&self) -> Vec<(Class, MonoNs, Owner, usize)> {
        let mut cold: Vec<(Class, MonoNs, Owner, usize)> = Vec::new();
        for (key, sum) in &self.sums {
            if key.service == ServiceKey::REST {
                continue;
            }
            let owner = owner(key);
            match cold.last_mut() {
                Some((_, changed, last, sums)) if *last == owner => {
                    *changed = (*changed).max(sum.changed);
                    *sums += 1;
                }
                _ => cold.push((self.class(key), sum.changed, owner, 1)),
            }
        }
        cold
    }

    fn class(&self, key: &CountKey) -> Class {
        let gone = self.absent.contains_key(&owner(key));
        match (gone, has_real_server(key)) {
            (true, true) => Class::GoneRealServer,
            (true, false) => Class::GoneService,
            (false, true) => Class::RealServer,
            (false, false) => Class::Service,
        }
    }
}

/// In which order sums are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    GoneRealServer,
    GoneService,
    RealServer,
    Service,
}

/// Whose listing decides about a key: its real server's, or its service's where it has none.
fn owner(key: &CountKey) -> Owner {
    if has_real_server(key) {
        (key.service, key.real_server)
    } else {
        (key.service, RealServerKey::NONE)
    }
}

fn has_real_server(key: &CountKey) -> bool {
    ![RealServerKey::NONE, RealServerKey::REST].contains(&key.real_server)
}

const fn is_known(service: &ServiceKey) -> bool {
    service.family != 0 || service.fwmark != 0
}

/// The key a sum is folded into.
fn folded(key: CountKey) -> CountKey {
    if has_real_server(&key) {
        CountKey {
            real_server: RealServerKey::REST,
            ..key
        }
    } else {
        CountKey {
            service: ServiceKey::REST,
            real_server: RealServerKey::NONE,
            ..key
        }
    }
}

/// The least and greatest key of one real server, or of a service without its real servers.
fn bounds(service: ServiceKey, real_server: RealServerKey) -> (CountKey, CountKey) {
    let at = |real_server, number| CountKey {
        service,
        real_server,
        tally: number,
        decision: number,
        cause: number,
        pad: number,
    };
    // The two keys of a service follow each other: no real server has a key between them.
    let last = match real_server {
        RealServerKey::NONE => RealServerKey::REST,
        _ => real_server,
    };
    (at(real_server, 0), at(last, u8::MAX))
}
