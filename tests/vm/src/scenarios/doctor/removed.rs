//! A removed real server's UDP clients: cut off for up to five minutes, cured at once. No agent
//! runs, so the advice is by configuration.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::clinic::cure;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::service::{Key, ORDINARY, Service};
use crate::topology::{REAL_SERVERS, RS1, VIP};
use crate::traffic::Protocol;

/// Ports of clients that keep them: two for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_006;
/// A DNS client's patience, as in many containers.
const GIVE_UP: Duration = Duration::from_secs(2);

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "1"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Udp, &REAL_SERVERS)?;
    let mut plan = Lab::plan(PORTS.collect());
    plan.protocol = Protocol::Udp;
    plan.workers = 1;
    let first = lab.run_all_answered(&plan)?;
    let ports = first.ports_answered_by(RS1.name);
    ensure!(ports.len() == 2, "round robin gave {} {ports:?}", RS1.name);

    let service = Service {
        key: Key::Udp(VIP.into()),
        ..ORDINARY
    };
    service.delete(RS1)?;
    plan.ports = ports;
    plan.workers = plan.ports.len();
    let mut patient = plan.clone();
    patient.timeout = GIVE_UP;
    let cut_off = lab.run(&patient)?;
    ensure!(
        cut_off.failed().count() == 2,
        "want both clients cut off, got {cut_off:?}"
    );
    cure("removed_server", "configured")?;
    lab.run_all_answered(&plan).map(drop)
}
