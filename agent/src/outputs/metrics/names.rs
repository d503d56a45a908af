//! Every metric of the agent. The only file with metric names; `docs/metrics.md` is made from it.
//!
//! Names follow the Prometheus conventions: base units, `_total` for counters. Labels come from
//! closed enumerations or from the IPVS table, never from packets.

use agent_common::stat::Stat;
use agent_core::loss::Loss;

use crate::decode::Reason;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// One metric family.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As it is exposed, with its unit and `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Labels besides `netns`, in their order.
    pub labels: &'static [&'static str],
    /// One sentence, with a full stop.
    pub help: &'static str,
}

impl Metric {
    /// The unit its name ends in; none for a number of things.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        let (_, last) = self.without_total().rsplit_once('_')?;
        UNITS.iter().find(|unit| **unit == last).copied()
    }

    /// The name without unit and `_total`, which encoders add themselves.
    #[must_use]
    pub fn stem(&self) -> &'static str {
        let name = self.without_total();
        match self.unit() {
            Some(unit) => name
                .strip_suffix(unit)
                .map_or(name, |name| name.trim_end_matches('_')),
            None => name,
        }
    }

    fn without_total(&self) -> &'static str {
        self.name.strip_suffix("_total").unwrap_or(self.name)
    }
}

/// Units a name may end in: base units, as the Prometheus conventions have them.
const UNITS: &[&str] = &["seconds", "bytes", "ratio"];

/// Labels of a service.
pub const SERVICE_LABELS: &[&str] = &["proto", "local_address", "local_port", "local_mark"];

/// Attempts by decision.
pub const CONNECTIONS: Metric = Metric {
    name: "ipvs_lens_connections_total",
    kind: Kind::Counter,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "decision",
    ],
    help: "Attempts to open a connection, by what IPVS decided; a SYN and its retransmits are one attempt.",
};

/// Attempts sent to stale real servers.
pub const STALE_CONNECTIONS: Metric = Metric {
    name: "ipvs_lens_stale_connections_total",
    kind: Kind::Counter,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "remote_address",
        "remote_port",
        "cause",
    ],
    help: "Attempts sent to a real server of weight 0 or removed from its service, by cause.",
};

/// SYNs that died here.
pub const SYN_DROPS: Metric = Metric {
    name: "ipvs_lens_syn_drops_total",
    kind: Kind::Counter,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "cause",
    ],
    help: "SYN packets that died on this node, before IPVS, in it or after it sent them on, by cause; retransmits count again.",
};

/// Delay by dropped SYNs.
pub const CONNECT_DELAY: Metric = Metric {
    name: "ipvs_lens_connect_delay_seconds",
    kind: Kind::Histogram,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "cause",
    ],
    help: "From the first SYN that died on this node to the retransmit that got through.",
};

/// Connections given to real servers.
pub const NEW_CONNECTIONS: Metric = Metric {
    name: "ipvs_lens_new_connections_total",
    kind: Kind::Counter,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "remote_address",
        "remote_port",
    ],
    help: "Attempts that the scheduler or an old entry sent to each real server.",
};

/// Services there are.
pub const SERVICES: Metric = Metric {
    name: "ipvs_lens_services",
    kind: Kind::Gauge,
    labels: &[],
    help: "Virtual services in the IPVS tables.",
};

/// Real servers there are.
pub const REAL_SERVERS: Metric = Metric {
    name: "ipvs_lens_real_servers",
    kind: Kind::Gauge,
    labels: &["state"],
    help: "Real servers in the IPVS tables: with a weight (available) or without (draining).",
};

/// Services without a real server to choose.
pub const SERVICES_WITHOUT_REAL_SERVER: Metric = Metric {
    name: "ipvs_lens_services_without_real_server",
    kind: Kind::Gauge,
    labels: &[],
    help: "Virtual services without a real server of weight above 0.",
};

/// Weights.
pub const REAL_SERVER_WEIGHT: Metric = Metric {
    name: "ipvs_lens_real_server_weight",
    kind: Kind::Gauge,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "remote_address",
        "remote_port",
    ],
    help: "Weight of a real server that drains, starves or is full; of others with --real-servers all.",
};

/// Connections.
pub const REAL_SERVER_CONNECTIONS: Metric = Metric {
    name: "ipvs_lens_real_server_connections",
    kind: Kind::Gauge,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "remote_address",
        "remote_port",
        "state",
    ],
    help: "Entries of the same real servers: established (active) or any other (inactive).",
};

/// Since when real servers drain.
pub const DRAINING_SINCE: Metric = Metric {
    name: "ipvs_lens_draining_since_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "remote_address",
        "remote_port",
    ],
    help: "When the weight of a draining real server became 0; if that was before the agent started, its first read of the table.",
};

/// What holds draining real servers.
pub const DRAINING_HOLDER: Metric = Metric {
    name: "ipvs_lens_draining_holder",
    kind: Kind::Gauge,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "remote_address",
        "remote_port",
        "holder",
    ],
    help: "1 for what keeps connections on a draining real server; holder nobody: nothing does.",
};

/// Starved real servers.
pub const STARVED: Metric = Metric {
    name: "ipvs_lens_starved_real_servers",
    kind: Kind::Gauge,
    labels: &["proto", "local_address", "local_port", "local_mark"],
    help: "Real servers with weight above 0 that should have received 20 or more new connections in the last minute and received none.",
};

/// Skew.
pub const SKEW: Metric = Metric {
    name: "ipvs_lens_skew_ratio",
    kind: Kind::Gauge,
    labels: &["proto", "local_address", "local_port", "local_mark", "part"],
    help: "Share of the new connections of the last minute that went to other real servers than the weights ask, by the scheduler or by old entries.",
};

/// Clients whose source ports come back.
pub const CLIENTS_NEAR_PORT_REUSE: Metric = Metric {
    name: "ipvs_lens_clients_near_port_reuse",
    kind: Kind::Gauge,
    labels: SERVICE_LABELS,
    help: "Clients that opened 94 connections per second or more in the last half minute: at 118 the source ports of a default range are reused before their IPVS entries expire. Not known for firewall-mark services.",
};

/// Cost of a reading.
pub const TABLE_READ: Metric = Metric {
    name: "ipvs_lens_table_read_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Duration of the last read of the IPVS tables.",
};

/// Differences between readings.
pub const TABLE_CHANGES: Metric = Metric {
    name: "ipvs_lens_table_changes_total",
    kind: Kind::Counter,
    labels: &["change"],
    help: "Services and real servers added, removed or reconfigured between two reads of an IPVS table.",
};

/// Outcomes of stale attempts.
pub const STALE_OUTCOMES: Metric = Metric {
    name: "ipvs_lens_stale_outcomes_total",
    kind: Kind::Counter,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "outcome",
    ],
    help: "What became of attempts sent to stale real servers.",
};

/// Time to the outcome of stale attempts.
pub const STALE_OUTCOME: Metric = Metric {
    name: "ipvs_lens_stale_outcome_seconds",
    kind: Kind::Histogram,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "outcome",
    ],
    help: "From the decision to send an attempt to a stale real server to its outcome.",
};

/// Datagrams to stale real servers.
pub const STALE_DATAGRAMS: Metric = Metric {
    name: "ipvs_lens_stale_datagrams_total",
    kind: Kind::Counter,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "remote_address",
        "remote_port",
    ],
    help: "Datagrams forwarded to a real server of weight 0, or dropped because their real server was removed.",
};

/// Flows of datagrams to stale real servers.
pub const STALE_FLOWS: Metric = Metric {
    name: "ipvs_lens_stale_flows_total",
    kind: Kind::Counter,
    labels: &[
        "proto",
        "local_address",
        "local_port",
        "local_mark",
        "remote_address",
        "remote_port",
    ],
    help: "Flows of datagrams seen to go to a stale real server; one that was silent for 300 s counts again.",
};

/// Retransmits by where the SYN before was lost.
pub const SYN_RETRANSMITS: Metric = Metric {
    name: "ipvs_lens_syn_retransmits_total",
    kind: Kind::Counter,
    labels: &["proto", "local_address", "local_port", "local_mark", "lost"],
    help: "Retransmitted SYNs that reached IPVS, by where the one before was lost: elsewhere if it was seen leaving this node, challenge_ack if it was answered, unknown if none of that was seen.",
};

/// Packets listeners refused.
pub const LISTEN_DROPS: Metric = Metric {
    name: "ipvs_lens_listen_drops_total",
    kind: Kind::Counter,
    labels: &["local_address", "local_port", "cause", "packet"],
    help: "Packets that listeners of this node dropped because a queue was full: SYNs, and final handshake ACKs (the client considers the connection established).",
};

/// Connects that failed here.
pub const CONNECT_FAILURES: Metric = Metric {
    name: "ipvs_lens_connect_failures_total",
    kind: Kind::Counter,
    labels: &["proto", "remote_address", "remote_port", "cause"],
    help: "Connects of clients on this node that failed before a packet was sent, by destination.",
};

/// Packets too big for their way.
pub const PATH_MTU: Metric = Metric {
    name: "ipvs_lens_path_mtu_total",
    kind: Kind::Counter,
    labels: &["event"],
    help: "Signs of packets that exceed the path MTU: ICMP about forwarded packets, sent or received, and full segments a socket of this node sent for the third time in a row.",
};

/// What sockets had no room for.
pub const SOCKET_DROPS: Metric = Metric {
    name: "ipvs_lens_socket_drops_total",
    kind: Kind::Counter,
    labels: &["cause"],
    help: "Segments and datagrams that sockets in the agent's network namespace dropped for want of memory: tcp_memory, udp_receive_buffer, udp_memory.",
};

/// Size of conntrack's table.
pub const CONNTRACK_ENTRIES: Metric = Metric {
    name: "ipvs_lens_conntrack_entries",
    kind: Kind::Gauge,
    labels: &[],
    help: "Conntrack entries in the agent's network namespace.",
};

/// Limit of conntrack's table.
pub const CONNTRACK_ENTRIES_LIMIT: Metric = Metric {
    name: "ipvs_lens_conntrack_entries_limit",
    kind: Kind::Gauge,
    labels: &[],
    help: "Limit of conntrack entries; new connections are dropped above it.",
};

/// Failures of conntrack.
pub const CONNTRACK_INSERT_FAILED: Metric = Metric {
    name: "ipvs_lens_conntrack_insert_failed_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Entries conntrack could not insert, most often because of a clash with another packet; the packet was dropped.",
};

/// Listeners that may lose their port.
pub const LISTENERS_IN_PORT_RANGE: Metric = Metric {
    name: "ipvs_lens_listeners_in_port_range",
    kind: Kind::Gauge,
    labels: &[],
    help: "Listeners in the agent's network namespace on a port inside ip_local_port_range; should be 0.",
};

/// Events lost.
pub const EVENTS_LOST: Metric = Metric {
    name: "ipvs_lens_events_lost_total",
    kind: Kind::Counter,
    labels: &["reason"],
    help: "Evidence or counts lost, by reason; the other counters stay exact unless the reason says otherwise.",
};

/// Events written by the kernel programs.
pub const EVENTS_EMITTED: Metric = Metric {
    name: "ipvs_lens_events_emitted_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Event records that the kernel programs tried to write.",
};

/// Events read.
pub const EVENTS_RECEIVED: Metric = Metric {
    name: "ipvs_lens_events_received_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Event records the agent read.",
};

/// State of each hook.
pub const PROBE_ATTACHED: Metric = Metric {
    name: "ipvs_lens_probe_attached",
    kind: Kind::Gauge,
    labels: &["probe", "via"],
    help: "1 while the probe is attached.",
};

/// Clients refused.
pub const HTTP_REQUESTS_REFUSED: Metric = Metric {
    name: "ipvs_lens_http_requests_refused_total",
    kind: Kind::Counter,
    labels: &["reason"],
    help: "Connections and requests the HTTP server refused, by reason.",
};

/// Whether the web configuration makes sense.
pub const WEB_CONFIG_SUCCESSFUL: Metric = Metric {
    name: "ipvs_lens_web_config_last_reload_successful",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 while the web configuration file and the files it names are in force as they are now; absent without one.",
};

/// When it last did.
pub const WEB_CONFIG_LOADED: Metric = Metric {
    name: "ipvs_lens_web_config_last_reload_success_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "When the web configuration in force was loaded; absent without one.",
};

/// Label sets refused.
pub const SERIES_DROPPED: Metric = Metric {
    name: "ipvs_lens_series_dropped",
    kind: Kind::Gauge,
    labels: &["family"],
    help: "Label sets without series of their own in this scrape; what they counted is in the family's series with address other.",
};

/// Parameters of IPVS.
pub const SYSCTL: Metric = Metric {
    name: "ipvs_lens_sysctl",
    kind: Kind::Gauge,
    labels: &["name"],
    help: "Parameters of net.ipv4.vs that decide how a reused source port is handled.",
};

/// What can go wrong.
pub const HAZARD: Metric = Metric {
    name: "ipvs_lens_hazard",
    kind: Kind::Gauge,
    labels: &["hazard", "source"],
    help: "1 where something can go wrong by how this node is configured, or was observed to since its parameters last changed; docs/doctor.md has a section for each hazard.",
};

/// What runs.
pub const BUILD_INFO: Metric = Metric {
    name: "ipvs_lens_build_info",
    kind: Kind::Gauge,
    labels: &["version", "revision", "rustc"],
    help: "1; the labels identify the build.",
};

/// Every metric, in the order of the exposition.
pub const ALL: &[Metric] = &[
    CONNECTIONS,
    STALE_CONNECTIONS,
    SYN_DROPS,
    CONNECT_DELAY,
    NEW_CONNECTIONS,
    SERVICES,
    REAL_SERVERS,
    SERVICES_WITHOUT_REAL_SERVER,
    REAL_SERVER_WEIGHT,
    REAL_SERVER_CONNECTIONS,
    DRAINING_SINCE,
    DRAINING_HOLDER,
    STARVED,
    SKEW,
    CLIENTS_NEAR_PORT_REUSE,
    TABLE_READ,
    TABLE_CHANGES,
    STALE_OUTCOMES,
    STALE_OUTCOME,
    STALE_DATAGRAMS,
    STALE_FLOWS,
    SYN_RETRANSMITS,
    LISTEN_DROPS,
    CONNECT_FAILURES,
    PATH_MTU,
    SOCKET_DROPS,
    CONNTRACK_ENTRIES,
    CONNTRACK_ENTRIES_LIMIT,
    CONNTRACK_INSERT_FAILED,
    LISTENERS_IN_PORT_RANGE,
    EVENTS_LOST,
    EVENTS_EMITTED,
    EVENTS_RECEIVED,
    PROBE_ATTACHED,
    HTTP_REQUESTS_REFUSED,
    WEB_CONFIG_SUCCESSFUL,
    WEB_CONFIG_LOADED,
    SERIES_DROPPED,
    SYSCTL,
    HAZARD,
    BUILD_INFO,
];

/// What is lost under a reason of [`EVENTS_LOST`]; `None` for a word that is none.
#[must_use]
pub fn lost(reason: &str) -> Option<&'static str> {
    let kernel = Stat::ALL.iter().copied();
    let decode = Reason::ALL.iter().copied();
    let other = LOST_ELSEWHERE.iter().copied();
    kernel
        .filter_map(|stat| Some((stat.loss_reason()?, lost_in_kernel(stat))))
        .chain(decode.map(|refused| (refused.as_str(), lost_in_decode(refused))))
        .chain(other)
        .chain(Loss::ALL.map(|loss| (loss.as_str(), loss.meaning())))
        .find_map(|(word, meaning)| (word == reason).then_some(meaning))
}

const fn lost_in_kernel(stat: Stat) -> &'static str {
    match stat {
        Stat::Emitted => "Nothing.",
        Stat::RingFull => "A record: the ring buffer was full. Evidence only.",
        Stat::ReadFailed => "An attempt: a kernel structure could not be read. Counters miss it.",
        Stat::HeaderNotLinear => {
            "An attempt: its TCP header was not in the packet's linear part. Counters miss it."
        }
        Stat::CountsFull => {
            "The names of a count: the kernel's table of counters was full. Counted as `other`."
        }
        Stat::PendingFull => {
            "An attempt: too many SYNs between lookup and verdict. Counters miss it."
        }
        Stat::AttemptsFull => {
            "State of an attempt: its retransmit may be counted as a new attempt."
        }
        Stat::VerdictMissed => "An attempt: its verdict was not seen. Counters miss it.",
        Stat::CallsFull => "An attempt: too many calls were open at once. Counters miss it.",
        Stat::LayoutContradicted => {
            "An attempt: what was read contradicts the packet. Counting stops with the first."
        }
        Stat::FollowedFull => "An outcome: too many stale attempts are pending. Outcomes miss it.",
        Stat::CpuWithoutBuffer => {
            "A record: its CPU came online a moment ago and had no perf buffer yet. Evidence only."
        }
    }
}

const fn lost_in_decode(reason: Reason) -> &'static str {
    match reason {
        Reason::Short => "A record with too few bytes. Evidence only.",
        Reason::WrongLength => "A record of another length than its kind. Evidence only.",
        Reason::UnknownKind => "A record of an unknown kind. Evidence only.",
        Reason::UnknownNumber => "A record with a number this build does not know. Evidence only.",
        Reason::BadFamily => "A record with an impossible address family. Evidence only.",
        Reason::Padding => "A record with bytes where zeros belong. Evidence only.",
        Reason::Contradiction => "A record whose fields exclude each other. Evidence only.",
    }
}

const LOST_ELSEWHERE: [(&str, &str); 5] = [
    (
        "program_recursion",
        "A run of a trampoline's program, skipped by the kernel. Counters miss it if it mattered.",
    ),
    (
        "kprobe_skipped",
        "A run of a kprobe's program, skipped by the kernel. Counters miss it if it mattered.",
    ),
    (
        "count_key_malformed",
        "Counts under a key this build cannot read.",
    ),
    (
        "attempts_evicted",
        "An event of a dropped attempt: too many wait for their outcome. Evidence only.",
    ),
    (
        "findings_unread",
        "An event of a finding: too many findings waited. Evidence only.",
    ),
];
