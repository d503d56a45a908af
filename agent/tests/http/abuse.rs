//! Clients that do not play by the rules, without TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Duration;

use ipvs_lens::clock;

use crate::client::{
    connect, connect_without_buffer, eventually, get, refused, request, rest, split,
};
use crate::served::Served;

/// Far below the 5 seconds that idle connections may keep a seat.
const AT_ONCE: Duration = Duration::from_secs(4);

#[test]
fn two_hundred_idle_connections_keep_nobody_out() {
    const IDLE: usize = 200;
    let served = Served::plain();
    let idle: Vec<TcpStream> = (0..IDLE).map(|_| connect(served.address)).collect();
    let since = clock::now();
    assert_eq!(
        get(served.address, "/healthz"),
        (200, "ok\nobserver has not run yet\n".to_owned())
    );
    let (status, exposition) = get(served.address, "/metrics");
    assert!(
        clock::now().since(since) < AT_ONCE,
        "{:?}",
        clock::now().since(since)
    );
    assert_eq!(status, 200);
    assert!(refused(&exposition, "displaced") > 0);
    assert_eq!(refused(&exposition, "connections"), 0);
    for stream in idle {
        assert_eq!(rest(stream), "");
    }
    // Everyone beyond the seats was displaced, the others left for want of a request: which of
    // them is which depends on how fast they came, their number does not.
    let left = || {
        let exposition = get(served.address, "/metrics").1;
        refused(&exposition, "displaced") + refused(&exposition, "header_timeout")
    };
    assert_eq!(eventually(left, |count| *count >= IDLE as u64), IDLE as u64);
}

/// Asks for a large exposition and reads none of it beyond the first bytes.
fn reads_nothing(served: &Served) -> TcpStream {
    let mut stream = connect_without_buffer(served.address);
    stream
        .write_all(request("/metrics", "").as_bytes())
        .unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    stream
}

#[test]
fn readers_of_one_byte_a_second_give_way_to_a_scraper() {
    // 5 MB: more than the buffers on both sides.
    let served = Served::with_series(40_000);
    let slow: Vec<_> = (0..4).map(|_| reads_nothing(&served)).collect();
    let readers: Vec<_> = slow.into_iter().map(one_byte_a_second).collect();
    // A fifth reader: it waits until one of the slow has had its second.
    let (status, exposition) = get(served.address, "/metrics");
    assert_eq!(status, 200);
    assert_eq!(
        exposition.matches("decision=\"scheduled\"} 7\n").count(),
        40_000
    );
    // The fifth was written before it was counted who made room for it.
    let counts = || {
        let exposition = get(served.address, "/metrics").1;
        let of = |reason| refused(&exposition, reason);
        (of("displaced"), of("slow_reader"))
    };
    assert!(counts().0 >= 1, "{:?}", counts());
    // The others go when their ten seconds are over, if no scrape has needed their place.
    let (displaced, slow) = eventually(counts, |(displaced, slow)| displaced + slow >= 4);
    assert_eq!(displaced + slow, 4, "{displaced} displaced, {slow} slow");
    for reader in readers {
        let bytes = reader.join().unwrap();
        assert!(bytes < 60, "{bytes} bytes in a test of a minute at most");
    }
}

/// Reads so slowly until the server has had enough; returns how many bytes it got.
fn one_byte_a_second(mut stream: TcpStream) -> JoinHandle<usize> {
    std::thread::spawn(move || {
        let mut bytes = 0;
        // What the kernel has taken is still there to be read after the server has gone: only a
        // write shows it.
        while stream.write_all(b"\r\n").is_ok() && stream.read(&mut [0]).is_ok() {
            bytes += 1;
            std::thread::sleep(Duration::from_secs(1));
        }
        bytes
    })
}

#[test]
fn a_megabyte_of_headers_is_refused_early() {
    let served = Served::plain();
    let mut stream = connect(served.address);
    let field = format!("x-filler: {}\r\n", "a".repeat(1000));
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    // The server has enough after 16 KiB: the rest waits in the kernel's buffers or is reset.
    for _ in 0..1000 {
        if stream.write_all(field.as_bytes()).is_err() {
            break;
        }
    }
    let answer = rest(stream);
    assert!(answer.is_empty() || split(&answer).0 == 431, "{answer}");
    let (_, exposition) = get(served.address, "/metrics");
    assert_eq!(refused(&exposition, "header_too_large"), 1);
}

#[test]
fn too_many_fields_are_told_so() {
    let served = Served::plain();
    let fields = "a: b\r\n".repeat(65);
    let mut stream = connect(served.address);
    stream
        .write_all(request("/healthz", &fields).as_bytes())
        .unwrap();
    assert_eq!(split(&rest(stream)).0, 431);
    let (_, exposition) = get(served.address, "/metrics");
    assert_eq!(refused(&exposition, "header_too_large"), 1);
}

#[test]
fn what_is_no_http_is_told_so() {
    let served = Served::plain();
    let mut stream = connect(served.address);
    stream
        .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        .unwrap();
    assert_eq!(split(&rest(stream)).0, 400);
    let (_, exposition) = get(served.address, "/metrics");
    assert_eq!(refused(&exposition, "malformed"), 1);
}

#[test]
fn other_methods_and_bodies_get_nothing() {
    let served = Served::plain();
    let mut stream = connect(served.address);
    let post = "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n";
    stream.write_all(post.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 405");
}

#[test]
fn http_1_1_needs_exactly_one_host() {
    let served = Served::plain();
    let answer = |text: &str| {
        let mut stream = connect(served.address);
        stream.write_all(text.as_bytes()).unwrap();
        split(&rest(stream)).0
    };
    let end = "connection: close\r\n\r\n";
    for path in ["/healthz", "/metrics"] {
        assert_eq!(answer(&format!("GET {path} HTTP/1.1\r\n{end}")), 400);
        let two = format!("GET {path} HTTP/1.1\r\nhost: a\r\nhost: b\r\n{end}");
        assert_eq!(answer(&two), 400);
        assert_eq!(answer(&format!("GET {path} HTTP/1.0\r\n\r\n")), 200);
    }
    let (_, exposition) = get(served.address, "/metrics");
    assert_eq!(refused(&exposition, "malformed"), 4);
}
