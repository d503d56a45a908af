//! A visit to the doctor, as a person pays it: read the verdicts, run what is prescribed, ask again.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{agent, command};

/// Exit status: nothing to do.
pub const FINE: i32 = 0;
/// Exit status: there is advice.
pub const ADVICE: i32 = 1;
/// Exit status: could not look.
pub const BLIND: i32 = 3;

/// Where a visit saves the facts.
const BUNDLE: &str = "/tmp/facts.json";

/// What the doctor said.
#[derive(Debug)]
pub struct Visit {
    status: i32,
    report: Value,
}

/// What it prescribed for one thing.
#[derive(Debug)]
pub struct Prescription {
    commands: Vec<String>,
    undo: Vec<String>,
}

impl Visit {
    /// Asks the doctor about this node.
    ///
    /// # Errors
    /// There is no report.
    pub fn pay() -> Result<Self> {
        Self::ask(&[])
    }

    /// Asks twice: about this node, and about the facts of this node from a file.
    ///
    /// # Errors
    /// The two differ, or there is no report.
    pub fn pay_with_bundle() -> Result<Self> {
        let visit = Self::ask(&["--save-facts", BUNDLE])?;
        let elsewhere = Self::ask(&["--facts", BUNDLE])?;
        ensure!(
            visit.report == elsewhere.report,
            "judged from the bundle: {}\njudged at once: {}",
            elsewhere.report,
            visit.report
        );
        Ok(visit)
    }

    fn ask(options: &[&str]) -> Result<Self> {
        let finished = agent::finish(&[&["doctor", "--format", "json"], options].concat())?;
        let status = finished.code.context("the doctor was killed")?;
        let report: Value = serde_json::from_str(&finished.stdout)
            .with_context(|| format!("no report, but: {}{}", finished.stdout, finished.stderr))?;
        ensure!(
            report["exit_status"] == status,
            "exit status {status}, and in the report {}",
            report["exit_status"]
        );
        Ok(Self { status, report })
    }

    /// Wants this exit status.
    ///
    /// # Errors
    /// It was another.
    pub fn ensure_status(&self, want: i32) -> Result<()> {
        ensure!(
            self.status == want,
            "exit status {}, want {want}: {}",
            self.status,
            self.report["verdicts"]
        );
        Ok(())
    }

    /// Names of rules that advise; notes do not count.
    pub fn advising(&self) -> Vec<&str> {
        let verdicts = self.verdicts().filter(|verdict| is_advice(verdict));
        verdicts
            .filter_map(|verdict| verdict["id"].as_str())
            .collect()
    }

    /// The one advice of this rule.
    ///
    /// # Errors
    /// There is none, or it is not this sure.
    pub fn advice(&self, rule: &str, sure: &str) -> Result<Prescription> {
        let mut of_rule = self.of(rule);
        let advice = of_rule
            .find(|verdict| is_advice(verdict))
            .with_context(|| format!("no advice by {rule}: {}", self.report["verdicts"]))?;
        ensure!(
            advice["sure"] == sure,
            "{rule} is sure as {}, want {sure}: {advice}",
            advice["sure"]
        );
        Prescription::of(advice)
    }

    /// The one note of this rule.
    ///
    /// # Errors
    /// It says something else.
    pub fn note(&self, rule: &str) -> Result<Prescription> {
        let note = self
            .of(rule)
            .find(|verdict| verdict["risk"] == "note")
            .with_context(|| format!("no note by {rule}: {}", self.report["verdicts"]))?;
        Prescription::of(note)
    }

    /// Wants everything to be as this rule wants it.
    ///
    /// # Errors
    /// It is not.
    pub fn ensure_ok(&self, rule: &str) -> Result<()> {
        ensure!(
            self.of(rule).all(|verdict| verdict["verdict"] == "ok"),
            "{rule} is not content: {}",
            self.report["verdicts"]
        );
        Ok(())
    }

    /// Wants this rule to have nothing to say.
    ///
    /// # Errors
    /// It advises.
    pub fn ensure_content(&self, rule: &str) -> Result<()> {
        ensure!(
            !self.advising().contains(&rule),
            "{rule} still advises: {}",
            self.report["verdicts"]
        );
        Ok(())
    }

    fn of<'a>(&'a self, rule: &'a str) -> impl Iterator<Item = &'a Value> {
        self.verdicts().filter(move |verdict| verdict["id"] == rule)
    }

    fn verdicts(&self) -> impl Iterator<Item = &Value> {
        self.report["verdicts"].as_array().into_iter().flatten()
    }
}

impl Prescription {
    fn of(advice: &Value) -> Result<Self> {
        let lines = |field: &str| -> Vec<String> {
            let lines = advice[field].as_array().into_iter().flatten();
            lines
                .filter_map(|l| l.as_str().map(str::to_owned))
                .collect()
        };
        let prescription = Self {
            commands: lines("commands"),
            undo: lines("undo"),
        };
        ensure!(
            !prescription.commands.is_empty() && !prescription.undo.is_empty(),
            "nothing to run is prescribed, or nothing that undoes it: {advice}"
        );
        Ok(prescription)
    }

    /// Runs what was prescribed, as it was printed.
    ///
    /// # Errors
    /// A command failed.
    pub fn take(&self) -> Result<()> {
        run(&self.commands)
    }

    /// Takes it back.
    ///
    /// # Errors
    /// A command failed.
    pub fn undo(&self) -> Result<()> {
        run(&self.undo)
    }
}

fn run(commands: &[String]) -> Result<()> {
    commands
        .iter()
        .try_for_each(|line| command::run("sh", &["-c", line]).map(drop))
}

fn is_advice(verdict: &Value) -> bool {
    verdict["verdict"] == "advise" && verdict["risk"] != "note"
}

/// Asks, takes what `rule` prescribes, asks again and wants it content; what was prescribed, and the
/// second visit.
///
/// # Errors
/// It did not advise, or still does.
pub fn cure(rule: &str, sure: &str) -> Result<(Prescription, Visit)> {
    let prescription = Visit::pay()?
        .advice(rule, sure)
        .context("before the cure")?;
    prescription.take()?;
    let after = Visit::pay()?;
    after.ensure_content(rule).context("after the cure")?;
    Ok((prescription, after))
}
