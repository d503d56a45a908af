//! Any bytes as /proc/kallsyms or tracefs's list of functions: every function found begins before it
//! ends, never a panic.

#![no_main]

use agent_core::kernel::symbols::{SymbolScan, traceable_function};
use libfuzzer_sys::fuzz_target;

const WANTED: [&str; 2] = ["ip_vs_in", "nf_hook_slow"];

fuzz_target!(|bytes: &[u8]| {
    let mut table = SymbolScan::of(WANTED);
    for line in bytes.split(|byte| *byte == b'\n') {
        table.line(line);
        if let Some(function) = traceable_function(line) {
            assert!(function.len() <= line.len());
        }
    }
    let Some(symbols) = table.finish() else {
        return;
    };
    for wanted in WANTED {
        let _ = symbols.existence(wanted);
        for code in symbols.code(wanted) {
            assert!(code.start <= code.end);
        }
    }
});
