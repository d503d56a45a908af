//! Takes records out of per-CPU perf buffers, for kernels without ring buffers (before 5.8).
//!
//! Records of different CPUs come in no order; `correlate` puts them back into the kernel's.

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};

use agent_common::record::RecordHeader;
use aya::maps::perf::{PerfBufferError, PerfEvent, PerfEventArrayBuffer};
use aya::maps::{MapData, MapError, PerfEventArray};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zerocopy::FromBytes;

use super::batch::Batch;

/// Pages of each CPU's buffer: 64 pages of 4 KiB hold 1,600 records, at the default drain period
/// 16,000 findings per second and CPU.
const PAGES_PER_CPU: usize = 64;

/// Why the buffers cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PerfError {
    /// Which CPUs there are is not known.
    #[error("{path} cannot be read: {source}")]
    Cpus {
        /// File that was read.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A CPU's buffer cannot be opened.
    #[error("the perf buffer of CPU {cpu} cannot be opened: {source}")]
    Open {
        /// The CPU.
        cpu: u32,
        /// Why.
        source: PerfBufferError,
    },
    /// A CPU's buffer cannot be handed to the kernel programs.
    #[error("the perf buffer of CPU {cpu} cannot be used: {source}")]
    Set {
        /// The CPU.
        cpu: u32,
        /// Why.
        source: MapError,
    },
}

/// The reading ends of all CPUs' event streams.
pub struct PerfSource {
    /// By CPU; at most one for each possible CPU.
    buffers: BTreeMap<u32, PerfEventArrayBuffer>,
    /// Dropping it would take the buffers out of the kernel programs' reach.
    array: PerfEventArray<MapData>,
    /// Buffers the kernel no longer writes to, with records not taken yet; at most one for each CPU
    /// between two drains.
    closing: Vec<PerfEventArrayBuffer>,
    /// Records that had no buffer, when the CPUs were last looked at.
    lost: u64,
}

impl PerfSource {
    /// Opens a buffer for every CPU that is online.
    ///
    /// # Errors
    /// [`PerfError`] names the CPU.
    pub fn open(array: PerfEventArray<MapData>) -> Result<Self, PerfError> {
        let mut source = Self {
            buffers: BTreeMap::new(),
            array,
            closing: Vec::new(),
            lost: 0,
        };
        source.update_cpus(0)?;
        Ok(source)
    }

    /// Opens a buffer for every CPU that came online since, and closes those of CPUs that went; what
    /// they still held is taken by the next [`Self::drain`].
    ///
    /// A CPU that went and came again between two calls has a buffer the kernel no longer writes to:
    /// then `lost`, the records without a buffer so far, has grown, and all are opened again.
    ///
    /// # Errors
    /// [`PerfError`] names the CPU; the other CPUs keep their buffers.
    pub fn update_cpus(&mut self, lost: u64) -> Result<(), PerfError> {
        let online = aya::util::online_cpus().map_err(|(path, source)| PerfError::Cpus {
            path: path.to_owned(),
            source,
        })?;
        let reopen = lost > std::mem::replace(&mut self.lost, lost);
        let known: Vec<u32> = self.buffers.keys().copied().collect();
        for cpu in known {
            if reopen || !online.contains(&cpu) {
                self.close(cpu);
            }
        }
        let missing = online.into_iter();
        missing
            .filter(|cpu| !self.buffers.contains_key(cpu))
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|cpu| self.open_cpu(cpu))
    }

    fn open_cpu(&mut self, cpu: u32) -> Result<(), PerfError> {
        let buffer = PerfEventArrayBuffer::open(cpu, PAGES_PER_CPU)
            .map_err(|source| PerfError::Open { cpu, source })?;
        self.array
            .set(cpu, &buffer)
            .map_err(|source| PerfError::Set { cpu, source })?;
        self.buffers.insert(cpu, buffer);
        Ok(())
    }

    fn close(&mut self, cpu: u32) {
        if let Some(buffer) = self.buffers.remove(&cpu) {
            // It may have been replaced by the kernel's own end of the CPU.
            drop(self.array.unset(cpu));
            self.closing.push(buffer);
        }
    }

    /// Returns when a CPU has written a record. Where a buffer cannot be watched, only the timer is
    /// left.
    pub async fn readable(&self) {
        let watched: io::Result<Vec<_>> = self.buffers.values().map(watch).collect();
        match watched {
            Ok(watched) => poll_fn(|context| any_ready(&watched, context)).await,
            Err(error) => {
                log::debug!("perf buffers cannot be watched, records wait for the timer: {error}");
                pending::<()>().await;
            }
        }
    }

    /// Moves every waiting record to `batch`.
    ///
    /// What a full buffer refused is counted by the kernel programs, so the kernel's own word on
    /// it is passed over.
    pub fn drain(&mut self, batch: &mut Batch) {
        for mut buffer in self.closing.drain(..) {
            take(&mut buffer, batch);
        }
        for buffer in self.buffers.values_mut() {
            take(buffer, batch);
        }
    }
}

/// A descriptor borrowed from a buffer.
struct Borrowed<'a>(BorrowedFd<'a>);

impl AsRawFd for Borrowed<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn watch(buffer: &PerfEventArrayBuffer) -> io::Result<AsyncFd<Borrowed<'_>>> {
    let borrowed = Borrowed(buffer.as_fd());
    // SAFETY: the descriptor is borrowed, always the same one, and open for as long as it is.
    let watched = unsafe { AsyncFd::register_with_interest(borrowed, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

fn any_ready(watched: &[AsyncFd<Borrowed<'_>>], context: &mut Context<'_>) -> Poll<()> {
    // Each is asked, so that each wakes.
    let ready = watched
        .iter()
        .filter(|fd| fd.poll_read_ready(context).is_ready())
        .count();
    if ready > 0 {
        Poll::Ready(())
    } else {
        Poll::Pending
    }
}

fn take(buffer: &mut PerfEventArrayBuffer, batch: &mut Batch) {
    buffer.for_each(|event| {
        if let PerfEvent::Sample { head, tail } = event {
            batch.push([head, tail], record_len);
        }
    });
}

/// Length of the record without the padding the kernel puts behind it.
///
/// A record too short to have its length in it is left as it is, for `decode` to refuse.
fn record_len(sample: &[u8]) -> usize {
    let header = RecordHeader::read_from_prefix(sample);
    header.map_or(sample.len(), |(header, _)| header.len.into())
}

#[cfg(test)]
mod tests {
    use agent_common::record::KIND_ATTEMPT;
    use bytes::Bytes;
    use zerocopy::IntoBytes;

    use super::*;

    fn record(sample: &[u8]) -> Bytes {
        let mut batch = Batch::default();
        batch.push([sample, &[]], record_len);
        batch.drain().next().unwrap()
    }

    fn header(len: u16) -> Vec<u8> {
        RecordHeader {
            ktime_ns: 1,
            kind: KIND_ATTEMPT,
            len,
            cpu: 0,
        }
        .as_bytes()
        .to_vec()
    }

    #[test]
    fn the_kernels_padding_is_cut_off() {
        let mut sample = header(20);
        sample.extend_from_slice(&[7; 4 + 3]);
        assert_eq!(record(&sample).len(), 20);
        assert_eq!(record(&sample)[16..], [7; 4]);
        let mut batch = Batch::default();
        batch.push([&sample[..9], &sample[9..]], record_len);
        assert_eq!(batch.drain().next().unwrap(), sample[..20]);
    }

    #[test]
    fn what_is_too_short_is_left_to_decode() {
        assert_eq!(record(&[1, 2, 3])[..], [1, 2, 3]);
        assert_eq!(record(&header(200)).len(), 16);
    }
}
