//! Which sums of one family are shown by name, and where the others are counted.
//!
//! A scraper takes a difference between two scrapes of one series for what happened in between, and
//! a fall for a reset. So no number may move from one series to another while both are shown:
//!
//! - A group (a service, or a real server) that is shown for the first time starts at what it has
//!   counted since the last scrape if it is new, and at 0 if it was counted elsewhere before.
//! - **other** rises by whatever was counted in groups that are not shown. It never falls.
//! - What a series had reached when it ended is in **ended**, whose series is another one whenever
//!   its number is.
//!
//! The sum over all three is what was counted, at every scrape.

use std::collections::BTreeMap;

/// One group's values: the reading its life began in, and a number for each row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group<S> {
    /// Number of the reading.
    pub born: u64,
    /// By row.
    pub rows: BTreeMap<S, u64>,
}

/// What one scrape shows of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View<G, S> {
    /// By name.
    pub rows: Vec<(G, S, u64)>,
    /// Counted where it had no name.
    pub other: BTreeMap<S, u64>,
    /// What ended series had reached.
    pub ended: BTreeMap<S, u64>,
    /// When the last of them ended, in the unit of [`Reading::at`].
    pub until: u64,
}

/// A reading of the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// From 1 on.
    pub number: u64,
    /// When it was made, in a unit of the caller's.
    pub at: u64,
}

/// A row as it is shown.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// As much of its number as was counted elsewhere.
    elsewhere: u64,
    shown: u64,
}

/// A family between two scrapes.
#[derive(Clone, Debug)]
pub struct Shelf<G, S> {
    groups: BTreeMap<G, (u64, BTreeMap<S, Row>)>,
    ended: BTreeMap<S, u64>,
    until: u64,
    /// The reading shown last.
    reading: u64,
}

impl<G, S> Default for Shelf<G, S> {
    fn default() -> Self {
        Self {
            groups: BTreeMap::new(),
            ended: BTreeMap::new(),
            until: 0,
            reading: 0,
        }
    }
}

impl<G: Ord + Copy, S: Ord + Copy> Shelf<G, S> {
    /// Whether the group was shown at the last scrape.
    #[must_use]
    pub fn shows(&self, group: &G) -> bool {
        self.groups.contains_key(group)
    }

    /// Shows `chosen`, of `all` rows each, out of the `totals` of a whole `reading`.
    pub fn show(
        &mut self,
        reading: Reading,
        all: &[S],
        chosen: &BTreeMap<G, Group<S>>,
        totals: &BTreeMap<S, u64>,
    ) -> View<G, S> {
        self.end_missing(reading.at, chosen);
        let mut other: BTreeMap<S, u64> = all.iter().map(|row| (*row, 0)).collect();
        for (row, total) in totals {
            other.insert(
                *row,
                total.saturating_sub(self.ended.get(row).copied().unwrap_or(0)),
            );
        }
        let mut rows = Vec::new();
        for (group, values) in chosen {
            let new = values.born > self.reading;
            let known = self.groups.contains_key(group);
            let (_, shown) = self
                .groups
                .entry(*group)
                .or_insert_with(|| (values.born, BTreeMap::new()));
            for row in all {
                let value = values.rows.get(row).copied().unwrap_or(0);
                let begins = Row {
                    elsewhere: if known || new { 0 } else { value },
                    shown: 0,
                };
                let shown = shown.entry(*row).or_insert(begins);
                shown.shown = value.saturating_sub(shown.elsewhere);
                if let Some(rest) = other.get_mut(row) {
                    *rest = rest.saturating_sub(shown.shown);
                }
                rows.push((*group, *row, shown.shown));
            }
        }
        self.reading = reading.number;
        View {
            rows,
            other,
            ended: self.ended.clone(),
            until: self.until,
        }
    }

    /// Ends the series of groups that are not chosen any more, and of lives that are over.
    fn end_missing(&mut self, at: u64, chosen: &BTreeMap<G, Group<S>>) {
        let (ended, until) = (&mut self.ended, &mut self.until);
        // Two scrapes may be made at the same time.
        let next = at.max(*until + 1);
        self.groups.retain(|group, (born, rows)| {
            let goes_on = chosen.get(group).is_some_and(|now| now.born == *born);
            if !goes_on {
                for (row, last) in rows.iter().filter(|(_, last)| last.shown > 0) {
                    *ended.entry(*row).or_default() += last.shown;
                    *until = next;
                }
            }
            goes_on
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(number: u64) -> Reading {
        Reading {
            number,
            at: number * 10,
        }
    }

    const ROWS: [u8; 2] = [1, 2];

    fn group(born: u64, first: u64, second: u64) -> Group<u8> {
        Group {
            born,
            rows: [(1, first), (2, second)].into(),
        }
    }

    #[test]
    fn a_new_group_starts_at_what_it_has_and_a_hidden_one_at_0() {
        let mut shelf: Shelf<u8, u8> = Shelf::default();
        let view = shelf.show(
            at(1),
            &ROWS,
            &[(7, group(1, 5, 0))].into(),
            &[(1, 8)].into(),
        );
        assert_eq!(view.rows, [(7, 1, 5), (7, 2, 0)]);
        assert_eq!(view.other, [(1, 3), (2, 0)].into());
        // 8 had 3 before it was shown, and has one more.
        let both = [
            (7, group(1, 5, 0)),
            (8, group(1, 4, 0)),
            (9, group(2, 2, 0)),
        ]
        .into();
        let view = shelf.show(at(2), &ROWS, &both, &[(1, 11)].into());
        let first: Vec<_> = view.rows.iter().filter(|row| row.1 == 1).collect();
        assert_eq!(first, [&(7, 1, 5), &(8, 1, 0), &(9, 1, 2)]);
        assert_eq!(view.other, [(1, 4), (2, 0)].into());
        assert!(view.ended.is_empty());
    }

    #[test]
    fn what_ends_is_counted_apart_and_what_returns_starts_again() {
        let mut shelf: Shelf<u8, u8> = Shelf::default();
        shelf.show(
            at(1),
            &ROWS,
            &[(7, group(1, 5, 1))].into(),
            &[(1, 5), (2, 1)].into(),
        );
        let view = shelf.show(at(2), &ROWS, &BTreeMap::new(), &[(1, 6), (2, 1)].into());
        assert_eq!(view.ended, [(1, 5), (2, 1)].into());
        assert_eq!(view.other, [(1, 1), (2, 0)].into());
        assert_eq!(view.until, 20);
        let again = [(7, group(3, 2, 0))].into();
        let view = shelf.show(at(3), &ROWS, &again, &[(1, 8), (2, 1)].into());
        assert_eq!(view.rows, [(7, 1, 2), (7, 2, 0)]);
        assert_eq!(view.other, [(1, 1), (2, 0)].into());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Count(u8, u64),
        Fold(u8),
        Scrape(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..6_u8, 1..9_u64).prop_map(|(group, more)| Step::Count(group, more)),
            1 => (0..6_u8).prop_map(Step::Fold),
            2 => any::<u8>().prop_map(Step::Scrape),
        ]
    }

    proptest! {
        /// At every scrape the sum is what was counted, **other** and **ended** never fall, and a
        /// named series rises by no more than its group counted since the scrape before.
        #[test]
        fn sums_are_exact_and_no_series_bursts(steps in prop::collection::vec(step(), 0..60)) {
            let mut shelf: Shelf<u8, u8> = Shelf::default();
            let mut live: BTreeMap<u8, Group<u8>> = BTreeMap::new();
            let mut since: BTreeMap<u8, u64> = BTreeMap::new();
            let (mut total, mut reading) = (0, 0);
            let mut last: Option<View<u8, u8>> = None;
            for step in steps {
                match step {
                    Step::Count(number, more) => {
                        let begins = || Group { born: reading + 1, rows: BTreeMap::new() };
                        let group = live.entry(number).or_insert_with(begins);
                        *group.rows.entry(1).or_default() += more;
                        *since.entry(number).or_default() += more;
                        total += more;
                    }
                    Step::Fold(number) => drop(live.remove(&number)),
                    Step::Scrape(mask) => {
                        reading += 1;
                        let chosen = live.iter().filter(|(number, _)| mask >> **number & 1 == 1);
                        let chosen = chosen.map(|(number, group)| (*number, group.clone())).collect();
                        // Several scrapes in one unit of time.
                        let at = Reading { number: reading, at: reading / 4 };
                        let view = shelf.show(at, &[1], &chosen, &[(1, total)].into());
                        let named: u64 = view.rows.iter().map(|row| row.2).sum();
                        let ended = view.ended.get(&1).copied().unwrap_or(0);
                        prop_assert_eq!(named + view.other[&1] + ended, total);
                        let mut risen = view.other[&1];
                        if let Some(last) = &last {
                            prop_assert!(view.other[&1] >= last.other[&1]);
                            let ended_before = last.ended.get(&1).copied().unwrap_or(0);
                            prop_assert!(ended >= ended_before);
                            prop_assert_eq!(ended > ended_before, view.until > last.until);
                            risen -= last.other[&1];
                            for (group, _, value) in &view.rows {
                                let before = last.rows.iter().find(|row| row.0 == *group);
                                let before = before.map_or(0, |row| row.2.min(*value));
                                let counted = since.get(group).copied().unwrap_or(0);
                                prop_assert!(value - before <= counted);
                            }
                        }
                        prop_assert!(risen <= since.values().sum());
                        since.clear();
                        last = Some(view);
                    }
                }
            }
        }
    }
}
