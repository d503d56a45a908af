//! How far `run` confines itself once everything is attached. What no verb needs is given up before
//! any thread starts, by [`privileges::limit`] and [`Denied::Unneeded`].

use agent_common::stat::Stat;
use agent_core::lifecycle::Lifecycle;

use crate::error::Failure;
use crate::probes::counters::Counters;
use crate::syscall_filter::Denied;
use crate::{privileges, syscall_filter};

/// What is kept once everything is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// What attaching again needs.
    Attaching,
    /// No capability: nothing can be attached again.
    All,
}

impl Confinement {
    /// Of `run`.
    #[must_use]
    pub const fn of(drop_all_capabilities: bool) -> Self {
        if drop_all_capabilities {
            Self::All
        } else {
            Self::Attaching
        }
    }

    /// When to attach.
    #[must_use]
    pub fn lifecycle(self) -> Lifecycle {
        match self {
            Self::Attaching => Lifecycle::default(),
            Self::All => Lifecycle::attaching_once(),
        }
    }

    /// What a thread does first that neither attaches nor reads tables.
    pub fn start_thread(self) {
        if self == Self::All
            && let Err(error) = privileges::drop_all()
        {
            log::error!("{error}");
        }
    }

    /// Gives up what attaching needed, where nothing is attached again. Every other thread has
    /// started with [`Self::start_thread`] or without capabilities, as those that write lines do.
    ///
    /// # Errors
    /// When the kernel refuses, or lets no process read maps then.
    pub fn confine(self, counters: &Counters) -> Result<(), Failure> {
        if self == Self::Attaching {
            return Ok(());
        }
        privileges::drop_all()?;
        counters.stat(Stat::LayoutContradicted).map_err(|error| {
            Failure::cannot_observe(format!(
                "cannot read the counters without capabilities: {error}; before Linux 5.19 \
                 kernel.unprivileged_bpf_disabled forbids it; run without --drop-all-capabilities"
            ))
        })?;
        syscall_filter::install(Denied::Attaching)
    }
}
