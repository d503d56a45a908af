//! Counting what passed and what failed, over steps of every kind.

use std::fmt;
use std::ops::AddAssign;

/// Results of one or more steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests and checks that held.
    pub passed: u64,
    /// Those that did not.
    pub failed: u64,
    /// Those that do not apply here.
    pub skipped: u64,
}

impl Tally {
    /// One check that held.
    pub const PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    /// One check that did not.
    pub const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    /// One check that does not apply.
    pub const SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };

    /// One check with this result.
    pub const fn of(passed: bool) -> Self {
        if passed { Self::PASSED } else { Self::FAILED }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The counts in a line such as
/// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; ...`; `None` for other lines.
pub fn parse_cargo_test(line: &str) -> Option<Tally> {
    let (_, counts) = line
        .trim()
        .strip_prefix("test result: ")?
        .split_once(". ")?;
    let mut tally = Tally::default();
    for count in counts.split(';') {
        let mut words = count.split_whitespace();
        let (Some(number), Some(what)) = (words.next(), words.next()) else {
            continue;
        };
        let Ok(number) = number.parse::<u64>() else {
            continue;
        };
        match what {
            "passed" => tally.passed += number,
            "failed" => tally.failed += number,
            "ignored" => tally.skipped += number,
            _ => {}
        }
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::{Tally, parse_cargo_test};

    #[test]
    fn cargo_lines_are_counted() {
        let line = "test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.31s";
        assert_eq!(
            parse_cargo_test(line),
            Some(Tally {
                passed: 12,
                failed: 0,
                skipped: 2
            })
        );
        let line = "test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(
            parse_cargo_test(line),
            Some(Tally {
                passed: 1,
                failed: 3,
                skipped: 0
            })
        );
    }

    #[test]
    fn other_lines_are_not() {
        for line in ["running 3 tests", "test a ... ok", "", "test result: odd"] {
            assert_eq!(parse_cargo_test(line), None, "{line}");
        }
    }

    #[test]
    fn sum_and_wording() {
        let mut sum = Tally::PASSED;
        sum += Tally::FAILED;
        sum += Tally::SKIPPED;
        sum += Tally::of(true);
        assert_eq!(
            sum,
            Tally {
                passed: 2,
                failed: 1,
                skipped: 1
            }
        );
        assert_eq!(sum.to_string(), "2 passed, 1 failed");
    }
}
