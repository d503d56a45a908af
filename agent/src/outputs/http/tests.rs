//! The pages over plain HTTP; `agent/tests/http.rs` has TLS, users and abuse.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;
use crate::outputs::metrics::BuildInfo;
use crate::status;

fn shown() -> Shown {
    Shown {
        metrics: Arc::new(Metrics::new(BuildInfo::THIS)),
        status: SharedStatus::default(),
    }
}

/// A served address, a way to stop it, and the server's end.
fn served(shown: Shown) -> (SocketAddr, oneshot::Sender<()>, impl Future<Output = ()>) {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async move { stopped.await.unwrap() };
    let web = Arc::new(Web::plain());
    let server = tokio::spawn(serve(listener, shown, web, Reload::default(), shutdown));
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
    let (address, stop, end) = served(shown.clone());
    let metrics = request(address, "/metrics").await;
    let text = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
    assert!(metrics.contains(text), "{metrics}");
    assert_eq!(first_line_and_body(&metrics).0, "HTTP/1.1 200 OK");
    assert!(metrics.contains("\nipvs_lens_build_info{"));
    let health = request(address, "/healthz").await;
    let healthy = ("HTTP/1.1 200 OK", "ok\nobserver has not run yet\n");
    assert_eq!(first_line_and_body(&health), healthy);
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
    let (address, stop, end) = served(shown());
    let accept = "/metrics HTTP/1.1\r\naccept: text/plain;q=0.5\r\n\
        accept: application/openmetrics-text;version=1.0.0\r\nx: ";
    let answer = request(address, accept).await;
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(answer.contains(kind), "{answer}");
    assert!(answer.contains("vary: accept, accept-encoding\r\n"));
    assert!(!answer.contains("content-encoding"));
    assert!(answer.ends_with("# EOF\n"));
    stop.send(()).unwrap();
    end.await;
}

#[tokio::test]
async fn a_scraper_that_accepts_gzip_gets_it() {
    let (address, stop, end) = served(shown());
    let plain = request(address, "/metrics").await;
    let plain = first_line_and_body(&plain).1.to_owned();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let asked = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        accept-encoding: deflate\r\naccept-encoding: gzip;q=0.9\r\n\r\n";
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end_of_head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end_of_head.unwrap() + 4);
    let head = String::from_utf8_lossy(head);
    assert!(head.contains("content-encoding: gzip\r\n"), "{head}");
    let length = format!("content-length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}");
    let mut unpacked = String::new();
    let mut decoder = flate2::read::GzDecoder::new(body);
    io::Read::read_to_string(&mut decoder, &mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
    assert!(body.len() * 3 < plain.len(), "{} bytes", body.len());
    stop.send(()).unwrap();
    end.await;
}

#[tokio::test]
async fn ready_follows_the_state() {
    let shown = shown();
    shown
        .status
        .update(|status| status.reason = Some("ip_vs is not loaded".to_owned()));
    let (address, stop, end) = served(shown.clone());
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
    let (status, body) = first_line_and_body(&armed);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(body, "ready\nobserver has not run yet\n");
    stop.send(()).unwrap();
    end.await;
}

#[tokio::test]
async fn a_stalled_observer_is_neither_ready_nor_healthy_and_the_limits_are_named() {
    let shown = shown();
    shown
        .status
        .update(|status| status.state = status::State::Armed);
    let (address, stop, end) = served(shown.clone());
    let answer = async |path| {
        let answer = request(address, path).await;
        let (status, body) = first_line_and_body(&answer);
        (status.to_owned(), body.to_owned())
    };
    shown.status.observer_runs(clock::now());
    let ready = answer("/readyz").await;
    assert_eq!(ready.0, "HTTP/1.1 200 OK");
    assert!(
        ready.1.starts_with("ready\nobserver last ran 0."),
        "{}",
        ready.1
    );
    let ago = |seconds| clock::now() - Duration::from_secs(seconds);
    shown.status.observer_runs(ago(11));
    let stalled = answer("/readyz").await;
    assert_eq!(stalled.0, "HTTP/1.1 503 Service Unavailable");
    assert!(
        stalled.1.starts_with("observer stalled: last ran 11."),
        "{}",
        stalled.1
    );
    assert!(stalled.1.ends_with(" s ago, limit 10 s\n"), "{}", stalled.1);
    assert_eq!(answer("/healthz").await.0, "HTTP/1.1 200 OK");
    shown.status.observer_runs(ago(61));
    let dead = answer("/healthz").await;
    assert_eq!(dead.0, "HTTP/1.1 503 Service Unavailable");
    assert!(dead.1.ends_with(" s ago, limit 60 s\n"), "{}", dead.1);
    let status = answer("/status").await.1;
    let json: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(json["observer_last_run_ms_ago"].as_u64().unwrap() >= 61_000);
    stop.send(()).unwrap();
    end.await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end() {
    let (address, stop, end) = served(shown());
    let idle = TcpStream::connect(address).await.unwrap();
    let answer = request(address, "/healthz").await;
    assert!(answer.contains("\r\n\r\nok\n"));
    stop.send(()).unwrap();
    end.await;
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}

#[tokio::test(start_paused = true)]
#[expect(
    clippy::disallowed_methods,
    reason = "the paused clock of the runtime, which only timers move"
)]
async fn half_a_request_holds_the_end_for_the_stopping_time_only() {
    let (address, stop, end) = served(shown());
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    // Answered after the half was accepted and read.
    request(address, "/healthz").await;
    let began = tokio::time::Instant::now();
    stop.send(()).unwrap();
    end.await;
    // Time is paused: only timers take any.
    let took = began.elapsed();
    let limit = STOPPING_TIME..STOPPING_TIME + Duration::from_millis(10);
    assert!(limit.contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(address).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "cannot listen on {address}: Address already in use (os error 98); choose another address with --listen"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_cut_off() {
    let (address, stop, end) = served(shown());
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
