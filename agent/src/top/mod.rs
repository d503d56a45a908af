//! `ipvs-lens top`: the tables as they are now, on a terminal or printed once.
//!
//! It observes like `run` and shows what it reads. `view` and `lines` are pure, `screen` is the
//! terminal.

pub mod screen;

pub use agent_core::top::{lines, view};

use std::io::{self, IsTerminal as _, Write as _};

use crate::clock::{self, MonoNs, WallAnchor};
use crate::finding::Finding;
use crate::observer::Sink;
use crate::settings::Format;
use crate::table::tables::Tables;
use lines::{Follows, Key, Keys};
use screen::Screen;
use view::{Choice, View};

/// Whether stdout is a terminal somebody sits at.
#[must_use]
pub fn has_terminal() -> bool {
    io::stdout().is_terminal()
}

/// What ends observing when nothing more is wanted, as for any output that is not read.
fn enough() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

/// Prints the tables once, when they and the rates are known.
#[derive(Debug)]
pub struct Once {
    /// Which rows, in which order.
    pub choice: Choice,
    /// Lines for people or for programs.
    pub format: Format,
    printed: bool,
}

impl Once {
    /// Nothing printed yet.
    #[must_use]
    pub const fn new(choice: Choice, format: Format) -> Self {
        Self {
            choice,
            format,
            printed: false,
        }
    }

    fn print(&self, view: &View) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Text => out.write_all(view::plain(view, &self.choice).as_bytes())?,
            Format::Json => {
                for row in view.rows(&self.choice) {
                    serde_json::to_writer(&mut out, &row)?;
                    out.write_all(b"\n")?;
                }
            }
        }
        out.flush()
    }
}

impl Sink for Once {
    fn finding(&mut self, _: MonoNs, _: &Finding, _: &WallAnchor) -> io::Result<()> {
        Ok(())
    }

    fn tables(&mut self, now: MonoNs, tables: &Tables) -> io::Result<()> {
        // A rate needs two readings. A table that cannot be read is said in the title.
        if tables.counted() < 2 || self.printed {
            return Ok(());
        }
        self.printed = true;
        self.print(&View::of(tables, now, &clock::wall_anchor()))?;
        Err(enough())
    }

    fn tick(&mut self, _: MonoNs) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self) {}
}

/// Shows the tables until somebody has seen enough.
///
/// A terminal that takes its time holds up the reading of records meanwhile; counters are exact
/// all the same.
#[derive(Debug)]
pub struct Live {
    screen: Screen,
    keys: Keys,
    view: View,
    /// Whether something changed since the last drawing.
    changed: bool,
}

impl Live {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// As [`Screen::open`].
    pub fn open(choice: Choice) -> io::Result<Self> {
        Ok(Self {
            screen: Screen::open()?,
            keys: Keys::new(choice),
            view: View::waiting(),
            changed: true,
        })
    }
}

impl Sink for Live {
    fn finding(&mut self, _: MonoNs, _: &Finding, _: &WallAnchor) -> io::Result<()> {
        Ok(())
    }

    fn tables(&mut self, now: MonoNs, tables: &Tables) -> io::Result<()> {
        self.view = View::of(tables, now, &clock::wall_anchor());
        self.changed = true;
        Ok(())
    }

    /// Keys are read at every tick.
    fn is_interactive(&self) -> bool {
        true
    }

    fn tick(&mut self, _: MonoNs) -> io::Result<()> {
        while let Some(key) = Screen::key()? {
            let (_, rows) = Screen::size();
            if self.keys.handle(key, rows) == Follows::Quit {
                return Err(enough());
            }
            if key == Key::Resized {
                self.screen.forget();
            }
            self.changed = true;
        }
        if std::mem::take(&mut self.changed) {
            let (columns, rows) = Screen::size();
            let lines = self.keys.lines(&self.view, columns, rows);
            self.screen.draw(&lines)?;
        }
        Ok(())
    }

    fn finish(&mut self) {}
}
