//! `/metrics`: how many are written and read at once, and in which pieces.
//!
//! An exposition may be megabytes, so few exist at a time: one is written, [`READERS_MAX`] are
//! read. A piece is handed to the connection when it has sent the one before, so that a reader
//! who stops keeps the rest of it no longer than its place.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::encoding::Encoding;
use super::queue::Queue;
use super::refused::{Refusals, Refused};
use super::seats::{Seat, Seats};
use crate::clock;
use crate::outputs::metrics::form::Form;
use crate::outputs::metrics::{Metrics, RenderError};

/// Expositions read at once; the two Prometheus servers of a pair and two people.
pub const READERS_MAX: usize = 4;

/// Scrapers that may wait for one of them; a scrape that waits longer has timed out anyway.
pub const WAITING_MAX: usize = 8;

/// How often one who waits looks for a reader slow enough to take its place.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it looks before it gives up.
const LOOKS: usize = 5;

/// Bytes handed over at once; a connection buffers a few of them.
const PIECE_BYTES: usize = 16 * 1024;

/// Why there is no exposition.
#[derive(Debug)]
pub enum Failed {
    /// Too many are being read.
    Busy,
    /// It cannot be written.
    Render(RenderError),
    /// It cannot be compressed.
    Compress(io::Error),
    /// The thread that wrote it is gone.
    Gone,
}

/// Writes expositions.
pub struct Expositions {
    metrics: Arc<Metrics>,
    seats: Arc<Seats>,
    refusals: Arc<Refusals>,
    readers: Arc<Semaphore>,
    waiting: Queue,
    one: Mutex<()>,
}

impl Expositions {
    /// Nobody reads yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, seats: Arc<Seats>, refusals: Arc<Refusals>) -> Self {
        Self {
            metrics,
            seats,
            refusals,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            waiting: Queue::new(WAITING_MAX),
            one: Mutex::default(),
        }
    }

    /// Writes one for the client on `seat`.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn write(
        &self,
        form: Form,
        encoding: Encoding,
        seat: Option<Arc<Seat>>,
    ) -> Result<Body, Failed> {
        let place = self.place().await.ok_or(Failed::Busy)?;
        let one = self.one.lock().await;
        let metrics = Arc::clone(&self.metrics);
        // Two system calls per counter: away from the event loop.
        let written = tokio::task::spawn_blocking(move || {
            let bytes = metrics.render(form).map_err(Failed::Render)?;
            encoding.encode(bytes).map_err(Failed::Compress)
        });
        let written = written.await;
        drop(one);
        let bytes = written.map_err(|_| Failed::Gone)??;
        if let Some(seat) = &seat {
            seat.reading(true);
        }
        Ok(Body::new(Pieces {
            bytes,
            from: 0,
            seat,
            _place: place,
        }))
    }

    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.readers).try_acquire_owned() {
            return Some(place);
        }
        let waiting = self.waiting.enter()?;
        for _ in 0..LOOKS {
            if self.seats.displace_reader(clock::now()) {
                self.refusals.count(Refused::Displaced);
            }
            let place = Arc::clone(&self.readers).acquire_owned();
            if let Ok(place) = timeout(PATIENCE, place).await {
                drop(waiting);
                return place.ok();
            }
        }
        None
    }
}

/// An exposition on its way out.
struct Pieces {
    bytes: Vec<u8>,
    from: usize,
    seat: Option<Arc<Seat>>,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let rest = self.bytes.get(self.from..).unwrap_or_default();
        if rest.is_empty() {
            return Poll::Ready(None);
        }
        // A copy: a slice would keep the whole for as long as its last piece is not sent.
        let piece = rest.get(..PIECE_BYTES).unwrap_or(rest);
        let piece = Bytes::copy_from_slice(piece);
        self.from += piece.len();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.from >= self.bytes.len()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.bytes.len().saturating_sub(self.from);
        SizeHint::with_exact(left.try_into().unwrap_or(u64::MAX))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            seat.reading(false);
        }
    }
}
