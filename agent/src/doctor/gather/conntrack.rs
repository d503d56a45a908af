//! netfilter's connection tracking, of this thread's namespace.

use std::path::Path;

use super::super::facts::{Conntrack, Fact};
use super::files::{number, text};

/// A line of names, then a line of hexadecimal numbers per CPU.
const STATISTICS: &str = "proc/thread-self/net/stat/nf_conntrack";

pub(super) fn read(root: &Path) -> Conntrack {
    let sysctl = |name: &str| {
        Fact::from(number(
            root,
            &format!("proc/sys/net/netfilter/nf_conntrack_{name}"),
        ))
    };
    Conntrack {
        count: sysctl("count"),
        max: sysctl("max"),
        buckets: sysctl("buckets"),
        insert_failed: statistic(root, "insert_failed").into(),
        drop: statistic(root, "drop").into(),
    }
}

/// One column, summed over CPUs.
fn statistic(root: &Path, name: &str) -> Result<u64, String> {
    let text = text(root, STATISTICS)?;
    let mut lines = text.lines();
    let mut names = lines.next().unwrap_or_default().split_whitespace();
    let column = names
        .position(|column| column == name)
        .ok_or_else(|| format!("/{STATISTICS} has no column {name}"))?;
    let values = lines.filter_map(|line| line.split_whitespace().nth(column));
    let values = values.filter_map(|value| u64::from_str_radix(value, 16).ok());
    Ok(super::super::facts::total(values))
}
