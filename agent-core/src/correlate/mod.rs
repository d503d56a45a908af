//! Events to findings: a state machine that is handed the time.
//!
//! PURE. Reads no clock, does no IO, cannot fail. The caller's four kinds of call:
//! - `handle_*` takes what happened (an event, a loss, that time has passed);
//! - `poll_output` takes findings until there is none; do so after every `handle_*`;
//! - `poll_timeout` says when to call `handle_timeout` at the latest;
//! - everything else only reads.
//!
//! Everything is done in the kernel's order of time, [`REORDER_WINDOW`] behind the clock, so the
//! findings do not depend on the order of arrival nor on when it is called. Every event ends in
//! exactly one of [`Counters`]' fates.

mod attempts;
mod node;
#[cfg(test)]
mod scenario;
mod stale;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod uptime;
mod window;

use std::collections::VecDeque;
use std::time::Duration;

pub use attempts::ATTEMPTS_HELD_MAX;
pub use node::{COUNTERS_HELD_MAX, LISTENERS_TOLD_MAX, NodeWatch};
pub use stale::STALE_REMEMBERED_MAX;
pub use window::WINDOW_EVENTS_MAX;

use crate::clock::MonoNs;
use crate::event::{AttemptDecided, AttemptId, PacketEvent, SynDropped, Verdict};
use crate::finding::{
    Attempt, ConnectDelayed, Finding, OrdinaryDecision, StaleConnection, StaleFlow, StaleOutcome,
    SynLostElsewhere,
};
use attempts::{Attempts, Held};
use stale::Stale;
use window::Window;

/// How long an event waits for older ones: two and a half default drain periods.
pub const REORDER_WINDOW: Duration = Duration::from_millis(250);

/// How long a dropped attempt waits for a SYN that gets through.
///
/// Linux sends SYNs 1, 3, 7 and 15 s after the first; 16 s covers those with a second to spare.
/// One that gets through even later is still reported, a second time.
pub const OUTCOME_DEADLINE: Duration = Duration::from_secs(16);

/// Findings that wait to be taken: every held event could become one at once.
pub const FINDINGS_MAX: usize = WINDOW_EVENTS_MAX + ATTEMPTS_HELD_MAX;

/// What became of the events, and what went wrong on the way.
///
/// `events == reported + suppressed + evicted + unread + held`, at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events handled.
    pub events: u64,
    /// Events a finding was made of.
    pub reported: u64,
    /// Ordinary decisions that were not asked for, and what another finding says already.
    pub suppressed: u64,
    /// Lost: events of attempts that had to make room.
    pub evicted: u64,
    /// Lost: events of findings that were not taken in time.
    pub unread: u64,
    /// Events that came after younger ones had left the window; handled all the same.
    pub late: u64,
    /// Events that left the window early because it was full; handled all the same.
    pub released_early: u64,
}

/// The state machine; see the module's description.
#[derive(Debug, Default)]
pub struct Correlator {
    tell_all_decisions: bool,
    window: Window,
    attempts: Attempts,
    stale: Stale,
    findings: VecDeque<Finding>,
    counters: Counters,
    /// Events known to be lost before they came here.
    lost: u64,
    /// Everything at or before this time is done.
    reached: MonoNs,
}

impl Correlator {
    /// With `tell_all_decisions`, ordinary decisions become findings too.
    #[must_use]
    pub fn new(tell_all_decisions: bool) -> Self {
        Self {
            tell_all_decisions,
            ..Self::default()
        }
    }

    /// Takes an event that was read at `now`.
    pub fn handle_event(&mut self, now: MonoNs, event: PacketEvent) {
        self.counters.events += 1;
        if event.at() < self.reached {
            self.counters.late += 1;
            self.apply(event.at(), &event);
            return;
        }
        if self.window.is_full()
            && let Some(oldest) = self.window.next_at()
        {
            self.counters.released_early += 1;
            self.run_until(oldest);
        }
        self.window.push(now, event);
    }

    /// Takes note that `count` events were lost before they could be handled.
    pub fn handle_loss(&mut self, _now: MonoNs, count: u64) {
        self.lost += count;
    }

    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: MonoNs) {
        // In its first quarter of a second a machine has nothing that old.
        if let Some(due) = now.checked_sub(REORDER_WINDOW) {
            self.run_until(due);
        }
    }

    /// Nothing more will come: releases every held event and gives up on every outcome, telling
    /// how long each was waited for.
    pub fn handle_end(&mut self, now: MonoNs) {
        self.run_until(now);
        while let Some(held) = self.attempts.pop_first() {
            self.give_up(&held, now);
        }
    }

    /// When to call [`Self::handle_timeout`] at the latest; `None` while nothing is held.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<MonoNs> {
        let event = self.window.next_at();
        let deadline = self.attempts.next_deadline();
        let next = event.into_iter().chain(deadline).min()?;
        Some(next + REORDER_WINDOW)
    }

    /// The next finding.
    pub fn poll_output(&mut self) -> Option<Finding> {
        self.findings.pop_front()
    }

    /// What became of the events so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Events whose fate is open.
    #[must_use]
    pub fn held_events(&self) -> u64 {
        u64::try_from(self.window.len()).unwrap_or(u64::MAX) + self.attempts.events()
    }

    /// Attempts that wait for their outcome; at most [`ATTEMPTS_HELD_MAX`].
    #[must_use]
    pub fn held_attempts(&self) -> usize {
        self.attempts.len()
    }

    /// Events in the reorder window; at most [`WINDOW_EVENTS_MAX`].
    #[must_use]
    pub fn window_events(&self) -> usize {
        self.window.len()
    }

    /// Events and deadlines up to `time`, in order; an event at its deadline is in time.
    fn run_until(&mut self, time: MonoNs) {
        loop {
            let event = self.window.next_at().filter(|at| *at <= time);
            let deadline = self.attempts.next_deadline().filter(|at| *at <= time);
            if event.is_some_and(|at| deadline.is_none_or(|deadline| at <= deadline)) {
                if let Some((at, event)) = self.window.pop() {
                    self.apply(at, &event);
                }
            } else if deadline.is_some() {
                self.give_up_first();
            } else {
                break;
            }
        }
        self.reached = self.reached.max(time);
    }

    fn apply(&mut self, at: MonoNs, event: &PacketEvent) {
        match event {
            PacketEvent::AttemptDecided(decided) => self.decided(at, decided),
            PacketEvent::SynDropped(dropped) => self.syn_dropped(at, dropped),
            PacketEvent::OutcomeSeen(seen) => self.report(StaleOutcome::from(seen), 1),
            PacketEvent::StaleDatagrams(seen) => self.report(StaleFlow::from(seen), 1),
        }
    }

    fn decided(&mut self, at: MonoNs, decided: &AttemptDecided) {
        if let Verdict::Dropped(cause) = decided.verdict {
            return self.hold(
                decided.attempt,
                Held::by_ipvs(at, decided, cause, self.lost),
            );
        }
        if let Verdict::ReusedStale(_) = decided.verdict {
            self.stale.note(decided);
            // That SYNs died of where they were sent is reported as the outcome.
            if decided
                .first_drop
                .is_some_and(|first| stale::is_of_the_way(first.cause))
            {
                self.counters.suppressed += 1;
                return;
            }
        }
        let held = self.attempts.take(&decided.attempt);
        // The record alone is enough: the drop's own record may have been lost.
        if held.is_some() || decided.first_drop.is_some() {
            return self.sent_on(decided, held);
        }
        if let Verdict::ReusedStale(cause) = decided.verdict {
            let finding = StaleConnection {
                at: decided.at,
                attempt: Attempt::of(decided),
                cause,
            };
            return self.report(finding, 1);
        }
        if decided.retransmits > 0 {
            let finding = SynLostElsewhere {
                at: decided.at,
                attempt: Attempt::of(decided),
                delay: decided.at.since(decided.first_seen),
            };
            return self.report(finding, 1);
        }
        if self.tell_all_decisions {
            let finding = OrdinaryDecision {
                at: decided.at,
                attempt: Attempt::of(decided),
            };
            return self.report(finding, 1);
        }
        self.counters.suppressed += 1;
    }

    /// A SYN of an attempt with drops was sent on: held until it can no longer die behind IPVS.
    fn sent_on(&mut self, decided: &AttemptDecided, held: Option<Held>) {
        let held = match (held, decided.first_drop) {
            (Some(mut held), _) => {
                held.send_on(decided);
                held
            }
            (None, Some(first)) => Held::by_decision(decided, first, self.lost),
            (None, None) => return,
        };
        self.hold(decided.attempt, held);
    }

    fn syn_dropped(&mut self, at: MonoNs, dropped: &SynDropped) {
        if self.stale.explains(dropped) {
            self.counters.suppressed += 1;
            return;
        }
        self.hold(dropped.attempt, Held::by_kernel(at, dropped, self.lost));
    }

    fn hold(&mut self, id: AttemptId, drop: Held) {
        if let Some(evicted) = self.attempts.hold(id, drop) {
            self.counters.evicted += evicted.events;
        }
    }

    fn give_up_first(&mut self) {
        if let Some(held) = self.attempts.pop_first() {
            self.give_up(&held, held.deadline());
        }
    }

    /// Reports what became of an attempt that nothing more is known of until `end`.
    fn give_up(&mut self, held: &Held, end: MonoNs) {
        match &held.sent_on {
            Some(sent_on) => {
                let lost = self.lost.saturating_sub(held.lost_before);
                let finding = ConnectDelayed::of(sent_on, held.first_drop, held.drops, lost);
                self.report(finding, held.events);
            }
            None => self.report(held.unresolved(end, self.lost), held.events),
        }
    }

    fn report(&mut self, finding: impl Into<Finding>, events: u64) {
        if self.findings.len() >= FINDINGS_MAX {
            self.counters.unread += events;
            return;
        }
        self.counters.reported += events;
        self.findings.push_back(finding.into());
    }
}
