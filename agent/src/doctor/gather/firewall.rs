//! Firewall rules, as the node's own tools list them. Only listing, and only where the kernel's
//! part of the tool is loaded already: asking an absent one would load it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::facts::Rules;
use super::files::{line, present};
use crate::clock;

/// Where programs are.
pub(super) const PROGRAM_DIRECTORIES: &[&str] = &[
    "usr/sbin",
    "usr/bin",
    "sbin",
    "bin",
    "usr/local/sbin",
    "usr/local/bin",
];

/// Time for a tool; 50,000 rules take a second or two.
const TOOL_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Output read; 50,000 rules have some 10 MB.
const OUTPUT_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Parts of rules that need connection tracking, in lower case.
const STATEFUL: &[&str] = &[
    "ct state",
    "ct status",
    "ct mark",
    "conntrack",
    "-m state",
    "masquerade",
    "snat",
    "dnat",
    "redirect",
];

pub(super) fn rules(root: &Path) -> Result<Rules, String> {
    let mut rules = Rules::default();
    if present(root, "sys/module", "nf_tables")? {
        let nft = ("nft", &["list", "ruleset"][..]);
        let text = first_of(
            root,
            &[nft, ("iptables-nft-save", &[]), ("iptables-save", &[])],
        )?;
        count(&mut rules, &text);
    }
    // Empty, or absent, where no table of the old kind is in use.
    if !line(root, "proc/thread-self/net/ip_tables_names")
        .unwrap_or_default()
        .is_empty()
    {
        let text = first_of(
            root,
            &[("iptables-legacy-save", &[]), ("iptables-save", &[])],
        )?;
        count(&mut rules, &text);
    }
    Ok(rules)
}

/// Counts the rules in a listing of `nft` or `iptables-save`.
pub(super) fn count(rules: &mut Rules, listing: &str) {
    for line in listing.lines().map(str::trim) {
        let heads = ["chain ", "table ", "set ", "type ", ":", "*", "#"];
        if heads.iter().any(|head| line.starts_with(head)) {
            continue;
        }
        let lower = line.to_lowercase();
        if STATEFUL.iter().any(|part| lower.contains(part)) {
            rules.stateful = rules.stateful.saturating_add(1);
        }
        if lower.contains("masquerade") && rules.masquerades.len() < Rules::MASQUERADES_MAX {
            rules.masquerades.push(line.to_owned());
        }
    }
}

/// Where a program is, if anywhere.
pub(super) fn find(root: &Path, name: &str) -> Option<PathBuf> {
    let mut places = PROGRAM_DIRECTORIES.iter().map(|d| root.join(d).join(name));
    places.find(|path| path.symlink_metadata().is_ok())
}

fn first_of(root: &Path, tools: &[(&str, &[&str])]) -> Result<String, String> {
    let found = tools
        .iter()
        .find_map(|(name, args)| Some((find(root, name)?, *args)));
    let Some((path, args)) = found else {
        let names: Vec<&str> = tools.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "none of {} is installed to list them",
            names.join(", ")
        ));
    };
    output(&path, args).map_err(|error| format!("{} {error}", path.display()))
}

/// What a program prints, within the limits of time and size.
fn output(program: &Path, args: &[&str]) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let stdout = child.stdout.take();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(stdout));
        let deadline = clock::now() + TOOL_LIMIT;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if clock::now() < deadline => std::thread::sleep(POLL),
                Ok(None) => break Err(format!("did not end within {} s", TOOL_LIMIT.as_secs())),
                Err(error) => break Err(format!("cannot be waited for: {error}")),
            }
        };
        if status.is_err() {
            // Both fail when it has ended by now, which is what is wanted.
            drop(child.kill());
            drop(child.wait());
        }
        let text = reader.join().unwrap_or_default();
        match status? {
            status if status.success() => Ok(text),
            status => Err(format!("ended with {status}")),
        }
    })
}

/// Reads on past the limit without keeping, so that the program can end.
fn read_all(stdout: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stdout) = stdout {
        // What was read before an error is judged; the program's status reports the error.
        drop(
            stdout
                .by_ref()
                .take(OUTPUT_BYTES_MAX)
                .read_to_end(&mut bytes),
        );
        drop(std::io::copy(&mut stdout, &mut std::io::sink()));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
