//! Every way in which the agent itself (not the kernel programs) loses something, by name.
//!
//! PURE. The name is the `reason` of `ipvs_lens_events_lost_total` and the key in `/status`.

/// A refusal or a failure that loses something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Loss {
    /// A log line: stderr was not read in time.
    LogQueueFull,
    /// A log line: stderr refused it.
    LogWriteFailed,
}

impl Loss {
    /// Every member, in the order of the exposition.
    pub const ALL: [Self; 2] = [Self::LogQueueFull, Self::LogWriteFailed];

    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LogQueueFull => "log_queue_full",
            Self::LogWriteFailed => "log_write_failed",
        }
    }

    /// What is lost, in one or two sentences.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::LogQueueFull => {
                "A log line: stderr is read too slowly, or not at all. Metrics stay exact."
            }
            Self::LogWriteFailed => {
                "A log line: writing to stderr failed (closed, or its disk is full). Metrics stay exact."
            }
        }
    }
}
