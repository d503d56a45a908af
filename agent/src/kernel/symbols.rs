//! Reads which functions the running kernel has, and where their code is if it shows that.
//!
//! The symbol table is read where it can be. Where it is masked, type information and the list of
//! traceable functions name functions; one that neither names may still exist.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use agent_core::kernel::symbols::traceable_function;
pub use agent_core::kernel::symbols::{Existence, SymbolScan, Symbols};

use super::limitation::AddressesHiddenBy;

/// The kernel's symbol table, below the root.
const SYMBOL_TABLE: &str = "proc/kallsyms";

/// Who may see addresses.
const KPTR_RESTRICT: &str = "proc/sys/kernel/kptr_restrict";

/// Functions that ftrace can trace; tracefs is mounted at the first, or within debugfs.
const TRACEABLE: &[&str] = &[
    "sys/kernel/tracing/available_filter_functions",
    "sys/kernel/debug/tracing/available_filter_functions",
];

/// The kernel gives at most a page per read; a bigger buffer saves no call.
const BUFFER_BYTES: usize = 4096;

/// Functions of this kernel, and what hides their addresses.
#[derive(Debug)]
pub struct KernelSymbols {
    /// Functions asked for.
    pub symbols: Symbols,
    /// Why none has an address; `None` when addresses are shown.
    pub hidden_by: Option<AddressesHiddenBy>,
}

/// Finds `functions`; `has_type` says whether type information has a function of that name.
pub fn read<'a>(
    root: &Path,
    functions: &(impl Iterator<Item = &'a str> + Clone),
    has_type: impl Fn(&str) -> bool,
) -> KernelSymbols {
    match symbol_table(root, functions.clone()) {
        Ok(Some(symbols)) => KernelSymbols {
            hidden_by: (!symbols.have_addresses()).then(|| named_table(root)),
            symbols,
        },
        masked => {
            if let Err(error) = masked {
                log::debug!("/{SYMBOL_TABLE} cannot be read: {error}");
            }
            KernelSymbols {
                symbols: witnessed(root, functions, has_type),
                hidden_by: Some(AddressesHiddenBy::Mask),
            }
        }
    }
}

fn symbol_table<'a>(
    root: &Path,
    functions: impl Iterator<Item = &'a str>,
) -> io::Result<Option<Symbols>> {
    let mut scan = SymbolScan::of(functions);
    lines_of(&root.join(SYMBOL_TABLE), |line| scan.line(line))?;
    Ok(scan.finish())
}

fn named_table(root: &Path) -> AddressesHiddenBy {
    let setting = fs::read_to_string(root.join(KPTR_RESTRICT)).ok();
    AddressesHiddenBy::of_named_table(setting.and_then(|text| text.trim().parse().ok()))
}

/// Functions that type information or the list of traceable functions names.
fn witnessed<'a>(
    root: &Path,
    functions: &(impl Iterator<Item = &'a str> + Clone),
    has_type: impl Fn(&str) -> bool,
) -> Symbols {
    let mut traceable = Vec::new();
    let mut keep = |line: &[u8]| {
        let listed = traceable_function(line);
        traceable.extend(functions.clone().find(|function| listed == Some(function)));
    };
    for path in TRACEABLE {
        match lines_of(&root.join(path), &mut keep) {
            Ok(()) => break,
            Err(error) => log::debug!("/{path} cannot be read: {error}"),
        }
    }
    let typed = functions.clone().filter(|function| has_type(function));
    Symbols::named(typed.chain(traceable).map(str::to_owned))
}

fn lines_of(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        each(line.trim_ascii_end());
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const FUNCTIONS: [&str; 3] = ["ip_vs_leave", "ip_vs_in_hook", "early_drop"];

    /// A root with these files, removed when dropped.
    struct Root(PathBuf);

    impl Root {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let id = std::process::id();
            let root = std::env::temp_dir().join(format!("ipvs-lens-symbols-{name}-{id}"));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }

        fn read(&self) -> KernelSymbols {
            read(&self.0, &FUNCTIONS.into_iter(), |name| {
                name == "ip_vs_leave"
            })
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn addresses_that_are_shown_are_used() {
        let root = Root::with(
            "shown",
            &[(
                SYMBOL_TABLE,
                "1000 t ip_vs_leave\t[ip_vs]\n1080 t next\t[ip_vs]\n",
            )],
        );
        let found = root.read();
        assert_eq!(found.hidden_by, None);
        assert_eq!(
            found.symbols.code("ip_vs_leave").next(),
            Some(0x1000..0x1080)
        );
        assert_eq!(found.symbols.existence("early_drop"), Existence::Absent);
    }

    #[test]
    fn hidden_addresses_are_explained() {
        let table = "0 t ip_vs_leave\t[ip_vs]\n0 t ip_vs_in_hook\t[ip_vs]\n";
        for (setting, hidden_by) in [
            ("2\n", AddressesHiddenBy::KptrRestrict),
            ("1\n", AddressesHiddenBy::NoSyslog),
        ] {
            let root = Root::with("hidden", &[(SYMBOL_TABLE, table), (KPTR_RESTRICT, setting)]);
            let found = root.read();
            assert_eq!(found.hidden_by, Some(hidden_by));
            assert_eq!(found.symbols.existence("ip_vs_in_hook"), Existence::Present);
            assert_eq!(found.symbols.existence("early_drop"), Existence::Absent);
        }
    }

    #[test]
    fn other_witnesses_stand_in_for_a_masked_table() {
        let traceable = "ip_rcv\nip_vs_in_hook [ip_vs]\n";
        let root = Root::with("masked", &[(SYMBOL_TABLE, ""), (TRACEABLE[1], traceable)]);
        let found = root.read();
        assert_eq!(found.hidden_by, Some(AddressesHiddenBy::Mask));
        let existence = FUNCTIONS.map(|function| found.symbols.existence(function));
        assert_eq!(
            existence,
            [Existence::Present, Existence::Present, Existence::Unknown]
        );
    }
}
