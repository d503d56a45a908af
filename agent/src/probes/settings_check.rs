//! Holds the built kernel programs to settings that start as all ones.
//!
//! The linker merges constants of equal content: a setting that starts as zeros would lend its
//! later value to every constant zero of the programs.

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use super::attach::{PERF_OBJECT, RING_OBJECT};

/// Where the compiler puts what the agent sets before loading.
const SECTION: &str = ".rodata";

/// The logging library's own setting, which has a value of its own.
const OF_THE_LIBRARY: &str = "AYA_LOG_LEVEL";

/// Names and first values of the settings.
fn settings(object: &[u8]) -> Vec<(String, Vec<u8>)> {
    let file = ElfFile64::<LittleEndian>::parse(object).unwrap();
    let section = file
        .sections()
        .find(|section| section.name() == Ok(SECTION))
        .unwrap();
    let mut found: Vec<_> = file
        .symbols()
        .filter(|symbol| {
            symbol.section_index() == Some(section.index())
                && symbol.kind() == SymbolKind::Data
                && symbol.is_global()
                && symbol.name() != Ok(OF_THE_LIBRARY)
        })
        .map(|symbol| {
            let value = section.data_range(symbol.address(), symbol.size());
            let name = symbol.name().unwrap().to_owned();
            (name, value.unwrap().unwrap().to_vec())
        })
        .collect();
    found.sort();
    found
}

/// Settings that do not start as all ones.
fn faults(settings: &[(String, Vec<u8>)]) -> Vec<&str> {
    let faulty = |value: &[u8]| value.is_empty() || value.iter().any(|byte| *byte != u8::MAX);
    let faulty = settings.iter().filter(|(_, value)| faulty(value));
    faulty.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn settings_start_as_all_ones() {
    for object in [RING_OBJECT, PERF_OBJECT] {
        let settings = settings(object);
        let names: Vec<_> = settings.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["CONFIG", "LAYOUT"]);
        assert_eq!(faults(&settings), Vec::<&str>::new());
    }
}

#[test]
fn a_setting_that_starts_with_a_zero_is_found() {
    let mut settings = settings(RING_OBJECT);
    settings[1].1[3] = 0;
    assert_eq!(faults(&settings), ["LAYOUT"]);
}
