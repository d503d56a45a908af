//! The rules against a model that keeps the whole history of a client's port.
//!
//! [`Node`] does what the kernel programs do: it looks up, calls the rules, stores and counts. The
//! model keeps no state but the list of what happened, and says from it what has to be counted.

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{
    follow::{ClientPacket, Followed},
    key::{RealServerKey, ServiceKey},
    verdict::Outcome,
};

const TCP: u8 = 6;
const CLOSE: u8 = 6;
const ESTABLISHED: u8 = 1;
const TIMEOUT_NS: u64 = 16_000;
const CAUSE: u8 = DropCause::Netfilter as u8;

/// What happens to the packets of one source port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happens {
    /// IPVS decided about a SYN; `state` is that of the entry it met.
    Syn {
        isn: u32,
        verdict: SynVerdict,
        state: u8,
    },
    /// A SYN died before IPVS saw it; an attempt of an unknown service is not remembered.
    Drop { isn: u32, known_service: bool },
    /// The client sent something else.
    Client(ClientPacket),
    /// An ICMP error about a packet of this port.
    Icmp(Outcome),
    /// The agent looked; `state` is that of the entry if it still is the attempt's.
    Look { state: Option<u8> },
    /// Nothing for this long.
    Wait(u64),
}

/// What the kernel programs do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Decision(Decision),
    Retransmit(Lost),
    Drop(u8),
    /// A record of an attempt, with its drops and retransmits.
    Record(u16, u16),
    Outcome(Outcome),
}

/// The tables of the kernel programs, for one source port.
#[derive(Clone, Default)]
struct Node {
    now_ns: u64,
    attempt: Option<Attempt>,
    followed: Option<Followed>,
    done: Vec<Done>,
}

/// Which decisions the agent asked to see: those that are findings by themselves.
fn asked_for(verdict: SynVerdict) -> bool {
    matches!(verdict.decision, Decision::ReusedStale | Decision::Dropped)
}

impl Node {
    fn new() -> Self {
        Self {
            now_ns: 1,
            ..Self::default()
        }
    }

    /// Lets something happen after `history`, and asks the model.
    fn check(&mut self, history: &[Happens], happens: Happens) {
        self.done.clear();
        self.handle(happens);
        assert_eq!(
            self.done,
            model(history, happens),
            "{happens:?} after {history:?}"
        );
    }

    fn handle(&mut self, happens: Happens) {
        match happens {
            Happens::Syn {
                isn,
                verdict,
                state,
            } => self.syn(isn, verdict, state),
            Happens::Drop { isn, known_service } => self.drop(isn, known_service),
            Happens::Client(packet) => {
                let outcome = self
                    .followed
                    .as_mut()
                    .and_then(|followed| followed.on_client_packet(packet));
                self.end(outcome);
            }
            Happens::Icmp(outcome) => self.end(Some(outcome)),
            Happens::Look { state } => {
                let outcome = self
                    .followed
                    .and_then(|followed| followed.on_look(TCP, state, self.now_ns, TIMEOUT_NS));
                self.end(outcome);
            }
            Happens::Wait(ns) => self.now_ns += ns,
        }
    }

    fn end(&mut self, outcome: Option<Outcome>) {
        if let Some(outcome) = outcome
            && self.followed.take().is_some()
        {
            self.done.push(Done::Outcome(outcome));
        }
    }

    fn syn(&mut self, isn: u32, verdict: SynVerdict, state: u8) {
        let superseded = self.followed.and_then(|it| it.on_syn(isn, TCP, state));
        self.end(superseded);
        let known = self.attempt.filter(|attempt| attempt.is_of(isn));
        let (mut attempt, step) = match known {
            Some(mut attempt) => {
                let step = attempt.on_retransmit(self.now_ns, verdict, asked_for(verdict));
                (attempt, step)
            }
            None => Attempt::on_first_syn(isn, self.now_ns, verdict, asked_for(verdict)),
        };
        if let Some(lost) = step.retransmit {
            self.done.push(Done::Retransmit(lost));
        }
        if step.decides {
            self.done.push(Done::Decision(verdict.decision));
        }
        if step.dropped {
            self.done.push(Done::Drop(verdict.cause));
        }
        if step.record {
            self.done
                .push(Done::Record(attempt.drops, attempt.retransmits));
        }
        if known.is_none() {
            attempt.on_freed(self.now_ns, verdict);
        }
        self.attempt = Some(attempt);
        if verdict.decision == Decision::ReusedStale {
            self.follow(isn, verdict, step);
        }
    }

    fn follow(&mut self, isn: u32, verdict: SynVerdict, step: SynStep) {
        if !step.decides {
            if let Some(followed) = self.followed.as_mut() {
                followed.on_retransmit(isn, self.now_ns);
            }
        } else if let Ok(outcome) = Outcome::try_from(verdict.outcome) {
            self.done.push(Done::Outcome(outcome));
        } else {
            self.followed = Some(followed(isn, self.now_ns));
        }
    }

    fn drop(&mut self, isn: u32, known_service: bool) {
        self.done.push(Done::Drop(CAUSE));
        match self.attempt.as_mut().filter(|attempt| attempt.is_of(isn)) {
            Some(attempt) => attempt.on_drop(self.now_ns, CAUSE),
            None if known_service => {
                self.attempt = Some(Attempt::on_first_drop(isn, self.now_ns, CAUSE));
            }
            None => {}
        }
    }
}

fn followed(isn: u32, now_ns: u64) -> Followed {
    Followed {
        conn: 1,
        since_ns: now_ns,
        last_syn_ns: now_ns,
        service: ServiceKey {
            addr: [0; 16],
            fwmark: 0,
            netns: 1,
            port: 80,
            family: 4,
            proto: TCP,
        },
        real_server: RealServerKey::NONE,
        weight: 0,
        isn,
        retransmits: 0,
        cause: StaleCause::PortReuse as u8,
        client_reset: 0,
        pad: [0; 4],
    }
}

/// What has to be done about the last thing that happened, from everything before it.
fn model(history: &[Happens], last: Happens) -> Vec<Done> {
    match last {
        Happens::Syn {
            isn,
            verdict,
            state,
        } => {
            let mut done = Vec::new();
            if let Some(wait) = awaited(history)
                && wait.isn != isn
            {
                done.push(Done::Outcome(if state == CLOSE && !wait.client_reset {
                    Outcome::Refused
                } else {
                    Outcome::TimedOut
                }));
            }
            done.extend(of_syn(&of_attempt(history, isn), verdict));
            done
        }
        Happens::Drop { .. } => [Done::Drop(CAUSE)].into(),
        _ => awaited(history)
            .and_then(|wait| outcome(&wait, last))
            .map(Done::Outcome)
            .into_iter()
            .collect(),
    }
}

/// The outcome that the last thing that happened is for the attempt that waits for one.
fn outcome(wait: &Awaited, last: Happens) -> Option<Outcome> {
    match last {
        Happens::Client(ClientPacket::Continues) => Some(Outcome::Answered),
        Happens::Icmp(outcome) => Some(outcome),
        Happens::Look { state } => {
            if state == Some(CLOSE) && !wait.client_reset {
                return Some(Outcome::Refused);
            }
            (wait.since_syn_ns > TIMEOUT_NS).then_some(Outcome::TimedOut)
        }
        _ => None,
    }
}

/// What is known of the attempt of the latest SYN: one item per SYN since the port got it.
fn of_attempt(history: &[Happens], isn: u32) -> Vec<Happens> {
    let mut of_port: Vec<(u32, Happens)> = Vec::new();
    for happens in history {
        match *happens {
            Happens::Syn { isn, .. } => of_port.push((isn, *happens)),
            Happens::Drop {
                isn: dropped,
                known_service,
            } if known_service || of_port.last().is_some_and(|(isn, _)| *isn == dropped) => {
                of_port.push((dropped, *happens));
            }
            _ => {}
        }
    }
    of_port
        .iter()
        .rev()
        .take_while(|(of, _)| *of == isn)
        .map(|(_, happens)| *happens)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect()
}

fn is_death(happens: &Happens) -> bool {
    match happens {
        Happens::Drop { .. } => true,
        Happens::Syn { verdict, .. } => {
            verdict.freed_cause != 0 || verdict.decision == Decision::Dropped
        }
        _ => false,
    }
}

fn verdict_of(happens: &Happens) -> Option<SynVerdict> {
    match happens {
        Happens::Syn { verdict, .. } => Some(*verdict),
        _ => None,
    }
}

/// `before`: the attempt's SYNs before this one.
fn of_syn(before: &[Happens], verdict: SynVerdict) -> Vec<Done> {
    let mut done = Vec::new();
    let first = before.iter().find_map(verdict_of);
    let died_before = before.iter().any(is_death);
    let retransmits = u16::from(!before.is_empty())
        + u16::try_from(before.iter().skip(1).filter_map(verdict_of).count()).unwrap();
    let latest = before.iter().rposition(|it| verdict_of(it).is_some());
    let lost = if before[latest.unwrap_or(0)..].iter().any(is_death) {
        Lost::Here
    } else if first.is_some_and(|first| first.decision == Decision::ReusedStale) {
        Lost::StaleRealServer
    } else if retransmits == 1 {
        // The waits of these tests are much shorter than a timeout.
        Lost::ChallengeAck
    } else {
        Lost::Unknown
    };
    if !before.is_empty() {
        done.push(Done::Retransmit(lost));
    }
    if first.is_none() {
        done.push(Done::Decision(verdict.decision));
    }
    let dropped = verdict.decision == Decision::Dropped;
    if dropped {
        done.push(Done::Drop(verdict.cause));
    }
    let freed = verdict.freed_cause != 0;
    let drops = before.iter().filter(|it| is_death(it)).count() + usize::from(dropped);
    let record = if before.is_empty() {
        asked_for(verdict)
    } else if freed {
        false
    } else if dropped {
        asked_for(verdict)
    } else if died_before && !reported_delay(before) {
        true
    } else {
        first.is_none() && asked_for(verdict)
    };
    if record {
        done.push(Done::Record(u16::try_from(drops).unwrap(), retransmits));
    }
    let stale = verdict.decision == Decision::ReusedStale && first.is_none();
    if let (true, Ok(outcome)) = (stale, Outcome::try_from(verdict.outcome)) {
        done.push(Done::Outcome(outcome));
    }
    done
}

/// Whether a SYN that was sent on is among these, after the latest that died.
fn reported_delay(syns: &[Happens]) -> bool {
    let latest_death = syns.iter().rposition(is_death).map_or(0, |index| index + 1);
    latest_death < syns.len()
}

/// An attempt that waits for its outcome.
struct Awaited {
    isn: u32,
    since_syn_ns: u64,
    client_reset: bool,
}

/// The stale attempt whose outcome is open after this history.
fn awaited(history: &[Happens]) -> Option<Awaited> {
    let mut open: Option<Awaited> = None;
    for (index, happens) in history.iter().enumerate() {
        match *happens {
            Happens::Syn { isn, verdict, .. } => {
                open = open.filter(|wait| wait.isn == isn);
                let stale = verdict.decision == Decision::ReusedStale;
                let first = of_attempt(&history[..index], isn)
                    .iter()
                    .find_map(verdict_of)
                    .is_none();
                if stale && first && verdict.outcome == 0 {
                    open = Some(Awaited {
                        isn,
                        since_syn_ns: 0,
                        client_reset: false,
                    });
                } else if let Some(wait) = open.as_mut().filter(|_| stale) {
                    wait.since_syn_ns = 0;
                    wait.client_reset = false;
                }
            }
            Happens::Wait(ns) => {
                if let Some(wait) = open.as_mut() {
                    wait.since_syn_ns += ns;
                }
            }
            Happens::Client(ClientPacket::Resets) => {
                if let Some(wait) = open.as_mut() {
                    wait.client_reset = true;
                }
            }
            other => open = open.filter(|wait| outcome(wait, other).is_none()),
        }
    }
    open
}

const SCHEDULED: SynVerdict = SynVerdict::plain(Decision::Scheduled);
const STALE: SynVerdict = SynVerdict::stale(StaleCause::PortReuse);
const DROPPED: SynVerdict = SynVerdict::dropped(DropCause::IpvsReuse);
const FREED: SynVerdict = SynVerdict {
    freed_cause: DropCause::Other as u8,
    ..STALE
};

const fn syn(isn: u32, verdict: SynVerdict) -> Happens {
    Happens::Syn {
        isn,
        verdict,
        state: ESTABLISHED,
    }
}

/// Everything that can happen to a port that two attempts share, in few words.
const ALPHABET: [Happens; 14] = [
    syn(1, SCHEDULED),
    syn(1, STALE),
    syn(1, DROPPED),
    syn(1, FREED),
    syn(2, SCHEDULED),
    Happens::Syn {
        isn: 2,
        verdict: STALE,
        state: CLOSE,
    },
    Happens::Drop {
        isn: 1,
        known_service: true,
    },
    Happens::Drop {
        isn: 2,
        known_service: false,
    },
    Happens::Client(ClientPacket::Continues),
    Happens::Client(ClientPacket::Resets),
    Happens::Icmp(Outcome::Unreachable),
    Happens::Look { state: Some(CLOSE) },
    Happens::Look { state: None },
    Happens::Wait(TIMEOUT_NS + 1),
];

/// All orders of first SYN, retransmit, drop, free, reply, reset, ICMP error, timeout and reuse of
/// the source port, five long.
#[test]
fn every_order_of_five_is_what_the_history_says() {
    fn follow(history: &mut Vec<Happens>, node: &Node, more: u32) {
        for happens in ALPHABET {
            let mut node = node.clone();
            node.check(history, happens);
            if more > 1 {
                history.push(happens);
                follow(history, &node, more - 1);
                history.pop();
            }
        }
    }
    follow(&mut Vec::new(), &Node::new(), 5);
}

fn any_verdict() -> impl Strategy<Value = SynVerdict> {
    let plain = proptest::sample::select(Decision::ALL).prop_map(|decision| match decision {
        Decision::ReusedStale => STALE,
        Decision::Dropped => DROPPED,
        other => SynVerdict::plain(other),
    });
    (plain, 0..4_u8).prop_map(|(verdict, fate)| match (verdict.decision, fate) {
        // IPVS does not drop what was freed under its hands.
        (Decision::Dropped, _) | (_, 0 | 1) => verdict,
        (_, 2) => SynVerdict {
            freed_cause: DropCause::Other as u8,
            ..verdict
        },
        _ => SynVerdict {
            freed_cause: DropCause::Other as u8,
            outcome: Outcome::Unreachable as u8,
            ..verdict
        },
    })
}

fn any_happens() -> impl Strategy<Value = Happens> {
    let isn = 1..4_u32;
    let state = prop_oneof![Just(CLOSE), 0..12_u8];
    prop_oneof![
        4 => (isn.clone(), any_verdict(), state.clone())
            .prop_map(|(isn, verdict, state)| Happens::Syn { isn, verdict, state }),
        2 => (isn, any::<bool>())
            .prop_map(|(isn, known_service)| Happens::Drop { isn, known_service }),
        1 => Just(Happens::Client(ClientPacket::Continues)),
        1 => Just(Happens::Client(ClientPacket::Resets)),
        1 => proptest::sample::select(&[Outcome::Refused, Outcome::Unreachable][..])
            .prop_map(Happens::Icmp),
        2 => proptest::option::of(state).prop_map(|state| Happens::Look { state }),
        3 => (0..2 * TIMEOUT_NS).prop_map(Happens::Wait),
    ]
}

proptest! {
    #[test]
    fn any_history_is_counted_as_it_was(
        history in proptest::collection::vec(any_happens(), 0..40)
    ) {
        let mut node = Node::new();
        for (index, happens) in history.iter().enumerate() {
            node.check(&history[..index], *happens);
        }
        let waits = node.followed.map(|followed| followed.isn);
        prop_assert_eq!(waits, awaited(&history).map(|wait| wait.isn));
    }
}

#[test]
fn a_choice_and_an_entry_name_the_decision() {
    let target = |weight, removed, controlled| EntryTarget {
        weight,
        removed,
        controlled,
    };
    let entry = |target, dropped| {
        let verdict = SynVerdict::on_entry(target, dropped);
        (verdict.decision, verdict.cause)
    };
    let choice = |target, met_entry| SynVerdict::on_choice(target, met_entry).decision;
    let drop = |cause| (Decision::Dropped, cause as u8);
    let stale = |cause| (Decision::ReusedStale, cause as u8);
    assert_eq!(entry(target(1, false, false), false), (Decision::Reused, 0));
    assert_eq!(
        entry(target(0, false, false), false),
        stale(StaleCause::PortReuse)
    );
    assert_eq!(
        entry(target(-1, false, true), false),
        stale(StaleCause::Persistence)
    );
    assert_eq!(
        entry(target(1, true, false), false),
        stale(StaleCause::PortReuse)
    );
    assert_eq!(
        entry(target(0, true, false), true),
        drop(DropCause::IpvsRemoved)
    );
    assert_eq!(
        entry(target(0, false, true), true),
        drop(DropCause::IpvsReuse)
    );
    assert_eq!(choice(target(1, false, false), false), Decision::Scheduled);
    assert_eq!(choice(target(1, false, false), true), Decision::Rescheduled);
    assert_eq!(choice(target(0, false, true), true), Decision::ReusedStale);
}

#[test]
fn counters_of_an_attempt_stop_at_their_limit() {
    let (mut attempt, _) = Attempt::on_first_syn(1, 1, DROPPED, true);
    attempt.drops = u16::MAX;
    attempt.retransmits = u16::MAX;
    attempt.on_retransmit(2, DROPPED, true);
    assert_eq!((attempt.drops, attempt.retransmits), (u16::MAX, u16::MAX));
    assert_eq!(attempt.first_drop_ns, 1);
}

#[test]
fn a_syn_that_comes_again_before_a_timeout_was_answered() {
    let verdict = SynVerdict::on_choice(
        EntryTarget {
            weight: 1,
            removed: false,
            controlled: false,
        },
        false,
    );
    let lost_after = |wait_ns: u64| {
        let (mut attempt, _) = Attempt::on_first_syn(1, 7, verdict, false);
        attempt
            .on_retransmit(7 + wait_ns, verdict, false)
            .retransmit
    };
    assert_eq!(
        lost_after(FIRST_TIMEOUT_NS_MIN - 1),
        Some(Lost::ChallengeAck)
    );
    assert_eq!(lost_after(FIRST_TIMEOUT_NS_MIN), Some(Lost::Unknown));
}
