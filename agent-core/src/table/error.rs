//! Why the table, or a piece of it, could not be read from what the kernel sent.

use netlink_packet_core::DecodeError;
use thiserror::Error;

/// A message of generic netlink that is not what IPVS sends.
#[derive(Debug, Error)]
pub enum TableError {
    /// A netlink frame whose length does not fit.
    #[error("netlink frame of {object}: {source}")]
    Frame {
        /// What was read.
        object: &'static str,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A piece shorter than its kind.
    #[error("{object} has {found} bytes, expected {wanted}")]
    Length {
        /// What was read.
        object: &'static str,
        /// Bytes there.
        found: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// An attribute that must be there is not.
    #[error(
        "{object} has no attribute {attribute}: unexpected reply from IPVS (unsupported kernel?)"
    )]
    Missing {
        /// What was read.
        object: &'static str,
        /// The attribute, as `include/uapi/linux/ip_vs.h` names it.
        attribute: &'static str,
    },
    /// A number with no meaning here.
    #[error("{object} is {found}, expected {wanted}")]
    Number {
        /// What was read.
        object: &'static str,
        /// The number.
        found: u32,
        /// What would fit.
        wanted: &'static str,
    },
    /// A name that is no text.
    #[error("{object} is no text")]
    Text {
        /// What was read.
        object: &'static str,
    },
    /// The kernel refused the request.
    #[error("the kernel refused to list {object}: {}", std::io::Error::from_raw_os_error(*.errno))]
    Refused {
        /// What was asked for.
        object: &'static str,
        /// Its error number, positive.
        errno: i32,
    },
}
