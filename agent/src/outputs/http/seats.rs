//! Who is connected, and who has to go when one more comes.
//!
//! Only a client can keep a connection open without end, by not sending or by not reading. So a
//! newcomer to a full house takes the seat of whoever has kept us waiting longest; as long as we
//! are not answering everybody at once, there is always one. A crowd of idle connections thereby
//! cannot lock a scraper out, nor a probe of `/healthz`.
//!
//! PURE but for the wake-up: the clock is an argument.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::MonoNs;

/// Connections at once: every Prometheus, probe and person a node knows, several times over.
/// Each holds at most 100 KiB here and half a MiB in the kernel.
pub const SEATS_MAX: usize = 64;

/// How long a reader of an exposition is left alone before another scraper takes its place.
pub const READING_GRACE: Duration = Duration::from_secs(1);

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct Seats {
    taken: Mutex<BTreeMap<u64, Arc<Seat>>>,
    next: AtomicU64,
}

/// One connection.
#[derive(Debug)]
pub struct Seat {
    /// Since when we wait for the client; `None` while it waits for us.
    waiting_since: Mutex<Option<MonoNs>>,
    /// Whether it has been answered before.
    answered: AtomicBool,
    /// Whether it is reading an exposition.
    reading: AtomicBool,
    leave: Notify,
}

/// A seat until it is dropped.
#[derive(Debug)]
pub struct Taken {
    seats: Arc<Seats>,
    number: u64,
    /// The seat itself, for those who answer.
    pub seat: Arc<Seat>,
}

/// How a newcomer got in.
#[derive(Debug)]
pub enum Entered {
    /// There was room.
    Free(Taken),
    /// Somebody had to go.
    Displacing(Taken),
    /// Everybody is being answered.
    Full,
}

impl Seats {
    /// Finds a seat for a connection accepted at `now`.
    pub fn enter(self: &Arc<Self>, now: MonoNs) -> Entered {
        let mut taken = self.taken();
        let displaced = taken.len() >= SEATS_MAX;
        if displaced && leave(&mut taken, |_| true).is_none() {
            return Entered::Full;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seat = Arc::new(Seat {
            waiting_since: Mutex::new(Some(now)),
            answered: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            leave: Notify::new(),
        });
        taken.insert(number, Arc::clone(&seat));
        let seats = Arc::clone(self);
        let taken = Taken {
            seats,
            number,
            seat,
        };
        if displaced {
            Entered::Displacing(taken)
        } else {
            Entered::Free(taken)
        }
    }

    /// Sends away whoever has been reading an exposition longest, if longer than
    /// [`READING_GRACE`]; says whether there was one, for the caller to count.
    pub fn displace_reader(&self, now: MonoNs) -> bool {
        let slow = |seat: &Seat| {
            let waited = seat.waited(now).unwrap_or_default();
            seat.reading.load(Ordering::Relaxed) && waited > READING_GRACE
        };
        leave(&mut self.taken(), slow).is_some()
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Seat>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frees the seat of whoever kept us waiting longest among those that qualify.
fn leave(taken: &mut BTreeMap<u64, Arc<Seat>>, qualifies: impl Fn(&Seat) -> bool) -> Option<()> {
    let waiting = taken.iter().filter(|(_, seat)| qualifies(seat));
    let waiting = waiting.filter_map(|(number, seat)| Some((seat.waiting_since()?, *number)));
    let (_, number) = waiting.min()?;
    taken.remove(&number)?.leave.notify_one();
    Some(())
}

impl Seat {
    /// A request is here: the client waits for us.
    pub fn ours(&self) {
        *self.lock() = None;
    }

    /// Its answer is ready: we wait for the client.
    pub fn theirs(&self, now: MonoNs) {
        *self.lock() = Some(now);
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether it has been answered at all.
    pub fn answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// How long an answer has been ready; zero while there is none.
    pub fn unread_for(&self, now: MonoNs) -> Duration {
        let waited = self.waited(now).filter(|_| self.answered());
        waited.unwrap_or_default()
    }

    /// The client begins, or ends, to read an exposition.
    pub fn reading(&self, reading: bool) {
        self.reading.store(reading, Ordering::Relaxed);
    }

    /// Completes once the seat is given to another.
    pub async fn displaced(&self) {
        self.leave.notified().await;
    }

    fn waited(&self, now: MonoNs) -> Option<Duration> {
        self.waiting_since().map(|since| now.since(since))
    }

    fn waiting_since(&self) -> Option<MonoNs> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<MonoNs>> {
        self.waiting_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.seats.taken().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn full() -> (Arc<Seats>, Vec<Taken>) {
        let seats = Arc::new(Seats::default());
        let taken = (0..SEATS_MAX)
            .map(|i| match seats.enter(MonoNs(i as u64)) {
                Entered::Free(taken) => taken,
                other => panic!("{other:?}"),
            })
            .collect();
        (seats, taken)
    }

    #[tokio::test]
    async fn the_longest_waited_for_makes_room() {
        let (seats, taken) = full();
        // The first two are being answered.
        taken[0].seat.ours();
        taken[1].seat.ours();
        taken[1].seat.theirs(MonoNs(1_000));
        let Entered::Displacing(newcomer) = seats.enter(MonoNs(2_000)) else {
            panic!("no connection ended");
        };
        taken[2].seat.displaced().await;
        assert_eq!(seats.taken().len(), SEATS_MAX);
        // The displaced one's own end does not free another's seat.
        drop(taken);
        assert_eq!(seats.taken().len(), 1);
        drop(newcomer);
        assert_eq!(seats.taken().len(), 0);
    }

    #[test]
    fn nobody_leaves_while_all_are_answered() {
        let (seats, taken) = full();
        for taken in &taken {
            taken.seat.ours();
        }
        assert!(matches!(seats.enter(MonoNs(9)), Entered::Full));
        assert_eq!(seats.taken().len(), SEATS_MAX);
    }

    #[tokio::test]
    async fn a_slow_reader_gives_way_to_a_scraper() {
        let (seats, taken) = full();
        let start = MonoNs(5_000_000_000);
        for (reader, since) in [(7, 7), (8, 8)] {
            taken[reader].seat.theirs(start + SECOND * since);
            taken[reader].seat.reading(true);
        }
        assert!(!seats.displace_reader(start + SECOND * 8));
        assert!(seats.displace_reader(start + SECOND * 9));
        taken[7].seat.displaced().await;
        taken[8].seat.reading(false);
        assert!(!seats.displace_reader(start + SECOND * 60));
    }
}
