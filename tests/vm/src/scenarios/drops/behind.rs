//! SYNs that IPVS sent on die on the same node: in the real server's namespace, by a rule for what
//! the node sends, for want of a route or a neighbour, in IPVS itself. None of them was lost
//! elsewhere, and each is reported once, in the client's addresses.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::syns_in_vain;
use crate::agent::{self, Agent};
use crate::director;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::listener::Listener;
use crate::paths::{self, CLIENT_V6, VIP_V6};
use crate::report::Report;
use crate::service::{Forwarding, Key, ORDINARY, Service};
use crate::topology::{self, CLIENT, CLIENT_NETNS, RS1, VIP};
use crate::traffic::{self, GIVE_UP, Plan};
use crate::{command, netns};

/// Connections at a time.
const PORTS: std::ops::Range<u16> = 40_000..40_003;
/// The rule is removed after the first SYN and its first retransmit, before the second.
const CURED_AFTER: Duration = Duration::from_millis(1_500);
/// "No route to host".
const EHOSTUNREACH: i32 = 113;
/// Connections that wait at a listener of the real server, less one.
const BACKLOG: i32 = 2;
/// The service of that listener, and its port.
const FULL_PORT: u16 = 81;
/// The service whose real server vanishes.
const LONELY_PORT: u16 = 82;
/// A service on the loopback address, as of a node port.
const NODE_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 30_080);

/// The network as one version of IP sees it.
#[derive(Clone, Copy)]
struct Net {
    source: IpAddr,
    service: Service,
    ip: &'static str,
    iptables: &'static str,
}

const V4: Net = Net {
    source: IpAddr::V4(CLIENT),
    service: ORDINARY,
    ip: "ip",
    iptables: "iptables",
};

const V6: Net = Net {
    source: IpAddr::V6(CLIENT_V6),
    service: Service {
        key: Key::Tcp(SocketAddr::new(IpAddr::V6(VIP_V6), VIP.port())),
        ..ORDINARY
    },
    ip: "ip -6",
    iptables: "ip6tables",
};

/// What was played, and what must be reported about it: findings by kind, cause and hook.
struct Played {
    expected: Expected,
    findings: BTreeMap<[String; 3], Totals>,
}

/// Findings, and the dead SYNs that they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    findings: usize,
    drops: usize,
}

impl Played {
    fn nothing() -> Self {
        Self {
            expected: Expected::none(),
            findings: BTreeMap::new(),
        }
    }

    /// Every SYN of these attempts died of this cause; hook is empty where no rule dropped them.
    fn blocked(
        &mut self,
        service: Service,
        cause: &'static str,
        hook: &str,
        report: (usize, usize),
    ) {
        let (attempts, syns) = report;
        let of_service = Expected::of(service)
            .decision("scheduled", attempts)
            .new_connections(RS1, attempts)
            .syn_drops(cause, syns);
        self.add(of_service, ["connect_blocked", cause, hook], report);
    }

    fn add(&mut self, expected: Expected, kind: [&str; 3], (findings, drops): (usize, usize)) {
        self.expected = std::mem::replace(&mut self.expected, Expected::none()).and(expected);
        let kind = kind.map(str::to_owned);
        let all = self.findings.entry(kind).or_default();
        all.findings += findings;
        all.drops += drops;
    }
}

/// IPv4.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[])?;
    play(lab, V4)
}

/// IPv6.
pub fn run_v6(lab: &mut Lab) -> Result<()> {
    director::load(&[])?;
    paths::add_ipv6(&mut lab.topology)?;
    play(lab, V6)
}

fn play(lab: &Lab, net: Net) -> Result<()> {
    net.service.create(&[RS1])?;
    let trace = agent::trace_aside()?;
    let agent = Agent::start()?;
    let mut played = Played::nothing();
    under_rule(net, Some(RS1.name), "INPUT", 0, &mut played)?;
    under_rule(net, None, "OUTPUT", 100, &mut played)?;
    cured(lab, net, &mut played)?;
    without_route(lab, net, &mut played)?;
    full_queue(net, &mut played)?;
    if net.source.is_ipv4() {
        from_loopback(&mut played)?;
    }
    if net.source.is_ipv4() || reports_failed_neighbours()? {
        without_neighbour(lab, net, &mut played)?;
    }
    agent.expect(&played.expected)?;
    let elsewhere = agent
        .scrape()?
        .count("ipvs_lens_syn_retransmits_total", &[("lost", "elsewhere")])?;
    ensure!(elsewhere == 0, "{elsewhere} SYNs lost elsewhere, want 0");
    agent.terminate()?;
    let found = findings(&trace.stop()?)?;
    ensure!(
        found == played.findings,
        "findings {found:#?}, want {:#?}",
        played.findings
    );
    Ok(())
}

/// Findings by kind, cause and hook; each names service, real server and client.
fn findings(lines: &str) -> Result<BTreeMap<[String; 3], Totals>> {
    let mut found: BTreeMap<[String; 3], Totals> = BTreeMap::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        // The listener's own, without a client.
        if line["kind"] == "syns_refused" {
            continue;
        }
        let named = ["local_address", "remote_address", "client"];
        ensure!(
            named.iter().all(|field| !text(field).is_empty()) && !text("client").contains("10.1."),
            "service, real server or client missing: {line}"
        );
        let all = found
            .entry(["kind", "cause", "netfilter_hook"].map(text))
            .or_default();
        all.findings += 1;
        all.drops += usize::try_from(line["drops"].as_u64().unwrap_or(0))?;
    }
    Ok(found)
}

impl Net {
    /// Connections from ports this far from the first.
    fn plan(self, offset: u16) -> Plan {
        let mut plan = Lab::plan(PORTS.map(|port| port + offset).collect());
        plan.source = self.source;
        if let Key::Tcp(target) = self.service.key {
            plan.target = target;
        }
        plan
    }

    fn server(self) -> SocketAddr {
        self.service.address_of(RS1)
    }

    /// A service of this port, whose real server has the same; where clients reach it, and where
    /// that is.
    fn another_service(self, port: u16) -> Result<(Service, SocketAddr, SocketAddr)> {
        let target = SocketAddr::new(self.plan(0).target.ip(), port);
        let server = SocketAddr::new(self.server().ip(), port);
        command::line(&format!("ipvsadm -A -t {target} -s rr"))?;
        command::line(&format!("ipvsadm -a -t {target} -r {server} -m -w 1"))?;
        let service = Service {
            key: Key::Tcp(target),
            // As with this, the real server has the service's port.
            forwarding: Forwarding::DirectRouting,
            ..ORDINARY
        };
        Ok((service, target, server))
    }

    fn rule(self, chain: &str) -> String {
        let server = self.server();
        let (ip, port) = (server.ip(), server.port());
        format!("{chain} -d {ip} -p tcp --dport {port} --syn -j DROP")
    }

    /// Packets the chain's first DROP rule has counted.
    fn dropped(self, chain: &str) -> Result<usize> {
        let table = command::line(&format!("{} -L {chain} -nvx", self.iptables))?;
        let rule = table.lines().find(|line| line.contains("DROP"));
        let packets = rule.and_then(|line| line.split_ascii_whitespace().next());
        let packets = packets.with_context(|| format!("no DROP rule in {chain}:\n{table}"))?;
        Ok(packets.parse()?)
    }
}

/// Clients that give up, while SYNs to the real server are dropped by a rule in this namespace.
fn under_rule(
    net: Net,
    netns: Option<&str>,
    chain: &str,
    offset: u16,
    played: &mut Played,
) -> Result<()> {
    let (iptables, rule) = (net.iptables, net.rule(chain));
    netns::within(netns, || command::line(&format!("{iptables} -I {rule}")))?;
    let sent = syns_in_vain(net.plan(offset))?;
    let dropped = netns::within(netns, || net.dropped(chain))?;
    netns::within(netns, || command::line(&format!("{iptables} -D {rule}")))?;
    ensure!(
        dropped == sent,
        "{chain} dropped {dropped} SYNs, the clients sent {sent}"
    );
    let hook = chain.to_lowercase();
    let of_report = (PORTS.len(), sent);
    played.blocked(net.service, "netfilter", &hook, of_report);
    all_here(net.service, of_report, played);
    Ok(())
}

/// Every SYN sent again was lost on this node before.
fn all_here(service: Service, (attempts, syns): (usize, usize), played: &mut Played) {
    let here = Expected::of(service).retransmits("here", syns - attempts);
    played.expected = std::mem::replace(&mut played.expected, Expected::none()).and(here);
}

/// Clients that get through once the rule is gone.
fn cured(lab: &Lab, net: Net, played: &mut Played) -> Result<()> {
    let mut plan = net.plan(200);
    plan.workers = PORTS.len();
    let (iptables, rule) = (net.iptables, net.rule("INPUT"));
    let in_pod = |command: String| netns::within(Some(RS1.name), || command::line(&command));
    in_pod(format!("{iptables} -I {rule}"))?;
    let connecting = lab.start(plan);
    std::thread::sleep(CURED_AFTER);
    in_pod(format!("{iptables} -D {rule}"))?;
    let report = connecting.finish()?;
    report.ensure_all_answered()?;
    // The rule takes a moment to go; every SYN but the one that got through met it.
    let dropped = usize::try_from(report.syn_retransmits())?;
    ensure!(
        dropped >= report.attempts(),
        "some SYNs met no rule: {report:?}"
    );
    let expected = Expected::of(net.service)
        .decision("scheduled", report.attempts())
        .new_connections(RS1, report.attempts())
        .delays("netfilter", report.attempts())
        .syn_drops("netfilter", dropped)
        .retransmits("here", dropped);
    let kind = ["connect_delayed", "netfilter", ""];
    played.add(expected, kind, (report.attempts(), dropped));
    Ok(())
}

/// Clients that learn at once that there is no route.
fn without_route(lab: &Lab, net: Net, played: &mut Played) -> Result<()> {
    let route = format!("unreachable {}", net.server().ip());
    command::line(&format!("{} route add {route}", net.ip))?;
    let report = lab.run(&net.plan(300))?;
    command::line(&format!("{} route del {route}", net.ip))?;
    report.ensure_all_failed(EHOSTUNREACH)?;
    played.blocked(net.service, "no_route", "", of(&report)?);
    all_here(net.service, of(&report)?, played);
    Ok(())
}

fn of(report: &Report) -> Result<(usize, usize)> {
    Ok((report.attempts(), report.syns()?))
}

/// The listener behind another service has a full accept queue.
fn full_queue(net: Net, played: &mut Played) -> Result<()> {
    let (service, target, server) = net.another_service(FULL_PORT)?;
    let listener = netns::within(Some(RS1.name), || Listener::start(server, BACKLOG))?;
    let waiting = listener.fill(CLIENT_NETNS)?;
    let mut plan = net.plan(400);
    plan.target = target;
    let sent = syns_in_vain(plan)?;
    drop(waiting);
    let of_report = (PORTS.len(), sent);
    played.blocked(service, "accept_queue_full", "", of_report);
    all_here(service, of_report, played);
    let refused = Expected::none().listen_drops(server, "accept_queue_full", "syn", sent);
    played.expected = std::mem::replace(&mut played.expected, Expected::none()).and(refused);
    Ok(())
}

/// Clients on the node itself: IPVS sends nothing from a loopback address to another host.
fn from_loopback(played: &mut Played) -> Result<()> {
    let service = Service {
        key: Key::Tcp(NODE_PORT),
        ..ORDINARY
    };
    service.create(&[RS1])?;
    let mut plan = Lab::plan(PORTS.map(|port| port + 500).collect());
    plan.source = Ipv4Addr::LOCALHOST.into();
    plan.target = NODE_PORT;
    plan.timeout = GIVE_UP;
    plan.workers = plan.ports.len();
    let report = traffic::run(None, &plan)?;
    ensure!(report.answers().is_empty(), "some got through: {report:?}");
    played.blocked(service, "ipvs_transmit", "", of(&report)?);
    all_here(service, of(&report)?, played);
    Ok(())
}

/// Whether this kernel sends a client of IPv6 an ICMP error when the real server's neighbour entry
/// fails: 5.10 does not, and the client sends SYNs until it gives up, at times that decide which of
/// them are known to be lost.
fn reports_failed_neighbours() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(!release.starts_with("5.10."))
}

/// The real server's address is gone: nothing answers ARP or NDP. Its SYNs die together 3 s after
/// the first, so some of them are sent again before it is known that the one before is lost.
fn without_neighbour(lab: &Lab, net: Net, played: &mut Played) -> Result<()> {
    if net.source.is_ipv4() {
        topology::remove_address(RS1)?;
    } else {
        let (address, cable) = (net.server().ip(), RS1.cable());
        command::line(&format!(
            "ip -n {} addr del {address}/64 dev eth0",
            RS1.name
        ))?;
        command::line(&format!("ip -6 neigh flush dev {cable}"))?;
    }
    let (service, target, _) = net.another_service(LONELY_PORT)?;
    let mut plan = net.plan(600);
    plan.target = target;
    plan.workers = plan.ports.len();
    let report = lab.run(&plan)?;
    report.ensure_all_failed(EHOSTUNREACH)?;
    played.blocked(service, "neighbour", "", of(&report)?);
    Ok(())
}
