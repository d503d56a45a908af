//! The log on stderr: lines go through a bounded queue, so that a reader who does not read stops
//! neither observation nor the end of the process.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent_core::loss::Loss;
use agent_core::output::queue::QueueLimits;
use log::LevelFilter;
use thiserror::Error;

use super::metrics::LossSource;
use super::writer::{LineWriter, OnFailure};
use crate::clock;

/// Log lines that wait for the reader of stderr: a minute of an incident has some hundred.
const LOG_LINES_MAX: QueueLimits = QueueLimits {
    lines: 1_024,
    bytes: 256 * 1024,
};

/// Time for the last lines at the end of the process; SIGTERM is answered within two seconds.
const FLUSH_TIME: Duration = Duration::from_millis(500);

/// The log of this process; none before [`start`].
static LOG: OnceLock<Arc<LineWriter>> = OnceLock::new();

/// Logging cannot be set up.
#[derive(Debug, Error)]
pub enum LoggerError {
    /// The thread, or stderr.
    #[error("cannot start the log writer: {0}")]
    Writer(#[from] io::Error),
    /// There is a logger already.
    #[error("cannot set up logging: {0}")]
    Logger(#[from] log::SetLoggerError),
}

/// Logs lines of this level and above to stderr from here on; [`log::set_max_level`] changes it.
///
/// # Errors
/// [`LoggerError`].
pub fn start(level: LevelFilter) -> Result<(), LoggerError> {
    let writer = LineWriter::start(
        "log",
        io::stderr(),
        LOG_LINES_MAX,
        OnFailure::GoOn,
        left_out,
    )?;
    let writer = LOG.get_or_init(|| Arc::new(writer));
    env_logger::Builder::new()
        // The facade's own level decides, which SIGHUP may change.
        .filter_level(LevelFilter::Trace)
        .target(env_logger::Target::Pipe(Box::new(Line(Arc::clone(writer)))))
        .try_init()?;
    log::set_max_level(level);
    Ok(())
}

/// Writes one last line to stderr, whatever the log level, and waits a moment for everything before
/// it. A reader who does not read does not keep the process.
pub fn finish(last: Option<&dyn Display>) {
    let last = last.map(|last| format!("ipvs-lens: {last}\n").into_bytes());
    if let Some(log) = LOG.get() {
        if let Some(last) = last {
            drop(log.send(last));
        }
        log.flush(FLUSH_TIME);
    } else if let Some(last) = last {
        // The command line was refused before there was a log.
        drop(io::stderr().write_all(&last));
    }
}

/// Log lines lost, for the metrics.
pub struct LogLosses;

impl LossSource for LogLosses {
    fn losses(&self) -> Vec<(Loss, u64)> {
        let lost = LOG.get().map(|log| log.lost()).unwrap_or_default();
        vec![
            (Loss::LogQueueFull, lost.full),
            (Loss::LogWriteFailed, lost.failed),
        ]
    }
}

/// One formatted record: env_logger hands it over whole.
struct Line(Arc<LineWriter>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.send(line.to_vec())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// In the form of the other lines.
fn left_out(count: u64) -> Vec<u8> {
    let now = clock::wall_anchor().wall(clock::now());
    let time = humantime::format_rfc3339_seconds(now);
    format!(
        "[{time} WARN  ipvs_lens] {count} log lines lost here: stderr was not read in time \
        (ipvs_lens_events_lost_total{{reason=\"log_queue_full\"}})\n"
    )
    .into_bytes()
}
