//! How the process ends: statuses that scripts may rest on.

use std::fmt;
use std::process::ExitCode;

/// The promised exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or stopped on request.
    Done,
    /// Failed while running; for `doctor`, there is advice.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// This node cannot be observed.
    CannotObserve,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::CannotObserve => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.status().into()
    }
}

/// A failure that ends the process: one line, and the status it ends with.
#[derive(Debug)]
pub struct Failure {
    /// How to exit.
    pub exit: Exit,
    message: String,
}

impl Failure {
    /// A failure while running.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Failed,
            message: message.to_string(),
        }
    }

    /// What was asked for, or the configuration, is wrong.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.to_string(),
        }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// This node cannot be observed.
    pub fn cannot_observe(message: impl fmt::Display) -> Self {
        Self {
            exit: Exit::CannotObserve,
            message: message.to_string(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_as_promised() {
        let exits = [Exit::Done, Exit::Failed, Exit::Usage, Exit::CannotObserve];
        assert_eq!(exits.map(Exit::status), [0, 1, 2, 3]);
        assert_eq!(Failure::cannot_observe("no BTF").exit, Exit::CannotObserve);
        assert_eq!(Failure::failed("x").to_string(), "x");
    }
}
