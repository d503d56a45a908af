//! Whether the running kernel may stop one task in the middle of its own code to run another.
//!
//! It matters to trampolines: a program that is interrupted by a task which comes to the same hook
//! on the same CPU is not run for that task. Kprobes run with preemption off.

/// Where the kernel says which model it follows now, once debugfs is mounted.
pub const MODEL_FILE: &str = "sys/kernel/debug/sched/preempt";

/// What `uname -v` prints.
pub const VERSION_FILE: &str = "proc/sys/kernel/version";

/// What the boot loader passed to the kernel.
pub const COMMAND_LINE_FILE: &str = "proc/cmdline";

/// Models by the kernel's own words (`preempt_modes` in kernel/sched/core.c), and whether they
/// preempt kernel code. The voluntary one only offers itself at points that wait anyway.
const MODELS: &[(&str, bool)] = &[
    ("none", false),
    ("voluntary", false),
    ("full", true),
    ("lazy", true),
];

/// The same as options of the build.
const OPTIONS: &[(&str, bool)] = &[
    ("CONFIG_PREEMPT_NONE=y", false),
    ("CONFIG_PREEMPT_VOLUNTARY=y", false),
    ("CONFIG_PREEMPT=y", true),
    ("CONFIG_PREEMPT_LAZY=y", true),
    ("CONFIG_PREEMPT_RT=y", true),
];

/// What there is to read about it; `None` where a file is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Contents of [`MODEL_FILE`], such as `none (voluntary) full`.
    pub model: Option<String>,
    /// Contents of [`VERSION_FILE`], such as `#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2`.
    pub version: Option<String>,
    /// Contents of [`COMMAND_LINE_FILE`].
    pub command_line: Option<String>,
    /// Configuration the kernel was built with.
    pub config: Option<String>,
}

/// The answer, and what gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// Whether the kernel preempts its own code.
    pub preempts: bool,
    /// What shows it, for people.
    pub shown_by: String,
}

impl Preemption {
    fn new(preempts: bool, shown_by: impl Into<String>) -> Self {
        Self {
            preempts,
            shown_by: shown_by.into(),
        }
    }

    /// Judges by the first of these that says something: the model in force, the kernel's version
    /// line, its command line, its configuration. When none does, preemption is assumed: that
    /// costs time where it is wrong, and the other way round attempts would be lost.
    pub fn judge(evidence: &Evidence) -> Self {
        evidence
            .by_model()
            .or_else(|| evidence.by_version())
            .or_else(|| evidence.by_command_line())
            .or_else(|| evidence.by_config())
            .unwrap_or_else(|| Self::new(true, "nothing, so the worse is assumed"))
    }
}

impl Evidence {
    /// The model in force stands in parentheses.
    fn by_model(&self) -> Option<Preemption> {
        let (_, rest) = self.model.as_deref()?.split_once('(')?;
        let (word, _) = rest.split_once(')')?;
        Some(Preemption::new(
            model(word)?,
            format!("/{MODEL_FILE}: {word}"),
        ))
    }

    /// `PREEMPT_DYNAMIC` leaves the choice to the command line; other words settle it.
    fn by_version(&self) -> Option<Preemption> {
        let version = self.version.as_deref()?;
        let word = version
            .split_whitespace()
            .find(|word| word.starts_with("PREEMPT"));
        match word {
            Some("PREEMPT_DYNAMIC") => None,
            Some(word) => Some(Preemption::new(
                true,
                format!("the kernel's version: {word}"),
            )),
            None => Some(Preemption::new(
                false,
                "the kernel's version, which names no preemption",
            )),
        }
    }

    /// The last word wins, as in the kernel.
    fn by_command_line(&self) -> Option<Preemption> {
        let words = self.command_line.as_deref()?.split_whitespace();
        let (word, preempts) = words
            .filter_map(|word| word.strip_prefix("preempt="))
            .filter_map(|word| Some((word, model(word)?)))
            .next_back()?;
        Some(Preemption::new(
            preempts,
            format!("the kernel's command line: preempt={word}"),
        ))
    }

    fn by_config(&self) -> Option<Preemption> {
        let config = self.config.as_deref()?;
        let (option, preempts) = OPTIONS
            .iter()
            .find(|(option, _)| config.lines().any(|line| line == *option))?;
        Some(Preemption::new(
            *preempts,
            format!("the kernel's configuration: {option}"),
        ))
    }
}

fn model(word: &str) -> Option<bool> {
    let found = MODELS.iter().find(|(model, _)| *model == word);
    found.map(|(_, preempts)| *preempts)
}

#[cfg(test)]
mod tests {
    use super::{Evidence, Preemption};

    fn judged(model: &str, version: &str, command_line: &str, config: &str) -> (bool, String) {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let judged = Preemption::judge(&Evidence {
            model: said(model),
            version: said(version),
            command_line: said(command_line),
            config: said(config),
        });
        (judged.preempts, judged.shown_by)
    }

    #[test]
    fn the_model_in_force_is_heard_before_all() {
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2\n";
        assert_eq!(
            judged("none (voluntary) full \n", dynamic, "preempt=full", ""),
            (
                false,
                "/sys/kernel/debug/sched/preempt: voluntary".to_owned()
            )
        );
        assert!(judged("full (lazy)\n", dynamic, "", "").0);
        assert!(judged("(full) lazy\n", dynamic, "", "").0);
    }

    #[test]
    fn a_version_without_a_choice_settles_it() {
        assert!(!judged("", "#1 SMP Debian 5.10.262-1", "preempt=full", "").0);
        assert!(judged("", "#1 SMP PREEMPT_RT Debian 6.1.192-2", "", "").0);
        assert!(judged("", "#1 SMP PREEMPT Wed", "", "").0);
    }

    #[test]
    fn the_command_line_chooses_where_there_is_a_choice() {
        let dynamic = "#1 SMP PREEMPT_DYNAMIC x";
        let lines = "quiet preempt=full preempt=none ro";
        let config = "CONFIG_PREEMPT=y\n";
        assert_eq!(
            judged("", dynamic, lines, config),
            (false, "the kernel's command line: preempt=none".to_owned())
        );
        assert!(judged("", dynamic, "preempt=other", config).0);
    }

    #[test]
    fn the_configuration_comes_last() {
        let dynamic = "#1 SMP PREEMPT_DYNAMIC x";
        let config =
            "# CONFIG_PREEMPT is not set\nCONFIG_PREEMPT_VOLUNTARY=y\nCONFIG_PREEMPT_RCU=y\n";
        assert_eq!(
            judged("", dynamic, "ro quiet", config),
            (
                false,
                "the kernel's configuration: CONFIG_PREEMPT_VOLUNTARY=y".to_owned()
            )
        );
        assert!(judged("", dynamic, "", "CONFIG_PREEMPT_LAZY=y\n").0);
    }

    #[test]
    fn silence_is_taken_for_preemption() {
        assert_eq!(
            judged("", "", "", ""),
            (true, "nothing, so the worse is assumed".to_owned())
        );
        assert!(judged("unreadable", "#1 SMP PREEMPT_DYNAMIC x", "ro", "").0);
    }
}
