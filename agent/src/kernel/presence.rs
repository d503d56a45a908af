//! Reads whether ip_vs is built into the kernel.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use agent_core::kernel::built_in::is_built_in_symbol;

/// Whether the symbol table of the kernel lists ip_vs outside a module.
///
/// The table has some 200,000 lines: ask once.
///
/// # Errors
/// The table cannot be read.
pub fn is_built_in(root: &Path) -> io::Result<bool> {
    let table = BufReader::new(File::open(root.join("proc/kallsyms"))?);
    for line in table.lines() {
        if is_built_in_symbol(&line?) {
            return Ok(true);
        }
    }
    Ok(false)
}
