//! Takes records out of per-CPU perf buffers, for kernels without ring buffers (before 5.8).
//!
//! Records of different CPUs come in no order; `correlate` puts them back into the kernel's.

use std::io;

use agent_common::record::RecordHeader;
use aya::maps::perf::{PerfBufferError, PerfEvent, PerfEventArrayBuffer};
use aya::maps::{MapData, MapError, PerfEventArray};
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
    buffers: Vec<PerfEventArrayBuffer>,
    /// Dropping it would take the buffers out of the kernel programs' reach.
    _array: PerfEventArray<MapData>,
}

impl PerfSource {
    /// Opens a buffer for every CPU that is online.
    ///
    /// # Errors
    /// [`PerfError`] names the CPU.
    pub fn open(mut array: PerfEventArray<MapData>) -> Result<Self, PerfError> {
        let cpus = aya::util::online_cpus().map_err(|(path, source)| PerfError::Cpus {
            path: path.to_owned(),
            source,
        })?;
        let mut buffers = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            let buffer = PerfEventArrayBuffer::open(cpu, PAGES_PER_CPU)
                .map_err(|source| PerfError::Open { cpu, source })?;
            array
                .set(cpu, &buffer)
                .map_err(|source| PerfError::Set { cpu, source })?;
            buffers.push(buffer);
        }
        Ok(Self {
            buffers,
            _array: array,
        })
    }

    /// Moves every waiting record to `batch`.
    ///
    /// What a full buffer refused is counted by the kernel programs, so the kernel's own word on
    /// it is passed over.
    pub fn drain(&mut self, batch: &mut Batch) {
        for buffer in &mut self.buffers {
            buffer.for_each(|event| {
                if let PerfEvent::Sample { head, tail } = event {
                    batch.push([head, tail], record_len);
                }
            });
        }
    }
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
