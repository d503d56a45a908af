//! What ends the observer's sleep besides time: records in the kernel's buffers, and the kernel's
//! own messages about modules and CPUs.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agent_core::schedule::Schedule;
use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::clock::{self, MonoNs};
use crate::source::Source;

/// The kernel's own multicast group of uevents (lib/kobject_uevent.c); udev sends to another.
const KERNEL_GROUP: u32 = 1;

/// Bytes of a message that are looked at; `UEVENT_BUFFER_SIZE` is 2,048.
const MESSAGE_BYTES: usize = 2_048;

/// Messages taken per wake-up: a burst of thousands (a driver is loaded) must not keep the observer.
const MESSAGES_MAX: usize = 256;

/// How soon a loaded or unloaded module is noticed where nothing wakes for it.
pub const MODULE_POLL: Duration = Duration::from_millis(250);

/// Why the observer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// It is time.
    Timer,
    /// By a kernel program.
    Records,
    /// The IPVS tables were read.
    Tables,
    /// A module or a CPU came or went.
    Machine,
}

impl Woken {
    /// Whether more may follow soon, or was counted without a record. A reading of the tables is
    /// neither: it comes by its own timer.
    #[must_use]
    pub const fn is_activity(self) -> bool {
        matches!(self, Self::Records | Self::Machine)
    }
}

/// Wakes the observer no more often than there is something to do.
pub struct Alarm {
    schedule: Schedule,
    tables: Arc<Notify>,
    uevents: Option<Uevents>,
}

impl Alarm {
    /// Wakes for records at most once per `drain_period`, unless a buffer is half full.
    pub fn new(drain_period: Duration) -> Self {
        let uevents = Uevents::listen().inspect_err(|error| {
            let poll = MODULE_POLL.as_millis();
            log::debug!("uevents cannot be read, looking for modules every {poll} ms: {error}");
        });
        Self {
            schedule: Schedule::new(drain_period),
            tables: Arc::default(),
            uevents: uevents.ok(),
        }
    }

    /// What to notify when the tables were read.
    pub fn tables(&self) -> Arc<Notify> {
        Arc::clone(&self.tables)
    }

    /// The observer ran at `now`; `active` when it found something to do.
    pub fn handle_run(&mut self, now: MonoNs, active: bool) {
        self.schedule.handle_run(now, active);
    }

    /// Completes when the observer has to run again, at `due` at the latest.
    pub async fn next(&self, source: &Source, due: Option<MonoNs>) -> Woken {
        let now = clock::now();
        let poll = self.uevents.is_none().then(|| now + MODULE_POLL);
        let wait = self.schedule.sleep(due.into_iter().chain(poll).min());
        tokio::select! {
            () = sleep(wait.until.since(now)) => Woken::Timer,
            () = source.ready(wait.on_record) => Woken::Records,
            () = self.tables.notified() => Woken::Tables,
            () = self.machine_changed() => Woken::Machine,
        }
    }

    async fn machine_changed(&self) {
        match &self.uevents {
            Some(uevents) => uevents.changed().await,
            None => pending().await,
        }
    }
}

/// The kernel's messages about modules and CPUs that come and go.
struct Uevents(AsyncFd<Socket>);

impl Uevents {
    /// Listens from here on.
    ///
    /// # Errors
    /// There is no such socket here, as in a user namespace of its own.
    fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT)?;
        socket.bind(&SocketAddr::new(0, KERNEL_GROUP))?;
        socket.set_non_blocking(true)?;
        // SAFETY: the socket is owned by what watches it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        Ok(Self(socket?))
    }

    /// Completes at messages about a module or a CPU; those about anything else are passed over.
    async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.0.readable().await else {
                return pending().await;
            };
            let mut wanted = false;
            for _ in 0..MESSAGES_MAX {
                let mut message = Vec::with_capacity(MESSAGE_BYTES);
                match self.0.get_ref().recv(&mut message, 0) {
                    Ok(_) => wanted |= is_wanted(&message),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        break;
                    }
                    // ENOBUFS: messages were lost, so anything may have changed.
                    Err(_) => wanted = true,
                }
            }
            if wanted {
                return;
            }
        }
    }
}

/// `ACTION@DEVPATH`, then settings, each with a NUL at its end (lib/kobject_uevent.c).
fn is_wanted(message: &[u8]) -> bool {
    let header = message.split(|byte| *byte == 0).next().unwrap_or_default();
    let path = header.iter().position(|byte| *byte == b'@');
    let path = path.and_then(|at| header.get(at + 1..)).unwrap_or_default();
    path.starts_with(b"/module/ip_vs") || path.starts_with(b"/devices/system/cpu/cpu")
}

#[cfg(test)]
mod tests {
    use super::is_wanted;

    #[test]
    fn modules_of_ipvs_and_cpus_are_wanted() {
        assert!(is_wanted(
            b"add@/module/ip_vs\0ACTION=add\0DEVPATH=/module/ip_vs\0"
        ));
        assert!(is_wanted(
            b"offline@/devices/system/cpu/cpu1\0ACTION=offline\0"
        ));
        assert!(!is_wanted(b"add@/devices/virtual/net/veth0\0ACTION=add\0"));
        assert!(!is_wanted(b"libudev\0\xfe\xed"));
        assert!(!is_wanted(b""));
    }
}
