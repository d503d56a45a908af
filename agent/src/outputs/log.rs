//! Findings in the log, so few that a log stays readable, and how many were left out.
//!
//! [`Limiter`] is PURE: the clock is an argument. The caller writes the lines it hands back.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::MonoNs;
use crate::finding::{Finding, FindingKind};

/// Findings of one kind logged per [`PERIOD`].
pub const LINES_PER_PERIOD: u32 = 5;

/// After this, a kind may be logged again and what was left out is reported: a minute of an incident
/// is at most 30 lines per kind.
pub const PERIOD: Duration = Duration::from_secs(10);

/// Lets some findings of each kind through.
#[derive(Debug, Default)]
pub struct Limiter {
    kinds: BTreeMap<FindingKind, Budget>,
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    since: MonoNs,
    lines: u32,
    suppressed: u64,
}

impl Limiter {
    /// The lines to log for a finding: itself, or nothing.
    ///
    /// A line about those left out before comes first. Ordinary decisions are never logged.
    pub fn lines(&mut self, now: MonoNs, finding: &Finding) -> Vec<String> {
        if finding.kind() == FindingKind::Decision {
            return Vec::new();
        }
        let mut lines: Vec<String> = self.suppressed(now).collect();
        let budget = self.kinds.entry(finding.kind()).or_insert(Budget {
            since: now,
            lines: 0,
            suppressed: 0,
        });
        if budget.lines < LINES_PER_PERIOD {
            budget.lines += 1;
            lines.push(finding.to_string());
        } else {
            budget.suppressed += 1;
        }
        lines
    }

    /// Lines about what was left out in periods that are over at `now`.
    pub fn suppressed(&mut self, now: MonoNs) -> impl Iterator<Item = String> {
        let over = |budget: &Budget| now.since(budget.since) >= PERIOD;
        let mut lines = Vec::new();
        self.kinds.retain(|kind, budget| {
            let over = over(budget);
            if over && budget.suppressed > 0 {
                lines.push(left_out(*kind, budget.suppressed));
            }
            !over
        });
        lines.into_iter()
    }

    /// Lines about everything left out that was not reported yet; the end.
    pub fn finish(&mut self) -> impl Iterator<Item = String> {
        std::mem::take(&mut self.kinds)
            .into_iter()
            .filter(|(_, budget)| budget.suppressed > 0)
            .map(|(kind, budget)| left_out(kind, budget.suppressed))
    }
}

fn left_out(kind: FindingKind, count: u64) -> String {
    let kind = kind.as_str();
    format!("{count} more findings of kind {kind} not logged; `ipvs-lens trace` shows all")
}

#[cfg(test)]
mod tests {
    use agent_common::verdict::StaleCause;

    use super::*;
    use crate::finding::{Attempt, OrdinaryDecision, StaleConnection, StaleOutcome};
    use crate::testing::{sample_attempt, sample_outcome};

    fn stale() -> Finding {
        let decided = sample_attempt();
        StaleConnection {
            at: decided.at,
            attempt: Attempt::of(&decided),
            cause: StaleCause::PortReuse,
        }
        .into()
    }

    #[test]
    fn each_kind_has_its_own_budget() {
        let mut limiter = Limiter::default();
        let logged = (0..8)
            .map(|_| limiter.lines(MonoNs(1), &stale()).len())
            .sum::<usize>();
        assert_eq!(logged, 5);
        let other = Finding::from(StaleOutcome::from(&sample_outcome()));
        assert_eq!(limiter.lines(MonoNs(1), &other), [other.to_string()]);
    }

    #[test]
    fn what_was_left_out_is_told_when_the_period_is_over() {
        let mut limiter = Limiter::default();
        for _ in 0..8 {
            limiter.lines(MonoNs(1), &stale());
        }
        assert_eq!(limiter.suppressed(MonoNs(2)).count(), 0);
        let later = MonoNs(1) + PERIOD;
        assert_eq!(
            limiter.lines(later, &stale()),
            [
                "3 more findings of kind stale_connection not logged; `ipvs-lens trace` shows all"
                    .to_owned(),
                stale().to_string(),
            ]
        );
        assert_eq!(limiter.finish().count(), 0);
    }

    #[test]
    fn the_end_tells_the_rest() {
        let mut limiter = Limiter::default();
        for _ in 0..7 {
            limiter.lines(MonoNs(1), &stale());
        }
        assert_eq!(
            limiter.finish().collect::<Vec<_>>(),
            ["2 more findings of kind stale_connection not logged; `ipvs-lens trace` shows all"]
        );
    }

    #[test]
    fn ordinary_decisions_are_not_logged() {
        let decided = sample_attempt();
        let decision = Finding::from(OrdinaryDecision {
            at: decided.at,
            attempt: Attempt::of(&decided),
        });
        assert!(Limiter::default().lines(MonoNs(1), &decision).is_empty());
    }
}
