//! Functions of the running kernel by name, and where their code is if the kernel shows that. Pure.
//!
//! That a function exists never depends on an address: the kernel prints every address as 0 to a
//! process without CAP_SYSLOG and, with `kernel.kptr_restrict=2`, to all (kernel/ksyms_common.c).
//!
//! Sources: `/proc/kallsyms`, one `address type name [module]` per line (kernel/kallsyms.c);
//! `available_filter_functions` of tracefs, one `name [module]` per line (kernel/trace/ftrace.c).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

/// Whether this kernel has a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existence {
    /// A witness lists it.
    Present,
    /// The whole symbol table was read and does not list it.
    Absent,
    /// Nothing that lists every function could be read; only an attempt to attach shows it.
    Unknown,
}

/// Functions asked for, as far as this kernel has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    /// Code of each function by its name; empty when the kernel hides addresses. One name may
    /// stand for several functions (`static` ones), each with its own code.
    functions: BTreeMap<String, Vec<Range<u64>>>,
    /// Whether a function that is not among them does not exist.
    are_all: bool,
}

impl Symbols {
    /// Functions known by name alone, none of them by its absence.
    pub fn named(functions: impl IntoIterator<Item = String>) -> Self {
        Self {
            functions: functions
                .into_iter()
                .map(|name| (name, Vec::new()))
                .collect(),
            are_all: false,
        }
    }

    /// Whether this kernel has a function under exactly this name.
    pub fn existence(&self, function: &str) -> Existence {
        match (self.functions.contains_key(function), self.are_all) {
            (true, _) => Existence::Present,
            (false, true) => Existence::Absent,
            (false, false) => Existence::Unknown,
        }
    }

    /// Addresses of the function's code, also of pieces the compiler made of it
    /// (`name.constprop.0`, `name.cold`); none when they are hidden from this process.
    pub fn code(&self, function: &str) -> impl Iterator<Item = Range<u64>> {
        let pieces = self.functions.iter();
        pieces
            .filter(move |(name, _)| function_of(name) == function)
            .flat_map(|(_, code)| code.iter().cloned())
    }

    /// Whether the kernel shows this process addresses.
    pub fn have_addresses(&self) -> bool {
        self.functions.values().any(|code| !code.is_empty())
    }
}

/// Reads `/proc/kallsyms` line by line: of some 200,000 symbols only those asked for are named.
#[derive(Debug)]
pub struct SymbolScan<'a> {
    asked: HashSet<&'a str>,
    found: HashMap<String, Vec<u64>>,
    /// Of every symbol: the next one ends a function.
    addresses: Vec<u64>,
    lines: u64,
}

impl<'a> SymbolScan<'a> {
    /// Looks for these functions and the pieces the compiler made of them.
    pub fn of(functions: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            asked: functions.into_iter().collect(),
            found: HashMap::new(),
            addresses: Vec::new(),
            lines: 0,
        }
    }

    /// Takes one line; one that does not parse is passed over: the table is the kernel's own.
    pub fn line(&mut self, line: &[u8]) {
        let Some((address, kind, name)) = symbol(line) else {
            return;
        };
        self.lines += 1;
        if address != 0 {
            self.addresses.push(address);
        }
        if !matches!(kind, b"t" | b"T") {
            return;
        }
        let Ok(name) = std::str::from_utf8(name) else {
            return;
        };
        if self.asked.contains(function_of(name)) {
            let starts = self.found.entry(name.to_owned()).or_default();
            starts.extend((address != 0).then_some(address));
        }
    }

    /// What was found; `None` when there was no symbol at all, as in a masked file.
    ///
    /// A function ends where the next symbol of a higher address begins.
    pub fn finish(self) -> Option<Symbols> {
        if self.lines == 0 {
            return None;
        }
        let starts = self.found.values().flatten().copied();
        let ends = ends(starts, &self.addresses);
        let end = |start: u64| ends.get(&start).copied().flatten().unwrap_or(start);
        let functions = self.found.into_iter().map(|(name, starts)| {
            let code = starts.into_iter().map(|start| start..end(start));
            (name, code.collect())
        });
        Some(Symbols {
            functions: functions.collect(),
            are_all: true,
        })
    }
}

/// The next higher address of each start, found in one pass over addresses in any order.
fn ends(starts: impl Iterator<Item = u64>, addresses: &[u64]) -> BTreeMap<u64, Option<u64>> {
    let mut ends: BTreeMap<u64, Option<u64>> = starts.map(|start| (start, None)).collect();
    for address in addresses {
        if let Some((_, next)) = ends.range_mut(..address).next_back() {
            *next = Some(next.map_or(*address, |next| next.min(*address)));
        }
    }
    ends
}

/// The function named in one line of `available_filter_functions`.
pub fn traceable_function(line: &[u8]) -> Option<&str> {
    let name = line.split(u8::is_ascii_whitespace).next()?;
    std::str::from_utf8(name)
        .ok()
        .filter(|name| !name.is_empty())
}

/// The function a symbol is a piece of.
fn function_of(symbol: &str) -> &str {
    symbol
        .split_once('.')
        .map_or(symbol, |(function, _)| function)
}

fn symbol(line: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let mut fields = line
        .split(u8::is_ascii_whitespace)
        .filter(|field| !field.is_empty());
    let address = std::str::from_utf8(fields.next()?).ok()?;
    let address = u64::from_str_radix(address, 16).ok()?;
    Some((address, fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ffffffff81000000 T nf_hook_slow
ffffffff81000100 t nf_hook_slow.cold
ffffffff81000080 T nf_hook_slow_list
ffffffff81000200 D nf_data
ffffffffc0000000 t ip_vs_in_hook\t[ip_vs]
not a line
";

    fn scan(text: &str, functions: &[&str]) -> Option<Symbols> {
        let mut scan = SymbolScan::of(functions.iter().copied());
        for line in text.lines() {
            scan.line(line.as_bytes());
        }
        scan.finish()
    }

    #[test]
    fn a_function_ends_where_the_next_symbol_begins() {
        let symbols = scan(TEXT, &["nf_hook_slow", "ip_vs_in_hook"]).unwrap();
        let code: Vec<_> = symbols.code("nf_hook_slow").collect();
        assert_eq!(
            code,
            [
                0xffff_ffff_8100_0000..0xffff_ffff_8100_0080,
                0xffff_ffff_8100_0100..0xffff_ffff_8100_0200
            ],
            "both pieces"
        );
        assert_eq!(
            symbols.existence("ip_vs_in_hook"),
            Existence::Present,
            "of a module, and the last of all"
        );
        assert!(symbols.have_addresses());
    }

    #[test]
    fn names_match_whole_and_only_code_counts() {
        let symbols = scan(TEXT, &["nf_hook", "nf_data"]).unwrap();
        for function in ["nf_hook", "nf_data"] {
            assert_eq!(symbols.existence(function), Existence::Absent);
        }
        assert_eq!(symbols.code("nf_hook").count(), 0);
    }

    #[test]
    fn hidden_addresses_hide_no_function() {
        let hidden = "\
0000000000000000 T nf_hook_slow
0000000000000000 t ip_vs_in_hook\t[ip_vs]
0000000000000000 t ip_vs_leave\t[ip_vs]
";
        let functions = ["nf_hook_slow", "ip_vs_in_hook", "ip_vs_leave", "missing"];
        let symbols = scan(hidden, &functions).unwrap();
        let existence = functions.map(|function| symbols.existence(function));
        assert_eq!(existence[..3], [Existence::Present; 3]);
        assert_eq!(existence[3], Existence::Absent);
        assert_eq!(symbols.code("nf_hook_slow").count(), 0);
        assert!(!symbols.have_addresses());
    }

    #[test]
    fn a_name_may_stand_for_two_functions() {
        let twice = "1000 t early_drop\n2000 t early_drop [nf_conntrack]\n3000 t next\n";
        let symbols = scan(twice, &["early_drop"]).unwrap();
        let code: Vec<_> = symbols.code("early_drop").collect();
        assert_eq!(code, [0x1000..0x2000, 0x2000..0x3000]);
    }

    #[test]
    fn a_masked_table_proves_nothing() {
        assert_eq!(scan("", &["nf_hook_slow"]), None);
        let named = Symbols::named(["ip_vs_leave".to_owned()]);
        assert_eq!(named.existence("ip_vs_leave"), Existence::Present);
        assert_eq!(named.existence("ip_vs_in_hook"), Existence::Unknown);
    }

    #[test]
    fn traceable_functions_are_named_first() {
        assert_eq!(
            traceable_function(b"ip_vs_leave [ip_vs]"),
            Some("ip_vs_leave")
        );
        assert_eq!(traceable_function(b"ip_rcv"), Some("ip_rcv"));
        assert_eq!(traceable_function(b""), None);
    }
}
