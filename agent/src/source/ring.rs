//! Takes records out of the kernel's ring buffer.

use std::os::fd::{AsRawFd, RawFd};

use aya::maps::{MapData, RingBuf};
use bytes::Bytes;

/// Records taken in one go, so that a flood cannot keep the agent from its other work: 4,096
/// records of 144 bytes are more than half the ring.
pub const BATCH_MAX: usize = 4_096;

/// The reading end of the event stream.
pub struct RingSource {
    ring: RingBuf<MapData>,
}

impl RingSource {
    /// Reads from this ring; nobody else may.
    pub const fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Moves up to [`BATCH_MAX`] waiting records to `batch`; returns whether more may wait.
    ///
    /// Each record is copied out at once, because its place in the ring is the kernel's again
    /// afterwards.
    pub fn drain(&mut self, batch: &mut Vec<Bytes>) -> bool {
        for _ in 0..BATCH_MAX {
            let Some(record) = self.ring.next() else {
                return false;
            };
            batch.push(Bytes::copy_from_slice(&record));
        }
        true
    }
}

impl AsRawFd for RingSource {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
