//! `cargo xtask prototypes`: holds the C prototypes above the hooks against every pinned kernel.
//!
//! Above each hook in `agent-ebpf/src/probes/` stands what it relies on:
//!
//! ```text
//! // match-proto 5.10: int ip_vs_leave(struct ip_vs_service *svc, ...)
//! // match-proto 7.2: int ip_vs_leave(struct ip_vs_service *svc, ...)
//! #[fexit(function = "ip_vs_leave")]
//! ```
//!
//! A line holds from the kernel it names until the next line's. The oldest and the newest pinned
//! kernel must have one of their own; several for one kernel mean that all these functions are
//! hooked. `none` stands where a kernel has nothing to hook.

mod check;
mod render;
mod source;

use std::fs;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::paths::Paths;
use crate::pins;
use crate::tally::Tally;
use crate::types::{self, Types};
use check::Fault;
use source::Hook;

/// Where the hooks are.
const PROBES: &str = "agent-ebpf/src/probes";

/// Where the agent names the functions it hooks.
const TABLE: &str = "agent/src/probes/table.rs";

/// Arguments of `cargo xtask prototypes`.
#[derive(Args)]
pub struct PrototypesArgs {
    /// Print the lines to write for these functions and tracepoints, instead of checking
    #[arg(long, value_name = "NAME", num_args = 1..)]
    print: Vec<String>,
}

/// Runs the verb.
///
/// # Errors
/// When a kernel cannot be had, or a hook and a kernel disagree.
pub fn prototypes(paths: &Paths, args: &PrototypesArgs) -> Result<()> {
    if args.print.is_empty() {
        let tally = check(paths)?;
        println!("prototypes: {tally}");
        ensure!(tally.failed == 0, "{} prototypes do not hold", tally.failed);
        return Ok(());
    }
    let kernels = read_kernels(paths)?;
    for name in &args.print {
        for line in check::lines_for(name, &kernels)? {
            println!("{line}");
        }
    }
    Ok(())
}

/// Checks every hook on every kernel and prints what does not hold; one count per hook and kernel.
///
/// # Errors
/// When a kernel cannot be had or a file cannot be read.
pub fn check(paths: &Paths) -> Result<Tally> {
    let hooks = read_hooks(paths)?;
    let kernels = read_kernels(paths)?;
    let mut tally = Tally::default();
    let mut faults: Vec<Fault> = Vec::new();
    for hook in &hooks {
        let found = check::hook(hook, &kernels);
        let failed = found.len() as u64;
        tally.failed += failed;
        tally.passed += (kernels.len() as u64).saturating_sub(failed);
        faults.extend(found);
    }
    let table = paths.root.join(TABLE);
    let text =
        fs::read_to_string(&table).with_context(|| format!("cannot read {}", table.display()))?;
    let unlisted = check::unlisted(&source::hooked_functions(&text), &hooks);
    tally.failed += unlisted.len() as u64;
    for fault in faults.iter().chain(&unlisted) {
        println!("FAILED {fault}");
    }
    Ok(tally)
}

/// Types of a kernel, with the name people call it.
pub struct KernelTypes {
    /// As in [`pins::KERNELS`].
    pub name: &'static str,
    /// What it has.
    pub types: Types,
}

/// Every pinned kernel, oldest first; a rebuilt one lends its types to the one it was built for.
fn read_kernels(paths: &Paths) -> Result<Vec<KernelTypes>> {
    let mut kernels = Vec::new();
    for kernel in pins::KERNELS {
        kernels.push(KernelTypes {
            name: kernel.name,
            types: types::read(paths, kernel)?,
        });
    }
    Ok(kernels)
}

/// Every hook of every probe.
fn read_hooks(paths: &Paths) -> Result<Vec<Hook>> {
    let dir = paths.root.join(PROBES);
    let mut hooks = Vec::new();
    let mut files: Vec<_> = fs::read_dir(&dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    for path in files
        .iter()
        .filter(|path| path.extension() == Some("rs".as_ref()))
    {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        hooks.extend(source::hooks(&name, &text)?);
    }
    ensure!(!hooks.is_empty(), "no hook in {}", dir.display());
    Ok(hooks)
}
