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
    let (address, stop, end) = served(shown());
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
    assert_eq!(first_line_and_body(&armed), ("HTTP/1.1 200 OK", "ready\n"));
    stop.send(()).unwrap();
    end.await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end() {
    let (address, stop, end) = served(shown());
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
