//! Writes lines on a thread of its own, so that a reader who does not read stops nothing else.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use agent_core::output::queue::{Output, OutputQueue, QueueLimits};

use crate::privileges;

/// Pause before writing again to a descriptor that is non-blocking and full.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// What becomes of lines that could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Later lines are tried all the same.
    GoOn,
    /// None are tried any more; [`LineWriter::send`] returns the error.
    Stop,
}

/// Lines lost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinesLost {
    /// There was no room: the reader was too slow.
    pub full: u64,
    /// The descriptor refused them.
    pub failed: u64,
}

/// The queue's writing end; cheap to share in an [`Arc`]. The thread ends with the process, or
/// when this is dropped and it is not blocked.
pub struct LineWriter {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// The thread has something to do.
    work: Condvar,
    /// The thread has nothing to do.
    idle: Condvar,
}

struct State {
    queue: OutputQueue,
    writing: bool,
    closed: bool,
    failed: u64,
    /// Why nothing more can be written.
    stopped: Option<(io::ErrorKind, String)>,
}

impl LineWriter {
    /// Writes to a duplicate of `target`, on a thread called `name`. `left_out` makes the line that
    /// says how many are missing at its place.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated, or there is no thread.
    pub fn start(
        name: &'static str,
        target: impl AsFd,
        limits: QueueLimits,
        on_failure: OnFailure,
        left_out: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Self> {
        let mut target = File::from(target.as_fd().try_clone_to_owned()?);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: OutputQueue::new(limits),
                writing: false,
                closed: false,
                failed: 0,
                stopped: None,
            }),
            work: Condvar::new(),
            idle: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Writing to an open descriptor needs no capability.
                if let Err(error) = privileges::drop_all() {
                    log::warn!("thread {name}: {error}");
                }
                of_thread.run(&mut target, on_failure, left_out);
            })?;
        Ok(Self { shared })
    }

    /// Queues a line, which ends in a newline. Never waits for the reader; without room the line is
    /// left out and counted.
    ///
    /// # Errors
    /// With [`OnFailure::Stop`], why an earlier line could not be written.
    pub fn send(&self, line: Vec<u8>) -> io::Result<()> {
        self.check()?;
        self.shared.state().queue.push(line);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Whether lines can still be written.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn check(&self) -> io::Result<()> {
        match &self.shared.state().stopped {
            Some((kind, reason)) => Err(io::Error::new(*kind, reason.clone())),
            None => Ok(()),
        }
    }

    /// Lines lost so far.
    #[must_use]
    pub fn lost(&self) -> LinesLost {
        let state = self.shared.state();
        LinesLost {
            full: state.queue.left_out(),
            failed: state.failed,
        }
    }

    /// Waits until everything is written, at most for `limit`; returns whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let busy = |state: &mut State| {
            state.stopped.is_none() && (state.writing || !state.queue.is_empty())
        };
        let idle = &self.shared.idle;
        let waited = idle.wait_timeout_while(self.shared.state(), limit, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.work.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, target: &mut File, on_failure: OnFailure, left_out: impl Fn(u64) -> Vec<u8>) {
        while let Some(output) = self.next() {
            let (line, lines) = match output {
                Output::Line(line) => (line, 1),
                // Already counted.
                Output::LeftOut(count) => (left_out(count), 0),
            };
            if let Err(error) = write_all(target, &line) {
                let mut state = self.state();
                state.failed += lines;
                if on_failure == OnFailure::Stop {
                    state.stopped = Some((error.kind(), error.to_string()));
                    state.writing = false;
                    drop(state);
                    return self.idle.notify_all();
                }
            }
        }
    }

    /// The next line; waits for it. `None` at the end.
    fn next(&self) -> Option<Output> {
        let mut state = self.state();
        loop {
            if let Some(output) = state.queue.pop() {
                state.writing = true;
                return Some(output);
            }
            state.writing = false;
            self.idle.notify_all();
            if state.closed {
                return None;
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Also to a descriptor that somebody made non-blocking.
fn write_all(target: &mut File, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match target.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _};

    use super::*;

    const LIMITS: QueueLimits = QueueLimits {
        lines: 4,
        bytes: 1 << 20,
    };
    const LIMIT: Duration = Duration::from_secs(20);

    fn start(target: impl AsFd, on_failure: OnFailure) -> LineWriter {
        let left_out = |count| format!("{count} left out\n").into_bytes();
        LineWriter::start("test", target, LIMITS, on_failure, left_out).unwrap()
    }

    #[test]
    fn a_pipe_that_is_not_read_stops_nobody_and_the_gap_is_said() {
        let (reader, pipe) = io::pipe().unwrap();
        let writer = start(&pipe, OnFailure::GoOn);
        // More than a pipe's 64 KiB: the thread blocks in it.
        writer
            .send([vec![b'x'; 200_000], vec![b'\n']].concat())
            .unwrap();
        assert!(!writer.flush(Duration::from_millis(50)));
        for number in 0..100 {
            writer.send(format!("{number}\n").into_bytes()).unwrap();
        }
        let lost = writer.lost();
        assert_eq!(lost.failed, 0);
        assert!((96..=97).contains(&lost.full), "{lost:?}");
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap().len(), 200_000);
        let read = 100 - lost.full;
        for number in 0..read {
            assert_eq!(lines.next().unwrap(), number.to_string());
        }
        assert_eq!(lines.next().unwrap(), format!("{} left out", lost.full));
        assert!(writer.flush(LIMIT));
        drop((writer, pipe));
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_or_a_count() {
        let (reader, pipe) = io::pipe().unwrap();
        drop(reader);
        let goes_on = start(&pipe, OnFailure::GoOn);
        goes_on.send(b"a\n".to_vec()).unwrap();
        assert!(goes_on.flush(LIMIT));
        assert_eq!(goes_on.lost(), LinesLost { full: 0, failed: 1 });
        let stops = start(&pipe, OnFailure::Stop);
        stops.send(b"a\n".to_vec()).unwrap();
        assert!(stops.flush(LIMIT));
        let error = stops.send(b"b\n".to_vec()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_full_device_is_counted_line_by_line() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let writer = start(&full, OnFailure::GoOn);
        for _ in 0..3 {
            writer.send(b"a\n".to_vec()).unwrap();
        }
        assert!(writer.flush(LIMIT));
        assert_eq!(writer.lost(), LinesLost { full: 0, failed: 3 });
    }

    #[test]
    fn what_is_written_arrives_whole() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let writer = start(&pipe, OnFailure::Stop);
        writer.send(b"one\n".to_vec()).unwrap();
        writer.send(b"two\n".to_vec()).unwrap();
        assert!(writer.flush(LIMIT));
        drop((writer, pipe));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
    }
}
