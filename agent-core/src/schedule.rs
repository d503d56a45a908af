//! When the observer runs next.
//!
//! PURE. While there is something to do it runs once per drain period, however many records come;
//! otherwise it sleeps until the kernel has a record, something is due, or [`IDLE_MAX`] has passed.

use std::time::Duration;

use crate::clock::MonoNs;

/// Longest time between two runs. What nothing wakes the observer for is noticed this late: the
/// last service of a module was removed and had no real server. Longer than the usual interval of
/// table readings (5 s), which wake it too; shorter than the 10 s after which `/readyz` calls the
/// observer stuck.
pub const IDLE_MAX: Duration = Duration::from_secs(6);

/// How long it runs once per drain period after the last activity. What belongs together comes
/// together, but not at once: the kernel announces that a scheduler goes before it drops the
/// scheduler's reference to ip_vs, on a busy machine a second before.
const LINGER: Duration = Duration::from_secs(2);

/// Until when to sleep, and what else ends the sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleep {
    /// At the latest.
    pub until: MonoNs,
    /// What a record in the kernel's buffers does.
    pub on_record: OnRecord,
}

/// What a record in the kernel's buffers does to a sleeping observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRecord {
    /// It wakes it: nothing has happened for a while.
    Wake,
    /// It waits for the end of the drain period with those that follow, unless the buffer becomes
    /// half full.
    Collect,
}

/// The state machine.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    drain_period: Duration,
    last: MonoNs,
    busy_until: MonoNs,
}

impl Schedule {
    /// Runs once per `drain_period` while there is something to do.
    #[must_use]
    pub const fn new(drain_period: Duration) -> Self {
        Self {
            drain_period,
            last: MonoNs(0),
            busy_until: MonoNs(0),
        }
    }

    /// The observer ran at `now`; `active` when it found something to do, or will find it without
    /// being woken for it.
    pub fn handle_run(&mut self, now: MonoNs, active: bool) {
        self.last = now;
        if active {
            self.busy_until = now + LINGER;
        }
    }

    /// How long to sleep; `due` is when a state machine has to run at the latest.
    #[must_use]
    pub fn sleep(&self, due: Option<MonoNs>) -> Sleep {
        let soonest = self.last + self.drain_period;
        if self.last < self.busy_until {
            return Sleep {
                until: soonest,
                on_record: OnRecord::Collect,
            };
        }
        let idle = self.last + IDLE_MAX;
        Sleep {
            until: due.map_or(idle, |due| due.clamp(soonest, idle)),
            on_record: OnRecord::Wake,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> MonoNs {
        MonoNs(ms * 1_000_000)
    }

    fn schedule(now: u64, active: bool) -> Schedule {
        let mut schedule = Schedule::new(PERIOD);
        schedule.handle_run(at(now), active);
        schedule
    }

    #[test]
    fn records_are_collected_while_they_come_and_a_little_longer() {
        let mut schedule = schedule(1_000, true);
        for now in (1_100..=3_000).step_by(100) {
            let sleep = schedule.sleep(None);
            assert_eq!(sleep.until, at(now));
            assert_eq!(sleep.on_record, OnRecord::Collect);
            schedule.handle_run(at(now), false);
        }
        assert_eq!(schedule.sleep(None).on_record, OnRecord::Wake);
    }

    #[test]
    fn idle_it_sleeps_until_something_is_due_or_for_the_longest_time() {
        let schedule = schedule(1_000, false);
        let until = |due: Option<u64>| schedule.sleep(due.map(at)).until;
        assert_eq!(until(None), at(7_000));
        assert_eq!(until(Some(1_250)), at(1_250));
        // What is due is due: a state machine that is late does not make the loop spin.
        assert_eq!(until(Some(900)), at(1_100));
        assert_eq!(until(Some(60_000)), at(7_000));
    }

    #[test]
    fn an_idle_minute_is_ten_runs() {
        let mut schedule = schedule(0, false);
        let mut runs = 0;
        loop {
            let until = schedule.sleep(None).until;
            if until > at(60_000) {
                break;
            }
            schedule.handle_run(until, false);
            runs += 1;
        }
        assert_eq!(runs, 10);
    }
}
