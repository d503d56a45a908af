//! The HTTP server: `/metrics`, `/healthz`, `/readyz`, `/status`.
//!
//! It never slows the agent: it has a thread of its own, every connection, request, answer and
//! wait is bounded, and nothing is written.

mod auth;
mod connection;
mod encoding;
mod exposition;
mod queue;
mod rate;
mod refused;
mod routes;
mod seats;
mod tls;
pub mod web;
pub mod web_config;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::metrics::Metrics;
use crate::clock;
use crate::status::SharedStatus;
use exposition::Expositions;
pub use refused::{Refusals, Refused};
use routes::Served;
pub use seats::SEATS_MAX;
use seats::{Entered, Seats, Taken};
use web::{RELOAD_PERIOD, Web};

/// Time for a TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a request's header, which also bounds an idle connection.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for an answer to be read; a scrape has timed out by then.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Life of a connection, requests and slow reading included; a scraper simply connects again.
pub const CONNECTION_LIFE: Duration = Duration::from_secs(30);

/// Time a connection has to finish what it is doing once it has to end.
pub const CLOSING_TIME: Duration = Duration::from_secs(2);

/// Time for answers on their way when the agent stops; the agent ends within two seconds, and a
/// client that reads takes milliseconds.
pub const STOPPING_TIME: Duration = Duration::from_millis(500);

/// Pause after a failed accept, which fails again at once when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections the kernel keeps for us while we are busy.
const BACKLOG: u32 = 128;

/// Bytes of an answer the kernel keeps per connection (it doubles them for its own needs): most
/// expositions at once, and 32 MiB for all connections at worst.
const SEND_BUFFER_BYTES: u32 = 256 * 1024;

/// Threads for what blocks: one writes an exposition, one verifies a password, one reads files.
const BLOCKING_THREADS_MAX: usize = 3;

/// The server cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start the HTTP server: {0}")]
    Thread(io::Error),
}

/// What the server shows.
#[derive(Clone)]
pub struct Shown {
    /// Behind `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Behind `/status` and `/readyz`.
    pub status: SharedStatus,
}

/// Asks the server to read its web configuration again at once.
#[derive(Clone, Debug, Default)]
pub struct Reload(Arc<Notify>);

impl Reload {
    /// Does so.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// The server on its thread; dropping it stops it.
pub struct Server {
    reload: Reload,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes the address and serves; do it before anything is attached, so that failing leaves
    /// nothing behind.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(address: SocketAddr, shown: Shown, web: Web) -> Result<Self, StartError> {
        Self::start_with(address, shown, web, || {})
    }

    /// As [`Self::start`]; the server's thread does `first` before it serves.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        address: SocketAddr,
        shown: Shown,
        web: Web,
        first: impl FnOnce() + Send + 'static,
    ) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()
            .map_err(StartError::Thread)?;
        let inside = runtime.enter();
        let bound = bind(address)?;
        drop(inside);
        let address = bound.local_addr().map_err(StartError::Thread)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let reload = Reload::default();
        let serving = serve(bound, shown, Arc::new(web), reload.clone(), async {
            // The sender is dropped, never used: its end is the signal.
            drop(stopped.await);
        });
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || {
                first();
                runtime.block_on(serving);
                // A password being verified is no reason to stay.
                runtime.shutdown_background();
            })
            .map_err(StartError::Thread)?;
        Ok(Self {
            reload,
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What makes it read its web configuration again.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the HTTP server thread panicked");
        }
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        // Connections inherit it.
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listener().map_err(|source| StartError::Bind { address, source })
}

/// Serves until `shutdown` completes, then lets running requests finish for [`STOPPING_TIME`].
async fn serve(
    listener: TcpListener,
    shown: Shown,
    web: Arc<Web>,
    reload_asked: Reload,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(false);
    let serving = Serving::new(shown, web);
    let mut reload = interval(RELOAD_PERIOD);
    reload.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => serving.connection(stream, stopped.clone()),
                Err(error) => {
                    log::warn!("cannot accept an HTTP connection: {error}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = reload.tick(), if serving.web.has_file() => serving.reload(),
            () = reload_asked.0.notified() => serving.reload(),
        }
    }
    // The last receiver is dropped by the last connection.
    drop((listener, stopped));
    stop.send_replace(true);
    if timeout(STOPPING_TIME, stop.closed()).await.is_err() {
        log::debug!("closed HTTP connections that did not finish");
    }
}

/// What connections share.
struct Serving {
    router: Router,
    seats: Arc<Seats>,
    refusals: Arc<Refusals>,
    web: Arc<Web>,
}

impl Serving {
    fn new(shown: Shown, web: Arc<Web>) -> Self {
        let seats = Arc::new(Seats::default());
        let refusals = Arc::new(Refusals::default());
        shown.metrics.add(Arc::clone(&refusals) as _);
        shown.metrics.add(Arc::clone(&web) as _);
        let expositions = Expositions::new(
            Arc::clone(&shown.metrics),
            Arc::clone(&seats),
            Arc::clone(&refusals),
        );
        let router = routes::router(Served {
            shown,
            expositions: Arc::new(expositions),
            refusals: Arc::clone(&refusals),
            web: Arc::clone(&web),
        });
        Self {
            router,
            seats,
            refusals,
            web,
        }
    }

    /// Finds a seat for `stream` and serves it there.
    fn connection(&self, stream: TcpStream, stopped: watch::Receiver<bool>) {
        let taken = match self.seats.enter(clock::now()) {
            Entered::Free(taken) => taken,
            Entered::Displacing(taken) => {
                self.refusals.count(Refused::Displaced);
                taken
            }
            Entered::Full => return self.refusals.count(Refused::Connections),
        };
        let refusals = Arc::clone(&self.refusals);
        let served = served(
            stream,
            taken,
            self.web.rules(),
            self.router.clone(),
            stopped,
        );
        tokio::spawn(async move {
            if let Err(why) = served.await {
                refusals.count(why);
            }
        });
    }

    fn reload(&self) {
        let web = Arc::clone(&self.web);
        tokio::task::spawn_blocking(move || web.reload());
    }
}

/// Serves until the end of the connection or of its seat.
async fn served(
    stream: TcpStream,
    taken: Taken,
    rules: Arc<web::Rules>,
    router: Router,
    stopped: watch::Receiver<bool>,
) -> Result<(), Refused> {
    let seat = Arc::clone(&taken.seat);
    tokio::select! {
        end = connection::serve(stream, rules.tls.as_ref(), router, &seat, stopped) => end,
        // Counted by whoever took the seat.
        () = taken.seat.displaced() => Ok(()),
    }
}

#[cfg(test)]
mod tests;
