//! What the host asked for on the kernel's command line. Pure.

use anyhow::{Result, bail};

use crate::scenarios::Set;

/// What the guest is booted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Run the listed scenarios and report each.
    Scenarios,
    /// Play the incident for a person.
    Demo,
    /// Play the incident at the host's word, with Prometheus on the host watching.
    Stack,
    /// Measure what a packet costs.
    Bench,
    /// Measure what a large table costs.
    BenchTable,
    /// Give the console to a person.
    Shell,
}

/// The `lab.*` words of the kernel's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `lab.mode=`; scenarios when absent.
    pub mode: Mode,
    /// `lab.scenarios=a,b`; empty means `set`.
    pub scenarios: Vec<String>,
    /// `lab.set=`, a name of [`Set`]; all when absent.
    pub set: Set,
    /// `lab.kernel=`: the host's name for this kernel, empty when absent.
    pub kernel: String,
    /// `lab.init=systemd`: systemd is process 1 and starts the lab.
    pub systemd: bool,
}

/// Reads `/proc/cmdline`; words that do not begin with `lab.` are the kernel's.
///
/// # Errors
/// An unknown `lab.` word or mode: a typing mistake must not run something else.
pub fn parse(cmdline: &str) -> Result<Request> {
    let mut request = Request {
        mode: Mode::Scenarios,
        scenarios: Vec::new(),
        set: Set::All,
        kernel: String::new(),
        systemd: false,
    };
    for (key, value) in lab_words(cmdline) {
        match key {
            "mode" => request.mode = parse_mode(value)?,
            "scenarios" => request.scenarios = parse_list(value),
            "set" => request.set = parse_set(value)?,
            "kernel" => value.clone_into(&mut request.kernel),
            "init" => request.systemd = parse_init(value)?,
            other => bail!(
                "unknown word `lab.{other}` on the kernel's command line; known are lab.mode, lab.scenarios, lab.set, lab.kernel, lab.init"
            ),
        }
    }
    Ok(request)
}

fn lab_words(cmdline: &str) -> impl Iterator<Item = (&str, &str)> {
    cmdline
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("lab."))
        .map(|word| word.split_once('=').unwrap_or((word, "")))
}

fn parse_mode(value: &str) -> Result<Mode> {
    match value {
        "scenarios" => Ok(Mode::Scenarios),
        "demo" => Ok(Mode::Demo),
        "stack" => Ok(Mode::Stack),
        "bench" => Ok(Mode::Bench),
        "bench_table" => Ok(Mode::BenchTable),
        "shell" => Ok(Mode::Shell),
        other => {
            bail!(
                "unknown lab.mode `{other}`; known are scenarios, demo, stack, bench, bench_table, shell"
            )
        }
    }
}

fn parse_set(value: &str) -> Result<Set> {
    match value {
        "all" => Ok(Set::All),
        "core" => Ok(Set::Core),
        "ways" => Ok(Set::Ways),
        "systemd" => Ok(Set::Systemd),
        "rights" => Ok(Set::Rights),
        "long" => Ok(Set::Long),
        other => {
            bail!("unknown lab.set `{other}`; known are all, core, ways, systemd, rights, long")
        }
    }
}

fn parse_init(value: &str) -> Result<bool> {
    match value {
        "systemd" => Ok(true),
        other => bail!("unknown lab.init `{other}`; known is systemd"),
    }
}

fn parse_list(value: &str) -> Vec<String> {
    value
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lab_words_among_the_kernels() {
        let request = parse(
            "console=ttyS0 lab.mode=scenarios lab.scenarios=a,b, lab.set=core lab.kernel=6.1 quiet\n",
        );
        assert_eq!(
            request.unwrap(),
            Request {
                mode: Mode::Scenarios,
                scenarios: vec!["a".to_owned(), "b".to_owned()],
                set: Set::Core,
                kernel: "6.1".to_owned(),
                systemd: false,
            }
        );
    }

    #[test]
    fn no_lab_words_means_all_scenarios() {
        let request = parse("console=ttyS0 panic=1").unwrap();
        assert_eq!(request.mode, Mode::Scenarios);
        assert!(request.scenarios.is_empty());
        assert_eq!(request.set, Set::All);
    }

    #[test]
    fn refuses_unknown_words_and_modes() {
        assert!(
            parse("lab.moed=demo")
                .unwrap_err()
                .to_string()
                .contains("`lab.moed`")
        );
        assert!(
            parse("lab.mode=party")
                .unwrap_err()
                .to_string()
                .contains("`party`")
        );
        assert!(
            parse("lab.set=half")
                .unwrap_err()
                .to_string()
                .contains("`half`")
        );
    }
}
