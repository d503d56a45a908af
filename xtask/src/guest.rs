//! Booting a guest and following it until it is done: retried while it dies before process 1,
//! never longer than its limits, never left running.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::dist::{AGENT, LAB};
use crate::exec::say;
use crate::initramfs::{self, Contents};
use crate::kernel;
use crate::paths::Paths;
use crate::pins::Kernel;
use crate::qemu::{self, Forward, Guest, Machine};
use crate::{apt, dist, pins, userland};

/// A kernel may die before process 1 under emulation; thrice in a row is a fault.
const BOOT_ATTEMPTS: u32 = 3;

/// Longest silence on both serial ports before process 1 speaks.
const BOOT_SILENCE: Duration = Duration::from_secs(60);

/// Longest silence afterwards: beyond the lab's own limit on a scenario, which says more.
const RUN_SILENCE: Duration = Duration::from_secs(360);

/// How long a guest may take to power off once its work is done.
const POWER_OFF: Duration = Duration::from_secs(20);

/// How often the limits are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Former logs kept at most, so that a forgotten flag does not fill a disk.
const KEPT_LOGS: u32 = 100;

/// Lines of the console shown when a guest fails.
const TAIL_LINES: usize = 40;

/// Whether to go on listening to a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// There is more to come.
    Continue,
    /// That was the last line.
    Finished,
}

/// A guest made ready to boot.
pub struct Prepared {
    image: PathBuf,
    initramfs: PathBuf,
    dir: PathBuf,
    name: &'static str,
    counting: bool,
    /// Keeps a second guest of this name from writing to the same files.
    _lock: fs::File,
}

/// What a guest has beyond the ordinary one.
#[derive(Clone, Copy, Default)]
pub struct Extras<'a> {
    /// Root of further programs.
    pub programs: Option<&'a Path>,
    /// Whether its clock counts instructions.
    pub counting: bool,
    /// Whether to keep the console log of the former guest of this name.
    pub keep_log: bool,
}

/// Builds and fetches all a guest needs, and writes its file system.
///
/// `name` is the guest's: its files are kept under it.
///
/// # Errors
/// When any part of the set-up or the build fails.
pub fn prepare(paths: &Paths, kernel: &Kernel, name: &str, extras: Extras<'_>) -> Result<Prepared> {
    apt::ensure_program(pins::QEMU_PROGRAM)?;
    let userland = userland::ensure(paths)?;
    let files = kernel::ensure(paths, kernel)?;
    dist::build(paths, AGENT)?;
    dist::build(paths, LAB)?;
    let dir = paths.target.join("lab").join(name.replace(' ', "-"));
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let lock = cache::lock_file(&dir.join(".lock"), &format!("the guest {name}"))?;
    let prepared = Prepared {
        image: files.image,
        initramfs: dir.join("initramfs.cpio"),
        name: kernel.name,
        counting: extras.counting,
        dir,
        _lock: lock,
    };
    if extras.keep_log {
        keep(&prepared.console_log())?;
    }
    initramfs::write(
        &prepared.initramfs,
        &Contents {
            userland: &userland,
            kernel: &files.tree,
            init: &paths.static_program(LAB),
            agent: &paths.static_program(AGENT),
            more: extras.programs,
        },
    )?;
    Ok(prepared)
}

/// Moves the former log to the first free number.
fn keep(log: &Path) -> Result<()> {
    if !log.exists() {
        return Ok(());
    }
    let mut numbered = (1..=KEPT_LOGS).map(|number| log.with_extension(format!("{number}.log")));
    match numbered.find(|path| !path.exists()) {
        Some(free) => {
            fs::rename(log, &free).with_context(|| format!("cannot create {}", free.display()))
        }
        None => bail!(
            "{KEPT_LOGS} logs are kept next to {}; remove some",
            log.display()
        ),
    }
}

impl Prepared {
    /// Everything the guest's kernel and process 1 printed.
    pub fn console_log(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    fn start(
        &self,
        arguments: &[String],
        forwards: &[Forward],
        interactive: bool,
    ) -> Result<Guest> {
        let mut words = vec![format!("lab.kernel={}", self.name)];
        words.extend_from_slice(arguments);
        qemu::start(&Machine {
            image: &self.image,
            initramfs: &self.initramfs,
            arguments: &words,
            console_log: &self.console_log(),
            results_log: &self.dir.join("results.log"),
            interactive,
            forwards,
            counting: self.counting,
        })
    }

    /// Boots a guest for a person at the terminal and waits until it ends.
    ///
    /// # Errors
    /// When the emulator fails.
    pub fn interact(&self, arguments: &[String]) -> Result<()> {
        say("the guest's console follows; ctrl-a x ends the guest");
        let mut guest = self.start(arguments, &[], true)?;
        let status = guest.child.wait()?;
        if !status.success() {
            bail!("the emulator failed: {status}");
        }
        Ok(())
    }

    /// Boots a guest and hands over each line of its report until one ends it.
    ///
    /// # Errors
    /// When no boot reaches process 1, or the guest dies or falls silent before it is finished;
    /// the end of its console is shown then.
    pub fn follow(
        &self,
        arguments: &[String],
        limit: Duration,
        take: impl FnMut(&str) -> Flow,
    ) -> Result<()> {
        let mut guest = self.boot(arguments, &[], limit, take)?;
        wait_for_power_off(&mut guest);
        Ok(())
    }

    /// As [`Self::follow`], with ports of the loopback address that lead into the guest; after the
    /// line that ends the report, the guest goes on until the returned value is dropped.
    ///
    /// # Errors
    /// As [`Self::follow`].
    pub fn boot(
        &self,
        arguments: &[String],
        forwards: &[Forward],
        limit: Duration,
        mut take: impl FnMut(&str) -> Flow,
    ) -> Result<Guest> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            say(format!(
                "booting kernel {} (attempt {attempt} of {BOOT_ATTEMPTS})",
                self.name
            ));
            let mut guest = self.start(arguments, forwards, false)?;
            let lines = read_lines(guest.child.stdout.take());
            let mut watch = Watch::new(self.console_log(), limit);
            let Err(fault) = watch.run(&lines, &mut take) else {
                return Ok(guest);
            };
            if watch.booted || attempt == BOOT_ATTEMPTS {
                self.show_tail();
                bail!(
                    "kernel {}: {fault}; see {}",
                    self.name,
                    self.console_log().display()
                );
            }
            say(format!(
                "kernel {}: {fault} before process 1 ran; trying again",
                self.name
            ));
        }
    }

    fn show_tail(&self) {
        let text = fs::read(self.console_log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        eprintln!("--- end of the guest's console ---");
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            eprintln!("{line}");
        }
        eprintln!("---");
    }
}

/// Lines of a guest's report, read by a thread so that silence can be noticed.
fn read_lines(stdout: Option<ChildStdout>) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        let Some(stdout) = stdout else { return };
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            // Read on even when the receiver is gone: a full pipe would stop the guest.
            let _ = send.send(line);
        }
    });
    lines
}

fn wait_for_power_off(guest: &mut Guest) {
    let asked = Instant::now();
    while asked.elapsed() < POWER_OFF {
        if !matches!(guest.child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(TICK);
    }
}

/// Decides when a guest has been silent or running for too long.
struct Watch {
    console_log: PathBuf,
    console_bytes: u64,
    started: Instant,
    heard: Instant,
    limit: Duration,
    /// Whether process 1 has spoken.
    booted: bool,
}

impl Watch {
    fn new(console_log: PathBuf, limit: Duration) -> Self {
        let now = Instant::now();
        Self {
            console_log,
            console_bytes: 0,
            started: now,
            heard: now,
            limit,
            booted: false,
        }
    }

    /// Returns when a line ended the report; the error says what happened instead.
    fn run(
        &mut self,
        lines: &Receiver<String>,
        take: &mut impl FnMut(&str) -> Flow,
    ) -> Result<(), String> {
        loop {
            match lines.recv_timeout(TICK) {
                Ok(line) => {
                    self.booted = true;
                    self.heard = Instant::now();
                    if take(&line) == Flow::Finished {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err("the guest stopped".to_owned()),
                Err(RecvTimeoutError::Timeout) => self.check()?,
            }
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let bytes = fs::metadata(&self.console_log).map_or(0, |meta| meta.len());
        if bytes != self.console_bytes {
            self.console_bytes = bytes;
            self.heard = Instant::now();
        }
        let silence = if self.booted {
            RUN_SILENCE
        } else {
            BOOT_SILENCE
        };
        if self.heard.elapsed() > silence {
            return Err(format!("no sign of life for {} s", silence.as_secs()));
        }
        if self.started.elapsed() > self.limit {
            return Err(format!("not finished after {} s", self.limit.as_secs()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Flow, Watch, keep};
    use std::fs;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::time::Duration;

    fn watch(limit: Duration) -> Watch {
        Watch::new(PathBuf::from("/no/such/console.log"), limit)
    }

    #[test]
    fn last_line_finishes() {
        let (send, lines) = mpsc::channel();
        for line in ["a", "b", "c"] {
            send.send(line.to_owned()).expect("the receiver is alive");
        }
        let mut seen = Vec::new();
        let end = watch(Duration::MAX).run(&lines, &mut |line: &str| {
            seen.push(line.to_owned());
            if line == "b" {
                Flow::Finished
            } else {
                Flow::Continue
            }
        });
        assert_eq!((end, seen), (Ok(()), vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn death_before_and_after_boot_are_told_apart() {
        for spoken in [false, true] {
            let (send, lines) = mpsc::channel();
            if spoken {
                send.send("a".to_owned()).expect("the receiver is alive");
            }
            drop(send);
            let mut watch = watch(Duration::MAX);
            let end = watch.run(&lines, &mut |_: &str| Flow::Continue);
            assert_eq!(end, Err("the guest stopped".to_owned()));
            assert_eq!(watch.booted, spoken);
        }
    }

    #[test]
    fn limit_ends_a_guest_that_never_finishes() {
        let (_send, lines) = mpsc::channel();
        let end = watch(Duration::ZERO).run(&lines, &mut |_: &str| Flow::Continue);
        assert_eq!(end, Err("not finished after 0 s".to_owned()));
    }

    #[test]
    fn kept_logs_are_numbered() {
        let dir = std::env::temp_dir().join(format!("xtask-guest-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory can be created");
        let log = dir.join("console.log");
        for text in ["one", "two"] {
            fs::write(&log, text).expect("the directory is writable");
            keep(&log).expect("a number is free");
        }
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        assert_eq!(read("console.1.log").as_deref(), Some("one"));
        assert_eq!(read("console.2.log").as_deref(), Some("two"));
        assert!(!log.exists());
        fs::remove_dir_all(dir).expect("the directory was made here");
    }
}
