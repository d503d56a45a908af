//! One observation, from records to findings: drains, decodes, correlates, reports.
//!
//! Holds no policy of its own: when to drain is `run`'s business, what it means is `correlate`'s.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agent_common::stat::Stat;

use crate::clock::{self, MonoNs, WallAnchor};
use crate::correlate::{Correlator, NodeWatch};
use crate::decode::{NodeCount, decode, node_count};
use crate::event::{ConfigEvent, Event, NetnsId};
use crate::finding::Finding;
use crate::ledger;
use crate::outputs::metrics::Metrics;
use crate::probes::attach::Programs;
use crate::source::Source;
use crate::source::batch::Batch;
use crate::source::counts::CountSource as _;
use crate::source::proc::Procfs;
use crate::source::table::{Reading, TableSource};
use crate::status::{SharedStatus, TableStatus};
use crate::table::changes::Difference;
use crate::table::tables::Tables;

/// How often the kernel's own counters are looked at for findings; a scrape reads them itself.
const PROCFS_PERIOD: Duration = Duration::from_secs(10);

/// Where findings go besides the metrics.
pub trait Sink {
    /// One finding, in the order of the correlator.
    ///
    /// # Errors
    /// Why nothing more can be read there.
    fn finding(&mut self, now: MonoNs, finding: &Finding, clocks: &WallAnchor) -> io::Result<()>;

    /// Something changed between two readings of an IPVS table.
    ///
    /// # Errors
    /// As [`Self::finding`].
    fn difference(&mut self, _: &Difference) -> io::Result<()> {
        Ok(())
    }

    /// The IPVS tables were read again.
    ///
    /// # Errors
    /// As [`Self::finding`].
    fn tables(&mut self, _now: MonoNs, _tables: &Tables) -> io::Result<()> {
        Ok(())
    }

    /// Called at every drain, for what is reported by time and not by a finding.
    ///
    /// # Errors
    /// As [`Self::finding`].
    fn tick(&mut self, now: MonoNs) -> io::Result<()>;

    /// Whether [`Self::tick`] must come once per drain period also while nothing happens.
    fn is_interactive(&self) -> bool {
        false
    }

    /// Nothing more will come.
    fn finish(&mut self);
}

/// What a drain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Records, or something nothing will wake the agent for.
    Busy,
    /// Nothing.
    Idle,
}

/// Programs on their hooks and the stream they write to; ends with the module.
pub struct Session {
    /// The programs.
    pub programs: Programs,
    /// Their records.
    pub source: Source,
    /// Readings of the IPVS tables; `None` where they cannot be had.
    pub table: Option<TableSource>,
    /// Whether the programs on the module's functions are attached.
    pub holds_module: bool,
}

/// Everything records pass on their way out; outlives sessions.
pub struct Observer<S> {
    correlator: Correlator,
    node: NodeWatch,
    procfs: Procfs,
    procfs_due: MonoNs,
    tables: Tables,
    metrics: Arc<Metrics>,
    status: SharedStatus,
    sink: S,
    batch: Batch,
    received: u64,
    lost: u64,
}

impl<S: Sink> Observer<S> {
    /// Nothing seen yet.
    pub fn new(
        correlator: Correlator,
        procfs: Procfs,
        tables: Tables,
        metrics: Arc<Metrics>,
        status: SharedStatus,
        sink: S,
    ) -> Self {
        Self {
            correlator,
            node: NodeWatch::default(),
            procfs,
            procfs_due: MonoNs(0),
            tables,
            metrics,
            status,
            sink,
            batch: Batch::default(),
            received: 0,
            lost: 0,
        }
    }

    /// Takes everything that waits in the ring, then does what is due at `now`.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn drain(&mut self, session: &mut Session, now: MonoNs) -> io::Result<Activity> {
        let received = self.received;
        let open_outcomes = session.programs.look_at_outcomes();
        loop {
            let more = session.source.drain(&mut self.batch);
            let configured = self.handle_batch(now);
            self.handle_changes(session, &configured);
            if !more {
                break;
            }
        }
        session.programs.flush_logs();
        if let Some(table) = &session.table
            && session.programs.counters().fills_up()
        {
            table.make_room();
        }
        self.handle_readings(session, now)?;
        self.advance(now)?;
        let busy = self.received > received
            || open_outcomes
            || session.programs.logs()
            || self.sink.is_interactive();
        Ok(if busy { Activity::Busy } else { Activity::Idle })
    }

    /// When [`Self::drain`] has to run at the latest.
    pub fn poll_timeout(&self) -> Option<MonoNs> {
        self.correlator.poll_timeout()
    }

    /// Does what is due at `now` while there is nothing to drain.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn advance(&mut self, now: MonoNs) -> io::Result<()> {
        self.status.observer_runs(now);
        self.correlator.handle_timeout(now);
        self.sink.tick(now)?;
        self.report(now)
    }

    /// Gives up on every outcome still open.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(mut self, now: MonoNs) -> io::Result<()> {
        self.correlator.handle_end(now);
        self.look_at_procfs(now);
        self.node.handle_end(now);
        self.tables.handle_end();
        self.report(now)?;
        self.sink.finish();
        Ok(())
    }

    /// Tells the correlator what was lost on the way, and brings `/status` up to date.
    pub fn refresh(&mut self, session: &Session, now: MonoNs) {
        let lost = session.programs.stat(Stat::RingFull);
        self.correlator
            .handle_loss(now, lost.saturating_sub(self.lost));
        self.lost = lost;
        let counters = self.correlator.counters();
        let emitted = session.programs.stat(Stat::Emitted);
        let losses = self.metrics.losses().unwrap_or_default();
        self.status.update(|status| {
            status.events.emitted = emitted;
            status.events.received = self.received;
            status.events.attempts_held =
                u64::try_from(self.correlator.held_attempts()).unwrap_or(u64::MAX);
            status.events.late = counters.late;
            status.events.lost = losses
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect();
        });
    }

    /// Reads what is counted about the node; its findings are reported with the next ones.
    pub fn look_at_node(&mut self, session: &Session, now: MonoNs) {
        let counters = session.programs.counters();
        // Kernel maps of this process can always be read; if not, the next look shows it.
        let (Ok(counts), Ok(latest)) = (counters.node_counts(), counters.node_latest()) else {
            return;
        };
        let known = |key| node_count(key).ok();
        // A sum of what has no key of its own says nothing about a listener, and rises when others
        // are folded into it; it is in the exposition only.
        let counts: Vec<(NodeCount, u64)> = counts
            .all
            .iter()
            .filter(|count| !ledger::node::is_nameless(&count.key))
            .filter_map(|count| Some((known(&count.key)?, count.total)))
            .collect();
        let latest: Vec<NodeCount> = latest.iter().filter_map(known).collect();
        self.node.handle_counts(now, &counts, &latest);
        if now >= self.procfs_due {
            self.look_at_procfs(now);
        }
    }

    fn look_at_procfs(&mut self, now: MonoNs) {
        self.procfs_due = now + PROCFS_PERIOD;
        self.node.handle_procfs(now, &self.procfs.read());
    }

    /// Hands events about packets to the correlator; returns those about the configuration.
    fn handle_batch(&mut self, now: MonoNs) -> Vec<ConfigEvent> {
        let mut configured = Vec::new();
        for record in self.batch.drain() {
            self.received += 1;
            self.metrics.received();
            match decode(&record) {
                Ok(Event::Packet(event)) => self.correlator.handle_event(now, event),
                Ok(Event::Config(event)) => configured.push(event),
                Err(malformed) => {
                    self.correlator.handle_loss(now, 1);
                    self.metrics.malformed(&malformed);
                }
            }
        }
        configured
    }

    fn handle_changes(&mut self, session: &mut Session, configured: &[ConfigEvent]) {
        for ConfigEvent::RealServerChanged(changed) in configured {
            self.tables.handle_change(changed);
            if let Some(table) = &mut session.table {
                table.watch(changed.service.netns);
            }
        }
        if let (Some(table), false) = (&session.table, configured.is_empty()) {
            table.read_now();
        }
    }

    fn handle_readings(&mut self, session: &mut Session, now: MonoNs) -> io::Result<()> {
        let Some(table) = &mut session.table else {
            return Ok(());
        };
        let mut read = false;
        while let Some(reading) = table.poll() {
            read = true;
            match reading {
                Reading::Table(snapshot) => self.tables.handle_snapshot(snapshot),
                Reading::Gone(netns) => self.tables.handle_gone(netns),
                Reading::Attempts { attempts, look } => self.tables.handle_attempts(attempts, look),
                Reading::Failed { netns, reason } => {
                    if self.tables.failed().get(&netns) != Some(&reason) {
                        log::warn!("the IPVS table of namespace {netns} cannot be read: {reason}");
                    }
                    self.tables.handle_failure(netns, reason);
                }
                Reading::Counts { at, increments } => {
                    for (key, _) in &increments {
                        table.watch(NetnsId(key.service.netns));
                    }
                    self.tables.handle_counts(at, &increments);
                    if let Some(look) = self.tables.look(at) {
                        table.look_for(look);
                    }
                }
            }
        }
        if !read {
            return Ok(());
        }
        let tables = table_statuses(&self.tables);
        self.status.update(|status| status.tables = tables);
        self.sink.tables(now, &self.tables)
    }

    fn report(&mut self, now: MonoNs) -> io::Result<()> {
        let clocks = clock::wall_anchor();
        let mut reported = Ok(());
        while let Some(finding) = self.correlator.poll_output() {
            self.metrics.finding(&finding, &clocks);
            reported = reported.and(self.sink.finding(now, &finding, &clocks));
        }
        while let Some(finding) = self.node.poll_output() {
            reported = reported.and(self.sink.finding(now, &finding, &clocks));
        }
        while let Some(output) = self.tables.poll_output() {
            let finding = Finding::from(output);
            reported = reported.and(self.sink.finding(now, &finding, &clocks));
        }
        while let Some(difference) = self.tables.poll_difference() {
            reported = reported.and(self.sink.difference(&difference));
        }
        self.metrics.correlated(self.correlator.counters());
        reported
    }
}

fn table_statuses(tables: &Tables) -> BTreeMap<String, TableStatus> {
    let mut statuses: BTreeMap<String, TableStatus> = BTreeMap::new();
    for snapshot in tables.snapshots() {
        let status = statuses.entry(snapshot.netns.to_string()).or_default();
        status.services = snapshot.services.len();
        status.real_servers = snapshot.real_servers().count();
        status.read_ms = u64::try_from(snapshot.took.as_millis()).unwrap_or(u64::MAX);
    }
    for (netns, reason) in tables.failed() {
        statuses.entry(netns.to_string()).or_default().error = Some(reason.clone());
    }
    statuses
}
