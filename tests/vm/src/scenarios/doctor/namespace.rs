//! IPVS in another network namespace, as Docker Swarm has it: the doctor finds it, and its command
//! enters it.

use anyhow::{Context as _, Result, ensure};

use super::clinic::{Visit, cure};
use crate::director;
use crate::lab::Lab;
use crate::netns;
use crate::service::{ORDINARY, Service};
use crate::topology::{CLIENT_NETNS, REAL_SERVERS, RS1, Site, Topology};
use crate::traffic;

/// Ports that come back: two for each real server.
const PORTS: std::ops::Range<u16> = 40_000..40_006;

/// Plays the story.
pub fn run(_: &mut Lab) -> Result<()> {
    let site = Site::Second;
    let other = Topology::up(site)?;
    let settings = [("conn_reuse_mode", "0"), ("expire_nodest_conn", "1")];
    director::load(&[])?;
    netns::within(site.director(), || director::load(&settings))?;
    let service = Service {
        netns: site.director(),
        ..ORDINARY
    };
    service.create(&REAL_SERVERS)?;
    let client = site.netns(CLIENT_NETNS);
    let first = traffic::run(Some(&client), &Lab::plan(PORTS.collect()))?;
    first.ensure_all_answered()?;

    // Everybody moves to a new port, so all that is left to rs1 are ports that come back.
    let again = |want: usize| -> Result<()> {
        let report = traffic::run(Some(&client), &Lab::plan(first.ports_answered_by(RS1.name)))?;
        report.ensure_all_answered()?;
        let found = report.answered_by(RS1.name);
        ensure!(found == want, "{found} ports stayed with rs1, want {want}");
        Ok(())
    };
    again(2).context("mode 0")?;
    cure("uneven_reuse", "configured")?;
    again(0).context("mode 1")?;
    Visit::pay()?.ensure_status(super::FINE)?;
    other.down()
}
