//! Bytes in: raw records from the kernel, untouched. Decoding is not done here.

pub mod batch;
pub mod counts;
pub mod module;
pub mod netlink;
pub mod netns;
pub mod perf;
pub mod proc;
pub mod ring;
pub mod table;

use batch::Batch;
use perf::PerfSource;
use ring::RingSource;

/// The reading end of the event stream, whichever way the records leave the kernel.
pub enum Source {
    /// One ring buffer for all CPUs.
    Ring(RingSource),
    /// A perf buffer per CPU.
    Perf(PerfSource),
}

impl Source {
    /// Moves waiting records to `batch`; returns whether more may wait.
    pub fn drain(&mut self, batch: &mut Batch) -> bool {
        match self {
            Self::Ring(source) => source.drain(batch),
            Self::Perf(source) => {
                source.drain(batch);
                false
            }
        }
    }

    /// Returns when the kernel asks to be read before the timer; never where there is only the timer.
    pub async fn readable(&self) {
        match self {
            Self::Ring(source) => source.readable().await,
            Self::Perf(_) => std::future::pending().await,
        }
    }

    /// The word for it in status and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ring(_) => "ring",
            Self::Perf(_) => "perf",
        }
    }
}
