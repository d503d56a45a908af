//! The doctor's report, for people and as JSON, and the exit status that goes with it.
//!
//! PURE.

use std::fmt::{self, Write};

use serde::Serialize;

use super::facts::{Facts, Netns};
use super::rules::{self, Advice, Kind, Lasting, RULES, Risk, Rule, Sure, Verdict};

/// Where the sections of the rules are.
const DOCUMENT: &str = "docs/doctor.md";

/// Version of the JSON; it changes with the meaning of a field, not when one is added.
pub const REPORT_VERSION: u32 = 1;

/// What a report comes to; the exit status of `ipvs-lens doctor` says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// No rule advises anything.
    NothingToDo,
    /// At least one rule advises something.
    Advice,
    /// The node cannot be observed, or nothing is left but what could not be read.
    CannotObserve,
}

impl Conclusion {
    /// Exit status of `ipvs-lens doctor`.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        match self {
            Self::NothingToDo => 0,
            Self::Advice => 1,
            Self::CannotObserve => 3,
        }
    }
}

/// One rule's judgement of a node or of one namespace.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Entry {
    /// Name of the rule.
    pub id: &'static str,
    /// What is as it should be when the verdict is Ok.
    pub title: &'static str,
    /// The namespace it is about; `None` for the node.
    pub netns: Option<Place>,
    /// The judgement.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Where to read more.
    pub doc: String,
    #[serde(skip)]
    kind: Kind,
}

/// Which namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Place {
    /// Its inode.
    pub id: u32,
    /// A file to enter it by; `None` for the doctor's own.
    pub path: Option<String>,
}

/// Everything the doctor says about a node.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report<'a> {
    /// [`REPORT_VERSION`].
    pub version: u32,
    /// The exit status.
    pub exit_status: u8,
    /// Advice first, the highest risk first, then the rest in the order of the rules.
    pub verdicts: Vec<Entry>,
    /// What was judged.
    pub facts: &'a Facts,
}

impl<'a> Report<'a> {
    /// Judges a node.
    #[must_use]
    pub fn of(facts: &'a Facts) -> Self {
        let mut verdicts: Vec<Entry> = RULES
            .iter()
            .flat_map(|rule| {
                let judged = rule.judge(facts).into_iter();
                judged.map(|(netns, verdict)| Entry::of(rule, netns, verdict))
            })
            .collect();
        // Stable: rules of the same risk keep their order.
        verdicts.sort_by_key(|entry| entry.verdict.advice().map_or(4, |a| a.risk as u8));
        Self {
            version: REPORT_VERSION,
            exit_status: conclusion(&verdicts).exit_status(),
            verdicts,
            facts,
        }
    }

    /// What the report comes to.
    #[must_use]
    pub fn conclusion(&self) -> Conclusion {
        conclusion(&self.verdicts)
    }

    /// For people.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn text(&self, out: &mut impl Write) -> fmt::Result {
        self.head(out)?;
        for entry in &self.verdicts {
            if let Some(advice) = entry.verdict.advice() {
                writeln!(out)?;
                entry.block(advice, out)?;
            }
        }
        writeln!(out)?;
        self.list(out, "ok", |verdict| {
            matches!(verdict, Verdict::Ok).then(String::new)
        })?;
        self.list(out, "not applicable", |verdict| match verdict {
            Verdict::NotApplicable { why } => Some(why.clone()),
            _ => None,
        })?;
        self.list(out, "unknown", |verdict| match verdict {
            Verdict::Unknown { because } => Some(because.clone()),
            _ => None,
        })?;
        self.features(out)?;
        writeln!(out, "\n{}", self.ending())
    }

    /// What the kernel offers, and what that means; nothing where it was not asked.
    fn features(&self, out: &mut impl Write) -> fmt::Result {
        let Some(features) = self.facts.kernel.features.known() else {
            return Ok(());
        };
        writeln!(out, "\nwhat this kernel offers")?;
        features
            .lines()
            .iter()
            .try_for_each(|line| writeln!(out, "  {line}"))
    }

    fn head(&self, out: &mut impl Write) -> fmt::Result {
        let facts = self.facts;
        let word = |fact: &super::facts::Fact<String>| fact.known().cloned().unwrap_or_default();
        let controllers = facts.controllers.known().map_or(&[][..], Vec::as_slice);
        let names: Vec<String> = controllers
            .iter()
            .map(|found| format!("{} ({})", found.kind.name(), found.evidence.join(", ")))
            .collect();
        writeln!(out, "{} {}", word(&facts.host), word(&facts.kernel.release))?;
        match (names.is_empty(), facts.controllers.get()) {
            (false, _) => writeln!(out, "IPVS is managed by {}", names.join("; "))?,
            (true, Ok(_)) => writeln!(out, "no manager of IPVS was recognised")?,
            (true, Err(because)) => writeln!(out, "who manages IPVS is unknown: {because}")?,
        }
        match facts.observed.get() {
            Ok(observed) => writeln!(out, "decisions as observed by {}", observed.source)?,
            Err(because) => writeln!(out, "decisions were not observed: {because}")?,
        }
        if facts.netns_skipped > 0 {
            let skipped = facts.netns_skipped;
            writeln!(out, "network namespaces not read: {skipped}")?;
        }
        Ok(())
    }

    /// One line per rule and answer, for verdicts that need no block.
    fn list(
        &self,
        out: &mut impl Write,
        word: &str,
        pick: impl Fn(&Verdict) -> Option<String>,
    ) -> fmt::Result {
        for entry in &self.verdicts {
            if let Some(text) = pick(&entry.verdict) {
                let text = if text.is_empty() { entry.title } else { &text };
                writeln!(out, "{word:<14}  {:<18}{}  {text}", entry.id, entry.place())?;
            }
        }
        Ok(())
    }

    /// The conclusion in one line; of a node that cannot be observed, the words of `run`.
    fn ending(&self) -> String {
        let text = match self.conclusion() {
            Conclusion::NothingToDo => "nothing to do",
            Conclusion::Advice => "problems found, see above",
            Conclusion::CannotObserve => match rules::prerequisites(self.facts) {
                Err(refusal) => return refusal.to_string(),
                Ok(()) => "some facts could not be read: see unknown above",
            },
        };
        text.to_owned()
    }
}

fn conclusion(entries: &[Entry]) -> Conclusion {
    if entries.iter().any(Entry::is_hindrance) {
        return Conclusion::CannotObserve;
    }
    if entries.iter().any(|entry| entry.verdict.is_hazard()) {
        return Conclusion::Advice;
    }
    let unknown = |entry: &Entry| matches!(entry.verdict, Verdict::Unknown { .. });
    let owed = |entry: &&Entry| !matches!(entry.kind, Kind::Hint | Kind::Notice);
    if entries.iter().filter(owed).any(unknown) {
        return Conclusion::CannotObserve;
    }
    Conclusion::NothingToDo
}

impl Entry {
    fn of(rule: &Rule, netns: Option<&Netns>, verdict: Verdict) -> Self {
        Self {
            id: rule.id,
            title: rule.title,
            netns: netns.map(|netns| Place {
                id: netns.id,
                path: netns.path.clone(),
            }),
            verdict,
            doc: format!("{DOCUMENT}#{}", rule.id),
            kind: rule.kind,
        }
    }

    fn is_hindrance(&self) -> bool {
        self.kind == Kind::Prerequisite && self.verdict.is_hazard()
    }

    /// Empty for the doctor's own namespace.
    fn place(&self) -> String {
        let path = self.netns.as_ref().and_then(|netns| netns.path.as_deref());
        path.map_or_else(String::new, |path| format!(" in {path}"))
    }

    fn block(&self, advice: &Advice, out: &mut impl Write) -> fmt::Result {
        let risk = match advice.risk {
            Risk::High => "HIGH",
            Risk::Medium => "MEDIUM",
            Risk::Low => "LOW",
            Risk::Note => "NOTE",
        };
        let sure = match advice.sure {
            Sure::Observed => "observed",
            Sure::Configured => "configured",
            Sure::Unknown => "not sure: it cannot be derived from the kernel's version",
        };
        writeln!(out, "{risk} {}{} ({sure})", self.id, self.place())?;
        field(out, "found", &advice.found)?;
        field(out, "want", &advice.want)?;
        field(out, "why", &advice.why)?;
        for command in &advice.commands {
            field(out, "run", command)?;
        }
        for command in &advice.undo {
            field(out, "undo", command)?;
        }
        for Lasting { place, text } in &advice.lasting {
            field(out, "keep", &format!("in {place}:"))?;
            for line in text.lines() {
                field(out, "", &format!("  {line}"))?;
            }
        }
        field(out, "more", &self.doc)
    }
}

fn field(out: &mut impl Write, name: &str, text: &str) -> fmt::Result {
    writeln!(out, "  {name:<5}  {text}")
}

#[cfg(test)]
mod tests;
