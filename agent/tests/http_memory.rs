//! What a crowd of bad clients may cost in memory: alone in its process, to be measured.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(clippy::panic, reason = "as above")]
#![expect(dead_code, reason = "the helpers serve other tests too")]

use std::io::{Read as _, Write as _};

#[path = "http/client.rs"]
mod client;
#[path = "http/served.rs"]
mod served;

use client::{connect, connect_without_buffer, get, request};
use served::Served;

/// Resident memory of this process, the server's included.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn a_crowd_does_not_grow_the_server() {
    let served = Served::with_series(40_000);
    // What one scrape takes is there for all that follow.
    let (_, exposition) = get(served.address, "/metrics");
    let before = resident_bytes();
    let idle: Vec<_> = (0..200).map(|_| connect(served.address)).collect();
    let mut slow: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = connect_without_buffer(served.address);
            stream
                .write_all(request("/metrics", "").as_bytes())
                .unwrap();
            stream
        })
        .collect();
    // Everybody has got what there is to get: the first byte of an exposition, a refusal, or the
    // end of the connection.
    for stream in &mut slow {
        let _ = stream.read(&mut [0; 1]);
    }
    let while_reading = resident_bytes();
    let header = format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(15_000));
    let half: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = connect(served.address);
            stream.write_all(header.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(get(served.address, "/healthz").0, 200);
    let grown = while_reading.max(resident_bytes()).saturating_sub(before);
    // Readers held without bound would be 60 expositions and more. Four are being read and one is
    // being written, whose samples and text are as large again several times; allocators keep as
    // much for each thread, 30 expositions on a bad day.
    let allowed = 45 * exposition.len();
    assert!(
        grown < allowed,
        "{grown} bytes, expected less than {allowed}"
    );
    drop((idle, slow, half));
}
