//! Any text as a file of /proc or /sys: read as far as it makes sense, never a panic.

#![no_main]

use agent_core::decode::proc;
use agent_core::doctor::facts::Version;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = proc::counter(text, "Tcp", "ListenDrops");
    let _ = proc::counter_v6(text, "Udp6RcvbufErrors");
    let _ = proc::conntrack_statistic(text, "insert_failed");
    if let Some(ranges) = proc::port_list(text) {
        assert!(ranges.len() <= text.len());
    }
    let _ = proc::port_range(text);
    let listeners = text.lines().filter_map(proc::listener);
    assert!(listeners.count() <= text.len());
    let _ = Version::of(text);
});
