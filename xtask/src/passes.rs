//! Several passes at a time, each in its own guest, with the lines of each kept together.

use std::collections::VecDeque;
use std::slice;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use crate::dist::{self, AGENT, LAB};
use crate::exec::say;
use crate::paths::Paths;
use crate::pins::{GUESTS_AT_A_TIME, Pass, Set};
use crate::scenarios::{self, Played, Run};
use crate::tally::Tally;

/// What became of a pass.
pub struct Ended {
    /// Name of the pass.
    pub name: String,
    /// What it counted.
    pub tally: Tally,
    /// Its lines about what failed, to be read again at the end of a long run.
    pub failures: Vec<String>,
}

/// Runs passes, [`GUESTS_AT_A_TIME`], and returns what became of each in their order.
///
/// What a guest reports is printed when its pass is over, so that the lines of one kernel stand
/// together. A pass that cannot run counts as one failure.
///
/// An emulated clock jumps when the host is busy. The only scenario of a pass that failed is
/// therefore played once more, in a guest of its own: if it passes it counts as passed, and the
/// lines about its failure stay. Two that fail, or one that fails twice, fail.
pub fn run(paths: &Paths, passes: &[Pass]) -> Vec<Ended> {
    // Once, so that no two passes wait for the same compiler.
    for program in [AGENT, LAB] {
        if let Err(error) = dist::build(paths, program) {
            eprintln!("xtask: {error:#}");
            return vec![Ended {
                name: "build".to_owned(),
                tally: Tally::FAILED,
                failures: vec![format!("FAILED {error:#}")],
            }];
        }
    }
    let waiting: Mutex<VecDeque<_>> = Mutex::new(passes.iter().enumerate().collect());
    let ended = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..GUESTS_AT_A_TIME.min(passes.len()) {
            scope.spawn(|| {
                loop {
                    // A statement of its own: the lock must not be held while the pass runs.
                    let next = lock(&waiting).pop_front();
                    let Some((number, pass)) = next else { return };
                    let (mut lines, tally) = one(paths, pass);
                    let mut ended = lock(&ended);
                    println!("\n{}", lines.join("\n"));
                    lines.retain(|line| line.contains("FAILED"));
                    let this = Ended {
                        name: pass.name(),
                        tally,
                        failures: lines,
                    };
                    ended.push((number, this));
                }
            });
        }
    });
    let mut ended = ended.into_inner().unwrap_or_default();
    ended.sort_by_key(|(number, _)| *number);
    ended.into_iter().map(|(_, this)| this).collect()
}

/// Runs one pass; its lines and counts.
fn one(paths: &Paths, pass: &Pass) -> (Vec<String>, Tally) {
    let name = pass.name();
    let started = Instant::now();
    let mut lines = Vec::new();
    let mut played = guest(paths, pass, &[], &mut lines);
    if let [scenario] = played.failed.as_slice()
        && played.tally.failed == 1
    {
        lines.push(format!(
            "{name}: {scenario} is played again, in a new guest"
        ));
        let again = guest(paths, pass, slice::from_ref(scenario), &mut lines);
        if again.tally == Tally::PASSED {
            lines.push(format!("{name}: {scenario} FAILED once, and not again"));
            played.tally.failed = 0;
            played.tally += Tally::PASSED;
        }
    }
    let tally = played.tally;
    let seconds = started.elapsed().as_secs();
    lines.push(format!(
        "{name}: {tally}, {} skipped, {seconds} s",
        tally.skipped
    ));
    say(format!("pass {name} is over: {tally}"));
    (lines, tally)
}

/// Runs the scenarios of a pass, or only those wanted, in a guest.
fn guest(paths: &Paths, pass: &Pass, wanted: &[String], lines: &mut Vec<String>) -> Played {
    let name = pass.name();
    let run = Run {
        kernel: pass.kernel,
        name: &name,
        wanted,
        kernel_args: &pass.words(),
        keep_log: !wanted.is_empty(),
        systemd: pass.set == Set::Systemd,
        limit: scenarios::LIMIT,
    };
    scenarios::run(paths, &run, &mut |line| lines.push(line)).unwrap_or_else(|error| {
        lines.push(format!("{name}: FAILED: {error:#}"));
        Played {
            tally: Tally::FAILED,
            failed: Vec::new(),
        }
    })
}

/// A thread that panicked has failed the run already; what it held is still whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
