//! The HTTP server: `/metrics`, `/healthz`, `/readyz`, `/status`.
//!
//! It never slows the agent: connections, their life and the time for a request's header are
//! bounded, scrapes run one at a time and away from the event loop, and nothing is written.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::metrics::Metrics;
use super::metrics::form::Form;
use crate::status::{self, SharedStatus};

/// Connections served at once; more wait in the kernel's backlog. A node has a handful of readers.
pub const CONNECTIONS_MAX: usize = 32;

/// Time for a request's header, which also bounds an idle connection.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Life of a connection, requests and slow reading included; a scraper simply connects again.
pub const CONNECTION_LIFE: Duration = Duration::from_secs(30);

/// Time a connection has to finish what it is doing once it has to end.
pub const CLOSING_TIME: Duration = Duration::from_secs(2);

/// Pause after a failed accept, which fails again at once when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address cannot be had.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {source}; choose another address with --listen")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// What the server shows.
#[derive(Clone)]
pub struct Shown {
    /// Behind `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Behind `/status` and `/readyz`.
    pub status: SharedStatus,
}

/// Takes the address; do it before anything is attached, so that failing leaves nothing behind.
///
/// # Errors
/// [`BindError`] names the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| BindError { address, source })
}

/// Serves until `shutdown` completes, then lets running requests finish for [`CLOSING_TIME`].
pub async fn serve(listener: TcpListener, shown: Shown, shutdown: impl Future<Output = ()>) {
    let router = router(shown);
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopped) = watch::channel(false);
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        if let Some((stream, permit)) = accepted {
            let (router, stopped) = (router.clone(), stopped.clone());
            tokio::spawn(async move {
                connection(stream, router, stopped).await;
                drop(permit);
            });
        }
    }
    // The last receiver is dropped by the last connection.
    drop(stopped);
    stop.send_replace(true);
    if timeout(CLOSING_TIME, stop.closed()).await.is_err() {
        log::debug!("closed HTTP connections that did not finish");
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            log::warn!("cannot accept an HTTP connection: {error}");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        // A client that breaks off is its own business.
        _ = &mut serving => return,
        () = sleep(CONNECTION_LIFE) => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    serving.as_mut().graceful_shutdown();
    drop(timeout(CLOSING_TIME, serving).await);
}

/// The routes, without the server.
pub fn router(shown: Shown) -> Router {
    let state = Served {
        shown,
        one_scrape: Arc::default(),
    };
    Router::new()
        .route("/", get(landing))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status_json))
        .with_state(state)
}

#[derive(Clone)]
struct Served {
    shown: Shown,
    one_scrape: Arc<Mutex<()>>,
}

const LANDING: &str = "<!doctype html><title>ipvs-lens</title><h1>ipvs-lens</h1><ul>\
    <li><a href=\"/metrics\">/metrics</a></li><li><a href=\"/healthz\">/healthz</a></li>\
    <li><a href=\"/readyz\">/readyz</a></li><li><a href=\"/status\">/status</a></li></ul>\n";

async fn landing() -> Html<&'static str> {
    Html(LANDING)
}

async fn metrics(State(served): State<Served>, headers: HeaderMap) -> Response {
    let form = wanted(&headers);
    let _one = served.one_scrape.lock().await;
    let metrics = Arc::clone(&served.shown.metrics);
    // Two system calls per counter: away from the event loop.
    let rendered = tokio::task::spawn_blocking(move || metrics.render(form)).await;
    match rendered {
        Ok(Ok(body)) => {
            let described = [
                (header::CONTENT_TYPE, form.content_type()),
                (header::VARY, "accept"),
            ];
            (described, body).into_response()
        }
        Ok(Err(error)) => failed(&error.to_string()),
        Err(error) => failed(&error.to_string()),
    }
}

/// A list may be spread over several headers (RFC 9110, 5.3).
fn wanted(headers: &HeaderMap) -> Form {
    let accept = headers.get_all(header::ACCEPT).into_iter();
    let accept: Vec<_> = accept.filter_map(|value| value.to_str().ok()).collect();
    Form::wanted(&accept.join(","))
}

fn failed(reason: &str) -> Response {
    log::error!("scrape failed: {reason}");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")).into_response()
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(served): State<Served>) -> Response {
    let status = served.shown.status.get();
    if status.state == status::State::Armed {
        return "ready\n".into_response();
    }
    let reason = status.reason.as_deref().unwrap_or("no reason given");
    let text = format!("{}: {reason}\n", status.state.word());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn status_json(State(served): State<Served>) -> Response {
    match serde_json::to_string_pretty(&served.shown.status.get()) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json + "\n").into_response(),
        Err(error) => failed(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;
    use crate::outputs::metrics::BuildInfo;

    fn shown() -> Shown {
        Shown {
            metrics: Arc::new(Metrics::new(BuildInfo::THIS)),
            status: SharedStatus::default(),
        }
    }

    /// A served address, a way to stop it, and the server's end.
    async fn served(shown: Shown) -> (SocketAddr, oneshot::Sender<()>, impl Future<Output = ()>) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, shown, async move {
            stopped.await.unwrap();
        }));
        (address, stop, async move { server.await.unwrap() })
    }

    async fn request(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn first_line_and_body(answer: &str) -> (&str, &str) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap(), body)
    }

    #[tokio::test]
    async fn every_page_answers() {
        let shown = shown();
        let (address, stop, end) = served(shown.clone()).await;
        let metrics = request(address, "/metrics").await;
        let text = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
        assert!(metrics.contains(text), "{metrics}");
        assert_eq!(first_line_and_body(&metrics).0, "HTTP/1.1 200 OK");
        assert!(metrics.contains("\nipvs_lens_build_info{"));
        let health = request(address, "/healthz").await;
        assert_eq!(first_line_and_body(&health), ("HTTP/1.1 200 OK", "ok\n"));
        let status = request(address, "/status").await;
        let json: serde_json::Value = serde_json::from_str(first_line_and_body(&status).1).unwrap();
        assert_eq!(json["state"], "waiting");
        let landing = request(address, "/").await;
        assert!(landing.contains("<a href=\"/metrics\">"));
        let other = request(address, "/other").await;
        assert_eq!(first_line_and_body(&other).0, "HTTP/1.1 404 Not Found");
        stop.send(()).unwrap();
        end.await;
    }

    #[tokio::test]
    async fn the_form_is_the_scrapers_choice() {
        let (address, stop, end) = served(shown()).await;
        let accept = "/metrics HTTP/1.1\r\naccept: text/plain;q=0.5\r\n\
            accept: application/openmetrics-text;version=1.0.0\r\nx: ";
        let answer = request(address, accept).await;
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
        assert!(answer.contains(kind), "{answer}");
        assert!(answer.contains("vary: accept\r\n"));
        assert!(answer.ends_with("# EOF\n"));
        stop.send(()).unwrap();
        end.await;
    }

    #[tokio::test]
    async fn ready_follows_the_state() {
        let shown = shown();
        shown
            .status
            .update(|status| status.reason = Some("ip_vs is not loaded".to_owned()));
        let (address, stop, end) = served(shown.clone()).await;
        let waiting = request(address, "/readyz").await;
        assert_eq!(
            first_line_and_body(&waiting),
            (
                "HTTP/1.1 503 Service Unavailable",
                "waiting: ip_vs is not loaded\n"
            )
        );
        shown
            .status
            .update(|status| status.state = status::State::Armed);
        let armed = request(address, "/readyz").await;
        assert_eq!(first_line_and_body(&armed), ("HTTP/1.1 200 OK", "ready\n"));
        stop.send(()).unwrap();
        end.await;
    }

    #[tokio::test]
    async fn idle_connections_do_not_hold_the_end() {
        let (address, stop, end) = served(shown()).await;
        let idle = TcpStream::connect(address).await.unwrap();
        let answer = request(address, "/healthz").await;
        assert!(answer.ends_with("ok\n"));
        stop.send(()).unwrap();
        end.await;
        assert!(TcpStream::connect(address).await.is_err());
        drop(idle);
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "cannot listen on {address}: Address already in use (os error 98); choose another address with --listen"
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_cut_off() {
        let (address, stop, end) = served(shown()).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent
            .write_all(b"GET /metrics HTTP/1.1\r\n")
            .await
            .unwrap();
        let mut rest = Vec::new();
        // Time is paused: it advances to the next timer once nothing else can run.
        silent.read_to_end(&mut rest).await.unwrap();
        let text = String::from_utf8(rest).unwrap();
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 408"),
            "{text}"
        );
        stop.send(()).unwrap();
        end.await;
    }
}
