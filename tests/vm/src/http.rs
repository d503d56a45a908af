//! The smallest HTTP/1.1 client that can ask the agent a question.
//!
//! Every request closes its connection; an answer in chunks is refused.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Longest wait for one answer: a scrape under emulation takes its time.
const LIMIT: Duration = Duration::from_secs(30);

/// Status and body of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

/// Sends `GET path` to `address`, with more header `fields`, each with its line's end.
///
/// # Errors
/// No listener, no answer in time, or no HTTP in the answer.
pub fn get(address: SocketAddr, path: &str, fields: &str) -> Result<Response> {
    ask(address, path, fields).with_context(|| format!("GET http://{address}{path}"))
}

fn ask(address: SocketAddr, path: &str, fields: &str) -> Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer)
}

fn parse(answer: &str) -> Result<Response> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("no end of the header in {answer:?}"))?;
    ensure!(
        !head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked"),
        "answer in chunks, which this client does not read"
    );
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response {
        status: status.with_context(|| format!("no status code in {head:?}"))?,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_status_and_body() {
        let response = parse("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nno\n");
        assert_eq!(
            response.unwrap(),
            Response {
                status: 503,
                body: "no\n".to_owned()
            }
        );
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        assert!(parse("HTTP/1.1 200 OK\r\n").is_err());
        assert!(parse("nonsense\r\n\r\n").is_err());
        assert!(parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n").is_err());
    }
}
