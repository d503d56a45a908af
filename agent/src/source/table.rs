//! Snapshots of the IPVS table, read on a thread of its own so that nothing ever waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use agent_common::count::CountKey;
use agent_common::key::TupleKey;
use tokio::sync::Notify;

use super::counts::{CountSource, SourceError};
use super::module;
use super::netlink::{self, ReadError};
use super::netns::{self, VisitError};
use crate::clock::{self, MonoNs, thread_time};
use crate::event::NetnsId;
use crate::ledger::{KEYS_MAX, Owner, Presence};
use crate::table::Snapshot;
use crate::table::listings::Listings;
use crate::table::near::Look;
use crate::table::pace::Pace;

/// Network namespaces watched at once: Docker Swarm makes one per ingress and per network of
/// services, a Kubernetes node has one.
pub const NETNS_MAX: usize = 64;

/// Readings that wait to be taken: one for each namespace, the counters, and attempts.
const READINGS_MAX: usize = NETNS_MAX + 2;

/// What one reading brought.
#[derive(Debug)]
pub enum Reading {
    /// The table.
    Table(Arc<Snapshot>),
    /// The kernel's counters, read after the tables.
    Counts {
        /// When.
        at: MonoNs,
        /// What each counter has risen by since the last reading.
        increments: Vec<(CountKey, u64)>,
    },
    /// The attempts that were looked for.
    Attempts {
        /// Each with the tuple it came with.
        attempts: Vec<TupleKey>,
        /// What they were looked for by.
        look: Look,
    },
    /// The namespace is gone, or its table can not be read any more.
    Gone(NetnsId),
    /// It could not be read this time.
    Failed {
        /// Where.
        netns: NetnsId,
        /// Why, in one line.
        reason: String,
    },
}

/// Orders to the thread.
#[derive(Debug)]
enum Order {
    /// Read this namespace too, from now on.
    Watch(NetnsId),
    /// Read now: something has changed.
    ReadNow,
    /// Make room in the kernel's table of counters, at once.
    MakeRoom,
    /// Read attempts too, the next time.
    LookFor(Look),
}

/// What the kernel programs hold, readable from any thread.
pub trait Held: CountSource {
    /// What each counter has risen by since the last call. Empties the kernel's table of counters
    /// if it holds many.
    ///
    /// # Errors
    /// Why the kernel's map could not be read.
    fn increments(&self, now: MonoNs) -> Result<Vec<(CountKey, u64)>, SourceError>;

    /// Empties the kernel's table of counters if it holds many.
    ///
    /// # Errors
    /// Why the kernel's map could not be read.
    fn make_room(&self, now: MonoNs) -> Result<(), SourceError>;

    /// Takes over what the tables list: ends the counters of what is gone, and begins those of
    /// `listed` at 0.
    fn settle(&self, now: MonoNs, presence: &dyn Fn(&Owner) -> Presence, listed: &[Owner]);

    /// The tuples of attempts begun at or after `since`, as far as the kernel remembers; some
    /// twice, where its table changed meanwhile.
    ///
    /// # Errors
    /// Why the kernel's map could not be read.
    fn attempts(&self, since: MonoNs) -> Result<Vec<TupleKey>, SourceError>;
}

/// The reading thread; it ends when this is dropped.
pub struct TableSource {
    /// Taken when it ends: the thread listens until no order can come.
    orders: Option<Sender<Order>>,
    readings: Receiver<Reading>,
    watched: BTreeSet<NetnsId>,
    thread: Option<JoinHandle<()>>,
}

impl TableSource {
    /// Starts to read the caller's own namespace, and the counters, every `interval`; notifies
    /// `ready` when readings wait.
    ///
    /// # Errors
    /// The thread cannot be started, or /proc cannot be read.
    pub fn start(
        interval: Duration,
        counters: Arc<dyn Held>,
        ready: Arc<Notify>,
    ) -> io::Result<Self> {
        let own = netns::own()?;
        let (orders, listen) = channel();
        let (readings_out, readings) = sync_channel(READINGS_MAX);
        let reader = Reader {
            pace: Pace::new(interval),
            watched: BTreeSet::from([own]),
            counters,
            look: None,
            unsent: BTreeMap::new(),
            readings_out,
            ready,
        };
        let thread = thread::Builder::new()
            .name("ipvs-table".to_owned())
            .spawn(move || reader.run(&listen))?;
        Ok(Self {
            orders: Some(orders),
            readings,
            watched: BTreeSet::from([own]),
            thread: Some(thread),
        })
    }

    /// Reads this namespace too; one more than [`NETNS_MAX`] is not watched.
    pub fn watch(&mut self, netns: NetnsId) {
        // The kernel programs could not know which.
        if netns == NetnsId::default() || self.watched.contains(&netns) {
            return;
        }
        if self.watched.len() < NETNS_MAX {
            self.watched.insert(netns);
            self.order(Order::Watch(netns));
        }
    }

    /// Reads at once, unless that would cost more than reading may.
    pub fn read_now(&self) {
        self.order(Order::ReadNow);
    }

    /// Empties the kernel's table of counters at once, if it holds many; no table is read for it.
    pub fn make_room(&self) {
        self.order(Order::MakeRoom);
    }

    /// Reads attempts too, the next time.
    pub fn look_for(&self, look: Look) {
        self.order(Order::LookFor(look));
    }

    /// The next reading that waits.
    pub fn poll(&mut self) -> Option<Reading> {
        match self.readings.try_recv() {
            Ok(reading) => {
                if let Reading::Gone(netns) = &reading {
                    self.watched.remove(netns);
                }
                Some(reading)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    fn order(&self, order: Order) {
        // A thread that has ended reads nothing any more; it has said why.
        if let Some(orders) = &self.orders {
            drop(orders.send(order));
        }
    }
}

impl Drop for TableSource {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Reader {
    pace: Pace,
    counters: Arc<dyn Held>,
    /// What attempts are looked for by, the next time.
    look: Option<Look>,
    watched: BTreeSet<NetnsId>,
    /// Increments that were not sent yet: of [`KEYS_MAX`] keys and one reading's.
    unsent: BTreeMap<CountKey, u64>,
    readings_out: SyncSender<Reading>,
    ready: Arc<Notify>,
}

impl Reader {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut due = clock::now();
        loop {
            match orders.recv_timeout(due.since(clock::now())) {
                Ok(Order::LookFor(look)) => self.look = Some(look),
                Ok(Order::MakeRoom) => {
                    if let Err(error) = self.counters.make_room(clock::now()) {
                        log::debug!("the kernel's table of counters cannot be emptied: {error}");
                    }
                }
                Ok(order) => {
                    if let Order::Watch(netns) = order {
                        self.watched.insert(netns);
                    }
                    // Never later than it was due: changes may come without end.
                    due = due.min(clock::now() + self.pace.soon());
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let usable = self.read_all();
                    self.ready.notify_one();
                    if !usable {
                        return;
                    }
                    due = clock::now() + self.pace.next();
                }
            }
        }
    }

    /// Reads every namespace and the counters; `false` when this thread is of no more use.
    fn read_all(&mut self) -> bool {
        let began = thread_time();
        let mut read = Vec::new();
        for netns in self.watched.clone() {
            // Asking a kernel without ip_vs would load it.
            if !module::is_live() {
                return true;
            }
            let visited = netns::within(netns, || netlink::read(netns));
            let lost = matches!(visited, Err(VisitError::NoReturn { .. }));
            let reading = reading(netns, visited);
            if let Reading::Table(snapshot) = &reading {
                read.push(Arc::clone(snapshot));
            }
            if matches!(reading, Reading::Gone(_)) {
                self.watched.remove(&netns);
            }
            self.send(reading);
            if lost {
                return false;
            }
        }
        let at = clock::now();
        match self.counters.increments(at) {
            Ok(increments) => self.send_increments(at, increments),
            Err(error) => log::debug!("the kernel's counters cannot be read: {error}"),
        }
        let listings = Listings::new(read, &self.watched);
        let presence = |owner: &Owner| listings.presence(owner);
        self.counters.settle(at, &presence, &listings.to_plant());
        if let Some(look) = self.look.take() {
            match self.counters.attempts(at - look.window) {
                Ok(attempts) => self.send(Reading::Attempts { attempts, look }),
                Err(error) => log::debug!("the kernel's attempts cannot be read: {error}"),
            }
        }
        self.pace.took(thread_time().saturating_sub(began));
        true
    }

    /// Sends what was counted; without room in the channel it is sent with the next increments.
    fn send_increments(&mut self, at: MonoNs, more: Vec<(CountKey, u64)>) {
        if self.unsent.len() > KEYS_MAX {
            log::warn!("increments of counters were not read; draining and skew miss them");
            self.unsent.clear();
        }
        for (key, more) in more {
            let unsent = self.unsent.entry(key).or_default();
            *unsent = unsent.saturating_add(more);
        }
        let increments = self.unsent.iter().map(|(key, more)| (*key, *more));
        let reading = Reading::Counts {
            at,
            increments: increments.collect(),
        };
        if self.readings_out.try_send(reading).is_ok() {
            self.unsent.clear();
        }
    }

    /// Full: no reading was taken for as long as every namespace took. The next one is newer.
    fn send(&self, reading: Reading) {
        drop(self.readings_out.try_send(reading));
    }
}

fn reading(netns: NetnsId, visited: Result<Result<Snapshot, ReadError>, VisitError>) -> Reading {
    let failed = |reason| Reading::Failed { netns, reason };
    match visited {
        Ok(Ok(snapshot)) => Reading::Table(Arc::new(snapshot)),
        Ok(Err(error)) => failed(error.to_string()),
        Err(VisitError::NotFound(netns)) => Reading::Gone(netns),
        Err(error) => failed(error.to_string()),
    }
}
