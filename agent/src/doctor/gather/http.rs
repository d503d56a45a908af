//! One small question by HTTP to a program on this node.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// On the same node an answer comes in milliseconds; a hung program must not hang the doctor.
const LIMIT: Duration = Duration::from_secs(3);

/// `/status` has some kilobytes, plus some hundred bytes per namespace.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// The body of a 200.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    ask(address, path).map_err(|error| format!("http://{address}{path}: {error}"))
}

fn ask(address: SocketAddr, path: &str) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).map_err(text)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(text)?;
    stream.set_write_timeout(Some(LIMIT)).map_err(text)?;
    // 1.0: the body ends with the connection, in one piece.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .map_err(text)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        status => Err(format!("status {}", status.unwrap_or("missing"))),
    }
}
