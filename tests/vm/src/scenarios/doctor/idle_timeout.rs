//! A connection that is silent for longer than IPVS remembers it is reset at its next packet; the
//! doctor notes the timeout, and its command keeps such connections.

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::clinic::Visit;
use crate::director::{self, Transport};
use crate::lab::Lab;
use crate::topology::{CLIENT_NETNS, REAL_SERVERS, VIP};
use crate::{command, listener};

/// IPVS's timeout of an open connection before the cure.
const FORGOTTEN_AFTER_SECONDS: u64 = 4;
/// Silence of the client.
const PAUSE: Duration = Duration::from_secs(3 * FORGOTTEN_AFTER_SECONDS);

/// Plays the story.
pub fn run(_lab: &mut Lab) -> Result<()> {
    director::load(&[])?;
    director::add_service(Transport::Tcp, &REAL_SERVERS)?;
    command::line(&format!("ipvsadm --set {FORGOTTEN_AFTER_SECONDS} 0 0"))?;
    ensure!(is_reset_after_pause()?, "the idle connection went on");
    let prescription = Visit::pay()?.note("idle_timeout")?;
    prescription.take()?;
    Visit::pay()?.ensure_ok("idle_timeout")?;
    ensure!(!is_reset_after_pause()?, "reset in spite of the cure");
    prescription.undo()?;
    Visit::pay()?.note("idle_timeout").map(drop)
}

/// Opens a connection, says nothing for a while, and sends; whether that was answered by a RST.
fn is_reset_after_pause() -> Result<bool> {
    let mut connection = listener::connect(CLIENT_NETNS, VIP.into())?;
    let mut name = [0; 3];
    connection.read_exact(&mut name)?;
    std::thread::sleep(PAUSE);
    connection.write_all(b"still here")?;
    connection.set_read_timeout(Some(Duration::from_secs(3)))?;
    match connection.read(&mut [0]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(true),
        // Silence, or the server's own end.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        other => {
            other?;
            Ok(false)
        }
    }
}
