//! Reads hooks and their prototypes out of the probes' source. Pure: text in, names out.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::pins;

/// What begins a prototype line.
const MARK: &str = "// match-proto ";

/// What stands in the place of a prototype where a kernel has nothing to hook.
const NONE: &str = "none";

/// Attributes that make a function a kernel program.
const PROGRAMS: &[(&str, Kind)] = &[
    ("fentry", Kind::Function),
    ("fexit", Kind::Function),
    ("kprobe", Kind::Function),
    ("kretprobe", Kind::Function),
    ("btf_tracepoint", Kind::Tracepoint),
    ("raw_tracepoint", Kind::Tracepoint),
];

/// What a program hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A function of the kernel or a module.
    Function,
    /// A tracepoint, with its raw arguments.
    Tracepoint,
}

/// One `match-proto` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The kernel it names.
    pub kernel: String,
    /// The prototype as written; `None` for `none`.
    pub prototype: Option<String>,
}

/// One hook: a program, or the programs that share its name but for `_k`, `_r` and `_loc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// File it stands in.
    pub file: String,
    /// Name of the program without those endings.
    pub program: String,
    /// What it hangs on.
    pub kind: Kind,
    /// The lines above its first attribute.
    pub lines: Vec<Line>,
}

/// The hooks in one file, in its order.
///
/// # Errors
/// A line that cannot be read, or lines that stand above no program.
pub fn hooks(file: &str, text: &str) -> Result<Vec<Hook>> {
    let mut hooks: Vec<Hook> = Vec::new();
    let mut above = Vec::new();
    let mut kind = None;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if let Some(rest) = line.strip_prefix(MARK) {
            above.push(parse_line(rest).with_context(|| format!("{file}:{number}"))?);
        } else if let Some(found) = program_kind(line) {
            kind = Some(found);
        } else if line.starts_with("pub fn ")
            && let Some(kind) = kind.take()
        {
            let program = base_name(line).to_owned();
            let lines = std::mem::take(&mut above);
            match hooks.iter().find(|hook| hook.program == program) {
                Some(_) if lines.is_empty() => {}
                Some(_) => bail!(
                    "{file}:{number}: `{program}` has prototypes already; keep them above its first program"
                ),
                None => hooks.push(Hook {
                    file: file.to_owned(),
                    program,
                    kind,
                    lines,
                }),
            }
        } else if !above.is_empty()
            && kind.is_none()
            && !line.starts_with("//")
            && !line.starts_with('#')
        {
            bail!(
                "{file}:{number}: prototypes stand above `{line}`; want them above a program's attribute"
            );
        }
    }
    Ok(hooks)
}

fn parse_line(rest: &str) -> Result<Line> {
    let (kernel, prototype) = rest.split_once(": ").with_context(|| {
        format!("`{MARK}{rest}` names no kernel; want `{MARK}KERNEL: PROTOTYPE`")
    })?;
    if pins::kernel(kernel).is_none() {
        let known: Vec<_> = pins::KERNELS.iter().map(|kernel| kernel.name).collect();
        bail!(
            "`{MARK}{kernel}` names a kernel that is not pinned; known are {}",
            known.join(", ")
        );
    }
    let prototype = prototype.trim();
    let first = prototype.split(|each: char| !each.is_alphanumeric()).next();
    let none = first == Some(NONE);
    Ok(Line {
        kernel: kernel.to_owned(),
        prototype: (!none).then(|| prototype.trim_end_matches(';').to_owned()),
    })
}

fn program_kind(line: &str) -> Option<Kind> {
    let attribute = line.strip_prefix("#[")?;
    let end = attribute.find(['(', ']'])?;
    PROGRAMS
        .iter()
        .find(|(name, _)| *name == &attribute[..end])
        .map(|(_, kind)| *kind)
}

/// `pub fn il_leave_k(...` belongs to `il_leave`, `pub fn il_syn_drop_loc(...` to `il_syn_drop`.
fn base_name(line: &str) -> &str {
    let name = line.trim_start_matches("pub fn ");
    let name = &name[..name.find(['(', '<']).unwrap_or(name.len())];
    name.strip_suffix("_k")
        .or_else(|| name.strip_suffix("_r"))
        .or_else(|| name.strip_suffix("_loc"))
        .unwrap_or(name)
}

/// Names of functions and tracepoints in the agent's table of probes: the strings of each `hook:`.
pub fn hooked_functions(table: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for hook in table.split("hook: Hook::").skip(1) {
        let row = &hook[..hook.find("finds:").unwrap_or(hook.len())];
        for line in row.lines().filter(|line| !line.trim().starts_with("//")) {
            names.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    names
}

/// The name of the function in a prototype.
pub fn function_name(prototype: &str) -> &str {
    let before = &prototype[..prototype.find('(').unwrap_or(prototype.len())];
    let start = before.rfind([' ', '*']).map_or(0, |at| at + 1);
    &before[start..]
}

#[cfg(test)]
mod tests {
    use super::{Kind, function_name, hooked_functions, hooks};

    const PROBE: &str = "\
use a::b;

// match-proto 5.10: int f(void *a)
// match-proto 7.2: none, it went away
#[fexit(function = \"f\")]
pub fn il_f(ctx: FExitContext) -> i32 {
    0
}

#[kprobe]
pub fn il_f_k(ctx: ProbeContext) -> u32 {
    0
}

#[raw_tracepoint(tracepoint = \"t\")]
#[expect(dead_code)]
pub fn il_t(ctx: RawTracePointContext) -> i32 {
    0
}
";

    #[test]
    fn hooks_carry_the_lines_above_them() {
        let found = hooks("f.rs", PROBE).expect("the text is well formed");
        let [f, t] = &found[..] else {
            panic!("want two hooks, found {found:?}");
        };
        assert_eq!((f.program.as_str(), f.kind), ("il_f", Kind::Function));
        assert_eq!(f.lines[0].kernel, "5.10");
        assert_eq!(f.lines[0].prototype.as_deref(), Some("int f(void *a)"));
        assert_eq!(f.lines[1].prototype, None);
        assert_eq!((t.program.as_str(), t.kind), ("il_t", Kind::Tracepoint));
        assert!(t.lines.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_place() {
        let refusal = |text: &str| format!("{:#}", hooks("f.rs", text).expect_err("it is wrong"));
        assert!(refusal("// match-proto 4.4: int f(void)\n").starts_with("f.rs:1: "));
        assert!(refusal("// match-proto 5.10\n").contains("KERNEL: PROTOTYPE"));
        let stray = "// match-proto 5.10: int f(void)\nfn other() {}\n";
        assert!(refusal(stray).contains("`fn other() {}`"));
    }

    #[test]
    fn names_of_functions() {
        assert_eq!(function_name("struct a *f(int)"), "f");
        assert_eq!(function_name("t(struct a *)"), "t");
        let table = "hook: Hook::IpvsReturn(&[&[\"a\"],\n// \"no\"\n&[\"b\", \"c\"]]),\nfinds: \"x\",\n}\nProbe { name: \"d\", hook: Hook::RawTracepoint(\"e\"),\nfinds: \"y\" }";
        let names: Vec<_> = hooked_functions(table).into_iter().collect();
        assert_eq!(names, ["a", "b", "c", "e"]);
    }
}
