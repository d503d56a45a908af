//! The scenarios: each plays one story on a clean lab and asserts exact counts.
//!
//! One scenario, one file, one row in [`SCENARIOS`]; `choice.rs` says which kernels run it.

mod bad_clients;
mod challenge_ack;
mod choice;
mod confined;
mod counter_life;
mod doctor;
mod draining_holders;
mod drops;
mod full_speed;
mod hidden_types;
mod idle;
mod incident;
mod iptables_drop;
mod lost_elsewhere;
mod mixed;
mod modes;
mod module_life;
mod near_reuse;
mod no_destination;
mod old_drop;
mod outcomes;
mod persistence;
mod refusals;
mod removed;
mod reschedule;
mod reuse_drop;
mod rights;
mod rights_matrix;
mod rolling_update;
mod shipped_unit;
mod skew;
mod stale_reuse;
mod start_cost;
mod stop;
mod stuck_reader;
mod table;
mod top;
mod trace;
mod udp;
mod wrong_layout;

use anyhow::{Context as _, Result};

use crate::lab::Lab;

pub use choice::{Set, reason_to_skip};

/// One story.
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows.
    pub doc: &'static str,
    /// Plays it; an error is a failed scenario.
    pub run: fn(&mut Lab) -> Result<()>,
}

const fn row(name: &'static str, doc: &'static str, run: fn(&mut Lab) -> Result<()>) -> Scenario {
    Scenario { name, doc, run }
}

/// Every scenario, in the order in which they run.
pub const SCENARIOS: &[Scenario] = &[
    row(
        "stale-reuse",
        "mode 0: reused ports follow their entries, also to the draining server",
        stale_reuse::run,
    ),
    row(
        "counter-life",
        "more real servers come and go than the kernel's table of counters holds: every number stays",
        counter_life::run,
    ),
    row(
        "counter-life-pods",
        "18,000 real servers through one service, then a new service: every number stays",
        counter_life::pods,
    ),
    row(
        "counter-life-services",
        "a connection to each real server of 10,000 services: sums are exact, series are few",
        counter_life::services,
    ),
    row(
        "reschedule",
        "mode 1: every reused port is rescheduled, nothing is dropped",
        reschedule::run,
    ),
    row(
        "reuse-drop",
        "IPVS drops the SYN of a reused port: connecting takes 1 s",
        reuse_drop::run,
    ),
    row(
        "old-drop",
        "IPVS before 5.9 drops the SYN of every reused port that has a conntrack",
        old_drop::run,
    ),
    row(
        "iptables-drop",
        "SYNs dropped by iptables are not called IPVS drops",
        iptables_drop::run,
    ),
    row(
        "removed",
        "entries outlive their server's removal: IPVS drops every SYN in silence",
        removed::run,
    ),
    row(
        "full-speed",
        "2,000 stale attempts at full speed: counts exact, every event accounted for",
        full_speed::run,
    ),
    row(
        "stop-term",
        "SIGTERM in mid-traffic: nothing left in the kernel, no connection fails",
        stop::by_sigterm,
    ),
    row(
        "stop-kill",
        "SIGKILL in mid-traffic: nothing left in the kernel, no connection fails",
        stop::by_sigkill,
    ),
    row(
        "stuck-stderr",
        "stderr is a full pipe: findings go on, the loss is counted and said, SIGTERM in 2 s",
        stuck_reader::stderr,
    ),
    row(
        "stuck-stdout",
        "the stdout of `trace` is a full pipe: SIGTERM in 2 s all the same",
        stuck_reader::stdout,
    ),
    row(
        "idle",
        "less than one wake-up a second while nothing happens, and 100 ms to what happens",
        idle::run,
    ),
    row(
        "incident",
        "the draining server disappears: no route to host, after 3 s or at once",
        incident::run,
    ),
    row(
        "refusals",
        "what cannot work says so in one line, with the promised exit status",
        refusals::run,
    ),
    row(
        "rights",
        "the shipped rights, with kernel addresses and without: exact, and what is missing is named",
        rights::run,
    ),
    row(
        "start-cost",
        "memory at most and time from exec to ready",
        start_cost::run,
    ),
    row(
        "doctor",
        "the doctor's verdicts and exit statuses by settings alone, also where it cannot look",
        doctor::run,
    ),
    row(
        "table",
        "every kind of service and real server is read as it was configured",
        table::run,
    ),
    row(
        "rolling-update",
        "a real server drains and goes: the timeline is the scenario's own; one is forgotten",
        rolling_update::run,
    ),
    row(
        "draining-holders",
        "what holds a draining server: reuse, an open connection, UDP, nothing",
        draining_holders::run,
    ),
    row(
        "skew",
        "a new server starves in mode 0 and is fed in mode 1; long connections are no skew",
        skew::run,
    ),
    row(
        "near-reuse",
        "a client whose source ports will come back is counted before they do",
        near_reuse::run,
    ),
    row(
        "top",
        "the table printed for people and for programs, and drawn on a terminal",
        top::run,
    ),
    row(
        "doctor-reuse",
        "mode 0, seen by the agent, cured by the doctor's own command, undone, cured by nodest",
        doctor::reused_ports,
    ),
    row(
        "doctor-growing-table",
        "clients sent astray while the table of connections grows, until it is large",
        doctor::growing_table,
    ),
    row(
        "doctor-udp-timeout",
        "a UDP client tied to a draining server for five minutes, and for one after the cure",
        doctor::udp_timeout,
    ),
    row(
        "doctor-idle-timeout",
        "an idle connection is reset, and is not after the doctor's command",
        doctor::idle_timeout,
    ),
    row(
        "doctor-removed",
        "UDP clients of a removed server, cut off until the doctor's command is run",
        doctor::removed_server,
    ),
    row(
        "doctor-syn-drop",
        "the one-second delay, gone with the doctor's command",
        doctor::dropped_syn,
    ),
    row(
        "doctor-old-drop",
        "a kernel that drops as before 5.9 whatever its release says: what was seen decides",
        doctor::before_5_9,
    ),
    row(
        "doctor-persistence",
        "a client tied to a draining server leaves it after the doctor's command",
        doctor::template,
    ),
    row(
        "doctor-conntrack-full",
        "no room for a new connection until the doctor's command is run",
        doctor::conntrack_full,
    ),
    row(
        "doctor-ports",
        "a server cannot restart because its port was taken, until it is reserved",
        doctor::taken_ports,
    ),
    row(
        "doctor-accept-queue",
        "a queue shorter than its program asks for turns clients away, until it may be longer",
        doctor::short_queue,
    ),
    row(
        "doctor-other-netns",
        "IPVS in another namespace is found, and the doctor's command enters it",
        doctor::other_namespace,
    ),
    row(
        "shipped-unit",
        "systemd runs the unit of deploy/: active, ready, and exact whatever kptr_restrict is",
        shipped_unit::run,
    ),
    row("trace", "live findings as JSON Lines", trace::run),
    row(
        "bad-clients",
        "idle crowds, slow readers, guesses and noise: the agent counts and is scraped all the same",
        bad_clients::run,
    ),
    row(
        "module-life",
        "ip_vs comes, goes and comes again: armed again, counters go on, the gap is reported",
        module_life::run,
    ),
    row(
        "module-life-shipped",
        "the same with the rights of the unit and of the DaemonSet, of which only those needed stay",
        confined::attaches_again,
    ),
    row(
        "no-capabilities",
        "--drop-all-capabilities: exact without any, SIGHUP reloads, attaching again is given up and said",
        confined::without_capabilities,
    ),
    row(
        "module-flicker",
        "ip_vs goes again before the probes hang: the agent waits on, and observes the next one",
        module_life::flicker,
    ),
    row(
        "beside-ipvs",
        "ip_vs is gone, and what has nothing to do with it is seen all the same",
        module_life::outside_ipvs,
    ),
    row(
        "wrong-layout",
        "a wrong layout is contradicted by the first SYN: nothing is counted from it",
        wrong_layout::run,
    ),
    row(
        "hidden-types",
        "without the kernel's types nothing is observed, with files by release everything is",
        hidden_types::run,
    ),
    row("ipv6", "client, service and servers of IPv6", modes::ipv6),
    row(
        "direct-routing",
        "servers own the VIP and answer the client themselves",
        modes::direct_routing,
    ),
    row(
        "tunnel",
        "the same, and packets come to them wrapped in others",
        modes::tunnel,
    ),
    row(
        "ipv6-tunnel",
        "a service of IPv6 on real servers of IPv4",
        modes::ipv6_tunnel,
    ),
    row("fwmark", "a service by firewall mark", modes::fwmark),
    row(
        "local-client",
        "the director itself connects to its service",
        modes::local_client,
    ),
    row(
        "second-vip",
        "two addresses of the same servers are counted apart",
        modes::second_vip,
    ),
    row(
        "other-netns",
        "IPVS in a second namespace with the same addresses, which comes and goes",
        modes::other_netns,
    ),
    row(
        "persistence",
        "a draining server gets new connections of its persistent clients",
        persistence::run,
    ),
    row(
        "every-port",
        "the same on a service of every port, whose servers have no port of their own",
        persistence::every_port,
    ),
    row(
        "no-destination",
        "no server left to choose: dropped, and the client gets an ICMP error",
        no_destination::run,
    ),
    row(
        "outcomes",
        "stale connections answered, refused, unreachable, and left without a word",
        outcomes::run,
    ),
    row(
        "lost-elsewhere",
        "SYNs lost behind the director: retransmits are counted, and no drop is reported here",
        lost_elsewhere::run,
    ),
    row(
        "challenge-ack",
        "ports come back while their server still has the connection: nothing is lost",
        challenge_ack::run,
    ),
    row(
        "lossy-wire",
        "a wire that loses much: the delays are exonerated, and nothing is found",
        lost_elsewhere::lossy_wire,
    ),
    row(
        "udp",
        "datagrams to a draining and to a removed real server",
        udp::run,
    ),
    row("sctp", "a service of SCTP", modes::sctp),
    row(
        "accept-queue",
        "a listener with a full accept queue refuses SYNs",
        drops::accept_queue::by_syn,
    ),
    row(
        "accept-queue-ipv6",
        "the same over IPv6",
        drops::accept_queue::by_syn_v6,
    ),
    row(
        "accept-queue-ack",
        "a listener with a full accept queue forgets handshakes at their last packet",
        drops::accept_queue::by_ack,
    ),
    row(
        "accept-queue-cookies",
        "the same with SYN cookies",
        drops::accept_queue::by_ack_with_cookies,
    ),
    row(
        "syn-queue",
        "a listener with too many half-open connections refuses SYNs",
        drops::syn_queue::of_listener,
    ),
    row(
        "syn-queue-netns",
        "the same by the limit of the network namespace",
        drops::syn_queue::of_netns,
    ),
    row(
        "netfilter",
        "rules of iptables and nft drop SYNs on the way in and through",
        drops::netfilter::run,
    ),
    row(
        "behind-ipvs",
        "SYNs that IPVS sent on die on the same node",
        drops::behind::run,
    ),
    row(
        "behind-ipvs-ipv6",
        "the same over IPv6",
        drops::behind::run_v6,
    ),
    row(
        "rp-filter",
        "the reverse path filter drops SYNs",
        drops::rp_filter::run,
    ),
    row(
        "conntrack-full",
        "conntrack's table is full and SYNs die",
        drops::conntrack::full,
    ),
    row(
        "conntrack-clash",
        "source NAT makes the same conntrack entry twice and SYNs die",
        drops::conntrack::clash,
    ),
    row(
        "source-ports",
        "a client has no source port left",
        drops::source_ports::run,
    ),
    row(
        "source-ports-ipv6",
        "the same over IPv6",
        drops::source_ports::run_v6,
    ),
    row(
        "socket-buffers",
        "programs do not read, and their sockets throw datagrams and segments away",
        drops::socket_buffers::run,
    ),
    row(
        "path-mtu",
        "packets that exceed the path MTU, and which host sends the ICMP error",
        drops::path_mtu::icmp_errors,
    ),
    row(
        "black-hole",
        "a packet exceeds the path MTU, and no ICMP error is sent",
        drops::path_mtu::black_hole,
    ),
    row(
        "mixed",
        "every cause and outcome at once: each is counted once, and under its own name",
        mixed::run,
    ),
    // The last of each guest: lockdown cannot be undone.
    row(
        "rights-cells",
        "the shipped rights and less, open and locked kernels: exact, or what is missing is named",
        rights_matrix::chosen,
    ),
    row(
        "rights-matrix",
        "the same for every combination",
        rights_matrix::all,
    ),
];

/// The scenario called `name`.
///
/// # Errors
/// There is none; the message lists all.
pub fn find(name: &str) -> Result<&'static Scenario> {
    SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .with_context(|| {
            let known: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            format!(
                "no scenario is called `{name}`; known are {}",
                known.join(", ")
            )
        })
}
