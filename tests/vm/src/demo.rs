//! The incident this product is about, played for a person in three acts.
//!
//! Every number shown comes from the traffic generator or from the agent's own scrape.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::agent::Agent;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::report::Report;
use crate::results::Results;
use crate::scrape::Scrape;
use crate::socket::Close;
use crate::topology::{self, REAL_SERVERS, RS1, VIP};
use crate::wait;

/// Source ports of the client: four for each real server by round robin.
const PORTS: std::ops::Range<u16> = 40_000..40_012;
/// Until the agent's numbers agree with what the client saw.
const AGREE_LIMIT: std::time::Duration = std::time::Duration::from_secs(15);
/// Labels that distinguish the lines here: there is one service only.
const SHOWN_LABELS: [&str; 4] = ["remote_address", "remote_port", "decision", "cause"];
const DECISIONS: &str = "ipvs_lens_connections_total";
const STALE: &str = "ipvs_lens_stale_connections_total";
const DELAYS: &str = "ipvs_lens_connect_delay_seconds";

/// Tells the person what happens.
struct Narrator {
    out: Results,
}

/// What one act showed, for the closing table.
struct Act {
    what: &'static str,
    how_many: String,
    to_whom: String,
    change: &'static str,
}

/// Plays the three acts and closes with the table.
///
/// # Errors
/// Something did not happen as the text says: the demo shows the truth or nothing.
pub fn run() -> Result<()> {
    let mut narrator = Narrator {
        out: Results::open(),
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    narrator.say(&format!("ipvs-lens demo on Linux {}", release.trim()));
    narrator.say(&format!(
        "One client, one director with IPVS (service {VIP}, round robin, NAT), three real servers."
    ));
    narrator.say(
        "The client is real traffic; ipvs-lens runs on the director and sees only its kernel.",
    );
    let acts = [
        Lab::play(|lab| act_one(&mut narrator, lab)).context("act 1")?,
        Lab::play(|lab| act_two(&mut narrator, lab)).context("act 2")?,
        Lab::play(|lab| act_three(&mut narrator, lab)).context("act 3")?,
    ];
    narrator.table(&acts);
    narrator.say("DONE");
    Ok(())
}

/// `conn_reuse_mode=0`: reused ports follow their entries, to a server that drains and then goes.
fn act_one(narrator: &mut Narrator, lab: &mut Lab) -> Result<Act> {
    narrator.title("Act 1: a rollout with conn_reuse_mode=0");
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;
    let ports = narrator.first_connections(lab, Close::Clean)?;
    narrator.drain()?;
    let again = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    narrator.client("its source ports come back", &again);
    let followed = again.answered_by(RS1.name);
    ensure!(followed > 0, "no connection reached {}", RS1.name);
    let scrape = agree(&agent, STALE, &[], followed)?;
    narrator.agent(&scrape, STALE);

    narrator.say(&format!(
        "  {} is deleted now: its address is gone.",
        RS1.name
    ));
    topology::remove_address(RS1)?;
    let mut plan = Lab::plan(ports);
    plan.workers = plan.ports.len();
    let gone = lab.run(&plan)?;
    narrator.client("those ports come back once more", &gone);
    let total = followed + gone.attempts();
    let scrape = agree(&agent, STALE, &[], total)?;
    narrator.agent(&scrape, STALE);
    agent.terminate()?;
    Ok(Act {
        what: "sent to a server being drained",
        how_many: format!("{total} ({} failed)", gone.failed().count()),
        to_whom: RS1.address().to_string(),
        change: "conn_reuse_mode=1, or expire_nodest_conn=1",
    })
}

/// `expire_nodest_conn=1` with conntrack and a client that vanished: one second for each connect.
fn act_two(narrator: &mut Narrator, lab: &mut Lab) -> Result<Act> {
    narrator.title(
        "Act 2: the one-second delay (conn_reuse_mode=1, conntrack=1, expire_nodest_conn=1)",
    );
    director::up_to_drop_reused_syns()?;
    let agent = Agent::start()?;
    narrator.say("  The client's host loses power: its connections are never closed.");
    let ports = narrator.first_connections(lab, Close::Vanish)?;
    narrator.drain()?;
    let mut plan = Lab::plan(ports);
    plan.workers = plan.ports.len();
    let again = lab.run_all_answered(&plan)?;
    narrator.client("it is back and uses the ports again", &again);
    let dropped = again.attempts();
    ensure!(
        again.syn_retransmits() > 0,
        "no SYN was sent again: {again:?}"
    );
    let scrape = agree(&agent, DECISIONS, &[("decision", "dropped")], dropped)?;
    agree(
        &agent,
        &format!("{DELAYS}_count"),
        &[("cause", "ipvs_reuse")],
        dropped,
    )?;
    narrator.agent(&scrape, DECISIONS);
    narrator.agent(&scrape, "ipvs_lens_syn_drops_total");
    let mean = mean_delay_seconds(&agent.scrape()?)?;
    narrator.say(&format!(
        "  ipvs-lens  mean delay of the SYNs that IPVS dropped: {mean:.2} s"
    ));
    agent.terminate()?;
    Ok(Act {
        what: "SYN dropped by IPVS, connect delayed",
        how_many: format!("{dropped} by {mean:.1} s each"),
        to_whom: format!("clients of {VIP}"),
        change: "conntrack=0 where no firewall rule needs it",
    })
}

/// The cure is applied in the middle of the rollout of act 1.
fn act_three(narrator: &mut Narrator, lab: &mut Lab) -> Result<Act> {
    narrator.title("Act 3: the cure, applied in the middle of a rollout as in act 1");
    director::load(&[("conn_reuse_mode", "0"), ("expire_nodest_conn", "0")])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    let agent = Agent::start()?;
    narrator.first_connections(lab, Close::Clean)?;
    narrator.drain()?;
    let before = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    narrator.client("its source ports come back", &before);
    let followed = before.answered_by(RS1.name);
    agree(&agent, STALE, &[], followed)?;

    narrator.say("  sysctl net.ipv4.vs.conn_reuse_mode=1");
    director::set("conn_reuse_mode", "1")?;
    let cured = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    narrator.client("its source ports come back", &cured);
    ensure!(
        cured.answered_by(RS1.name) == 0,
        "the cure did not work: {cured:?}"
    );
    let labels = [("decision", "rescheduled")];
    agree(&agent, DECISIONS, &labels, cured.attempts())?;
    let scrape = agree(&agent, STALE, &[], followed)?;
    narrator.agent(&scrape, DECISIONS);
    narrator.say(&format!(
        "  Stale connections stay at {followed}: their rate is 0 and the alert IPVSStaleConnections clears."
    ));
    agent.terminate()?;
    Ok(Act {
        what: "rescheduled after the cure",
        how_many: cured.attempts().to_string(),
        to_whom: "real servers with weight".to_owned(),
        change: "nothing: stale connections stopped",
    })
}

/// Waits until a sum of the agent's agrees with what the client saw; returns that scrape.
fn agree(agent: &Agent, name: &str, labels: &[(&str, &str)], count: usize) -> Result<Scrape> {
    wait::until("the agent to agree with the client", AGREE_LIMIT, || {
        let scrape = agent.scrape()?;
        let found = scrape.count(name, labels)?;
        ensure!(
            found == u64::try_from(count)?,
            "{name}{labels:?} is {found}, want {count}"
        );
        Ok(scrape)
    })
}

fn mean_delay_seconds(scrape: &Scrape) -> Result<f64> {
    let labels = [("cause", "ipvs_reuse")];
    let count = scrape.sum(&format!("{DELAYS}_count"), &labels);
    ensure!(count > 0.0, "no delay was observed");
    Ok(scrape.sum(&format!("{DELAYS}_sum"), &labels) / count)
}

impl Narrator {
    fn say(&mut self, line: &str) {
        self.out.line(line);
    }

    fn title(&mut self, line: &str) {
        self.say("");
        self.say(line);
    }

    /// Connects once from every port; returns the ports that the server about to drain answered.
    fn first_connections(&mut self, lab: &Lab, close: Close) -> Result<Vec<u16>> {
        let mut plan = Lab::plan(PORTS.collect());
        plan.close = close;
        let first = lab.run_all_answered(&plan)?;
        self.client("short connections", &first);
        Ok(first.ports_answered_by(RS1.name))
    }

    fn drain(&mut self) -> Result<()> {
        self.say(&format!(
            "  The rollout gives {} ({}) weight 0: nothing new should reach it.",
            RS1.name,
            RS1.address()
        ));
        director::set_weight(RS1, 0)
    }

    /// What the client saw.
    fn client(&mut self, what: &str, report: &Report) {
        let mut seen: Vec<_> = report
            .answers()
            .into_iter()
            .map(|(name, count)| format!("{count} answered by {name}"))
            .collect();
        let failed: Vec<_> = report.failed().filter_map(|c| c.failure.as_ref()).collect();
        if let Some(failure) = failed.first() {
            seen.push(format!("{} failed: {}", failed.len(), failure.message));
        }
        self.say(&format!(
            "  client     {what}: {} connections, {}; slowest {:.2} s",
            report.attempts(),
            seen.join(", "),
            std::time::Duration::from_millis(report.slowest_ms()).as_secs_f64()
        ));
    }

    /// What the agent says of one family.
    fn agent(&mut self, scrape: &Scrape, family: &str) {
        for sample in scrape.non_zero(&[family]) {
            let shown = SHOWN_LABELS.iter().filter_map(|name| {
                let value = sample.labels.get(*name)?;
                Some(format!("{name}={value:?}"))
            });
            let labels = shown.collect::<Vec<_>>().join(",");
            self.say(&format!(
                "  ipvs-lens  {family}{{{labels}}} {}",
                sample.value
            ));
        }
    }

    fn table(&mut self, acts: &[Act]) {
        self.title("What happened");
        let header = ["what", "how many", "to whom", "what to change"];
        let rows: Vec<[&str; 4]> = std::iter::once(header)
            .chain(
                acts.iter()
                    .map(|act| [act.what, &act.how_many, &act.to_whom, act.change]),
            )
            .collect();
        for row in &rows {
            let line: Vec<_> = (0..4)
                .map(|column| {
                    let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
                    format!("{:<width$}", row[column])
                })
                .collect();
            self.say(format!("  {}", line.join("  ")).trim_end());
        }
    }
}
