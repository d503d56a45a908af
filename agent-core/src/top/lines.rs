//! What keys do, and the lines of the screen.
//!
//! PURE.

use super::view::{Choice, Group, Row, View, cells, columns_width, head, line};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A letter or sign.
    Char(char),
    /// The end of a filter.
    Enter,
    /// The last letter of a filter is taken back.
    Backspace,
    /// A filter is given up.
    Escape,
    /// This many lines down; up when negative.
    Scroll(i32),
    /// This many pages down.
    Page(i32),
    /// To the first line.
    Home,
    /// The terminal's size changed.
    Resized,
    /// Ctrl-C.
    Interrupt,
}

/// How a line stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Not at all.
    Plain,
    /// The head of the table.
    Head,
    /// A service.
    Service,
    /// A draining real server.
    Draining,
    /// One that gets stale connections, drops, or starves.
    Bad,
}

/// One line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its text, no wider than the screen.
    pub text: String,
    /// How it stands out.
    pub mark: Mark,
}

/// What the keys have chosen so far.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Which rows are shown.
    pub choice: Choice,
    /// Lines scrolled away.
    scrolled: usize,
    /// Whether letters go to the filter.
    typing: bool,
}

/// What follows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Nothing but a new screen.
    Draw,
    /// The end.
    Quit,
}

/// Lines that are not the table's: title, head, keys.
const FRAME_LINES: usize = 3;

/// Fewer characters of a name are of no use; what is right of a narrow screen is cut off instead.
const NAME_MIN: usize = 12;

/// The keys, as the last line names them.
const HELP: &str = "q quit  s sort  r reverse  / filter  a abnormal only  arrows, PgUp, PgDn";

impl Keys {
    /// Nothing pressed yet.
    #[must_use]
    pub fn new(choice: Choice) -> Self {
        Self {
            choice,
            ..Self::default()
        }
    }

    /// Does what a key asks for, on a screen of `rows` rows.
    pub fn handle(&mut self, key: Key, rows: usize) -> Follows {
        let page = i32::try_from(rows.saturating_sub(FRAME_LINES)).unwrap_or(i32::MAX);
        match key {
            Key::Interrupt => return Follows::Quit,
            Key::Char('q') if !self.typing => return Follows::Quit,
            Key::Char(letter) if self.typing => self.choice.filter.push(letter),
            Key::Backspace if self.typing => drop(self.choice.filter.pop()),
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.choice.filter.clear();
            }
            Key::Char('s') => self.choice.sort = self.choice.sort.next(),
            Key::Char('r') => self.choice.reverse = !self.choice.reverse,
            Key::Char('a') => self.choice.abnormal_only = !self.choice.abnormal_only,
            Key::Char('/') => self.typing = true,
            Key::Scroll(lines) => self.scroll(lines),
            Key::Page(pages) => self.scroll(pages.saturating_mul(page)),
            Key::Home => self.scrolled = 0,
            Key::Char(_) | Key::Backspace | Key::Resized => {}
        }
        Follows::Draw
    }

    fn scroll(&mut self, lines: i32) {
        let by = usize::try_from(lines.unsigned_abs()).unwrap_or(usize::MAX);
        self.scrolled = if lines < 0 {
            self.scrolled.saturating_sub(by)
        } else {
            self.scrolled.saturating_add(by)
        };
    }

    /// The screen, `columns` wide and `rows` high.
    pub fn lines(&mut self, view: &View, columns: usize, rows: usize) -> Vec<Line> {
        let width = columns.saturating_sub(columns_width()).max(NAME_MIN);
        let body: Vec<Line> = view
            .groups(&self.choice)
            .iter()
            .flat_map(|group| group_lines(group, width))
            .collect();
        let room = rows.saturating_sub(FRAME_LINES);
        self.scrolled = self.scrolled.min(body.len().saturating_sub(room));
        let plain = |text: &str, mark| Line {
            text: text.chars().take(columns).collect(),
            mark,
        };
        let mut lines = vec![
            plain(&view.title, Mark::Plain),
            plain(&head(width), Mark::Head),
        ];
        let shown = body.into_iter().skip(self.scrolled).take(room);
        lines.extend(shown.map(|line| plain(&line.text, line.mark)));
        lines.resize(rows.saturating_sub(1), plain("", Mark::Plain));
        lines.push(plain(&self.footer(), Mark::Plain));
        lines
    }

    fn footer(&self) -> String {
        if self.typing {
            return format!("filter: {}_  (Enter keeps, Esc clears)", self.choice.filter);
        }
        let mut chosen = format!("[{}", self.choice.sort.as_str());
        if self.choice.reverse {
            chosen.push_str(" reversed");
        }
        if self.choice.abnormal_only {
            chosen.push_str(", abnormal");
        }
        if !self.choice.filter.is_empty() {
            chosen.push_str(", /");
            chosen.push_str(&self.choice.filter);
        }
        format!("{chosen}] {HELP}")
    }
}

fn group_lines(group: &Group, width: usize) -> impl Iterator<Item = Line> {
    let service = Line {
        text: format!("{} {}", group.name, group.kind),
        mark: Mark::Service,
    };
    let rows = group.rows.iter().map(move |row| Line {
        text: line(&format!("  {}", row.name()), width, &cells(row)),
        mark: mark(row),
    });
    std::iter::once(service).chain(rows)
}

fn mark(row: &Row) -> Mark {
    if row.stale_per_s > 0.0 || row.dropped_per_s > 0.0 || row.starved {
        Mark::Bad
    } else if row.weight == 0 {
        Mark::Draining
    } else {
        Mark::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::sample_view;
    use super::*;
    use crate::top::view::SortBy;

    fn press(keys: &mut Keys, pressed: &str) {
        for letter in pressed.chars() {
            let key = match letter {
                '\n' => Key::Enter,
                letter => Key::Char(letter),
            };
            assert_eq!(keys.handle(key, 24), Follows::Draw);
        }
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.trim_end()).collect()
    }

    #[test]
    fn a_screen_of_80_columns_is_not_overrun() {
        let mut keys = Keys::default();
        let lines = keys.lines(&sample_view(), 80, 24);
        assert_eq!(lines.len(), 24);
        assert!(lines.iter().all(|line| line.text.chars().count() <= 80));
        assert_eq!(lines[1].text.chars().count(), 80);
        assert!(lines[23].text.contains("q quit"));
        let bad = lines.iter().filter(|line| line.mark == Mark::Bad).count();
        assert_eq!(bad, 1);
    }

    #[test]
    fn letters_choose_sort_and_filter() {
        let mut keys = Keys::default();
        press(&mut keys, "sra/10.1.3\n");
        assert_eq!(
            (keys.choice.sort, keys.choice.reverse),
            (SortBy::Active, true)
        );
        assert_eq!(keys.choice.filter, "10.1.3");
        let lines = keys.lines(&sample_view(), 80, 8);
        let expected = [
            "1 services, 0 without real server; 3 real servers, 1 draining",
            "SERVICE / REAL SERVER    WEIGHT ACTIVE  INACT  NEW/s REUSE STALE  DROP  DRAINING",
            "TCP 10.96.0.10:80 rr persistent 300 s",
            "  10.1.3.2:8080               0      3      1      .     .   2.5     . 12m reuse",
        ];
        assert_eq!(texts(&lines)[..4], expected);
        assert_eq!(keys.handle(Key::Escape, 8), Follows::Draw);
        assert_eq!(keys.choice.filter, "");
    }

    #[test]
    fn q_is_a_letter_of_a_filter_and_else_the_end() {
        let mut keys = Keys::default();
        press(&mut keys, "/q");
        assert_eq!(keys.handle(Key::Interrupt, 24), Follows::Quit);
        press(&mut keys, "\n");
        assert_eq!(keys.handle(Key::Char('q'), 24), Follows::Quit);
    }

    #[test]
    fn scrolling_ends_at_the_last_line() {
        let mut keys = Keys::default();
        assert_eq!(keys.handle(Key::Page(9), 5), Follows::Draw);
        // A service and three real servers in two lines.
        let lines = keys.lines(&sample_view(), 80, 5);
        assert!(lines[2].text.contains("10.1.2.2"), "{lines:?}");
        assert!(lines[3].text.contains("10.1.3.2"), "{lines:?}");
        assert_eq!(keys.handle(Key::Home, 5), Follows::Draw);
        assert!(keys.lines(&sample_view(), 80, 5)[2].text.starts_with("TCP"));
    }
}
