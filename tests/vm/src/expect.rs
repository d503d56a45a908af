//! What the agent's metrics must say, to the last number: what is not expected must be zero. Pure.

use std::fmt::Write as _;
use std::net::SocketAddr;

use anyhow::{Result, bail};

use crate::scrape::{Sample, Scrape};
use crate::service::{Labels, ORDINARY, Service};
use crate::topology::RealServer;

const CONNECTIONS: &str = "ipvs_lens_connections_total";
const STALE: &str = "ipvs_lens_stale_connections_total";
const SYN_DROPS: &str = "ipvs_lens_syn_drops_total";
const DELAY_COUNT: &str = "ipvs_lens_connect_delay_seconds_count";
const NEW_CONNECTIONS: &str = "ipvs_lens_new_connections_total";
const OUTCOMES: &str = "ipvs_lens_stale_outcomes_total";
const DATAGRAMS: &str = "ipvs_lens_stale_datagrams_total";
const FLOWS: &str = "ipvs_lens_stale_flows_total";
const RETRANSMITS: &str = "ipvs_lens_syn_retransmits_total";
const LISTEN_DROPS: &str = "ipvs_lens_listen_drops_total";
const CONNECT_FAILURES: &str = "ipvs_lens_connect_failures_total";
const PATH_MTU: &str = "ipvs_lens_path_mtu_total";
const LOST: &str = "ipvs_lens_events_lost_total";

/// Families in which every series that is not expected must be 0.
const EXACT: [&str; 11] = [
    LOST,
    CONNECTIONS,
    STALE,
    OUTCOMES,
    DATAGRAMS,
    FLOWS,
    SYN_DROPS,
    DELAY_COUNT,
    LISTEN_DROPS,
    CONNECT_FAILURES,
    PATH_MTU,
];

/// A set of series with their values; expecting 0 is the same as expecting nothing.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Service of the series that are added.
    service: Service,
    /// Labels of that service besides the usual ones.
    more: Labels,
    series: Vec<Series>,
}

/// One series with its value, not 0.
#[derive(Clone, Debug)]
struct Series {
    name: &'static str,
    labels: Labels,
    count: u64,
}

impl std::fmt::Display for Series {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels = self.labels.iter().map(|(k, v)| format!("{k}={v:?}"));
        write!(
            out,
            "{}{{{}}}",
            self.name,
            labels.collect::<Vec<_>>().join(",")
        )
    }
}

impl Expected {
    /// Nothing counted; what is added is the ordinary service's.
    pub fn none() -> Self {
        Self::of(ORDINARY)
    }

    /// Nothing counted; what is added is this service's.
    pub fn of(service: Service) -> Self {
        Self {
            service,
            more: Vec::new(),
            series: Vec::new(),
        }
    }

    /// What is added from here on is labelled with this network namespace.
    #[must_use]
    pub fn in_netns(mut self, inode: u64) -> Self {
        self.more = vec![("netns", inode.to_string())];
        self
    }

    /// What both expect.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for series in other.series {
            self.add(series);
        }
        self
    }

    /// `count` events lost for this reason.
    #[must_use]
    pub fn lost(mut self, reason: &'static str, count: usize) -> Self {
        self.push(LOST, vec![("reason", reason.to_owned())], count);
        self
    }

    /// `count` attempts on the service with this decision.
    #[must_use]
    pub fn decision(self, decision: &'static str, count: usize) -> Self {
        self.service_series(CONNECTIONS, ("decision", decision), count)
    }

    /// `count` attempts sent to this stale real server.
    #[must_use]
    pub fn stale(mut self, rs: RealServer, cause: &'static str, count: usize) -> Self {
        let mut labels = self.real_server_labels(rs);
        labels.push(("cause", cause.to_owned()));
        self.push(STALE, labels, count);
        self
    }

    /// What became of `count` stale attempts.
    #[must_use]
    pub fn outcome(self, outcome: &'static str, count: usize) -> Self {
        self.service_series(OUTCOMES, ("outcome", outcome), count)
    }

    /// Attempts from ports that came back: `reused` followed their entry to a server in service,
    /// `stale` to `draining`, which answered.
    #[must_use]
    pub fn came_back(self, reused: usize, stale: usize, draining: RealServer) -> Self {
        self.decision("reused", reused)
            .decision("reused_stale", stale)
            .stale(draining, "port_reuse", stale)
            .outcome("answered", stale)
    }

    /// `count` datagrams of `flows` flows to this stale real server.
    #[must_use]
    pub fn stale_datagrams(mut self, rs: RealServer, flows: usize, count: usize) -> Self {
        self.push(FLOWS, self.real_server_labels(rs), flows);
        self.push(DATAGRAMS, self.real_server_labels(rs), count);
        self
    }

    /// `count` SYNs sent again, the one before lost there.
    #[must_use]
    pub fn retransmits(self, lost: &'static str, count: usize) -> Self {
        self.service_series(RETRANSMITS, ("lost", lost), count)
    }

    /// `count` connections that the scheduler or an old entry gave to this real server.
    #[must_use]
    pub fn new_connections(mut self, rs: RealServer, count: usize) -> Self {
        self.push(NEW_CONNECTIONS, self.real_server_labels(rs), count);
        self
    }

    /// `count` SYN packets to the service that died for this cause.
    #[must_use]
    pub fn syn_drops(self, cause: &'static str, count: usize) -> Self {
        self.service_series(SYN_DROPS, ("cause", cause), count)
    }

    /// `count` SYN packets that died for this cause under addresses that are no service's.
    #[must_use]
    pub fn syn_drops_elsewhere(mut self, cause: &'static str, count: usize) -> Self {
        let mut labels = self.service.labels();
        for (_, value) in &mut labels {
            value.clear();
        }
        labels.push(("cause", cause.to_owned()));
        self.push(SYN_DROPS, labels, count);
        self
    }

    /// `count` packets of this kind, `syn` or `ack`, that this listener refused.
    #[must_use]
    pub fn listen_drops(
        mut self,
        listener: SocketAddr,
        cause: &'static str,
        packet: &'static str,
        count: usize,
    ) -> Self {
        let labels = vec![
            ("local_address", listener.ip().to_string()),
            ("local_port", listener.port().to_string()),
            ("cause", cause.to_owned()),
            ("packet", packet.to_owned()),
        ];
        self.push(LISTEN_DROPS, labels, count);
        self
    }

    /// `count` connects to this destination that failed here for this cause.
    #[must_use]
    pub fn connect_failures(
        mut self,
        target: SocketAddr,
        cause: &'static str,
        count: usize,
    ) -> Self {
        let labels = vec![
            ("proto", "TCP".to_owned()),
            ("remote_address", target.ip().to_string()),
            ("remote_port", target.port().to_string()),
            ("cause", cause.to_owned()),
        ];
        self.push(CONNECT_FAILURES, labels, count);
        self
    }

    /// `count` signs of this kind of packets too big for their way.
    #[must_use]
    pub fn path_mtu(mut self, event: &'static str, count: usize) -> Self {
        self.push(PATH_MTU, vec![("event", event.to_owned())], count);
        self
    }

    /// `count` attempts delayed for this cause.
    #[must_use]
    pub fn delays(self, cause: &'static str, count: usize) -> Self {
        self.service_series(DELAY_COUNT, ("cause", cause), count)
    }

    fn service_series(
        mut self,
        family: &'static str,
        label: (&'static str, &str),
        count: usize,
    ) -> Self {
        let mut labels = self.service_labels();
        labels.push((label.0, label.1.to_owned()));
        self.push(family, labels, count);
        self
    }

    fn service_labels(&self) -> Labels {
        [self.service.labels(), self.more.clone()].concat()
    }

    fn real_server_labels(&self, rs: RealServer) -> Labels {
        [self.service.labels_of(rs), self.more.clone()].concat()
    }

    fn push(&mut self, family: &'static str, labels: Labels, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if count > 0 {
            self.add(Series {
                name: family,
                labels,
                count,
            });
        }
    }

    /// What is expected twice is expected in sum.
    fn add(&mut self, series: Series) {
        let known = self
            .series
            .iter_mut()
            .find(|known| known.name == series.name && known.labels == series.labels);
        match known {
            Some(known) => known.count += series.count,
            None => self.series.push(series),
        }
    }

    /// # Errors
    /// Lists what is missing, what differs and what should not be there.
    pub fn check(&self, scrape: &Scrape) -> Result<()> {
        self.check_exact(scrape, &EXACT)
    }

    /// As [`Self::check`], for a caller that accounts for lost events itself.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_but_lost(&self, scrape: &Scrape) -> Result<()> {
        self.check_exact(scrape, &EXACT[1..])
    }

    fn check_exact(&self, scrape: &Scrape, exact: &[&str]) -> Result<()> {
        let mut wrong = String::new();
        let mut met: Vec<&Sample> = Vec::new();
        for series in &self.series {
            let labels: Vec<_> = series
                .labels
                .iter()
                .map(|(k, v)| (*k, v.as_str()))
                .collect();
            met.extend(scrape.select(series.name, &labels));
            let found = scrape.count(series.name, &labels)?;
            if found != series.count {
                let _ = writeln!(wrong, "  {series}: {found}, want {}", series.count);
            }
        }
        for sample in scrape.non_zero(exact) {
            if !met.contains(&sample) && !is_skipped_run(sample) {
                let _ = writeln!(wrong, "  not expected: {sample}");
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        for skipped in scrape
            .non_zero(&[LOST])
            .filter(|sample| is_skipped_run(sample))
        {
            let _ = writeln!(wrong, "  perhaps for this: {skipped}");
        }
        bail!("the agent's counts differ:\n{wrong}")
    }
}

/// The kernel counts a program's run that it skipped for any packet; for one that mattered the other
/// counts differ.
fn is_skipped_run(sample: &Sample) -> bool {
    let reasons = ["kprobe_skipped", "program_recursion"];
    sample.name == LOST
        && reasons
            .iter()
            .any(|reason| sample.has(&[("reason", reason)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{RS1, RS2};

    const TEXT: &str = r#"
ipvs_lens_connections_total{proto="TCP",local_address="10.96.0.10",local_port="80",local_mark="",decision="reused_stale"} 3
ipvs_lens_connections_total{proto="TCP",local_address="10.96.0.10",local_port="80",local_mark="",decision="dropped"} 0
ipvs_lens_stale_connections_total{proto="TCP",local_address="10.96.0.10",local_port="80",local_mark="",remote_address="10.1.1.2",remote_port="8080",cause="port_reuse"} 3
ipvs_lens_syn_drops_total{proto="TCP",local_address="10.96.0.10",local_port="80",local_mark="",cause="ipvs_reuse"} 0
"#;

    fn check(expected: &Expected) -> String {
        expected
            .check(&Scrape::parse(TEXT).unwrap())
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn exact_counts_pass() {
        let expected = Expected::none()
            .decision("reused_stale", 3)
            .stale(RS1, "port_reuse", 3)
            .syn_drops("ipvs_reuse", 0);
        assert_eq!(check(&expected), "");
    }

    #[test]
    fn a_different_count_fails() {
        let expected = Expected::none()
            .decision("reused_stale", 2)
            .stale(RS1, "port_reuse", 3);
        assert!(check(&expected).contains("3, want 2"));
    }

    #[test]
    fn what_is_missing_or_not_expected_fails() {
        let expected = Expected::none()
            .decision("reused_stale", 3)
            .stale(RS2, "port_reuse", 3);
        let wrong = check(&expected);
        assert!(wrong.contains("0, want 3"), "{wrong}");
        assert!(wrong.contains("not expected: ipvs_lens_stale"), "{wrong}");
    }
}
