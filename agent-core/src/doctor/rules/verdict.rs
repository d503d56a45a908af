//! What a rule says.

use serde::Serialize;

use super::super::facts::Fact;

/// How bad it is to leave things as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Connections fail or stall.
    High,
    /// Connections fail in circumstances that happen: a rollout, a node lost.
    Medium,
    /// Rare, or only uneven.
    Low,
    /// Good to know; nothing to do today. Does not change the exit status.
    Note,
}

/// How sure a piece of advice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Sure {
    /// It was seen to happen here, under the present settings.
    Observed,
    /// It follows from how this node is configured; it was not seen, or not looked for.
    Configured,
    /// It depends on patches that this kernel's version does not show.
    Unknown,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Advice {
    /// If nothing is done.
    pub risk: Risk,
    /// How sure.
    pub sure: Sure,
    /// How it is.
    pub found: String,
    /// How it should be.
    pub want: String,
    /// Why.
    pub why: String,
    /// Commands that bring it about, for `sh -c`, in order; none where there is no safe one.
    pub commands: Vec<String>,
    /// Commands that take it back.
    pub undo: Vec<String>,
    /// How it outlives a restart, each a place and what to put there.
    pub lasting: Vec<Lasting>,
}

impl Advice {
    /// Advice without commands.
    pub fn new(
        (risk, sure): (Risk, Sure),
        found: impl Into<String>,
        want: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self {
            risk,
            sure,
            found: found.into(),
            want: want.into(),
            why: why.into(),
            commands: Vec::new(),
            undo: Vec::new(),
            lasting: Vec::new(),
        }
    }

    /// With what is to be done about it.
    #[must_use]
    pub fn by(self, remedy: Remedy) -> Self {
        Self {
            commands: remedy.commands,
            undo: remedy.undo,
            lasting: remedy.lasting,
            ..self
        }
    }
}

/// A cure: the same fields as in [`Advice`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remedy {
    /// What to run.
    pub commands: Vec<String>,
    /// What takes it back.
    pub undo: Vec<String>,
    /// What makes it last.
    pub lasting: Vec<Lasting>,
}

/// Something to write down so that a change outlives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lasting {
    /// A file, or an object of Kubernetes.
    pub place: String,
    /// What to put there.
    pub text: String,
}

/// What a rule says about a node or a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Something to do, or to know.
    Advise(Box<Advice>),
    /// The rule does not concern this node.
    NotApplicable {
        /// Why.
        why: String,
    },
    /// A fact is missing.
    Unknown {
        /// Which, and why.
        because: String,
    },
}

impl Verdict {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Advise(_) => "advise",
            Self::NotApplicable { .. } => "not_applicable",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// The advice, if it is one.
    #[must_use]
    pub fn advice(&self) -> Option<&Advice> {
        match self {
            Self::Advise(advice) => Some(advice),
            Self::Ok | Self::NotApplicable { .. } | Self::Unknown { .. } => None,
        }
    }

    /// Whether something can go wrong here: advice that is more than a note.
    #[must_use]
    pub fn is_hazard(&self) -> bool {
        self.advice().is_some_and(|advice| advice.risk < Risk::Note)
    }
}

impl From<Advice> for Verdict {
    fn from(advice: Advice) -> Self {
        Self::Advise(Box::new(advice))
    }
}

/// A rule that ends early with its verdict.
pub type Judged = Result<Verdict, Verdict>;

/// The rule does not apply.
pub fn not_applicable(why: impl Into<String>) -> Verdict {
    Verdict::NotApplicable { why: why.into() }
}

/// The value of a fact, or the verdict that `name` is unknown.
///
/// # Errors
/// [`Verdict::Unknown`].
pub fn need<'a, T>(fact: &'a Fact<T>, name: &str) -> Result<&'a T, Verdict> {
    fact.get().map_err(|because| Verdict::Unknown {
        because: format!("{name}: {because}"),
    })
}
