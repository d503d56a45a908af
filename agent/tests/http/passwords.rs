//! Basic authentication and the rate limit.

use std::net::SocketAddr;
use std::time::Duration;

use ipvs_lens::clock;

use crate::client::{get, get_with, refused};
use crate::served::{Directory, Served};

/// `right` at bcrypt cost 4, the lowest, so that tests are about order and not about time.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuuFmEfrkTQnczNzw475xE2VhDrK1uwJiC";

/// `alice:right`, `alice:wrong`, `nobody:right` in base64.
const RIGHT: &str = "authorization: Basic YWxpY2U6cmlnaHQ=\r\n";
const WRONG: &str = "authorization: Basic YWxpY2U6d3Jvbmc=\r\n";
const NOBODY: &str = "authorization: Basic bm9ib2R5OnJpZ2h0\r\n";

fn served(rest: &str) -> (Directory, Served) {
    let directory = Directory::new();
    let text = format!("basic_auth_users:\n  alice: {HASH}\n{rest}");
    let served = Served::with_file(&directory.write("web.yml", &text));
    (directory, served)
}

fn exposition(address: SocketAddr) -> String {
    let (status, exposition) = get_with(address, "/metrics", RIGHT);
    assert_eq!(status, 200);
    exposition
}

#[test]
fn only_the_right_password_opens() {
    let (_directory, served) = served("http_server_config: {headers: {X-Frame-Options: deny}}\n");
    let address = served.address;
    for path in ["/metrics", "/status", "/", "/nowhere"] {
        assert_eq!(get(address, path).0, 401, "{path}");
    }
    for headers in [
        WRONG,
        NOBODY,
        WRONG,
        "authorization: Bearer x\r\n",
        "authorization: Basic ?\r\n",
    ] {
        assert_eq!(get_with(address, "/metrics", headers).0, 401, "{headers}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_ne!(get(address, path).0, 401, "{path} is for probes");
    }
    let exposition = exposition(address);
    assert_eq!(refused(&exposition, "unauthorized"), 9);
    let (_, status) = get_with(address, "/status", RIGHT);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["web"]["basic_auth"], true);
    assert_eq!(status["web"]["error"], serde_json::Value::Null);
}

#[test]
fn answers_carry_the_headers_and_the_challenge() {
    use std::io::Write;
    let (_directory, served) = served("http_server_config: {headers: {X-Frame-Options: deny}}\n");
    let mut stream = crate::client::connect(served.address);
    let request = crate::client::request("/metrics", "");
    stream.write_all(request.as_bytes()).unwrap();
    let answer = crate::client::rest(stream);
    assert!(
        answer.contains("www-authenticate: Basic realm=\"ipvs-lens\"\r\n"),
        "{answer}"
    );
    assert!(answer.contains("x-frame-options: deny\r\n"), "{answer}");
}

/// Guesses cost the server little and the one who knows the password nothing.
#[test]
fn guessing_does_not_keep_the_scraper_out() {
    const GUESSES: usize = 60;
    let (_directory, served) = served("");
    let address = served.address;
    exposition(address);
    let guessers: Vec<_> = (0..GUESSES)
        .map(|i| {
            // "alice:" and a password not tried before.
            let guess = format!("authorization: Basic YWxpY2U6{i:04}\r\n");
            std::thread::spawn(move || get_with(address, "/metrics", &guess).0)
        })
        .collect();
    let since = clock::now();
    exposition(address);
    assert!(
        clock::now().since(since) < Duration::from_secs(4),
        "{:?}",
        clock::now().since(since)
    );
    let answers: Vec<_> = guessers
        .into_iter()
        .map(|one| one.join().unwrap())
        .collect();
    let exposition = exposition(address);
    let count = |status| answers.iter().filter(|found| **found == status).count() as u64;
    assert_eq!(refused(&exposition, "unauthorized"), count(401));
    assert_eq!(refused(&exposition, "auth_busy"), count(503));
    assert_eq!(count(401) + count(503), GUESSES as u64);
}

#[test]
fn requests_over_the_rate_are_refused() {
    let (_directory, served) = served("rate_limit: {interval: 1h, burst: 3}\n");
    let answers: Vec<_> = (0..5)
        .map(|_| get_with(served.address, "/", RIGHT).0)
        .collect();
    assert_eq!(answers, [200, 200, 200, 429, 429]);
    assert_eq!(get(served.address, "/healthz").0, 200);
}
