//! Who is listed in the tables that were read, for the life of the counters.

use std::collections::BTreeSet;
use std::sync::Arc;

use agent_common::key::RealServerKey;

use super::Snapshot;
use crate::decode::{self, wire};
use crate::event::{NetnsId, Service};
use crate::ledger::{Owner, Presence};

/// Real servers that are counted from 0 on although none was counted for yet.
///
/// A node with more shows the busiest anyway, and those that drain.
pub const PLANTED_MAX: usize = 1_000;

/// One reading of the tables.
#[derive(Debug)]
pub struct Listings<'a> {
    read: Vec<Arc<Snapshot>>,
    watched: &'a BTreeSet<NetnsId>,
}

impl<'a> Listings<'a> {
    /// `read` of all `watched` namespaces; those that could not be read this time are missing.
    #[must_use]
    pub const fn new(read: Vec<Arc<Snapshot>>, watched: &'a BTreeSet<NetnsId>) -> Self {
        Self { read, watched }
    }

    /// What they say of a real server, or of a service ([`RealServerKey::NONE`]).
    #[must_use]
    pub fn presence(&self, (service, real_server): &Owner) -> Presence {
        let Ok(service) = decode::service(service) else {
            return Presence::Unknown;
        };
        // The kernel programs could not know which namespace.
        if service.netns == NetnsId::default() {
            return Presence::Unknown;
        }
        let Some(snapshot) = self.snapshot(service.netns) else {
            // A namespace that is watched and was not read is there; any other is gone.
            return if self.watched.contains(&service.netns) {
                Presence::Unknown
            } else {
                Presence::Absent
            };
        };
        of_row(snapshot, &service, real_server)
    }

    /// Services and real servers whose counters should be there before their first count.
    #[must_use]
    pub fn to_plant(&self) -> Vec<Owner> {
        let services = || self.read.iter().flat_map(|snapshot| &snapshot.services);
        let all: usize = services().map(|row| row.real_servers.len()).sum();
        let mut owners = Vec::new();
        for row in services() {
            let service = wire::service(&row.service);
            owners.push((service, RealServerKey::NONE));
            let rows = row.real_servers.iter();
            let planted = rows.filter(|row| row.is_draining() || all <= PLANTED_MAX);
            owners.extend(planted.map(|row| (service, wire::real_server(Some(row.real_server)))));
        }
        owners
    }

    fn snapshot(&self, netns: NetnsId) -> Option<&Snapshot> {
        let mut read = self.read.iter();
        read.find(|snapshot| snapshot.netns == netns)
            .map(|it| &**it)
    }
}

fn of_row(snapshot: &Snapshot, service: &Service, real_server: &RealServerKey) -> Presence {
    let Some(row) = snapshot.service(service) else {
        return Presence::Absent;
    };
    match decode::real_server(real_server) {
        Ok(None) => Presence::Listed,
        Ok(Some(server)) => match row.real_server(&server) {
            None => Presence::Absent,
            Some(row) if row.is_draining() => Presence::Draining,
            Some(_) => Presence::Listed,
        },
        Err(_) => Presence::Unknown,
    }
}
