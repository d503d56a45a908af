//! IPVS in another network namespace, with the same addresses and ports: observed, and kept
//! apart.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, ensure};

use super::{FOLLOW, PORTS, play};
use crate::agent::Agent;
use crate::director;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::netns;
use crate::service::{ORDINARY, Service};
use crate::topology::{CLIENT_NETNS, REAL_SERVERS, Site, Topology};
use crate::traffic;

/// Ports of the second site: some of the first site's, so that the tuples are the same.
const OTHER_PORTS: std::ops::Range<u16> = 40_000..40_006;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&FOLLOW)?;
    ORDINARY.create(&REAL_SERVERS)?;
    let agent = Agent::start()?;
    let here = play(&ORDINARY, &Lab::plan(PORTS.collect()), |plan| lab.run(plan))?;
    agent
        .expect(&here.add_to(Expected::none()))
        .context("before the other namespace")?;
    let samples = agent.scrape()?.samples;
    let labelled = samples.iter().find(|it| it.labels.contains_key("netns"));
    ensure!(
        labelled.is_none(),
        "one namespace is watched, and there is a netns label: {labelled:?}"
    );

    // It comes while the agent runs.
    let site = Site::Second;
    let other = Topology::up(site)?;
    let service = Service {
        netns: site.director(),
        ..ORDINARY
    };
    netns::within(site.director(), || director::load(&FOLLOW))?;
    service.create(&REAL_SERVERS)?;
    let client = site.netns(CLIENT_NETNS);
    let plan = Lab::plan(OTHER_PORTS.collect());
    let there = play(&service, &plan, |plan| traffic::run(Some(&client), plan))?;
    let [root, inner] = [None, site.director()].map(inode);
    let expected = here
        .add_to(Expected::none().in_netns(root?))
        .and(there.add_to(Expected::of(service).in_netns(inner?)));
    agent
        .expect(&expected)
        .context("with the other namespace")?;

    other.down()?;
    agent
        .expect(&expected)
        .context("after the other namespace")?;
    let ready = agent.get("/readyz")?;
    ensure!(
        ready.status == 200,
        "/readyz: {} {}",
        ready.status,
        ready.body
    );
    agent.terminate()
}

/// The number by which the kernel shows a network namespace.
fn inode(name: Option<&'static str>) -> Result<u64> {
    netns::within(name, || {
        let path = "/proc/thread-self/ns/net";
        let metadata = fs::metadata(path).with_context(|| format!("look at {path}"))?;
        Ok(metadata.ino())
    })
}
