//! Why a record was refused.

use thiserror::Error;

/// A record that is none: what it was, what was found, what was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// Fewer bytes than the object has.
    #[error("{object} is {found} bytes, expected {wanted}")]
    Short {
        /// What was read.
        object: &'static str,
        /// Bytes there.
        found: usize,
        /// Bytes needed.
        wanted: usize,
    },
    /// The header's length, or the bytes there, are not the size of the kind.
    #[error("{object} says or has {found} bytes, expected exactly {wanted}")]
    WrongLength {
        /// What was read.
        object: &'static str,
        /// Bytes said, or bytes there.
        found: usize,
        /// Size of the kind.
        wanted: usize,
    },
    /// A kind this build does not know.
    #[error(
        "record kind is {found}, expected 1 (attempt), 2 (SYN drop), 3 (outcome), 4 (datagram) or 16 (real server)"
    )]
    UnknownKind {
        /// The kind.
        found: u16,
    },
    /// A number that names no member of its enumeration.
    #[error("{object} is {found}, which this build does not know")]
    UnknownNumber {
        /// Which enumeration.
        object: &'static str,
        /// The number.
        found: u8,
    },
    /// An address family that is neither 4 nor 6.
    #[error("family of the {object} is {found}, expected 4 or 6")]
    BadFamily {
        /// Whose family.
        object: &'static str,
        /// The family.
        found: u8,
    },
    /// A byte that is always 0 is not.
    #[error("{object} holds {found}, expected 0")]
    Padding {
        /// Where.
        object: &'static str,
        /// The first byte that is not 0.
        found: u8,
    },
    /// Two fields that exclude each other.
    #[error("{object} is {found}, expected {wanted}")]
    Contradiction {
        /// What contradicts.
        object: &'static str,
        /// Its value.
        found: u32,
        /// What would fit.
        wanted: &'static str,
    },
}

/// The word a refused record is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// [`Malformed::Short`].
    Short,
    /// [`Malformed::WrongLength`].
    WrongLength,
    /// [`Malformed::UnknownKind`].
    UnknownKind,
    /// [`Malformed::UnknownNumber`].
    UnknownNumber,
    /// [`Malformed::BadFamily`].
    BadFamily,
    /// [`Malformed::Padding`].
    Padding,
    /// [`Malformed::Contradiction`].
    Contradiction,
}

impl Reason {
    /// Every member.
    pub const ALL: &'static [Self] = &[
        Self::Short,
        Self::WrongLength,
        Self::UnknownKind,
        Self::UnknownNumber,
        Self::BadFamily,
        Self::Padding,
        Self::Contradiction,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "record_short",
            Self::WrongLength => "record_wrong_length",
            Self::UnknownKind => "record_unknown_kind",
            Self::UnknownNumber => "record_unknown_number",
            Self::BadFamily => "record_bad_family",
            Self::Padding => "record_padding",
            Self::Contradiction => "record_contradiction",
        }
    }
}

impl Malformed {
    /// What to count it under.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Short { .. } => Reason::Short,
            Self::WrongLength { .. } => Reason::WrongLength,
            Self::UnknownKind { .. } => Reason::UnknownKind,
            Self::UnknownNumber { .. } => Reason::UnknownNumber,
            Self::BadFamily { .. } => Reason::BadFamily,
            Self::Padding { .. } => Reason::Padding,
            Self::Contradiction { .. } => Reason::Contradiction,
        }
    }
}
