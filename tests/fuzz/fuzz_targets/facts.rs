//! Any text as a bundle of facts: refused with a reason, or judged; never a panic.

#![no_main]

use agent_core::doctor::facts::Facts;
use agent_core::doctor::report::Report;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Facts::parse(text) {
        Ok(facts) => {
            let mut text = String::new();
            assert!(Report::of(&facts).text(&mut text).is_ok() && !text.is_empty());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
