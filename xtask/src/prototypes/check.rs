//! Holds the lines above a hook against what each kernel has.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Result, ensure};

use super::KernelTypes;
use super::render;
use super::source::{Hook, Kind, Line, function_name};

/// A hook and a kernel that disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// File and program.
    pub hook: String,
    /// Kernel concerned; empty when it is none in particular.
    pub kernel: String,
    /// What is wrong and what to write.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hook, kernel, what } = self;
        if kernel.is_empty() {
            write!(out, "{hook}: {what}")
        } else {
            write!(out, "{hook}, kernel {kernel}: {what}")
        }
    }
}

/// Every kernel on which a hook's lines do not hold; at most one fault for each.
pub fn hook(hook: &Hook, kernels: &[KernelTypes]) -> Vec<Fault> {
    let names: Vec<_> = kernels.iter().map(|kernel| kernel.name).collect();
    let mut faults = Vec::new();
    for (at, kernel) in kernels.iter().enumerate() {
        let of_its_own = at == 0 || at == kernels.len() - 1;
        let what = match lines_of(&hook.lines, &names[..=at], of_its_own) {
            Some(lines) => disagreement(hook, &lines, kernel),
            None => Some(missing(hook, kernel)),
        };
        if let Some(what) = what {
            faults.push(Fault {
                hook: format!("{} `{}`", hook.file, hook.program),
                kernel: kernel.name.to_owned(),
                what,
            });
        }
    }
    faults
}

/// The lines that hold for the last of `kernels`: its own, or those of the nearest before it.
fn lines_of<'a>(lines: &'a [Line], kernels: &[&str], of_its_own: bool) -> Option<Vec<&'a Line>> {
    let depth = if of_its_own { 1 } else { kernels.len() };
    let labels = kernels.iter().rev().take(depth);
    let labels = labels.flat_map(|kernel| [*kernel, series(kernel)]);
    labels.into_iter().find_map(|label| {
        let found: Vec<_> = lines.iter().filter(|line| line.kernel == label).collect();
        (!found.is_empty()).then_some(found)
    })
}

/// The first two numbers of a kernel's name: a line of `6.12` also holds for `6.12.94`.
fn series(kernel: &str) -> &str {
    let mut ends = kernel.match_indices(['.', '-']).map(|(at, _)| at);
    ends.nth(1).map_or(kernel, |end| &kernel[..end])
}

/// What to say when a kernel has no line.
fn missing(hook: &Hook, kernel: &KernelTypes) -> String {
    let names: BTreeSet<_> = hook
        .lines
        .iter()
        .filter_map(|line| line.prototype.as_deref())
        .map(function_name)
        .collect();
    let suggestions: Vec<_> = names
        .into_iter()
        .filter_map(|name| prototype(hook.kind, name, kernel).into_iter().next())
        .map(|found| format!("`// match-proto {}: {found}`", kernel.name))
        .collect();
    if suggestions.is_empty() {
        format!(
            "no prototype; write one above the hook, as `cargo xtask prototypes --print NAME` prints it, or `// match-proto {}: none`",
            kernel.name
        )
    } else {
        format!("no prototype; write {}", suggestions.join(" and "))
    }
}

/// The first line that does not hold.
fn disagreement(hook: &Hook, lines: &[&Line], kernel: &KernelTypes) -> Option<String> {
    lines.iter().find_map(|line| match &line.prototype {
        Some(written) => differs(hook.kind, written, kernel),
        None => hook
            .lines
            .iter()
            .filter_map(|line| line.prototype.as_deref())
            .find_map(|other| {
                let found = prototype(hook.kind, function_name(other), kernel);
                found
                    .first()
                    .map(|found| format!("said to have nothing to hook, and has `{found}`"))
            }),
    })
}

fn differs(kind: Kind, written: &str, kernel: &KernelTypes) -> Option<String> {
    let found = prototype(kind, function_name(written), kernel);
    compare(written, &found, kernel.name)
}

/// What is wrong with a written prototype, given those found under its name.
fn compare(written: &str, found: &[String], kernel: &str) -> Option<String> {
    match found.first() {
        None => Some(format!(
            "has no `{}` that could be hooked; written is `{written}`",
            function_name(written)
        )),
        Some(_) if found.iter().any(|found| found == written) => None,
        Some(first) => Some(format!(
            "written is `{written}`, it has `// match-proto {kernel}: {first}`"
        )),
    }
}

/// What a kernel and its modules have under a name; empty when nothing, or nothing readable.
fn prototype(kind: Kind, name: &str, kernel: &KernelTypes) -> Vec<String> {
    let types = &kernel.types;
    let all = types.modules.iter().chain([&types.kernel]);
    let mut found = Vec::new();
    for btf in all {
        match kind {
            Kind::Function => found.extend(render::functions(btf, name).unwrap_or_default()),
            Kind::Tracepoint => found.extend(render::tracepoint(btf, name).unwrap_or_default()),
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The lines to write for a function or tracepoint: one per kernel that changes it, and the newest.
///
/// # Errors
/// When no kernel has it.
pub fn lines_for(name: &str, kernels: &[KernelTypes]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for kind in [Kind::Function, Kind::Tracepoint] {
        let found: Vec<_> = kernels
            .iter()
            .map(|kernel| prototype(kind, name, kernel))
            .collect();
        if found.iter().all(Vec::is_empty) {
            continue;
        }
        for (at, (kernel, here)) in kernels.iter().zip(&found).enumerate() {
            let changed = at == 0 || at == kernels.len() - 1 || found[at - 1] != *here;
            if changed {
                let text = here.first().map_or("none", String::as_str);
                lines.push(format!("// match-proto {}: {text}", kernel.name));
            }
        }
    }
    ensure!(
        !lines.is_empty(),
        "no pinned kernel has a function or tracepoint called {name}"
    );
    Ok(lines)
}

/// Functions the agent's table names and no prototype does.
pub fn unlisted(hooked: &BTreeSet<String>, hooks: &[Hook]) -> Vec<Fault> {
    let written: BTreeSet<_> = hooks
        .iter()
        .flat_map(|hook| &hook.lines)
        .filter_map(|line| line.prototype.as_deref())
        .map(function_name)
        .collect();
    hooked
        .iter()
        .filter(|name| !written.contains(name.as_str()))
        .map(|name| Fault {
            hook: super::TABLE.to_owned(),
            kernel: String::new(),
            what: format!(
                "hooks `{name}`, for which no prototype is written; `cargo xtask prototypes --print {name}` prints it"
            ),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{compare, lines_of, series};
    use crate::prototypes::source::Line;

    const KERNELS: [&str; 4] = ["5.10", "6.1.170", "6.1", "7.2"];

    fn lines(labels: &[&str]) -> Vec<Line> {
        let line = |label: &&str| Line {
            kernel: (*label).to_owned(),
            prototype: Some(format!("int f_{label}(void)")),
        };
        labels.iter().map(line).collect()
    }

    fn held(labels: &[&str], at: usize, of_its_own: bool) -> Option<Vec<String>> {
        let lines = lines(labels);
        let held = lines_of(&lines, &KERNELS[..=at], of_its_own)?;
        Some(held.into_iter().map(|line| line.kernel.clone()).collect())
    }

    #[test]
    fn a_line_holds_until_the_next() {
        assert_eq!(
            held(&["5.10", "7.2"], 2, false),
            Some(vec!["5.10".to_owned()])
        );
        assert_eq!(
            held(&["5.10", "6.1"], 1, false),
            Some(vec!["6.1".to_owned()])
        );
        assert_eq!(
            held(&["5.10", "5.10"], 0, true).map(|all| all.len()),
            Some(2)
        );
    }

    #[test]
    fn oldest_and_newest_want_their_own() {
        assert_eq!(held(&["5.10", "6.1"], 3, true), None);
        assert_eq!(held(&["6.1", "7.2"], 0, true), None);
    }

    #[test]
    fn what_a_kernel_has_must_be_what_is_written() {
        let found = ["int f(int a)".to_owned(), "int f(long a)".to_owned()];
        assert_eq!(compare("int f(long a)", &found, "7.2"), None);
        let fault = compare("int f(int b)", &found, "7.2");
        assert!(fault.is_some_and(|text| text.ends_with("`// match-proto 7.2: int f(int a)`")));
        let fault = compare("int f(int b)", &[], "7.2");
        assert!(fault.is_some_and(|text| text.starts_with("has no `f`")));
    }

    #[test]
    fn series_are_two_numbers() {
        assert_eq!(
            ["6.12.94", "5.10-old-drop", "7.2"].map(series),
            ["6.12", "5.10", "7.2"]
        );
    }
}
