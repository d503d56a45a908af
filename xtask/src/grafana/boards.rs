//! What each dashboard shows.

use super::{Board, Kind, Panel, Query, Row, Scope, State};

/// Every dashboard, from the whole to the part.
pub const BOARDS: &[Board] = &[OVERVIEW, SERVICE, REAL_SERVER, NODE];

/// A query that has a result while the incident of the end-to-end test is on.
const fn always(expr: &'static str, legend: &'static str) -> Query {
    Query {
        expr,
        legend,
        may_be_empty: None,
    }
}

/// A query that may have none even then.
const fn sometimes(expr: &'static str, legend: &'static str, why: &'static str) -> Query {
    Query {
        expr,
        legend,
        may_be_empty: Some(why),
    }
}

/// Of a panel as wide as the dashboard.
const FULL: u32 = 24;
/// Two next to each other.
const HALF: u32 = 12;
/// Three next to each other.
const THIRD: u32 = 8;
/// Six next to each other.
const SIXTH: u32 = 4;

/// Attached, or not.
const ATTACHED: &[State] = &[
    State {
        value: 0,
        text: "not attached",
        color: "red",
    },
    State {
        value: 1,
        text: "attached",
        color: "green",
    },
];
/// Yes, or no; yes is bad.
const HELD: &[State] = &[
    State {
        value: 0,
        text: "no",
        color: "transparent",
    },
    State {
        value: 1,
        text: "yes",
        color: "orange",
    },
];

const OVERVIEW: Board = Board {
    uid: "ipvs-lens-overview",
    title: "ipvs-lens / Overview",
    description: "Does IPVS hurt clients now, and where?",
    scope: Scope::Node,
    rows: &[
        Row {
            title: "Is it happening?",
            panels: &[
                Panel {
                    title: "Stale connections",
                    description: "New connections that IPVS sends to real servers of weight 0, or to removed ones. Should be 0, but for the first minutes of a rollout.",
                    kind: Kind::Stat,
                    unit: "cps",
                    width: SIXTH,
                    queries: &[always(
                        "sum(rate(ipvs_lens_stale_connections_total{<node>}[$__rate_interval]))",
                        "",
                    )],
                },
                Panel {
                    title: "Stale connections that fail",
                    description: "Those of them that were refused, found no route or timed out. Should be 0.",
                    kind: Kind::Stat,
                    unit: "cps",
                    width: SIXTH,
                    queries: &[always(
                        "sum(rate(ipvs_lens_stale_outcomes_total{<node>,outcome!=\"answered\"}[$__rate_interval]))",
                        "",
                    )],
                },
                Panel {
                    title: "Datagrams to stale real servers",
                    description: "UDP flows follow their entry for as long as they send. Should be 0.",
                    kind: Kind::Stat,
                    unit: "pps",
                    width: SIXTH,
                    queries: &[always(
                        "sum(rate(ipvs_lens_stale_datagrams_total{<node>}[$__rate_interval]))",
                        "",
                    )],
                },
                Panel {
                    title: "SYNs dropped by IPVS",
                    description: "Each costs a client 1 s or more. Should be 0.",
                    kind: Kind::Stat,
                    unit: "pps",
                    width: SIXTH,
                    queries: &[always(
                        "sum(rate(ipvs_lens_syn_drops_total{<node>,cause=~\"ipvs_.+\"}[$__rate_interval]))",
                        "",
                    )],
                },
                Panel {
                    title: "Attempts that reuse an entry",
                    description: "Share of the attempts that follow an old entry instead of being scheduled. Near 1, the scheduler has no say any more.",
                    kind: Kind::Stat,
                    unit: "percentunit",
                    width: SIXTH,
                    queries: &[always(
                        "sum(rate(ipvs_lens_connections_total{<node>,decision=~\"reused|reused_stale\"}[$__rate_interval])) / sum(rate(ipvs_lens_connections_total{<node>}[$__rate_interval]))",
                        "",
                    )],
                },
                Panel {
                    title: "Agents that answer",
                    description: "Fewer than there are nodes with IPVS means that nothing is known of the others.",
                    kind: Kind::Stat,
                    unit: "short",
                    width: SIXTH,
                    queries: &[always("sum(up{<agent>})", "")],
                },
            ],
        },
        Row {
            title: "Where?",
            panels: &[
                Panel {
                    title: "Alerts that fire",
                    description: "Alerts of ipvs-lens. The runbook of each says what to do.",
                    kind: Kind::Table,
                    unit: "short",
                    width: FULL,
                    queries: &[always(
                        "sum by (alertname, severity, instance, netns, proto, local_address, local_port, remote_address, remote_port) (ALERTS{alertname=~\"IPVS.+\",alertstate=\"firing\",<agent>})",
                        "",
                    )],
                },
                Panel {
                    title: "Where stale connections go",
                    description: "The 20 real servers with most stale connections, by service and node.",
                    kind: Kind::Table,
                    unit: "cps",
                    width: FULL,
                    queries: &[always(
                        "topk(20, sum by (instance, netns, proto, local_address, local_port, remote_address, remote_port) (rate(ipvs_lens_stale_connections_total{<node>}[$__rate_interval])))",
                        "",
                    )],
                },
                Panel {
                    title: "Decisions",
                    description: "What IPVS decides about attempts to open a connection. Rescheduled is good, stale and dropped hurt.",
                    kind: Kind::Areas,
                    unit: "cps",
                    width: HALF,
                    queries: &[always(
                        "sum by (decision) (rate(ipvs_lens_connections_total{<node>}[$__rate_interval]))",
                        "{{decision}}",
                    )],
                },
                Panel {
                    title: "Stale connections by node",
                    description: "Nodes with other settings or another kernel stand out.",
                    kind: Kind::Lines,
                    unit: "cps",
                    width: HALF,
                    queries: &[always(
                        "sum by (instance) (rate(ipvs_lens_stale_connections_total{<node>}[$__rate_interval]))",
                        "{{instance}}",
                    )],
                },
                Panel {
                    title: "SYNs that die, by cause",
                    description: "Causes that begin with ipvs are IPVS's own; with the others IPVS has nothing to do.",
                    kind: Kind::Areas,
                    unit: "pps",
                    width: HALF,
                    queries: &[always(
                        "sum by (cause) (rate(ipvs_lens_syn_drops_total{<node>}[$__rate_interval]))",
                        "{{cause}}",
                    )],
                },
                Panel {
                    title: "Reuse by node",
                    description: "Share of the attempts that follow an old entry, by node.",
                    kind: Kind::Lines,
                    unit: "percentunit",
                    width: HALF,
                    queries: &[always(
                        "sum by (instance) (rate(ipvs_lens_connections_total{<node>,decision=~\"reused|reused_stale\"}[$__rate_interval])) / sum by (instance) (rate(ipvs_lens_connections_total{<node>}[$__rate_interval]))",
                        "{{instance}}",
                    )],
                },
                Panel {
                    title: "Hazards by node",
                    description: "What can go wrong, before it does: nodes with each hazard. `ipvs-lens doctor` explains them.",
                    kind: Kind::Table,
                    unit: "short",
                    width: HALF,
                    queries: &[always(
                        "sum by (instance, netns, hazard, source) (ipvs_lens_hazard{<node>} == 1)",
                        "",
                    )],
                },
                Panel {
                    title: "Services and real servers",
                    description: "What the IPVS tables hold. Services without a real server refuse their clients.",
                    kind: Kind::Lines,
                    unit: "short",
                    width: HALF,
                    queries: &[
                        always("sum(ipvs_lens_services{<node>})", "services"),
                        always(
                            "sum by (state) (ipvs_lens_real_servers{<node>})",
                            "real servers, {{state}}",
                        ),
                        always(
                            "sum(ipvs_lens_services_without_real_server{<node>})",
                            "services without real server",
                        ),
                    ],
                },
            ],
        },
    ],
};

const SERVICE: Board = Board {
    uid: "ipvs-lens-service",
    title: "ipvs-lens / Service",
    description: "What happens to the clients of a virtual service?",
    scope: Scope::Service,
    rows: &[
        Row {
            title: "Who is hit?",
            panels: &[
                Panel {
                    title: "Decisions",
                    description: "What IPVS decides about attempts to open a connection.",
                    kind: Kind::Areas,
                    unit: "cps",
                    width: HALF,
                    queries: &[always(
                        "sum by (decision) (rate(ipvs_lens_connections_total{<service>}[$__rate_interval]))",
                        "{{decision}}",
                    )],
                },
                Panel {
                    title: "Stale connections by real server",
                    description: "Attempts sent to a real server of weight 0 or a removed one; by an old entry (port_reuse) or by a persistence template.",
                    kind: Kind::Lines,
                    unit: "cps",
                    width: HALF,
                    queries: &[always(
                        "sum by (remote_address, remote_port, cause) (rate(ipvs_lens_stale_connections_total{<service>}[$__rate_interval]))",
                        "{{remote_address}}:{{remote_port}} {{cause}}",
                    )],
                },
                Panel {
                    title: "What became of stale connections",
                    description: "Answered: the client did not notice yet. The others failed, and the client did.",
                    kind: Kind::Areas,
                    unit: "cps",
                    width: HALF,
                    queries: &[always(
                        "sum by (outcome) (rate(ipvs_lens_stale_outcomes_total{<service>}[$__rate_interval]))",
                        "{{outcome}}",
                    )],
                },
                Panel {
                    title: "How long stale connections took",
                    description: "Until the outcome was known, median and 99th percentile by outcome. A timeout takes as long as the client waits.",
                    kind: Kind::Lines,
                    unit: "s",
                    width: HALF,
                    queries: &[
                        always(
                            "histogram_quantile(0.5, sum by (outcome, le) (rate(ipvs_lens_stale_outcome_seconds_bucket{<service>}[$__rate_interval])))",
                            "{{outcome}} median",
                        ),
                        always(
                            "histogram_quantile(0.99, sum by (outcome, le) (rate(ipvs_lens_stale_outcome_seconds_bucket{<service>}[$__rate_interval])))",
                            "{{outcome}} 99 %",
                        ),
                    ],
                },
                Panel {
                    title: "Datagrams to stale real servers",
                    description: "UDP flows follow their entry for as long as they send. Should be 0.",
                    kind: Kind::Lines,
                    unit: "pps",
                    width: HALF,
                    queries: &[always(
                        "sum by (remote_address, remote_port) (rate(ipvs_lens_stale_datagrams_total{<service>}[$__rate_interval]))",
                        "{{remote_address}}:{{remote_port}}",
                    )],
                },
            ],
        },
        Row {
            title: "Who waits?",
            panels: &[
                Panel {
                    title: "SYNs that die, by cause",
                    description: "SYN packets to this service that died on the node, retransmits too.",
                    kind: Kind::Areas,
                    unit: "pps",
                    width: HALF,
                    queries: &[always(
                        "sum by (cause) (rate(ipvs_lens_syn_drops_total{<service>}[$__rate_interval]))",
                        "{{cause}}",
                    )],
                },
                Panel {
                    title: "Connect delay",
                    description: "From the first SYN that died here to the one that got through. Linux sends again after 1, 3 and 7 s.",
                    kind: Kind::Heatmap,
                    unit: "s",
                    width: HALF,
                    queries: &[always(
                        "sum by (le) (increase(ipvs_lens_connect_delay_seconds_bucket{<service>}[$__rate_interval]))",
                        "{{le}}",
                    )],
                },
                Panel {
                    title: "Connects delayed, by cause",
                    description: "Attempts that got through after at least one of their SYNs died here.",
                    kind: Kind::Lines,
                    unit: "cps",
                    width: HALF,
                    queries: &[always(
                        "sum by (cause) (rate(ipvs_lens_connect_delay_seconds_count{<service>}[$__rate_interval]))",
                        "{{cause}}",
                    )],
                },
                Panel {
                    title: "SYN retransmits, by where the SYN was lost",
                    description: "Elsewhere: the SYN was seen leaving this node. Unknown: neither that nor a drop was seen.",
                    kind: Kind::Areas,
                    unit: "pps",
                    width: HALF,
                    queries: &[always(
                        "sum by (lost) (rate(ipvs_lens_syn_retransmits_total{<service>}[$__rate_interval]))",
                        "{{lost}}",
                    )],
                },
            ],
        },
        Row {
            title: "Is the load shared?",
            panels: &[
                Panel {
                    title: "New connections by real server",
                    description: "What the scheduler and old entries give to each. Lines far apart at equal weight are skew.",
                    kind: Kind::Lines,
                    unit: "cps",
                    width: HALF,
                    queries: &[always(
                        "sum by (remote_address, remote_port) (rate(ipvs_lens_new_connections_total{<service>}[$__rate_interval]))",
                        "{{remote_address}}:{{remote_port}}",
                    )],
                },
                Panel {
                    title: "Attempts that reuse an entry",
                    description: "Share of the attempts that follow an old entry; the scheduler has no say in them.",
                    kind: Kind::Lines,
                    unit: "percentunit",
                    width: HALF,
                    queries: &[always(
                        "sum by (proto, local_address, local_port) (rate(ipvs_lens_connections_total{<service>,decision=~\"reused|reused_stale\"}[$__rate_interval])) / sum by (proto, local_address, local_port) (rate(ipvs_lens_connections_total{<service>}[$__rate_interval]))",
                        "{{proto}} {{local_address}}:{{local_port}}",
                    )],
                },
                Panel {
                    title: "Skew",
                    description: "Share of the new connections of the last minute that went elsewhere than the weights ask, by the scheduler or by old entries.",
                    kind: Kind::Lines,
                    unit: "percentunit",
                    width: HALF,
                    queries: &[always(
                        "max by (proto, local_address, local_port, part) (ipvs_lens_skew_ratio{<service>})",
                        "{{proto}} {{local_address}}:{{local_port}} {{part}}",
                    )],
                },
                Panel {
                    title: "Starved real servers",
                    description: "Real servers with weight that got none of the 20 or more new connections they should have had in the last minute.",
                    kind: Kind::Lines,
                    unit: "short",
                    width: HALF,
                    queries: &[always(
                        "max by (proto, local_address, local_port) (ipvs_lens_starved_real_servers{<service>})",
                        "{{proto}} {{local_address}}:{{local_port}}",
                    )],
                },
                Panel {
                    title: "Clients near port reuse",
                    description: "Clients whose source ports come back, or nearly so, before IPVS forgets them. From here on, entries decide.",
                    kind: Kind::Lines,
                    unit: "short",
                    width: HALF,
                    queries: &[always(
                        "max by (proto, local_address, local_port) (ipvs_lens_clients_near_port_reuse{<service>})",
                        "{{proto}} {{local_address}}:{{local_port}}",
                    )],
                },
            ],
        },
    ],
};

const REAL_SERVER: Board = Board {
    uid: "ipvs-lens-real-server",
    title: "ipvs-lens / Real server",
    description: "Does a real server drain, and what keeps it?",
    scope: Scope::RealServer,
    rows: &[Row {
        title: "Draining",
        panels: &[
            Panel {
                title: "Draining for",
                description: "Since its weight became 0; no value for real servers with weight.",
                kind: Kind::Table,
                unit: "dtdurations",
                width: HALF,
                queries: &[always(
                    "time() - max by (instance, proto, local_address, local_port, remote_address, remote_port) (ipvs_lens_draining_since_timestamp_seconds{<real_server>})",
                    "",
                )],
            },
            Panel {
                title: "What holds it",
                description: "Old entries that attract new connections (port_reuse), connections that were open before (long_lived), UDP flows (udp), or nobody.",
                kind: Kind::States(HELD),
                unit: "short",
                width: HALF,
                queries: &[always(
                    "max by (remote_address, remote_port, holder) (ipvs_lens_draining_holder{<real_server>})",
                    "{{remote_address}}:{{remote_port}} {{holder}}",
                )],
            },
            Panel {
                title: "Weight",
                description: "As the IPVS table has it; 0 is draining. Only real servers that are not as they should be, unless the agent is asked for all.",
                kind: Kind::Lines,
                unit: "short",
                width: HALF,
                queries: &[always(
                    "max by (local_address, local_port, remote_address, remote_port) (ipvs_lens_real_server_weight{<real_server>})",
                    "{{remote_address}}:{{remote_port}} of {{local_address}}:{{local_port}}",
                )],
            },
            Panel {
                title: "Connections it still has",
                description: "By the IPVS table's count. They should become fewer while it drains.",
                kind: Kind::Lines,
                unit: "short",
                width: HALF,
                queries: &[always(
                    "sum by (remote_address, remote_port, state) (ipvs_lens_real_server_connections{<real_server>})",
                    "{{remote_address}}:{{remote_port}} {{state}}",
                )],
            },
            Panel {
                title: "Stale connections",
                description: "New connections while it should get none: these keep it from draining.",
                kind: Kind::Areas,
                unit: "cps",
                width: HALF,
                queries: &[always(
                    "sum by (remote_address, remote_port, cause) (rate(ipvs_lens_stale_connections_total{<real_server>}[$__rate_interval]))",
                    "{{remote_address}}:{{remote_port}} {{cause}}",
                )],
            },
            Panel {
                title: "New connections",
                description: "All that it is given, while it has weight and after.",
                kind: Kind::Areas,
                unit: "cps",
                width: HALF,
                queries: &[always(
                    "sum by (remote_address, remote_port) (rate(ipvs_lens_new_connections_total{<real_server>}[$__rate_interval]))",
                    "{{remote_address}}:{{remote_port}}",
                )],
            },
            Panel {
                title: "Stale datagrams",
                description: "UDP datagrams sent to it, or dropped because it was removed.",
                kind: Kind::Lines,
                unit: "pps",
                width: HALF,
                queries: &[always(
                    "sum by (remote_address, remote_port) (rate(ipvs_lens_stale_datagrams_total{<real_server>}[$__rate_interval]))",
                    "{{remote_address}}:{{remote_port}}",
                )],
            },
            Panel {
                title: "Stale UDP flows that begin",
                description: "Clients whose first datagram followed an old entry.",
                kind: Kind::Lines,
                unit: "cps",
                width: HALF,
                queries: &[always(
                    "sum by (remote_address, remote_port) (rate(ipvs_lens_stale_flows_total{<real_server>}[$__rate_interval]))",
                    "{{remote_address}}:{{remote_port}}",
                )],
            },
        ],
    }],
};

const NODE: Board = Board {
    uid: "ipvs-lens-node",
    title: "ipvs-lens / Node",
    description: "What else goes wrong on this node, and can the agent be believed?",
    scope: Scope::Node,
    rows: &[
        Row {
            title: "Hazards",
            panels: &[
                Panel {
                    title: "Hazards",
                    description: "What can go wrong here; observed means it has.",
                    kind: Kind::States(HELD),
                    unit: "short",
                    width: HALF,
                    queries: &[always(
                        "max by (instance, netns, hazard, source) (ipvs_lens_hazard{<node>})",
                        "{{instance}} {{netns}} {{hazard}} {{source}}",
                    )],
                },
                Panel {
                    title: "Settings",
                    description: "The sysctls of IPVS that matter.",
                    kind: Kind::Table,
                    unit: "short",
                    width: HALF,
                    queries: &[always(
                        "max by (instance, netns, name) (ipvs_lens_sysctl{<node>})",
                        "",
                    )],
                },
            ],
        },
        Row {
            title: "Where packets die",
            panels: &[
                Panel {
                    title: "SYNs that die, by cause",
                    description: "All of the node, those of no virtual service too.",
                    kind: Kind::Areas,
                    unit: "pps",
                    width: HALF,
                    queries: &[always(
                        "sum by (cause) (rate(ipvs_lens_syn_drops_total{<node>}[$__rate_interval]))",
                        "{{cause}}",
                    )],
                },
                Panel {
                    title: "Full queues of listeners",
                    description: "Packets of handshakes dropped because a program accepts too slowly (accept_queue_full) or too many connections are half open (syn_queue_full). Who sent the last packet (ack) believes to be connected.",
                    kind: Kind::Lines,
                    unit: "pps",
                    width: HALF,
                    queries: &[sometimes(
                        "sum by (local_address, local_port, cause, packet) (rate(ipvs_lens_listen_drops_total{<node>}[$__rate_interval]))",
                        "{{local_address}}:{{local_port}} {{cause}} {{packet}}",
                        "no listener has dropped anything",
                    )],
                },
                Panel {
                    title: "Conntrack table in use",
                    description: "At 100 % the first packet of every new connection is dropped.",
                    kind: Kind::Lines,
                    unit: "percentunit",
                    width: HALF,
                    queries: &[always(
                        "max by (instance, netns) (ipvs_lens_conntrack_entries{<node>} / (ipvs_lens_conntrack_entries_limit{<node>} > 0))",
                        "{{instance}} {{netns}}",
                    )],
                },
                Panel {
                    title: "Conntrack clashes",
                    description: "Packets dropped because their connection could not be inserted.",
                    kind: Kind::Lines,
                    unit: "pps",
                    width: HALF,
                    queries: &[always(
                        "sum by (instance) (rate(ipvs_lens_conntrack_insert_failed_total{<node>}[$__rate_interval]))",
                        "{{instance}}",
                    )],
                },
                Panel {
                    title: "Connects that fail on this node",
                    description: "Because no source port is free.",
                    kind: Kind::Lines,
                    unit: "cps",
                    width: HALF,
                    queries: &[sometimes(
                        "sum by (remote_address, remote_port, cause) (rate(ipvs_lens_connect_failures_total{<node>}[$__rate_interval]))",
                        "{{remote_address}}:{{remote_port}} {{cause}}",
                        "no connect has failed",
                    )],
                },
                Panel {
                    title: "Listeners in the port range",
                    description: "Listeners that take ports away from outgoing connections.",
                    kind: Kind::Lines,
                    unit: "short",
                    width: HALF,
                    queries: &[always(
                        "max by (instance, netns) (ipvs_lens_listeners_in_port_range{<node>})",
                        "{{instance}} {{netns}}",
                    )],
                },
                Panel {
                    title: "Drops for want of memory",
                    description: "Packets dropped because TCP or UDP has no memory for them, or a receive buffer is full.",
                    kind: Kind::Lines,
                    unit: "pps",
                    width: HALF,
                    queries: &[always(
                        "sum by (cause) (rate(ipvs_lens_socket_drops_total{<node>}[$__rate_interval]))",
                        "{{cause}}",
                    )],
                },
                Panel {
                    title: "Path MTU",
                    description: "Packets that exceed a link's MTU: reported to the sender, reported by others, or suspected of being dropped silently.",
                    kind: Kind::Lines,
                    unit: "pps",
                    width: HALF,
                    queries: &[always(
                        "sum by (event) (rate(ipvs_lens_path_mtu_total{<node>}[$__rate_interval]))",
                        "{{event}}",
                    )],
                },
            ],
        },
        Row {
            title: "The agent",
            panels: &[
                Panel {
                    title: "Agents",
                    description: "1 while the agent answers.",
                    kind: Kind::Lines,
                    unit: "bool_yes_no",
                    width: THIRD,
                    queries: &[always("max by (instance) (up{<agent>})", "{{instance}}")],
                },
                Panel {
                    title: "Probes",
                    description: "What a probe that is not attached finds is missing.",
                    kind: Kind::States(ATTACHED),
                    unit: "short",
                    width: THIRD,
                    queries: &[always(
                        "min by (instance, probe) (ipvs_lens_probe_attached{<agent>})",
                        "{{instance}} {{probe}}",
                    )],
                },
                Panel {
                    title: "Versions",
                    description: "What runs.",
                    kind: Kind::Table,
                    unit: "short",
                    width: THIRD,
                    queries: &[always(
                        "count by (version, revision) (ipvs_lens_build_info{<agent>})",
                        "",
                    )],
                },
                Panel {
                    title: "Events",
                    description: "Records of single events: written in the kernel and read by the agent. Counters do not depend on them.",
                    kind: Kind::Lines,
                    unit: "eps",
                    width: THIRD,
                    queries: &[
                        always(
                            "sum by (instance) (rate(ipvs_lens_events_emitted_total{<agent>}[$__rate_interval]))",
                            "{{instance}} written",
                        ),
                        always(
                            "sum by (instance) (rate(ipvs_lens_events_received_total{<agent>}[$__rate_interval]))",
                            "{{instance}} read",
                        ),
                    ],
                },
                Panel {
                    title: "Observations lost, by reason",
                    description: "Should be 0. docs/metrics.md says what each reason costs.",
                    kind: Kind::Areas,
                    unit: "eps",
                    width: THIRD,
                    queries: &[always(
                        "sum by (reason) (rate(ipvs_lens_events_lost_total{<agent>}[$__rate_interval]))",
                        "{{reason}}",
                    )],
                },
                Panel {
                    title: "Series left out",
                    description: "Label sets without series of their own now; what they count is in the series with address other.",
                    kind: Kind::Lines,
                    unit: "short",
                    width: THIRD,
                    queries: &[always(
                        "sum by (family) (ipvs_lens_series_dropped{<agent>})",
                        "{{family}}",
                    )],
                },
                Panel {
                    title: "Reading the IPVS tables",
                    description: "How long the last reading took. The agent reads less often where it takes long.",
                    kind: Kind::Lines,
                    unit: "s",
                    width: THIRD,
                    queries: &[always(
                        "max by (instance) (ipvs_lens_table_read_seconds{<agent>})",
                        "{{instance}}",
                    )],
                },
                Panel {
                    title: "Requests refused",
                    description: "Requests to the agent that it refused, by reason.",
                    kind: Kind::Lines,
                    unit: "reqps",
                    width: THIRD,
                    queries: &[always(
                        "sum by (reason) (rate(ipvs_lens_http_requests_refused_total{<agent>}[$__rate_interval]))",
                        "{{reason}}",
                    )],
                },
            ],
        },
    ],
};
