//! One connection: TLS if wanted, requests, and every way it may end.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::refused::Refused;
use super::seats::Seat;
use super::{CLOSING_TIME, CONNECTION_LIFE, HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, READ_TIMEOUT};
use crate::clock;

/// Bytes of a request's line and header: Prometheus sends 500.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Fields of a request's header.
const HEADERS_MAX: usize = 64;

/// Bytes buffered in either direction; what is not sent waits in pieces where it came from.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// First byte of a TLS handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Who asks for TLS in vain gets an answer, as Go's server does.
const PLAIN_HTTP: &[u8] = b"HTTP/1.0 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain\r\n\r\nThis is the TLS port: use https.\n";

/// Serves `stream` until its end.
///
/// # Errors
/// What the client was refused for, if it was.
pub(super) async fn serve(
    stream: TcpStream,
    tls: Option<&TlsAcceptor>,
    router: Router,
    seat: &Arc<Seat>,
    stopped: watch::Receiver<bool>,
) -> Result<(), Refused> {
    let Some(tls) = tls else {
        return http(stream, router, seat, stopped).await;
    };
    let handshake = async {
        let mut first = [0];
        let read = stream.peek(&mut first).await;
        if matches!(read, Ok(1..)) && first != [TLS_HANDSHAKE] {
            // What does not fit into an empty socket buffer is not worth waiting for.
            drop(stream.try_write(PLAIN_HTTP));
            return Err(Refused::PlainHttp);
        }
        tls.accept(stream).await.map_err(|_| Refused::TlsHandshake)
    };
    let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await;
    http(
        stream.unwrap_or(Err(Refused::TlsHandshake))?,
        router,
        seat,
        stopped,
    )
    .await
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    seat: &Arc<Seat>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Refused> {
    let pages = TowerToHyperService::new(router);
    let service = service_fn(move |request| answer(pages.clone(), Arc::clone(seat), request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        end = &mut serving => return end.or_else(|error| refused(&error, seat)),
        () = unread(seat) => return Err(Refused::SlowReader),
        () = sleep(CONNECTION_LIFE) => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    serving.as_mut().graceful_shutdown();
    drop(timeout(CLOSING_TIME, serving).await);
    Ok(())
}

async fn answer<S, R>(
    pages: S,
    seat: Arc<Seat>,
    mut request: Request<Incoming>,
) -> Result<R, S::Error>
where
    S: Service<Request<Incoming>, Response = R>,
{
    seat.ours();
    request.extensions_mut().insert(Arc::clone(&seat));
    let answer = pages.call(request).await;
    seat.theirs(clock::now());
    answer
}

/// What a client whose connection failed is to blame for; breaking off is its own business.
fn refused(error: &hyper::Error, seat: &Seat) -> Result<(), Refused> {
    if error.is_parse_too_large() {
        Err(Refused::HeaderTooLarge)
    } else if error.is_parse() {
        Err(Refused::Malformed)
    } else if error.is_timeout() && !seat.answered() {
        Err(Refused::HeaderTimeout)
    } else {
        Ok(())
    }
}

/// Completes once an answer has not been read for too long. A connection that is idle after its
/// answer does not get so far: it ends with [`HEADER_TIMEOUT`], which is shorter.
async fn unread(seat: &Seat) {
    loop {
        let waited = seat.unread_for(clock::now());
        let left = READ_TIMEOUT.saturating_sub(waited);
        if left.is_zero() {
            return;
        }
        sleep(left).await;
    }
}
