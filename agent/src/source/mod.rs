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

use agent_core::schedule::OnRecord;

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

    /// Returns when records have to be read before the timer; never where there is only the timer.
    pub async fn ready(&self, on_record: OnRecord) {
        match (self, on_record) {
            (Self::Ring(ring), OnRecord::Wake) => ring.readable().await,
            (Self::Ring(ring), OnRecord::Collect) => {
                // The first record since the drain; the next call of the kernel is for half full.
                ring.readable().await;
                ring.readable().await;
            }
            // Perf buffers wake at every record, so they are watched only while nothing happens.
            (Self::Perf(perf), OnRecord::Wake) => perf.readable().await,
            (Self::Perf(_), OnRecord::Collect) => std::future::pending().await,
        }
    }

    /// Opens buffers for CPUs that came online, and closes those of CPUs that went. `lost` records
    /// had no buffer so far.
    pub fn update_cpus(&mut self, lost: u64) {
        if let Self::Perf(source) = self
            && let Err(error) = source.update_cpus(lost)
        {
            log::warn!("{error}; records of that CPU are lost (cpu_without_buffer)");
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
