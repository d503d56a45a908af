//! Requests that are nearly right: each is answered or refused, and the server stays.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

use crate::client::{connect, get};
use crate::served::Served;

/// Requests, unless `PROPTEST_CASES` says otherwise.
const REQUESTS: u32 = 500;

const SEEDS: &[&str] = &[
    "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text;version=1.0.0\r\n\r\n",
    "GET /status HTTP/1.1\r\nhost: x\r\nauthorization: Basic dTpw\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "POST /metrics HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "GET /healthz HTTP/1.0\r\ncontent-length: 3\r\n\r\nabc",
];

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<Index>(), any::<bool>(), any::<u8>()), 0..10);
    (select(SEEDS), edits).prop_map(|(seed, edits)| {
        let mut bytes = seed.as_bytes().to_vec();
        for (at, insert, byte) in edits {
            let at = at.index(bytes.len() + 1);
            let tail = bytes.split_off(at);
            bytes.push(byte);
            bytes.extend(tail.into_iter().skip(usize::from(!insert)));
        }
        bytes
    })
}

#[test]
fn requests_that_are_nearly_right_are_answered_or_refused() {
    let served = Served::plain();
    let set = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if set {
        Config::default().cases
    } else {
        REQUESTS
    };
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let answered = runner.run(&requests(), |request| {
        let mut stream = connect(served.address);
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        // A server that has read enough may close before everything is sent.
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        prop_assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1."),
            "{answer:?}"
        );
        Ok(())
    });
    answered.unwrap();
    assert_eq!(get(served.address, "/healthz").0, 200);
}
