//! Scenarios in one guest: boots it, follows what it reports, and counts.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::guest::{self, Extras, Flow};
use crate::kernel;
use crate::paths::Paths;
use crate::results::{self, Event, Outcome};
use crate::tally::Tally;
use crate::userland;

/// Longest run of all scenarios on one kernel, under emulation on a busy host.
pub const LIMIT: Duration = Duration::from_mins(45);

/// What one guest is booted for.
pub struct Run<'a> {
    /// Kernel to boot, as people call it.
    pub kernel: &'a str,
    /// What its lines begin with.
    pub name: &'a str,
    /// Scenarios to run; empty for those the kernel's command line asks for.
    pub wanted: &'a [String],
    /// Words for the kernel's command line.
    pub kernel_args: &'a [String],
    /// Whether to keep the console log of the former run.
    pub keep_log: bool,
    /// Whether systemd is process 1.
    pub systemd: bool,
    /// How long it may take.
    pub limit: Duration,
}

/// What became of a guest's scenarios.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Their results; a guest that dies counts as one failure besides what it reported before.
    pub tally: Tally,
    /// Those that were played to their end and failed.
    pub failed: Vec<String>,
}

/// Boots a kernel, runs scenarios in it and hands over lines for people.
///
/// # Errors
/// When the guest cannot be prepared or has nothing to run.
pub fn run(paths: &Paths, run: &Run<'_>, print: &mut dyn FnMut(String)) -> Result<Played> {
    let systemd = if run.systemd {
        Some(userland::ensure_systemd(paths)?)
    } else {
        None
    };
    let extras = Extras {
        programs: systemd.as_deref(),
        keep_log: run.keep_log,
        counting: false,
    };
    let guest = guest::prepare(paths, kernel::find(run.kernel)?, run.name, extras)?;
    let mut words = vec!["lab.mode=scenarios".to_owned()];
    if run.systemd {
        words.push("lab.init=systemd".to_owned());
    }
    if !run.wanted.is_empty() {
        words.push(format!("lab.scenarios={}", run.wanted.join(",")));
    }
    words.extend_from_slice(run.kernel_args);
    let mut report = Report::default();
    let followed = guest.follow(&words, run.limit, |line| report.take(run.name, line, print));
    if let Err(error) = followed {
        let during = report.running.as_deref().unwrap_or("no scenario");
        print(format!("{}: FAILED during {during}: {error:#}", run.name));
        report.abort();
    }
    report.close(run.wanted, print)
}

/// What a guest has reported so far.
#[derive(Default)]
struct Report {
    played: Played,
    running: Option<String>,
    ended: BTreeSet<String>,
    /// Whether the guest ended before it was done.
    aborted: bool,
}

impl Report {
    fn take(&mut self, name: &str, line: &str, print: &mut dyn FnMut(String)) -> Flow {
        match results::parse(line) {
            Some(Event::Booted { release }) => print(format!("{name}: booted {release}")),
            Some(Event::Start { scenario }) => self.running = Some(scenario),
            Some(Event::End {
                scenario,
                result,
                seconds,
                detail,
            }) => {
                self.running = None;
                self.played.tally += match result {
                    Outcome::Passed => Tally::PASSED,
                    Outcome::Failed => Tally::FAILED,
                    Outcome::Skipped => Tally::SKIPPED,
                };
                let word = match result {
                    Outcome::Passed => "passed",
                    Outcome::Failed => "FAILED",
                    Outcome::Skipped => "skipped",
                };
                let colon = if detail.is_empty() { "" } else { ": " };
                print(format!(
                    "{name}: {word} {scenario} ({seconds:.1} s){colon}{detail}"
                ));
                if result == Outcome::Failed {
                    self.played.failed.push(scenario.clone());
                }
                self.ended.insert(scenario);
            }
            Some(Event::Error { detail }) => {
                print(format!("{name}: FAILED: {detail}"));
                self.abort();
                return Flow::Finished;
            }
            Some(Event::Done) => return Flow::Finished,
            // Of another mode of the guest.
            Some(Event::Bench(_) | Event::Table(_)) => {}
            None => print(format!("{name}: {line}")),
        }
        Flow::Continue
    }

    /// The guest ended too early: one failure, whatever else did not run.
    fn abort(&mut self) {
        self.played.tally += Tally::FAILED;
        self.aborted = true;
    }

    /// The results, once the guest is done. What was asked for and never ran has failed.
    fn close(mut self, wanted: &[String], print: &mut dyn FnMut(String)) -> Result<Played> {
        let missing = wanted.iter().filter(|name| !self.ended.contains(*name));
        for scenario in missing.filter(|_| !self.aborted) {
            print(format!("FAILED {scenario}: the guest never reported it"));
            self.played.tally += Tally::FAILED;
        }
        if self.played.tally == Tally::default() {
            bail!("the guest ran no scenario");
        }
        Ok(self.played)
    }
}

#[cfg(test)]
mod tests {
    use super::{Played, Report};
    use crate::guest::Flow;
    use crate::tally::Tally;

    fn report(lines: &[&str]) -> (Report, Vec<Flow>) {
        let mut report = Report::default();
        let mut print = |_: String| {};
        let flows = lines
            .iter()
            .map(|line| report.take("6.1", line, &mut print))
            .collect();
        (report, flows)
    }

    #[test]
    fn results_are_counted_until_done() {
        let (report, flows) = report(&[
            r#"{"event":"booted","release":"6.1.0"}"#,
            r#"{"event":"start","scenario":"a"}"#,
            r#"{"event":"end","scenario":"a","result":"passed","seconds":1}"#,
            r#"{"event":"end","scenario":"b","result":"failed","seconds":1,"detail":"3 != 4"}"#,
            r#"{"event":"end","scenario":"c","result":"skipped","seconds":0}"#,
            "noise",
            r#"{"event":"done"}"#,
        ]);
        assert!(flows[..6].iter().all(|flow| *flow == Flow::Continue));
        assert!(flows[6] == Flow::Finished);
        assert_eq!(
            report.close(&["a".to_owned()], &mut |_| {}).ok(),
            Some(Played {
                tally: Tally {
                    passed: 1,
                    failed: 1,
                    skipped: 1
                },
                failed: vec!["b".to_owned()],
            })
        );
    }

    #[test]
    fn an_error_of_process_1_is_a_failure() {
        let (report, flows) = report(&[r#"{"event":"error","detail":"no such scenario"}"#]);
        assert!(flows == [Flow::Finished]);
        assert_eq!(
            report.close(&["a".to_owned()], &mut |_| {}).ok(),
            Some(Played {
                tally: Tally::FAILED,
                failed: Vec::new()
            })
        );
    }

    #[test]
    fn running_scenario_is_known_when_the_guest_dies() {
        let (report, _) = report(&[r#"{"event":"start","scenario":"a"}"#]);
        assert_eq!(report.running.as_deref(), Some("a"));
    }

    #[test]
    fn what_never_ran_has_failed() {
        let (report, _) =
            report(&[r#"{"event":"end","scenario":"a","result":"passed","seconds":1}"#]);
        let wanted = ["a".to_owned(), "b".to_owned()];
        assert_eq!(
            report.close(&wanted, &mut |_| {}).ok(),
            Some(Played {
                tally: Tally {
                    passed: 1,
                    failed: 1,
                    skipped: 0
                },
                failed: Vec::new(),
            })
        );
        assert!(Report::default().close(&[], &mut |_| {}).is_err());
    }
}
