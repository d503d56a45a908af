//! The terminal: keys in, lines out. Sends only lines that changed, which a slow line needs.

use std::io::{self, Stdout, Write as _};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use crossterm::{cursor, queue};

use super::lines::{Key, Line, Mark};

/// The terminal in the mode of full-screen programs; as it was before when dropped.
#[derive(Debug)]
pub struct Screen {
    out: Stdout,
    shown: Vec<Line>,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// It is none, or does not obey.
    pub fn open() -> io::Result<Self> {
        enable_raw_mode()?;
        let mut screen = Self {
            out: io::stdout(),
            shown: Vec::new(),
        };
        queue!(screen.out, EnterAlternateScreen, cursor::Hide)?;
        screen.out.flush()?;
        Ok(screen)
    }

    /// Columns and rows; those of a small terminal when it does not say.
    #[must_use]
    pub fn size() -> (usize, usize) {
        let (columns, rows) = terminal::size().unwrap_or((80, 24));
        (columns.into(), rows.into())
    }

    /// The next key that waits.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn key() -> io::Result<Option<Key>> {
        while event::poll(Duration::ZERO)? {
            let key = match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => meaning(key),
                Event::Resize(..) => Some(Key::Resized),
                _ => None,
            };
            if key.is_some() {
                return Ok(key);
            }
        }
        Ok(None)
    }

    /// Everything is drawn again the next time.
    pub fn forget(&mut self) {
        self.shown.clear();
    }

    /// Shows these lines from the top; what differs from what is there is sent.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&mut self, lines: &[Line]) -> io::Result<()> {
        if self.shown.is_empty() {
            queue!(self.out, Clear(ClearType::All))?;
        }
        for (row, line) in (0..).zip(lines) {
            if self.shown.get(usize::from(row)) != Some(line) {
                queue!(self.out, cursor::MoveTo(0, row))?;
                put(&mut self.out, line)?;
                queue!(self.out, Clear(ClearType::UntilNewLine))?;
            }
        }
        for row in lines.len()..self.shown.len() {
            let row = u16::try_from(row).unwrap_or(u16::MAX);
            queue!(
                self.out,
                cursor::MoveTo(0, row),
                Clear(ClearType::UntilNewLine)
            )?;
        }
        self.out.flush()?;
        self.shown = lines.to_vec();
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done for a terminal that does not obey any more.
        drop(queue!(self.out, cursor::Show, LeaveAlternateScreen));
        drop(self.out.flush());
        drop(disable_raw_mode());
    }
}

fn put(out: &mut Stdout, line: &Line) -> io::Result<()> {
    match line.mark {
        Mark::Plain => {}
        Mark::Head => queue!(out, SetAttribute(Attribute::Reverse))?,
        Mark::Service => queue!(out, SetAttribute(Attribute::Bold))?,
        Mark::Draining => queue!(out, SetForegroundColor(Color::Yellow))?,
        Mark::Bad => queue!(out, SetForegroundColor(Color::Red))?,
    }
    queue!(
        out,
        Print(&line.text),
        ResetColor,
        SetAttribute(Attribute::Reset)
    )
}

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Key::Interrupt);
    }
    Some(match key.code {
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Enter => Key::Enter,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Esc => Key::Escape,
        KeyCode::Up => Key::Scroll(-1),
        KeyCode::Down => Key::Scroll(1),
        KeyCode::PageUp => Key::Page(-1),
        KeyCode::PageDown => Key::Page(1),
        KeyCode::Home => Key::Home,
        _ => return None,
    })
}
