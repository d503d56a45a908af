//! Every cause and every outcome in one run: each is counted once, and under its own name.
//!
//! What can happen at the same time does: each player has its own service, listener or namespace,
//! and says what it leaves in the metrics. Nothing else may be there. Only conntrack's table is
//! filled later, because its limit is every namespace's. No source port is answered twice: behind
//! NAT, two services are one to a real server.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::drops::{
    accept_queue, conntrack, netfilter, source_ports, syn_queue, syns_in_vain, with_parameters,
};
use crate::agent::Agent;
use crate::director;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::listener::{self, Listener};
use crate::report::Report;
use crate::service::{Key, ORDINARY, Service};
use crate::socket::Close;
use crate::topology::{
    self, CLIENT_GATEWAY, CLIENT_NETNS, REAL_SERVERS, RS1, RS2, RS3, RealServer, Site, Topology,
    VIP,
};
use crate::traffic::{self, GIVE_UP, Plan, Protocol};
use crate::{command, netns, netstat, paths};

/// What the agent calls silence here.
const TIMEOUT_MS: &str = "3000";
/// A resolver would wait seconds.
const NO_ANSWER: Duration = Duration::from_millis(500);
/// Until a forgotten handshake was forgotten a second time.
const FORGOTTEN: Duration = Duration::from_secs(2);
/// "Connection timed out".
const ETIMEDOUT: i32 = 110;
/// "Connection refused".
const ECONNREFUSED: i32 = 111;
/// "No route to host".
const EHOSTUNREACH: i32 = 113;

/// Services whose SYNs rules and filters drop: INPUT, raw, nft, reverse path.
const BY_INPUT: Service = service(81);
const BY_RAW: Service = service(82);
const BY_NFT: Service = service(83);
const BY_RP_FILTER: Service = service(84);
/// Services that lose servers.
const REMOVED: Service = service(86);
const WITHOUT_SERVER: Service = service(87);
/// The service of clients that stay.
const PERSISTENT: Service = Service {
    options: "-p 300",
    ..service(85)
};
const DATAGRAMS: Service = Service {
    key: Key::Udp(SocketAddr::V4(VIP)),
    ..ORDINARY
};
/// Director and service of the second network, whose parameters are others.
const SECOND: Service = Service {
    netns: Site::Second.director(),
    ..ORDINARY
};
/// Listeners of the director: full by SYN, full at the last packet, half-open, for a client without
/// source ports.
const FULL: SocketAddrV4 = SocketAddrV4::new(CLIENT_GATEWAY, 9_000);
const FULL_LATER: SocketAddrV4 = SocketAddrV4::new(CLIENT_GATEWAY, 9_001);
const HALF_OPEN: SocketAddrV4 = SocketAddrV4::new(CLIENT_GATEWAY, 9_002);
const WANTED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 2, 1), 9_003);
/// Listeners of the real servers' own namespaces, behind source NAT and a full conntrack.
const BEHIND_NAT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 2, 2), 9_004);
const BEHIND_CONNTRACK: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 3, 2), 9_005);
/// A second address of the client; the director thinks it is behind a real server.
const ASTRAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Room in queues that are to be filled.
const BACKLOG: i32 = 2;
/// Clients of each player that fail.
const FAILING: std::ops::Range<u16> = 43_000..43_004;

/// A TCP service on this port of the virtual address.
const fn service(port: u16) -> Service {
    Service {
        key: Key::Tcp(SocketAddr::V4(at(port))),
        ..ORDINARY
    }
}

const fn at(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(*VIP.ip(), port)
}

/// Inode numbers of the directors' namespaces.
#[derive(Clone, Copy)]
struct Stage {
    root: u64,
    second: u64,
}

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    let second = Topology::up(Site::Second)?;
    let stage = Stage {
        root: inode(None)?,
        second: inode(Site::Second.director())?,
    };
    create_services()?;
    let mut agent = Agent::spawn_with(&["--outcome-timeout-ms", TIMEOUT_MS])?;
    agent.wait_ready()?;
    let cookies = [("net/ipv4/tcp_syncookies", "0", "1")];
    let expected = with_parameters(&cookies, || play(&mut lab.topology, stage))?;
    let expected = expected.and(clash(stage)?).and(full(stage)?);
    agent.expect(&expected)?;
    agent.terminate()?;
    second.down()
}

/// The number by which the kernel shows a network namespace.
fn inode(name: Option<&'static str>) -> Result<u64> {
    netns::within(name, || Ok(fs::metadata("/proc/thread-self/ns/net")?.ino()))
}

fn create_services() -> Result<()> {
    director::load(&[
        ("conn_reuse_mode", "0"),
        ("expire_nodest_conn", "0"),
        ("expire_quiescent_template", "0"),
    ])?;
    ORDINARY.create(&REAL_SERVERS)?;
    let others = [
        BY_INPUT,
        BY_RAW,
        BY_NFT,
        BY_RP_FILTER,
        REMOVED,
        WITHOUT_SERVER,
        PERSISTENT,
        DATAGRAMS,
    ];
    for other in others {
        other.create(&[RS2, RS3])?;
    }
    netns::within(SECOND.netns, || {
        director::load(&[
            ("conn_reuse_mode", "1"),
            ("conntrack", "1"),
            ("expire_nodest_conn", "1"),
        ])?;
        director::enable_conntrack()
    })?;
    SECOND.create(&REAL_SERVERS)
}

/// Everything that can happen at the same time.
fn play(topology: &mut Topology, stage: Stage) -> Result<Expected> {
    let known = make_known(stage)?;
    let overflows = netstat::tcp_ext(accept_queue::OVERFLOWS)?;
    let late = Late::open()?;
    syn_queue::never_finish_handshakes(HALF_OPEN.into())?;
    let astray = format!("ip -n {CLIENT_NETNS} addr add {ASTRAY}/32 dev eth0");
    command::line(&astray)?;
    command::line(&format!("ip route add {ASTRAY}/32 dev {}", RS3.cable()))?;
    let filter = format!("net/ipv4/conf/to-{CLIENT_NETNS}/rp_filter");

    let players: [fn(Stage) -> Result<Expected>; 9] = [
        dropped_by_rules,
        astray_clients,
        half_open,
        persistent,
        datagrams,
        without_source_ports,
        removed,
        without_server,
        reused_in_second,
    ];
    let (expected, refused) = with_parameters(&[(&filter, "1", "0")], || {
        under_rules(|| {
            thread::scope(|scope| {
                let refused = scope.spawn(|| accept_queue::refuse_syns(FULL.into()));
                let players = players.map(|player| scope.spawn(move || player(stage)));
                let mut expected = known.and(outcomes(topology, stage)?);
                for player in players {
                    expected = expected.and(joined(player.join())?);
                }
                Ok((expected, joined(refused.join())?))
            })
        })
    })?;
    late.forget()?;
    let overflows = usize::try_from(netstat::tcp_ext(accept_queue::OVERFLOWS)? - overflows)?;
    let forgotten = overflows - refused;
    ensure!(forgotten >= 2, "{forgotten} handshakes were forgotten");
    let at = FULL_LATER.into();
    Ok(
        accept_queue::refused_syns(expected, FULL.into(), refused).listen_drops(
            at,
            "accept_queue_full",
            "ack",
            forgotten,
        ),
    )
}

fn joined<T>(ended: thread::Result<Result<T>>) -> Result<T> {
    ended.map_err(|_| anyhow!("a player panicked"))?
}

/// The rules that drop, each for its own service but that on the way to a real server.
fn under_rules<T>(play: impl FnOnce() -> Result<T>) -> Result<T> {
    let rule = |chain: &str, target: SocketAddrV4| {
        let (address, port) = (target.ip(), target.port());
        format!("{chain} -d {address} -p tcp --dport {port} --syn -j DROP")
    };
    let input = rule("INPUT", at(81));
    let raw = rule("PREROUTING", at(82));
    let forward = rule("FORWARD", RS2.address());
    netfilter::under("filter", &input, || {
        netfilter::under("raw", &raw, || {
            netfilter::under("filter", &forward, || netfilter::under_nft(at(83), play))
        })
    })
}

/// One connection to each service that later drops, by which the agent learns of it.
fn make_known(stage: Stage) -> Result<Expected> {
    let services = [BY_INPUT, BY_RAW, BY_NFT, BY_RP_FILTER];
    let ports = 42_000..42_004;
    let mut each = services.into_iter().zip(ports);
    each.try_fold(here(ORDINARY, stage), |known, (service, port)| {
        all_answered(&plan(service, port..port + 1))?;
        Ok(known.and(here(service, stage).decision("scheduled", 1)))
    })
}

/// What became of connections to a draining server, while it goes step by step.
fn outcomes(topology: &mut Topology, stage: Stage) -> Result<Expected> {
    let first = all_answered(&plan(ORDINARY, 40_000..40_030))?;
    let ports = first.ports_answered_by(RS1.name);
    ensure!(ports.len() == 10, "round robin gave {} {ports:?}", RS1.name);
    ORDINARY.set_weight(RS1, 0)?;
    let pair = |number: usize| ports[2 * number..2 * number + 2].to_vec();

    let answered = all_answered(&plan_of(ORDINARY, pair(0)))?;
    topology.stop_server(RS1)?;
    let refused = all_failed(ORDINARY, pair(1), ECONNREFUSED)?;
    let outage = paths::swallow(RS1)?;
    let silent = all_failed(ORDINARY, pair(2), ETIMEDOUT)?;
    outage.remove()?;
    topology::remove_address(RS1)?;
    let no_neighbour = all_failed(ORDINARY, pair(3), EHOSTUNREACH)?;
    topology.remove_netns(RS1)?;
    let no_route = all_failed(ORDINARY, pair(4), EHOSTUNREACH)?;
    Ok(here(ORDINARY, stage)
        .decision("scheduled", first.attempts())
        .decision("reused_stale", ports.len())
        .stale(RS1, "port_reuse", ports.len())
        .outcome("answered", answered.attempts())
        .outcome("refused", refused.attempts())
        .outcome("timed_out", silent.attempts())
        .outcome("unreachable", no_neighbour.attempts() + no_route.attempts())
        .syn_drops("neighbour", no_neighbour.syns()?)
        .syn_drops("no_route", no_route.syns()?))
}

fn dropped_by_rules(stage: Stage) -> Result<Expected> {
    let targets = [at(81), at(82), at(83), RS2.address()];
    let in_vain = thread::scope(|scope| {
        let clients = targets.map(|target| {
            scope.spawn(move || {
                let mut plan = Lab::plan(FAILING.collect());
                plan.target = target.into();
                syns_in_vain(plan)
            })
        });
        clients.map(|client| joined(client.join()))
    });
    let [input, raw, nft, forward] = in_vain;
    Ok(here(BY_INPUT, stage)
        .syn_drops("netfilter", input?)
        .syn_drops_elsewhere("netfilter", forward?)
        .and(here(BY_RAW, stage).syn_drops("netfilter", raw?))
        .and(here(BY_NFT, stage).syn_drops("netfilter", nft?)))
}

fn astray_clients(stage: Stage) -> Result<Expected> {
    let mut plan = plan(BY_RP_FILTER, FAILING);
    plan.source = ASTRAY.into();
    Ok(here(BY_RP_FILTER, stage).syn_drops("rp_filter", syns_in_vain(plan)?))
}

fn half_open(stage: Stage) -> Result<Expected> {
    let listener = Listener::start(HALF_OPEN.into(), BACKLOG)?;
    let waiting = syn_queue::fill(&listener)?;
    let mut plan = Lab::plan(FAILING.collect());
    plan.target = listener.address;
    // And the one that found the queue full while it was filled.
    let syns = 1 + syns_in_vain(plan)?;
    drop(waiting);
    Ok(here(ORDINARY, stage)
        .syn_drops_elsewhere("syn_queue_full", syns)
        .listen_drops(listener.address, "syn_queue_full", "syn", syns))
}

/// A handshake whose last packet comes when the accept queue is full.
struct Late {
    connection: TcpStream,
    listener: Listener,
    waiting: Vec<TcpStream>,
}

impl Late {
    /// Opens it, and fills the queue.
    fn open() -> Result<Self> {
        let listener = Listener::start(FULL_LATER.into(), BACKLOG)?;
        let mut connection = accept_queue::connect_without_ack(listener.address)?;
        let waiting = listener.fill(CLIENT_NETNS)?;
        connection.write_all(b"hello").context("send")?;
        Ok(Self {
            connection,
            listener,
            waiting,
        })
    }

    /// Ends it, once it was forgotten a few times.
    fn forget(self) -> Result<()> {
        thread::sleep(FORGOTTEN);
        accept_queue::reset(&self.connection)?;
        drop((self.connection, self.waiting, self.listener));
        Ok(())
    }
}

fn persistent(stage: Stage) -> Result<Expected> {
    let mut one_by_one = plan(PERSISTENT, 44_000..44_003);
    // One after the other: two first connections at the same time may make a template each.
    one_by_one.workers = 1;
    let first = all_answered(&one_by_one)?;
    let server = server_of(&first)?;
    PERSISTENT.set_weight(server, 0)?;
    let new = all_answered(&plan(PERSISTENT, 44_100..44_105))?;
    ensure!(new.answered_by(server.name) == 5, "{new:?}");
    Ok(here(PERSISTENT, stage)
        .decision("scheduled", first.attempts())
        .decision("reused_stale", new.attempts())
        .stale(server, "persistence", new.attempts())
        .outcome("answered", new.attempts()))
}

fn server_of(report: &Report) -> Result<RealServer> {
    let mut servers = REAL_SERVERS.into_iter();
    servers
        .find(|rs| report.answered_by(rs.name) == report.attempts())
        .with_context(|| format!("answered by {:?}, want by one", report.answers()))
}

fn datagrams(stage: Stage) -> Result<Expected> {
    let ask = |ports: Vec<u16>| Plan {
        protocol: Protocol::Udp,
        ..Lab::plan(ports)
    };
    let first = all_answered(&ask((40_000..40_006).collect()))?;
    let ports = first.ports_answered_by(RS2.name);
    ensure!(ports.len() == 3, "round robin gave {} {ports:?}", RS2.name);
    DATAGRAMS.set_weight(RS2, 0)?;
    let mut more = ask(ports.clone());
    more.rounds = 3;
    let drained = all_answered(&more)?;
    DATAGRAMS.delete(RS2)?;
    let mut hopeless = ask(ports.clone());
    hopeless.timeout = NO_ANSWER;
    let dropped = traffic::run(Some(CLIENT_NETNS), &hopeless)?;
    ensure!(dropped.failed().count() == 3, "{dropped:?}");
    Ok(here(DATAGRAMS, stage)
        .decision("scheduled", first.attempts())
        .stale_datagrams(RS2, ports.len(), drained.attempts() + dropped.attempts()))
}

fn without_source_ports(stage: Stage) -> Result<Expected> {
    let listener = Listener::start(WANTED.into(), source_ports::BACKLOG)?;
    let client = SocketAddr::new((*RS2.address().ip()).into(), 0);
    source_ports::exhaust(RS2.name, client, listener.address)?;
    Ok(here(ORDINARY, stage).connect_failures(
        WANTED.into(),
        "source_ports_exhausted",
        source_ports::IN_VAIN,
    ))
}

fn removed(stage: Stage) -> Result<Expected> {
    let first = all_answered(&plan(REMOVED, 45_000..45_006))?;
    REMOVED.delete(RS2)?;
    let gone = all_failed(REMOVED, first.ports_answered_by(RS2.name), ETIMEDOUT)?;
    Ok(here(REMOVED, stage)
        .decision("scheduled", first.attempts())
        .decision("dropped", gone.attempts())
        .syn_drops("ipvs_removed", gone.syns()?))
}

fn without_server(stage: Stage) -> Result<Expected> {
    for rs in [RS2, RS3] {
        WITHOUT_SERVER.delete(rs)?;
    }
    let refused = all_failed(WITHOUT_SERVER, FAILING.collect(), ECONNREFUSED)?;
    Ok(here(WITHOUT_SERVER, stage)
        .decision("dropped", refused.attempts())
        .syn_drops("ipvs_no_destination", refused.syns()?))
}

/// The one-second delay, which needs other parameters.
fn reused_in_second(stage: Stage) -> Result<Expected> {
    let client = Site::Second.netns(CLIENT_NETNS);
    let mut vanish = plan(SECOND, 40_000..40_006);
    vanish.close = Close::Vanish;
    let first = traffic::run(Some(&client), &vanish)?;
    first.ensure_all_answered()?;
    SECOND.set_weight(RS1, 0)?;
    let ports = first.ports_answered_by(RS1.name);
    let again = traffic::run(Some(&client), &plan_of(SECOND, ports))?;
    again.ensure_all_answered()?;
    let dropped = usize::try_from(again.syn_retransmits())?;
    ensure!(dropped == again.attempts() && dropped == 2, "{again:?}");
    Ok(Expected::of(SECOND)
        .in_netns(stage.second)
        .decision("scheduled", first.attempts())
        .decision("dropped", dropped)
        .syn_drops("ipvs_reuse", dropped)
        .delays("ipvs_reuse", dropped))
}

/// Source NAT with one port for everybody, on a real server's host.
fn clash(stage: Stage) -> Result<Expected> {
    let listener = listen_within(RS2, BEHIND_NAT, BACKLOG)?;
    let syns = conntrack::under_source_nat(Some(RS2.name), BEHIND_NAT, || {
        let first = listener::connect(CLIENT_NETNS, listener.address)?;
        let mut plan = Lab::plan(FAILING.collect());
        plan.target = listener.address;
        let syns = syns_in_vain(plan)?;
        drop(first);
        Ok(syns)
    })?;
    Ok(here(ORDINARY, stage).syn_drops_elsewhere("conntrack_insert", syns))
}

/// A full conntrack on another's.
fn full(stage: Stage) -> Result<Expected> {
    let listener = listen_within(RS3, BEHIND_CONNTRACK, conntrack::BACKLOG)?;
    netns::within(Some(RS3.name), director::enable_conntrack)?;
    let in_use = listener.fill(CLIENT_NETNS)?;
    let syns = conntrack::without_room(|| {
        let mut plan = Lab::plan(FAILING.collect());
        plan.target = listener.address;
        syns_in_vain(plan)
    })?;
    drop(in_use);
    Ok(here(ORDINARY, stage).syn_drops_elsewhere("conntrack_full", syns))
}

fn listen_within(rs: RealServer, at: SocketAddrV4, backlog: i32) -> Result<Listener> {
    netns::within(Some(rs.name), || Listener::start(at.into(), backlog))
}

fn here(service: Service, stage: Stage) -> Expected {
    Expected::of(service).in_netns(stage.root)
}

fn plan(service: Service, ports: std::ops::Range<u16>) -> Plan {
    plan_of(service, ports.collect())
}

fn plan_of(service: Service, ports: Vec<u16>) -> Plan {
    let mut plan = Lab::plan(ports);
    if let Key::Tcp(target) = service.key {
        plan.target = target;
    }
    plan
}

fn all_answered(plan: &Plan) -> Result<Report> {
    let report = traffic::run(Some(CLIENT_NETNS), plan)?;
    report.ensure_all_answered()?;
    Ok(report)
}

/// Connects from `ports` at the same time; each must fail so.
fn all_failed(service: Service, ports: Vec<u16>, errno: i32) -> Result<Report> {
    let mut plan = plan_of(service, ports);
    plan.workers = plan.ports.len();
    if errno == ETIMEDOUT {
        plan.timeout = GIVE_UP;
    }
    let report = traffic::run(Some(CLIENT_NETNS), &plan)?;
    report.ensure_all_failed(errno)?;
    Ok(report)
}
