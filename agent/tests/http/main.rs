//! The HTTP server as clients meet it, bad ones above all: TLS, users, and every kind of abuse.
//!
//! Every test has a server of its own on a free port of the loopback, and counts what was refused
//! by asking that server for `/metrics`.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(clippy::panic, reason = "as above")]

mod abuse;
mod client;
mod hostile;
mod passwords;
mod served;
mod tls;
