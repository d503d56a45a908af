//! Text scenarios: one line per event in, one line per finding out.
//!
//! `read=MS at=MS WHAT key=value...` where `read` is when the agent read the record and WHAT is
//! `drop`, `pass`, `stale` or `syn-drop`; `time=MS` lets time pass; `lost=N` reports a loss;
//! `end=MS` ends it.

use std::collections::HashMap;
use std::fmt::Write;

use agent_common::verdict::{DropCause, StaleCause};

use super::Correlator;
use crate::clock::MonoNs;
use crate::event::{AttemptId, FirstDrop, PacketEvent, RealServer, Verdict};
use crate::testing::{sample_attempt, sample_syn_drop};

const NS_PER_MS: u64 = 1_000_000;

type Fields<'a> = HashMap<&'a str, &'a str>;

/// Runs a scenario; a line that cannot be read panics with the line.
pub fn run(tell_all: bool, text: &str) -> String {
    run_from(0, tell_all, text)
}

/// As [`run`], on a machine that was up for `uptime_ns` when the scenario begins.
pub fn run_from(uptime_ns: u64, tell_all: bool, text: &str) -> String {
    let ms = |text: &str| MonoNs(uptime_ns + ms(text).0);
    let mut correlator = Correlator::new(tell_all);
    let mut out = String::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let mut words = line.split_whitespace().peekable();
        let what = words.clone().find(|w| !w.contains('='));
        let fields: Fields = words.by_ref().filter_map(|w| w.split_once('=')).collect();
        let now = *["read", "time", "end"]
            .iter()
            .find_map(|key| fields.get(key))
            .unwrap_or(&"0");
        let now = ms(now);
        if let Some(count) = fields.get("lost") {
            correlator.handle_loss(now, count.parse().unwrap());
        }
        if let Some(what) = what {
            let event = event(what, &fields, ms).unwrap_or_else(|| panic!("no such event: {line}"));
            correlator.handle_event(now, event);
        } else if fields.contains_key("end") {
            correlator.handle_end(now);
        } else {
            correlator.handle_timeout(now);
        }
        while let Some(finding) = correlator.poll_output() {
            writeln!(out, "{:>5} ms  {finding}", (now.0 - uptime_ns) / NS_PER_MS).unwrap();
        }
    }
    let counters = correlator.counters();
    let held = correlator.held_events();
    writeln!(
        out,
        "events {} = reported {} + suppressed {} + evicted {} + held {held}; late {}",
        counters.events, counters.reported, counters.suppressed, counters.evicted, counters.late
    )
    .unwrap();
    out
}

fn ms(text: &str) -> MonoNs {
    MonoNs(text.parse::<u64>().unwrap() * NS_PER_MS)
}

fn event(what: &str, fields: &Fields, ms: impl Fn(&str) -> MonoNs) -> Option<PacketEvent> {
    let at = ms(fields.get("at")?);
    let attempt = attempt_id(fields);
    let cause = fields.get("cause").map_or(DropCause::IpvsReuse, |word| {
        *DropCause::ALL.iter().find(|c| c.as_str() == *word).unwrap()
    });
    let mut decided = sample_attempt();
    decided.at = at;
    decided.attempt = attempt;
    decided.old_state = None;
    if let Some(server) = fields.get("rs") {
        decided.real_server = Some(RealServer(server.parse().unwrap()));
    }
    decided.weight = fields.get("weight").map_or(1, |w| w.parse().unwrap());
    decided.drops = fields.get("drops").map_or(0, |d| d.parse().unwrap());
    decided.first_drop = fields.get("first").map(|first| FirstDrop {
        at: ms(first),
        cause,
    });
    decided.verdict = match what {
        "drop" => Verdict::Dropped(cause),
        "pass" => Verdict::Scheduled,
        "stale" => Verdict::ReusedStale(StaleCause::PortReuse),
        "syn-drop" => {
            let mut dropped = sample_syn_drop();
            (dropped.at, dropped.attempt, dropped.cause) = (at, attempt, cause);
            return Some(PacketEvent::SynDropped(dropped));
        }
        _ => return None,
    };
    Some(PacketEvent::AttemptDecided(decided))
}

fn attempt_id(fields: &Fields) -> AttemptId {
    let mut id = sample_attempt().attempt;
    if let Some(port) = fields.get("port") {
        id.tuple.client.set_port(port.parse().unwrap());
    }
    if let Some(isn) = fields.get("isn") {
        id.isn = isn.parse().unwrap();
    }
    id
}
