//! Clients: one that behaves, and the parts of those that do not.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ipvs_lens::clock;

/// Longer than any answer takes on a busy machine, shorter than any wait of the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that does not wait for ever.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A connection whose kernel keeps next to nothing of what is sent to it.
pub fn connect_without_buffer(address: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

/// The text of a request that wants no second one; `headers` end in line ends.
pub fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
}

/// Status and body of one request on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    get_with(address, path, "")
}

/// As [`get`], with more headers.
pub fn get_with(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    exchange(connect(address), &request(path, headers))
}

/// Sends `request` on any connection and reads to its end.
pub fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).unwrap();
    split(&rest(stream))
}

/// Everything until the server closes or resets the connection.
pub fn rest(mut stream: impl Read) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        // TLS without its own farewell.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(bytes).unwrap()
}

/// Status and body of an answer.
pub fn split(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// What an exposition says was refused for `reason`.
pub fn refused(exposition: &str, reason: &str) -> u64 {
    let series = format!("ipvs_lens_http_requests_refused_total{{reason=\"{reason}\"}} ");
    sample(exposition, &series)
}

/// The value of a series, given with the space behind it.
pub fn sample(exposition: &str, series: &str) -> u64 {
    let line = exposition
        .lines()
        .find_map(|line| line.strip_prefix(series));
    let value = line.unwrap_or_else(|| panic!("no {series}in {exposition}"));
    value.parse().unwrap()
}

/// Asks again until `holds`, or fails after a minute.
pub fn eventually<T>(mut ask: impl FnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    let since = clock::now();
    loop {
        let found = ask();
        if holds(&found) {
            return found;
        }
        assert!(clock::now().since(since) < PATIENCE, "not within a minute");
        std::thread::sleep(Duration::from_millis(100));
    }
}
