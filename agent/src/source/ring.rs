//! Takes records out of the kernel's ring buffer.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::batch::Batch;

/// Records taken in one go, so that a flood cannot keep the agent from its other work: 4,096
/// records of 144 bytes are more than half the ring.
pub const BATCH_MAX: usize = 4_096;

/// The reading end of the event stream.
pub struct RingSource {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl RingSource {
    /// Reads from this ring, as its only reader; call it within a runtime.
    ///
    /// # Errors
    /// When the ring cannot be registered with epoll.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        // SAFETY: the ring owns its descriptor, always names the same one, and moves into the
        // `AsyncFd`, so the descriptor stays open for as long as it is registered.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
        Ok(Self { ring })
    }

    /// Returns when the kernel wakes its reader: at the first record after a drain, and at every one
    /// while the ring is half full.
    pub async fn readable(&self) {
        if let Ok(mut ready) = self.ring.readable().await {
            ready.clear_ready();
        }
    }

    /// Moves up to [`BATCH_MAX`] waiting records to `batch`; returns whether more may wait.
    ///
    /// Each record is copied out at once, into the batch's one allocation, because its place in the
    /// ring is the kernel's again afterwards.
    pub fn drain(&mut self, batch: &mut Batch) -> bool {
        for _ in 0..BATCH_MAX {
            let Some(record) = self.ring.get_mut().next() else {
                return false;
            };
            batch.push([&record, &[]], <[u8]>::len);
        }
        true
    }
}
