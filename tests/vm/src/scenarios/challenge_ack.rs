//! Ports that come back while their server still has the connection: it answers with a challenge
//! ACK, the client resets the old connection and sends its SYN again at once. Nothing is lost.

use anyhow::{Result, ensure};

use crate::agent::{self, Agent};
use crate::director::{self, Transport};
use crate::expect::Expected;
use crate::lab::Lab;
use crate::socket::Close;
use crate::topology::RS1;

/// Source ports of the clients.
const PORTS: std::ops::Range<u16> = 40_000..40_006;

/// Plays the story.
pub fn run(lab: &mut Lab) -> Result<()> {
    director::load(&[("conn_reuse_mode", "0")])?;
    director::add_service(Transport::Tcp, &[RS1])?;
    let agent = Agent::start()?;
    let mut vanish = Lab::plan(PORTS.collect());
    vanish.close = Close::Vanish;
    let vanished = lab.run_all_answered(&vanish)?;
    let back = lab.run_all_answered(&Lab::plan(PORTS.collect()))?;
    let again = usize::try_from(back.syn_retransmits())?;
    ensure!(
        again == back.attempts(),
        "{again} SYNs sent again, want one for each port: {back:?}"
    );
    let attempts = vanished.attempts() + back.attempts();
    agent.expect(
        &Expected::none()
            .decision("scheduled", vanished.attempts())
            .decision("reused", back.attempts())
            .new_connections(RS1, attempts)
            .retransmits("challenge_ack", again),
    )?;
    agent.terminate()?;
    agent::ensure_not_logged(&["SYN", "connect "])
}
