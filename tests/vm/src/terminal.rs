//! A program on a terminal of its own, and what its user sees there.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::AsFd as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};

use crate::wait;

/// From the key that ends it to the exit.
const EXIT_LIMIT: Duration = Duration::from_secs(30);

/// A running program with its terminal; killed when dropped.
pub struct Terminal {
    child: Child,
    /// Our end.
    user: File,
    screen: vt100::Parser,
}

impl Terminal {
    /// Starts `command` on a terminal of this size.
    ///
    /// # Errors
    /// There is no terminal, or no such program.
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Result<Self> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(&size, None).context("open a terminal")?;
        let program = File::from(pair.slave);
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(program.try_clone()?)
            .stdout(program)
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        Ok(Self {
            child,
            user: File::from(pair.master),
            screen: vt100::Parser::new(sized(rows)?, sized(columns)?, 0),
        })
    }

    /// Presses keys.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.user.write_all(keys.as_bytes())?)
    }

    /// Waits until what is on the screen satisfies `check`, and returns it.
    ///
    /// # Errors
    /// The last error of `check`, with the screen.
    pub fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        check: impl Fn(&str) -> Result<()>,
    ) -> Result<String> {
        wait::until(what, limit, || {
            self.draw()?;
            let shown = self.screen.screen().contents();
            check(&shown).with_context(|| format!("on the screen:\n{shown}"))?;
            Ok(shown)
        })
    }

    /// Waits until the program has ended; how, and whether the screen is as it was before.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn finish(mut self) -> Result<(ExitStatus, bool)> {
        let status = wait::until("the program to leave its terminal", EXIT_LIMIT, || {
            self.draw()?;
            self.child.try_wait()?.context("it still runs")
        })?;
        self.draw()?;
        let screen = self.screen.screen();
        Ok((status, !screen.alternate_screen() && !screen.hide_cursor()))
    }

    /// Takes in what was drawn meanwhile.
    fn draw(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        loop {
            let mut waiting = [PollFd::new(self.user.as_fd(), PollFlags::POLLIN)];
            poll(&mut waiting, PollTimeout::ZERO)?;
            let readable = waiting[0].revents().unwrap_or(PollFlags::empty());
            if !readable.contains(PollFlags::POLLIN) {
                return Ok(());
            }
            let count = self.user.read(&mut bytes)?;
            self.screen.process(&bytes[..count]);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sized(length: u16) -> Result<NonZero<u16>> {
    NonZero::new(length).context("a terminal without columns or rows")
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[test]
    fn what_is_drawn_is_seen_and_keys_arrive() {
        let script = r"stty -echo; printf '\033[?1049h\033[2;3Hready'; read key; printf '\033[?1049l'; test $key = x";
        let mut terminal = Terminal::start(Command::new("sh").args(["-c", script]), 20, 4).unwrap();
        let limit = Duration::from_secs(30);
        let shown = terminal.wait_for("the word", limit, |shown| {
            ensure!(shown.contains("ready"));
            Ok(())
        });
        assert_eq!(shown.unwrap(), "\n  ready");
        terminal.press("x\n").unwrap();
        let (status, restored) = terminal.finish().unwrap();
        assert!(status.success() && restored, "{status}");
    }
}
